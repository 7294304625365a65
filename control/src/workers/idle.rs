//! What a worker does between turns that found nothing.
//!
//! | mode | empty turns 1-200 | later | after 5 ms without work |
//! |---|---|---|---|
//! | spin | at once | at once | at once |
//! | yield | at once | let others run | let others run |
//! | sleep | at once | let others run | naps of 50 µs, growing to 500 µs |
//!
//! The first frame or command resets it. `auto` is spin when every worker has an isolated CPU of
//! its own, else sleep. So an idle appliance wakes up 2,000 times a second for each worker,
//! which is a few percent of a CPU, and the first packet after a pause waits half a millisecond
//! at most.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::clock::Moment;

/// Empty turns before others get the CPU. Three workers on two CPUs: handing a packet over
/// takes 4.9 ms when they spin and 2 µs when they yield after 200 (measured, PLATFORM.md).
const PATIENCE: u32 = 200;
/// Time without work before naps: longer than the gaps of a connection that is busy.
const AWAKE: Duration = Duration::from_millis(5);
/// The first nap.
const SHORTEST: Duration = Duration::from_micros(50);
/// The longest; each is half as long again as the one before.
const LONGEST: Duration = Duration::from_micros(500);

/// A worker's idle mode, `auto` decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Idle {
    /// Poll on: the whole CPU, the lowest latency.
    Spin,
    /// Let others run.
    Yield,
    /// Nap.
    Sleep,
}

impl Idle {
    /// The name in configuration and listings.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Idle::Spin => "spin",
            Idle::Yield => "yield",
            Idle::Sleep => "sleep",
        }
    }
}

/// What to do before the next turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// Go on at once: there was work.
    Not,
    /// Go on, and tell the CPU that this is a waiting loop (its hyperthread runs faster).
    Hint,
    /// Let another thread have the CPU.
    Yield,
    /// Sleep so long.
    Nap(Duration),
}

/// One worker's patience.
#[derive(Debug)]
pub(super) struct Idler {
    mode: Idle,
    empty: u32,
    /// When others first got the CPU.
    since: Option<Moment>,
    nap: Duration,
}

impl Idler {
    /// Fully awake.
    pub(super) fn new(mode: Idle) -> Idler {
        Idler {
            mode,
            empty: 0,
            since: None,
            nap: SHORTEST,
        }
    }

    /// What to do after a turn at `now` that found `work` things to do.
    #[inline]
    pub(super) fn after(&mut self, work: usize, now: Moment) -> Rest {
        if work > 0 {
            self.empty = 0;
            return Rest::Not;
        }
        if self.mode == Idle::Spin || self.empty < PATIENCE {
            self.empty = self.empty.saturating_add(1);
            self.since = None;
            return Rest::Hint;
        }
        self.rest(now)
    }

    fn rest(&mut self, now: Moment) -> Rest {
        let since = *self.since.get_or_insert(now);
        if self.mode == Idle::Yield || now.since(since) < AWAKE {
            self.nap = SHORTEST;
            return Rest::Yield;
        }
        let nap = self.nap;
        self.nap = (nap * 3 / 2).min(LONGEST);
        Rest::Nap(nap)
    }
}
