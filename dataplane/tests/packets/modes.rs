//! Every forwarding mode in both families and between them, through one and three workers.

use std::net::SocketAddr;
use std::sync::Arc;

use weir_dataplane::command::Command;
use weir_dataplane::conn::state::Rules;
use weir_dataplane::counters::{DropReason, ServerCounters};
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::forward::carrier::ClientAddress;
use weir_dataplane::forward::tun::Tunnel;
use weir_dataplane::io::RxChecksum;
use weir_dataplane::packet::build::{Packet, checksums_right};
use weir_dataplane::packet::eth;
use weir_dataplane::packet::tcp::flags::{ACK, FIN, SYN};
use weir_dataplane::sched::{Options, Scheduler, SchedulerKind};
use weir_dataplane::service::{
    Candidate, Server, ServerPolicy, Service, ServiceKey, SnapshotBuilder,
};
use weir_dataplane::steer::Alignment;
use weir_dataplane::{Mac, Proto, ServerId, ServiceId};

use crate::common::*;
use crate::errors::addresses;
use crate::only;

pub(crate) const VIP4: &str = "10.0.0.10:80";
pub(crate) const VIP6: &str = "[2001:db8:0::10]:80";
pub(crate) const CLIENT4: &str = "192.0.2.7:40000";
pub(crate) const CLIENT6: &str = "[2001:db8:c::7]:40000";

pub(crate) const PROTOS: [Proto; 3] = [Proto::Tcp, Proto::Udp, Proto::Sctp];

pub(crate) fn at(s: &str) -> SocketAddr {
    s.parse().unwrap()
}

/// A director with one service of each protocol at `vip`, all servers reached by `mode`.
pub(crate) fn director(shape: &Shape, vip: &str, mode: ForwardMode, servers: &[&str]) -> Director {
    director_of(shape, vip, (mode, None), servers, ClientAddress::none)
}

/// As [`director`], where servers are told the client's address.
pub(crate) fn director_telling(
    shape: &Shape,
    vip: &str,
    mode: ForwardMode,
    servers: &[&str],
    client_address: ClientAddress,
) -> Director {
    director_of(shape, vip, (mode, None), servers, client_address)
}

/// As [`director`], by a mode in a tunnel, or telling the client's address.
pub(crate) fn director_of(
    shape: &Shape,
    vip: &str,
    how: (ForwardMode, Option<Tunnel>),
    servers: &[&str],
    client_address: ClientAddress,
) -> Director {
    director_ruled(shape, vip, how, servers, client_address, Rules::default())
}

/// As [`director`], with a tunnel, under these rules of `[ipvs]`.
pub(crate) fn director_ruled(
    shape: &Shape,
    vip: &str,
    (mode, tunnel): (ForwardMode, Option<Tunnel>),
    servers: &[&str],
    client_address: ClientAddress,
    rules: Rules,
) -> Director {
    let mut d = Director::new(shape);
    let policy = ServerPolicy::default();
    let snapshot = snapshot_of(vip, (mode, tunnel), servers, client_address, policy);
    let snapshot = Arc::new(snapshot.rules(rules).build(2));
    d.tell(|| Command::Snapshot(Arc::clone(&snapshot)));
    d.settle();
    d.events.clear();
    d
}

/// The services of [`director`], with this policy for all servers.
pub(crate) fn snapshot_of(
    vip: &str,
    (mode, tunnel): (ForwardMode, Option<Tunnel>),
    servers: &[&str],
    client_address: ClientAddress,
    policy: ServerPolicy,
) -> SnapshotBuilder {
    let mut b = SnapshotBuilder::default();
    for (service, proto) in (0..).zip(PROTOS) {
        let ids = (service * 4..).map(ServerId);
        let servers: Vec<_> = ids.zip(servers).collect();
        for &(id, address) in &servers {
            b.server(Server {
                id,
                service: ServiceId(service),
                address: at(address),
                forward: mode,
                tunnel,
                policy,
            });
        }
        let candidate = |&(id, address): &(ServerId, &&str)| Candidate::new(id, at(address), 1);
        let candidates: Vec<_> = servers.iter().map(candidate).collect();
        b.service(Arc::new(Service {
            id: ServiceId(service),
            name: "s".into(),
            key: ServiceKey::Address {
                proto,
                vip: at(vip).ip(),
                port: at(vip).port(),
            },
            scheduler: Scheduler::new(SchedulerKind::rr, Options::default(), &candidates),
            servers: candidates,
            client_address,
            policy: Default::default(),
            local_addresses: ["10.1.0.100", "10.1.0.101", "2001:db8:1::64"]
                .map(|a| a.parse().unwrap())
                .into_iter()
                .collect(),
        }));
    }
    b
}

pub(crate) fn packet(proto: Proto, from: &str, to: &str, flags: u8) -> Packet {
    let packet = match proto {
        Proto::Tcp => Packet::tcp(at(from), at(to), flags),
        Proto::Udp => Packet::udp(at(from), at(to)),
        Proto::Sctp => Packet::sctp(at(from), at(to), &[]),
        Proto::Icmp => unreachable!("no service has it"),
    };
    let packet = packet.macs(ROUTER_MAC, WAN_MAC);
    match (proto, flags) {
        (Proto::Sctp, SYN) => packet.payload(b"\x01\0\0\x07odd"), // INIT
        (Proto::Sctp, _) => packet.payload(b"\0\0\0\x07odd"),
        _ => packet.payload(b"odd"),
    }
}

fn macs(frame: &[u8]) -> (Mac, Mac) {
    (eth::src(frame), eth::dst(frame))
}

pub(crate) fn shapes() -> Vec<Shape> {
    let three = |rss, alignment| Shape {
        rss,
        alignment,
        ..Shape::workers(3)
    };
    vec![
        Shape::default(),
        three(true, Alignment::Aligned),
        three(false, Alignment::Unaligned),
        three(false, Alignment::Aligned), // workers believe an RSS that is not there
    ]
}

/// Modes whose answers come back through the director: what the server sees as its client
/// (`None`: a local address), and everything there and back.
#[test]
fn there_and_back() {
    let rows = [
        (
            "FULL-NAT",
            ForwardMode::fullnat,
            CLIENT4,
            VIP4,
            "10.1.0.11:8080",
            None,
        ),
        (
            "FULL-NAT66",
            ForwardMode::fullnat,
            CLIENT6,
            VIP6,
            "[2001:db8:1::11]:8080",
            None,
        ),
        (
            "NAT64",
            ForwardMode::fullnat,
            CLIENT6,
            VIP6,
            "10.1.0.11:8080",
            None,
        ),
        (
            "NAT46",
            ForwardMode::fullnat,
            CLIENT4,
            VIP4,
            "[2001:db8:1::11]:8080",
            None,
        ),
        (
            "NAT",
            ForwardMode::nat,
            CLIENT4,
            VIP4,
            "10.1.0.11:8080",
            Some(CLIENT4),
        ),
        (
            "NAT66",
            ForwardMode::nat,
            CLIENT6,
            VIP6,
            "[2001:db8:1::11]:8080",
            Some(CLIENT6),
        ),
    ];
    for (name, mode, client, vip, server, seen_as) in rows {
        for (shape, proto) in shapes().iter().flat_map(|s| PROTOS.map(|proto| (s, proto))) {
            let what = format!("{name} {proto} {shape:?}");
            let mut d = director(shape, vip, mode, &[server]);
            let (to, f) = only(d.exchange(WAN, &packet(proto, client, vip, SYN).build()));
            assert_eq!(
                (to, macs(&f)),
                (To::Port(LAN), (LAN_MAC, server_mac(11))),
                "{what}"
            );
            assert!(checksums_right(&f), "{what}");
            let (_, from, to) = ends(&f);
            assert_eq!(to, at(server), "{what}");
            match seen_as {
                Some(client) => assert_eq!(from, at(client), "{what}"),
                None => assert!(
                    from.port() >= 1024 && from.is_ipv4() == to.is_ipv4(),
                    "{what}"
                ),
            }
            assert_eq!(f[f.len() - 3..], *b"odd", "{what}");
            assert_eq!(hops(&f), 63, "{what}");

            let reply = answer(&f, SYN | ACK).payload(b"reply").build();
            let (to, f) = only(d.exchange(LAN, &reply));
            assert_eq!(
                (to, macs(&f)),
                (To::Port(WAN), (WAN_MAC, ROUTER_MAC)),
                "{what}"
            );
            assert!(checksums_right(&f), "{what}");
            assert_eq!(ends(&f), (proto, at(vip), at(client)), "{what}");
            assert_eq!(f[f.len() - 5..], *b"reply", "{what}");

            let (_, again) = only(d.exchange(WAN, &packet(proto, client, vip, ACK).build()));
            assert_eq!(
                ends(&again),
                (proto, from, at(server)),
                "{what}: the same way again"
            );

            let service = PROTOS.iter().position(|p| *p == proto).unwrap();
            let id = ServerId(service as u32 * 4);
            let cells = |f: fn(&ServerCounters) -> u64| d.sum(|c| f(c.servers.get(id).unwrap()));
            assert_eq!(cells(|s| s.conns.get()), 1, "{what}");
            assert_eq!(
                (
                    cells(|s| s.in_packets.get()),
                    cells(|s| s.out_packets.get())
                ),
                (2, 1)
            );
            let active = u64::from(proto == Proto::Tcp);
            assert_eq!(
                (cells(|s| s.active.get()), cells(|s| s.inactive.get())),
                (active, 1 - active)
            );
            d.assert_books();
            d.assert_runs_out();
        }
    }
}

pub(crate) fn hops(frame: &[u8]) -> u8 {
    if frame[12..14] == [0x86, 0xdd] {
        frame[21]
    } else {
        frame[22]
    }
}

/// Modes whose answers pass the director by: the packet is the client's but for the TTL.
#[test]
fn direct_routing_changes_a_hop_and_the_mac() {
    let rows = [
        (CLIENT4, VIP4, "10.1.0.11:80"),
        (CLIENT6, VIP6, "[2001:db8:1::11]:80"),
    ];
    for (client, vip, server) in rows {
        for (shape, proto) in shapes().iter().flat_map(|s| PROTOS.map(|proto| (s, proto))) {
            let mut d = director(shape, vip, ForwardMode::dr, &[server]);
            let sent = packet(proto, client, vip, SYN).build();
            let (to, f) = only(d.exchange(WAN, &sent));
            assert_eq!((to, macs(&f)), (To::Port(LAN), (LAN_MAC, server_mac(11))));
            let expected = Packet {
                ttl: 63,
                ..packet(proto, client, vip, SYN)
            };
            assert_eq!(f[12..], expected.build()[12..]);
            only(d.exchange(WAN, &packet(proto, client, vip, ACK).build()));

            // An answer that is routed through the director all the same goes on to the client.
            let reply = answer(&f, SYN | ACK).build();
            let (to, f) = only(d.exchange(LAN, &reply));
            assert_eq!((to, macs(&f)), (To::Port(WAN), (WAN_MAC, ROUTER_MAC)));
            assert_eq!(ends(&f), (proto, at(vip), at(client)));
            assert_eq!(hops(&f), 63);
            d.assert_books();
            d.assert_runs_out();
        }
    }
}

#[test]
fn the_director_itself_gets_its_packets_unchanged() {
    for (client, vip) in [(CLIENT4, VIP4), (CLIENT6, VIP6)] {
        let mut d = director(&Shape::default(), vip, ForwardMode::local, &[vip]);
        let sent = packet(Proto::Tcp, client, vip, SYN).build();
        assert_eq!(only(d.exchange(WAN, &sent)), (To::Kernel(WAN), sent));
        d.assert_books();
        d.assert_runs_out();
    }
}

/// Two connections of one client port to two services, and NAT to the same server: the second
/// one's answers could not be told from the first one's, so it gets the other server.
#[test]
fn answers_are_told_apart() {
    for shape in shapes() {
        let mut d = director(
            &shape,
            VIP4,
            ForwardMode::nat,
            &["10.1.0.11:80", "10.1.0.12:80"],
        );
        let mut b = SnapshotBuilder::default();
        for (service, vip) in [(0, "10.0.0.10"), (1, "10.0.0.11"), (2, "10.0.0.12")] {
            let ids = [ServerId(service * 2), ServerId(service * 2 + 1)];
            let mut servers = vec![];
            for (id, n) in ids.into_iter().zip([11, 12]) {
                servers.push(Candidate::new(id, server_addr(n, 80).into(), 1));
                b.server(Server {
                    id,
                    service: ServiceId(service),
                    address: server_addr(n, 80).into(),
                    forward: ForwardMode::nat,
                    tunnel: None,
                    policy: Default::default(),
                });
            }
            b.service(Arc::new(Service {
                id: ServiceId(service),
                name: "s".into(),
                key: ServiceKey::Address {
                    proto: Proto::Tcp,
                    vip: vip.parse().unwrap(),
                    port: 80,
                },
                scheduler: Scheduler::new(SchedulerKind::rr, Options::default(), &servers),
                servers,
                local_addresses: Default::default(),
                client_address: Default::default(),
                policy: Default::default(),
            }));
        }
        let snapshot = Arc::new(b.build(3));
        d.tell(|| Command::Snapshot(Arc::clone(&snapshot)));
        d.settle();
        let syn = |n: u8| packet(Proto::Tcp, CLIENT4, &format!("10.0.0.{n}:80"), SYN).build();
        let (_, first) = only(d.exchange(WAN, &syn(10)));
        let (_, second) = only(d.exchange(WAN, &syn(11)));
        assert_ne!(ends(&first).2, ends(&second).2, "{shape:?}");
        // Both are taken now.
        assert_eq!(d.exchange(WAN, &syn(12)), vec![]);
        assert_eq!(d.drops(DropReason::ReplyKeyTaken), 1);
        // A retransmission asks again, and is answered alike.
        let (_, again) = only(d.exchange(WAN, &syn(10)));
        assert_eq!(ends(&again), ends(&first));
        for (n, f) in [(10, &first), (11, &second)] {
            let (_, back) = only(d.exchange(LAN, &answer(f, SYN | ACK).build()));
            assert_eq!(ends(&back).1, at(&format!("10.0.0.{n}:80")));
        }
        only(d.exchange(
            WAN,
            &packet(Proto::Tcp, CLIENT4, "10.0.0.11:80", ACK).build(),
        ));
        // The first one's end makes its key free, at whichever worker it is.
        for (port, f) in [
            (
                WAN,
                packet(Proto::Tcp, CLIENT4, "10.0.0.10:80", FIN | ACK).build(),
            ),
            (LAN, answer(&first, FIN | ACK).build()),
        ] {
            only(d.exchange(port, &f));
        }
        d.now = d.now.after(weir_dataplane::Tick::seconds(121));
        d.settle();
        let (_, third) = only(d.exchange(WAN, &syn(12)));
        assert_eq!(ends(&third).2, ends(&first).2);
        d.assert_books();
        d.assert_runs_out();
    }
}

/// NAT64 without a checksum on the IPv4 side gets one; and what a card says of checksums counts.
#[test]
fn udp_over_ipv6_always_has_a_checksum() {
    let mut d = director(
        &Shape::default(),
        VIP6,
        ForwardMode::fullnat,
        &["10.1.0.11:53"],
    );
    let (_, f) = only(d.exchange(WAN, &packet(Proto::Udp, CLIENT6, VIP6, 0).build()));
    let bare = Packet {
        no_checksum: true,
        ..answer(&f, 0)
    };
    let (_, back) = only(d.exchange(LAN, &bare.payload(b"answer").build()));
    assert!(checksums_right(&back));
    let partial = Packet {
        partial: true,
        ..packet(Proto::Udp, CLIENT6, VIP6, 0)
    };
    let said = RxChecksum {
        l4_partial: true,
        ..RxChecksum::default()
    };
    d.deliver_with(WAN, &partial.build(), said);
    d.settle();
    let (_, f) = only(d.collect());
    assert!(checksums_right(&f));
    d.assert_books();
}

/// The packet travels inside another one, whole but for a hop less, and its server unwraps it.
#[test]
fn tunnels_carry_the_packet_as_it_is() {
    let rows = [
        (CLIENT4, VIP4, "10.1.0.11:80", 4, "10.1.0.2"),
        (CLIENT6, VIP6, "[2001:db8:1::11]:80", 41, "2001:db8:1::2"),
        (CLIENT4, VIP4, "[2001:db8:1::11]:80", 4, "2001:db8:1::2"),
        (CLIENT6, VIP6, "10.1.0.11:80", 41, "10.1.0.2"),
    ];
    for (client, vip, server, protocol, source) in rows {
        for shape in shapes() {
            let tun = (ForwardMode::tun, Some(Tunnel::Ipip));
            let mut d = director_of(&shape, vip, tun, &[server], ClientAddress::none);
            let sent = packet(Proto::Tcp, client, vip, SYN);
            let (to, f) = only(d.exchange(WAN, &sent.build()));
            assert_eq!((to, macs(&f)), (To::Port(LAN), (LAN_MAC, server_mac(11))));
            let outer = if at(server).is_ipv6() { 54 } else { 34 };
            let (src, dst) = addresses(&f);
            assert_eq!((src, dst), (source.parse().unwrap(), at(server).ip()));
            let proto_at = if at(server).is_ipv6() { 20 } else { 23 };
            assert_eq!(f[proto_at], protocol);
            let inner = Packet { ttl: 63, ..sent };
            assert_eq!(f[outer..], inner.build()[14..]);
            only(d.exchange(WAN, &packet(Proto::Tcp, client, vip, ACK).build()));
            d.assert_books();
            d.assert_runs_out();
        }
    }
}
