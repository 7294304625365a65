//! One-packet scheduling: each datagram for itself.

use std::net::SocketAddr;

use super::kinds::{Kind, at, director_with, marked, rules};
use super::modes::{packet, shapes};
use super::*;
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::service::ServiceKey;

const CLIENT: &str = "192.0.2.7:40000";
const CLIENT6: &str = "[2001:db8:77::7]:40000";
const VIP: &str = "10.0.0.10:53";
const VIP6: &str = "[2001:db8::10]:53";

fn dns(vip: &str) -> ServiceKey {
    ServiceKey::Address {
        proto: Proto::Udp,
        vip: at(vip).ip(),
        port: 53,
    }
}

fn shape_of(shape: &Shape) -> Shape {
    let mut shape = shape.clone();
    shape.timeouts.set(State::Udp, Tick::seconds(5));
    shape
}

fn director(shape: &Shape, kind: Kind<'_>) -> Director {
    director_with(&shape_of(shape), &[kind], &rules(), |service, _| {
        service.policy.one_packet = true;
    })
}

fn query(client: &str, vip: &str) -> Vec<u8> {
    packet(Proto::Udp, client, vip, 0).build()
}

/// Who got a datagram: by address, or by MAC where that stays.
fn server_of(frame: &[u8], servers: &[SocketAddr]) -> usize {
    let to = ends(frame).2;
    let by_address = servers.iter().position(|s| s.ip() == to.ip());
    by_address.unwrap_or_else(|| usize::from(eth::dst(frame) == server_mac(12)))
}

/// From one socket, to the servers in turn; answers, late ones too, come from the virtual address.
#[test]
fn one_socket_reaches_every_server() {
    let v4 = ["10.1.0.11:53", "10.1.0.12:53"];
    let v6 = ["[2001:db8:1::11]:53", "[2001:db8:1::12]:53"];
    for (mode, client, vip, servers) in [
        (ForwardMode::fullnat, CLIENT, VIP, v4),
        (ForwardMode::fullnat, CLIENT6, VIP6, v6),
        (ForwardMode::fullnat, CLIENT6, VIP6, v4), // NAT64
        (ForwardMode::nat, CLIENT, VIP, v4),
        (ForwardMode::nat, CLIENT6, VIP6, v6),
        (ForwardMode::dr, CLIENT, VIP, v4),
    ] {
        for shape in shapes() {
            let what = format!("{mode:?} {client} {shape:?}");
            let mut d = director(&shape, (dns(vip), mode, &servers));
            let addresses = servers.map(at);
            let (mut arrived, mut last) = (Vec::new(), None);
            for _ in 0..40 {
                let (to, f) = only(d.exchange(WAN, &query(client, vip)));
                assert_eq!(to, To::Port(LAN), "{what}");
                assert!(checksums_right(&f), "{what}");
                let server = Some(server_of(&f, &addresses));
                assert_ne!(server, last, "{what}: in turn");
                last = server;
                arrived.push(f);
            }
            if mode == ForwardMode::dr {
                assert_eq!(d.sum(|c| c.conns.get()), 0, "{what}: nothing stays");
            } else {
                for f in &arrived {
                    let (to, f) = only(d.exchange(LAN, &answer(f, 0).payload(b"reply").build()));
                    assert_eq!(to, To::Port(WAN), "{what}");
                    assert_eq!(ends(&f), (Proto::Udp, at(vip), at(client)), "{what}");
                    assert!(checksums_right(&f), "{what}");
                }
                // NAT's answers to one socket are all alike, one server's.
                let entries = if mode == ForwardMode::nat { 2 } else { 40 };
                assert_eq!(d.sum(|c| c.conns.get()), entries, "{what}");
                assert_eq!(d.listing().len() as u64, entries, "{what}");
            }
            d.assert_books();
            // Some seconds after the last answer nothing is left.
            d.now = d.now.after(Tick::seconds(8));
            d.settle();
            assert_eq!(d.sum(|c| c.conns.get()), 0, "{what}");
            d.assert_runs_out();
        }
    }
}

/// NAT: an answer's key that another service's connection has is not taken from it.
#[test]
fn answers_are_told_apart() {
    for shape in shapes() {
        let other = "10.0.0.11:53";
        let servers: &[&str] = &["10.1.0.11:53"];
        let kinds = [
            (dns(VIP), ForwardMode::nat, servers),
            (dns(other), ForwardMode::nat, servers),
        ];
        let mut d = director_with(&shape_of(&shape), &kinds, &[], |service, _| {
            service.policy.one_packet = true;
        });
        only(d.exchange(WAN, &query(CLIENT, VIP)));
        assert_eq!(d.exchange(WAN, &query(CLIENT, other)), []);
        assert_eq!(d.drops(DropReason::ReplyKeyTaken), 1);
        d.assert_books();
        d.now = d.now.after(Tick::seconds(8));
        d.settle();
        let (_, f) = only(d.exchange(WAN, &query(CLIENT, other)));
        let (_, f) = only(d.exchange(LAN, &answer(&f, 0).build()));
        assert_eq!(ends(&f).1, at(other));
        d.assert_books();
        d.assert_runs_out();
    }
}

/// A datagram in parts needs one server for all of them.
#[test]
fn parts_of_a_datagram_stay_together() {
    for (shape, mode) in shapes()
        .iter()
        .flat_map(|s| [ForwardMode::fullnat, ForwardMode::nat, ForwardMode::dr].map(|m| (s, m)))
    {
        let mut d = director(shape, (dns(VIP), mode, &["10.1.0.11:53", "10.1.0.12:53"]));
        let servers = ["10.1.0.11:53", "10.1.0.12:53"].map(at);
        for id in 0..4 {
            let whole = packet(Proto::Udp, CLIENT, VIP, 0)
                .payload(&[7; 3000])
                .build();
            let mut macs = std::collections::HashSet::new();
            for mut part in parts(&whole, 1500) {
                put16(&mut part, 18, 100 + id);
                packet::checksum::set_ipv4(&mut part);
                for (to, f) in d.exchange(WAN, &part) {
                    assert_eq!(to, To::Port(LAN));
                    macs.insert(eth::dst(&f));
                }
            }
            assert_eq!(macs.len(), 1, "{mode:?} {shape:?}");
        }
        let _ = servers;
        d.assert_books();
        d.assert_runs_out();
    }
}

/// TCP of a mark's service is not scheduled by the packet.
#[test]
fn other_protocols_keep_their_connections() {
    let kind: Kind<'_> = (
        marked(7, false),
        ForwardMode::nat,
        &["10.1.0.11:0", "10.1.0.12:0"],
    );
    let mut d = director(&Shape::default(), kind);
    let servers = ["10.1.0.11:0", "10.1.0.12:0"].map(at);
    let vip = "10.0.0.20:443";
    let mut reached = |proto, flags| {
        let (_, f) = only(d.exchange(WAN, &packet(proto, CLIENT, vip, flags).build()));
        server_of(&f, &servers)
    };
    let first = reached(Proto::Tcp, SYN);
    assert_eq!(
        [first; 3],
        [ACK, ACK, ACK].map(|flags| reached(Proto::Tcp, flags))
    );
    let datagrams = [0; 4].map(|flags| reached(Proto::Udp, flags));
    assert_eq!(datagrams, [1 - first, first, 1 - first, first]);
    d.assert_books();
    d.assert_runs_out();
}
