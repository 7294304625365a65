//! Worker threads as DPDK knows them: registered, they have a cache of buffers of their own.

use std::cell::Cell;
use std::marker::PhantomData;

use super::errno_text;

/// No lcore id: this thread is not registered.
const NONE: u32 = dpdk_sys::WEIR_LCORE_NONE;

thread_local! {
    /// This thread's lcore id. DPDK has it in a thread-local of its own, which Rust can reach
    /// by a call only; this copy is one load.
    static LCORE: Cell<u32> = const { Cell::new(NONE) };
}

/// The lcore id of this thread, if it holds a [`WorkerThread`].
#[inline]
pub(super) fn lcore() -> Option<u32> {
    let id = LCORE.get();
    (id != NONE).then_some(id)
}

/// Why a thread could not be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ThreadError {
    /// It is registered already.
    #[error("this thread is registered with DPDK already")]
    Twice,
    /// DPDK refused: not initialised, or no lcore id left.
    #[error("DPDK does not take this thread: {0}; it knows at most 128 threads, and EAL must run")]
    Refused(String),
}

/// While it lives, the thread that made it is one of DPDK's: allocating and freeing buffers
/// goes through a private cache. Without it both still work, through the pool's shared ring.
///
/// Register after pinning the thread: DPDK looks at its processors once. Drop it on the same
/// thread (it is not `Send`), after the thread's queues and frames: what stays in its cache is
/// taken up by the next thread that gets the same lcore id.
#[derive(Debug)]
pub struct WorkerThread {
    lcore: u32,
    /// Bound to its thread.
    not_send: PhantomData<*const ()>,
}

impl WorkerThread {
    /// Registers the calling thread.
    ///
    /// # Errors
    /// [`ThreadError`]: registered before, EAL not running, or all 128 lcore ids in use.
    pub fn register() -> Result<WorkerThread, ThreadError> {
        // SAFETY: reads a thread-local of DPDK's.
        if unsafe { dpdk_sys::weir_lcore_id() } != NONE {
            return Err(ThreadError::Twice);
        }
        // SAFETY: DPDK checks by itself that EAL runs.
        if unsafe { dpdk_sys::rte_thread_register() } != 0 {
            // SAFETY: reads a thread-local of DPDK's.
            let code = unsafe { dpdk_sys::weir_errno() };
            return Err(ThreadError::Refused(errno_text(code)));
        }
        // SAFETY: as above.
        let lcore = unsafe { dpdk_sys::weir_lcore_id() };
        LCORE.set(lcore);
        Ok(WorkerThread {
            lcore,
            not_send: PhantomData,
        })
    }

    /// DPDK's number for this thread; not a CPU number and not a `CoreId`.
    #[must_use]
    pub fn lcore(&self) -> u32 {
        self.lcore
    }
}

impl Drop for WorkerThread {
    fn drop(&mut self) {
        LCORE.set(NONE);
        // SAFETY: this thread was registered by `register`, and is still the same thread.
        unsafe { dpdk_sys::rte_thread_unregister() };
    }
}
