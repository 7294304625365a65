//! What a packet is asked of: services, routes and neighbours at one moment, a running daemon's
//! or those that a configuration file alone gives.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;

use weir_dataplane::counters::WorkerCounters;
use weir_dataplane::defense::blacklist::Blacklist;
use weir_dataplane::replay::{Scene, ScenePort};
use weir_dataplane::route::{Fib, NeighbourUpdate, Route, RouteTarget};
use weir_dataplane::service::Snapshot;
use weir_dataplane::steer::Alignment;
use weir_dataplane::{Mac, PortId};

use crate::config::{Config, RxChecksum};
use crate::model::{Model, OutOfIds};
use crate::prefix;

/// Connections that each of a replay's workers has room for: as many as it is asked about packets.
/// Memory that is never used is never touched.
const CONNECTIONS: u32 = super::MAX_PACKETS as u32;
/// Room for a frame beside the largest MTU: Ethernet's header, a VLAN tag, and what is wrapped
/// around it before it is cut.
const BESIDE_MTU: usize = 256;

/// Everything that decides what becomes of a packet.
#[derive(Debug, Clone)]
pub(crate) struct Picture {
    /// Whose it is, for people.
    pub(crate) source: String,
    /// What it takes for granted, one sentence each.
    pub(crate) assumed: Vec<String>,
    /// Its workers.
    pub(crate) workers: u8,
    /// Its ports.
    pub(crate) ports: Vec<PicturePort>,
    /// Its services.
    pub(crate) snapshot: Arc<Snapshot>,
    /// Its routes.
    pub(crate) routes: Vec<Route>,
    /// Neighbours whose MAC address is known.
    pub(crate) neighbours: Vec<NeighbourUpdate>,
    /// Every other neighbour answers, too.
    pub(crate) all_answer: bool,
    /// Who is shut out.
    pub(crate) blacklist: Arc<Blacklist>,
    /// What the running daemon's workers count; empty for a file.
    pub(crate) live: Vec<Arc<WorkerCounters>>,
}

/// A port.
#[derive(Debug, Clone)]
pub(crate) struct PicturePort {
    /// Its name.
    pub(crate) name: String,
    /// What workers know of it.
    pub(crate) scene: ScenePort,
}

impl Picture {
    /// What a configuration file alone says. The kernel's part of the network, which the file
    /// does not have, is assumed to be in order, and [`Picture::assumed`] says so.
    ///
    /// # Errors
    /// More real servers than there are numbers for.
    pub(crate) fn of_config(file: &Path, config: &Config) -> Result<Picture, OutOfIds> {
        let mut model = Model::default();
        model.apply(config)?;
        let workers = config.workers.cores.workers();
        let port = |(port, at): (&crate::config::Port, u8)| PicturePort {
            name: port.name.clone(),
            scene: ScenePort {
                mac: Mac([2, 0, 0, 0, 0xfe, at]), // locally administered; nobody else's here
                mtu: port.mtu,
                alignment: Alignment::Aligned,
                tx_queues: workers,
                fill_checksums: port.rx_checksum == RxChecksum::Fill,
            },
        };
        let first = config.ports.first().map_or("", |port| &port.name);
        Ok(Picture {
            source: file.display().to_string(),
            assumed: vec![
                format!(
                    "routes: the networks in the ports' `addresses`, and everything else through \
                     a router behind {first}; a running weir follows the kernel's"
                ),
                "neighbours: everybody answers".to_owned(),
                "no connection stands, no scheduler has begun".to_owned(),
            ],
            workers,
            ports: config.ports.iter().zip(0..).map(port).collect(),
            snapshot: model.snapshot(),
            routes: routes_of(config),
            neighbours: Vec::new(),
            all_answer: true,
            blacklist: Blacklist::empty(),
            live: Vec::new(),
        })
    }

    /// The replay's director.
    pub(super) fn scene(&self, fib: &Arc<Fib>) -> Scene {
        Scene {
            workers: self.workers,
            ports: self.ports.iter().map(|port| port.scene.clone()).collect(),
            snapshot: Arc::clone(&self.snapshot),
            fib: Arc::clone(fib),
            neighbours: self.neighbours.clone(),
            live: self.live.clone(),
            max_connections: CONNECTIONS,
            frame_room: self.longest_frame() + BESIDE_MTU,
        }
    }

    /// The longest frame that any port could receive, bytes.
    pub(super) fn longest_frame(&self) -> usize {
        let mtus = self.ports.iter().map(|port| usize::from(port.scene.mtu));
        mtus.max().unwrap_or_default() + weir_dataplane::packet::eth::HEADER_LEN
    }

    /// The port of this name.
    pub(super) fn port_named(&self, name: &str) -> Option<PortId> {
        let at = self.ports.iter().position(|port| port.name == name);
        at.map(|at| PortId(at as u8))
    }

    /// The port with this MAC address.
    pub(super) fn port_with(&self, mac: Mac) -> Option<PortId> {
        let at = self.ports.iter().position(|port| port.scene.mac == mac);
        at.map(|at| PortId(at as u8))
    }

    /// The name of a port.
    pub(super) fn name(&self, port: PortId) -> String {
        let port = self.ports.get(usize::from(port.0));
        port.map_or_else(|| "?".to_owned(), |port| port.name.clone())
    }
}

/// The assumed router behind the first port: link-local addresses, so no operator's.
const ROUTER4: Ipv4Addr = Ipv4Addr::new(169, 254, 255, 254);
const ROUTER6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xfffe);

/// The networks of the ports and their own addresses, and a default route of each family through the first port.
fn routes_of(config: &Config) -> Vec<Route> {
    let mut routes = Vec::new();
    for (port, at) in config.ports.iter().zip(0..) {
        for cidr in &port.addresses {
            routes.push(Route {
                prefix: prefix::network(cidr.address, cidr.prefix),
                len: cidr.prefix,
                target: RouteTarget::Port {
                    port: PortId(at),
                    gateway: None,
                    source: Some(cidr.address),
                },
            });
        }
    }
    let own = config.ports.iter().flat_map(|port| &port.addresses);
    routes.extend(own.map(|cidr| Route {
        prefix: cidr.address,
        len: prefix::bits(cidr.address),
        target: RouteTarget::Own,
    }));
    let everywhere: [(IpAddr, IpAddr); 2] = [
        (Ipv4Addr::UNSPECIFIED.into(), ROUTER4.into()),
        (Ipv6Addr::UNSPECIFIED.into(), ROUTER6.into()),
    ];
    for (prefix, router) in everywhere {
        let addresses = config.ports.first().into_iter().flat_map(|p| &p.addresses);
        let mut own = addresses.filter(|own| own.address.is_ipv4() == prefix.is_ipv4());
        routes.push(Route {
            prefix,
            len: 0,
            target: RouteTarget::Port {
                port: PortId(0),
                gateway: Some(router),
                source: own.next().map(|own| own.address),
            },
        });
    }
    routes
}
