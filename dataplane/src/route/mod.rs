//! Where a frame goes next: routes and neighbours, mirrored from the kernel by control.
//!
//! The FIB is an immutable snapshot ([`Fib`]); neighbours are an array at stable indices that
//! small commands change in place. A connection holds a neighbour's index and the FIB's epoch;
//! when the epoch differs it looks up again, once.
#![forbid(unsafe_code)]

use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::types::{Mac, PortId};

mod neighbours;
mod parking;
#[cfg(test)]
mod tests;

pub use neighbours::Neighbours;
pub use parking::{PARKED_MAX, Parked, Parking};

/// A neighbour's stable index, the same in every worker; given by control.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NeighbourId(pub u16);

impl NeighbourId {
    /// No neighbour known yet.
    pub const NONE: NeighbourId = NeighbourId(u16::MAX);
}

/// A neighbour as control tells it to the workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeighbourUpdate {
    /// Its index; below [`NeighbourId::NONE`].
    pub id: NeighbourId,
    /// The port it is reached through.
    pub port: PortId,
    /// Its address.
    pub addr: Ipv4Addr,
    /// Its MAC address; `None` while the kernel does not know it (any more).
    pub mac: Option<Mac>,
}

/// What a route says of its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteTarget {
    /// Through this port; to the gateway, or to the destination itself where there is none.
    Port {
        /// The port whose twin the kernel's route names.
        port: PortId,
        /// The next hop; `None` for a connected network.
        gateway: Option<Ipv4Addr>,
    },
    /// Not through Weir: a blackhole or unreachable route, or one through an interface that is
    /// no twin. It hides shorter prefixes.
    Reject,
}

/// One route of the kernel's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The network's address.
    pub prefix: Ipv4Addr,
    /// Its length in bits, 0 to 32.
    pub len: u8,
    /// Where to.
    pub target: RouteTarget,
}

/// A port and the address whose MAC the frame wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hop {
    /// Out of this port.
    pub port: PortId,
    /// To this address on the port's link.
    pub addr: Ipv4Addr,
}

/// All routes, longest prefix first. At most one route a prefix: control has chosen by metric.
#[derive(Debug, Default)]
pub struct Fib {
    /// Changes with each publication, so that connections know their next hop is stale.
    pub epoch: u16,
    /// Per prefix length that occurs, longest first: the networks, sorted.
    levels: Vec<(u8, Vec<(u32, RouteTarget)>)>,
}

impl Fib {
    /// Nothing is reachable.
    #[must_use]
    pub fn empty() -> Arc<Fib> {
        Arc::new(Fib::default())
    }

    /// A FIB of `routes`; of two for one prefix the last is kept, and host bits are ignored.
    #[must_use]
    pub fn new(epoch: u16, routes: &[Route]) -> Fib {
        let mut levels = Vec::new();
        for len in (0..=32u8).rev() {
            let mut level: Vec<(u32, RouteTarget)> = routes
                .iter()
                .rev() // of equal networks the sort and dedup below keep the first: the last given
                .filter(|r| r.len == len)
                .map(|r| (u32::from(r.prefix) & mask(len), r.target))
                .collect();
            if level.is_empty() {
                continue;
            }
            level.sort_by_key(|(net, _)| *net);
            level.dedup_by_key(|(net, _)| *net);
            levels.push((len, level));
        }
        Fib { epoch, levels }
    }

    /// The next hop towards `dst`: at most 33 binary searches, done when a connection opens or
    /// the epoch has changed, never for each packet.
    #[must_use]
    pub fn lookup(&self, dst: Ipv4Addr) -> Option<Hop> {
        let dst_bits = u32::from(dst);
        for (len, level) in &self.levels {
            let net = dst_bits & mask(*len);
            if let Ok(at) = level.binary_search_by_key(&net, |(n, _)| *n) {
                return match level[at].1 {
                    RouteTarget::Port { port, gateway } => Some(Hop {
                        port,
                        addr: gateway.unwrap_or(dst),
                    }),
                    RouteTarget::Reject => None,
                };
            }
        }
        None
    }
}

fn mask(len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0)
}
