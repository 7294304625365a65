//! Where a frame goes next: routes and neighbours, mirrored from the kernel by control.
//!
//! The FIB is an immutable snapshot ([`Fib`]); neighbours are an array at stable indices that
//! small commands change in place. A connection holds a neighbour's index and the FIB's epoch;
//! when the epoch differs it looks up again, once.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::types::{Mac, PortId};

mod neighbours;
mod parking;
mod path_mtu;
#[cfg(test)]
mod tests;

pub use neighbours::{Neighbours, OwnEnd, Reach};
pub use parking::{PARKED_MAX, Parked, Parking};
pub use path_mtu::PathMtus;

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
    pub addr: IpAddr,
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
        /// The next hop, of either family (RFC 8950); `None` for a connected network.
        gateway: Option<IpAddr>,
        /// The director's own address on the way, which tunnels and ICMP errors are sent from:
        /// the route's preferred source, else an address of the interface.
        source: Option<IpAddr>,
    },
    /// The director's own address: what is for it is the kernel's. It is no route, and says
    /// nothing of the way there.
    Own,
    /// Not through Weir: a blackhole or unreachable route, or one through an interface that is
    /// no twin. It hides shorter prefixes.
    Reject,
}

/// One route of the kernel's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The network's address.
    pub prefix: IpAddr,
    /// Its length in bits, 0 to 32 or 128.
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
    pub addr: IpAddr,
}

/// What a route says of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// Who gets the frame next.
    pub hop: Hop,
    /// The director's own address on the way, where it has one.
    pub source: Option<IpAddr>,
}

/// All routes, longest prefix first. At most one route a prefix: control has chosen by metric.
#[derive(Debug, Default)]
pub struct Fib {
    /// Changes with each publication, so that connections know their next hop is stale.
    pub epoch: u16,
    v4: Levels,
    v6: Levels,
    /// The director's own addresses.
    own: HashSet<IpAddr, RandomState>,
}

/// One family's routes: per prefix length that occurs, longest first, the networks, sorted.
/// Addresses are the low bits of 128.
#[derive(Debug, Default)]
struct Levels(Vec<Level>);

#[derive(Debug)]
struct Level {
    mask: u128,
    networks: Vec<(u128, RouteTarget)>,
}

impl Levels {
    fn new(bits: u8, routes: &[(u128, u8, RouteTarget)]) -> Levels {
        let mut levels = Vec::new();
        for len in (0..=bits).rev() {
            let mask = mask(bits, len);
            let mut networks: Vec<_> = routes
                .iter()
                .rev() // of equal networks the sort and dedup below keep the first: the last given
                .filter(|(_, l, _)| *l == len)
                .map(|(prefix, _, target)| (prefix & mask, *target))
                .collect();
            if networks.is_empty() {
                continue;
            }
            networks.sort_by_key(|(net, _)| *net);
            networks.dedup_by_key(|(net, _)| *net);
            levels.push(Level { mask, networks });
        }
        Levels(levels)
    }

    #[inline]
    fn lookup(&self, dst: u128) -> Option<&RouteTarget> {
        self.0.iter().find_map(|level| {
            let at = level
                .networks
                .binary_search_by_key(&(dst & level.mask), |(net, _)| *net);
            at.ok().map(|at| &level.networks[at].1)
        })
    }
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
        let family = |v6: bool| -> Vec<_> {
            let of_it = routes.iter().filter(|r| r.prefix.is_ipv6() == v6);
            let of_it = of_it.filter(|r| r.target != RouteTarget::Own);
            of_it.map(|r| (bits(r.prefix), r.len, r.target)).collect()
        };
        let own = routes.iter().filter(|r| r.target == RouteTarget::Own);
        Fib {
            epoch,
            v4: Levels::new(32, &family(false)),
            v6: Levels::new(128, &family(true)),
            own: own.map(|r| r.prefix).collect(),
        }
    }

    /// Whether an address is the director's own.
    #[must_use]
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.own.contains(&address)
    }

    /// The way towards `dst`: at most one binary search for each prefix length, done when a
    /// connection opens or the epoch has changed, never for each packet.
    #[inline]
    #[must_use]
    pub fn lookup(&self, dst: IpAddr) -> Option<Way> {
        let levels = if dst.is_ipv4() { &self.v4 } else { &self.v6 };
        match *levels.lookup(bits(dst))? {
            RouteTarget::Port {
                port,
                gateway,
                source,
            } => {
                let addr = gateway.unwrap_or(dst);
                let hop = Hop { port, addr };
                Some(Way { hop, source })
            }
            RouteTarget::Own | RouteTarget::Reject => None,
        }
    }
}

fn bits(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => u128::from(u32::from(addr)),
        IpAddr::V6(addr) => u128::from(addr),
    }
}

fn mask(bits: u8, len: u8) -> u128 {
    u128::MAX.checked_shl(u32::from(bits - len)).unwrap_or(0)
}
