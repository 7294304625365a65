//! Which index each neighbour has: the same in every worker, given here and only here.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap};

use weir_dataplane::Mac;
use weir_dataplane::route::{Hop, NeighbourId, NeighbourUpdate};

/// One neighbour that has an index.
#[derive(Debug, Clone, Copy)]
struct Known {
    hop: Hop,
    mac: Option<Mac>,
    /// When it lost its MAC, in the order of such losses; meaningless while it has one.
    lost: u64,
}

/// What a change means for the workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Learned {
    /// For every worker.
    pub(crate) update: NeighbourUpdate,
    /// The index was another neighbour's before: connections that hold it must look up again,
    /// so a new FIB epoch goes out ahead of the update.
    pub(crate) reused: bool,
}

/// All indices are taken by neighbours whose MAC is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} neighbours are known, as many as weir can tell apart; packets for more of them are \
     dropped (drop reason neighbour_unresolved)"
)]
pub(crate) struct Full(usize);

/// The neighbours of all ports by index. An index is given when a MAC address is first known,
/// and stays; only when all are taken, the one that is longest without MAC is given again.
#[derive(Debug)]
pub(crate) struct NeighbourBook {
    known: Vec<Known>,
    by_hop: HashMap<Hop, NeighbourId>,
    /// Neighbours without MAC, the longest lost first.
    lost: BTreeMap<u64, NeighbourId>,
    losses: u64,
    /// Indices there are.
    limit: usize,
}

impl Default for NeighbourBook {
    fn default() -> Self {
        NeighbourBook::with_limit(usize::from(NeighbourId::NONE.0))
    }
}

impl NeighbourBook {
    fn with_limit(limit: usize) -> NeighbourBook {
        NeighbourBook {
            known: Vec::new(),
            by_hop: HashMap::new(),
            lost: BTreeMap::new(),
            losses: 0,
            limit,
        }
    }

    /// Neighbours whose MAC is known.
    pub(crate) fn len(&self) -> usize {
        self.known.len() - self.lost.len()
    }

    /// The MAC of the neighbour at `hop` is now `mac`. What the workers are to be told; `None`
    /// when it is no news to them.
    ///
    /// # Errors
    /// [`Full`]: the neighbour gets no index.
    pub(crate) fn learn(&mut self, hop: Hop, mac: Option<Mac>) -> Result<Option<Learned>, Full> {
        let (id, reused) = match (self.by_hop.get(&hop), mac) {
            (Some(id), _) => (*id, false),
            // Frames that wait for it give up by themselves.
            (None, None) => return Ok(None),
            (None, Some(_)) => self.give(hop)?,
        };
        let known = &mut self.known[usize::from(id.0)];
        if known.mac == mac && !reused {
            return Ok(None);
        }
        match (known.mac, mac) {
            (None, Some(_)) => drop(self.lost.remove(&known.lost)),
            (Some(_), None) => {
                self.losses += 1;
                known.lost = self.losses;
                self.lost.insert(known.lost, id);
            }
            _ => {}
        }
        known.mac = mac;
        let update = self.update(id);
        Ok(Some(Learned { update, reused }))
    }

    /// What is known of the neighbour at `hop`, when its MAC is.
    pub(crate) fn find(&self, hop: Hop) -> Option<NeighbourUpdate> {
        let update = self.update(*self.by_hop.get(&hop)?);
        update.mac.is_some().then_some(update)
    }

    /// All neighbours whose MAC is known.
    pub(crate) fn known(&self) -> impl Iterator<Item = NeighbourUpdate> + '_ {
        let ids = (0..self.known.len()).map(|id| NeighbourId(id as u16));
        ids.map(|id| self.update(id))
            .filter(|known| known.mac.is_some())
    }

    fn update(&self, id: NeighbourId) -> NeighbourUpdate {
        let known = &self.known[usize::from(id.0)];
        NeighbourUpdate {
            id,
            port: known.hop.port,
            addr: known.hop.addr,
            mac: known.mac,
        }
    }

    /// An index for a neighbour that has none, still without MAC; whether it was another's.
    fn give(&mut self, hop: Hop) -> Result<(NeighbourId, bool), Full> {
        self.losses += 1;
        let lost = self.losses;
        let fresh = Known {
            hop,
            mac: None,
            lost,
        };
        let (id, reused) = if self.known.len() < self.limit {
            let id = NeighbourId(self.known.len() as u16);
            self.known.push(fresh);
            (id, false)
        } else {
            let (_, id) = self.lost.pop_first().ok_or(Full(self.limit))?;
            let old = std::mem::replace(&mut self.known[usize::from(id.0)], fresh);
            self.by_hop.remove(&old.hop);
            (id, true)
        };
        self.lost.insert(lost, id);
        self.by_hop.insert(hop, id);
        Ok((id, reused))
    }
}

#[cfg(test)]
mod tests;
