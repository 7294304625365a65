//! SNAT: what real servers open themselves, through one and three workers.

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

/// A packet's fate: what it is, and where it goes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Leaves(&'static str),
    Kernel,
    Dropped(DropReason),
}

#[test]
fn rules_are_asked_in_order() {
    let named = |pool: &str, change: &dyn Fn(&mut Pattern)| {
        let mut rule = rule((pool != "none").then_some(pool));
        change(&mut rule.pattern);
        rule
    };
    let rules = vec![
        named("none", &|p| p.destinations = vec![range("203.0.113.0/24")]),
        named("dns", &|p| {
            p.ports = vec![PortRange::one(53)];
            p.proto = Some(Proto::Udp);
        }),
        named("pings", &|p| p.proto = Some(Proto::Icmp)),
        named("out", &|p| p.arrival = Some(WAN)),
    ];
    let mut b = snapshot_of(VIP4, "10.1.0.11:80", rules, &POOL);
    add_pool(&mut b, "dns", &["10.0.0.110"], all_ports(), (3, 7));
    add_pool(&mut b, "pings", &["10.0.0.111"], all_ports(), (5, 8));
    let snapshot = b.build(2);
    let (udp, tcp, icmp) = (Proto::Udp, Proto::Tcp, Proto::Icmp);
    let rows = [
        (udp, "10.1.0.12:1", FAR4, Fate::Leaves("10.0.0.10")),
        (
            udp,
            "10.1.0.12:1",
            "198.51.100.7:53",
            Fate::Leaves("10.0.0.110"),
        ),
        (
            tcp,
            "10.1.0.12:1",
            "198.51.100.7:53",
            Fate::Leaves("10.0.0.10"),
        ),
        (
            icmp,
            "10.1.0.12:1",
            "198.51.100.7:0",
            Fate::Leaves("10.0.0.111"),
        ),
        (udp, "10.1.0.12:1", "203.0.113.7:53", Fate::Kernel), // exempt
        (icmp, "10.1.0.12:1", "203.0.113.7:0", Fate::Kernel),
        (udp, "10.1.9.12:1", FAR4, Fate::Kernel), // of no rule's source
        (tcp, "10.1.9.12:1", FAR4, Fate::Kernel),
        (udp, "10.1.0.12:1", "10.1.0.13:7", Fate::Kernel), // does not leave by the WAN
        (udp, "10.1.0.12:1", "10.0.0.2:7", Fate::Kernel),  // the director itself
        (tcp, "10.1.0.12:1", "10.0.0.2:22", Fate::Kernel),
        (icmp, "10.1.0.12:1", "10.0.0.2:0", Fate::Kernel),
        (icmp, "10.1.0.12:1", "10.0.0.10:0", Fate::Kernel), // its VIP and its pool answer pings
        (icmp, "10.1.0.12:1", "10.0.0.100:0", Fate::Kernel),
        (
            tcp,
            "10.1.0.12:1",
            "10.0.0.100:9",
            Fate::Dropped(DropReason::NoConnection),
        ),
        (tcp, "127.0.0.1:1", FAR4, Fate::Kernel), // nor is this
    ];
    for shape in [Shape::default(), Shape::workers(3)] {
        let mut d = Director::new(&shape);
        let again = {
            let mut b = SnapshotBuilder::default();
            b.servers_of(&snapshot);
            snapshot
                .services()
                .for_each(|s| b.service(Arc::new(s.clone())));
            b.snat(Arc::new(SnatRules::new(snapshot.snat().rules().to_vec())))
                .build(2)
        };
        publish(&mut d, again);
        d.tell(|| Command::Fib(Arc::new(with_own(2))));
        for (proto, from, to, fate) in rows {
            let what = format!("{proto} {from} {to} {} workers", shape.workers);
            let sent = packet(proto, at(from), at(to), SYN).build();
            let out = d.exchange(LAN, &sent);
            match fate {
                Fate::Leaves(pool) => {
                    let (left, f) = only(out);
                    assert_eq!(left, To::Port(WAN), "{what}");
                    let from = seen(&f).1.ip().to_string();
                    assert!(from.starts_with(pool), "{what}: from {from}");
                }
                Fate::Kernel => {
                    let (left, f) = only(out);
                    assert_eq!((left, f), (To::Kernel(LAN), sent), "{what}");
                }
                Fate::Dropped(reason) => assert_eq!(d.drops(reason), 1, "{what}"),
            }
        }
        d.assert_books();
        d.assert_runs_out();
    }
}

/// The routes of all tests, and the director's own addresses.
fn with_own(epoch: u16) -> Fib {
    let own = |address: &str, len| Route {
        prefix: address.parse().unwrap(),
        len,
        target: RouteTarget::Own,
    };
    let via = |prefix: &str, len, port, gateway: Option<&str>, source: &str| Route {
        prefix: prefix.parse().unwrap(),
        len,
        target: RouteTarget::Port {
            port,
            gateway: gateway.map(|g| g.parse().unwrap()),
            source: Some(source.parse().unwrap()),
        },
    };
    Fib::new(
        epoch,
        &[
            via("0.0.0.0", 0, WAN, Some("10.0.0.1"), "10.0.0.2"),
            via("10.0.0.0", 24, WAN, None, "10.0.0.2"),
            via("10.1.0.0", 24, LAN, None, "10.1.0.2"),
            via("10.1.9.0", 24, LAN, None, "10.1.0.2"),
            own("10.0.0.2", 32),
            own("10.1.0.2", 32),
        ],
    )
}

/// Errors find who sent what they quote: from the outside the router that says so is shown, from
/// the inside the pool's address.
#[test]
fn errors_both_ways() {
    for (from, to, router, inner) in [
        (INSIDE4, FAR4, "198.51.100.1", "10.1.0.99"),
        (INSIDE6, FAR6, "2001:db8:9::1", "2001:db8:1::99"),
    ] {
        for (proto, shape) in PROTOS
            .into_iter()
            .flat_map(|p| shapes().into_iter().map(move |s| (p, s)))
        {
            let what = format!("{proto} {from} {shape:?}");
            let v6 = at(from).is_ipv6();
            let mut d = director(&shape);
            let (from, to) = key_ends(proto, from, to);
            let sent = packet(proto, from, to, SYN).build();
            let (_, outside) = only(d.exchange(LAN, &sent));
            let back = reply(&outside, SYN | ACK).build();
            let (_, inside) = only(d.exchange(WAN, &back));
            let (icmp, kinds) = match v6 {
                true => (54, [(2, 0), (1, 4), (3, 0)]),
                false => (34, [(3, 4), (3, 3), (11, 0)]),
            };
            for (kind, mtu) in kinds.into_iter().zip([1400, 0, 0]) {
                let error = error_about(&outside, router, kind, mtu);
                let (left, f) = only(d.exchange(WAN, &error));
                assert_eq!(
                    (left, eth::dst(&f)),
                    (To::Port(LAN), server_mac(11)),
                    "{what}"
                );
                let router: IpAddr = router.parse().unwrap();
                assert_eq!(addresses(&f), (router, from.ip()), "{what}");
                assert!(checksums_right(&f), "{what}");
                assert_eq!(
                    (f[icmp], f[icmp + 1], be16(&f, icmp + 6)),
                    (kind.0, kind.1, mtu),
                    "{what}"
                );
                // What is quoted is what the server sent, but for the hop.
                let mut quoted = [&f[..14], &f[icmp + 8..]].concat();
                let ttl = if v6 { 21 } else { 22 };
                assert_eq!(quoted[ttl], 63, "{what}");
                quoted[ttl] = 64;
                if !v6 {
                    checksum::set_ipv4(&mut quoted);
                }
                assert_eq!(quoted[14..], sent[14..], "{what}");

                let error = error_about(&inside, inner, kind, mtu);
                let (left, f) = only(d.exchange(LAN, &error));
                assert_eq!((left, eth::dst(&f)), (To::Port(WAN), ROUTER_MAC), "{what}");
                let pooled = seen(&outside).1.ip();
                assert_eq!(addresses(&f), (pooled, to.ip()), "{what}");
                assert!(checksums_right(&f), "{what}");
                let quoted = [&f[..14], &f[icmp + 8..]].concat();
                assert_eq!(addresses(&quoted), (to.ip(), pooled), "{what}");
                let l4 = if v6 { 54 } else { 34 };
                assert_eq!(quoted[l4..], back[l4..], "{what}");
            }
            assert_eq!(d.sum(|c| c.icmp_errors.get()), 6, "{what}");
            d.assert_books();
        }
    }
}

/// Datagrams and echoes in parts, in any order, both ways; all parts with one new identification.
#[test]
fn fragments() {
    for (from, to) in [(INSIDE4, FAR4), (INSIDE6, FAR6)] {
        for proto in [Proto::Udp, Proto::Icmp] {
            for (shape, order) in shapes()
                .iter()
                .flat_map(|s| [[0, 1, 2], [2, 0, 1]].map(|o| (s, o)))
            {
                let what = format!("{proto} {from} {order:?} {shape:?}");
                let mut d = director(shape);
                let (from, to) = key_ends(proto, from, to);
                let data: Vec<u8> = (0..4000u32).map(|n| (n * 7) as u8).collect();
                let mut pass = |port: PortId, to: To, whole: &[u8]| {
                    let cut = parts(whole, 1500);
                    let mut got = Vec::new();
                    for (n, part) in order.iter().map(|&n| &cut[n]).enumerate() {
                        d.deliver(port, part, n);
                        d.settle();
                        got.extend(d.collect());
                    }
                    assert!(
                        got.iter().all(|(left, _)| *left == to),
                        "{what}: {got:02x?}"
                    );
                    let got: Vec<_> = got.into_iter().map(|(_, f)| f).collect();
                    let (at, new) = if from.is_ipv4() {
                        (18..20, &got[0][18..20])
                    } else {
                        (58..62, &got[0][58..62])
                    };
                    assert_ne!(*new, cut[0][at], "{what}: a new identification");
                    reassembled(&got).unwrap_or_else(|| panic!("{what}"))
                };
                let sent = packet(proto, from, to, 0).payload(&data).build();
                let outside = pass(LAN, To::Port(WAN), &sent);
                assert!(checksums_right(&outside), "{what}");
                assert_eq!(outside[outside.len() - 4000..], data, "{what}");
                let (_, pooled, far) = seen(&outside);
                assert_eq!(far, to, "{what}");
                assert_ne!(pooled.ip(), from.ip(), "{what}");
                let back = reply(&outside, 0).payload(&data).build();
                let inside = pass(WAN, To::Port(LAN), &back);
                assert!(checksums_right(&inside), "{what}");
                assert_eq!(seen(&inside), (proto, to, from), "{what}");
                assert_eq!(d.sum(|c| c.snat_opened.get()), 1, "{what}");
                d.assert_books();
                d.assert_runs_out();
            }
        }
    }
}

/// A port of the director's that takes less, and the last hop: the server is told.
#[test]
fn too_big_and_too_old() {
    let mut d = director(&Shape::default());
    let (from, to) = (at(INSIDE4), at(FAR4));
    only(d.exchange(LAN, &packet(Proto::Udp, from, to, 0).build()));
    d.tell(|| {
        Command::Port(PortUpdate {
            port: WAN,
            mac: WAN_MAC,
            mtu: 1000,
        })
    });
    let big = packet(Proto::Udp, from, to, 0).payload(&[7; 1200]).build();
    let (left, f) = only(d.exchange(LAN, &big));
    assert_eq!(
        (left, f[34], f[35], be16(&f, 40)),
        (To::Port(LAN), 3, 4, 1000)
    );
    assert_eq!(addresses(&f), ("10.1.0.2".parse().unwrap(), from.ip()));
    assert_eq!(d.drops(DropReason::TooBig), 1);
    for (n, proto) in PROTOS.into_iter().enumerate() {
        let mut last = packet(proto, from, to, SYN);
        last.ttl = 1;
        let (left, f) = only(d.exchange(LAN, &last.build()));
        assert_eq!((left, f[34], f[35]), (To::Port(LAN), 11, 0), "{proto}");
        assert_eq!(d.drops(DropReason::TtlExpired), n as u64 + 1);
    }
    d.assert_books();
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

/// The pool's ports are all there are for one far end; another far end has them again.
#[test]
fn a_pool_runs_out_and_recovers() {
    let few = PortRange::new(20_000, 20_299).unwrap();
    for shape in shapes() {
        let mut d = Director::new(&shape);
        let mut b = SnapshotBuilder::default();
        add_pool(&mut b, "out", &POOL[..2], few, (1, FIRST_ID));
        let rules = Arc::new(SnatRules::new(vec![rule(Some("out"))]));
        publish(&mut d, b.snat(Arc::clone(&rules)).build(2));
        let mut opened = std::collections::HashSet::new();
        let mut lost = 0;
        for port in 0..2000u16 {
            let from = server_addr(11, 1000 + port).into();
            d.deliver(
                LAN,
                &packet(Proto::Udp, from, at(FAR4), 0).build(),
                usize::from(port),
            );
            d.settle();
            match d.collect().as_slice() {
                [] => lost += 1,
                [(_, f)] => {
                    let pooled = seen(f).1;
                    assert!(few.contains(pooled.port()), "{pooled}");
                    assert!(opened.insert(pooled), "{pooled} twice");
                }
                more => panic!("{more:02x?}"),
            }
        }
        // 64 candidates are looked at, so that the last few may not be found.
        assert!(
            (540..=600).contains(&opened.len()),
            "{} of 600, {shape:?}",
            opened.len()
        );
        assert_eq!(d.drops(DropReason::SnatExhausted), lost);
        let elsewhere = packet(Proto::Udp, at(INSIDE4), at("198.51.100.8:443"), 0).build();
        only(d.exchange(LAN, &elsewhere));
        d.assert_books();
        d.now = d.now.after(Tick::seconds(400));
        d.settle();
        let again = packet(Proto::Udp, at(INSIDE4), at(FAR4), 0).build();
        only(d.exchange(LAN, &again));
        d.assert_runs_out();
    }
}

/// What stands goes on when its rule is gone, and with another route.
#[test]
fn connections_outlive_their_rule_and_follow_routes() {
    for shape in shapes() {
        let mut d = director(&shape);
        let opening = |proto| packet(proto, at(INSIDE4), at(FAR4), SYN).build();
        let mut outside = Vec::new();
        for proto in PROTOS {
            outside.push(only(d.exchange(LAN, &opening(proto))).1);
        }
        // The rule is gone, the pool's servers are left as control leaves them.
        let before = snapshot_of(VIP4, "10.1.0.11:80", vec![], &POOL).build(0);
        let mut b = SnapshotBuilder::default();
        b.servers_of(&before);
        POOL.iter().for_each(|a| b.local(a.parse().unwrap()));
        publish(&mut d, b.build(3));
        d.tell(|| Command::Fib(Arc::new(fib(7))));
        for (proto, outside) in PROTOS.into_iter().zip(&outside) {
            let what = format!("{proto} {shape:?}");
            let (left, f) = only(
                d.exchange(
                    WAN,
                    &reply(outside, SYN | ACK)
                        .payload(b"\x02\0\0\x07odd")
                        .build(),
                ),
            );
            assert_eq!(left, To::Port(LAN), "{what}");
            assert_eq!(seen(&f).2, at(INSIDE4), "{what}");
            let next = packet(proto, at(INSIDE4), at(FAR4), ACK).build();
            let (left, f) = only(d.exchange(LAN, &next));
            assert_eq!(left, To::Port(WAN), "{what}");
            assert_eq!(seen(&f).1, seen(outside).1, "{what}");
        }
        // A new one is the kernel's, as without SNAT.
        let new = packet(Proto::Udp, at("10.1.0.11:6000"), at(FAR4), 0).build();
        assert_eq!(only(d.exchange(LAN, &new)).0, To::Kernel(LAN));
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

/// The services of [`director`] with pool addresses of these weights, whose connections end if
/// `dismissed`.
fn drained(weights: [u32; 4], dismissed: bool) -> Snapshot {
    let plain = snapshot_of(VIP4, "10.1.0.11:80", vec![rule(Some("out"))], &POOL).build(0);
    let mut b = SnapshotBuilder::default();
    b.servers_of(&plain);
    for service in plain.services() {
        let mut service = service.clone();
        for candidate in service.servers.iter_mut().filter(|c| c.id.0 >= FIRST_ID) {
            let address = POOL
                .iter()
                .position(|a| candidate.address.ip() == a.parse::<IpAddr>().unwrap());
            candidate.weight = weights[address.unwrap()];
            let mut server = *plain.server(candidate.id).unwrap();
            server.policy.dismissed = dismissed;
            b.server(server);
        }
        b.service(Arc::new(service));
    }
    b.snat(Arc::new(SnatRules::new(plain.snat().rules().to_vec())))
        .build(3)
}

/// A pool's address that drains keeps what it has and gets nothing new; one that is dismissed ends
/// what it has at both sides.
#[test]
fn addresses_drain_and_are_dismissed() {
    for shape in shapes() {
        let mut d = director(&shape);
        let open = |d: &mut Director, port| {
            let from = server_addr(11, port).into();
            let out = d.exchange(LAN, &packet(Proto::Tcp, from, at(FAR4), SYN).build());
            out.into_iter().next().map(|(_, f)| f)
        };
        let first = open(&mut d, 5000).unwrap();
        only(d.exchange(WAN, &answer(&first, SYN | ACK).build()));
        let ack = packet(Proto::Tcp, at(INSIDE4), at(FAR4), ACK).build();
        only(d.exchange(LAN, &ack));
        let used = seen(&first).1.ip();
        let weights = POOL.map(|a| u32::from(used != a.parse::<IpAddr>().unwrap()));
        publish(&mut d, drained(weights, false));
        let second = open(&mut d, 5001).unwrap();
        assert_ne!(seen(&second).1.ip(), used);
        let (_, f) = only(d.exchange(LAN, &ack));
        assert_eq!(seen(&f).1, seen(&first).1, "what stands stays");
        publish(&mut d, drained([0; 4], false));
        assert_eq!(open(&mut d, 5002), None);
        assert_eq!(d.drops(DropReason::SnatExhausted), 1);

        publish(&mut d, drained([0; 4], true));
        let mut asked: Vec<_> = d.collect().iter().map(|(to, f)| (*to, ends(f).1)).collect();
        asked.sort_by_key(|(to, _)| *to);
        let both = [(To::Port(WAN), seen(&first).1), (To::Port(LAN), at(FAR4))];
        assert_eq!(asked, both, "where they are");
        let mut says = packet(Proto::Tcp, at(INSIDE4), at(FAR4), ACK);
        (says.seq, says.ack) = (7001, 9001);
        let mut resets: Vec<_> = d.exchange(LAN, &says.build());
        resets.sort_by_key(|(to, _)| *to);
        let resets: Vec<_> = resets.iter().map(|(to, f)| (*to, ends(f).1)).collect();
        assert_eq!(resets, both);
        assert!(d.listing().is_empty());
        assert_eq!(d.sum(|c| c.conns_dismissed.get()), 2, "one was half-open");
        d.assert_books();
    }
}

/// Limits are a pool's as they are a service's: so many connections of each source, and packets.
#[test]
fn each_server_has_its_limits() {
    for shape in shapes() {
        let mut d = Director::new(&shape);
        let mut b = SnapshotBuilder::default();
        add_pool(&mut b, "out", &POOL, all_ports(), (1, FIRST_ID));
        let plain = b.build(0);
        let mut b = SnapshotBuilder::default();
        b.servers_of(&plain);
        for pool in plain.services() {
            let mut pool = pool.clone();
            pool.policy.limits.client.connections = 2;
            pool.policy.limits.service.packets_per_second = 1_000_000; // its packets are counted
            b.service(Arc::new(pool));
        }
        let rules = Arc::new(SnatRules::new(vec![rule(Some("out"))]));
        publish(&mut d, b.snat(rules).build(2));
        for (host, port, passes) in [(11, 1, true), (11, 2, true), (11, 3, false), (12, 1, true)] {
            let from = server_addr(host, 3000 + port).into();
            let out = d.exchange(LAN, &packet(Proto::Tcp, from, at(FAR4), SYN).build());
            assert_eq!(out.len(), usize::from(passes), "{host} {port} {shape:?}");
            if let [(_, f)] = out.as_slice() {
                let (left, f) = only(d.exchange(WAN, &answer(f, SYN | ACK).build()));
                assert_eq!((left, ends(&f).2), (To::Port(LAN), from));
            }
        }
        assert_eq!(d.drops(DropReason::ClientConnections), 1);
        d.assert_books();
        d.assert_runs_out();
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
