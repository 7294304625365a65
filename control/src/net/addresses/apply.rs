//! Puts and takes away addresses over rtnetlink, as the book's plan says.
#![forbid(unsafe_code)]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol, CacheInfo,
};
use rtnetlink::{AddressMessageBuilder, Handle};

use super::{AddressBook, AddressProblem, PROTO, Place, Present};
use crate::net::mirror::io_error;

/// Taking away a primary address can take secondary ones of its network along (unless the
/// sysctl promote_secondaries is set), so a second look puts these back.
const ROUNDS: usize = 2;

impl AddressBook {
    /// Makes the kernel's addresses what the book wants. Returns what was put, and what
    /// could not be done; the rest was done.
    pub(in crate::net) async fn apply(
        &mut self,
        handle: &Handle,
    ) -> (Vec<Place>, Vec<AddressProblem>) {
        let mut added = Vec::new();
        let mut problems = Vec::new();
        for _ in 0..ROUNDS {
            let present: Vec<Present> = match dump(handle).await {
                Ok(dump) => dump.iter().filter_map(read).collect(),
                Err(error) => {
                    problems.push(AddressProblem::NotListed(error));
                    break;
                }
            };
            let plan = self.plan(&present);
            self.ours = plan.ours;
            problems = plan.problems;
            let done = plan.add.is_empty() && plan.remove.is_empty();
            for place in plan.add {
                match put(handle, place).await {
                    Ok(()) => {
                        self.ours.insert(place);
                        added.push(place);
                    }
                    Err(error) => problems.push(self.refused(place, "put it on", error)),
                }
            }
            for place in plan.remove {
                if let Err(error) = take(handle, place).await {
                    self.ours.insert(place);
                    problems.push(self.refused(place, "take it off", error));
                }
            }
            if done {
                break;
            }
        }
        (added, problems)
    }

    /// Takes away all that Weir put.
    pub(in crate::net) async fn withdraw(&mut self, handle: &Handle) {
        for place in std::mem::take(&mut self.ours) {
            if let Err(error) = take(handle, place).await {
                tracing::warn!("{}", self.refused(place, "take it off", error));
            }
        }
    }

    fn refused(&self, place: Place, verb: &'static str, source: io::Error) -> AddressProblem {
        AddressProblem::Refused {
            addr: place.addr,
            prefix_len: place.prefix_len,
            verb,
            interface: self.interface_name(place.ifindex),
            source,
        }
    }
}

/// All addresses that the kernel has, of both families.
pub(in crate::net) async fn dump(handle: &Handle) -> io::Result<Vec<AddressMessage>> {
    let messages = handle.address().get().execute();
    messages.try_collect().await.map_err(io_error)
}

/// The address of an RTM_NEWADDR.
pub(in crate::net) fn read(message: &AddressMessage) -> Option<Present> {
    let mut local = None;
    let mut marked = false;
    for attribute in &message.attributes {
        match attribute {
            // IPv6 has a local one beside it only on links with a peer.
            AddressAttribute::Address(addr @ IpAddr::V6(_)) => _ = local.get_or_insert(*addr),
            AddressAttribute::Local(addr) => local = Some(*addr),
            AddressAttribute::Protocol(proto) => marked = *proto == AddressProtocol::Other(PROTO),
            _ => {}
        }
    }
    let place = Place {
        ifindex: message.header.index,
        addr: local?,
        prefix_len: message.header.prefix_len,
    };
    Some(Present { place, marked })
}

async fn put(handle: &Handle, place: Place) -> io::Result<()> {
    let mut request = handle
        .address()
        .add(place.ifindex, place.addr, place.prefix_len);
    let message = request.message_mut();
    let proto = AddressAttribute::Protocol(AddressProtocol::Other(PROTO));
    message.attributes.push(proto);
    if place.addr.is_ipv6() && place.is_host() {
        // Usable at once, without asking whether another has it: after a failover the one that
        // had it may still answer.
        message.header.flags |= AddressHeaderFlags::Nodad;
        // No route to it beside the local one: it is nobody's next hop.
        let flags = AddressFlags::Nodad | AddressFlags::Noprefixroute;
        message.attributes.push(AddressAttribute::Flags(flags));
        // Never the source of the kernel's own connections, whose answers workers would take.
        let mut lifetime = CacheInfo::default();
        (lifetime.ifa_preferred, lifetime.ifa_valid) = (0, u32::MAX);
        message
            .attributes
            .push(AddressAttribute::CacheInfo(lifetime));
    }
    request.execute().await.map_err(io_error)
}

async fn take(handle: &Handle, place: Place) -> io::Result<()> {
    // A message without flags, else like the one that put it.
    let message = match place.addr {
        IpAddr::V4(addr) => AddressMessageBuilder::<Ipv4Addr>::new()
            .address(addr, place.prefix_len)
            .index(place.ifindex)
            .build(),
        IpAddr::V6(addr) => AddressMessageBuilder::<Ipv6Addr>::new()
            .address(addr, place.prefix_len)
            .index(place.ifindex)
            .build(),
    };
    let taken = handle
        .address()
        .del(message)
        .execute()
        .await
        .map_err(io_error);
    match taken {
        // Someone else took it, or the interface is gone.
        Err(e) if is_absent(&e) => Ok(()),
        taken => taken,
    }
}

fn is_absent(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        Errno::from_io_error(error),
        Some(Errno::ADDRNOTAVAIL | Errno::NODEV)
    )
}
