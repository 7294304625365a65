//! Neighbours by stable index, and by address when a connection looks for one.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::{Hop, NeighbourId, NeighbourUpdate};
use crate::types::{Mac, PortId};

/// Where a frame to a known neighbour goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    hop: Hop,
    mac: Option<Mac>,
}

/// One worker's copy of the neighbours. Changed only by control's commands, between bursts.
#[derive(Debug, Default)]
pub struct Neighbours {
    slots: Vec<Option<Slot>>,
    by_hop: HashMap<Hop, NeighbourId, RandomState>,
}

impl Neighbours {
    /// Applies what control says. An index that gets another address forgets the old one.
    pub fn update(&mut self, u: NeighbourUpdate) {
        if u.id == NeighbourId::NONE {
            return;
        }
        let at = usize::from(u.id.0);
        if self.slots.len() <= at {
            self.slots.resize(at + 1, None);
        }
        let hop = Hop {
            port: u.port,
            addr: u.addr,
        };
        if let Some(old) = self.slots[at].filter(|old| old.hop != hop) {
            // Unless the old address has another index by now: updates come in any order.
            if self.by_hop.get(&old.hop) == Some(&u.id) {
                self.by_hop.remove(&old.hop);
            }
        }
        self.slots[at] = Some(Slot { hop, mac: u.mac });
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
        let slot = self.slots.get(usize::from(id.0))?.as_ref()?;
        Some((slot.hop.port, slot.mac?))
    }
}
