//! The buffers: one mempool that all queues receive into and the twin thread takes from.

use std::ffi::{CString, c_void};
use std::ptr::NonNull;

use dpdk_sys::{RTE_PKTMBUF_HEADROOM, rte_mbuf, rte_mempool};

use super::demand::{CACHE, PoolDemand};
use super::eal::Eal;
use super::mbuf::Mbuf;
use super::{cache, errno_text, log};
use crate::io::{Burst, FramePool};

mod make;

/// Bytes around an IP packet of MTU size: Ethernet header, VLAN tag, FCS.
const ETHERNET: u32 = 14 + 4 + 4;

/// Bytes that forwarding may add at a frame's end (a payload that a rewritten address makes
/// longer). What it adds in front (outer headers, TCP options) goes into the headroom of 128.
const TAIL_ROOM: u32 = 64;

/// Linux's errno for something that is there already.
const EEXIST: i32 = 17;

/// What to make a pool of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolOptions {
    /// Its name, unique in the process, at most 25 bytes.
    pub name: String,
    /// What must fit.
    pub demand: PoolDemand,
    /// How many buffers; `None` for as many as `demand` adds up to.
    pub count: Option<u32>,
    /// The largest MTU of all ports, bytes.
    pub mtu: u16,
    /// The NUMA node to take memory from; `None` for any.
    pub socket: Option<u32>,
}

impl PoolOptions {
    /// A pool for `demand` on ports of at most `mtu` bytes.
    #[must_use]
    pub fn new(name: &str, demand: PoolDemand, mtu: u16) -> PoolOptions {
        PoolOptions {
            name: name.to_owned(),
            demand,
            count: None,
            mtu,
            socket: None,
        }
    }

    /// How many buffers the pool gets.
    #[must_use]
    pub fn buffers(&self) -> u32 {
        // DPDK wants at least 1.5 caches in a pool with caches.
        self.count.unwrap_or(self.demand.total()).max(CACHE * 2)
    }

    /// DPDK memory that the pool takes, MiB, rounded up: what to give EAL on top of
    /// [`super::Memory::BASE_MIB`].
    #[must_use]
    pub fn memory_mib(&self) -> u32 {
        // A mempool header of 64 bytes, `struct rte_mbuf` of 128, the data, and up to three
        // cache lines with which DPDK spreads objects over memory channels.
        let object = 64 + 128 + u64::from(data_room(self.mtu)) + 3 * 64;
        (object * u64::from(self.buffers())).div_ceil(1 << 20) as u32
    }
}

/// Bytes of a buffer for frames of `mtu`: headroom, the frame, room to grow. The part behind
/// the headroom is a multiple of 1 KiB, because older cards (ixgbe) count it so, and would cut
/// frames in segments. Saturates at 65,535; [`super::open_ports`] refuses an MTU that does not
/// fit then.
#[must_use]
pub fn data_room(mtu: u16) -> u16 {
    let frame = (u32::from(mtu) + ETHERNET + TAIL_ROOM).next_multiple_of(1024);
    (RTE_PKTMBUF_HEADROOM + frame.max(2048)).min(u32::from(u16::MAX)) as u16
}

/// The largest MTU whose frames fit a buffer of `room` bytes in one segment.
pub(super) fn largest_mtu(room: u16) -> u16 {
    (u32::from(room).saturating_sub(RTE_PKTMBUF_HEADROOM + ETHERNET)) as u16
}

/// Why there is no pool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// The operator's number is below the demand.
    #[error("{count} packet buffers are too few: {demand}; raise or leave out the number")]
    TooFew {
        /// Buffers asked for.
        count: u32,
        /// What must fit.
        demand: PoolDemand,
    },
    /// DPDK's memory does not hold it.
    #[error(
        "{count} packet buffers of {room} bytes ({mib} MiB) do not fit DPDK's memory: {reason}; \
         give DPDK more memory or use fewer workers, descriptors or a smaller MTU{log}"
    )]
    NoMemory {
        /// Buffers asked for.
        count: u32,
        /// Bytes of each.
        room: u16,
        /// All together, MiB.
        mib: u32,
        /// DPDK's reason.
        reason: String,
        /// DPDK's last words, in brackets; may be empty.
        log: String,
    },
    /// There is a pool of this name.
    #[error("pool name {0:?}: taken; pools live as long as the process")]
    NameTaken(String),
    /// The name has a zero byte or is too long.
    #[error("pool name {0:?}: at most 25 bytes, none of them zero")]
    BadName(String),
}

/// A handle on the pool, for any thread; clones are the same pool. The pool itself lives until
/// the process ends, so that no frame can outlive it.
#[derive(Debug, Clone)]
pub struct Pool {
    raw: NonNull<rte_mempool>,
    capacity: u32,
    room: u16,
    demand: PoolDemand,
}

// SAFETY: mempools are made for many threads: their ring is multi-producer and multi-consumer,
// and each thread has its own cache. The memory is never given back.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

impl Pool {
    /// Makes a pool.
    ///
    /// # Errors
    /// [`PoolError`]: fewer buffers than the demand, no memory, a bad name.
    pub fn new(eal: &Eal, options: &PoolOptions) -> Result<Pool, PoolError> {
        let (capacity, room) = (options.buffers(), data_room(options.mtu));
        if capacity < options.demand.total() {
            return Err(PoolError::TooFew {
                count: capacity,
                demand: options.demand,
            });
        }
        let name = CString::new(options.name.as_str())
            .ok()
            .filter(|name| name.count_bytes() <= 25)
            .ok_or_else(|| PoolError::BadName(options.name.clone()))?;
        log::take_recent();
        let raw = make::pool(eal, &name, capacity, room, options.socket).map_err(|code| {
            if code.abs() == EEXIST {
                return PoolError::NameTaken(options.name.clone());
            }
            PoolError::NoMemory {
                count: capacity,
                room,
                mib: options.memory_mib(),
                reason: errno_text(code),
                log: log::recent_in_brackets(),
            }
        })?;
        Ok(Pool {
            raw,
            capacity,
            room,
            demand: options.demand,
        })
    }

    /// How many buffers there are.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Bytes of each buffer, headroom included.
    #[must_use]
    pub fn room(&self) -> u16 {
        self.room
    }

    /// What the pool was made for.
    #[must_use]
    pub fn demand(&self) -> PoolDemand {
        self.demand
    }

    /// Buffers that are somebody's at some recent moment: frames, and what the queues hold.
    /// Exact while no thread takes or frees. Slow (it visits all caches): not for workers.
    #[must_use]
    pub fn in_use(&self) -> u32 {
        // SAFETY: the pool lives as long as the process; the count reads other threads' caches
        // without order, which its documentation says.
        let free = unsafe { dpdk_sys::rte_mempool_avail_count(self.raw.as_ptr()) };
        self.capacity.saturating_sub(free)
    }

    pub(super) fn as_ptr(&self) -> *mut rte_mempool {
        self.raw.as_ptr()
    }

    /// Appends `n` frames of `len` bytes (content unspecified) to `out`, all or none; false when
    /// the pool has not enough, `len` does not fit a buffer, or `out` has no room for `n`.
    #[inline]
    #[must_use]
    pub fn alloc_burst(&self, n: usize, len: usize, out: &mut Burst<Mbuf>) -> bool {
        let before = out.len();
        if n > out.remaining_capacity() {
            return false;
        }
        for _ in 0..n {
            match self.take(len) {
                Some(frame) => out.push(frame),
                None => {
                    out.truncate(before);
                    return false;
                }
            }
        }
        true
    }

    #[inline]
    fn take(&self, len: usize) -> Option<Mbuf> {
        // SAFETY: the pool lives as long as the process and holds mbufs of `room` bytes.
        unsafe { take(self.raw, self.room, len) }
    }
}

/// A frame of `len` bytes (content unspecified) from `pool`; `None` when that is empty or the
/// frame does not fit.
///
/// # Safety
/// `pool` must be a live mempool of mbufs with `room` bytes each, headroom included.
#[inline]
pub(super) unsafe fn take(pool: NonNull<rte_mempool>, room: u16, len: usize) -> Option<Mbuf> {
    const HEADROOM: u16 = RTE_PKTMBUF_HEADROOM as u16;
    if len > usize::from(room.saturating_sub(HEADROOM)) {
        return None;
    }
    // SAFETY: the caller vouches for the pool. What it gives is nobody else's, and pooled
    // buffers are of one segment.
    let mut mbuf = unsafe {
        let raw = match cache::take(pool.as_ptr()) {
            Some(raw) => raw,
            None => take_cold(pool)?,
        };
        Mbuf::from_raw(raw)
    };
    mbuf.reset(HEADROOM, len as u16);
    Some(mbuf)
}

/// Takes from the shared ring: a cache to refill (DPDK does it in one go), or a thread without
/// one.
///
/// # Safety
/// `pool` must be a live mempool of mbufs.
#[cold]
unsafe fn take_cold(pool: NonNull<rte_mempool>) -> Option<NonNull<rte_mbuf>> {
    let mut raw: *mut c_void = std::ptr::null_mut();
    // SAFETY: the caller vouches for the pool; there is room for the one pointer.
    let code = unsafe { dpdk_sys::weir_pool_get(pool.as_ptr(), &raw mut raw, 1) };
    if code != 0 {
        return None;
    }
    NonNull::new(raw.cast())
}

impl FramePool for Pool {
    type Frame = Mbuf;

    #[inline]
    fn alloc(&mut self, len: usize) -> Option<Mbuf> {
        self.take(len)
    }
}

#[cfg(test)]
mod tests;
