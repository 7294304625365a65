//! A port without a link: two rings of buffers between the benchmark and the worker.
//!
//! A buffer is used again and again, so the pool is as warm as a NIC's with DDIO; nothing is
//! allocated while the clock runs.

use memmap2::MmapOptions;
use rtrb::{Consumer, Producer, RingBuffer};
use weir_dataplane::io::{BURST, Burst, Frame, PortQueue, RxChecksum};

const HEADROOM: usize = 128;
const ROOM: usize = 2048;
/// Begins with a line of its own for the frame's place in it, as an mbuf does.
const HEADER: usize = 64;
const SIZE: usize = HEADER + HEADROOM + ROOM;
/// In the header: where the frame starts and how long it is, and whether its checksum was verified.
const START_AT: usize = 0;
const LEN_AT: usize = 4;
const L3_GOOD_AT: usize = 8;

/// An owned buffer.
pub(crate) struct BenchFrame(&'static mut [u8; SIZE]);

/// Buffers in one mapping, on huge pages where there are any as a DPDK pool's are. Never freed: one
/// whose frame was dropped is lost, and the mapping lasts as long as the process.
pub(crate) fn buffers(n: usize) -> std::io::Result<Vec<BenchFrame>> {
    const HUGE: usize = 2 << 20;
    let len = (n * SIZE).next_multiple_of(HUGE);
    let map = match MmapOptions::new().len(len).huge(Some(21)).map_anon() {
        Ok(map) => map,
        Err(_) => MmapOptions::new().len(len).map_anon()?,
    };
    let (buffers, _) = Box::leak(Box::new(map)).as_chunks_mut::<SIZE>();
    Ok(buffers.iter_mut().take(n).map(BenchFrame).collect())
}

impl BenchFrame {
    /// Makes the buffer hold `bytes`, as a NIC that verified its IPv4 checksum delivers it.
    pub(crate) fn fill(&mut self, bytes: &[u8]) {
        self.set(START_AT, HEADER + HEADROOM);
        self.set(LEN_AT, bytes.len());
        self.0[L3_GOOD_AT] = 1;
        self.0[HEADER + HEADROOM..][..bytes.len()].copy_from_slice(bytes);
    }

    #[inline]
    fn get(&self, at: usize) -> usize {
        u32::from_le_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]]) as usize
    }

    #[inline]
    fn set(&mut self, at: usize, value: usize) {
        self.0[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
    }
}

impl Frame for BenchFrame {
    #[inline]
    fn bytes(&self) -> &[u8] {
        let (start, len) = (self.get(START_AT), self.get(LEN_AT));
        &self.0[start..start + len]
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        let (start, len) = (self.get(START_AT), self.get(LEN_AT));
        &mut self.0[start..start + len]
    }

    fn push_front(&mut self, n: usize) -> bool {
        let (start, len) = (self.get(START_AT), self.get(LEN_AT));
        let room = start >= HEADER + n;
        if room {
            self.set(START_AT, start - n);
            self.set(LEN_AT, len + n);
        }
        room
    }

    fn pull_front(&mut self, n: usize) {
        let (start, len) = (self.get(START_AT), self.get(LEN_AT));
        self.set(START_AT, start + n);
        self.set(LEN_AT, len - n);
    }

    fn set_len(&mut self, len: usize) -> bool {
        let room = self.get(START_AT) + len <= SIZE;
        if room {
            self.set(LEN_AT, len);
        }
        room
    }

    #[inline]
    fn rx_checksum(&self) -> RxChecksum {
        RxChecksum {
            l3_good: self.0[L3_GOOD_AT] != 0,
            ..RxChecksum::default()
        }
    }

    /// None: buffers go round and round, and nothing that is measured makes frames.
    fn another(&self, _: usize) -> Option<BenchFrame> {
        None
    }
}

/// The worker's end. The rings carry whole bursts, as cheaply as may be: what is measured is the
/// worker.
pub(crate) struct BenchQueue {
    rx: Consumer<Burst<BenchFrame>>,
    tx: Producer<Burst<BenchFrame>>,
}

/// The benchmark's end.
pub(crate) struct Wire {
    rx: Producer<Burst<BenchFrame>>,
    tx: Consumer<Burst<BenchFrame>>,
    /// Frames for the worker, until they are a burst.
    filling: Burst<BenchFrame>,
}

/// A port with room for `capacity` frames each way, in bursts that are full to a share of `full` at
/// least. No more room than that: a ring is gone round and round, and what is far round is cold (with
/// eight times as much a packet took 3 ns more).
pub(crate) fn port(capacity: usize, full: f64) -> (Wire, BenchQueue) {
    let bursts = (capacity as f64 / BURST as f64 / full) as usize + BURST;
    let (to_worker, rx) = RingBuffer::new(bursts);
    let (tx, from_worker) = RingBuffer::new(bursts);
    (
        Wire {
            rx: to_worker,
            tx: from_worker,
            filling: Burst::new(),
        },
        BenchQueue { rx, tx },
    )
}

impl Wire {
    /// Has the worker receive a frame, with the burst that it fills or at the next
    /// [`Wire::flush`]; gives it back when the ring is full.
    pub(crate) fn deliver(&mut self, frame: BenchFrame) -> Option<BenchFrame> {
        if self.filling.is_full() && !self.flush() {
            return Some(frame);
        }
        self.filling.push(frame);
        None
    }

    /// Hands over what waits to be a burst; false when the ring is full.
    pub(crate) fn flush(&mut self) -> bool {
        if self.filling.is_empty() {
            return true;
        }
        if self.rx.is_full() {
            return false;
        }
        let burst = std::mem::take(&mut self.filling);
        self.rx.push(burst).is_ok()
    }

    /// Frames that the worker has sent.
    pub(crate) fn sent(&mut self) -> Option<Burst<BenchFrame>> {
        self.tx.pop().ok()
    }
}

impl PortQueue for BenchQueue {
    type Frame = BenchFrame;

    #[inline]
    fn rx_burst(&mut self, out: &mut Burst<BenchFrame>) {
        if out.is_empty()
            && let Ok(burst) = self.rx.pop()
        {
            *out = burst;
        }
    }

    #[inline]
    fn tx_burst(&mut self, frames: &mut Burst<BenchFrame>) {
        if !self.tx.is_full() {
            let _ = self.tx.push(std::mem::take(frames)); // there is room
        }
    }

    fn has_rx(&self) -> bool {
        true
    }

    fn has_tx(&self) -> bool {
        true
    }
}
