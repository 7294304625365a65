//! How a change of services reaches workers and kernel: in an order that never shows a client
//! an address that no worker serves.
//!
//! ```text
//! addresses that go:    taken away first  ┐
//! services:             to every worker   ├ one rollout; what changes meanwhile is the next
//! addresses that come:  put on last       ┘
//! ```
#![forbid(unsafe_code)]

use std::sync::Arc;

use weir_dataplane::service::Snapshot;

use crate::net::WantedAddress;

/// Where the rollout is.
#[derive(Debug)]
enum Phase {
    /// Nothing is under way.
    Settled,
    /// The kernel takes addresses away.
    Withdrawing(Arc<Snapshot>),
    /// Workers are taking the services of this generation.
    Spreading(u64),
    /// The kernel puts addresses on.
    Announcing,
}

/// What the control loop is to do next.
#[derive(Debug)]
pub(super) enum Step {
    /// Have the kernel hold these addresses, then say [`Rollout::addresses_set`].
    SetAddresses(Vec<WantedAddress>),
    /// Give every worker these services, and say what each holds to [`Rollout::workers_hold`].
    Spread(Arc<Snapshot>),
    /// Everyone has everything.
    Settled,
}

/// The rollout under way, if any.
#[derive(Debug)]
pub(super) struct Rollout {
    phase: Phase,
    /// What the kernel was last asked to hold.
    held: Vec<WantedAddress>,
    /// What it shall hold in the end.
    wanted: Vec<WantedAddress>,
}

impl Default for Rollout {
    fn default() -> Self {
        Rollout {
            phase: Phase::Settled,
            held: Vec::new(),
            wanted: Vec::new(),
        }
    }
}

impl Rollout {
    /// Whether none is under way.
    pub(super) fn is_settled(&self) -> bool {
        matches!(self.phase, Phase::Settled)
    }

    /// Starts one; only when [`Rollout::is_settled`].
    pub(super) fn start(&mut self, snapshot: Arc<Snapshot>, wanted: Vec<WantedAddress>) -> Step {
        self.wanted = wanted;
        let mut staying = self.held.clone();
        staying.retain(|address| self.wanted.contains(address));
        if staying.len() == self.held.len() {
            return self.spread(snapshot);
        }
        self.phase = Phase::Withdrawing(snapshot);
        self.set(staying)
    }

    /// The kernel did what the last [`Step::SetAddresses`] asked for.
    pub(super) fn addresses_set(&mut self) -> Option<Step> {
        match std::mem::replace(&mut self.phase, Phase::Settled) {
            Phase::Withdrawing(snapshot) => Some(self.spread(snapshot)),
            Phase::Announcing => Some(Step::Settled),
            other => {
                self.phase = other;
                None
            }
        }
    }

    /// Every worker holds `generation` or a later one.
    pub(super) fn workers_hold(&mut self, generation: u64) -> Option<Step> {
        match self.phase {
            Phase::Spreading(wanted) if generation >= wanted => {}
            _ => return None,
        }
        if self.held == self.wanted {
            self.phase = Phase::Settled;
            return Some(Step::Settled);
        }
        self.phase = Phase::Announcing;
        Some(self.set(self.wanted.clone()))
    }

    fn spread(&mut self, snapshot: Arc<Snapshot>) -> Step {
        self.phase = Phase::Spreading(snapshot.generation);
        Step::Spread(snapshot)
    }

    fn set(&mut self, addresses: Vec<WantedAddress>) -> Step {
        self.held.clone_from(&addresses);
        Step::SetAddresses(addresses)
    }
}

#[cfg(test)]
mod tests;
