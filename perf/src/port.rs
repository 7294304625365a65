//! A port without a link: two rings of buffers between the benchmark and the worker.
//!
//! A buffer is used again and again, so the pool is as warm as a NIC's with DDIO; nothing is
//! allocated while the clock runs.

use memmap2::MmapOptions;
use rtrb::{Consumer, Producer, RingBuffer};
use weir_dataplane::io::{Burst, Frame, PortQueue, RxChecksum};

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

/// The worker's end.
pub(crate) struct BenchQueue {
    rx: Consumer<BenchFrame>,
    tx: Producer<BenchFrame>,
}

/// The benchmark's end.
pub(crate) struct Wire {
    /// To the worker.
    pub(crate) rx: Producer<BenchFrame>,
    /// From the worker.
    pub(crate) tx: Consumer<BenchFrame>,
}

/// A port with room for `capacity` frames each way.
pub(crate) fn port(capacity: usize) -> (Wire, BenchQueue) {
    let (to_worker, rx) = RingBuffer::new(capacity);
    let (tx, from_worker) = RingBuffer::new(capacity);
    (
        Wire {
            rx: to_worker,
            tx: from_worker,
        },
        BenchQueue { rx, tx },
    )
}

impl PortQueue for BenchQueue {
    type Frame = BenchFrame;

    #[inline]
    fn rx_burst(&mut self, out: &mut Burst<BenchFrame>) {
        let n = self.rx.slots().min(out.remaining_capacity());
        if n > 0
            && let Ok(chunk) = self.rx.read_chunk(n)
        {
            out.extend(chunk);
        }
    }

    #[inline]
    fn tx_burst(&mut self, frames: &mut Burst<BenchFrame>) {
        let n = self.tx.slots().min(frames.len());
        if let Ok(chunk) = self.tx.write_chunk_uninit(n) {
            chunk.fill_from_iter(frames.drain(..n));
        }
    }

    fn has_rx(&self) -> bool {
        true
    }

    fn has_tx(&self) -> bool {
        true
    }
}
