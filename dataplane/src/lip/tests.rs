use std::sync::Arc;

use super::*;
use crate::conn::Pages;
use crate::conn::entry::NewConn;
use crate::conn::state::State;
use crate::forward::ForwardMode;
use crate::steer::{MICROSOFT_KEY, Toeplitz};
use crate::types::{CoreId, Tick};

fn steer(me: u8, workers: u8) -> Steer {
    Steer::new(CoreId(me), workers, Arc::new(Toeplitz::new(MICROSOFT_KEY)))
}

fn conn(server: SocketAddrV4, local: SocketAddrV4) -> NewConn {
    NewConn {
        proto: Proto::Tcp,
        client: SocketAddrV4::new(*local.ip(), local.port()), // as unique as the local side
        virtual_: "10.0.0.10:80".parse().unwrap(),
        local,
        server,
        server_id: ServerId(1),
        mode: ForwardMode::fullnat,
    }
}

#[test]
fn every_reply_comes_home_for_every_number_of_workers() {
    let server: SocketAddrV4 = "10.1.0.11:8080".parse().unwrap();
    let lips = [Ipv4Addr::new(10, 1, 0, 100), Ipv4Addr::new(10, 1, 0, 101)];
    for workers in [1, 2, 3, 7, 16, 128] {
        for me in 0..workers {
            let steer = steer(me, workers);
            let conns = ConnTable::new(16, Pages::Plain, [1, 2, 3, 4], Tick(0)).unwrap();
            let mut ports = LocalPorts::new(&steer, 7).unwrap();
            for _ in 0..300 {
                let got = ports
                    .lease(&steer, &conns, Proto::Tcp, ServerId(1), server, &lips)
                    .expect("an empty table has free ports");
                assert!(got.local.port() >= FIRST_PORT && lips.contains(got.local.ip()));
                let owner = steer.owner4(
                    u32::from(*server.ip()),
                    u32::from(*got.local.ip()),
                    server.port(),
                    got.local.port(),
                );
                assert_eq!(owner, CoreId(me));
            }
        }
    }
}

/// One address and one server: one worker can have all 64,512 ports, each once, and then takes
/// ports of closing connections, and then none.
#[test]
fn capacity_is_every_port_and_shortage_takes_closing_ones() {
    let steer = steer(0, 1);
    let server: SocketAddrV4 = "10.1.0.11:8080".parse().unwrap();
    let lips = [Ipv4Addr::new(10, 1, 0, 100)];
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
        let id = conns
            .insert(&conn(server, got.local), 6400, Tick(0))
            .unwrap()
            .0;
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
    assert_eq!(early.local, conns.get(first).local());
}

#[test]
fn a_key_that_cannot_steer_is_refused() {
    let dead = Steer::new(CoreId(0), 2, Arc::new(Toeplitz::new([0; 40])));
    assert_eq!(
        LocalPorts::new(&dead, 1).unwrap_err(),
        UselessKey { class: 1 }
    );
}

#[test]
fn no_address_gives_none() {
    let steer = steer(0, 1);
    let conns = ConnTable::new(16, Pages::Plain, [1, 2, 3, 4], Tick(0)).unwrap();
    let server: SocketAddrV4 = "10.1.0.11:8080".parse().unwrap();
    let mut ports = LocalPorts::new(&steer, 7).unwrap();
    assert_eq!(
        ports.lease(&steer, &conns, Proto::Tcp, ServerId(1), server, &[]),
        None
    );
}
