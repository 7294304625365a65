//! The neighbours of the twins: which MAC address the kernel knows for which address, and
//! which ones it is asked to find or to keep.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use weir_dataplane::route::Hop;
use weir_dataplane::{Mac, PortId};

use super::NetEvent;
use super::links::Links;

/// A neighbour's MAC address as the kernel knows it, if it does.
type Known = (Hop, Option<Mac>);

/// The neighbour of a twin that an RTM_NEWNEIGH tells of; `None` for others, for proxies and
/// for the multicast addresses that the kernel maps by itself.
pub(super) fn read(message: &NeighbourMessage, links: &Links) -> Option<Known> {
    let header = &message.header;
    if header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let port = links.port(header.ifindex)?;
    let mut addr = None;
    let mut mac: Option<Mac> = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                addr = Some(IpAddr::V4(*v4)).filter(|_| !v4.is_broadcast());
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                addr = Some(IpAddr::V6(*v6));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = bytes.as_slice().try_into().ok().map(Mac);
            }
            _ => {}
        }
    }
    let addr = addr.filter(|addr| !addr.is_multicast())?;
    // A stale neighbour is as good as any: the kernel only has had no reason to ask again.
    let usable = matches!(
        header.state,
        NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent
            | NeighbourState::Noarp
    );
    let mac = mac.filter(|mac| usable && !mac.is_group());
    Some((Hop { port, addr }, mac))
}

/// The neighbours whose MAC address is known.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    known: HashMap<Hop, Mac>,
}

impl Neighbours {
    /// Takes in what the kernel says of one neighbour; the news, if it is any.
    pub(super) fn take(&mut self, hop: Hop, mac: Option<Mac>) -> Option<NetEvent> {
        let old = match mac {
            Some(mac) => self.known.insert(hop, mac),
            None => self.known.remove(&hop),
        };
        (old != mac).then_some(NetEvent::Neighbour {
            port: hop.port,
            addr: hop.addr,
            mac,
        })
    }

    /// Takes in a whole dump: what it does not name is lost.
    pub(super) fn take_all(&mut self, dump: Vec<Known>) -> Vec<NetEvent> {
        let mut now: HashMap<Hop, Option<Mac>> =
            self.known.keys().map(|hop| (*hop, None)).collect();
        now.extend(dump);
        now.into_iter()
            .filter_map(|(hop, mac)| self.take(hop, mac))
            .collect()
    }
}

/// How the kernel is asked for a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// Find it now (NTF_USE): ARP goes out unless the answer is fresh.
    Once,
    /// Find it, keep it out of garbage collection and look after it from time to time
    /// (NTF_EXT_LEARNED and NTF_EXT_MANAGED, Linux 5.16).
    Managed,
}

/// Which neighbours the kernel is asked for.
#[derive(Debug, Default)]
pub(super) struct Asking {
    /// Neighbours to keep, and whether the kernel does.
    kept: HashMap<Hop, bool>,
    /// When each was asked for.
    asked: HashMap<Hop, Instant>,
    /// When `asked` was last found full, and what was too old forgotten.
    full: Option<Instant>,
}

impl Asking {
    /// No neighbour is asked for more often.
    const INTERVAL: Duration = Duration::from_secs(1);
    /// Questions a second, all addresses together: the kernel's table ends at so many
    /// neighbours (its gc_thresh3), and only a scan asks for more.
    const REMEMBERED: usize = 1024;
    /// Looking through a full memory is not done more often.
    const FORGET_INTERVAL: Duration = Duration::from_millis(100);

    /// How to ask for `hop` now; `None` when it was asked for within the last second.
    pub(super) fn resolve(&mut self, hop: Hop, now: Instant) -> Option<Ask> {
        let recent = |at: &Instant| now.duration_since(*at) < Self::INTERVAL;
        if self.asked.get(&hop).is_some_and(recent) {
            return None;
        }
        if self.asked.len() >= Self::REMEMBERED {
            let looked = |at: Instant| now.duration_since(at) < Self::FORGET_INTERVAL;
            if !self.full.is_some_and(looked) {
                self.full = Some(now);
                self.asked.retain(|_, at| recent(at));
            }
            if self.asked.len() >= Self::REMEMBERED {
                return None;
            }
        }
        self.asked.insert(hop, now);
        // A plain question would take the flags of a kept neighbour away.
        Some(match self.kept.contains_key(&hop) {
            true => Ask::Managed,
            false => Ask::Once,
        })
    }

    /// Keeps `hop` from now on; false when it is kept already.
    pub(super) fn keep(&mut self, hop: Hop) -> bool {
        if self.kept.contains_key(&hop) {
            return false;
        }
        self.kept.insert(hop, false);
        true
    }

    /// Keeps `hop` no longer; false when it was not kept.
    pub(super) fn release(&mut self, hop: Hop) -> bool {
        self.kept.remove(&hop).is_some()
    }

    /// Whether the kernel keeps `hop`; no effect when it is not to be kept.
    pub(super) fn set_managed(&mut self, hop: Hop, managed: bool) {
        if let Some(kept) = self.kept.get_mut(&hop) {
            *kept = managed;
        }
    }

    /// Notifications were lost: whether the kernel still keeps what it kept is unknown.
    pub(super) fn doubt(&mut self) {
        self.kept.values_mut().for_each(|managed| *managed = false);
    }

    /// What is to be kept and the kernel does not keep (any more).
    pub(super) fn unmanaged(&self) -> Vec<Hop> {
        let unmanaged = self.kept.iter().filter(|(_, managed)| !**managed);
        unmanaged.map(|(hop, _)| *hop).collect()
    }

    /// What is to be kept behind `port`.
    pub(super) fn kept_behind(&self, port: PortId) -> Vec<Hop> {
        self.kept
            .keys()
            .filter(|hop| hop.port == port)
            .copied()
            .collect()
    }
}

#[cfg(test)]
mod tests;
