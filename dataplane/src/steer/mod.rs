//! Which core owns a flow, and the rings on which frames change cores.
//!
//! A flow's owner is `map[toeplitz(key, 5-tuple) & 127]`: one key and one map for the whole
//! process, for its life. A port whose RSS was programmed with both and read back delivers a
//! flow to its owner by itself ([`Alignment::Aligned`]); every other port may deliver anything
//! anywhere. **The arrival queue never means ownership.**
#![forbid(unsafe_code)]

use crate::packet::Key;
use crate::types::CoreId;

mod classes;
mod rings;
#[cfg(test)]
mod tests;
mod toeplitz;

pub use classes::{FIRST_PORT, UselessKey};
pub use rings::{
    Errand, FragmentOf, Handoff, HandoffKind, KernelEnd, KernelFrame, Keys, Links, Message,
    Progress, Question, errand_room, kernel_rings, mesh, transmitter,
};
pub use toeplitz::{KEY_LEN, MICROSOFT_KEY, Toeplitz};

/// Buckets of the map: RSS indirection tables have 128 entries or a multiple of it.
pub const BUCKETS: usize = 128;

/// Whether a port's RSS agrees with [`Steer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alignment {
    /// A flow arrives at its owner: look it up locally first, compute the owner on a miss.
    Aligned,
    /// A flow may arrive anywhere: compute the owner first, hand over when it is another.
    Unaligned,
}

/// The ownership function, as one worker knows it.
#[derive(Debug, Clone)]
pub struct Steer {
    me: CoreId,
    workers: u8,
    toeplitz: std::sync::Arc<Toeplitz>,
    map: [CoreId; BUCKETS],
}

impl Steer {
    /// The function for `workers` workers (1 to 128) with RSS key `toeplitz`, as seen by `me`.
    #[must_use]
    pub fn new(me: CoreId, workers: u8, toeplitz: std::sync::Arc<Toeplitz>) -> Steer {
        Steer {
            me,
            workers,
            toeplitz,
            map: spread(workers),
        }
    }

    /// This worker.
    #[inline]
    #[must_use]
    pub fn me(&self) -> CoreId {
        self.me
    }

    /// How many workers there are.
    #[inline]
    #[must_use]
    pub fn workers(&self) -> u8 {
        self.workers
    }

    /// The hash that the map is indexed by.
    #[inline]
    #[must_use]
    pub fn toeplitz(&self) -> &Toeplitz {
        &self.toeplitz
    }

    /// The owner of a flow with this Toeplitz hash.
    #[inline]
    #[must_use]
    pub fn owner_of_hash(&self, hash: u32) -> CoreId {
        self.map[hash as usize % BUCKETS]
    }

    /// The owner of the flow whose packets carry `key`.
    #[inline]
    #[must_use]
    pub fn owner<K: Key>(&self, key: &K) -> CoreId {
        if self.workers == 1 {
            return self.me;
        }
        self.owner_of_hash(key.toeplitz(&self.toeplitz))
    }

    /// The buckets that `core` owns.
    pub fn buckets_of(&self, core: CoreId) -> impl Iterator<Item = u8> + '_ {
        (0..BUCKETS as u8).filter(move |&b| self.map[usize::from(b)] == core)
    }
}

/// The 128 buckets dealt out to `workers` in turn; also what a port's indirection table gets.
#[must_use]
pub fn spread(workers: u8) -> [CoreId; BUCKETS] {
    std::array::from_fn(|i| CoreId((i % usize::from(workers.max(1))) as u8))
}
