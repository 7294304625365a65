//! Servers that leave: their connections end, and both sides are told.

use std::net::SocketAddr;
use std::sync::Arc;

use weir_dataplane::Proto;
use weir_dataplane::command::Command;
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::forward::carrier::ClientAddress;
use weir_dataplane::packet::build::{Packet, checksums_right};
use weir_dataplane::packet::tcp::flags::{ACK, PSH, RST, SYN};
use weir_dataplane::packet::{be32, eth};
use weir_dataplane::service::ServerPolicy;

use crate::common::*;
use crate::modes::{CLIENT4, CLIENT6, VIP4, VIP6, at, director, packet, snapshot_of};

/// What a frame says of itself: where it goes, its TCP flags and numbers.
#[derive(Debug, PartialEq)]
struct Said {
    to: To,
    from: SocketAddr,
    dst: SocketAddr,
    flags: u8,
    seq: u32,
    ack: u32,
}

fn said((to, f): &(To, Vec<u8>)) -> Said {
    assert!(checksums_right(f), "{f:02x?}");
    let (proto, from, dst) = ends(f);
    assert_eq!(proto, Proto::Tcp);
    let l4 = if eth::ethertype(f) == Ok(eth::IPV6) {
        54
    } else {
        34
    };
    assert_eq!(f.len(), l4 + 20, "headers only");
    Said {
        to: *to,
        from,
        dst,
        flags: f[l4 + 13],
        seq: be32(f, l4 + 4),
        ack: be32(f, l4 + 8),
    }
}

fn dismissed(vip: &str, mode: ForwardMode, server: &str) -> Arc<weir_dataplane::service::Snapshot> {
    let policy = ServerPolicy {
        dismissed: true,
        ..ServerPolicy::default()
    };
    Arc::new(snapshot_of(vip, (mode, None), &[server], ClientAddress::none, policy).build(3))
}

/// `(mode, vip, client, server)`
const ROWS: [(ForwardMode, &str, &str, &str); 6] = [
    (ForwardMode::fullnat, VIP4, CLIENT4, "10.1.0.11:8080"),
    (ForwardMode::fullnat, VIP6, CLIENT6, "[2001:db8:1::11]:8080"),
    (ForwardMode::fullnat, VIP6, CLIENT6, "10.1.0.11:8080"),
    (ForwardMode::nat, VIP4, CLIENT4, "10.1.0.11:8080"),
    (ForwardMode::nat, VIP6, CLIENT6, "[2001:db8:1::11]:8080"),
    (ForwardMode::dr, VIP4, CLIENT4, "10.1.0.11:80"),
];

#[test]
fn both_sides_of_an_idle_connection_are_reset() {
    for (mode, vip, client, server) in ROWS {
        for workers in [1, 3] {
            println!("{mode:?} {vip} to {server}, {workers} workers");
            let mut d = director(&Shape::workers(workers), vip, mode, &[server]);
            let syn = packet(Proto::Tcp, client, vip, SYN).build();
            let (_, at_server) = d.exchange(WAN, &syn).remove(0);
            let (_, local, remote) = ends(&at_server);
            if mode != ForwardMode::dr {
                d.exchange(LAN, &answer(&at_server, SYN | ACK).build());
            }
            d.exchange(WAN, &packet(Proto::Tcp, client, vip, ACK).build());
            assert_eq!(d.listing().len(), 1);

            let snapshot = dismissed(vip, mode, server);
            d.tell(|| Command::Snapshot(Arc::clone(&snapshot)));
            d.settle();
            let asked = d.collect();
            let asked: Vec<_> = asked.iter().map(said).collect();
            let probe = |to, from, dst| Said {
                to: To::Port(to),
                from,
                dst,
                flags: ACK,
                seq: 0,
                ack: 0,
            };
            let mut expected = vec![probe(WAN, at(vip), at(client))];
            if mode != ForwardMode::dr {
                expected.push(probe(LAN, local, remote));
            }
            assert_eq!(asked, expected);
            assert_eq!(d.listing().len(), 1, "until it says where it is");
            assert_eq!(d.sum(|c| c.conns_dismissed.get()), 1);

            // The client's answer, with data that nobody is to have.
            let mut says = packet(Proto::Tcp, client, vip, ACK | PSH).payload(b"lost");
            (says.seq, says.ack) = (7001, 9001);
            let resets = d.exchange(WAN, &says.build());
            let mut resets: Vec<_> = resets.iter().map(said).collect();
            resets.sort_by_key(|s| s.to == To::Port(LAN));
            let reset = |to, from, dst, flags, seq, ack| Said {
                to: To::Port(to),
                from,
                dst,
                flags,
                seq,
                ack,
            };
            assert_eq!(
                resets,
                [
                    reset(WAN, at(vip), at(client), RST, 9001, 0),
                    reset(LAN, local, remote, RST | ACK, 7001, 9001),
                ]
            );
            assert_eq!(d.listing(), []);
            assert_eq!(d.sum(|c| c.conns.get()), 0);
            d.assert_books();
        }
    }
}

#[test]
fn the_server_may_be_the_first_to_speak() {
    let (mode, vip, client, server) = ROWS[0];
    let mut d = director(&Shape::workers(3), vip, mode, &[server]);
    let (_, at_server) = d
        .exchange(WAN, &packet(Proto::Tcp, client, vip, SYN).build())
        .remove(0);
    d.exchange(LAN, &answer(&at_server, SYN | ACK).build());
    d.exchange(WAN, &packet(Proto::Tcp, client, vip, ACK).build());
    let snapshot = dismissed(vip, mode, server);
    d.tell(|| Command::Snapshot(Arc::clone(&snapshot)));
    d.settle();
    d.collect();
    let mut says = answer(&at_server, ACK);
    (says.seq, says.ack) = (5, 6);
    let resets = d.exchange(LAN, &says.build());
    let mut resets: Vec<_> = resets.iter().map(said).collect();
    resets.sort_by_key(|s| s.to == To::Port(LAN));
    assert_eq!(
        (resets[0].dst, resets[0].flags, resets[0].seq),
        (at(client), RST | ACK, 5)
    );
    assert_eq!(
        (resets[1].dst, resets[1].flags, resets[1].seq),
        (at(server), RST, 6)
    );
    assert_eq!(d.listing(), []);
    d.assert_books();
}

#[test]
fn what_has_no_words_for_an_end_is_forgotten_at_once() {
    for workers in [1, 3] {
        let (mode, vip, client, server) = ROWS[0];
        let mut d = director(&Shape::workers(workers), vip, mode, &[server]);
        for (proto, flags) in [(Proto::Udp, 0), (Proto::Sctp, SYN), (Proto::Tcp, SYN)] {
            d.exchange(WAN, &packet(proto, client, vip, flags).build());
        }
        assert_eq!(d.listing().len(), 3);
        let snapshot = dismissed(vip, mode, server);
        d.tell(|| Command::Snapshot(Arc::clone(&snapshot)));
        d.settle();
        assert_eq!(
            d.collect(),
            [],
            "nobody is asked: the handshake was not over"
        );
        assert_eq!(d.listing(), []);
        assert_eq!(d.sum(|c| c.conns_dismissed.get()), 3);
        d.assert_books();
    }
}

#[test]
fn nobody_answers_and_it_runs_out() {
    let (mode, vip, client, server) = ROWS[0];
    let mut d = director(&Shape::workers(1), vip, mode, &[server]);
    for n in 0..600u16 {
        let client = SocketAddr::new(at(client).ip(), 1000 + n);
        let syn = Packet::tcp(client, at(vip), SYN).macs(ROUTER_MAC, WAN_MAC);
        let (_, at_server) = d.exchange(WAN, &syn.build()).remove(0);
        d.exchange(LAN, &answer(&at_server, SYN | ACK).build());
        d.exchange(WAN, &Packet { flags: ACK, ..syn }.build());
    }
    let snapshot = dismissed(vip, mode, server);
    d.tell(|| Command::Snapshot(Arc::clone(&snapshot)));
    for _ in 0..8 {
        d.settle();
    }
    assert_eq!(d.collect().len(), 1200);
    assert_eq!(d.sum(|c| c.conns_dismissed.get()), 600);
    d.assert_runs_out();
}
