//! A packet's way, top to bottom.
//!
//! ```text
//!  look     parse at the door -> not ours / malformed / kernel / another core's
//!           start loading the index lines
//!  guess    first candidate of the line; start loading its entry
//!  conclude confirm or look up -> (miss) open: service -> schedule -> local port -> insert
//!  forward  next hop -> rewrite, state, counters -> out
//! ```
//!
//! Each stage takes the whole burst, so that 32 packets wait for memory together and not one
//! after the other. A packet that is not forwarded ends in a [`DropReason`] or at the kernel.
#![forbid(unsafe_code)]

use crate::conn::entry::Flags;
use crate::conn::state::{Direction, State, Way, sctp, tcp, udp};
use crate::conn::{Conn, ConnId, Guess, Hit};
use crate::counters::{DropReason, ServerCells};
use crate::io::{Frame, PortQueue};
use crate::packet::icmp::Problem;
use crate::packet::tcp::flags::RST;
use crate::packet::{Flow, Key6};
use crate::service::Snapshot;
use crate::steer::{Handoff, HandoffKind, KernelFrame, Progress};
use crate::types::{CoreId, Proto, Tick};
use crate::worker::{AtHand, Worker};

mod abort;
mod admit;
mod aside;
mod burst;
mod carried;
mod carried_parts;
mod enter;
mod errands;
mod evict;
mod expected;
mod express;
mod family;
mod farewell;
mod fragments;
mod helped;
mod hops;
mod icmp;
mod limited;
mod marked;
mod odd;
mod one_packet;
mod open;
mod over;
mod persist;
mod punt;
mod quic;
mod quoted;
mod reset;
mod room;
mod snat;
mod syn_proxy;
mod wanted;
mod weeding;

use abort::make_abort;
pub(crate) use burst::{Arrival, Findings};
pub(crate) use enter::{conn_gone, redirected_keys};
pub(crate) use errands::Notes;
pub(crate) use family::{Family, Side, Sides};
pub(crate) use farewell::Farewells;
pub(crate) use fragments::{DATAGRAMS, EXPIRED_A_TURN};
use hops::{Next, client_reach};
use open::{Opened, Refusal};
pub(crate) use punt::PuntPolicers;
use punt::{Punt, punt_class};
use reset::make_reset;
pub(crate) use syn_proxy::SynProxies;
use wanted::bad_source;

/// The two ways through [`Worker::forward`], as a constant: it is compiled for each.
const INBOUND: bool = true;
const OUTBOUND: bool = false;

const fn direction<const DIR: bool>() -> Direction {
    match DIR {
        INBOUND => Direction::Inbound,
        OUTBOUND => Direction::Outbound,
    }
}

/// Notes what a packet means for its connection, and in its server's counters; the state that the
/// connection is to go to, if it is another. `secure`: by TCP's secure tables.
#[inline(always)]
fn note<K: Family, const DIR: bool>(
    conn: &mut Conn<K>,
    server: Option<&AtHand>,
    snapshot: &Snapshot,
    flow: &Flow<K>,
    (way, secure): (Way, bool),
    now: Tick,
) -> Option<State> {
    let before = conn.state();
    let after = match flow.key.proto() {
        Proto::Tcp => tcp::next(before, way, flow.says, secure),
        Proto::Udp => udp::next(),
        Proto::Sctp => sctp::next(before, way, sctp::Event::of_says(flow.says)),
        Proto::Icmp => State::Icmp,
    };
    let timeouts = snapshot.timeouts_of(conn.server_id());
    conn.lasts(timeouts.of(after), now);
    let cells = server.and_then(|server| server.cells.as_ref());
    count::<K, DIR>(conn, cells, flow.ip_len);
    (before != after).then_some(after)
}

/// Counts a packet of `octets` for its connection and its server.
#[inline(always)]
fn count<K: Family, const DIR: bool>(conn: &mut Conn<K>, cells: Option<&ServerCells>, octets: u16) {
    if DIR == INBOUND {
        conn.in_packets = conn.in_packets.saturating_add(1);
    }
    if let Some(cells) = cells {
        let (packets, bytes) = match DIR {
            INBOUND => (&cells.in_packets, &cells.in_bytes),
            OUTBOUND => (&cells.out_packets, &cells.out_bytes),
        };
        packets.add(1);
        bytes.add(u64::from(octets));
    }
}

impl<Q: PortQueue> Worker<Q> {
    /// Stage three: the connection, old or new, and the packet on its way. A guess at the
    /// connection was made, from the key's hash.
    #[inline(always)]
    fn conclude<K: Family>(
        &mut self,
        lane: usize,
        frame: Q::Frame,
        flow: &Flow<K>,
        (guess, hash): (Guess, u64),
        arrival: Arrival,
        now: Tick,
    ) {
        match K::side(&self.sides).conns.confirm(guess, &flow.key) {
            Some(hit) if !self.is_over(hit, flow) => self.carry(lane, frame, flow, hit, now),
            _ => self.conclude_wrong_guess(lane, frame, flow, hash, arrival, now),
        }
    }

    /// The same where the guess was none, or wrong, or at a connection that is over.
    #[inline(never)]
    fn conclude_wrong_guess<K: Family>(
        &mut self,
        lane: usize,
        frame: Q::Frame,
        flow: &Flow<K>,
        hash: u64,
        arrival: Arrival,
        now: Tick,
    ) {
        match K::side(&self.sides).conns.lookup(hash, &flow.key) {
            Some(hit) if !self.is_over(hit, flow) => self.carry_on(lane, frame, flow, hit, now),
            other => self.without_conn(lane, frame, flow, other, arrival, now),
        }
    }

    /// A packet with a connection, off the beaten track.
    #[inline(never)]
    fn carry_on<K: Family>(
        &mut self,
        lane: usize,
        frame: Q::Frame,
        flow: &Flow<K>,
        hit: Hit,
        now: Tick,
    ) {
        self.carry(lane, frame, flow, hit, now);
    }

    /// A packet with a connection.
    #[inline(always)]
    fn carry<K: Family>(
        &mut self,
        lane: usize,
        frame: Q::Frame,
        flow: &Flow<K>,
        hit: Hit,
        now: Tick,
    ) {
        if K::side(&self.sides).conns.get(hit.id).is_aside() {
            return self.aside(lane, frame, flow, hit, now);
        }
        if flow.ttl <= 1 {
            return self.ttl_expired(lane, frame, now);
        }
        // Apart for each direction: on a two-armed director a port sees only one of them.
        match hit.dir {
            Direction::Inbound => self.forward::<K, INBOUND>(lane, frame, flow, hit.id, now),
            Direction::Outbound => self.forward::<K, OUTBOUND>(lane, frame, flow, hit.id, now),
        }
    }

    /// A packet without a connection: it belongs elsewhere, or opens one, or nothing is there
    /// for it. `closing` is what a new SYN takes the place of.
    #[inline(never)]
    fn without_conn<K: Family>(
        &mut self,
        lane: usize,
        frame: Q::Frame,
        flow: &Flow<K>,
        closing: Option<Hit>,
        arrival: Arrival,
        now: Tick,
    ) {
        // On an aligned port a miss may still be a packet that strayed.
        let owner = self.steer.owner(&flow.key);
        if closing.is_none() && arrival == Arrival::Wire && owner != self.steer.me() {
            return self.away(owner, lane, frame);
        }
        if let Some(old) = closing {
            self.give_up::<K>(old.id);
        } else if let Some((flow, hit)) = self.find_translated(flow) {
            return match self.is_over(hit, &flow) {
                true => self.without_conn(lane, frame, &flow, Some(hit), Arrival::Handed, now),
                false => self.carry_on(lane, frame, &flow, hit, now),
            };
        } else if let Some(answered) = self.find_answered(flow) {
            return self.answer_past_us(lane, frame, flow, answered, now);
        }
        if self.expected.is_on()
            && let Some(expected) = self.find_expected(flow, now)
        {
            return self.meet(lane, frame, flow, &expected, now);
        }
        self.note_proof(&frame, flow, now);
        let first = self.first(lane, &frame);
        let opened = self.open_here(first, flow, Progress::default(), now);
        match opened {
            Ok(Opened::Same(id)) if !self.proxies.has_proof() => {
                self.begin(lane, frame, flow, id, now);
            }
            other => self.go_on(lane, frame, flow, other, now),
        }
    }

    /// A packet that opened a connection of its own family takes its way.
    #[inline(always)]
    fn begin<K: Family>(
        &mut self,
        lane: usize,
        frame: Q::Frame,
        flow: &Flow<K>,
        id: ConnId,
        now: Tick,
    ) {
        let dir = Direction::Inbound;
        self.note_opened::<K>(id);
        self.begin_carrying::<K>(id, flow.says, now);
        self.carry_on(lane, frame, flow, Hit { id, dir }, now);
        self.has_gone::<K>(id);
    }

    /// The packet that opened a connection, or did not.
    #[inline(never)]
    fn go_on<K: Family>(
        &mut self,
        lane: usize,
        frame: Q::Frame,
        flow: &Flow<K>,
        opened: Result<Opened, Refusal>,
        now: Tick,
    ) {
        let dir = Direction::Inbound;
        if let Some(offer) = self.proxies.take_proof() {
            return self.go_on_proven(lane, frame, flow, opened, offer, now);
        }
        if matches!(opened, Err(Refusal::Kernel | Refusal::NoConnection))
            && let Some(answered) = self.find_answered_marked(flow)
        {
            return self.answer_of_marked(lane, frame, flow, answered, now);
        }
        match opened {
            Ok(Opened::Same(id)) => self.begin(lane, frame, flow, id, now),
            Ok(Opened::Translated(id)) => {
                self.note_opened::<Key6>(id);
                self.begin_carrying::<Key6>(id, flow.says, now);
                let flow = flow.with_key(flow.key.widened());
                self.carry_on(lane, frame, &flow, Hit { id, dir }, now);
            }
            Err(Refusal::Drop(reason @ (DropReason::NoServer | DropReason::ServersFull))) => {
                let problem = Problem::PortUnreachable;
                let from = flow.key.destination().ip();
                self.tell_sender(lane, frame, (problem, reason), from, now);
            }
            Err(Refusal::Drop(reason)) => self.counters.dropped(reason),
            Err(Refusal::Reset(reason)) => self.reset_over_limit(lane, frame, flow, reason, now),
            Err(Refusal::Kernel) => {
                let class = punt_class(frame.bytes());
                self.punt(lane, frame, class, now);
            }
            Err(Refusal::NoConnection) => self.refuse(lane, frame, flow, now),
            Err(Refusal::Challenge(service)) => self.challenge(lane, frame, flow, service, now),
            Err(Refusal::Unproven(reason, resets)) => {
                self.disbelieve(lane, frame, flow, (reason, resets), now);
            }
            Err(Refusal::Ask) => {
                let port = self.lanes[lane].port.id;
                if let Some((owner, message)) = self.asking.take() {
                    self.send_errand(owner, message, Some((port, frame)));
                }
            }
        }
    }

    /// A packet of a connection that stands: next hop, rewrite, state, counters, out. What has
    /// no next hop that is known or does not fit the link takes a longer way.
    #[inline(always)]
    fn forward<K: Family, const DIR: bool>(
        &mut self,
        lane: usize,
        mut frame: Q::Frame,
        flow: &Flow<K>,
        id: ConnId,
        now: Tick,
    ) {
        let conn = K::side_mut(&mut self.sides).conns.get_mut(id);
        let server = self.servers.get(conn.server_id());
        let reach = match DIR {
            INBOUND => server.and_then(|server| server.reach),
            OUTBOUND => client_reach(conn, &self.neighbours, &self.fib),
        };
        let Some(reach) = reach.filter(|reach| flow.ip_len <= reach.mtu()) else {
            return self.forward_unreached::<K, DIR>(lane, frame, flow, id, now);
        };
        let (secure, snapshot) = (self.secure_tcp, &self.snapshot);
        let bytes = frame.bytes_mut();
        let len = bytes.len();
        reach.address(bytes);
        K::rewrite(bytes, flow, conn, direction::<DIR>());
        let way = Way::of(direction::<DIR>(), false);
        if let Some(after) = note::<K, DIR>(conn, server, snapshot, flow, (way, secure), now) {
            self.change_state::<K>(id, after);
        }
        self.transmit_of(usize::from(reach.port().0), frame, len);
    }

    /// The same for a packet whose next hop has to be looked up, as a connection's first is, or
    /// whose link it does not fit.
    #[inline(never)]
    fn forward_unreached<K: Family, const DIR: bool>(
        &mut self,
        lane: usize,
        mut frame: Q::Frame,
        flow: &Flow<K>,
        id: ConnId,
        now: Tick,
    ) {
        let dir = direction::<DIR>();
        let reach = self.reach::<K, DIR>(id);
        let reach = reach.or_else(|| self.find_reach::<K, DIR>(id));
        let Some(reach) = reach.filter(|reach| flow.ip_len <= reach.mtu()) else {
            return self.pass_on::<K, DIR>(lane, frame, flow, Hit { id, dir }, None, now);
        };
        let conn = K::side(&self.sides).conns.get(id);
        K::rewrite(frame.bytes_mut(), flow, conn, dir);
        self.account::<K, DIR>(flow, id, Way::of(dir, false), now);
        self.emit(reach, frame);
    }

    /// What a packet means for its connection and its server's counters.
    #[inline(always)]
    fn account<K: Family, const DIR: bool>(
        &mut self,
        flow: &Flow<K>,
        id: ConnId,
        way: Way,
        now: Tick,
    ) {
        let conn = K::side_mut(&mut self.sides).conns.get_mut(id);
        let server = self.servers.get(conn.server_id());
        let way = (way, self.secure_tcp);
        if let Some(after) = note::<K, DIR>(conn, server, &self.snapshot, flow, way, now) {
            self.change_state::<K>(id, after);
        }
    }

    /// Moves a connection to another state, in the table and in the server's gauges.
    #[inline(never)]
    fn change_state<K: Family>(&mut self, id: ConnId, after: State) {
        let conns = &mut K::side_mut(&mut self.sides).conns;
        let (before, late) = conns.set_state(id, after);
        let conn = conns.get(id);
        if before.is_active() != after.is_active()
            && let Some(cells) = self.counters.servers.get(conn.server_id())
        {
            let (from, to) = match after.is_active() {
                true => (&cells.inactive, &cells.active),
                false => (&cells.active, &cells.inactive),
            };
            from.sub(1);
            to.add(1);
        }
        if late || conn.is_watched() {
            self.state_changed::<K>(id, after);
        }
    }

    /// What a change of state entails for some: a timer record that comes up sooner, or news for
    /// who watches the connection.
    #[inline(never)]
    fn state_changed<K: Family>(&mut self, id: ConnId, after: State) {
        let conns = &mut K::side_mut(&mut self.sides).conns;
        conns.file_sooner(id);
        if conns.get(id).is_watched() {
            self.tell_watchers::<K>(id, after);
        }
    }

    /// Tells who watches a connection that it is established, or half-open no more.
    #[cold]
    fn tell_watchers<K: Family>(&mut self, id: ConnId, after: State) {
        if after.is_established() {
            self.assure::<K>(id);
        }
        let conn = K::side(&self.sides).conns.get(id);
        if conn.flags().has(Flags::HALF_OPEN) && !after.is_half_open() {
            self.settle::<K>(id);
        }
    }

    /// Answers TCP without a connection by a reset, SCTP by an ABORT and UDP by ICMP's "port
    /// unreachable", sent back to where they came from.
    #[cold]
    fn refuse<K: Family>(&mut self, lane: usize, mut frame: Q::Frame, flow: &Flow<K>, now: Tick) {
        if flow.key.proto() == Proto::Udp {
            let (problem, reason) = (Problem::PortUnreachable, DropReason::NoConnection);
            let from = flow.key.destination().ip();
            return self.tell_sender(lane, frame, (problem, reason), from, now);
        }
        self.counters.dropped(DropReason::NoConnection);
        let proto = flow.key.proto();
        let wants_answer = flow.says & RST == 0 && !bad_source(flow.key.source());
        if wants_answer && self.answers.admit(now) {
            let mac = self.lanes[lane].port.mac;
            let made = match proto {
                Proto::Sctp => make_abort(&mut frame, flow, mac),
                _ => make_reset(&mut frame, flow, mac),
            };
            if made {
                self.counters.generated.add(1);
                self.transmit(lane, frame);
            }
        }
    }

    #[inline]
    fn away(&mut self, core: CoreId, lane: usize, frame: Q::Frame) {
        let port = self.lanes[lane].port.id;
        self.hand_over(
            core,
            Handoff {
                frame,
                port,
                kind: HandoffKind::Process,
            },
        );
    }

    /// Passes a frame to the port's kernel twin.
    #[cold]
    fn punt(&mut self, lane: usize, frame: Q::Frame, class: Punt, now: Tick) {
        if !self.punt.admit(class, now) {
            return self.counters.dropped(DropReason::KernelPoliced);
        }
        let out = &mut self.kernel.out;
        if !class.is_urgent() && out.slots() <= out.buffer().capacity() / 4 {
            return self.counters.dropped(DropReason::KernelFull);
        }
        let port = self.lanes[lane].port.id;
        match out.push(KernelFrame { port, frame }) {
            Ok(()) => self.counters.to_kernel.add(1),
            Err(_) => self.counters.dropped(DropReason::KernelFull),
        }
    }
}
