//! Who is there: clients, the service and its servers, routes and neighbours.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use weir_dataplane::conn::state::{State, Timeouts};
use weir_dataplane::counters::WorkerCounters;
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::route::{Fib, NeighbourId, NeighbourUpdate, Route, RouteTarget};
use weir_dataplane::sched::{Options, Scheduler, SchedulerKind};
use weir_dataplane::service::{
    Candidate, Policy, Server, Service, ServiceKey, Snapshot, SnapshotBuilder,
};
use weir_dataplane::{Mac, PortId, Proto, ServerId, ServiceId, Tick};

const SERVERS: u32 = 8;
pub(crate) const WAN: PortId = PortId(0);
pub(super) const LAN: PortId = PortId(1);
pub(crate) const MACS: [Mac; 2] = [Mac([2, 0, 0, 0, 0x0d, 0]), Mac([2, 0, 0, 0, 0x0d, 1])];
pub(crate) const PEER: Mac = Mac([2, 0, 0, 0, 1, 1]);

/// The `n`th client.
pub(crate) fn client(n: u64) -> SocketAddrV4 {
    let (host, port) = (n / 60_000, n % 60_000);
    SocketAddrV4::new(
        Ipv4Addr::from(0x6400_0000 + host as u32),
        2000 + port as u16,
    )
}

pub(crate) const VIP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 10), 80);

/// The service with its servers, reached by `mode`, and local addresses for `connections`
/// connections; closing states last `closing` seconds.
pub(crate) fn snapshot(
    connections: u32,
    closing: u32,
    mode: ForwardMode,
    policy: Policy,
    counters: &WorkerCounters,
) -> Snapshot {
    let mut timeouts = Timeouts::default();
    for s in [
        State::FinWait,
        State::TimeWait,
        State::Close,
        State::CloseWait,
        State::LastAck,
    ] {
        timeouts.set(s, Tick::seconds(closing));
    }
    let mut b = SnapshotBuilder::default().timeouts(timeouts);
    let mut servers = Vec::new();
    for n in 0..SERVERS {
        let id = ServerId(n);
        counters.servers.reserve(id);
        let port = if mode.maps_ports() { 8080 } else { VIP.port() };
        let address = SocketAddr::from(([10, 1, 0, 11 + n as u8], port));
        b.server(Server {
            id,
            service: ServiceId(0),
            address,
            forward: mode,
            tunnel: None,
            policy: Default::default(),
        });
        servers.push(Candidate::new(id, address, 1));
    }
    // Three quarters of the local ports in use at the most.
    let per_address = u64::from(SERVERS) * 48_000;
    let addresses = u64::from(connections).div_ceil(per_address).max(1) as u32;
    b.service(Arc::new(Service {
        id: ServiceId(0),
        name: "bench".into(),
        key: ServiceKey::Address {
            proto: Proto::Tcp,
            vip: IpAddr::V4(*VIP.ip()),
            port: VIP.port(),
        },
        scheduler: Scheduler::new(SchedulerKind::wrr, Options::default(), &servers),
        servers,
        client_address: Default::default(),
        policy,
        local_addresses: (0..addresses)
            .map(|n| IpAddr::V4(Ipv4Addr::from(0x0a02_0001 + n)))
            .collect(),
    }));
    b.build(1)
}

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// Clients behind a gateway on the first port, servers on port `lan`.
pub(crate) fn fib(lan: PortId) -> Fib {
    let via = |port, gateway: Option<Ipv4Addr>| RouteTarget::Port {
        port,
        gateway: gateway.map(IpAddr::V4),
        source: Some(IpAddr::from([10, 1, 0, 2])),
    };
    let net = |a: [u8; 4], len, target| Route {
        prefix: a.into(),
        len,
        target,
    };
    Fib::new(
        1,
        &[
            net([0, 0, 0, 0], 0, via(WAN, Some(GATEWAY))),
            net([10, 1, 0, 0], 24, via(lan, None)),
        ],
    )
}

/// The MAC address of the gateway and of every server, as control would tell them.
pub(crate) fn neighbours(lan: PortId) -> impl Iterator<Item = NeighbourUpdate> {
    let server = move |n: u32| (lan, Ipv4Addr::new(10, 1, 0, 11 + n as u8));
    std::iter::once((WAN, GATEWAY))
        .chain((0..SERVERS).map(server))
        .zip(0..)
        .map(|((port, addr), id)| NeighbourUpdate {
            id: NeighbourId(id),
            port,
            addr: addr.into(),
            mac: Some(PEER),
        })
}
