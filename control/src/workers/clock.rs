//! The workers' clock: one cheap reading a turn, the same for all workers.
#![forbid(unsafe_code)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, Timespec, clock_gettime};
use weir_dataplane::Tick;

/// Time since the daemon's start, read from the kernel's coarse monotonic clock: a load from
/// the vDSO's page, a few nanoseconds, no system call. It moves with the kernel's timer
/// interrupt, every 1 to 10 ms, which is finer than a [`Tick`] (15.6 ms).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    base: Timespec,
}

/// A moment, as time since the clock's base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(pub(super) Duration);

impl Clock {
    /// A clock that starts now.
    pub(crate) fn start() -> Clock {
        Clock {
            base: clock_gettime(ClockId::MonotonicCoarse),
        }
    }

    /// When it began, Unix time in seconds: by it directors count the same minutes.
    pub(crate) fn began_s(&self) -> u32 {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        let began = unix.unwrap_or_default().saturating_sub(self.now().0);
        began.as_secs() as u32
    }

    /// Now.
    #[inline]
    pub(crate) fn now(&self) -> Moment {
        let now = clock_gettime(ClockId::MonotonicCoarse);
        let nanos =
            (now.tv_sec - self.base.tv_sec) * 1_000_000_000 + now.tv_nsec - self.base.tv_nsec;
        Moment(Duration::from_nanos(nanos.max(0) as u64))
    }
}

impl Moment {
    /// The moment in the dataplane's unit; wraps after two years like every [`Tick`].
    #[inline]
    pub(crate) fn tick(self) -> Tick {
        let Moment(since) = self;
        let part = u64::from(since.subsec_nanos()) * u64::from(Tick::PER_SECOND) / 1_000_000_000;
        let ticks = since.as_secs() * u64::from(Tick::PER_SECOND) + part;
        Tick(ticks as u32)
    }

    /// Time from `earlier` to this moment.
    pub(super) fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}
