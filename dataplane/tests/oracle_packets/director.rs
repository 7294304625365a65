//! The laboratory of the recording, with Weir in the place of the kernel.
//!
//! ```text
//!  clients -- 10.0.1.1, 2001:db8:1::1 -- d0 [director] d1 -- 10.0.2.N, 2001:db8:2::N, router .253
//! ```

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use weir_dataplane::command::{Command, PortUpdate};
use weir_dataplane::conn::state::Rules;
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::route::{Fib, NeighbourId, NeighbourUpdate};
use weir_dataplane::sched::{Options, Scheduler, SchedulerKind};
use weir_dataplane::service::{Candidate, Server, Service, ServiceKey, Snapshot, SnapshotBuilder};
use weir_dataplane::{Mac, PortId, Proto, ServerId, ServiceId};

use crate::common::{Director, LAN, LAN_MAC, ROUTER_MAC, Shape, WAN, WAN_MAC, route, server_mac};
use crate::recording::{Case, option_of};
use crate::tunnels::tunnel;

/// A director of `shape` with the case's services.
pub(crate) fn director(case: &Case, shape: &Shape) -> Director {
    let mut d = Director::new(&Shape {
        neighbours: false,
        ..shape.clone()
    });
    let fib = Arc::new(fib());
    d.tell(|| Command::Fib(Arc::clone(&fib)));
    for neighbour in neighbours() {
        d.tell(|| Command::Neighbour(neighbour));
        d.settle();
    }
    for (port, mac, mtu) in [
        (WAN, WAN_MAC, case.client_mtu),
        (LAN, LAN_MAC, case.server_mtu),
    ] {
        d.tell(|| Command::Port(PortUpdate { port, mac, mtu }));
    }
    publish(&mut d, case, true);
    d
}

/// Publishes the case's services, with their servers or without.
pub(crate) fn publish(d: &mut Director, case: &Case, servers: bool) {
    let snapshot = Arc::new(snapshot(case, servers));
    d.tell(|| Command::Snapshot(Arc::clone(&snapshot)));
    d.settle();
    d.events.clear();
}

/// The services that the lines for ipvsadm make. A server that is taken away stays for its
/// connections, as control keeps it.
fn snapshot(case: &Case, with_servers: bool) -> Snapshot {
    let rules = Rules {
        pmtu_disc: case.pmtu_disc,
        ..Rules::default()
    };
    let mut b = SnapshotBuilder::default().rules(rules);
    let mut services: Vec<(Proto, SocketAddr, Vec<Candidate>)> = Vec::new();
    let mut ids = (0..).map(ServerId);
    for line in &case.ipvsadm {
        let (proto, at) = match (option_of(line, "-t"), option_of(line, "-u")) {
            (Some(at), _) => (Proto::Tcp, at),
            (_, Some(at)) => (Proto::Udp, at),
            _ => panic!("{line}"),
        };
        let at = at.parse().unwrap();
        if line.starts_with("-A") {
            services.push((proto, at, Vec::new()));
            continue;
        }
        let n = services
            .iter()
            .position(|s| (s.0, s.1) == (proto, at))
            .unwrap();
        let address: SocketAddr = option_of(line, "-r").unwrap().parse().unwrap();
        let forward = match line
            .split_whitespace()
            .find(|w| matches!(*w, "-g" | "-i" | "-m"))
        {
            _ if is_local(address.ip()) => ForwardMode::local,
            Some("-g") => ForwardMode::dr,
            Some("-i") => ForwardMode::tun,
            _ => ForwardMode::nat,
        };
        let id = ids.next().unwrap();
        b.server(Server {
            id,
            service: ServiceId(n as u32),
            address,
            forward,
            tunnel: tunnel(case),
            policy: Default::default(),
        });
        if with_servers {
            services[n].2.insert(0, Candidate::new(id, address, 1));
        }
    }
    for ((proto, at, servers), n) in services.into_iter().zip(0..) {
        b.service(Arc::new(Service {
            id: ServiceId(n),
            name: format!("{proto}").into(),
            key: ServiceKey::Address {
                proto,
                vip: at.ip(),
                port: at.port(),
            },
            scheduler: Scheduler::new(SchedulerKind::rr, Options::default(), &servers),
            servers,
            client_address: Default::default(),
            policy: Default::default(),
            local_addresses: Default::default(),
        }));
    }
    b.build(2)
}

/// Whether the director itself has this address.
pub(crate) fn is_local(addr: IpAddr) -> bool {
    let own = [
        "10.0.1.254",
        "10.0.2.254",
        "2001:db8:1::fe",
        "2001:db8:2::fe",
    ];
    let virtual_ = match addr {
        IpAddr::V4(a) => a.octets()[..3] == [10, 0, 100],
        IpAddr::V6(a) => a.segments()[2] == 0x100,
    };
    virtual_ || own.iter().any(|o| *o == addr.to_string())
}

fn fib() -> Fib {
    Fib::new(
        2,
        &[
            route("0.0.0.0", 0, WAN, Some("10.0.1.1"), "10.0.1.254"),
            route("10.0.1.0", 24, WAN, None, "10.0.1.254"),
            route("10.0.2.0", 24, LAN, None, "10.0.2.254"),
            route("::", 0, WAN, Some("2001:db8:1::1"), "2001:db8:1::fe"),
            route("2001:db8:1::", 64, WAN, None, "2001:db8:1::fe"),
            route("2001:db8:2::", 64, LAN, None, "2001:db8:2::fe"),
        ],
    )
}

fn neighbours() -> Vec<NeighbourUpdate> {
    let at = |id, port: PortId, addr: String, mac: Mac| NeighbourUpdate {
        id: NeighbourId(id),
        port,
        addr: addr.parse().unwrap(),
        mac: Some(mac),
    };
    let mut all = vec![
        at(0, WAN, "10.0.1.1".into(), ROUTER_MAC),
        at(1, WAN, "2001:db8:1::1".into(), ROUTER_MAC),
    ];
    for (n, id) in [1u8, 2, 253].into_iter().zip((2..).step_by(2)) {
        all.push(at(id, LAN, format!("10.0.2.{n}"), server_mac(n)));
        all.push(at(id + 1, LAN, format!("2001:db8:2::{n:x}"), server_mac(n)));
    }
    all
}
