//! How many connections servers have, all workers together.
//!
//! Each worker counts its own in its own cells ([`ServerTable`](crate::counters::ServerTable))
//! and reads the other workers' once a tick (1/64 s): load = what the others had then + what this
//! one has now. A server is read again before a connection goes to it, and the choice made anew when
//! others went there meanwhile: else all cores run to the server that looked idle, and small servers
//! get 3 % too much on 16 cores (`tests/cores/fair.rs`).
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::thresholds::Guarded;
use crate::counters::WorkerCounters;
use crate::types::{ServerId, Tick};

/// Servers whose other workers' cells are read in one turn of the loop: bounds the pause (each
/// cell read may be a line fetched from another core).
const FOLDS_A_TURN: usize = 16;

/// Connections of one server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// In an active state (IPVS's ActiveConn).
    pub active: u64,
    /// In any other state (IPVS's InActConn).
    pub inactive: u64,
}

impl Load {
    /// What Linux compares for least connections: 256 for each active one and 1 for each
    /// connection. (Kernels before 2012 and the LVS pages count an active one as 256, not 257.)
    pub(super) fn overhead(self) -> u64 {
        (self.active << 8) + self.active + self.inactive
    }

    /// All of them.
    pub(super) fn all(self) -> u64 {
        self.active + self.inactive
    }

    /// sed's and nq's: how long the queue would be with the new connection.
    pub(super) fn expected(self) -> u64 {
        self.active + 1
    }
}

/// What one worker knows of a server beside its own count.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Known {
    pub(super) others: Load,
    overloaded: bool,
    /// Its place in [`Loads::guarded`].
    pub(super) guarded: Option<u32>,
}

/// The loads of all servers, as one worker knows them.
#[derive(Debug)]
pub struct Loads {
    pub(super) own: Arc<WorkerCounters>,
    pub(super) peers: Vec<Arc<WorkerCounters>>,
    /// By server id.
    pub(super) known: Vec<Known>,
    /// Servers with thresholds.
    pub(super) guarded: Vec<Guarded>,
    /// Servers of services whose scheduler counts, and those with thresholds.
    watched: Vec<ServerId>,
    /// Where the reading of this tick is in `watched`.
    cursor: usize,
    /// The tick of the reading.
    tick: Tick,
}

impl Loads {
    /// Those of a worker that counts in `own` and whose other workers count in `peers`.
    #[must_use]
    pub fn new(own: Arc<WorkerCounters>, peers: Vec<Arc<WorkerCounters>>) -> Loads {
        Loads {
            own,
            peers,
            known: Vec::new(),
            guarded: Vec::new(),
            watched: Vec::new(),
            cursor: 0,
            tick: Tick(0),
        }
    }

    /// Makes room for ids below `servers`, and watches `watched`: reads the other workers' counts
    /// of them from now on. May allocate.
    pub fn watch(&mut self, servers: usize, watched: impl Iterator<Item = ServerId>) {
        self.known.resize(servers, Known::default());
        self.watched.clear();
        if !self.peers.is_empty() {
            self.watched.extend(watched);
        }
        self.cursor = 0;
    }

    /// Reads on in the other workers' counts; a few servers a turn, each once a tick.
    #[inline]
    pub fn fold(&mut self, now: Tick) {
        if self.cursor < self.watched.len() {
            self.fold_some();
        } else if self.tick != now && !self.watched.is_empty() {
            (self.tick, self.cursor) = (now, 0);
            self.fold_some();
        }
    }

    /// Reads the other workers' counts of a server at once; whether it has more than was known.
    /// Nothing to read with one worker.
    pub(super) fn has_grown(&mut self, id: ServerId) -> bool {
        if self.peers.is_empty() {
            return false;
        }
        let others = self.read(id);
        let Some(known) = self.known.get_mut(id.0 as usize) else {
            return false;
        };
        let before = std::mem::replace(&mut known.others, others);
        others.overhead() > before.overhead()
    }

    /// What the other workers count now.
    pub(super) fn read(&self, id: ServerId) -> Load {
        let mut sum = Load::default();
        for cells in self.peers.iter().filter_map(|p| p.servers.get(id)) {
            sum.active = sum.active.wrapping_add(cells.active.get());
            sum.inactive = sum.inactive.wrapping_add(cells.inactive.get());
        }
        sum
    }

    #[cold]
    fn fold_some(&mut self) {
        for _ in 0..FOLDS_A_TURN {
            let Some(&id) = self.watched.get(self.cursor) else {
                return;
            };
            let others = self.read(id);
            if let Some(known) = self.known.get_mut(id.0 as usize) {
                known.others = others;
                if known.guarded.is_some() {
                    self.review(id);
                }
            }
            self.cursor += 1;
        }
    }

    /// The connections of a server.
    #[inline]
    #[must_use]
    pub fn of(&self, id: ServerId) -> Load {
        let mut load = self
            .known
            .get(id.0 as usize)
            .map_or_else(Load::default, |k| k.others);
        if let Some(own) = self.own.servers.get(id) {
            load.active += own.active.get();
            load.inactive += own.inactive.get();
        }
        load
    }

    /// Whether a server is past its upper threshold, and not yet below the lower one.
    #[inline]
    #[must_use]
    pub fn overloaded(&self, id: ServerId) -> bool {
        self.known.get(id.0 as usize).is_some_and(|k| k.overloaded)
    }

    /// Says whether a server is past its thresholds. Ids past the last [`Loads::watch`] are nobody's.
    pub fn set_overloaded(&mut self, id: ServerId, overloaded: bool) {
        if let Some(known) = self.known.get_mut(id.0 as usize) {
            known.overloaded = overloaded;
        }
    }
}
