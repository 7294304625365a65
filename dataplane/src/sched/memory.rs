//! What a worker remembers of a service between picks.
#![forbid(unsafe_code)]

use super::destinations::Destinations;
use super::{Scheduler, SchedulerKind};
use crate::service::Candidate;
use crate::types::CoreId;

/// What a scheduler remembers between picks, in one worker for one service.
#[derive(Debug)]
pub struct Memory {
    /// Whose it is; `None` before the first servers.
    kind: Option<SchedulerKind>,
    /// One past the position last picked; 0 before the first.
    pub(super) next: u32,
    /// wrr: the weight level of the current pass; 0 before the first.
    pub(super) level: u32,
    /// lblc, lblcr: which servers virtual addresses have.
    pub(super) destinations: Option<Box<Destinations>>,
    pub(super) dice: Dice,
    /// This worker and how many there are.
    place: (u8, u8),
}

impl Memory {
    /// Nothing remembered yet. `seed` is for the choices that are drawn; equal seeds draw equally.
    #[must_use]
    pub fn new(core: CoreId, workers: u8, seed: u64) -> Memory {
        Memory {
            kind: None,
            next: 0,
            level: 0,
            destinations: None,
            dice: Dice(seed),
            place: (core.0, workers.max(1)),
        }
    }

    /// Begins anew, for another service.
    pub fn forget(&mut self) {
        self.kind = None;
    }

    /// From now on the service has `servers` and not `before`. Called when its scheduler, its
    /// servers or their weights change, and before the first pick; may allocate.
    pub fn adopt(&mut self, before: &[Candidate], scheduler: &Scheduler, servers: &[Candidate]) {
        if self.kind != Some(scheduler.kind()) {
            self.kind = Some(scheduler.kind());
            (self.level, self.destinations) = (0, None);
            self.next = self.start(servers.len());
        }
        let table = scheduler.table();
        scheduler.kind().adopt(self, before, servers, table);
    }

    /// Where this worker starts on a list of `n`: spread out, so that few connections over many
    /// cores do not all go to the first server.
    pub(super) fn start(&self, n: usize) -> u32 {
        let (core, workers) = (usize::from(self.place.0), usize::from(self.place.1));
        (n * core / workers) as u32
    }
}

/// A deterministic generator (splitmix64: Steele, Lea, Flood 2014).
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Dice {
    /// Evenly among `0..sides`; 0 when there are no sides.
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        // Multiply-shift: the bias is below sides / 2^64.
        ((u128::from(z ^ z >> 31) * u128::from(sides)) >> 64) as u64
    }
}
