use std::sync::Arc;

use super::*;
use crate::conn::Pages;
use crate::conn::entry::{Flags, NewConn};
use crate::conn::state::State;
use crate::forward::ForwardMode;
use crate::packet::{Key4, Key6};
use crate::steer::{FIRST_PORT, MICROSOFT_KEY, Toeplitz};
use crate::types::{CoreId, Tick};

fn steer(me: u8, workers: u8) -> Steer {
    Steer::new(CoreId(me), workers, Arc::new(Toeplitz::new(MICROSOFT_KEY)))
}

fn conn(outbound: Key4) -> NewConn {
    let vip = "10.0.0.10:80".parse().unwrap();
    NewConn {
        inbound: Key4::new(Proto::Tcp, outbound.destination4(), vip), // as unique as the local side
        outbound,
        server_id: ServerId(1),
        mode: ForwardMode::fullnat,
        flags: Flags::NONE,
    }
}

fn lips(addresses: &[&str]) -> LocalAddresses {
    addresses
        .iter()
        .map(|a| a.parse::<IpAddr>().unwrap())
        .collect()
}

fn comes_home<K: Key>(server: &str, lips: &LocalAddresses) {
    let server: SocketAddr = server.parse().unwrap();
    for workers in [1, 2, 3, 7, 16, 128] {
        for me in 0..workers {
            let steer = steer(me, workers);
            let conns = ConnTable::<K>::new(16, Pages::Plain, [1, 2, 3, 4], Tick(0)).unwrap();
            let mut ports = LocalPorts::new(&steer, 7).unwrap();
            for _ in 0..300 {
                let got = ports
                    .lease(&steer, &conns, Proto::Tcp, ServerId(1), server, lips)
                    .expect("an empty table has free ports");
                assert_eq!(got.reply.source(), server);
                let local = got.reply.destination();
                assert!(local.port() >= FIRST_PORT && lips.iter().any(|l| l == local.ip()));
                assert_eq!(steer.owner(&got.reply), CoreId(me));
                // And so do those at the address of another connection.
                let at =
                    ports.lease_at(&steer, &conns, Proto::Tcp, ServerId(1), server, local.ip());
                let at = at.expect("an empty table has free ports").reply;
                assert_eq!((at.source(), at.destination().ip()), (server, local.ip()));
                assert_eq!(steer.owner(&at), CoreId(me));
            }
        }
    }
}

#[test]
fn every_reply_comes_home_for_every_number_of_workers() {
    let lips = lips(&[
        "10.1.0.100",
        "2001:db8:1::64",
        "10.1.0.101",
        "2001:db8:1::65",
    ]);
    comes_home::<Key4>("10.1.0.11:8080", &lips);
    comes_home::<Key6>("[2001:db8:1::b]:8080", &lips);
    comes_home::<Key6>("10.1.0.11:8080", &lips); // NAT64
}

/// One address and one server: one worker can have all 64,512 ports, each once, and then takes
/// ports of closing connections, and then none.
#[test]
fn capacity_is_every_port_and_shortage_takes_closing_ones() {
    let steer = steer(0, 1);
    let server: SocketAddr = "10.1.0.11:8080".parse().unwrap();
    let lips = lips(&["10.1.0.100"]);
    let mut conns = ConnTable::new(70_000, Pages::Plain, [1, 2, 3, 4], Tick(0)).unwrap();
    let mut ports = LocalPorts::new(&steer, 7).unwrap();
    let mut lease =
        |conns: &ConnTable| ports.lease(&steer, conns, Proto::Tcp, ServerId(1), server, &lips);
    let all = u32::from(u16::MAX) - u32::from(FIRST_PORT) + 1;
    let mut first = None;
    for _ in 0..all {
        // Uneven classes make the walk meet taken ports near its end: ask until it is through.
        let got = (0..2000).find_map(|_| lease(&conns)).expect("ports left");
        assert_eq!(got.early, None);
        let id = conns.insert(&conn(got.reply), 6400, Tick(0)).unwrap().0;
        first.get_or_insert(id);
    }
    assert_eq!(conns.len(), all);
    assert_eq!(
        (0..2000).find_map(|_| lease(&conns)),
        None,
        "all taken and none closing"
    );
    let first = first.unwrap();
    conns.touch(first, State::TimeWait, 6400, Tick(0));
    let early = (0..2000)
        .find_map(|_| lease(&conns))
        .expect("one is closing");
    assert_eq!(early.early, Some(first));
    assert_eq!(early.reply.destination(), conns.get(first).local());
}

/// What a server has forgotten is taken first, then what it has half forgotten.
#[test]
fn shortage_takes_the_port_that_the_server_minds_least() {
    let mut conns = ConnTable::new(8, Pages::Plain, [1, 2, 3, 4], Tick(0)).unwrap();
    let mut closing = |port: u16, state, ticks| {
        let server = std::net::SocketAddrV4::new([10, 1, 0, 11].into(), 8080);
        let local = std::net::SocketAddrV4::new([10, 1, 0, 100].into(), port);
        let reply = Key4::new(Proto::Tcp, server, local);
        let id = conns.insert(&conn(reply), 6400, Tick(0)).unwrap().0;
        conns.touch(id, state, ticks, Tick(0));
        *conns.get(id)
    };
    let reset = closing(2000, State::Close, 640);
    let old = closing(2001, State::TimeWait, 100);
    let new = closing(2002, State::TimeWait, 7680);
    for (better, worse) in [(&reset, &old), (&reset, &new), (&old, &new)] {
        assert!(is_safer(better, worse));
        assert!(!is_safer(worse, better));
    }
    assert!(!is_safer(&new, &new));
}

/// Of some ports each is given once, and none beside them; every reply comes home.
#[test]
fn some_ports_are_all_found_and_no_others() {
    let server: SocketAddr = "198.51.100.7:443".parse().unwrap();
    let address: IpAddr = "10.0.0.100".parse().unwrap();
    for (first, last) in [(1024, 1323), (40_000, 40_999), (65_000, 65_535)] {
        let range = PortRange::new(first, last).unwrap();
        let mut given = std::collections::HashSet::new();
        for me in 0..3 {
            let steer = steer(me, 3);
            let mut conns =
                ConnTable::<Key4>::new(2000, Pages::Plain, [1, 2, 3, 4], Tick(0)).unwrap();
            let mut ports = LocalPorts::new(&steer, 7).unwrap();
            for _ in 0..2000 {
                let supply = Supply::one(&address, range);
                let leased = ports.lease_from(&steer, &conns, Proto::Tcp, 9, server, supply);
                let Some(leased) = leased else { continue };
                let local: std::net::SocketAddr = leased.reply.destination();
                assert!(
                    range.contains(local.port()) && given.insert(local),
                    "{local}"
                );
                assert_eq!(steer.owner(&leased.reply), CoreId(me));
                conns.insert(&conn(leased.reply), 6400, Tick(0)).unwrap();
            }
        }
        assert_eq!(given.len() as u32, range.len());
    }
}

#[test]
fn a_key_that_cannot_steer_is_refused() {
    let dead = Steer::new(CoreId(0), 2, Arc::new(Toeplitz::new([0; 40])));
    assert_eq!(
        LocalPorts::<Key4>::new(&dead, 1).unwrap_err(),
        UselessKey { class: 1 }
    );
}

#[test]
fn no_address_gives_none() {
    let steer = steer(0, 1);
    let conns = ConnTable::<Key4>::new(16, Pages::Plain, [1, 2, 3, 4], Tick(0)).unwrap();
    let server: SocketAddr = "10.1.0.11:8080".parse().unwrap();
    let mut ports = LocalPorts::new(&steer, 7).unwrap();
    assert_eq!(
        ports.lease(
            &steer,
            &conns,
            Proto::Tcp,
            ServerId(1),
            server,
            &lips(&["::1"])
        ),
        None
    );
}
