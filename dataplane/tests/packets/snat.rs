//! SNAT: what real servers open themselves, through one and three workers.

mod errors;
mod pools;
mod rules;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use weir_dataplane::command::{Command, PortUpdate};
use weir_dataplane::counters::DropReason;
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::forward::carrier::ClientAddress;
use weir_dataplane::packet::build::{Packet, checksums_right};
use weir_dataplane::packet::tcp::flags::{ACK, FIN, RST, SYN};
use weir_dataplane::packet::{be16, checksum, eth};
use weir_dataplane::route::{Fib, Route, RouteTarget};
use weir_dataplane::sched::{Options, Scheduler, SchedulerKind};
use weir_dataplane::service::{
    Candidate, Pattern, PortRange, Server, ServerPolicy, Service, ServiceKey, Snapshot,
    SnapshotBuilder, SnatRule, SnatRules,
};
use weir_dataplane::{PortId, Proto, ServerId, ServiceId, Tick};

use crate::common::snat::*;
use crate::common::*;
use crate::errors::{addresses, error_about};
use crate::modes::{self, CLIENT4, VIP4, VIP6, at, shapes};
use crate::only;

const INSIDE4: &str = "10.1.0.11:5000";
const INSIDE6: &str = "[2001:db8:1::11]:5000";
const FAR4: &str = "198.51.100.7:443";
const FAR6: &str = "[2001:db8:f::7]:443";
const POOL: [&str; 4] = [
    "10.0.0.100",
    "10.0.0.101",
    "2001:db8:0::100",
    "2001:db8:0::101",
];
const PROTOS: [Proto; 4] = [Proto::Tcp, Proto::Udp, Proto::Sctp, Proto::Icmp];
/// Servers of pools, in the snapshots of these tests, have numbers from here on.
const FIRST_ID: u32 = 3;

/// A NAT service at `vip` (services 0 to 2, one server) and SNAT by `rules`, whose pool "out" has
/// `pool`.
fn snapshot_of(vip: &str, server: &str, rules: Vec<SnatRule>, pool: &[&str]) -> SnapshotBuilder {
    let mut b = SnapshotBuilder::default();
    let id = ServerId(0);
    b.server(Server {
        id,
        service: ServiceId(0),
        address: at(server),
        forward: ForwardMode::nat,
        tunnel: None,
        policy: ServerPolicy::default(),
    });
    let candidates = vec![Candidate::new(id, at(server), 1)];
    b.service(Arc::new(Service {
        id: ServiceId(0),
        name: "web".into(),
        key: ServiceKey::Address {
            proto: Proto::Tcp,
            vip: at(vip).ip(),
            port: at(vip).port(),
        },
        scheduler: Scheduler::new(SchedulerKind::rr, Options::default(), &candidates),
        servers: candidates,
        client_address: ClientAddress::none,
        policy: Default::default(),
        local_addresses: Default::default(),
    }));
    add_pool(&mut b, "out", pool, all_ports(), (1, FIRST_ID));
    b.snat(Arc::new(SnatRules::new(rules)))
}

fn director(shape: &Shape) -> Director {
    let mut d = Director::new(shape);
    publish(
        &mut d,
        snapshot_of(VIP4, "10.1.0.11:80", vec![rule(Some("out"))], &POOL).build(2),
    );
    d
}

fn publish(d: &mut Director, snapshot: Snapshot) {
    d.publish(snapshot);
    d.settle();
    d.events.clear();
}

/// What a key has of these ends: an echo's far end has no port.
fn key_ends(proto: Proto, from: &str, to: &str) -> (SocketAddr, SocketAddr) {
    let mut to = at(to);
    if proto == Proto::Icmp {
        to.set_port(0);
    }
    (at(from), to)
}

#[test]
fn there_and_back() {
    for (from, to) in [(INSIDE4, FAR4), (INSIDE6, FAR6)] {
        for (proto, shape) in PROTOS
            .into_iter()
            .flat_map(|p| shapes().into_iter().map(move |s| (p, s)))
        {
            let what = format!("{proto} {from} {shape:?}");
            let mut d = director(&shape);
            let (from, to) = key_ends(proto, from, to);
            let sent = packet(proto, from, to, SYN).build();
            let (left, f) = only(d.exchange(LAN, &sent));
            assert_eq!(left, To::Port(WAN), "{what}");
            assert_eq!(
                (eth::src(&f), eth::dst(&f)),
                (WAN_MAC, ROUTER_MAC),
                "{what}"
            );
            assert!(checksums_right(&f), "{what}");
            let (its, pooled, far) = seen(&f);
            assert_eq!((its, far), (proto, to), "{what}");
            assert!(
                POOL.contains(
                    &pooled
                        .ip()
                        .to_string()
                        .replace("2001:db8::", "2001:db8:0::")
                        .as_str()
                ),
                "{what}: {pooled}"
            );
            assert!(pooled.port() >= 1024, "{what}: {pooled}");
            assert_eq!(f.len(), sent.len(), "{what}");
            let ttl = if from.is_ipv4() { 22 } else { 21 };
            assert_eq!((sent[ttl], f[ttl]), (64, 63), "{what}");
            assert_eq!(f[f.len() - 3..], *b"odd", "{what}");

            let back = reply(&f, SYN | ACK).payload(if proto == Proto::Sctp {
                b"\x02\0\0\x07odd"
            } else {
                b"odd"
            });
            let (left, f) = only(d.exchange(WAN, &back.build()));
            assert_eq!(left, To::Port(LAN), "{what}");
            assert_eq!(
                (eth::src(&f), eth::dst(&f)),
                (LAN_MAC, server_mac(11)),
                "{what}"
            );
            assert!(checksums_right(&f), "{what}");
            assert_eq!(seen(&f), (proto, to, from), "{what}");

            // The next packet is of the same connection, whichever queue it comes by.
            let next = packet(proto, from, to, ACK).build();
            for queue in 0..3 {
                d.deliver(LAN, &next, queue);
                d.settle();
                let (_, f) = only(d.collect());
                assert_eq!(seen(&f).1, pooled, "{what}");
                assert!(checksums_right(&f), "{what}");
            }
            assert_eq!(d.sum(|c| c.snat_opened.get()), 1, "{what}");
            assert_eq!(d.sum(|c| c.conns_opened.get()), 1, "{what}");
            let view = &d.listing()[0];
            assert_eq!(
                (view.proto, view.client, view.virtual_),
                (proto, from, to),
                "{what}"
            );
            assert_eq!((view.server, view.local), (to, pooled), "{what}");
            let cells = d
                .counters
                .iter()
                .map(|c| c.servers.get(view.server_id).unwrap());
            let counted = cells.map(|c| (c.conns.get(), c.in_packets.get(), c.out_packets.get()));
            let counted = counted.fold((0, 0, 0), |a, b| (a.0 + b.0, a.1 + b.1, a.2 + b.2));
            assert_eq!(counted, (1, 4, 1), "{what}");
            assert_eq!(d.totals().dropped, 0, "{what}");
            d.assert_books();
            d.assert_runs_out();
            d.assert_books();
        }
    }
}

/// A server keeps its outside address, and two servers' same ports get different ones.
#[test]
fn one_server_one_address_and_no_two_flows_alike() {
    for shape in shapes() {
        let mut d = director(&shape);
        let mut given = std::collections::HashSet::new();
        for host in 11..=13 {
            let mut of_host = std::collections::HashSet::new();
            for port in 0..100 {
                let from = server_addr(host, 2000 + port).into();
                let sent = packet(Proto::Udp, from, at(FAR4), 0).build();
                let (_, f) = only(d.exchange(LAN, &sent));
                let (_, pooled, _) = seen(&f);
                assert!(given.insert(pooled), "{pooled} twice");
                of_host.insert(pooled.ip());
            }
            assert_eq!(of_host.len(), 1, "{host} has {of_host:?}");
        }
        d.assert_books();
        d.assert_runs_out();
    }
}

/// What a rule takes and opens nothing does not leave as it is; its sender hears of it.
#[test]
fn a_stream_in_its_middle_is_refused() {
    for shape in shapes() {
        let mut d = director(&shape);
        let (left, f) =
            only(d.exchange(LAN, &packet(Proto::Tcp, at(INSIDE4), at(FAR4), ACK).build()));
        assert_eq!(left, To::Port(LAN));
        assert_eq!(ends(&f), (Proto::Tcp, at(FAR4), at(INSIDE4)));
        assert_eq!(f[47] & RST, RST);
        let (left, _) =
            only(d.exchange(LAN, &packet(Proto::Sctp, at(INSIDE4), at(FAR4), 0).build()));
        assert_eq!(left, To::Port(LAN), "an ABORT");
        assert_eq!(d.drops(DropReason::NoConnection), 2);
        assert_eq!(d.sum(|c| c.snat_opened.get()), 0);
        // Nor does anything come in by the pool's address.
        let to = SocketAddr::new(POOL[0].parse().unwrap(), 4000);
        let stray = Packet::tcp(at(CLIENT4), to, SYN).macs(ROUTER_MAC, WAN_MAC);
        let (left, f) = only(d.exchange(WAN, &stray.build()));
        assert_eq!((left, f[47] & RST), (To::Port(WAN), RST));
        d.assert_books();
    }
}

/// A NAT service's answers have their connection, and leave with the virtual address.
#[test]
fn answers_of_services_stay_theirs() {
    for shape in shapes() {
        let mut d = director(&shape);
        let sent = modes::packet(Proto::Tcp, CLIENT4, VIP4, SYN).build();
        let (_, at_server) = only(d.exchange(WAN, &sent));
        assert_eq!(ends(&at_server).2, at("10.1.0.11:80"));
        let own = packet(Proto::Tcp, at("10.1.0.11:80"), at(FAR4), SYN).build();
        let (_, f) = only(d.exchange(LAN, &own));
        assert_ne!(ends(&f).1.ip(), at(VIP4).ip());
        let back = answer(&at_server, SYN | ACK).build();
        let (left, f) = only(d.exchange(LAN, &back));
        assert_eq!(left, To::Port(WAN));
        assert_eq!(ends(&f), (Proto::Tcp, at(VIP4), at(CLIENT4)));
        // A server that is a client of the service is one.
        let inner = packet(Proto::Tcp, at("10.1.0.12:999"), at(VIP4), SYN).build();
        let (_, f) = only(d.exchange(LAN, &inner));
        assert_eq!(
            ends(&f),
            (Proto::Tcp, at("10.1.0.12:999"), at("10.1.0.11:80"))
        );
        assert_eq!(d.sum(|c| c.snat_opened.get()), 1);
        d.assert_books();
        d.assert_runs_out();
    }
}

/// The same port again after a close: another local port, as in FULL-NAT.
#[test]
fn a_port_is_used_again() {
    let mut d = director(&Shape::default());
    let mut pooled = Vec::new();
    for _ in 0..3 {
        let send = |d: &mut Director, flags| {
            let (_, f) = only(d.exchange(
                LAN,
                &packet(Proto::Tcp, at(INSIDE4), at(FAR4), flags).build(),
            ));
            f
        };
        let f = send(&mut d, SYN);
        pooled.push(seen(&f).1);
        only(d.exchange(WAN, &answer(&f, SYN | ACK).build()));
        send(&mut d, ACK);
        let f = send(&mut d, FIN | ACK);
        only(d.exchange(WAN, &answer(&f, FIN | ACK).build()));
        send(&mut d, ACK);
    }
    pooled.sort_unstable();
    pooled.dedup();
    assert_eq!(pooled.len(), 3);
    assert_eq!(d.sum(|c| c.conns_reused.get()), 2);
    d.assert_books();
    d.assert_runs_out();
}

/// Whoever is on the other side opens nothing in a server's name.
#[test]
fn nobody_opens_from_the_wrong_side() {
    for shape in shapes() {
        let mut d = director(&shape);
        for proto in PROTOS {
            let (from, to) = key_ends(proto, INSIDE4, FAR4);
            let spoofed = packet(proto, from, to, SYN)
                .macs(ROUTER_MAC, WAN_MAC)
                .build();
            assert_eq!(only(d.exchange(WAN, &spoofed)), (To::Kernel(WAN), spoofed));
        }
        assert_eq!(d.sum(|c| c.snat_opened.get()), 0);
        d.assert_books();
    }
}

/// Without SNAT, nothing of it is there: echoes and strangers are the kernel's, untouched.
#[test]
fn off_is_off() {
    for shape in shapes() {
        let mut d = modes::director(&shape, VIP6, ForwardMode::nat, &["[2001:db8:1::11]:80"]);
        for (proto, from, to) in [
            (Proto::Icmp, INSIDE4, FAR4),
            (Proto::Udp, INSIDE4, FAR4),
            (Proto::Icmp, INSIDE6, FAR6),
            (Proto::Tcp, INSIDE6, FAR6),
        ] {
            let (from, to) = key_ends(proto, from, to);
            let sent = packet(proto, from, to, SYN).build();
            assert_eq!(
                only(d.exchange(LAN, &sent)),
                (To::Kernel(LAN), sent.clone())
            );
        }
        d.assert_books();
    }
}
