//! The stages that look at a whole burst, so that 32 packets wait for memory together.
#![forbid(unsafe_code)]

use super::express::Express;
use super::family::Family;
use super::punt::{Punt, punt_class};
use crate::conn::{ConnTable, Guess};
use crate::counters::DropReason;
use crate::cpu::prefetch;
use crate::io::{BURST, Burst, Frame, PortQueue};
use crate::packet::{self, Flow, Key, Key6, Kind, checksum, common, eth};
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
    /// A common packet: [`packet::common`].
    Common,
    /// Another IPv4 packet of a flow.
    Flow4,
    Flow6,
    Drop(DropReason),
    Kernel(Punt),
    Away(CoreId),
    /// A fragment, or ICMP.
    Odd(Kind),
}

impl Look {
    #[inline(always)]
    fn is_flow4(self) -> bool {
        matches!(self, Look::Common | Look::Flow4)
    }

    #[inline(always)]
    fn is_flow6(self) -> bool {
        matches!(self, Look::Flow6)
    }
}

/// What the stages find out about one frame.
#[derive(Debug, Clone, Copy)]
struct Finding {
    /// Of an IPv4 packet.
    flow: Flow,
    /// Of a packet's key.
    hash: u64,
    guess: Guess,
    look: Look,
}

/// What they find out about a burst; reused for each.
pub(crate) struct Findings {
    of: [Finding; BURST],
    /// Apart, for IPv4 has no use for their room.
    flows6: [Flow<Key6>; BURST],
}

impl Default for Findings {
    fn default() -> Self {
        let none = Finding {
            flow: Flow::NONE,
            hash: 0,
            guess: Guess::NONE,
            look: Look::Flow4,
        };
        Findings {
            of: [none; BURST],
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
    /// Takes a burst that came in on port `lane` through all stages. Each is a function of its
    /// own, not to be joined with the next: so each has the registers for itself.
    pub(crate) fn process(
        &mut self,
        lane: usize,
        mut burst: Burst<Q::Frame>,
        arrival: Arrival,
        now: Tick,
    ) {
        // Taken out for the time of the burst, so that the worker can be borrowed beside it.
        let Some(mut findings) = self.findings.take() else {
            return;
        };
        let any6 = self.look_at(lane, &mut burst, &mut findings, arrival);
        let of = &mut findings.of[..burst.len()];
        guess(&self.sides.v4.conns, Look::is_flow4, of);
        if any6 {
            guess(&self.sides.v6.conns, Look::is_flow6, of);
        }
        self.conclude_all(lane, &mut burst, &findings, arrival, now);
        self.findings = Some(findings);
    }

    /// Stage one, and each key's hash; whether there is any packet of an IPv6 flow.
    #[inline(never)]
    fn look_at(
        &mut self,
        lane: usize,
        burst: &mut Burst<Q::Frame>,
        findings: &mut Findings,
        arrival: Arrival,
    ) -> bool {
        let mut octets = 0;
        for frame in &*burst {
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
        let Findings { of, flows6 } = findings;
        let mut any6 = false;
        for (i, (frame, found)) in burst.iter_mut().zip(&mut *of).enumerate() {
            if is_common(door, &mut found.flow, frame) {
                found.look = Look::Common;
                if door.strays {
                    let owner = self.steer.owner(&found.flow.key);
                    if owner != self.steer.me() {
                        found.look = Look::Away(owner);
                        continue;
                    }
                }
                found.hash = self.sides.v4.conns.hash(&found.flow.key);
                continue;
            }
            found.look = self.look(&mut found.flow, &mut flows6[i], door, frame);
            match found.look {
                Look::Flow4 => found.hash = self.sides.v4.conns.hash(&found.flow.key),
                Look::Flow6 => {
                    found.hash = self.sides.v6.conns.hash(&flows6[i].key);
                    any6 = true;
                }
                _ => {}
            }
        }
        any6
    }

    /// Stage three.
    #[inline(never)]
    fn conclude_all(
        &mut self,
        lane: usize,
        burst: &mut Burst<Q::Frame>,
        findings: &Findings,
        arrival: Arrival,
        now: Tick,
    ) {
        for (i, mut frame) in burst.drain(..).enumerate() {
            let found = &findings.of[i];
            let express = match found.look {
                Look::Common => self.express(&mut frame, &found.flow, found.guess, now),
                _ => Express::No,
            };
            match express {
                Express::Ready { lane, len } => self.transmit_of(lane, frame, len),
                Express::Aside(hit) => self.aside(lane, frame, &found.flow, hit, now),
                Express::No => self.conclude_found(lane, frame, (findings, i), arrival, now),
            }
        }
    }

    /// Stage three for what does not go by express.
    #[inline(never)]
    fn conclude_found(
        &mut self,
        lane: usize,
        frame: Q::Frame,
        (findings, i): (&Findings, usize),
        arrival: Arrival,
        now: Tick,
    ) {
        let found = &findings.of[i];
        let guessed = (found.guess, found.hash);
        match found.look {
            Look::Common | Look::Flow4 => {
                self.conclude(lane, frame, &found.flow, guessed, arrival, now);
            }
            Look::Flow6 => {
                let flow = &findings.flows6[i];
                self.conclude6(lane, frame, flow, guessed, arrival, now);
            }
            Look::Drop(reason) => self.counters.dropped(reason),
            Look::Kernel(class) => self.punt(lane, frame, class, now),
            Look::Away(core) => self.away(core, lane, frame),
            Look::Odd(kind) => self.odd(lane, frame, kind, arrival, now),
        }
    }

    /// Stage three for IPv6.
    fn conclude6(
        &mut self,
        lane: usize,
        mut frame: Q::Frame,
        flow: &Flow<Key6>,
        (guess, hash): (Guess, u64),
        arrival: Arrival,
        now: Tick,
    ) {
        match self.express(&mut frame, flow, guess, now) {
            Express::Ready { lane, len } => self.transmit_of(lane, frame, len),
            Express::Aside(hit) => self.aside(lane, frame, flow, hit, now),
            Express::No => self.conclude(lane, frame, flow, (guess, hash), arrival, now),
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

/// Stage two for the frames that are `ours`: their index lines, then first guesses, whose entries
/// start loading.
#[inline(never)]
fn guess<K: Family>(conns: &ConnTable<K>, ours: impl Fn(Look) -> bool, of: &mut [Finding]) {
    // In a loop of its own: a prefetch waits for its page walk before it retires, and only
    // instructions close behind it overlap with that (1 M flows: 80 -> 70 ns a packet).
    for found in &*of {
        if ours(found.look) {
            conns.prefetch_index(found.hash);
        }
    }
    let mut spilled = false;
    for found in &mut *of {
        if !ours(found.look) {
            continue;
        }
        found.guess = conns.guess(found.hash);
        spilled |= found.guess == Guess::NONE;
    }
    if spilled {
        let without = |found: &&mut Finding| ours(found.look) && found.guess == Guess::NONE;
        for found in of.iter_mut().filter(without) {
            found.guess = conns.guess_spilled(found.hash);
        }
    }
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
