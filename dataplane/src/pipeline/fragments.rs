//! Fragments on their way: a datagram's home core learns from its first fragment which flow it
//! is of, and that flow's owner forwards every part on its own.
//!
//! ```text
//!  any core -- hash(source, destination, identification) --> home: store (crate::frag)
//!  home     -- the first fragment's five-tuple ----------->  owner: connection, rewrite, out
//! ```
//! Nothing is put together (an SCTP packet's parts wait for each other, see [`crate::frag`]). Only the first part has a transport header to rewrite; all get the
//! same addresses, and with FULL-NAT the same new identification: behind one local address two
//! clients' datagrams would collide otherwise.
#![forbid(unsafe_code)]

use super::family::Family;
use super::open::{First, Opened, Refusal};
use super::punt::punt_class;
use super::{Arrival, INBOUND, OUTBOUND};
use crate::conn::Hit;
use crate::conn::entry::Flags;
use crate::conn::state::Direction;
use crate::counters::DropReason;
use crate::forward::Part;
use crate::frag::{Arrived, FRAGMENTS_HELD, Piece};
use crate::io::{Frame, PortQueue};
use crate::packet::icmp::Echo;
use crate::packet::{self, Flow, Key6, Kind, eth, ipv4, ipv6, sctp, tcp};
use crate::steer::{FragmentOf, Message, Progress};
use crate::types::{Proto, Tick};
use crate::worker::Worker;

/// Datagrams that one worker remembers.
pub(crate) const DATAGRAMS: u16 = 2048;
/// Datagrams looked at in one turn for whether they are too old.
pub(crate) const EXPIRED_A_TURN: usize = 8;

impl<Q: PortQueue> Worker<Q> {
    /// A part of a datagram.
    #[cold]
    pub(super) fn fragment(
        &mut self,
        lane: usize,
        frame: Q::Frame,
        kind: Kind,
        arrival: Arrival,
        now: Tick,
    ) {
        let piece = match piece(frame.bytes(), kind) {
            Ok(piece) => piece,
            Err(reason) => return self.counters.dropped(reason),
        };
        if arrival == Arrival::Wire {
            let words = |a: u128| ((a >> 64) as u64, a as u64);
            let ((a, b), (c, d)) = (words(piece.key.src), words(piece.key.dst));
            let hash = self.steer.toeplitz().hash6(&[a, b, c, d], piece.key.id);
            let home = self.steer.owner_of_hash(hash);
            if home != self.steer.me() {
                return self.away(home, lane, frame);
            }
        }
        let counters = &self.counters;
        let mut lost = |reason| counters.dropped(reason);
        let port = self.lanes[lane].port.id;
        let arrived = self.fragments.arrive(&piece, (port, frame), now, &mut lost);
        match arrived {
            Arrived::Gone => {}
            Arrived::Follows((_, frame), of) => self.fragment_to(lane, frame, of, now),
            Arrived::All((_, frame), len) => self.together(lane, frame, &piece, kind, len, now),
            Arrived::First((_, frame)) => {
                let of = self.flow_of(frame.bytes(), kind, 0);
                let mut released = arrayvec::ArrayVec::<_, FRAGMENTS_HELD>::new();
                let counters = &self.counters;
                let mut lost = |reason| counters.dropped(reason);
                self.fragments
                    .decide(&piece.key, Ok(of), now, &mut lost, |f| released.push(f));
                self.fragment_to(lane, frame, of, now);
                for (port, frame) in released {
                    self.fragment_to(usize::from(port.0), frame, of, now);
                }
            }
        }
        self.note_held();
    }

    /// The last part that a datagram waited for, of `len` bytes in all.
    fn together(
        &mut self,
        lane: usize,
        frame: Q::Frame,
        piece: &Piece,
        kind: Kind,
        len: u16,
        now: Tick,
    ) {
        let port = self.lanes[lane].port.id;
        let mut parts = arrayvec::ArrayVec::<_, FRAGMENTS_HELD>::new();
        self.fragments.take(&piece.key, |f| parts.push(f));
        // The first, in whatever order they came, says whose they are.
        let first = |frame: &Q::Frame| part_of(frame.bytes(), 0).is_some_and(|p| p.offset == 0);
        let held = parts.iter().map(|(_, f)| f).find(|f| first(f));
        let of = self.flow_of(held.unwrap_or(&frame).bytes(), kind, len);
        // A datagram has fewer parts than the store has room for, and this one was not in it.
        let _ = parts.try_push((port, frame));
        for (port, frame) in parts {
            self.fragment_to(usize::from(port.0), frame, of, now);
        }
    }

    /// What a first fragment says of its datagram, of `len` bytes if that matters.
    fn flow_of(&mut self, frame: &[u8], kind: Kind, len: u16) -> FragmentOf {
        let read = || {
            let (l4, end) = packet::upper_at(frame).ok()?;
            // The store has seen to it that the whole header is there.
            let upper = frame.get(l4..end)?;
            let proto = Proto::from_number(protocol(frame, kind)?)?;
            let ports = match proto {
                Proto::Icmp if !self.snapshot.has_snat() => return None,
                Proto::Icmp => Echo::read(protocol(frame, kind)?, upper)?.ports(),
                _ => packet::be32(upper.first_chunk::<4>()?, 0),
            };
            let says = match proto {
                Proto::Tcp => *upper.get(tcp::FLAGS_AT)?,
                Proto::Udp | Proto::Icmp => 0,
                Proto::Sctp => sctp::check(upper).ok()?.1.says(),
            };
            let (src, dst) = super::odd::addresses(frame);
            let at = |ip, port| std::net::SocketAddr::new(ip, port);
            let key = Key6::new(proto, at(src, (ports >> 16) as u16), at(dst, ports as u16));
            Some((key, says))
        };
        match read() {
            None => FragmentOf::Kernel,
            Some((key, says)) => FragmentOf::Flow {
                key,
                says,
                id: self.ids.next32(),
                len,
            },
        }
    }

    /// Takes a part to its flow's owner.
    fn fragment_to(&mut self, lane: usize, frame: Q::Frame, of: FragmentOf, now: Tick) {
        match of {
            FragmentOf::Kernel => {
                let class = punt_class(frame.bytes());
                self.punt(lane, frame, class, now);
            }
            FragmentOf::Flow { key, .. } => {
                let owner = self.steer.owner(&key);
                if owner == self.steer.me() {
                    return self.fragment_of(lane, frame, of, now);
                }
                let port = self.lanes[lane].port.id;
                self.send_errand(owner, Message::Fragment(of), Some((port, frame)));
            }
        }
    }

    /// A part of a datagram whose flow is ours.
    pub(super) fn fragment_of(&mut self, lane: usize, frame: Q::Frame, of: FragmentOf, now: Tick) {
        self.part_named(lane, frame, of, Progress::default(), now);
    }

    /// The same, of which something was asked already.
    pub(super) fn part_named(
        &mut self,
        lane: usize,
        frame: Q::Frame,
        of: FragmentOf,
        progress: Progress,
        now: Tick,
    ) {
        let FragmentOf::Flow { key, says, id, len } = of else {
            return;
        };
        let bytes = frame.bytes();
        let (Some(mut part), Ok((l4, end))) = (part_of(bytes, id), packet::upper_at(bytes)) else {
            return self.counters.dropped(DropReason::BadFragment);
        };
        part.whole = len;
        let says = match key.proto {
            Proto::Sctp if part.offset > 0 => sctp::Event::Data.says(), // its chunks are behind
            _ => says,
        };
        let flow = Flow {
            key,
            l4: l4 as u16,
            ip_len: (end - eth::HEADER_LEN) as u16,
            says,
            ttl: super::icmp::hops(bytes),
        };
        match key.unmapped() {
            Some(key) => self.part(lane, frame, &flow.with_key(key), (of, part), progress, now),
            None => self.part(lane, frame, &flow, (of, part), progress, now),
        }
    }

    fn part<K: Family>(
        &mut self,
        lane: usize,
        frame: Q::Frame,
        flow: &Flow<K>,
        (of, part): (FragmentOf, Part),
        progress: Progress,
        now: Tick,
    ) {
        let conns = &K::side(&self.sides).conns;
        if let Some(hit) = conns.lookup(conns.hash(&flow.key), &flow.key) {
            let redirected = conns.get(hit.id).redirected_to();
            self.not_needed(&progress);
            if let Some(core) = redirected {
                self.keep_redirect::<K>(hit.id, now);
                let port = self.lanes[lane].port.id;
                return self.send_errand(core, Message::Fragment(of), Some((port, frame)));
            }
            return self.carry_part(lane, frame, flow, hit, part, now);
        }
        if let Some((flow, hit)) = self.find_translated(flow) {
            self.not_needed(&progress);
            return self.carry_part(lane, frame, &flow, hit, part, now);
        }
        if let Some((owner, hit)) = self.find_answered(flow) {
            self.not_needed(&progress);
            let port = self.lanes[lane].port.id;
            return match (owner == self.steer.me(), hit) {
                (false, _) => {
                    self.send_errand(owner, Message::Fragment(of), Some((port, frame)));
                }
                (true, Some(hit)) => self.carry_part(lane, frame, flow, hit, part, now),
                (true, None) => {
                    let class = punt_class(frame.bytes());
                    self.punt(lane, frame, class, now);
                }
            };
        }
        let used = self.snapshot.address_use(flow.key.destination().ip());
        if flow.key.proto() == Proto::Sctp && (used.vip || used.local) {
            self.not_needed(&progress);
            // An INIT is alone in its packet (RFC 9260 6.10), and no link is too short for it.
            return self.counters.dropped(DropReason::NoConnection);
        }
        let dir = Direction::Inbound;
        let first = First {
            part: Some(of),
            ..self.first(lane, &frame)
        };
        let opened = match flow.key.proto() {
            // No service has echoes.
            Proto::Icmp => self.open_outward(first.port, flow, now).map(Opened::Same),
            _ => self.open(first, flow, progress, now),
        };
        match opened {
            Ok(Opened::Same(id)) => {
                self.begin_carrying::<K>(id, flow.says, now);
                self.carry_part(lane, frame, flow, Hit { id, dir }, part, now);
            }
            Ok(Opened::Translated(id)) => {
                self.begin_carrying::<Key6>(id, flow.says, now);
                let flow = flow.with_key(flow.key.widened());
                self.carry_part(lane, frame, &flow, Hit { id, dir }, part, now);
            }
            // Handshakes fit into a packet.
            Err(Refusal::Challenge(_) | Refusal::Unproven(..)) => {
                self.counters.dropped(DropReason::InvalidCookie);
            }
            // Only the first part has what an answer needs.
            Err(Refusal::NoConnection) if part.offset > 0 => {
                self.counters.dropped(DropReason::NoConnection);
            }
            Err(Refusal::Reset(reason)) if part.offset > 0 => self.counters.dropped(reason),
            other => self.go_on(lane, frame, flow, other, now),
        }
    }

    fn carry_part<K: Family>(
        &mut self,
        lane: usize,
        frame: Q::Frame,
        flow: &Flow<K>,
        hit: Hit,
        part: Part,
        now: Tick,
    ) {
        if K::side(&self.sides).conns.get(hit.id).is_let_go() {
            return self.counters.dropped(DropReason::NoConnection);
        }
        if K::side(&self.sides)
            .conns
            .get(hit.id)
            .flags()
            .has(Flags::METERED)
            && let Some(reason) = self.over_limit::<K>(hit.id, flow.ip_len, now)
        {
            return self.counters.dropped(reason);
        }
        if flow.ttl <= 1 {
            return self.ttl_expired(lane, frame, now);
        }
        if K::side(&self.sides)
            .conns
            .get(hit.id)
            .flags()
            .has(Flags::SIDE)
        {
            return self.carried_part(lane, frame, flow, hit, part, now);
        }
        match hit.dir {
            Direction::Inbound => {
                self.pass_on::<K, INBOUND>(lane, frame, flow, hit, Some(part), now);
            }
            Direction::Outbound => {
                self.pass_on::<K, OUTBOUND>(lane, frame, flow, hit, Some(part), now);
            }
        }
    }

    /// Parked frames and fragments that wait, for the books.
    pub(crate) fn note_held(&self) {
        let held = self.parking.len() + self.fragments.held() + self.proxies.frames();
        self.counters.parked.set(held as u64);
    }
}

/// Which part of which datagram a frame is.
fn piece(frame: &[u8], kind: Kind) -> Result<Piece, DropReason> {
    match kind {
        Kind::Fragment6 => {
            let headers = frame.first_chunk().ok_or(DropReason::BadIp6Header)?;
            let ip = ipv6::check(headers, frame)?;
            Piece::v6(frame, &ip).ok_or(DropReason::BadFragment)?
        }
        _ => {
            let headers = frame.first_chunk().ok_or(DropReason::BadIpHeader)?;
            Piece::v4(frame, &ipv4::check(headers, frame, true)?)
        }
    }
}

/// The datagram's protocol, as its first fragment says.
fn protocol(frame: &[u8], kind: Kind) -> Option<u8> {
    match kind {
        Kind::Fragment6 => Some(ipv6::check(frame.first_chunk()?, frame).ok()?.protocol),
        _ => frame.get(ipv4::PROTO_AT).copied(),
    }
}

/// Where a part belongs in its datagram, and its new identification.
fn part_of(frame: &[u8], id: u32) -> Option<Part> {
    if eth::ethertype(frame) == Ok(eth::IPV6) {
        let fragment = ipv6::check(frame.first_chunk()?, frame).ok()?.fragment?;
        return Some(Part {
            offset: fragment.offset,
            more: fragment.more,
            id,
            header_at: fragment.at,
            whole: 0,
        });
    }
    let word = packet::be16(frame.first_chunk::<{ ipv4::END }>()?, eth::HEADER_LEN + 6);
    Some(Part {
        offset: (word & ipv4::OFFSET_MASK) << 3,
        more: word & ipv4::MF != 0,
        id,
        header_at: 0,
        whole: 0,
    })
}
