//! How many buffers are enough: everything that can hold one, added up at start.
//!
//! A pool that runs dry shows as loss that nobody can explain, so it is never left to luck.
#![forbid(unsafe_code)]

use std::fmt;

use super::port::PortOptions;
use crate::io::BURST;

/// Buffers in a worker's own cache: eight bursts. Bigger caches lock up more of the pool,
/// smaller ones meet the shared ring more often.
pub const CACHE: u32 = 256;

/// All that can hold buffers at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolDemand {
    /// Descriptors of all receive and transmit queues: a receive queue holds empty buffers, a
    /// transmit queue sent ones until the card has read them.
    pub descriptors: u32,
    /// Caches of registered threads, at DPDK's flush threshold of 1.5 times [`CACHE`].
    pub caches: u32,
    /// Bursts in the workers' hands: one received, one on its way out of every port.
    pub in_hand: u32,
    /// Frames on rings between workers and to and from the twin thread.
    pub rings: u32,
    /// Frames parked for a neighbour or a first fragment, over all workers.
    pub parked: u32,
}

impl PoolDemand {
    /// The demand of `ports` with their workers; `rings` is the capacity of all rings together,
    /// `parked` of all workers' parking places.
    #[must_use]
    pub fn new(ports: &[PortOptions], rings: u32, parked: u32) -> PoolDemand {
        let workers = ports.iter().map(|p| p.workers).max().unwrap_or(0);
        let workers = u32::from(workers);
        PoolDemand {
            descriptors: ports.iter().map(PortOptions::descriptors).sum(),
            caches: workers * (CACHE + CACHE / 2),
            in_hand: workers * (1 + ports.len() as u32) * BURST as u32,
            rings,
            parked,
        }
    }

    /// Buffers that are always enough.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.descriptors + self.caches + self.in_hand + self.rings + self.parked
    }
}

impl fmt::Display for PoolDemand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (d, c, h) = (self.descriptors, self.caches, self.in_hand);
        let (r, p) = (self.rings, self.parked);
        write!(
            f,
            "{d} for queue descriptors, {c} for workers' caches, {h} in workers' hands, \
             {r} on rings, {p} parked: {} in all",
            self.total()
        )
    }
}

#[cfg(test)]
mod tests;
