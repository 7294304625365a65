//! Ports and frames: the replaceable edge of the dataplane.
//!
//! A worker sees one [`PortQueue`] per port and owns it alone. `dpdk/` implements it on DPDK
//! (the only room with `unsafe` of its own), `sim` as a simulated NIC with RSS and a switch
//! for adversarial delivery, so that the very same worker runs in `cargo test`.

mod bonds;
#[cfg(feature = "dpdk")]
#[allow(unsafe_code)]
pub mod dpdk;
pub mod sim;
pub mod vlan;

use arrayvec::ArrayVec;
pub use bonds::{BondHash, BondMode};

/// Frames a worker takes from a queue at once. 32 hides memory latency behind the burst and
/// still fits the first-level cache (PLATFORM: DPDK's own examples settle on it as well).
pub const BURST: usize = 32;

/// Up to [`BURST`] frames on their way in or out.
pub type Burst<F> = ArrayVec<F, BURST>;

/// What the port said of a received frame's checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RxChecksum {
    /// The port verified the IPv4 header checksum: no need to do it again.
    pub l3_good: bool,
    /// The port found the IPv4 header checksum wrong.
    pub l3_bad: bool,
    /// The port found the TCP or UDP checksum wrong.
    pub l4_bad: bool,
    /// The L4 checksum holds the pseudo-header's sum only and is still to be completed
    /// (virtio's `NEEDS_CSUM`).
    pub l4_partial: bool,
}

impl RxChecksum {
    /// Whether nothing is wrong, and nothing to be completed.
    #[inline]
    #[must_use]
    pub fn is_ordinary(self) -> bool {
        !(self.l3_bad | self.l4_bad | self.l4_partial)
    }
}

/// One linear Ethernet frame, owned. Dropping it gives the buffer back to its pool.
///
/// Not `Clone`: a frame has one owner at any time.
pub trait Frame: Sized + Send + 'static {
    /// The frame's bytes, from the destination MAC on, without FCS.
    fn bytes(&self) -> &[u8];
    /// The frame's bytes, to be rewritten in place.
    fn bytes_mut(&mut self) -> &mut [u8];
    /// Grows the frame by `n` bytes at its front (headroom); false, and nothing changed, when
    /// there is no room.
    #[must_use]
    fn push_front(&mut self, n: usize) -> bool;
    /// Shrinks the frame by `n` bytes at its front; `n` must not exceed its length.
    fn pull_front(&mut self, n: usize);
    /// Sets the length: cuts the tail, or grows it with unspecified bytes; false, and nothing
    /// changed, when there is no room.
    #[must_use]
    fn set_len(&mut self, len: usize) -> bool;
    /// What the port said of the checksums on receipt.
    fn rx_checksum(&self) -> RxChecksum;
    /// Another frame from where this one's buffer came from, `len` bytes long (content
    /// unspecified), with the usual headroom; `None` when there is none left or `len` does not
    /// fit. So a worker that makes frames out of one (fragments) needs no pool of its own.
    fn another(&self, len: usize) -> Option<Self>;
}

/// A worker's own end of one port: one receive queue and one transmit queue, either of which
/// may be absent (fewer queues than workers).
pub trait PortQueue: Send {
    /// The frames that this port moves.
    type Frame: Frame;

    /// Appends received frames to `out`, at most as many as there is room for.
    fn rx_burst(&mut self, out: &mut Burst<Self::Frame>);

    /// Sends frames from the front of `frames` and removes what was taken; what the port had no
    /// room for stays, in order.
    fn tx_burst(&mut self, frames: &mut Burst<Self::Frame>);

    /// Whether there is a receive queue to poll.
    fn has_rx(&self) -> bool;

    /// Whether there is a transmit queue.
    fn has_tx(&self) -> bool;
}

/// Where the twin thread takes buffers for the frames the kernel sends.
pub trait FramePool: Send {
    /// The frames of this pool.
    type Frame: Frame;

    /// An empty frame with room for `len` bytes and its length set to `len` (content
    /// unspecified); `None` when the pool is exhausted or a buffer is too small.
    fn alloc(&mut self, len: usize) -> Option<Self::Frame>;
}
