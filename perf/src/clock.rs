//! The processor's time-stamp counter, and what a cycle of it is worth.

use std::time::{Duration, Instant};

/// The counter now. On processors without one, nanoseconds.
#[inline]
pub(crate) fn cycles() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: RDTSC is in every x86-64 and touches no memory.
    unsafe {
        std::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }
}

/// Cycles in a nanosecond, measured over 50 ms.
pub(crate) fn cycles_per_ns() -> f64 {
    let (start, c) = (Instant::now(), cycles());
    while start.elapsed() < Duration::from_millis(50) {}
    (cycles() - c) as f64 / start.elapsed().as_nanos() as f64
}
