//! One worker between a client side and a server side, and flows through it.
//!
//! ```text
//!  clients -- wan [worker, VIP 10.0.0.10:80] lan -- 8 servers 10.1.0.11-18:8080
//! ```

mod topology;

use std::sync::Arc;

use rtrb::{Consumer, Producer, RingBuffer};
use weir_dataplane::command::{Command, Event};
use weir_dataplane::conn::Pages;
use weir_dataplane::counters::WorkerCounters;
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::io::{Frame, FramePool};
use weir_dataplane::packet::build::Packet;
use weir_dataplane::packet::tcp::flags::{ACK, SYN};
use weir_dataplane::packet::{Key, Key4, Parsed, parse};
use weir_dataplane::service::{Policy, Snapshot};
use weir_dataplane::steer::{
    Alignment, KernelEnd, Links, MICROSOFT_KEY, Steer, Toeplitz, kernel_rings, mesh,
};
use weir_dataplane::worker::{Setup, Worker, WorkerPort};
use weir_dataplane::{CoreId, PortId, Proto, Tick};

use self::topology::LAN;
pub(crate) use self::topology::{MACS, PEER, VIP, WAN, client, fib, neighbours, snapshot};
use crate::port::{BenchFrame, BenchQueue, Wire, buffers, port};

/// Buffers in flight: a NIC's ring and a little more, 16 MB of memory.
pub(crate) const BUFFERS: usize = 8192;
/// Frames that the worker may make between two collections.
const MADE: usize = 512;

/// Which side a frame arrives on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// A worker's place among the workers.
pub(crate) struct Seat {
    pub(crate) steer: Steer,
    pub(crate) links: Links<BenchFrame>,
    pub(crate) alignment: Alignment,
    pub(crate) mode: ForwardMode,
}

/// The worker and what surrounds it.
pub(crate) struct Testbed {
    pub(crate) worker: Worker<BenchQueue>,
    mode: ForwardMode,
    pub(crate) counters: Arc<WorkerCounters>,
    pub(crate) now: Tick,
    wires: [Wire; 2],
    spare: Vec<BenchFrame>,
    say: Producer<Command>,
    /// Buffers for frames that the worker makes.
    refill: Producer<BenchFrame>,
    /// Kept so that the rings stay open.
    _rest: (Consumer<Event>, KernelEnd<BenchFrame>),
}

/// Where the worker takes buffers for the frames that it makes: as many as the testbed last put in.
struct Refilled(Consumer<BenchFrame>);

impl FramePool for Refilled {
    type Frame = BenchFrame;

    fn alloc(&mut self, len: usize) -> Option<BenchFrame> {
        const EMPTY: [u8; 256] = [0; 256];
        let mut frame = self.0.pop().ok()?;
        frame.fill(EMPTY.get(..len)?);
        Some(frame)
    }
}

impl Testbed {
    /// A FULL-NAT worker with room for `connections`; closing states last `closing` seconds.
    pub(crate) fn new(connections: u32, closing: u32) -> anyhow::Result<Testbed> {
        Testbed::of(ForwardMode::fullnat, connections, closing)
    }

    /// As `new`, with servers reached by `mode`.
    pub(crate) fn of(mode: ForwardMode, connections: u32, closing: u32) -> anyhow::Result<Testbed> {
        let links = mesh(1, 8)
            .pop()
            .ok_or_else(|| anyhow::anyhow!("no links"))?;
        let toeplitz = Arc::new(Toeplitz::new(MICROSOFT_KEY));
        let seat = Seat {
            steer: Steer::new(CoreId(0), 1, toeplitz),
            links,
            alignment: Alignment::Aligned,
            mode,
        };
        Testbed::at(seat, connections, closing)
    }

    /// As `new`, for one of several workers.
    pub(crate) fn at(seat: Seat, connections: u32, closing: u32) -> anyhow::Result<Testbed> {
        let counters = Arc::new(WorkerCounters::new(2));
        let snapshot = snapshot(
            connections,
            closing,
            seat.mode,
            Policy::default(),
            &counters,
        );
        // Of several workers each sends what it has in a turn, of its own packets or those handed over.
        let full = if seat.steer.workers() > 1 {
            1.0 / 8.0
        } else {
            1.0 / 2.0
        };
        let ((wan, wan_end), (lan, lan_end)) = (port(BUFFERS, full), port(BUFFERS, full));
        let (kernel, twin) = kernel_rings(256);
        let (mut say, commands) = RingBuffer::new(64);
        let (events, hear) = RingBuffer::new(64);
        let (mut refill, pool) = RingBuffer::new(MADE);
        for buffer in buffers(MADE)? {
            refill.push(buffer)?;
        }
        for update in neighbours(LAN) {
            say.push(Command::Neighbour(update))?;
        }
        let now = Tick(0);
        let end = |id: PortId, queue| WorkerPort {
            id,
            queue,
            mac: MACS[usize::from(id.0)],
            mtu: 1500,
            alignment: seat.alignment,
            tx_queues: seat.steer.workers(),
            fill_checksums: false,
        };
        let worker = Worker::new(Setup {
            ports: vec![end(WAN, wan_end), end(LAN, lan_end)],
            steer: seat.steer,
            pool: Box::new(Refilled(pool)),
            links: seat.links,
            kernel,
            commands,
            events,
            counters: Arc::clone(&counters),
            peers: vec![],
            max_connections: connections,
            max_connections6: 1,
            pages: Pages::Huge,
            secret: [0x5eed, 2, 3, 4],
            snapshot: Arc::new(snapshot),
            fib: Arc::new(fib(LAN)),
            now,
        })?;
        let mut t = Testbed {
            worker,
            counters,
            mode: seat.mode,
            now,
            wires: [wan, lan],
            spare: buffers(BUFFERS)?,
            say,
            refill,
            _rest: (hear, twin),
        };
        for _ in 0..8 {
            t.worker.poll_once(now);
        }
        Ok(t)
    }

    /// Gives the worker another snapshot.
    ///
    /// # Errors
    /// It has not taken the last ones.
    pub(crate) fn follow(&mut self, snapshot: Snapshot) -> anyhow::Result<()> {
        self.say.push(Command::Snapshot(Arc::new(snapshot)))?;
        self.worker.poll_once(self.now);
        Ok(())
    }

    /// Puts a frame on a side's receive ring; false when no buffer or room is left.
    pub(crate) fn deliver(&mut self, side: Side, bytes: &[u8]) -> bool {
        let wire = &mut self.wires[side as usize];
        let Some(mut frame) = self.spare.pop() else {
            return false;
        };
        frame.fill(bytes);
        let refused = wire.deliver(frame);
        let delivered = refused.is_none();
        self.spare.extend(refused);
        delivered
    }

    /// Hands over what does not fill a burst: to be done before the clock runs.
    pub(crate) fn flush(&mut self) {
        for wire in &mut self.wires {
            wire.flush();
        }
    }

    /// Lets the worker take all that was delivered. Returns its turns.
    pub(crate) fn drain(&mut self) -> u64 {
        self.flush();
        let mut turns = 0;
        while self.worker.poll_once(self.now) > 0 {
            turns += 1;
        }
        turns
    }

    /// Takes what was sent, each frame's bytes to `each`, and the buffers back.
    pub(crate) fn collect(&mut self, mut each: impl FnMut(Side, &[u8])) -> usize {
        let mut n = 0;
        for (side, wire) in [Side::Client, Side::Server]
            .into_iter()
            .zip(&mut self.wires)
        {
            while let Some(frames) = wire.sent() {
                frames.iter().for_each(|frame| each(side, frame.bytes()));
                n += frames.len();
                self.spare.extend(frames);
            }
        }
        // What the worker made is more than was delivered.
        while self.spare.len() > BUFFERS
            && !self.refill.is_full()
            && let Some(buffer) = self.spare.pop()
        {
            let _ = self.refill.push(buffer);
        }
        // Frames that were dropped freed their buffers: make new ones, outside any timing.
        if self.spare.len() < BUFFERS {
            let lost = BUFFERS - self.spare.len();
            self.spare.extend(buffers(lost).into_iter().flatten());
        }
        n
    }

    /// Opens connections `0..flows` with full handshakes, as far as they pass the director; what
    /// the servers' packets carry.
    pub(crate) fn open(&mut self, flows: u64) -> anyhow::Result<Vec<(u64, u32)>> {
        let one_way = self.mode.is_one_way();
        let mut keys = vec![(0, 0); flows as usize];
        let mut first = 0;
        while first < flows {
            let batch = (flows - first).min(BUFFERS as u64 / 2);
            let all = first..first + batch;
            all.clone().for_each(|n| {
                self.deliver(Side::Client, &to_vip(n, SYN, 60));
            });
            self.drain();
            let mut at = first;
            self.collect(|side, bytes| {
                if let (Side::Server, Ok(Parsed::Flow(flow))) = (side, parse(bytes, true)) {
                    let reply = flow.key.reversed();
                    keys[at as usize] = (reply.addrs, reply.ports);
                }
                at += u64::from(side == Side::Server);
            });
            anyhow::ensure!(
                at == first + batch,
                "{} SYNs were not forwarded",
                first + batch - at
            );
            let answered = if one_way { first } else { at };
            for &key in &keys[first as usize..answered as usize] {
                self.deliver(Side::Server, &from_server(key, SYN | ACK, 60));
            }
            self.drain();
            self.collect(|_, _| {});
            all.for_each(|n| {
                self.deliver(Side::Client, &to_vip(n, ACK, 60));
            });
            self.drain();
            self.collect(|_, _| {});
            first += batch;
        }
        Ok(keys)
    }
}

fn padded(packet: Packet, len: usize) -> Vec<u8> {
    let header = 14 + 20 + 20;
    let mut bytes = packet
        .payload(&vec![0; len.saturating_sub(header.max(60))])
        .build();
    bytes.resize(bytes.len().max(60), 0);
    bytes
}

/// A packet of client `n`, `len` bytes without FCS.
pub(crate) fn to_vip(n: u64, flags: u8, len: usize) -> Vec<u8> {
    padded(Packet::tcp(client(n), VIP, flags).macs(PEER, MACS[0]), len)
}

/// A packet of a server with this key.
pub(crate) fn from_server((addrs, ports): (u64, u32), flags: u8, len: usize) -> Vec<u8> {
    let key = Key4 {
        addrs,
        ports,
        proto: Proto::Tcp,
    };
    padded(
        Packet::tcp(key.source4(), key.destination4(), flags).macs(PEER, MACS[1]),
        len,
    )
}

/// Small and fast randomness: splitmix64.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % n
    }

    /// As `below` for `n` up to 2^32, without a division.
    #[cfg(feature = "dpdk")]
    #[inline]
    pub(crate) fn quick(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((z >> 32) * n) >> 32
    }
}
