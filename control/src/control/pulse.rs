//! Whether every worker still turns. systemd's watchdog is fed only while they do.
#![forbid(unsafe_code)]

use weir_dataplane::CoreId;

use super::link::WorkerLink;

/// What each worker had counted at the last look.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    turns: Vec<u64>,
}

impl Pulse {
    /// Workers whose loop has not turned since the last look; none at the first.
    pub(super) fn stuck(&mut self, workers: &[WorkerLink]) -> Vec<CoreId> {
        let turns: Vec<u64> = workers.iter().map(turns).collect();
        let before = std::mem::replace(&mut self.turns, turns);
        let pairs = before.iter().zip(&self.turns).zip(workers);
        let stuck = pairs.filter(|((before, now), _)| before == now);
        stuck.map(|(_, worker)| worker.core()).collect()
    }
}

fn turns(worker: &WorkerLink) -> u64 {
    let counters = worker.counters();
    counters
        .idle_polls
        .get()
        .wrapping_add(counters.busy_polls.get())
}

#[cfg(test)]
mod tests;
