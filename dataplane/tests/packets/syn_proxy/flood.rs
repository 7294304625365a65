//! A flood of SYNs from everywhere, and honest clients in the middle of it.

use super::*;
use crate::carriers::exchange::Dice;

/// A client that connects, sends and gets an answer; whether it had to prove itself.
fn served(d: &mut Director, n: u32) -> bool {
    let addr = format!("198.51.{}.{}:4000", n / 200, 1 + n % 200);
    let syn = with_options(&client_packet(&addr, VIP4, SYN, ISN, 0), &LINUX);
    let (to, mut f) = only(d.exchange(WAN, &syn));
    let proves = to == To::Port(WAN);
    let mut c = Client {
        addr: &addr,
        vip: VIP4,
        seq: ISN.wrapping_add(1),
        ack: SERVER_ISN + 1,
        told: None,
        syn_ack: segment(&f),
    };
    if proves {
        assert_eq!(c.syn_ack.flags, SYN | ACK, "client {n}");
        c.ack = c.syn_ack.seq.wrapping_add(1);
        c.told = Some(clocks_of(&c.syn_ack).0);
        let (to, syn) = only(d.exchange(WAN, &c.packet(ACK, b"GET")));
        assert_eq!(to, To::Port(LAN), "client {n}");
        f = syn;
    }
    let answer = server_packet(&f, SYN | ACK, SERVER_ISN, c.seq);
    let out = d.exchange(LAN, &with_options(&answer, &LINUX));
    assert_eq!(out.len(), 1 + usize::from(proves), "client {n}");
    if !proves {
        c.told = Some(0x1000);
        only(d.exchange(WAN, &c.packet(ACK | PSH, b"GET")));
    }
    let reply = server_packet(&f, ACK | PSH, SERVER_ISN + 1, c.seq.wrapping_add(3));
    let reply = with_options(&reply.payload(b"200"), &clocks(0x1001, 0x1100));
    let s = segment(&only(d.exchange(LAN, &reply)).1);
    assert_eq!((s.seq, &s.data[..]), (c.ack, &b"200"[..]), "client {n}");
    proves
}

fn is_on(d: &mut Director) -> Vec<bool> {
    let said = std::mem::take(&mut d.events);
    let on = said.into_iter().filter_map(|e| match e {
        Event::SynProxy { service, on } => {
            assert_eq!(service, ServiceId(0));
            Some(on)
        }
        _ => None,
    });
    on.collect()
}

#[test]
fn honest_clients_are_served_in_a_flood_and_the_table_stays_free() {
    for shape in shapes() {
        let workers = u32::from(shape.workers);
        let shape = Shape {
            max_connections: 1200,
            ..shape
        };
        let auto = SynProxy {
            mode: Mode::Auto,
            half_open: 300,
            ..ALWAYS
        };
        let mut d = director(
            &shape,
            Of {
                proxy: auto,
                ..PLAIN
            },
        );
        let mut dice = Dice(7);
        let mut honest = 0;
        assert!(!served(&mut d, honest), "nothing to prove in peace");
        // 30,000 SYNs from everywhere in 15 seconds: 25 times what the table holds.
        for n in 1..=30_000u64 {
            let from = Ipv4Addr::from(0x0b00_0000 | dice.roll(1 << 24) as u32);
            let from = format!("{from}:{}", 1024 + dice.roll(60_000));
            let syn = with_options(&client_packet(&from, VIP4, SYN, n as u32, 0), &LINUX);
            d.deliver(WAN, &syn, n as usize);
            if n % 32 == 0 {
                d.now = d.now.after(1);
                d.settle();
                d.collect();
            }
            if n % 500 == 0 {
                d.settle();
                d.collect();
                honest += 1;
                assert!(served(&mut d, honest), "after {n}");
            }
        }
        let evicted = d.sum(|c| c.conns_evicted.get());
        assert_eq!((evicted, d.drops(DropReason::ConnTableFull)), (0, 0));
        assert!(
            conns(&d) <= 300 + workers + honest + 1,
            "{} connections",
            conns(&d)
        );
        assert!(d.sum(|c| c.cookies_sent.get()) > 29_000);
        assert_eq!(d.sum(|c| c.cookies_valid.get()), u64::from(honest));
        let said = is_on(&mut d);
        assert!(said.len() >= 14 && said.iter().all(|on| *on), "{said:?}");

        // It ends: the half-open connections run out, and ten calm seconds later all is as before.
        let mut off = 0;
        for second in 0..80 {
            d.now = d.now.after(Tick::seconds(1));
            d.settle();
            let said = is_on(&mut d);
            off += said.iter().filter(|on| !**on).count();
            if off < workers as usize {
                assert!(second < 75 && served(&mut d, 1000 + second) || off > 0);
            }
        }
        assert_eq!(off, workers as usize);
        assert!(!served(&mut d, 5000));
        d.assert_books();
        d.assert_runs_out();
    }
}

/// What is counted as half-open is so: handshakes that end, either way, count no more.
#[test]
fn handshakes_that_end_do_not_add_up() {
    let auto = SynProxy {
        mode: Mode::Auto,
        half_open: 10,
        ..ALWAYS
    };
    let mut d = director(
        &Shape::default(),
        Of {
            proxy: auto,
            ..PLAIN
        },
    );
    for n in 0..100 {
        assert!(!served(&mut d, n));
        // Refused by the server.
        let from = format!("203.0.113.7:{}", 1024 + n);
        let syn = client_packet(&from, VIP4, SYN, ISN, 0).build();
        let at_server = only(d.exchange(WAN, &syn)).1;
        only(d.exchange(
            LAN,
            &server_packet(&at_server, RST | ACK, 0, ISN.wrapping_add(1)).build(),
        ));
    }
    // Abandoned ones, until they run out.
    for round in 0..3 {
        for n in 0..9 {
            let from = format!("203.0.113.{round}:{}", 1024 + n);
            only(d.exchange(WAN, &client_packet(&from, VIP4, SYN, ISN, 0).build()));
        }
        assert!(!served(&mut d, 200 + round));
        d.now = d.now.after(Tick::seconds(61));
        d.settle();
    }
    assert_eq!(d.sum(|c| c.cookies_sent.get()), 0);
    assert!(is_on(&mut d).is_empty());
    d.assert_books();
}
