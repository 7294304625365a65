//! Who holds an address: Weir puts VIPs, local addresses and the ports' own addresses on the
//! kernel's interfaces, so that the kernel answers ARP and ping for them.
//!
//! This file decides ([`AddressBook::plan`], no I/O), `apply.rs` does. What Weir put there it
//! takes away; what it found there it leaves. Addresses carry the mark [`PROTO`] in the kernel,
//! so a start after a crash knows its own again:
//!
//! | found there | wanted | not wanted |
//! |---|---|---|
//! | without the mark | left alone, adopted | left alone |
//! | with it, on a twin | Weir's | taken away |
//! | with it, elsewhere | Weir's | left alone: another Weir of this host may want it |
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::net::IpAddr;

use weir_dataplane::PortId;

use super::twin::TwinInfo;
use crate::prefix;

mod apply;
#[cfg(test)]
mod tests;

pub(super) use apply::{dump, read as read_address};

/// `IFA_PROTO` of the addresses that Weir puts: a number without a meaning to the kernel
/// ('W'; `ip address show proto 87` of iproute2 6.3). Kernels before 5.18 forget it.
pub(crate) const PROTO: u8 = b'W';

/// What an address is for; of one that is for both, the lesser: a VIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum AddressKind {
    /// A virtual service's address (VIP).
    Vip,
    /// A local address of FULL-NAT (LIP).
    Local,
}

impl fmt::Display for AddressKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AddressKind::Vip => "virtual address",
            AddressKind::Local => "local address",
        })
    }
}

/// A virtual or local address that the kernel shall hold, as /32 or /128. With
/// `vips = "external"` the caller leaves VIPs out: they are then none of Weir's business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WantedAddress {
    /// The address.
    pub(crate) addr: IpAddr,
    /// What it is for.
    pub(crate) kind: AddressKind,
    /// The port on whose twin to put it; without one, the port whose network contains it, and
    /// the loopback interface where no port's does.
    pub(crate) port: Option<String>,
}

/// An address of the director itself on a port: `addresses = ["10.0.0.2/24"]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PortAddress {
    /// The port.
    pub(crate) port: PortId,
    /// The address.
    pub(crate) addr: IpAddr,
    /// Bits of its network, 0 to 32 or 128.
    pub(crate) prefix_len: u8,
}

/// Why an address is not where it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AddressProblem {
    /// `port = "…"` names no port.
    #[error("{kind} {addr}: there is no port {port:?}; name one of the [[port]] tables")]
    UnknownPort {
        /// What the address is for.
        kind: AddressKind,
        /// The address.
        addr: IpAddr,
        /// The name.
        port: String,
    },
    /// A local address is an address that the kernel uses itself.
    #[error(
        "local address {addr} is the director's own address on {interface}, whose connections \
         it would disturb; use another one of that network"
    )]
    OwnAddress {
        /// The address.
        addr: IpAddr,
        /// The interface that has it.
        interface: String,
    },
    /// The kernel refused to put it or to take it away.
    #[error("address {addr}/{prefix_len}: cannot {verb} interface {interface}: {source}")]
    Refused {
        /// The address.
        addr: IpAddr,
        /// Bits of its network.
        prefix_len: u8,
        /// "put it on" or "take it off".
        verb: &'static str,
        /// The interface.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel did not list the addresses that there are.
    #[error("cannot list the kernel's addresses: {0}; none was changed")]
    NotListed(io::Error),
}

/// An address on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// The interface.
    pub(super) ifindex: u32,
    /// The address.
    pub(super) addr: IpAddr,
    /// Bits of its network.
    pub(super) prefix_len: u8,
}

impl Place {
    /// Whether this is an interface's own address in a network that contains `addr`.
    fn network_contains(&self, addr: IpAddr) -> bool {
        !self.is_host() && prefix::contains(self.addr, self.prefix_len, addr)
    }

    /// Whether this is an address alone, without a network.
    fn is_host(&self) -> bool {
        self.prefix_len >= prefix::bits(self.addr)
    }
}

/// An address that the kernel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Present {
    /// Where.
    place: Place,
    /// Whether it carries [`PROTO`].
    marked: bool,
}

impl Present {
    /// Where it is.
    pub(super) fn place(&self) -> Place {
        self.place
    }
}

/// What is to be done.
#[derive(Debug, Default)]
struct Plan {
    /// Addresses to put.
    add: Vec<Place>,
    /// Addresses to take away.
    remove: Vec<Place>,
    /// Addresses that are there and Weir's.
    ours: HashSet<Place>,
    /// What cannot be done.
    problems: Vec<AddressProblem>,
}

/// What is wanted, and what of it Weir has put.
#[derive(Debug)]
pub(super) struct AddressBook {
    twins: Vec<TwinInfo>,
    loopback: u32,
    port_addresses: Vec<PortAddress>,
    wanted: Vec<WantedAddress>,
    ours: HashSet<Place>,
}

impl AddressBook {
    /// A book in which nothing is wanted yet. `loopback` is the index of `lo`.
    pub(super) fn new(twins: Vec<TwinInfo>, loopback: u32) -> AddressBook {
        AddressBook {
            twins,
            loopback,
            port_addresses: Vec::new(),
            wanted: Vec::new(),
            ours: HashSet::new(),
        }
    }

    /// Replaces the ports' own addresses.
    pub(super) fn want_on_ports(&mut self, addresses: Vec<PortAddress>) {
        self.port_addresses = addresses;
    }

    /// Replaces the virtual and local addresses.
    pub(super) fn want(&mut self, addresses: Vec<WantedAddress>) {
        self.wanted = addresses;
    }

    /// What Weir put on the interface `ifindex`.
    pub(super) fn ours_on(&self, ifindex: u32) -> impl Iterator<Item = IpAddr> + '_ {
        let here = self
            .ours
            .iter()
            .filter(move |place| place.ifindex == ifindex);
        here.map(|place| place.addr)
    }

    /// Whether Weir put `addr` on the interface `ifindex`.
    pub(super) fn holds(&self, ifindex: u32, addr: IpAddr) -> bool {
        let alone = Place {
            ifindex,
            addr,
            prefix_len: prefix::bits(addr),
        };
        let on_port = |place: Place| (place.ifindex, place.addr) == (ifindex, addr);
        self.ours.contains(&alone) || self.port_places().any(on_port)
    }

    /// Whether the kernel has it for services: a virtual or local address of Weir's.
    pub(super) fn is_for_services(&self, present: Present) -> bool {
        let place = present.place;
        place.is_host()
            && (present.marked || self.ours.contains(&place))
            && !self.port_places().any(|port| port == place)
    }

    /// The way from what the kernel has to what is wanted.
    fn plan(&self, present: &[Present]) -> Plan {
        let mut plan = Plan::default();
        let mut desired: Vec<Place> = self.port_places().collect();
        let is_ours = |p: &Present| p.marked || self.ours.contains(&p.place);
        let found = || present.iter().filter(|p| !is_ours(p)).map(|p| p.place);
        let own: Vec<Place> = found()
            .filter(|place| self.is_twin(place.ifindex) && !place.is_host())
            .chain(desired.iter().copied())
            .collect();
        for wanted in &self.wanted {
            let at = own.iter().find(|place| place.addr == wanted.addr);
            match (wanted.kind, at) {
                (AddressKind::Local, Some(at)) => plan.problems.push(AddressProblem::OwnAddress {
                    addr: wanted.addr,
                    interface: self.interface_name(at.ifindex),
                }),
                (AddressKind::Vip, Some(_)) => {} // the kernel answers for it already
                (_, None) if found().any(|place| place.addr == wanted.addr) => {}
                (_, None) => match self.place_for(wanted, &own) {
                    Ok(place) => desired.push(place),
                    Err(problem) => plan.problems.push(problem),
                },
            }
        }

        let mut left: HashMap<Place, bool> =
            present.iter().map(|p| (p.place, is_ours(p))).collect();
        let mut seen = HashSet::new();
        for place in desired.into_iter().filter(|place| seen.insert(*place)) {
            match left.remove(&place) {
                Some(true) => drop(plan.ours.insert(place)),
                Some(false) => {} // adopted
                None => plan.add.push(place),
            }
        }
        let stale = |(place, ours): (Place, bool)| {
            let known = self.ours.contains(&place) || self.is_twin(place.ifindex);
            (ours && known).then_some(place)
        };
        plan.remove = left.into_iter().filter_map(stale).collect();
        plan.remove.sort_by_key(|place| (place.ifindex, place.addr));
        plan
    }

    fn port_places(&self) -> impl Iterator<Item = Place> + '_ {
        self.port_addresses.iter().filter_map(|address| {
            let twin = self.twins.iter().find(|twin| twin.port == address.port)?;
            Some(Place {
                ifindex: twin.ifindex,
                addr: address.addr,
                prefix_len: address.prefix_len,
            })
        })
    }

    /// Where a virtual or local address belongs; `own` are the addresses of the twins.
    fn place_for(&self, wanted: &WantedAddress, own: &[Place]) -> Result<Place, AddressProblem> {
        let ifindex = match &wanted.port {
            Some(name) => {
                let twin = self.twins.iter().find(|twin| twin.name == *name);
                let unknown = || AddressProblem::UnknownPort {
                    kind: wanted.kind,
                    addr: wanted.addr,
                    port: name.clone(),
                };
                twin.ok_or_else(unknown)?.ifindex
            }
            None => {
                let containing = own.iter().filter(|own| own.network_contains(wanted.addr));
                let nearest = containing.max_by_key(|own| own.prefix_len);
                nearest.map_or(self.loopback, |own| own.ifindex)
            }
        };
        Ok(Place {
            ifindex,
            addr: wanted.addr,
            prefix_len: prefix::bits(wanted.addr),
        })
    }

    fn is_twin(&self, ifindex: u32) -> bool {
        self.twins.iter().any(|twin| twin.ifindex == ifindex)
    }

    fn interface_name(&self, ifindex: u32) -> String {
        let twin = self.twins.iter().find(|twin| twin.ifindex == ifindex);
        match twin {
            Some(twin) => twin.name.clone(),
            None if ifindex == self.loopback => "lo".to_owned(),
            None => format!("with index {ifindex}"),
        }
    }
}
