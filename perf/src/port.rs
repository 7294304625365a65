//! A port without a link: two rings of buffers between the benchmark and the worker.
//!
//! A buffer is used again and again, so the pool is as warm as a NIC's with DDIO; nothing is
//! allocated while the clock runs.

use rtrb::{Consumer, Producer, RingBuffer};
use weir_dataplane::io::{Burst, Frame, FramePool, PortQueue, RxChecksum};

const HEADROOM: usize = 128;
const ROOM: usize = 2048;

/// A buffer with its frame's place in it, as an mbuf is laid out.
#[repr(C, align(64))]
pub(crate) struct Buffer {
    start: u32,
    len: u32,
    l3_good: bool,
    data: [u8; HEADROOM + ROOM],
}

/// An owned buffer.
pub(crate) struct BenchFrame(Box<Buffer>);

impl BenchFrame {
    pub(crate) fn empty() -> BenchFrame {
        let (start, data) = (HEADROOM as u32, [0; HEADROOM + ROOM]);
        BenchFrame(Box::new(Buffer {
            start,
            len: 0,
            l3_good: true,
            data,
        }))
    }

    /// Makes the buffer hold `bytes`, as a NIC that verified its IPv4 checksum delivers it.
    pub(crate) fn fill(&mut self, bytes: &[u8]) {
        self.0.start = HEADROOM as u32;
        self.0.len = bytes.len() as u32;
        self.0.data[HEADROOM..HEADROOM + bytes.len()].copy_from_slice(bytes);
    }
}

impl Frame for BenchFrame {
    #[inline]
    fn bytes(&self) -> &[u8] {
        let (start, len) = (self.0.start as usize, self.0.len as usize);
        &self.0.data[start..start + len]
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        let (start, len) = (self.0.start as usize, self.0.len as usize);
        &mut self.0.data[start..start + len]
    }

    fn push_front(&mut self, n: usize) -> bool {
        let room = n <= self.0.start as usize;
        if room {
            self.0.start -= n as u32;
            self.0.len += n as u32;
        }
        room
    }

    fn pull_front(&mut self, n: usize) {
        self.0.start += n as u32;
        self.0.len -= n as u32;
    }

    fn set_len(&mut self, len: usize) -> bool {
        let room = self.0.start as usize + len <= HEADROOM + ROOM;
        if room {
            self.0.len = len as u32;
        }
        room
    }

    #[inline]
    fn rx_checksum(&self) -> RxChecksum {
        RxChecksum {
            l3_good: self.0.l3_good,
            ..RxChecksum::default()
        }
    }

    /// None: buffers go round and round, and nothing that is measured makes frames.
    fn another(&self, _: usize) -> Option<BenchFrame> {
        None
    }
}

/// Nothing that is measured makes frames.
pub(crate) struct NoPool;

impl FramePool for NoPool {
    type Frame = BenchFrame;

    fn alloc(&mut self, _: usize) -> Option<BenchFrame> {
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
