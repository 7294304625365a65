//! A simulated NIC: ports, queues and a way of spreading frames, all in memory.
//!
//! The very same worker that runs on DPDK runs on it in `cargo test`: many cores in one thread,
//! in any order that a seed says. A pool counts the frames that live, so leaks show.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Burst, Frame, FramePool, PortQueue, RxChecksum};
use crate::packet::{self, Parsed};
use crate::steer::Steer;

/// Room in front of a frame, as a mempool's mbufs have it.
const HEADROOM: usize = 128;
/// The longest frame that fits a buffer, unless a pool says otherwise.
const ROOM: usize = 2048;

/// A frame in ordinary memory.
#[derive(Debug)]
pub struct SimFrame {
    buffer: Box<[u8]>,
    start: usize,
    len: usize,
    checksum: RxChecksum,
    live: Arc<AtomicUsize>,
}

impl Drop for SimFrame {
    fn drop(&mut self) {
        self.live.fetch_sub(1, Relaxed);
    }
}

impl Frame for SimFrame {
    fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.start + self.len]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..self.start + self.len]
    }

    fn push_front(&mut self, n: usize) -> bool {
        let room = n <= self.start;
        if room {
            self.start -= n;
            self.len += n;
        }
        room
    }

    fn pull_front(&mut self, n: usize) {
        assert!(
            n <= self.len,
            "{n} bytes pulled off a frame of {}",
            self.len
        );
        self.start += n;
        self.len -= n;
    }

    fn set_len(&mut self, len: usize) -> bool {
        let room = self.start + len <= self.buffer.len();
        if room {
            self.len = len;
        }
        room
    }

    fn rx_checksum(&self) -> RxChecksum {
        self.checksum
    }

    fn another(&self, len: usize) -> Option<SimFrame> {
        let live = Arc::clone(&self.live);
        let room = self.buffer.len() - HEADROOM;
        SimPool { live, room }.alloc(len)
    }
}

/// Makes frames and counts those that live.
#[derive(Debug, Clone)]
pub struct SimPool {
    live: Arc<AtomicUsize>,
    room: usize,
}

impl Default for SimPool {
    fn default() -> SimPool {
        SimPool::with_room(ROOM)
    }
}

impl SimPool {
    /// A pool whose frames have room for `room` bytes.
    #[must_use]
    pub fn with_room(room: usize) -> SimPool {
        let live = Arc::default();
        SimPool { live, room }
    }

    /// The longest frame that fits, bytes.
    #[must_use]
    pub fn room(&self) -> usize {
        self.room
    }

    /// A frame with these bytes, at most [`SimPool::room`].
    #[must_use]
    pub fn frame(&self, bytes: &[u8]) -> SimFrame {
        self.frame_with(bytes, RxChecksum::default())
    }

    /// A frame with these bytes, of which the port says this.
    #[must_use]
    pub fn frame_with(&self, bytes: &[u8], checksum: RxChecksum) -> SimFrame {
        let mut buffer = vec![0u8; HEADROOM + self.room].into_boxed_slice();
        buffer[HEADROOM..HEADROOM + bytes.len()].copy_from_slice(bytes);
        self.live.fetch_add(1, Relaxed);
        let live = Arc::clone(&self.live);
        SimFrame {
            buffer,
            start: HEADROOM,
            len: bytes.len(),
            checksum,
            live,
        }
    }

    /// Frames that live.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live.load(Relaxed)
    }
}

impl FramePool for SimPool {
    type Frame = SimFrame;

    fn alloc(&mut self, len: usize) -> Option<SimFrame> {
        (len <= self.room).then(|| self.frame(&vec![0; len]))
    }
}

/// How a simulated port spreads frames over its receive queues.
#[derive(Debug, Clone)]
pub enum Spread {
    /// By the ownership function, as a NIC with the process's RSS key and map does.
    Rss(Steer),
    /// Wherever the caller says: any packet to any queue.
    Anywhere,
}

type Queue = Arc<Mutex<VecDeque<SimFrame>>>;

fn locked<T>(queue: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The wire's side of a simulated port.
#[derive(Debug)]
pub struct SimPort {
    rx: Vec<Queue>,
    tx: Queue,
    spread: Spread,
}

impl SimPort {
    /// A port with `rx_queues` and `tx_queues` queues, and the ends of `workers` workers:
    /// worker *i* polls receive queue *i* and has a transmit queue, where there is one.
    #[must_use]
    pub fn new(
        workers: usize,
        rx_queues: usize,
        tx_queues: usize,
        spread: Spread,
    ) -> (SimPort, Vec<SimQueue>) {
        let rx: Vec<Queue> = (0..rx_queues.min(workers))
            .map(|_| Queue::default())
            .collect();
        let tx = Queue::default();
        let ends = (0..workers)
            .map(|w| SimQueue {
                rx: rx.get(w).cloned(),
                tx: (w < tx_queues).then(|| Arc::clone(&tx)),
                tx_room: usize::MAX,
            })
            .collect();
        (SimPort { rx, tx, spread }, ends)
    }

    /// Puts a frame on a receive queue: the one that RSS says, else queue `any` modulo their
    /// number.
    pub fn deliver(&self, frame: SimFrame, any: usize) {
        let queue = match (&self.spread, packet::parse(frame.bytes(), true)) {
            (Spread::Rss(steer), Ok(Parsed::Flow(f))) => usize::from(steer.owner(&f.key).0),
            (Spread::Rss(steer), Ok(Parsed::Flow6(f))) => usize::from(steer.owner(&f.key).0),
            (Spread::Rss(_), _) => 0,
            (Spread::Anywhere, _) => any,
        };
        locked(&self.rx[queue % self.rx.len()]).push_back(frame);
    }

    /// Takes the oldest frame that was sent out of the port.
    #[must_use]
    pub fn sent(&self) -> Option<SimFrame> {
        locked(&self.tx).pop_front()
    }
}

/// A worker's end of a simulated port.
#[derive(Debug)]
pub struct SimQueue {
    rx: Option<Queue>,
    tx: Option<Queue>,
    /// Frames that the transmit side still takes: a full queue, when a test wants one.
    pub tx_room: usize,
}

impl PortQueue for SimQueue {
    type Frame = SimFrame;

    fn rx_burst(&mut self, out: &mut Burst<SimFrame>) {
        if let Some(rx) = &self.rx {
            let mut rx = locked(rx);
            while !out.is_full()
                && let Some(frame) = rx.pop_front()
            {
                out.push(frame);
            }
        }
    }

    fn tx_burst(&mut self, frames: &mut Burst<SimFrame>) {
        if let Some(tx) = &self.tx {
            let n = frames.len().min(self.tx_room);
            self.tx_room -= n;
            locked(tx).extend(frames.drain(..n));
        }
    }

    fn has_rx(&self) -> bool {
        self.rx.is_some()
    }

    fn has_tx(&self) -> bool {
        self.tx.is_some()
    }
}
