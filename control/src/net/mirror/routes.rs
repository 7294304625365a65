//! From the kernel's routing tables to the routes that a FIB is made of.
//!
//! The kernel asks its tables in the order local, main, default (without policy rules, which
//! Weir does not follow). Local addresses are no business of the FIB, so it is made of main and
//! of what default adds where main has nothing. Per prefix the lowest metric wins, of equal
//! ones the first. A route that Weir cannot follow hides shorter ones all the same: as
//! [`RouteTarget::Reject`].
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteNextHop, RouteNextHopFlags,
    RouteType, RouteVia,
};
use weir_dataplane::PortId;
use weir_dataplane::route::{Route, RouteTarget};

use super::links::Links;
use super::sources::Sources;
use crate::prefix;

/// The tables that are followed (linux/rtnetlink.h, `RT_TABLE_DEFAULT` and `RT_TABLE_MAIN`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Table {
    Main,
    Default,
}

/// A network: address and length in bits.
type Prefix = (IpAddr, u8);

/// A route of the kernel, before it was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Candidate {
    table: Table,
    prefix: Prefix,
    metric: u32,
    target: RouteTarget,
}

/// The routes that a whole dump of the kernel's tables comes to, by prefix.
pub(super) fn choose(dump: &[RouteMessage], links: &Links, sources: &Sources) -> Vec<Route> {
    let mut best: HashMap<(Table, Prefix), Candidate> = HashMap::new();
    for candidate in dump.iter().filter_map(|message| read(message, links)) {
        best.entry((candidate.table, candidate.prefix))
            .and_modify(|best| {
                if candidate.metric < best.metric {
                    *best = candidate;
                }
            })
            .or_insert(candidate);
    }
    // The default table is asked only where main has nothing, however short main's prefix is.
    let in_main = |(addr, len): Prefix| {
        (0..=len).any(|len| best.contains_key(&(Table::Main, (prefix::network(addr, len), len))))
    };
    let mut routes: Vec<Route> = best
        .values()
        .filter(|c| c.table == Table::Main || !in_main(c.prefix))
        .map(|c| Route {
            prefix: c.prefix.0,
            len: c.prefix.1,
            target: with_source(c.target, c.prefix.0, links, sources),
        })
        .collect();
    routes.sort_by_key(|route| (route.prefix, route.len));
    routes
}

/// A forwarding route of a followed table; `None` for everything else.
fn read(message: &RouteMessage, links: &Links) -> Option<Candidate> {
    let header = &message.header;
    let mut addr = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    // For packets with that TOS, or from that network, only.
    if header.tos != 0
        || header.source_prefix_length != 0
        || header.flags.contains(RouteFlags::Cloned)
    {
        return None;
    }
    let mut table = u32::from(header.table);
    let mut metric = 0;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(id) => table = *id,
            RouteAttribute::Destination(net) => addr = plain(net)?,
            RouteAttribute::Priority(priority) => metric = *priority,
            _ => {}
        }
    }
    // Every link has fe80::/10 for itself: an address of it says nothing without its link.
    if matches!(addr, IpAddr::V6(v6) if v6.is_unicast_link_local() || v6.is_multicast()) {
        return None;
    }
    let len = header.destination_prefix_length.min(prefix::bits(addr));
    Some(Candidate {
        table: match table {
            254 => Table::Main,
            253 => Table::Default,
            _ => return None,
        },
        prefix: (prefix::network(addr, len), len),
        metric,
        target: target(message, links)?,
    })
}

/// The target, with an address to send from where the route itself says none.
fn with_source(
    mut target: RouteTarget,
    network: IpAddr,
    links: &Links,
    sources: &Sources,
) -> RouteTarget {
    if let RouteTarget::Port {
        port,
        gateway,
        source: source @ None,
    } = &mut target
    {
        let near = gateway.filter(|g| g.is_ipv4() == network.is_ipv4());
        let ifindex = links.ifindex(*port).unwrap_or_default();
        *source = sources.pick(ifindex, near.unwrap_or(network));
    }
    target
}

/// An address of either family.
fn plain(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

/// Where the route leads; `None` when it is no forwarding route, or dead.
fn target(message: &RouteMessage, links: &Links) -> Option<RouteTarget> {
    match message.header.kind {
        RouteType::Unicast => {}
        // A throw ends the table: after main comes nothing to speak of.
        RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit | RouteType::Throw => {
            return Some(RouteTarget::Reject);
        }
        _ => return None,
    }
    let source = message.attributes.iter().find_map(|a| match a {
        RouteAttribute::PrefSource(addr) => plain(addr),
        _ => None,
    });
    let several = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::MultiPath(hops) => Some(hops.as_slice()),
            _ => None,
        });
    match several {
        Some(hops) => {
            let alive: Vec<&RouteNextHop> = hops
                .iter()
                .filter(|hop| !hop.flags.contains(RouteNextHopFlags::Dead))
                .collect();
            // The first with carrier, like the kernel's choice when carrier counts; without
            // one any will do.
            let linked = alive.iter().filter(|hop| {
                let down = RouteNextHopFlags::Linkdown | RouteNextHopFlags::Unresolved;
                !hop.flags.intersects(down)
            });
            let usable: Vec<RouteTarget> = linked
                .chain(&alive)
                .map(|hop| next_hop(&hop.attributes, Some(hop.interface_index), source, links))
                .collect();
            let forwards = |t: &&RouteTarget| matches!(t, RouteTarget::Port { .. });
            usable.iter().find(forwards).or(usable.first()).copied()
        }
        None if message.header.flags.contains(RouteFlags::Dead) => None,
        None => Some(next_hop(&message.attributes, None, source, links)),
    }
}

/// One next hop, of these attributes. What is not simply a neighbour behind a twin (an
/// encapsulation, another interface) is rejected.
fn next_hop(
    attributes: &[RouteAttribute],
    ifindex: Option<u32>,
    source: Option<IpAddr>,
    links: &Links,
) -> RouteTarget {
    let mut port: Option<PortId> = ifindex.and_then(|index| links.port(index));
    let mut gateway = None;
    for attribute in attributes {
        match attribute {
            RouteAttribute::Oif(index) => port = links.port(*index),
            RouteAttribute::Gateway(addr) => match plain(addr) {
                Some(addr) => gateway = Some(addr),
                None => return RouteTarget::Reject,
            },
            // A gateway of the other family (RFC 8950).
            RouteAttribute::Via(RouteVia::Inet6(addr)) => gateway = Some(IpAddr::V6(*addr)),
            RouteAttribute::Via(_) | RouteAttribute::Encap(_) | RouteAttribute::EncapType(_) => {
                return RouteTarget::Reject;
            }
            _ => {}
        }
    }
    port.map_or(RouteTarget::Reject, |port| RouteTarget::Port {
        port,
        gateway,
        source,
    })
}

#[cfg(test)]
mod tests;
