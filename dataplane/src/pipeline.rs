//! A packet's way, top to bottom.
//!
//! ```text
//!  look     parse at the door -> not ours / malformed / kernel / another core's
//!           start loading the index lines
//!  guess    first candidate of the line; start loading its entry
//!  conclude confirm or look up -> (miss) open: service -> schedule -> local port -> insert
//!  forward  state, counters, rewrite -> next hop -> out
//! ```
//!
//! Each stage takes the whole burst, so that 32 packets wait for memory together and not one
//! after the other. A packet that is not forwarded ends in a [`DropReason`] or at the kernel.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use crate::command::Event;
use crate::conn::entry::NewConn;
use crate::conn::state::{Direction, State, TimeoutSet, Way, tcp, udp};
use crate::conn::{Conn, ConnId, Hit};
use crate::counters::{DropReason, WorkerCounters};
use crate::cpu::prefetch;
use crate::forward::fullnat;
use crate::io::{BURST, Burst, Frame, PortQueue};
use crate::packet::tcp::flags::{RST, SYN};
use crate::packet::{self, Flow, Kind, be32, checksum, eth, ipv4};
use crate::route::{Hop, NeighbourId};
use crate::sched::{Cursor, View};
use crate::service::{Server, Service, ServiceKey, Snapshot};
use crate::steer::{Alignment, Handoff, HandoffKind, KernelFrame};
use crate::types::{CoreId, Mac, PortId, Proto, Tick};
use crate::worker::Worker;

mod punt;
mod reset;

pub(crate) use punt::PuntPolicers;
use punt::{Punt, punt_class};
use reset::make_reset;

/// The two ways through [`Worker::forward`], as a constant: it is compiled for each.
const INBOUND: bool = true;
const OUTBOUND: bool = false;

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
    Flow,
}

/// What the stages find out about a burst, column by column; reused for each.
pub(crate) struct Columns {
    looks: [Look; BURST],
    flows: [Flow; BURST],
    hashes: [u64; BURST],
    guesses: [Option<Hit>; BURST],
}

impl Default for Columns {
    fn default() -> Self {
        Columns {
            looks: [Look::Flow; BURST],
            flows: [Flow::NONE; BURST],
            hashes: [0; BURST],
            guesses: [None; BURST],
        }
    }
}

/// Where a rewritten packet goes.
enum Next {
    /// To a neighbour whose MAC is known.
    Known(PortId, Mac),
    /// To a neighbour whose MAC has to be asked for.
    Ask(Hop),
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
        for frame in &burst {
            prefetch(frame.bytes());
        }
        for (i, frame) in burst.iter_mut().enumerate() {
            c.looks[i] = self.look(&mut c.flows[i], lane, frame, arrival);
            if let Look::Flow = c.looks[i] {
                c.hashes[i] = self.conns.hash(&c.flows[i].key);
            }
        }
        // In a loop of its own: a prefetch waits for its page walk before it retires, and only
        // instructions close behind it overlap with that (1 M flows: 80 -> 70 ns a packet).
        for i in 0..burst.len() {
            if let Look::Flow = c.looks[i] {
                self.conns.prefetch_index(c.hashes[i]);
            }
        }
        let mut spilled = 0u32;
        for i in 0..burst.len() {
            if let Look::Flow = c.looks[i] {
                c.guesses[i] = self.conns.guess(c.hashes[i]);
                spilled |= u32::from(c.guesses[i].is_none()) << i;
            }
        }
        while spilled != 0 {
            let i = spilled.trailing_zeros() as usize;
            c.guesses[i] = self.conns.guess_spilled(c.hashes[i]);
            spilled &= spilled - 1;
        }
        for (i, frame) in burst.into_iter().enumerate() {
            match c.looks[i] {
                Look::Flow => {
                    let flow = &c.flows[i];
                    let hit = match c.guesses[i] {
                        Some(hit) if self.conns.is(hit, &flow.key) => Some(hit),
                        _ => self.conns.lookup(c.hashes[i], &flow.key),
                    };
                    self.conclude(lane, frame, flow, hit, arrival, now);
                }
                Look::Drop(reason) => self.counters.dropped(reason),
                Look::Kernel(class) => self.punt(lane, frame, class, now),
                Look::Away(core) => self.away(core, lane, frame),
            }
        }
    }

    /// Stage one: everything that the frame alone can tell.
    #[inline(always)]
    fn look(
        &mut self,
        flow: &mut Flow,
        lane: usize,
        frame: &mut Q::Frame,
        arrival: Arrival,
    ) -> Look {
        let port = &self.lanes[lane].port;
        let offload = frame.rx_checksum();
        if offload.l3_bad {
            return Look::Drop(DropReason::BadIpChecksum);
        }
        let bytes = frame.bytes();
        let kind = match packet::parse_into(flow, bytes, offload.l3_good) {
            Ok(kind) => kind,
            Err(reason) => return Look::Drop(reason),
        };
        let dst = eth::dst(bytes);
        if dst != port.mac {
            return match dst.is_group() {
                true => Look::Kernel(punt_class(bytes)),
                false => Look::Drop(DropReason::NotOurMac),
            };
        }
        match kind {
            Kind::Flow => {}
            Kind::Fragment => return self.look_at_fragment(frame),
            Kind::Other => return Look::Kernel(punt_class(frame.bytes())),
        }
        if offload.l4_bad {
            return Look::Drop(DropReason::BadL4Checksum);
        }
        if port.fill_checksums || offload.l4_partial {
            let end = eth::HEADER_LEN + usize::from(flow.ip_len);
            let (proto, l4) = (flow.key.proto, usize::from(flow.l4));
            if checksum::complete_partial(frame.bytes_mut(), proto, l4, end) {
                self.counters.checksums_filled.add(1);
            }
        }
        if arrival == Arrival::Wire && port.alignment == Alignment::Unaligned {
            let owner = self.owner(flow);
            if owner != self.steer.me() {
                return Look::Away(owner);
            }
        }
        Look::Flow
    }

    #[cold]
    fn look_at_fragment(&self, frame: &Q::Frame) -> Look {
        let dst = be32(frame.bytes(), ipv4::DST_AT);
        let used = self.snapshot.address_use(Ipv4Addr::from(dst).into());
        match used.vip || used.local {
            true => Look::Drop(DropReason::Fragment),
            false => Look::Kernel(punt_class(frame.bytes())),
        }
    }

    #[inline]
    fn owner(&self, flow: &Flow) -> CoreId {
        let k = &flow.key;
        self.steer.owner4(k.src(), k.dst(), k.sport(), k.dport())
    }

    /// Stage three: the connection, old or new, and the packet on its way.
    #[inline]
    fn conclude(
        &mut self,
        lane: usize,
        frame: Q::Frame,
        flow: &Flow,
        hit: Option<Hit>,
        arrival: Arrival,
        now: Tick,
    ) {
        let hit = match hit {
            Some(hit) if !self.is_reuse(hit, flow) => hit,
            other => {
                // On an aligned port a miss may still be a packet that strayed.
                let owner = self.owner(flow);
                if other.is_none() && arrival == Arrival::Wire && owner != self.steer.me() {
                    return self.away(owner, lane, frame);
                }
                if let Some(old) = other {
                    self.close(old.id);
                    self.counters.conns_reused.add(1);
                }
                match self.open(flow, now) {
                    Ok(id) => Hit {
                        id,
                        dir: Direction::Inbound,
                    },
                    Err(Refusal::Drop(reason)) => return self.counters.dropped(reason),
                    Err(Refusal::Kernel) => {
                        let class = punt_class(frame.bytes());
                        return self.punt(lane, frame, class, now);
                    }
                    Err(Refusal::NoConnection) => return self.refuse(lane, frame, flow, now),
                }
            }
        };
        if flow.ttl <= 1 {
            return self.counters.dropped(DropReason::TtlExpired);
        }
        // Apart for each direction: on a two-armed director a port sees only one of them.
        match hit.dir {
            Direction::Inbound => self.forward::<INBOUND>(frame, flow, hit.id, now),
            Direction::Outbound => self.forward::<OUTBOUND>(frame, flow, hit.id, now),
        }
    }

    /// A packet of a connection that stands: state, counters, rewrite, next hop, out.
    #[inline(always)]
    fn forward<const DIR: bool>(
        &mut self,
        mut frame: Q::Frame,
        flow: &Flow,
        id: ConnId,
        now: Tick,
    ) {
        let dir = if DIR == INBOUND {
            Direction::Inbound
        } else {
            Direction::Outbound
        };
        let conn = self.conns.get_mut(id);
        let before = conn.state();
        let after = match flow.key.proto {
            Proto::Tcp => tcp::next(before, Way::of(dir, false), flow.tcp_flags, false),
            Proto::Udp => udp::next(),
        };
        conn.lasts(
            self.snapshot.timeouts.get(TimeoutSet::default()).of(after),
            now,
        );
        if DIR == INBOUND {
            conn.in_packets = conn.in_packets.saturating_add(1);
        }
        let bytes = frame.bytes_mut();
        fullnat::rewrite(bytes, flow, conn, dir);
        let server = conn.server_id();
        let (hop, epoch) = if DIR == INBOUND {
            match self.server_hops.get(server.0 as usize) {
                Some(s) => (s.hop, s.epoch),
                None => (NeighbourId::NONE, 0),
            }
        } else {
            (conn.client_hop, conn.route_epoch)
        };
        if let Some(cells) = self.counters.servers.get(server) {
            let (packets, octets) = match dir {
                Direction::Inbound => (&cells.in_packets, &cells.in_bytes),
                Direction::Outbound => (&cells.out_packets, &cells.out_bytes),
            };
            packets.add(1);
            octets.add(u64::from(flow.ip_len));
        }
        if before != after {
            self.change_state(id, after);
        }
        if epoch == self.fib.epoch
            && let Some((port, mac)) = self.neighbours.get(hop)
        {
            return self.output(port, mac, frame);
        }
        match self.find_hop(Hit { id, dir }) {
            Ok(Next::Known(port, mac)) => self.output(port, mac, frame),
            Ok(Next::Ask(hop)) => self.park(hop, frame, now),
            Err(reason) => self.counters.dropped(reason),
        }
    }

    /// Whether a new SYN meets the closing connection of the client's last use of its port: then
    /// a new one opens without delay (IPVS's conn_reuse_mode 1).
    #[inline]
    fn is_reuse(&self, hit: Hit, flow: &Flow) -> bool {
        flow.tcp_flags & (SYN | RST) == SYN
            && hit.dir == Direction::Inbound
            && self.conns.get(hit.id).state().is_closing()
    }

    /// Moves a connection to another state, in the table and in the server's gauges.
    #[inline(never)]
    fn change_state(&mut self, id: ConnId, after: State) {
        let conn = self.conns.get(id);
        let (before, server) = (conn.state(), conn.server_id());
        self.conns.set_state(id, after);
        if before.is_active() != after.is_active()
            && let Some(cells) = self.counters.servers.get(server)
        {
            let (from, to) = match after.is_active() {
                true => (&cells.inactive, &cells.active),
                false => (&cells.active, &cells.inactive),
            };
            from.sub(1);
            to.add(1);
        }
    }

    /// Looks the next hop up, and keeps it where the next packet looks first.
    #[cold]
    fn find_hop(&mut self, hit: Hit) -> Result<Next, DropReason> {
        let conn = self.conns.get(hit.id);
        let towards = match hit.dir {
            Direction::Inbound => conn.server(),
            Direction::Outbound => conn.client(),
        };
        let way = self.fib.lookup(IpAddr::V4(*towards.ip()));
        let hop = way.ok_or(DropReason::NoRoute)?.hop;
        let Some(id) = self.neighbours.find(hop) else {
            return Ok(Next::Ask(hop));
        };
        let epoch = self.fib.epoch;
        match hit.dir {
            Direction::Inbound => {
                let server = self.conns.get(hit.id).server_id();
                if let Some(s) = self.server_hops.get_mut(server.0 as usize) {
                    (s.hop, s.epoch) = (id, epoch);
                }
            }
            Direction::Outbound => {
                let conn = self.conns.get_mut(hit.id);
                (conn.client_hop, conn.route_epoch) = (id, epoch);
            }
        }
        Ok(match self.neighbours.get(id) {
            Some((port, mac)) => Next::Known(port, mac),
            None => Next::Ask(hop),
        })
    }

    #[inline]
    fn output(&mut self, port: PortId, mac: Mac, mut frame: Q::Frame) {
        let lane = usize::from(port.0);
        let port = &self.lanes[lane].port;
        let bytes = frame.bytes_mut();
        if bytes.len() > eth::HEADER_LEN + usize::from(port.mtu) {
            return self.counters.dropped(DropReason::TooBig);
        }
        eth::set_macs(bytes, mac, port.mac);
        self.transmit(lane, frame);
    }

    /// Lets a finished frame wait for its next hop's MAC, and has control ask for it.
    #[cold]
    fn park(&mut self, hop: Hop, frame: Q::Frame, now: Tick) {
        let mtu = usize::from(self.lanes[usize::from(hop.port.0)].port.mtu);
        if frame.bytes().len() > eth::HEADER_LEN + mtu {
            return self.counters.dropped(DropReason::TooBig);
        }
        match self.parking.park(frame, hop, now) {
            Ok(first) => {
                self.counters.parked.set(self.parking.len() as u64);
                if first {
                    self.tell(Event::Resolve {
                        port: hop.port,
                        addr: hop.addr,
                    });
                }
            }
            Err(_) => self.counters.dropped(DropReason::NeighbourQueueFull),
        }
    }

    /// Opens the connection that a packet without one asks for.
    #[cold]
    fn open(&mut self, flow: &Flow, now: Tick) -> Result<ConnId, Refusal> {
        let service = wanted_service(&self.snapshot, flow)?;
        let k = &flow.key;
        if ipv4::bad_source(k.src()) {
            return Err(DropReason::BadSource.into());
        }
        if k.source() == k.destination()
            || self.snapshot.address_use(IpAddr::V4(*k.source().ip())).vip
        {
            return Err(DropReason::Land.into());
        }
        let ticks = self
            .snapshot
            .timeouts
            .get(TimeoutSet::default())
            .of(State::None);
        let (server, address) = pick_server(&self.snapshot, service, flow, &mut self.cursors)?;
        let (steer, conns) = (&self.steer, &self.conns);
        let leased = self
            .local_ports
            .lease(
                steer,
                conns,
                k.proto,
                server.id,
                address,
                &service.local_addresses.v4,
            )
            .ok_or(DropReason::LipExhausted)?;
        let new = NewConn {
            proto: k.proto,
            client: k.source(),
            virtual_: k.destination(),
            local: leased.local,
            server: address,
            server_id: server.id,
            mode: server.forward,
        };
        if let Some(closing) = leased.early {
            self.close(closing);
            self.counters.lip_early_reuse.add(1);
        }
        let id = self.insert(&new, ticks, now)?;
        self.counters.conns_opened.add(1);
        self.counters.conns.set(u64::from(self.conns.len()));
        if let Some(cells) = self.counters.servers.get(new.server_id) {
            cells.conns.add(1);
            cells.inactive.add(1); // state NONE; the packet makes it active
        }
        Ok(id)
    }

    /// Inserts a connection, in the place of another one if the table is full.
    fn insert(&mut self, new: &NewConn, ticks: u32, now: Tick) -> Result<ConnId, DropReason> {
        if let Ok(inserted) = self.conns.insert(new, ticks, now) {
            return Ok(inserted.0);
        }
        let victim = self.conns.victim(now).ok_or(DropReason::ConnTableFull)?;
        self.close(victim);
        self.counters.conns_evicted.add(1);
        self.conns
            .insert(new, ticks, now)
            .map(|i| i.0)
            .map_err(|_| DropReason::ConnTableFull)
    }

    /// Forgets a connection before its time.
    fn close(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.remove(id) {
            server_gone(&self.counters, &conn);
            self.counters.conns.set(u64::from(self.conns.len()));
        }
    }

    /// Answers TCP without a connection by a reset, sent back to where it came from; drops the
    /// rest.
    #[cold]
    fn refuse(&mut self, lane: usize, mut frame: Q::Frame, flow: &Flow, now: Tick) {
        self.counters.dropped(DropReason::NoConnection);
        let wants_reset = flow.key.proto == Proto::Tcp
            && flow.tcp_flags & RST == 0
            && !ipv4::bad_source(flow.key.src());
        if wants_reset && self.answers.admit(now) {
            let mac = self.lanes[lane].port.mac;
            if make_reset(&mut frame, flow, mac) {
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
        let port = self.lanes[lane].port.id;
        match self.kernel.out.push(KernelFrame { port, frame }) {
            Ok(()) => self.counters.to_kernel.add(1),
            Err(_) => self.counters.dropped(DropReason::KernelFull),
        }
    }
}

/// Why a packet opens no connection.
enum Refusal {
    Drop(DropReason),
    /// Not for an address of Weir's.
    Kernel,
    /// For an address of Weir's, but nothing is there.
    NoConnection,
}

impl From<DropReason> for Refusal {
    fn from(reason: DropReason) -> Self {
        Refusal::Drop(reason)
    }
}

/// The service that a packet without a connection may open one to. For TCP only a SYN opens.
fn wanted_service<'a>(snapshot: &'a Snapshot, flow: &Flow) -> Result<&'a Service, Refusal> {
    let to = flow.key.destination();
    let used = snapshot.address_use(IpAddr::V4(*to.ip()));
    if !used.vip && !used.local {
        return Err(Refusal::Kernel);
    }
    let key = ServiceKey {
        proto: flow.key.proto,
        vip: IpAddr::V4(*to.ip()),
        port: to.port(),
    };
    let service = snapshot.lookup(key).ok_or(Refusal::NoConnection)?;
    let opens = flow.key.proto == Proto::Udp || tcp::opens(flow.tcp_flags, false);
    if opens {
        Ok(service)
    } else {
        Err(Refusal::NoConnection)
    }
}

/// The server for a new connection, at the port that it is to be reached on.
fn pick_server(
    snapshot: &Snapshot,
    service: &Service,
    flow: &Flow,
    cursors: &mut [Cursor],
) -> Result<(Server, SocketAddrV4), DropReason> {
    let cursor = cursors
        .get_mut(service.id.0 as usize)
        .ok_or(DropReason::NoServer)?;
    let view = View {
        servers: &service.servers,
        generation: snapshot.generation,
    };
    let at = service
        .scheduler
        .pick(view, cursor)
        .ok_or(DropReason::NoServer)?;
    let server = service.servers.get(at).and_then(|c| snapshot.server(c.id));
    let server = *server.ok_or(DropReason::NoServer)?;
    let SocketAddr::V4(mut address) = server.address else {
        return Err(DropReason::NoServer);
    };
    if address.port() == 0 {
        // A server of an every-port service gets the port that the client asked for.
        address.set_port(flow.key.dport());
    }
    Ok((server, address))
}

/// Takes a connection that is gone out of its server's gauges.
pub(crate) fn server_gone(counters: &WorkerCounters, conn: &Conn) {
    if let Some(cells) = counters.servers.get(conn.server_id()) {
        let gauge = if conn.state().is_active() {
            &cells.active
        } else {
            &cells.inactive
        };
        gauge.sub(1);
    }
}
