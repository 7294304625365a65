//! A worker's end of one port. Owner: that worker; control reads the counters.
//!
//! Bursts go straight through `rte_eth_fp_ops`, the table of the drivers' functions that DPDK's
//! inline `rte_eth_rx_burst` and `rte_eth_tx_burst` use, and call the same callbacks: a capture
//! tool sees every frame.

use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use dpdk_sys::{rte_eth_fp_ops, rte_mbuf};

use super::bond::Bond;
use super::mbuf::Mbuf;
use super::port::Claim;
use crate::counters::Cell;
use crate::io::BondMode;
use crate::io::{Burst, PortQueue};

/// What a queue counts by itself. These frames never reach the worker, so they are not in its
/// books: they are loss of the port, like frames that the card had no descriptor for.
#[derive(Debug, Default)]
pub struct QueueCounters {
    /// Frames that came in several segments and were made linear.
    pub linearized: Cell,
    /// Frames that came in several segments and did not fit one buffer: dropped.
    pub multi_segment_dropped: Cell,
}

/// One receive queue and one transmit queue of a port, either of which may be absent.
#[derive(Debug)]
pub struct DpdkQueue {
    /// DPDK's entry for the port, in its static table.
    ops: *const rte_eth_fp_ops,
    port: u16,
    rx: Option<u16>,
    tx: Option<u16>,
    /// It also sends a bond's LACP frames, which the driver makes on a thread of its own.
    sends_lacp: bool,
    /// A bond that sends every frame on every member.
    broadcasts: bool,
    counters: Arc<QueueCounters>,
    /// Keeps the port open.
    _claim: Arc<Claim>,
}

// SAFETY: the queues are this value's alone (it is not `Clone`, and each number is given out
// once), and a driver's queue may be used by any thread, one at a time. `ops` points into a
// static table.
unsafe impl Send for DpdkQueue {}

impl DpdkQueue {
    /// The queues `rx` and `tx` of the started port that `claim` keeps open.
    ///
    /// # Safety
    /// Both must be set up, and no other `DpdkQueue` may have them.
    pub(super) unsafe fn new(claim: Arc<Claim>, rx: Option<u16>, tx: Option<u16>) -> DpdkQueue {
        let port = claim.id();
        let mode = claim.bond().map(|bond: &Bond| bond.mode);
        let table = (&raw const dpdk_sys::rte_eth_fp_ops).cast::<rte_eth_fp_ops>();
        DpdkQueue {
            // SAFETY: the table has an entry for each port DPDK can have.
            ops: unsafe { table.add(usize::from(port)) },
            port,
            rx,
            tx,
            sends_lacp: mode == Some(BondMode::Lacp) && tx == Some(0),
            broadcasts: mode == Some(BondMode::Broadcast),
            counters: Arc::default(),
            _claim: claim,
        }
    }

    /// This queue's counters, to be read by control.
    #[must_use]
    pub fn counters(&self) -> Arc<QueueCounters> {
        Arc::clone(&self.counters)
    }

    /// Makes the frames from `out[first]` on linear; drops and counts those that cannot be.
    #[cold]
    fn linearize(&self, out: &mut Burst<Mbuf>, first: usize) {
        let mut at = first;
        while at < out.len() {
            if out[at].is_linear() {
                at += 1;
                continue;
            }
            // SAFETY: the frame is live and ours.
            if unsafe { dpdk_sys::weir_mbuf_linearize(out[at].as_ptr()) } == 0 {
                self.counters.linearized.add(1);
                at += 1;
            } else {
                self.counters.multi_segment_dropped.add(1);
                drop(out.remove(at));
            }
        }
    }
}

impl DpdkQueue {
    /// Lets an LACP bond send what it has to say, though there is no frame to send: it does so in
    /// bursts alone, and an idle worker makes none.
    fn send_lacp(&self) {
        let Some(queue) = self.tx else { return };
        // SAFETY: the port is open and started while `_claim` lives, and the queue is ours; the
        // driver looks at no slot of an empty burst.
        unsafe {
            let ops = &*self.ops;
            if let Some(send) = ops.tx_pkt_burst {
                send(
                    *ops.txq.data.add(usize::from(queue)),
                    std::ptr::null_mut(),
                    0,
                );
            }
        }
    }

    /// Sends a burst on every member of a broadcasting bond. When no member takes any of it, the
    /// driver frees all and says that it sent none: so that this frees nothing, each frame is held
    /// once more.
    #[cold]
    fn broadcast(&mut self, frames: &mut Burst<Mbuf>) {
        let held: Burst<*mut rte_mbuf> = frames.iter().map(Mbuf::as_ptr).collect();
        for frame in &held {
            // SAFETY: the frame is live and ours.
            unsafe { dpdk_sys::weir_mbuf_hold(*frame) };
        }
        self.send(frames);
        let sent = held.len() - frames.len();
        for frame in &held[..sent] {
            // SAFETY: this gives back the reference from above; the others are the members'.
            unsafe { dpdk_sys::weir_mbuf_free(*frame) };
        }
        for frame in frames.iter() {
            // SAFETY: no member took it, so all references to it are gone or ours, and ours is one
            // at least.
            unsafe { dpdk_sys::weir_mbuf_reclaim(frame.as_ptr()) };
        }
    }

    /// The burst itself.
    #[inline]
    fn send(&mut self, frames: &mut Burst<Mbuf>) {
        let Some(queue) = self.tx else { return };
        // SAFETY: the port is open and started while `_claim` lives, and the queue is ours. The
        // length is 0 while others own slots: callbacks keep the first `n` for the driver and
        // own the rest, the driver owns the first `sent` of those, and what is between is
        // ours again, moved to the front.
        unsafe {
            let ops = &*self.ops;
            let Some(send) = ops.tx_pkt_burst else { return };
            let mut n = frames.len() as u16;
            frames.set_len(0);
            let slots = frames.as_mut_ptr().cast::<*mut rte_mbuf>();
            let hooks = callbacks(ops.txq.clbk, queue);
            if !hooks.is_null() {
                n = dpdk_sys::rte_eth_call_tx_callbacks(self.port, queue, slots, n, hooks);
            }
            let sent = send(*ops.txq.data.add(usize::from(queue)), slots, n);
            let left = usize::from(n - sent);
            if left != 0 {
                std::ptr::copy(slots.add(usize::from(sent)), slots, left);
            }
            frames.set_len(left);
        }
    }
}

/// The callbacks that somebody hung on a queue; null, nearly always, for none.
///
/// # Safety
/// `slots` must be a port's array of callbacks and `queue` one of its queues.
#[inline]
unsafe fn callbacks(slots: *mut *mut c_void, queue: u16) -> *mut c_void {
    // SAFETY: the caller vouches for the place; it is written by atomic stores. Relaxed, as in
    // rte_ethdev.h: what is read through the pointer depends on it.
    unsafe { AtomicPtr::from_ptr(slots.add(usize::from(queue))) }.load(Relaxed)
}

impl PortQueue for DpdkQueue {
    type Frame = Mbuf;

    #[inline]
    fn rx_burst(&mut self, out: &mut Burst<Mbuf>) {
        let Some(queue) = self.rx else { return };
        if self.sends_lacp {
            self.send_lacp();
        }
        let (first, room) = (out.len(), out.remaining_capacity() as u16);
        if room == 0 {
            return;
        }
        // SAFETY: the port is open and started while `_claim` lives, and the queue is ours. The
        // driver fills the first `n <= room` slots of the spare capacity with buffers that are
        // ours from then on; an `Mbuf` is such a pointer.
        unsafe {
            let ops = &*self.ops;
            let Some(receive) = ops.rx_pkt_burst else {
                return;
            };
            let slots = out.as_mut_ptr().add(first).cast::<*mut rte_mbuf>();
            let mut n = receive(*ops.rxq.data.add(usize::from(queue)), slots, room);
            let hooks = callbacks(ops.rxq.clbk, queue);
            if !hooks.is_null() {
                n = dpdk_sys::rte_eth_call_rx_callbacks(self.port, queue, slots, n, room, hooks);
            }
            out.set_len(first + usize::from(n));
        }
        if !out[first..].iter().all(Mbuf::is_linear) {
            self.linearize(out, first);
        }
    }

    #[inline]
    fn tx_burst(&mut self, frames: &mut Burst<Mbuf>) {
        if self.tx.is_none() || frames.is_empty() {
            return;
        }
        for frame in frames.iter_mut() {
            frame.clear_offloads();
        }
        if self.broadcasts {
            return self.broadcast(frames);
        }
        self.send(frames);
    }

    #[inline]
    fn has_rx(&self) -> bool {
        self.rx.is_some()
    }

    #[inline]
    fn has_tx(&self) -> bool {
        self.tx.is_some()
    }
}
