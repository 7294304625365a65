//! One frame in a DPDK buffer. Owner: whoever holds the [`Mbuf`].
//!
//! ```text
//! buf_addr     +data_off                +data_off+data_len      +buf_len
//!    |  headroom  |  the frame: bytes()     |  tailroom             |
//!    push_front <-                          -> set_len
//! ```

use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use dpdk_sys::{flags, rte_mbuf};

use super::{cache, pool};
use crate::io::{Frame, RxChecksum};

/// An owned frame of one segment; dropping it gives the buffer back to its pool.
///
/// The same size and content as DPDK's `struct rte_mbuf *`, so that a burst of them is the
/// array that drivers fill and empty.
#[repr(transparent)]
pub struct Mbuf(NonNull<rte_mbuf>);

// SAFETY: an `Mbuf` is the only owner of its buffer, which is plain memory of the process and
// may be freed on any thread; pools live as long as the process.
unsafe impl Send for Mbuf {}

impl Mbuf {
    /// Takes ownership of `raw`.
    ///
    /// # Safety
    /// `raw` must be a live buffer that nobody else owns, of one segment.
    #[inline]
    pub(super) unsafe fn from_raw(raw: NonNull<rte_mbuf>) -> Mbuf {
        Mbuf(raw)
    }

    /// The buffer, still owned by this `Mbuf`.
    #[inline]
    pub(super) fn as_ptr(&self) -> *mut rte_mbuf {
        self.0.as_ptr()
    }

    #[inline]
    fn fields(&self) -> &rte_mbuf {
        // SAFETY: the buffer is live and ours until we are dropped.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    fn fields_mut(&mut self) -> &mut rte_mbuf {
        // SAFETY: as in `fields`, and `&mut self` makes it the only reference.
        unsafe { self.0.as_mut() }
    }

    /// Whether the driver delivered the frame in one segment. Frames that leave `io/dpdk` are.
    #[inline]
    pub(super) fn is_linear(&self) -> bool {
        self.fields().nb_segs == 1
    }

    /// Forgets what the port said on receipt, so that it is not taken for a wish on the way
    /// out, nor for a verdict by a peer that is handed the same buffer (net_ring).
    #[inline]
    pub(super) fn clear_offloads(&mut self) {
        self.fields_mut().ol_flags &= flags::INDIRECT | flags::EXTERNAL;
    }

    /// Makes a raw buffer from the pool an empty frame of `len` bytes behind `headroom`.
    /// `len` must fit; content is unspecified.
    ///
    /// What the pool guarantees is not written again: reference count 1, one segment, no next.
    /// Offload lengths stay stale: without an offload flag nobody reads them.
    #[inline]
    pub(super) fn reset(&mut self, headroom: u16, len: u16) {
        let m = self.fields_mut();
        m.data_off = headroom;
        m.port = dpdk_sys::RTE_MBUF_PORT_INVALID as u16;
        m.ol_flags = 0;
        m.__bindgen_anon_1.packet_type = 0;
        m.pkt_len = u32::from(len);
        m.data_len = len;
        m.vlan_tci = 0;
    }
}

impl Frame for Mbuf {
    #[inline]
    fn bytes(&self) -> &[u8] {
        let m = self.fields();
        // SAFETY: drivers and the functions below keep data_off + data_len within the buffer,
        // which lives as long as we do.
        unsafe {
            let start = m.buf_addr.cast::<u8>().add(usize::from(m.data_off));
            std::slice::from_raw_parts(start, usize::from(m.data_len))
        }
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        let m = self.fields();
        // SAFETY: as in `bytes`, and `&mut self` makes it the only reference.
        unsafe {
            let start = m.buf_addr.cast::<u8>().add(usize::from(m.data_off));
            std::slice::from_raw_parts_mut(start, usize::from(m.data_len))
        }
    }

    #[inline]
    fn push_front(&mut self, n: usize) -> bool {
        let m = self.fields_mut();
        if n > usize::from(m.data_off) {
            return false;
        }
        // n fits 16 bits now; data_off + data_len, and so data_len + n, stays within buf_len.
        m.data_off -= n as u16;
        m.data_len += n as u16;
        m.pkt_len = u32::from(m.data_len);
        true
    }

    #[inline]
    fn pull_front(&mut self, n: usize) {
        let m = self.fields_mut();
        assert!(n <= usize::from(m.data_len), "pull_front past the end");
        m.data_off += n as u16;
        m.data_len -= n as u16;
        m.pkt_len = u32::from(m.data_len);
    }

    #[inline]
    fn set_len(&mut self, len: usize) -> bool {
        let m = self.fields_mut();
        if len > usize::from(m.buf_len - m.data_off) {
            return false;
        }
        m.data_len = len as u16;
        m.pkt_len = len as u32;
        true
    }

    #[inline]
    fn rx_checksum(&self) -> RxChecksum {
        let said = self.fields().ol_flags;
        let (l3, l4) = (
            said & flags::RX_IP_CKSUM_MASK,
            said & flags::RX_L4_CKSUM_MASK,
        );
        RxChecksum {
            l3_good: l3 == flags::RX_IP_CKSUM_GOOD,
            l3_bad: l3 == flags::RX_IP_CKSUM_BAD,
            l4_bad: l4 == flags::RX_L4_CKSUM_BAD,
            // "Not right in the data, but the data is sound": what virtio's NEEDS_CSUM becomes.
            l4_partial: l4 == flags::RX_L4_CKSUM_NONE,
        }
    }

    fn another(&self, len: usize) -> Option<Mbuf> {
        let m = self.fields();
        // SAFETY: a live buffer's pool is live, holds mbufs, and all of one size.
        unsafe { pool::take(NonNull::new(m.pool)?, m.buf_len, len) }
    }
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        let m = self.fields();
        // SAFETY: the buffer is live; C changes this field atomically as well.
        let refcnt = unsafe { AtomicU16::from_ptr((&raw const m.refcnt).cast_mut()) }.load(Relaxed);
        let ordinary =
            refcnt == 1 && m.nb_segs == 1 && m.ol_flags & (flags::INDIRECT | flags::EXTERNAL) == 0;
        // SAFETY: ours alone, direct and of one segment by what was just read (then `next` is
        // null: DPDK's invariant); it is not used after this.
        if ordinary && unsafe { cache::put(self.0) } {
            return;
        }
        free_cold(self.0);
    }
}

/// Frees what the fast way does not take: shared or attached buffers, chains, a full cache, a
/// thread without a cache.
#[cold]
fn free_cold(mbuf: NonNull<rte_mbuf>) {
    // SAFETY: called by `drop` only, which owns the buffer and does not use it again.
    unsafe { dpdk_sys::weir_mbuf_free(mbuf.as_ptr()) }
}

impl fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mbuf").field(&self.bytes().len()).finish()
    }
}
