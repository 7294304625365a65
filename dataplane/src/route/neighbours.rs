//! Neighbours by stable index, and by address when a connection looks for one.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::{Hop, NeighbourId, NeighbourUpdate};
use crate::types::{Mac, PortId};

/// What a packet needs of a neighbour, in eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reach {
    mac: Mac,
    port: PortId,
    known: bool,
}

/// One worker's copy of the neighbours. Changed only by control's commands, between bursts.
#[derive(Debug, Default)]
pub struct Neighbours {
    reach: Vec<Reach>,
    hops: Vec<Option<Hop>>,
    by_hop: HashMap<Hop, NeighbourId, RandomState>,
}

impl Neighbours {
    /// Applies what control says. An index that gets another address forgets the old one.
    pub fn update(&mut self, u: NeighbourUpdate) {
        if u.id == NeighbourId::NONE {
            return;
        }
        let at = usize::from(u.id.0);
        if self.reach.len() <= at {
            let unknown = Reach {
                mac: Mac::default(),
                port: u.port,
                known: false,
            };
            self.reach.resize(at + 1, unknown);
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
        let mac = u.mac.unwrap_or_default();
        self.reach[at] = Reach {
            mac,
            port: u.port,
            known: u.mac.is_some(),
        };
        self.by_hop.insert(hop, u.id);
    }

    /// The index of the neighbour at `hop`, whether its MAC is known or not.
    #[must_use]
    pub fn find(&self, hop: Hop) -> Option<NeighbourId> {
        self.by_hop.get(&hop).copied()
    }

    /// Port and MAC of a neighbour whose MAC is known.
    #[inline]
    #[must_use]
    pub fn get(&self, id: NeighbourId) -> Option<(PortId, Mac)> {
        let reach = self.reach.get(usize::from(id.0))?;
        reach.known.then_some((reach.port, reach.mac))
    }
}
