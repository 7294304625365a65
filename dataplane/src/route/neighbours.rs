//! Neighbours by stable index, and by address when a connection looks for one.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::num::NonZeroU64;

use foldhash::fast::RandomState;

use super::{Hop, NeighbourId, NeighbourUpdate};
use crate::types::{Mac, PortId};

/// Port and MAC address of a neighbour: what a packet needs of it, in eight bytes that stay in a
/// register. (As a struct of bytes it went through memory, stored in pieces and loaded whole: 15
/// ns a packet.)
///
/// ```text
///  0        48     56            63
///  | MAC    | port |         | 1 |
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach(NonZeroU64);

impl Reach {
    const KNOWN: u64 = 1 << 63;

    fn new(port: PortId, mac: Mac) -> Option<Reach> {
        let [a, b, c, d, e, f] = mac.0;
        let bytes = [a, b, c, d, e, f, port.0, 0];
        NonZeroU64::new(u64::from_le_bytes(bytes) | Reach::KNOWN).map(Reach)
    }

    /// The port that it is behind.
    #[inline]
    #[must_use]
    pub fn port(self) -> PortId {
        PortId((self.0.get() >> 48) as u8)
    }

    /// Its MAC address.
    #[inline]
    #[must_use]
    pub fn mac(self) -> Mac {
        let [a, b, c, d, e, f, ..] = self.0.get().to_le_bytes();
        Mac([a, b, c, d, e, f])
    }
}

/// One worker's copy of the neighbours. Changed only by control's commands, between bursts.
#[derive(Debug, Default)]
pub struct Neighbours {
    /// `None` while the MAC is not known.
    reach: Vec<Option<Reach>>,
    hops: Vec<Option<Hop>>,
    by_hop: HashMap<Hop, NeighbourId, RandomState>,
    /// What was found last: clients are behind few gateways.
    found: Option<(Hop, NeighbourId)>,
}

impl Neighbours {
    /// Applies what control says. An index that gets another address forgets the old one.
    pub fn update(&mut self, u: NeighbourUpdate) {
        if u.id == NeighbourId::NONE {
            return;
        }
        self.found = None;
        let at = usize::from(u.id.0);
        if self.reach.len() <= at {
            self.reach.resize(at + 1, None);
            self.hops.resize(at + 1, None);
        }
        let hop = Hop {
            port: u.port,
            addr: u.addr,
        };
        if let Some(old) = self.hops[at].replace(hop).filter(|old| *old != hop) {
            // Unless the old address has another index by now: updates come in any order.
            if self.by_hop.get(&old) == Some(&u.id) {
                self.by_hop.remove(&old);
            }
        }
        self.reach[at] = u.mac.and_then(|mac| Reach::new(u.port, mac));
        self.by_hop.insert(hop, u.id);
    }

    /// The index of the neighbour at `hop`, whether its MAC is known or not.
    #[inline]
    #[must_use]
    pub fn find(&mut self, hop: Hop) -> Option<NeighbourId> {
        match self.found {
            Some((known, id)) if known == hop => Some(id),
            _ => self.look_up(hop),
        }
    }

    #[inline(never)]
    fn look_up(&mut self, hop: Hop) -> Option<NeighbourId> {
        let id = self.by_hop.get(&hop).copied()?;
        self.found = Some((hop, id));
        Some(id)
    }

    /// Port and MAC of a neighbour whose MAC is known.
    #[inline]
    #[must_use]
    pub fn get(&self, id: NeighbourId) -> Option<Reach> {
        *self.reach.get(usize::from(id.0))?
    }
}
