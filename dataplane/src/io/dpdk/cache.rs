//! A registered thread's private store of buffers, as DPDK's mempool keeps it: take and put
//! are a few instructions and touch no other core's memory. DPDK's inline functions do the
//! same in C; here they are Rust, so that the worker's loop calls nothing.

use std::ffi::c_void;
use std::ptr::NonNull;

use dpdk_sys::{rte_mbuf, rte_mempool, rte_mempool_cache};

use super::thread;

/// The calling thread's cache of `pool`; `None` when it has none.
///
/// # Safety
/// `pool` must be a live mempool.
#[inline]
unsafe fn of_this_thread(pool: *mut rte_mempool) -> Option<*mut rte_mempool_cache> {
    let lcore = thread::lcore()?;
    // SAFETY: the caller vouches for `pool`.
    let caches = unsafe { (*pool).local_cache };
    if caches.is_null() {
        return None;
    }
    // SAFETY: a pool with caches has one for each of RTE_MAX_LCORE lcore ids, and DPDK gave
    // this thread one of those.
    Some(unsafe { caches.add(lcore as usize) })
}

/// Takes a buffer from the calling thread's cache of `pool`; `None` when that is empty.
///
/// # Safety
/// `pool` must be a live mempool of mbufs.
#[inline]
pub(super) unsafe fn take(pool: *mut rte_mempool) -> Option<NonNull<rte_mbuf>> {
    // SAFETY: the cache is this thread's alone (its lcore id is), so nobody else reads or
    // writes it now; objs[..len] are initialised pointers to free buffers.
    unsafe {
        let cache = of_this_thread(pool)?;
        let len = (*cache).len.checked_sub(1)?;
        (*cache).len = len;
        let objs = (&raw const (*cache).objs).cast::<*mut c_void>();
        Some(NonNull::new_unchecked(
            objs.add(len as usize).read().cast::<rte_mbuf>(),
        ))
    }
}

/// Puts `mbuf` into the calling thread's cache of its pool; false, and nothing done, when the
/// thread has none or it is full up to where DPDK would flush it.
///
/// # Safety
/// `mbuf` must be the caller's alone, live, direct, of one segment, with reference count 1; the
/// caller must not use it after true.
#[inline]
pub(super) unsafe fn put(mbuf: NonNull<rte_mbuf>) -> bool {
    // SAFETY: `mbuf` is live and so is its pool (pools live as long as the process); the cache
    // is this thread's alone, and objs has room for flushthresh pointers and more.
    unsafe {
        let Some(cache) = of_this_thread((*mbuf.as_ptr()).pool) else {
            return false;
        };
        let len = (*cache).len;
        if len >= (*cache).flushthresh {
            return false;
        }
        let objs = (&raw mut (*cache).objs).cast::<*mut c_void>();
        objs.add(len as usize).write(mbuf.as_ptr().cast());
        (*cache).len = len + 1;
    }
    true
}
