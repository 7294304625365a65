//! Which address of the director packets on a route carry when they are its own: those of a
//! tunnel, and ICMP errors.
//!
//! A route may say it (its preferred source). Where it does not, the choice is about the
//! kernel's: an address of the route's interface, one whose network contains the next hop
//! before others; an address of another interface where that has none of the family. An
//! address of one link is none, and neither is a virtual or local address.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::net::IpAddr;

use rtnetlink::packet_route::address::{AddressHeaderFlags, AddressMessage, AddressScope};

use weir_dataplane::route::{Route, RouteTarget};

use crate::net::addresses::{AddressBook, read_address};
use crate::prefix;

/// An address that the director may send from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Source {
    ifindex: u32,
    addr: IpAddr,
    prefix_len: u8,
}

/// All of them, in the kernel's order: primary addresses before secondary ones.
#[derive(Debug, Default)]
pub(super) struct Sources(Vec<Source>);

impl Sources {
    /// Those among a dump of the kernel's addresses.
    pub(super) fn read(dump: &[AddressMessage], book: &AddressBook) -> Sources {
        let usable = dump.iter().filter(|message| {
            let unusable = AddressHeaderFlags::Tentative
                | AddressHeaderFlags::Dadfailed
                | AddressHeaderFlags::Deprecated;
            let optimistic = message
                .header
                .flags
                .contains(AddressHeaderFlags::Optimistic);
            message.header.scope == AddressScope::Universe
                && (optimistic || !message.header.flags.intersects(unusable))
        });
        let source = |message: &AddressMessage| {
            let present = read_address(message)?;
            let place = present.place();
            (!book.is_for_services(present)).then_some(Source {
                ifindex: place.ifindex,
                addr: place.addr,
                prefix_len: place.prefix_len,
            })
        };
        Sources(usable.filter_map(source).collect())
    }

    /// Each of them, as what says that it is the director's own.
    pub(super) fn routes(&self) -> impl Iterator<Item = Route> + '_ {
        let own = self.0.iter().map(|source| source.addr);
        let own: BTreeSet<IpAddr> = own.collect(); // one may be on two interfaces
        own.into_iter().map(|prefix| Route {
            prefix,
            len: prefix::bits(prefix),
            target: RouteTarget::Own,
        })
    }

    /// The address for a route out of the interface `ifindex`, whose next hop, or network where
    /// it has none, is `near`. `None` when the director has no address of that family.
    pub(super) fn pick(&self, ifindex: u32, near: IpAddr) -> Option<IpAddr> {
        let family = self.0.iter().filter(|s| s.addr.is_ipv4() == near.is_ipv4());
        let best = family.min_by_key(|s| {
            let elsewhere = s.ifindex != ifindex;
            let apart = !prefix::contains(s.addr, s.prefix_len, near);
            let alone = s.prefix_len == prefix::bits(s.addr);
            (elsewhere, apart, alone)
        });
        Some(best?.addr)
    }
}

#[cfg(test)]
mod tests;
