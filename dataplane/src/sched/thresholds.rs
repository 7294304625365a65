//! Upper and lower thresholds: how many connections a server may have, all workers together.
//!
//! Nobody is asked, so nothing can be lost on the way. A worker *announces* the place that it
//! wants in a cell of its own, and only then looks at everybody's:
//!
//! ```text
//!  announce own place -> fence -> add up all workers' connections and announced places
//!     at most upper:  the place is ours; the connection that opens takes it
//!     more:           given back; another server
//! ```
//! Of workers that want the last place at once the one that announced last sees all others'
//! announcements, so the limit is never passed; at worst all of them turn back, and the place
//! is free for the next packet. Far below the limit a worker announces 64 places at once and
//! looks at nobody until they are used; near it, it gives back what it has left, once a tick. A
//! place that was not used after all (no local port was free) serves the worker's next opening.
//!
//! With persistence a template's home chooses and announces, and another worker opens: the place
//! goes along with the packet, out of one worker's announced ones and into the other's. Each counts
//! what it sent and what came: the difference of all sums is what is under way. A ring that is full
//! gives its sender the place back.
//!
//! What LVS calls overload (REFERENCE B3): set when active and inactive connections reach the
//! upper threshold, cleared when they are below the lower one, or below three quarters of the
//! upper where there is no lower. It is memory, so workers tell each other when they set or clear
//! it, by counting that.
#![forbid(unsafe_code)]

use std::sync::atomic::Ordering::{Acquire, Release, SeqCst};
use std::sync::atomic::fence;

use super::Loads;
use crate::counters::ServerCounters;
use crate::service::Thresholds;
use crate::types::ServerId;

/// Places that a worker announces at once where there are plenty.
const BLOCK: u64 = 64;

/// A server with thresholds, as one worker knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guarded {
    id: ServerId,
    thresholds: Thresholds,
    /// LVS's flag.
    overloaded: bool,
    /// Places that others have announced stood in the way: until the next look.
    crowded: bool,
    /// What the other workers had counted of these at the last look.
    filled: u64,
    cleared: u64,
}

impl Loads {
    /// Guards these servers' thresholds from now on; [`Loads::watch`] was given them too. What
    /// is past its threshold stays so, unless the upper one was raised, as in LVS. May allocate.
    pub fn guard(&mut self, servers: impl Iterator<Item = (ServerId, Thresholds)>) {
        let before = std::mem::take(&mut self.guarded);
        for known in &mut self.known {
            known.guarded = None;
        }
        for (id, thresholds) in servers {
            let old = before.iter().find(|old| old.id == id);
            let kept = old.filter(|old| !thresholds.frees(old.thresholds));
            if let Some(cells) = self.own.servers.get(id) {
                cells.announced.set(0);
            }
            let (filled, cleared) = self.told(id);
            if let Some(known) = self.known.get_mut(id.0 as usize) {
                known.guarded = u32::try_from(self.guarded.len()).ok();
                self.guarded.push(Guarded {
                    id,
                    thresholds,
                    overloaded: kept.is_some_and(|old| old.overloaded),
                    crowded: false,
                    filled,
                    cleared,
                });
            }
        }
        // The others' connections have not been read for those that were not watched before.
        for at in 0..self.guarded.len() {
            let id = self.guarded[at].id;
            let others = self.read(id);
            if let Some(known) = self.known.get_mut(id.0 as usize) {
                known.others = others;
            }
            self.review(id);
        }
        for old in before {
            if !self.guarded.iter().any(|guarded| guarded.id == old.id) {
                if let Some(cells) = self.own.servers.get(old.id) {
                    cells.overloaded.set(0);
                }
                self.set_overloaded(old.id, false);
            }
        }
    }

    /// Whether any server has thresholds.
    #[inline]
    pub(crate) fn guards_any(&self) -> bool {
        !self.guarded.is_empty()
    }

    /// Takes a place at a server for one connection; `false` when it has none left, and then it
    /// counts as overloaded. A server without an upper threshold has as many as are wanted.
    #[inline]
    pub(crate) fn reserve(&mut self, id: ServerId) -> bool {
        match self.known.get(id.0 as usize) {
            Some(known) if known.guarded.is_some() => self.reserve_guarded(id),
            _ => true,
        }
    }

    #[inline(never)]
    fn reserve_guarded(&mut self, id: ServerId) -> bool {
        let Some(at) = self.guarded_at(id) else {
            return true;
        };
        let upper = u64::from(self.guarded[at].thresholds.upper);
        let own = std::sync::Arc::clone(&self.own);
        let Some(cells) = own.servers.get(id) else {
            return true;
        };
        if upper == 0 || cells.announced.get() > 0 {
            return true;
        }
        let plenty = self.of(id).all() + 2 * self.margin() <= upper;
        let block = match plenty && !self.peers.is_empty() {
            true => BLOCK,
            false => 1,
        };
        cells.announced.set(block);
        fence(SeqCst); // between our store and our loads, or two could miss each other
        let taken = self.taken(id);
        if taken > upper {
            cells.announced.set(1);
            if taken - (block - 1) > upper {
                cells.announced.set(0);
                self.guarded[at].crowded = true;
                self.review_near(id);
                return false;
            }
        }
        true
    }

    /// Whether places at this server are counted.
    pub(crate) fn are_guarded(&self, id: ServerId) -> bool {
        self.guarded_at(id).is_some()
    }

    /// A place that was announced here leaves with its packet.
    #[cold]
    pub(crate) fn place_out(&mut self, id: ServerId) {
        if let Some(cells) = self.own.servers.get(id) {
            cells.places_out.add(1);
            give_back(cells);
        }
    }

    /// A place came with its packet, and counts as one that was announced here.
    #[cold]
    pub(crate) fn place_in(&mut self, id: ServerId) {
        if let Some(cells) = self.own.servers.get(id) {
            if self.are_guarded(id) {
                cells.announced.add(1);
            }
            fence(Release); // whoever sees that it came sees where it is
            cells.places_in.add(1);
        }
    }

    /// A connection opened to the server: it takes the place that was reserved.
    #[inline(always)]
    pub(crate) fn opened(&mut self, id: ServerId) {
        if self.guards_any() {
            self.take_place(id);
        }
    }

    #[inline(never)]
    fn take_place(&mut self, id: ServerId) {
        if self.are_guarded(id) {
            if let Some(cells) = self.own.servers.get(id) {
                give_back(cells);
            }
            self.review(id);
        }
    }

    /// Looks again at those of `servers` that are overloaded. Only a lone worker needs it, which
    /// nothing tells once a tick.
    #[inline]
    pub(crate) fn review_overloaded(&mut self, servers: impl Iterator<Item = ServerId>) {
        if self.peers.is_empty() && self.guarded.iter().any(|g| g.overloaded) {
            servers.for_each(|id| self.review(id));
        }
    }

    /// Sets or clears a server's overload, by what is known of its connections.
    pub(super) fn review(&mut self, id: ServerId) {
        let Some(at) = self.guarded_at(id) else {
            return;
        };
        let told = self.told(id);
        let all = self.of(id).all();
        let near = all + 2 * self.margin();
        let Some(cells) = self.own.servers.get(id) else {
            return;
        };
        let guarded = &mut self.guarded[at];
        let thresholds = guarded.thresholds;
        if (guarded.filled, guarded.cleared) != told {
            guarded.overloaded = guarded.filled != told.0;
            (guarded.filled, guarded.cleared) = told;
        }
        if thresholds.are_reached(all) {
            if !std::mem::replace(&mut guarded.overloaded, true) {
                cells.filled.add(1);
            }
        } else if thresholds.are_cleared(all) && std::mem::take(&mut guarded.overloaded) {
            cells.cleared.add(1);
        }
        if near > u64::from(thresholds.upper) && !self.peers.is_empty() && cells.announced.get() > 1
        {
            cells.announced.set(0);
        }
        cells.overloaded.set(guarded.overloaded.into());
        let overloaded = guarded.overloaded || guarded.crowded;
        guarded.crowded = false; // until the next look
        self.set_overloaded(id, overloaded);
    }

    /// The same, by what the others count at this moment.
    fn review_near(&mut self, id: ServerId) {
        let others = self.read(id);
        if let Some(known) = self.known.get_mut(id.0 as usize) {
            known.others = others;
        }
        self.review(id);
    }

    fn guarded_at(&self, id: ServerId) -> Option<usize> {
        let at = self.known.get(id.0 as usize)?.guarded? as usize;
        (at < self.guarded.len()).then_some(at)
    }

    /// Places to the limit from which on every one is looked at.
    fn margin(&self) -> u64 {
        BLOCK * (self.peers.len() as u64 + 1)
    }

    /// What the other workers have set and cleared, counted.
    fn told(&self, id: ServerId) -> (u64, u64) {
        let cells = self.peers.iter().filter_map(|p| p.servers.get(id));
        cells.fold((0, 0), |(filled, cleared), cells| {
            let (f, c) = (cells.filled.get(), cells.cleared.get());
            (filled + f, cleared + c)
        })
    }

    /// All workers' connections and announced places, with those under way. A place is counted
    /// where it goes before it is taken back where it was, and this looks in the other order:
    /// who meets one on its way sees it twice rather than not at all.
    fn taken(&self, id: ServerId) -> u64 {
        let sum = |of: fn(&ServerCounters) -> u64| {
            let workers = std::iter::once(&self.own).chain(&self.peers);
            let cells = workers.filter_map(|worker| worker.servers.get(id));
            cells.map(of).fold(0, u64::wrapping_add)
        };
        let came = sum(|cells| cells.places_in.get());
        fence(Acquire);
        let announced = sum(|cells| cells.announced.get());
        fence(Acquire);
        let left = sum(|cells| cells.places_out.get());
        let stand = sum(|cells| cells.active.get() + cells.inactive.get());
        announced + stand + left.wrapping_sub(came)
    }
}

/// An announced place is one no more: what is in its stead is counted.
fn give_back(cells: &ServerCounters) {
    fence(Release);
    cells.announced.set(cells.announced.get().saturating_sub(1));
}
