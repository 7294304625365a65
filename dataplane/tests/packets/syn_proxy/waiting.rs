//! Servers that are silent, refuse or are gone, and the clients that wait for them.

use super::*;

#[test]
fn a_server_that_does_not_answer_is_asked_again_and_then_the_client_is_told() {
    for (what, client, vip, server) in FAMILIES {
        let servers: &[&str] = &[server];
        let mut d = director(
            &Shape::default(),
            Of {
                vip,
                servers,
                ..PLAIN
            },
        );
        let mut c = Client::connects(&mut d, client, vip, &LINUX);
        let syn = only(d.exchange(WAN, &c.packet(ACK, b""))).1;
        c.seq = c.seq.wrapping_add(0);
        assert_eq!(d.exchange(WAN, &c.packet(ACK, b"data")), []);
        for n in 1..4 {
            d.now = d.now.after(Tick::seconds(1));
            d.settle();
            let again = only(d.collect()).1;
            assert_eq!(segment(&again), segment(&syn), "{what}");
            assert_eq!(d.sum(|c| c.syns_repeated.get()), n);
        }
        d.now = d.now.after(Tick::seconds(1));
        d.settle();
        let (to, f) = only(d.collect());
        let s = segment(&f);
        assert_eq!((to, s.seq, s.flags), (To::Port(WAN), c.ack, RST), "{what}");
        assert_eq!((conns(&d), d.totals().held), (0, 0));
        assert_eq!(d.drops(DropReason::ServerSilent), 1, "its data");
        // A late answer finds nobody.
        let late = server_packet(&syn, SYN | ACK, SERVER_ISN, c.seq).build();
        assert_eq!(segment(&only(d.exchange(LAN, &late)).1).flags, RST);
        d.assert_books();
    }
}

#[test]
fn a_server_that_refuses_and_a_client_that_gives_up() {
    let mut d = director(&Shape::default(), PLAIN);
    let c = Client::connects(&mut d, CLIENT4, VIP4, &LINUX);
    let syn = only(d.exchange(WAN, &c.packet(ACK, b"data"))).1;
    // Not about our SYN.
    let stray = server_packet(&syn, RST | ACK, 0, c.seq.wrapping_add(77)).build();
    assert_eq!(d.exchange(LAN, &stray), []);
    // A connection that the server still has: it is told that it is over.
    let old = server_packet(&syn, ACK, 1234, 777).build();
    let (to, f) = only(d.exchange(LAN, &old));
    assert_eq!(
        (to, segment(&f).seq, segment(&f).flags),
        (To::Port(LAN), 777, RST)
    );
    let refusal = server_packet(&syn, RST | ACK, 0, c.seq).build();
    let (to, f) = only(d.exchange(LAN, &refusal));
    let s = segment(&f);
    assert_eq!(
        (to, s.seq, s.ack, s.flags),
        (To::Port(WAN), c.ack, c.seq, RST | ACK)
    );
    assert_eq!(d.exchange(WAN, &c.packet(ACK, b"data")), []);
    assert_eq!(d.drops(DropReason::ServerSilent), 3);
    d.assert_books();
    d.assert_runs_out();

    let mut d = director(&Shape::default(), PLAIN);
    let c = Client::connects(&mut d, CLIENT4, VIP4, &LINUX);
    only(d.exchange(WAN, &c.packet(ACK, b"data")));
    let (to, f) = only(d.exchange(WAN, &c.packet(RST, b"")));
    assert_eq!((to, segment(&f).seq), (To::Port(LAN), c.seq));
    assert_eq!((conns(&d), records(&d)), (0, 0));
    d.assert_books();
    d.assert_runs_out();
}

/// More clients wait than there is room for: who waits for longest proves itself again.
#[test]
fn waiting_is_bounded_and_nobody_is_lost() {
    let mut d = director(&Shape::default(), PLAIN);
    let names: Vec<String> = (0..600)
        .map(|n| format!("192.0.2.9:{}", 2000 + n))
        .collect();
    for name in &names {
        let c = Client::connects(&mut d, name, VIP4, &LINUX);
        assert_eq!(
            only(d.exchange(WAN, &c.packet(ACK, b"data"))).0,
            To::Port(LAN)
        );
    }
    assert_eq!((conns(&d), d.totals().held), (512, 512));
    assert_eq!(d.drops(DropReason::AwaitingServer), 88);
    let c = Client::connects(&mut d, &names[0], VIP4, &LINUX);
    assert_eq!(
        only(d.exchange(WAN, &c.packet(ACK, b"data"))).0,
        To::Port(LAN)
    );
    // Of each as much as its window lets it send.
    let mut c = Client::connects(&mut d, "192.0.2.9:80", VIP4, &LINUX);
    let syn = only(d.exchange(WAN, &c.packet(ACK, b""))).1;
    let (start, before) = (c.seq, d.drops(DropReason::AwaitingServer));
    for n in 0..6 {
        c.seq = start.wrapping_add(n * 4);
        let flags = if n == 3 { ACK | FIN } else { ACK };
        assert_eq!(d.exchange(WAN, &c.packet(flags, b"four")), []);
    }
    assert_eq!(d.drops(DropReason::AwaitingServer), before + 2);
    let answer = with_options(&server_packet(&syn, SYN | ACK, SERVER_ISN, start), &LINUX);
    let out = d.exchange(LAN, &answer);
    let data: Vec<u8> = out.iter().flat_map(|(_, f)| segment(f).data).collect();
    assert_eq!((out.len(), &data[..]), (6, &b"fourfourfourfour"[..]));
    // The others' servers never answer.
    for _ in 0..5 {
        d.now = d.now.after(Tick::seconds(1));
        d.settle();
        d.collect();
        d.assert_books();
    }
    assert_eq!(conns(&d), 1);
    d.assert_runs_out();
    assert_eq!((records(&d), d.totals().held), (0, 0));
}

/// Nobody to send it to: the client, which believes to be connected, is told at once.
#[test]
fn without_a_server_nothing_is_promised_and_nothing_kept() {
    let mut d = director(&Shape::default(), PLAIN);
    let c = Client::connects(&mut d, CLIENT4, VIP4, &LINUX);
    follow(
        &mut d,
        Of {
            servers: &[],
            ..PLAIN
        },
        3,
    );
    let s = segment(&only(d.exchange(WAN, &c.packet(ACK, b"data"))).1);
    assert_eq!((s.seq, s.flags), (c.ack, RST));
    assert_eq!(d.drops(DropReason::NoServer), 1);
    let syn = with_options(&client_packet(CLIENT4, VIP4, SYN, ISN, 0), &LINUX);
    let out = d.exchange(WAN, &syn);
    assert_eq!(out[0].1[23], 1, "ICMP: there is nobody");
    d.assert_books();
}
