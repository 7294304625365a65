//! What a packet made the workers count: all counters before it against all after it.
#![forbid(unsafe_code)]

use std::sync::Arc;

use weir_dataplane::counters::{DropReason, WorkerCounters};

use crate::api::documents::Counter;
use crate::control::counters::named;

/// Counters that every packet moves, or that only say what the clock does.
const OF_NO_INTEREST: [&str; 8] = [
    "rx_packets",
    "rx_bytes",
    "tx_packets",
    "tx_bytes",
    "conns",
    "parked",
    "idle_polls",
    "busy_polls",
];

/// All counters of all workers together.
#[derive(Debug)]
pub(super) struct Reading {
    /// Name, help and sum.
    cells: Vec<(&'static str, &'static str, u64)>,
    /// By reason.
    drops: Vec<u64>,
}

impl Reading {
    /// What `workers` count now.
    pub(super) fn of(workers: &[Arc<WorkerCounters>]) -> Reading {
        let mut sum = Reading {
            cells: Vec::new(),
            drops: vec![0; DropReason::ALL.len()],
        };
        for worker in workers {
            let read = named(worker);
            if sum.cells.is_empty() {
                sum.cells = read;
            } else {
                for (cell, (_, _, more)) in sum.cells.iter_mut().zip(read) {
                    cell.2 = cell.2.wrapping_add(more);
                }
            }
            for (drops, more) in sum.drops.iter_mut().zip(&worker.drops) {
                *drops = drops.wrapping_add(more.get());
            }
        }
        sum
    }

    /// What was counted since `before`; gauges may have gone down, and then count as 0.
    pub(super) fn since(mut self, before: &Reading) -> Reading {
        let grown = |now: u64, then: u64| (now.wrapping_sub(then) as i64).max(0) as u64;
        for (cell, before) in self.cells.iter_mut().zip(&before.cells) {
            cell.2 = grown(cell.2, before.2);
        }
        for (drops, before) in self.drops.iter_mut().zip(&before.drops) {
            *drops = grown(*drops, *before);
        }
        self
    }

    /// The counter of this name.
    pub(super) fn of_name(&self, name: &str) -> u64 {
        let cell = self.cells.iter().find(|(known, _, _)| *known == name);
        debug_assert!(cell.is_some(), "no counter is named {name}");
        cell.map_or(0, |cell| cell.2)
    }

    /// The first reason that a frame was dropped for.
    pub(super) fn reason(&self) -> Option<DropReason> {
        let mut reasons = DropReason::ALL.iter().zip(&self.drops);
        reasons.find(|(_, n)| **n > 0).map(|(reason, _)| *reason)
    }

    /// Drop reasons that were counted.
    pub(super) fn drops(&self) -> Vec<Counter> {
        let reasons = DropReason::ALL.iter().zip(&self.drops);
        let counted = reasons.filter(|(_, n)| **n > 0);
        counted
            .map(|(reason, n)| counter(reason.name(), reason.help(), *n))
            .collect()
    }

    /// Everything else that was counted and says something.
    pub(super) fn others(&self) -> Vec<Counter> {
        let counted = self.cells.iter().filter(|(_, _, n)| *n > 0);
        counted
            .filter(|(name, _, _)| !OF_NO_INTEREST.contains(name))
            .map(|(name, help, n)| counter(name, help, *n))
            .collect()
    }
}

fn counter(name: &str, help: &str, value: u64) -> Counter {
    Counter {
        name: name.to_owned(),
        help: help.to_owned(),
        value,
        per_worker: Vec::new(),
    }
}
