//! Makes the mempool, step by step instead of by `rte_pktmbuf_pool_create`, for one reason:
//! on ordinary memory that puts every buffer on a page of its own, so that no buffer crosses
//! two. All buffers' headers then fall into one set of the first-level cache (8.3 ns to touch
//! each of 32 headers instead of 0.3) and 2.3 kB take 4. Where addresses on the bus are virtual
//! ones, pages do not matter, and buffers can lie side by side.

use std::ffi::{CStr, c_void};
use std::mem::size_of;
use std::ptr::{NonNull, null_mut};

use dpdk_sys::{rte_mbuf, rte_mempool, rte_pktmbuf_pool_private};

use super::super::demand::CACHE;
use super::super::eal::Eal;

/// The pool's shared ring. `ring_mt_rts` instead of DPDK's default, because with the default a
/// thread that loses its processor in the middle of a refill makes all others spin until it is
/// back, and Weir may run more workers than there are processors.
const RING: &CStr = c"ring_mt_rts";

/// A pool of `count` buffers of `room` bytes, with caches for registered threads.
///
/// # Errors
/// The errno of the step that failed; nothing stays behind.
pub(super) fn pool(
    _eal: &Eal,
    name: &CStr,
    count: u32,
    room: u16,
    socket: Option<u32>,
) -> Result<NonNull<rte_mempool>, i32> {
    let socket = socket.map_or(-1, |s| s as i32); // -1: SOCKET_ID_ANY
    let element = size_of::<rte_mbuf>() as u32 + u32::from(room);
    let private = size_of::<rte_pktmbuf_pool_private>() as u32;
    // SAFETY: EAL runs (`_eal`); no arguments.
    let side_by_side = unsafe {
        dpdk_sys::rte_eal_has_hugepages() == 0
            && dpdk_sys::rte_eal_iova_mode() == dpdk_sys::RTE_IOVA_VA
    };
    // The flag says that a buffer may cross pages; each keeps its right address on the bus all
    // the same, see fill_side_by_side.
    let flags = if side_by_side {
        dpdk_sys::RTE_MEMPOOL_F_NO_IOVA_CONTIG
    } else {
        0
    };
    // SAFETY: as above; the name is copied.
    let pool = unsafe {
        dpdk_sys::rte_mempool_create_empty(
            name.as_ptr(),
            count,
            element,
            CACHE,
            private,
            socket,
            flags,
        )
    };
    let pool = NonNull::new(pool).ok_or_else(errno)?;
    if let Err(code) = fill(pool.as_ptr(), name, count, room, socket, side_by_side) {
        // SAFETY: ours, and nobody has seen it.
        unsafe { dpdk_sys::rte_mempool_free(pool.as_ptr()) };
        return Err(code);
    }
    Ok(pool)
}

/// Gives the empty `pool` its ring, its memory and its buffers.
fn fill(
    pool: *mut rte_mempool,
    name: &CStr,
    count: u32,
    room: u16,
    socket: i32,
    side_by_side: bool,
) -> Result<(), i32> {
    let mut private = rte_pktmbuf_pool_private {
        mbuf_data_room_size: room,
        mbuf_priv_size: 0,
        flags: 0,
    };
    // SAFETY: the pool is live, empty and ours, and has room for the private part, which is
    // copied.
    unsafe {
        let code = dpdk_sys::rte_mempool_set_ops_byname(pool, RING.as_ptr(), null_mut());
        if code != 0 {
            return Err(code);
        }
        dpdk_sys::rte_pktmbuf_pool_init(pool, (&raw mut private).cast::<c_void>());
    }
    let filled = if side_by_side {
        fill_side_by_side(pool, name, count, socket)?
    } else {
        // SAFETY: as above.
        unsafe { dpdk_sys::rte_mempool_populate_default(pool) }
    };
    if filled != count as i32 {
        return Err(if filled < 0 { filled } else { ENOMEM });
    }
    // SAFETY: the pool's objects are of the size of a buffer with the room in its private part.
    unsafe { dpdk_sys::rte_mempool_obj_iter(pool, Some(dpdk_sys::rte_pktmbuf_init), null_mut()) };
    Ok(())
}

/// Linux's errno for no memory.
const ENOMEM: i32 = 12;

/// Fills the pool from one zone of memory, without gaps; returns how many buffers fitted.
fn fill_side_by_side(
    pool: *mut rte_mempool,
    name: &CStr,
    count: u32,
    socket: i32,
) -> Result<i32, i32> {
    // SAFETY: the pool is live and ours; the name is copied; a zone that was reserved stays
    // until it is freed, and its address on the bus is its virtual one throughout.
    unsafe {
        let object = (*pool).header_size + (*pool).elt_size + (*pool).trailer_size;
        let len = object as usize * count as usize;
        let zone = dpdk_sys::rte_memzone_reserve_aligned(name.as_ptr(), len, socket, 0, 64);
        if zone.is_null() {
            return Err(errno());
        }
        let start = (*zone).__bindgen_anon_1.addr.cast();
        let iova = (*zone).iova;
        let filled = dpdk_sys::rte_mempool_populate_iova(pool, start, iova, len, None, null_mut());
        if filled != count as i32 {
            dpdk_sys::rte_memzone_free(zone);
        }
        Ok(filled)
    }
}

fn errno() -> i32 {
    // SAFETY: reads a thread-local of DPDK's.
    unsafe { dpdk_sys::weir_errno() }
}
