//! What tests of SNAT are made of: rules, pools, and packets with echoes among them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use weir_dataplane::forward::ForwardMode;
use weir_dataplane::forward::carrier::ClientAddress;
use weir_dataplane::packet::build::Packet;
use weir_dataplane::packet::icmp::Echo;
use weir_dataplane::packet::tcp::flags::SYN;
use weir_dataplane::packet::{Kind, Parsed, eth, parse, upper_at};
use weir_dataplane::sched::{Options, Scheduler, SchedulerKind};
use weir_dataplane::service::{
    AddressRange, Candidate, Pattern, Policy, PortRange, RuleName, Server, ServerPolicy, Service,
    ServiceKey, SnapshotBuilder, SnatPool, SnatRule,
};
use weir_dataplane::{Proto, ServerId, ServiceId};

use super::{LAN_MAC, answer, ends, server_mac};

pub fn range(text: &str) -> AddressRange {
    let (address, len) = text.split_once('/').unwrap_or((text, "128"));
    AddressRange::network(address.parse().unwrap(), len.parse().unwrap())
}

/// The rule that `pool` is for what comes from inside.
pub fn rule(pool: Option<&str>) -> SnatRule {
    SnatRule {
        pattern: Pattern {
            sources: vec![range("10.1.0.0/24"), range("2001:db8:1::/64")],
            ..Pattern::default()
        },
        pool: pool.map(|name| RuleName::new(name).unwrap()),
    }
}

/// Adds the pools of a rule, IPv4's and IPv6's, by these numbers of services and servers.
pub fn add_pool(
    b: &mut SnapshotBuilder,
    name: &str,
    addresses: &[&str],
    ports: PortRange,
    (service, server): (u32, u32),
) {
    let numbered: Vec<(u32, IpAddr)> = (server..)
        .zip(addresses.iter().map(|a| a.parse().unwrap()))
        .collect();
    for (id, v6) in [(ServiceId(service), false), (ServiceId(service + 1), true)] {
        let of_it = numbered.iter().filter(|(_, a)| a.is_ipv6() == v6);
        let mut candidates = Vec::new();
        for &(server, address) in of_it {
            let address = SocketAddr::new(address, 0);
            b.server(Server {
                id: ServerId(server),
                service: id,
                address,
                forward: ForwardMode::snat,
                tunnel: None,
                policy: ServerPolicy::default(),
            });
            candidates.push(Candidate::new(ServerId(server), address, 1));
        }
        let policy = Policy {
            snat: SnatPool { ports },
            ..Policy::default()
        };
        b.service(Arc::new(Service {
            id,
            name: name.into(),
            key: ServiceKey::Snat {
                rule: RuleName::new(name).unwrap(),
                v6,
            },
            scheduler: Scheduler::new(SchedulerKind::mh, Options::default(), &candidates),
            local_addresses: candidates.iter().map(|c| c.address.ip()).collect(),
            servers: candidates,
            client_address: ClientAddress::none,
            policy,
        }));
    }
}

pub fn all_ports() -> PortRange {
    SnatPool::default().ports
}

/// What a server at `from` sends `to` somebody far away.
pub fn packet(proto: Proto, from: SocketAddr, to: SocketAddr, flags: u8) -> Packet {
    let packet = match proto {
        Proto::Tcp => Packet::tcp(from, to, flags),
        Proto::Udp => Packet::udp(from, to),
        Proto::Sctp => Packet::sctp(from, to, &[]),
        Proto::Icmp => {
            let (asks, id) = (true, from.port());
            Packet::echo(from.ip(), to.ip(), Echo { asks, id })
        }
    };
    let packet = packet.macs(server_mac(11), LAN_MAC);
    match (proto, flags) {
        (Proto::Sctp, SYN) => packet.payload(b"\x01\0\0\x07odd"), // INIT
        (Proto::Sctp, _) => packet.payload(b"\0\0\0\x07odd"),
        _ => packet.payload(b"odd"),
    }
}

/// Protocol and ends of a flow's packet, echoes included: a request's far port is 0.
pub fn seen(frame: &[u8]) -> (Proto, SocketAddr, SocketAddr) {
    match parse(frame, false) {
        Ok(Parsed::Other(Kind::Icmp4 | Kind::Icmp6)) => {
            let (l4, _) = upper_at(frame).unwrap();
            let protocol = if frame[12..14] == [8, 0] { 1 } else { 58 };
            let ports = Echo::read(protocol, &frame[l4..]).unwrap().ports();
            let (src, dst) = addresses(frame);
            let (a, b) = ((ports >> 16) as u16, ports as u16);
            (
                Proto::Icmp,
                SocketAddr::new(src, a),
                SocketAddr::new(dst, b),
            )
        }
        _ => ends(frame),
    }
}

/// The answer of whoever got `frame`.
pub fn reply(frame: &[u8], flags: u8) -> Packet {
    let (proto, src, dst) = seen(frame);
    if proto != Proto::Icmp {
        return answer(frame, flags);
    }
    let (asks, id) = (false, src.port());
    let packet = Packet::echo(dst.ip(), src.ip(), Echo { asks, id });
    packet
        .macs(eth::dst(frame), eth::src(frame))
        .payload(b"odd")
}

fn addresses(f: &[u8]) -> (IpAddr, IpAddr) {
    let v6 = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&f[at..at + 16]).unwrap());
    let v4 = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&f[at..at + 4]).unwrap());
    match f[12..14] {
        [0x86, 0xdd] => (v6(22), v6(38)),
        _ => (v4(26), v4(30)),
    }
}
