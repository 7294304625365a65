//! Two handshakes become one connection: what client and server see of each other.

use super::*;

/// All families, modes, carriers, one worker and three: what client and server see of each other.
#[test]
fn two_handshakes_become_one_connection() {
    let carriers = [
        ClientAddress::none,
        ClientAddress::toa,
        ClientAddress::proxy_v2,
    ];
    let fullnat = carriers.map(|carrier| (ForwardMode::fullnat, carrier));
    for (mode, carrier) in fullnat
        .into_iter()
        .chain([(ForwardMode::nat, ClientAddress::none)])
    {
        for (what, client, vip, server) in FAMILIES {
            if mode == ForwardMode::nat && at(client).is_ipv4() != at(server).is_ipv4() {
                continue;
            }
            for shape in shapes() {
                let what = format!("{what} {} {}", mode.name(), carrier.name());
                let servers: &[&str] = &[server];
                let of = Of {
                    vip,
                    servers,
                    mode,
                    carrier,
                    ..PLAIN
                };
                joined(&shape, of, client, &what);
            }
        }
    }
}

fn joined(shape: &Shape, of: Of<'_>, client: &str, what: &str) {
    let mut d = director(shape, of);
    let mut c = Client::connects(&mut d, client, of.vip, &LINUX);
    let told = c.told.unwrap();
    let (start, waits) = (c.seq, c.ack);

    // The acknowledgement with data: the server gets a SYN in its client's name.
    let get = c.packet(ACK | PSH, b"GET /");
    let (to, syn) = only(d.exchange(WAN, &get));
    assert_eq!(to, To::Port(LAN), "{what}");
    let s = segment(&syn);
    assert_eq!((s.seq, s.ack, s.flags), (ISN, 0, SYN), "{what}");
    assert!(s.data.is_empty());
    let mss = if at(client).is_ipv6() { 1440u16 } else { 1460 };
    assert_eq!(
        s.options[0],
        [&[2, 4], &mss.to_be_bytes()[..]].concat(),
        "{what}"
    );
    assert_eq!(s.options[1..2], [vec![4, 2]], "{what}");
    assert_eq!(clocks_of(&s), (0x1100, 0), "{what}: the client's clock");
    assert_eq!(s.options[3], [3, 3, 9], "{what}: the client's scale");
    assert_eq!((conns(&d), records(&d)), (1, 1));
    assert_eq!(d.totals().held, 1);

    // More of it is held, in order; repetitions are not.
    c.seq = start.wrapping_add(5);
    assert_eq!(d.exchange(WAN, &c.packet(ACK, b"more")), []);
    assert_eq!(d.exchange(WAN, &c.packet(ACK, b"more")), []);
    assert_eq!(d.exchange(WAN, &get), []);
    assert_eq!(d.exchange(WAN, &c.packet(ACK, b"")), []);
    assert_eq!(d.drops(DropReason::AwaitingServer), 3);
    d.assert_books();

    // The server answers: window 1000 as it is, scale 2, its clock.
    let answer = server_packet(&syn, SYN | ACK, SERVER_ISN, start);
    let options = [
        &[2, 4, 5, 180, 4, 2][..],
        &clocks(9_000_000, 0x1100)[2..],
        &[1, 3, 3, 2],
    ];
    let mut syn_ack = with_options(&answer, &options.concat());
    set_window(&mut syn_ack, 1000);
    let mut out = d.exchange(LAN, &syn_ack);
    let n = match of.carrier {
        ClientAddress::proxy_v2 => header(of.carrier, client, of.vip).len() as u32,
        _ => 0,
    };
    out.sort_by_key(|(to, _)| *to);
    // To the client: the server's window, in units of 128, and nothing new.
    let (to, update) = out.remove(0);
    assert_eq!(to, To::Port(WAN), "{what}");
    let s = segment(&update);
    assert_eq!(
        (s.seq, s.ack, s.flags, &s.data[..]),
        (waits, start, ACK, &b""[..]),
        "{what}"
    );
    assert_eq!(window(&update), 1000 >> 7, "{what}");
    assert_eq!(clocks_of(&s), (told, 0x1100), "{what}");
    // To the server: what was held, in its numbers.
    assert!(out.iter().all(|(to, _)| *to == To::Port(LAN)), "{what}");
    let mut sent: Vec<Segment> = out.iter().map(|(_, f)| segment(f)).collect();
    if n > 0 {
        let h = sent.remove(0);
        assert_eq!(
            (h.seq, h.data.len()),
            (start, n as usize),
            "{what}: the header first"
        );
        assert_eq!(h.ack, SERVER_ISN + 1, "{what}");
    }
    let data: Vec<&[u8]> = sent.iter().map(|s| &s.data[..]).collect();
    assert_eq!(data, [&b"GET /"[..], b"more"], "{what}");
    for (s, behind) in sent.iter().zip([0, 5]) {
        let seq = start.wrapping_add(behind + n);
        assert_eq!((s.seq, s.ack), (seq, SERVER_ISN + 1), "{what}");
        assert_eq!(
            clocks_of(s),
            (0x1100, 9_000_000),
            "{what}: its own clock back"
        );
        let toa = s.options.iter().find(|o| o[0] == 254);
        let wanted = of.carrier == ClientAddress::toa && s.options.len() > 1;
        assert_eq!(toa.is_some(), wanted, "{what}");
        if let Some(toa) = toa {
            assert_eq!(*toa, toa4(at(client)), "{what}");
        }
    }
    assert_eq!(d.totals().held, 0);

    // Data of the server's: its numbers and clock as the client knows them; what it acknowledges
    // is the client's own.
    let far = start.wrapping_add(9);
    let mut reply = with_options(
        &server_packet(&syn, ACK, SERVER_ISN + 1, far.wrapping_add(n)).payload(b"200"),
        &clocks(9_000_007, 0x1100),
    );
    set_window(&mut reply, 320);
    let f = only(d.exchange(LAN, &reply)).1;
    let s = segment(&f);
    assert_eq!(
        (s.seq, s.ack, &s.data[..]),
        (waits, far, &b"200"[..]),
        "{what}"
    );
    assert_eq!(clocks_of(&s), (told.wrapping_add(7), 0x1100), "{what}");
    assert_eq!(window(&f), 320 * 4 / 128, "{what}");
    // The client acknowledges, and has a block behind a hole: in the server's numbers.
    let mut p = client_packet(client, of.vip, ACK, far, waits.wrapping_add(3));
    p.payload = vec![];
    let blocks = |by: u32| {
        let edges = [10u32, 20].map(|k| by.wrapping_add(k).to_be_bytes());
        [&[1, 1, 5, 10][..], &edges.concat()].concat()
    };
    let options = [clocks(0x1108, told.wrapping_add(7)), blocks(waits)].concat();
    let f = only(d.exchange(WAN, &with_options(&p, &options))).1;
    let s = segment(&f);
    assert_eq!(
        (s.seq, s.ack),
        (far.wrapping_add(n), SERVER_ISN + 4),
        "{what}"
    );
    assert_eq!(clocks_of(&s), (0x1108, 9_000_007), "{what}");
    let sack = s.options.iter().find(|o| o[0] == 5).unwrap();
    assert_eq!(sack[..], blocks(SERVER_ISN + 1)[2..], "{what}");
    // It closes; resets have the numbers that they need.
    let mut p = client_packet(client, of.vip, RST, far, 0);
    p.payload = vec![];
    let s = segment(&only(d.exchange(WAN, &p.build())).1);
    assert_eq!(
        (s.seq, s.ack, s.flags),
        (far.wrapping_add(n), 0, RST),
        "{what}"
    );
    let rst = server_packet(&syn, RST, SERVER_ISN + 4, 0).build();
    let s = segment(&only(d.exchange(LAN, &rst)).1);
    assert_eq!(s.seq, waits.wrapping_add(3), "{what}");
    assert_eq!(d.sum(|c| c.cookies_valid.get()), 1);
    d.assert_books();
    d.assert_runs_out();
    assert_eq!(records(&d), 0, "{what}");
}

#[test]
fn options_are_what_both_ends_have() {
    // Windows: no timestamps. Something old: nothing at all.
    let windows = [2, 4, 5, 180, 1, 3, 3, 8, 1, 1, 4, 2];
    type Options<'a> = &'a [&'a [u8]];
    let rows: &[(&str, &[u8], Options<'_>, Options<'_>)] = &[
        (
            "windows",
            &windows,
            &[&[2, 4, 5, 180], &[4, 2], &[3, 3, 7]],
            &[&[2, 4, 5, 180], &[4, 2], &[3, 3, 8]],
        ),
        ("old", &[2, 4, 3, 0], &[&[2, 4, 5, 180]], &[&[2, 4, 2, 24]]),
        (
            "scale 14 and more, and none of SACK",
            &[2, 4, 35, 40, 1, 3, 3, 99],
            &[&[2, 4, 5, 180], &[3, 3, 7]],
            &[&[2, 4, 35, 0], &[3, 3, 14]],
        ),
    ];
    for (what, asked, told, repeated) in rows {
        let mut d = director(&Shape::default(), PLAIN);
        let c = Client::connects(&mut d, CLIENT4, VIP4, asked);
        assert_eq!(c.syn_ack.options, *told, "{what}");
        let syn = only(d.exchange(WAN, &c.packet(ACK, b""))).1;
        assert_eq!(segment(&syn).options, *repeated, "{what}");
    }
}

/// A server that takes less than it was offered for: this connection makes do, the next client
/// is offered no more than that.
#[test]
fn what_a_server_refuses_is_not_offered_again() {
    let mut d = director(&Shape::default(), PLAIN);
    let c = Client::connects(&mut d, CLIENT4, VIP4, &LINUX);
    let syn = only(d.exchange(WAN, &c.packet(ACK, b""))).1;
    let answer = server_packet(&syn, SYN | ACK, SERVER_ISN, c.seq);
    let mut answer = with_options(&answer, &[2, 4, 5, 120]);
    set_window(&mut answer, 6400);
    let out = d.exchange(LAN, &answer);
    assert_eq!(
        window(&out[0].1),
        6400 >> 7,
        "the client shifts all the same"
    );
    // The server takes the client's windows as they are.
    let mut p = c.packet(ACK, b"x");
    set_window(&mut p, 3);
    assert_eq!(window(&only(d.exchange(WAN, &p)).1), 3 << 9);
    set_window(&mut p, 500);
    assert_eq!(window(&only(d.exchange(WAN, &p)).1), 0xffff);
    let other = Client::connects(&mut d, "192.0.2.8:4000", VIP4, &LINUX);
    assert_eq!(other.syn_ack.options, [[2, 4, 5, 120]]);
    assert_eq!(other.syn_ack.seq & 0x1f, 15 << 1, "neither scale nor SACK");
    // Other servers, other habits.
    follow(
        &mut d,
        Of {
            servers: &["10.1.0.12:8080"],
            ..PLAIN
        },
        3,
    );
    let other = Client::connects(&mut d, "192.0.2.8:4000", VIP4, &LINUX);
    assert_eq!(other.syn_ack.options.len(), 4);
    d.assert_books();
}

/// What ends the server's handshake was lost, and its client waits for the server to speak.
#[test]
fn a_repeated_syn_ack_has_the_client_acknowledge() {
    for carrier in [ClientAddress::none, ClientAddress::proxy_v2] {
        let mut d = director(&Shape::default(), Of { carrier, ..PLAIN });
        let c = Client::connects(&mut d, CLIENT4, VIP4, &LINUX);
        let syn = only(d.exchange(WAN, &c.packet(ACK, b""))).1;
        let answer = server_packet(&syn, SYN | ACK, SERVER_ISN, c.seq);
        let answer = with_options(&answer, &LINUX);
        assert_eq!(d.exchange(LAN, &answer).len(), 2);
        d.now = d.now.after(Tick::seconds(1));
        let (to, f) = only(d.exchange(LAN, &answer));
        let s = segment(&f);
        assert_eq!((to, s.flags, s.ack), (To::Port(WAN), ACK, c.seq));
        assert_eq!(
            s.seq,
            c.ack.wrapping_sub(1),
            "a number that it had: it answers"
        );
        let (to, f) = only(d.exchange(WAN, &c.packet(ACK, b"")));
        let s = segment(&f);
        assert_eq!((to, s.seq, s.ack), (To::Port(LAN), c.seq, SERVER_ISN + 1));
        assert_eq!(
            s.data.is_empty(),
            carrier == ClientAddress::none,
            "and the header again"
        );
        d.assert_books();
    }
}
