//! The stages that look at a whole burst, so that 32 packets wait for memory together.
#![forbid(unsafe_code)]

use super::family::Family;
use super::punt::{Punt, punt_class};
use crate::conn::{ConnTable, Guess};
use crate::counters::DropReason;
use crate::cpu::prefetch;
use crate::io::{BURST, Burst, Frame, PortQueue};
use crate::packet::{self, Flow, Key, Key4, Key6, Kind, checksum, common, eth};
use crate::steer::Alignment;
use crate::types::{CoreId, Mac, Tick};
use crate::worker::Worker;

/// How a burst came to this worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// From the port's receive queue: it may be anybody's.
    Wire,
    /// From another worker, who found that it is ours.
    Handed,
}

/// What the first stage found out about a frame.
#[derive(Debug, Clone, Copy)]
enum Look {
    Drop(DropReason),
    Kernel(Punt),
    Away(CoreId),
    Flow4,
    Flow6,
    /// A fragment, or ICMP.
    Odd(Kind),
}

/// What the stages find out about a burst, column by column; reused for each.
pub(crate) struct Columns {
    flows: [Flow; BURST],
    hashes: [u64; BURST],
    guesses: [Guess; BURST],
    /// Of frames that are no common packets.
    looks: [Look; BURST],
    flows6: [Flow<Key6>; BURST],
}

impl Default for Columns {
    fn default() -> Self {
        Columns {
            flows: [Flow::NONE; BURST],
            hashes: [0; BURST],
            guesses: [Guess::NONE; BURST],
            looks: [Look::Flow4; BURST],
            flows6: [Flow::NONE6; BURST],
        }
    }
}

/// What the first stage has to know of the port.
#[derive(Clone, Copy)]
struct Door {
    mac: Mac,
    /// Frames may be another worker's.
    strays: bool,
    /// See [`crate::worker::WorkerPort::fill_checksums`].
    fills: bool,
}

impl<Q: PortQueue> Worker<Q> {
    /// Takes a burst that came in on port `lane` through all stages.
    pub(crate) fn process(
        &mut self,
        lane: usize,
        burst: Burst<Q::Frame>,
        arrival: Arrival,
        now: Tick,
    ) {
        // Taken out for the time of the burst, so that the worker can be borrowed beside it.
        if let Some(mut columns) = self.columns.take() {
            self.process_in(&mut columns, lane, burst, arrival, now);
            self.columns = Some(columns);
        }
    }

    fn process_in(
        &mut self,
        c: &mut Columns,
        lane: usize,
        mut burst: Burst<Q::Frame>,
        arrival: Arrival,
        now: Tick,
    ) {
        let mut octets = 0;
        for frame in &burst {
            let bytes = frame.bytes();
            prefetch(bytes);
            octets += bytes.len() as u64;
        }
        if arrival == Arrival::Wire {
            self.count_received(lane, burst.len() as u64, octets);
        }
        let port = &self.lanes[lane].port;
        let unaligned = arrival == Arrival::Wire && port.alignment == Alignment::Unaligned;
        let door = Door {
            mac: port.mac,
            strays: unaligned && self.steer.workers() > 1,
            fills: port.fill_checksums,
        };
        // The frames that belong to flows, by family: a bit for each.
        let (mut v4, mut v6) = (0u32, 0u32);
        let places = c.flows.iter_mut().zip(&mut c.hashes);
        for ((i, frame), (flow, hash)) in burst.iter_mut().enumerate().zip(places) {
            if is_common(door, flow, frame) {
                if door.strays {
                    let owner = self.steer.owner(&flow.key);
                    if owner != self.steer.me() {
                        c.looks[i] = Look::Away(owner);
                        continue;
                    }
                }
                *hash = self.sides.v4.conns.hash(&flow.key);
                v4 |= 1 << i;
                continue;
            }
            let flow6 = &mut c.flows6[i];
            c.looks[i] = self.look(flow, flow6, door, frame);
            match c.looks[i] {
                Look::Flow4 => {
                    *hash = self.sides.v4.conns.hash(&flow.key);
                    v4 |= 1 << i;
                }
                Look::Flow6 => {
                    *hash = self.sides.v6.conns.hash(&flow6.key);
                    v6 |= 1 << i;
                }
                _ => {}
            }
        }
        guess::<Key4>(&self.sides.v4.conns, v4, &c.hashes, &mut c.guesses);
        if v6 != 0 {
            guess::<Key6>(&self.sides.v6.conns, v6, &c.hashes, &mut c.guesses);
        }
        for (i, frame) in burst.drain(..).enumerate() {
            let guessed = (c.guesses[i], c.hashes[i]);
            if v4 >> i & 1 != 0 {
                self.conclude(lane, frame, &c.flows[i], guessed, arrival, now);
                continue;
            }
            match c.looks[i] {
                Look::Flow4 | Look::Flow6 => {
                    self.conclude6(lane, frame, &c.flows6[i], guessed, arrival, now);
                }
                Look::Drop(reason) => self.counters.dropped(reason),
                Look::Kernel(class) => self.punt(lane, frame, class, now),
                Look::Away(core) => self.away(core, lane, frame),
                Look::Odd(kind) => self.odd(lane, frame, kind, arrival, now),
            }
        }
    }

    fn count_received(&self, lane: usize, packets: u64, octets: u64) {
        let port = &self.counters.ports[lane];
        port.rx_packets.add(packets);
        port.rx_bytes.add(octets);
        self.counters.rx_packets.add(packets);
        self.counters.rx_bytes.add(octets);
    }

    /// Stage one: everything that the frame alone can tell.
    #[inline(never)]
    fn look(
        &mut self,
        flow: &mut Flow,
        flow6: &mut Flow<Key6>,
        door: Door,
        frame: &mut Q::Frame,
    ) -> Look {
        let offload = frame.rx_checksum();
        if offload.l3_bad {
            return Look::Drop(DropReason::BadIpChecksum);
        }
        let bytes = frame.bytes();
        let kind = match packet::parse_into(flow, flow6, bytes, offload.l3_good) {
            Ok(kind) => kind,
            Err(reason) => return Look::Drop(reason),
        };
        let dst = eth::dst(bytes);
        if dst != door.mac {
            return match dst.is_group() {
                true => Look::Kernel(punt_class(bytes)),
                false => Look::Drop(DropReason::NotOurMac),
            };
        }
        let look = match kind {
            Kind::Flow4 => Look::Flow4,
            Kind::Flow6 => Look::Flow6,
            Kind::Other => return Look::Kernel(punt_class(bytes)),
            odd => return Look::Odd(odd),
        };
        if offload.l4_bad {
            return Look::Drop(DropReason::BadL4Checksum);
        }
        if door.fills || offload.l4_partial {
            let filled = match kind {
                Kind::Flow4 => complete_partial(frame.bytes_mut(), flow),
                _ => complete_partial(frame.bytes_mut(), flow6),
            };
            self.counters.checksums_filled.add(u64::from(filled));
        }
        if door.strays {
            let owner = match kind {
                Kind::Flow4 => self.steer.owner(&flow.key),
                _ => self.steer.owner(&flow6.key),
            };
            if owner != self.steer.me() {
                return Look::Away(owner);
            }
        }
        look
    }
}

/// Whether a frame is a common packet for us, with nothing to be done before it is looked up.
#[inline(always)]
fn is_common<F: Frame>(door: Door, flow: &mut Flow, frame: &F) -> bool {
    let offload = frame.rx_checksum();
    offload.is_ordinary()
        && !door.fills
        && common::read(flow, frame.bytes(), door.mac, offload.l3_good)
}

/// Stage two for the frames whose bits are set: their index lines, then first guesses, whose
/// entries start loading.
#[inline(always)]
fn guess<K: Family>(
    conns: &ConnTable<K>,
    frames: u32,
    hashes: &[u64; BURST],
    guesses: &mut [Guess; BURST],
) {
    // In a loop of its own: a prefetch waits for its page walk before it retires, and only
    // instructions close behind it overlap with that (1 M flows: 80 -> 70 ns a packet).
    let mut left = frames;
    while left != 0 {
        conns.prefetch_index(hashes[next(&mut left)]);
    }
    let (mut left, mut spilled) = (frames, 0u32);
    while left != 0 {
        let i = next(&mut left);
        match conns.guess(hashes[i]) {
            Some(guess) => guesses[i] = guess,
            None => spilled |= 1 << i,
        }
    }
    while spilled != 0 {
        let i = next(&mut spilled);
        guesses[i] = conns.guess_spilled(hashes[i]);
    }
}

/// Takes the lowest bit out of `bits`, which are not 0; its place.
#[inline(always)]
fn next(bits: &mut u32) -> usize {
    let place = bits.trailing_zeros() as usize % BURST;
    *bits &= *bits - 1;
    place
}

/// Completes a checksum that is partial; whether it was.
#[cold]
fn complete_partial<K: Key>(frame: &mut [u8], flow: &Flow<K>) -> bool {
    let (l4, end) = (
        usize::from(flow.l4),
        eth::HEADER_LEN + usize::from(flow.ip_len),
    );
    checksum::complete_partial(frame, flow.key.proto(), l4, end)
}

const _: () = assert!(BURST == u32::BITS as usize);
