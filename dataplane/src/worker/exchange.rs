//! Frames between a worker and the others, the kernel, and its ports' transmit queues.
#![forbid(unsafe_code)]

use arrayvec::ArrayVec;

use super::{Lane, Worker};
use crate::counters::DropReason;
use crate::io::{BURST, Frame, PortQueue};
use crate::pipeline::Arrival;
use crate::steer::{Handoff, HandoffKind, transmitter};
use crate::types::{CoreId, Tick};

impl<Q: PortQueue> Worker<Q> {
    /// Takes what other workers hand over: flows of ours, and finished frames to send for them.
    pub(super) fn take_handoffs(&mut self, now: Tick) -> usize {
        let mut taken = 0;
        for from in 0..self.links.into.len() {
            let Some(ring) = self.links.into[from].as_mut() else {
                continue;
            };
            let mut batch = ArrayVec::<Handoff<Q::Frame>, BURST>::new();
            if let Ok(chunk) = ring.read_chunk(ring.slots().min(BURST)) {
                batch.extend(chunk);
            }
            taken += batch.len();
            for Handoff { frame, port, kind } in batch {
                let lane = usize::from(port.0);
                match kind {
                    HandoffKind::Transmit => self.transmit(lane, frame),
                    HandoffKind::Process => {
                        self.lanes[lane].inbox.push(frame);
                        if self.lanes[lane].inbox.is_full() {
                            self.process_inbox(lane, now);
                        }
                    }
                }
            }
        }
        if taken > 0 {
            self.counters.handoff_in.add(taken as u64);
            for lane in 0..self.lanes.len() {
                self.process_inbox(lane, now);
            }
        }
        taken
    }

    fn process_inbox(&mut self, lane: usize, now: Tick) {
        if !self.lanes[lane].inbox.is_empty() {
            let burst = std::mem::take(&mut self.lanes[lane].inbox);
            self.process(lane, burst, Arrival::Handed, now);
        }
    }

    /// Sends what the kernel sends.
    pub(super) fn take_from_kernel(&mut self) -> usize {
        let mut taken = 0;
        while taken < BURST
            && let Ok(from_kernel) = self.kernel.into.pop()
        {
            taken += 1;
            self.transmit(usize::from(from_kernel.port.0), from_kernel.frame);
        }
        self.counters.from_kernel.add(taken as u64);
        taken
    }

    /// Queues a finished frame on its port, or hands it to a worker that has a queue there.
    #[inline]
    pub(crate) fn transmit(&mut self, lane: usize, frame: Q::Frame) {
        let len = frame.bytes().len();
        self.transmit_of(lane, frame, len);
    }

    /// The same for a frame that is known to have `len` bytes.
    #[inline]
    pub(crate) fn transmit_of(&mut self, lane: usize, frame: Q::Frame, len: usize) {
        let to = &mut self.lanes[lane];
        if !to.port.queue.has_tx() {
            return self.transmit_elsewhere(lane, frame);
        }
        to.out_bytes += len as u64;
        to.out.push(frame);
        if to.out.is_full() {
            self.flush(lane);
        }
    }

    #[inline(never)]
    fn transmit_elsewhere(&mut self, lane: usize, frame: Q::Frame) {
        let to = &self.lanes[lane].port;
        let (port, core) = (to.id, transmitter(self.steer.me(), to.tx_queues));
        self.hand_over(
            core,
            Handoff {
                frame,
                port,
                kind: HandoffKind::Transmit,
            },
        );
    }

    /// Sets a frame aside for another worker. A burst of them goes on the ring at once: each
    /// store to the ring's end takes its cache line from the other core.
    pub(crate) fn hand_over(&mut self, core: CoreId, handoff: Handoff<Q::Frame>) {
        let Some(aside) = self.aside.get_mut(usize::from(core.0)) else {
            return self.counters.dropped(DropReason::HandoffFull);
        };
        aside.push(handoff);
        if aside.is_full() {
            self.flush_aside(usize::from(core.0));
        }
    }

    /// Puts what was set aside for a worker on its ring; what finds no room is dropped.
    pub(super) fn flush_aside(&mut self, core: usize) {
        let aside = &mut self.aside[core];
        if aside.is_empty() {
            return;
        }
        let mut put = 0;
        if let Some(ring) = self.links.out[core].as_mut() {
            let n = ring.slots().min(aside.len());
            if let Ok(chunk) = ring.write_chunk_uninit(n) {
                put = chunk.fill_from_iter(aside.drain(..n));
            }
        }
        self.counters.handoff_out.add(put as u64);
        self.counters.drops[DropReason::HandoffFull as usize].add(aside.len() as u64);
        aside.clear();
    }

    /// Gives the port what waits for it; what its queue has no room for is dropped.
    pub(super) fn flush(&mut self, lane: usize) {
        let Lane {
            port,
            out,
            out_bytes,
            ..
        } = &mut self.lanes[lane];
        if out.is_empty() {
            return;
        }
        let (n, bytes) = (out.len(), std::mem::take(out_bytes));
        port.queue.tx_burst(out);
        let (left, left_bytes) = (
            out.len(),
            out.iter().map(|f| f.bytes().len() as u64).sum::<u64>(),
        );
        let cells = &self.counters.ports[lane];
        for (packets, sent) in [
            (&cells.tx_packets, n - left),
            (&self.counters.tx_packets, n - left),
            (&cells.tx_full, left),
            (&self.counters.drops[DropReason::TxFull as usize], left),
        ] {
            packets.add(sent as u64);
        }
        cells.tx_bytes.add(bytes - left_bytes);
        self.counters.tx_bytes.add(bytes - left_bytes);
        out.clear();
    }
}
