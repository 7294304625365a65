//! The director that targets send packets through: services in every mode, in both families, with
//! every carrier; the workers' own code on simulated ports.
//!
//! ```text
//!  router .1 -- wan0 10.0.0.2, 2001:db8::2 [VIPs 10.0.0.10, 2001:db8::10] lan0 -- servers 11-13
//! ```
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use weir_dataplane::conn::state::{State, Timeouts};
use weir_dataplane::counters::Totals;
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::forward::carrier::ClientAddress;
use weir_dataplane::forward::tun::{GueChecksum, Tunnel};
use weir_dataplane::helper::Helper;
use weir_dataplane::packet::{self, Key, Parsed, build};
use weir_dataplane::replay::{Replay, Scene, ScenePort};
use weir_dataplane::route::{Fib, NeighbourId, NeighbourUpdate, Route, RouteTarget};
use weir_dataplane::sched::{Options, Scheduler, SchedulerKind};
use weir_dataplane::service::{Candidate, Policy, Server, Service, ServiceKey, SnapshotBuilder};
use weir_dataplane::steer::Alignment;
use weir_dataplane::{Mac, PortId, Proto, ServerId, ServiceId, Tick};

/// The port of clients.
pub const WAN: PortId = PortId(0);
/// The port of servers.
pub const LAN: PortId = PortId(1);
/// The ports' MAC addresses.
pub const MACS: [Mac; 2] = [Mac([2, 0, 0, 0, 0x0d, 0]), Mac([2, 0, 0, 0, 0x0d, 1])];
/// Whoever sends.
pub const SENDER: Mac = Mac([2, 0, 0, 0, 1, 1]);
/// Bytes of the largest IP packet.
pub const MTU: u16 = 1500;

/// GUE's port.
const GUE: u16 = 6080;

/// What a service of the scene is.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Protocol.
    pub proto: Proto,
    /// The virtual address is IPv6.
    pub vip6: bool,
    /// The servers are.
    pub server6: bool,
    /// How packets reach them.
    pub forward: ForwardMode,
    /// What they travel in.
    pub tunnel: Option<Tunnel>,
    /// How the client's address is told.
    pub client_address: ClientAddress,
    /// What reads its connections.
    pub helper: Helper,
}

/// Every protocol by every mode in every family, and every carrier.
#[must_use]
pub fn kinds() -> Vec<Kind> {
    let mut kinds = Vec::new();
    let tunnels = [
        Tunnel::Ipip,
        Tunnel::Gre { checksum: false },
        Tunnel::Gre { checksum: true },
        Tunnel::Gue {
            port: GUE,
            checksum: GueChecksum::Full,
        },
        Tunnel::Gue {
            port: GUE,
            checksum: GueChecksum::None,
        },
        Tunnel::Vxlan {
            vni: 7,
            port: 4789,
            mac: None,
        },
    ];
    for proto in [Proto::Tcp, Proto::Udp, Proto::Sctp] {
        for (vip6, server6) in [(false, false), (true, true), (false, true), (true, false)] {
            let kind = |forward, tunnel, client_address| Kind {
                proto,
                vip6,
                server6,
                forward,
                tunnel,
                client_address,
                helper: Helper::none,
            };
            let carriers = ClientAddress::ALL.iter().filter(|c| c.carries(proto));
            kinds.extend(carriers.map(|c| kind(ForwardMode::fullnat, None, *c)));
            kinds.extend(tunnels.map(|t| kind(ForwardMode::tun, Some(t), ClientAddress::none)));
            if vip6 == server6 {
                let others = [ForwardMode::nat, ForwardMode::dr, ForwardMode::local];
                kinds.extend(others.map(|mode| kind(mode, None, ClientAddress::none)));
            }
        }
    }
    kinds
}

/// FTP by all that its helper is for.
#[must_use]
pub fn ftp_kinds() -> Vec<Kind> {
    let mut kinds = kinds();
    kinds.retain(|k| {
        let plain = k.client_address == ClientAddress::none;
        let answered = matches!(k.forward, ForwardMode::nat | ForwardMode::fullnat);
        k.proto == Proto::Tcp && plain && answered
    });
    for kind in &mut kinds {
        kind.helper = Helper::ftp;
    }
    kinds
}

fn addr(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Where the service of `kinds()[at]` is.
#[must_use]
pub fn service_at(at: usize, kind: &Kind) -> SocketAddr {
    let vip = addr(if kind.vip6 {
        "2001:db8::10"
    } else {
        "10.0.0.10"
    });
    SocketAddr::new(vip, 1000 + at as u16)
}

/// A scene with these services, two servers each.
#[must_use]
pub fn scene(kinds: &[Kind], workers: u8) -> Scene {
    // Short, so that little time has to pass until nothing is left.
    let mut timeouts = Timeouts::default();
    for state in State::ALL {
        timeouts.set(state, Tick::seconds(2));
    }
    let mut b = SnapshotBuilder::default().timeouts(timeouts);
    for (kind, at) in kinds.iter().zip(0u32..) {
        let servers: Vec<Candidate> = (0..2u32)
            .map(|n| {
                let ip = match kind.server6 {
                    true => addr(&format!("2001:db8:1::{}", 11 + n)),
                    false => addr(&format!("10.1.0.{}", 11 + n)),
                };
                let port = match kind.forward.maps_ports() {
                    true => 8080,
                    false => service_at(at as usize, kind).port(),
                };
                let (id, address) = (ServerId(2 * at + n), SocketAddr::new(ip, port));
                b.server(Server {
                    id,
                    service: ServiceId(at),
                    address,
                    forward: kind.forward,
                    tunnel: kind.tunnel,
                    policy: Default::default(),
                });
                Candidate::new(id, address, 1)
            })
            .collect();
        let to = service_at(at as usize, kind);
        b.service(Arc::new(Service {
            id: ServiceId(at),
            name: format!("{at}").into(),
            key: ServiceKey::Address {
                proto: kind.proto,
                vip: to.ip(),
                port: to.port(),
            },
            scheduler: Scheduler::new(SchedulerKind::rr, Options::default(), &servers),
            servers,
            local_addresses: ["10.1.0.100", "2001:db8:1::100"]
                .map(addr)
                .into_iter()
                .collect(),
            client_address: kind.client_address,
            policy: Policy {
                helper: kind.helper,
                ..Policy::default()
            },
        }));
    }
    let route = |prefix, len, port, gateway: Option<&str>, source| Route {
        prefix: addr(prefix),
        len,
        target: RouteTarget::Port {
            port,
            gateway: gateway.map(addr),
            source: Some(addr(source)),
        },
    };
    let fib = Fib::new(
        1,
        &[
            route("0.0.0.0", 0, WAN, Some("10.0.0.1"), "10.0.0.2"),
            route("10.1.0.0", 24, LAN, None, "10.1.0.2"),
            route("::", 0, WAN, Some("2001:db8::1"), "2001:db8::2"),
            route("2001:db8:1::", 64, LAN, None, "2001:db8:1::2"),
        ],
    );
    // Server 13 is in the network and never answers.
    let known = [
        (WAN, "10.0.0.1"),
        (WAN, "2001:db8::1"),
        (LAN, "10.1.0.11"),
        (LAN, "10.1.0.12"),
        (LAN, "2001:db8:1::11"),
        (LAN, "2001:db8:1::12"),
    ];
    let neighbours = known
        .into_iter()
        .zip(0..)
        .map(|((port, at), id)| NeighbourUpdate {
            id: NeighbourId(id),
            port,
            addr: addr(at),
            mac: Some(Mac([2, 0, 0, 0, 2, id as u8])),
        });
    let port = |mac| ScenePort {
        mac,
        mtu: MTU,
        alignment: Alignment::Unaligned,
        tx_queues: workers,
        fill_checksums: false,
    };
    Scene {
        workers,
        ports: MACS.map(port).into(),
        snapshot: Arc::new(b.build(1)),
        fib: Arc::new(fib),
        neighbours: neighbours.collect(),
        live: Vec::new(),
        max_connections: 512,
        frame_room: 2048,
    }
}

/// Every frame is in one column of the books, and none lives but those held.
///
/// # Panics
/// When they do not balance.
pub fn assert_books(replay: &Replay) {
    let totals = Totals::of(replay.counters().iter().map(|c| &**c));
    assert!(totals.balanced(), "{totals:?}");
    let alive = replay.frames_alive() as u64;
    assert_eq!(
        alive, totals.held,
        "frames that live, frames held: {totals:?}"
    );
}

/// Lets everything run out; nothing may stand or live then.
///
/// # Panics
/// When something does.
pub fn assert_runs_out(replay: &mut Replay) {
    let now = replay.now();
    // Parked frames and connections, fragments (30 s), then redirects (64 s and a connection's
    // time after the last that was said of them).
    for seconds in [3, 31, 70] {
        replay.at(replay.now().after(Tick::seconds(seconds)));
        let _ = replay.left();
    }
    assert_books(replay);
    assert_eq!(replay.connections(), 0, "since {now:?}");
    assert_eq!(replay.frames_alive(), 0);
    for counters in replay.counters() {
        assert_eq!(counters.conns.get(), 0);
    }
}

/// A frame of Weir's own making or mending is well-formed, fits the link, and its checksums are
/// right, if those of what it was made from were.
///
/// # Panics
/// When it is not.
pub fn assert_well_formed(frame: &[u8]) {
    assert!(
        frame.len() <= usize::from(MTU) + 14,
        "{} bytes",
        frame.len()
    );
    match packet::parse(frame, false) {
        Ok(parsed @ (Parsed::Flow(_) | Parsed::Flow6(_))) => {
            let right = build::checksums_right(frame) || is_gue_without_checksum(&parsed, frame);
            assert!(right, "checksums of {frame:02x?}");
        }
        Ok(_) => {}
        Err(reason) => panic!("{}: {frame:02x?}", reason.name()),
    }
}

/// GUE over IPv6 without a checksum (RFC 6935, ipvsadm's `--tun-nocsum`) was asked for.
fn is_gue_without_checksum(parsed: &Parsed, frame: &[u8]) -> bool {
    match parsed {
        Parsed::Flow6(f) => {
            let checksum = packet::be16(frame, usize::from(f.l4) + 6);
            f.key.proto == Proto::Udp && f.key.dport() == GUE && checksum == 0
        }
        _ => false,
    }
}

/// The answer of whoever got `frame`: addresses and ports swapped.
#[must_use]
pub fn answer(frame: &[u8]) -> Option<build::Packet> {
    let (proto, from, to) = match packet::parse(frame, false).ok()? {
        Parsed::Flow(f) => (f.key.proto(), f.key.source(), f.key.destination()),
        Parsed::Flow6(f) => (f.key.proto(), f.key.source(), f.key.destination()),
        Parsed::Other(_) => return None,
    };
    Some(match proto {
        Proto::Tcp => build::Packet::tcp(to, from, 0),
        Proto::Udp => build::Packet::udp(to, from),
        Proto::Sctp => build::Packet::sctp(to, from, &[(0, b"data")]),
        Proto::Icmp => unreachable!("no service has it"),
    })
}
