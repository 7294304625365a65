//! How long the twin thread may wait for a TAP.
//!
//! The kernel's frames end the wait at once; the workers' do not, because a worker makes no
//! system call that could wake anyone. So the wait is what a frame to the kernel may take
//! longer: nothing while frames flow, then step by step up to two milliseconds, at which an idle
//! thread costs 1 % of a core: 500 wakes a second of 20 µs each, which is what a bare `ppoll`
//! costs on the virtual machine where this was measured.
#![forbid(unsafe_code)]

use std::time::Duration;

/// Turns without work before the first wait: about 50 µs of polling, a reply's way through the
/// kernel and back.
const EAGER_TURNS: u32 = 64;
/// The first wait.
const SHORTEST: Duration = Duration::from_micros(50);
/// The last wait.
const LONGEST: Duration = Duration::from_millis(2);

/// The pace of one thread.
#[derive(Debug, Default)]
pub(super) struct Pace {
    idle_turns: u32,
}

impl Pace {
    /// How long the next turn may wait.
    pub(super) fn wait(&self) -> Duration {
        match self.idle_turns.checked_sub(EAGER_TURNS) {
            None => Duration::ZERO,
            // Doubled six times: at the longest after some 4 ms of silence.
            Some(steps) => SHORTEST.saturating_mul(1 << steps.min(6)).min(LONGEST),
        }
    }

    /// Notes whether a turn found work.
    pub(super) fn turned(&mut self, work: bool) {
        self.idle_turns = match work {
            true => 0,
            false => self.idle_turns.saturating_add(1),
        };
    }
}
