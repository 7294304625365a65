//! What keeps a flood from becoming work for others.
//!
//! ```text
//! access.rs      whom a service takes: allow and deny lists       prefix_set.rs  how they are asked
//! blacklist.rs   who is shut out for a while
//! pressure.rs    memory is short: LVS's drop_packet and drop_entry
//! limits.rs      how much a service and each of its clients may have
//! ```
//! The gate where all of it is asked is `pipeline/admit.rs`; what it means for connections that
//! stand is in `pipeline/weeding.rs`. Here is the limit of a rate that everything else uses.
#![forbid(unsafe_code)]

pub mod access;
pub mod blacklist;
pub mod cookie;
pub(crate) mod hold;
pub mod limits;
pub mod prefix_set;
pub(crate) mod pressure;
pub mod syn_proxy;

pub use hold::HELD_MAX;

use crate::types::Tick;

/// A token bucket, refilled by time. One worker's own, so no lock.
#[derive(Debug, Clone)]
pub struct Policer {
    per_second: u32,
    burst: u32,
    tokens: u32,
    filled: Tick,
}

impl Policer {
    /// Lets `per_second` packets pass in a second, and a tenth of that (at least 32) at once.
    #[must_use]
    pub fn new(per_second: u32, now: Tick) -> Policer {
        let burst = (per_second / 10).max(32);
        Policer {
            per_second,
            burst,
            tokens: burst,
            filled: now,
        }
    }

    /// Whether one more packet may pass at `now`.
    #[inline]
    pub fn admit(&mut self, now: Tick) -> bool {
        let elapsed = now.since(self.filled);
        if elapsed > 0 {
            let more =
                u64::from(elapsed) * u64::from(self.per_second) / u64::from(Tick::PER_SECOND);
            if more > 0 {
                self.tokens = more
                    .saturating_add(u64::from(self.tokens))
                    .min(self.burst.into()) as u32;
                self.filled = now;
            }
        }
        let admitted = self.tokens > 0;
        self.tokens -= u32::from(admitted);
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policer_passes_its_rate_and_a_tenth_at_once() {
        let mut p = Policer::new(640, Tick(0));
        assert_eq!((0..100).filter(|_| p.admit(Tick(0))).count(), 64);
        // Ten seconds, asked more often than it fills.
        let passed = (1..=640)
            .map(|t| (0..20).filter(|_| p.admit(Tick(t))).count())
            .sum::<usize>();
        assert_eq!(passed, 6400);
        assert_eq!((0..100).filter(|_| p.admit(Tick(100_000))).count(), 64);
    }

    #[test]
    fn a_slow_rate_fills_too() {
        let mut p = Policer::new(1, Tick(0));
        while p.admit(Tick(0)) {}
        let passed = (1..=6400).filter(|&t| p.admit(Tick(t))).count();
        assert_eq!(passed, 100);
    }
}
