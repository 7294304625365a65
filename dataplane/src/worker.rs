//! READ FIRST. The run-to-completion loop of one core.
//!
//! What a worker owns, it owns alone: its queues, its connection table, its timers, its local
//! ports, its counters. [`Worker::poll_once`] is one turn of the loop and is given the time, so
//! a seed replays everything. What happens to a packet is in [`crate::pipeline`].
#![forbid(unsafe_code)]

use std::sync::Arc;

use arrayvec::ArrayVec;
use rtrb::{Consumer, Producer};

use crate::command::{Command, ConnPage, ConnView, Event, PortUpdate};
use crate::conn::side::SideTable;
use crate::conn::state::Standing;
use crate::conn::templates::{Heard, Templates};
use crate::conn::{Conn, ConnTable, Pages};
use crate::counters::{DropReason, WorkerCounters};
use crate::defense::Policer;
use crate::defense::limits::Limiter;
use crate::defense::pressure::Defense;
use crate::forward::tun::{Ends, Tunnel};
use crate::frag;
use crate::helper::Helper;
use crate::helper::expected::Expectations;
use crate::io::{BURST, Burst, Frame, FramePool, PortQueue};
use crate::lip::LocalPorts;
use crate::packet::ids::IpIds;
use crate::packet::{Key, Key4, Key6, eth};
use crate::pipeline::{
    Arrival, Columns, DATAGRAMS, EXPIRED_A_TURN, Family, Farewells, Notes, Side, Sides, SynProxies,
    conn_gone, redirected_keys,
};
use crate::route::{Fib, Hop, NeighbourId, NeighbourUpdate, Neighbours, Parking, PathMtus};
use crate::sched::{Loads, Memory};
use crate::service::{Candidate, Service, Snapshot};
use crate::steer::{
    Alignment, FragmentOf, Handoff, HandoffKind, KernelEnd, Links, Message, Steer, UselessKey,
    transmitter,
};
use crate::types::{CoreId, Mac, PortId, Tick};

/// Commands taken in one turn: an operator's question never delays packets for long.
const COMMANDS_A_TURN: usize = 4;
/// Timer records looked at in one turn. A turn of 32 packets opens 32 connections at most, each
/// with one record (and a second when it closes), so this keeps up with any rate.
const TIMERS_A_TURN: usize = 64;
/// What a redirect lasts longer than any connection without packets.
const REDIRECT_GRACE: u32 = Tick::seconds(64);
/// Resets and other answers that one worker makes in a second.
const ANSWERS_A_SECOND: u32 = 10_000;

/// A port as one worker is given it.
#[derive(Debug)]
pub struct WorkerPort<Q> {
    /// Its index.
    pub id: PortId,
    /// This worker's queues on it.
    pub queue: Q,
    /// Its MAC address.
    pub mac: Mac,
    /// Largest IP packet, bytes.
    pub mtu: u16,
    /// Whether its RSS agrees with the ownership function.
    pub alignment: Alignment,
    /// How many of the workers have a transmit queue on it: workers `0..tx_queues`.
    pub tx_queues: u8,
    /// Received L4 checksums may be partial without a mark (`rx_checksum = "fill"`):
    /// complete those that are before anything else.
    pub fill_checksums: bool,
}

/// Everything that a worker is made of.
pub struct Setup<Q: PortQueue> {
    /// All ports, by index.
    pub ports: Vec<WorkerPort<Q>>,
    /// Who owns what.
    pub steer: Steer,
    /// Where the frames come from that the worker itself sends.
    pub pool: Box<dyn FramePool<Frame = Q::Frame>>,
    /// Rings to and from the other workers.
    pub links: Links<Q::Frame>,
    /// Rings to and from the twin thread.
    pub kernel: KernelEnd<Q::Frame>,
    /// What control says.
    pub commands: Consumer<Command>,
    /// What control hears.
    pub events: Producer<Event>,
    /// The worker writes, control reads.
    pub counters: Arc<WorkerCounters>,
    /// What the other workers write: schedulers that count connections count theirs too.
    pub peers: Vec<Arc<WorkerCounters>>,
    /// IPv4 connections that fit the table.
    pub max_connections: u32,
    /// The same for IPv6, those between families included.
    pub max_connections6: u32,
    /// What pages the table may lie on.
    pub pages: Pages,
    /// Key of the table's hash, random at each start.
    pub secret: [u64; 4],
    /// The first snapshot.
    pub snapshot: Arc<Snapshot>,
    /// The first routes.
    pub fib: Arc<Fib>,
    /// Now.
    pub now: Tick,
}

/// Why a worker could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The connection table's memory could not be had.
    #[error("connection table for {connections} connections: {source}; lower max_connections")]
    Memory {
        /// Connections asked for.
        connections: u32,
        /// What the system said.
        source: std::io::Error,
    },
    /// The RSS key cannot steer.
    #[error(transparent)]
    Key(#[from] UselessKey),
    /// Counters were made for another number of ports.
    #[error("counters for {counters} ports given to a worker with {ports}")]
    Counters {
        /// Ports that the counters have cells for.
        counters: usize,
        /// Ports of the worker.
        ports: usize,
    },
}

/// A port with what waits to go out of it and to be looked at.
pub(crate) struct Lane<Q: PortQueue> {
    pub(crate) port: WorkerPort<Q>,
    /// Frames to send at the end of the turn, or when there is a burst of them.
    pub(crate) out: Burst<Q::Frame>,
    /// The bytes of these.
    out_bytes: u64,
    /// Frames handed over by other workers, as if they had arrived here.
    pub(crate) inbox: Burst<Q::Frame>,
}

/// A server's next hop, valid while `epoch` is the FIB's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServerHop {
    pub(crate) hop: NeighbourId,
    pub(crate) epoch: u16,
    /// The tunnel that packets take there, if they do.
    pub(crate) tunnel: Option<(Tunnel, Ends)>,
}

/// One core's share of the appliance.
pub struct Worker<Q: PortQueue> {
    pub(crate) lanes: Vec<Lane<Q>>,
    pub(crate) steer: Steer,
    pub(crate) pool: Box<dyn FramePool<Frame = Q::Frame>>,
    /// Servers whose connections are to end.
    pub(crate) farewells: Farewells,
    pub(crate) links: Links<Q::Frame>,
    /// Frames for other workers, by core, until a burst of them or the turn's end.
    aside: Vec<ArrayVec<Handoff<Q::Frame>, BURST>>,
    pub(crate) kernel: KernelEnd<Q::Frame>,
    pub(crate) counters: Arc<WorkerCounters>,
    pub(crate) sides: Sides,
    pub(crate) snapshot: Arc<Snapshot>,
    /// What schedulers remember, by service id.
    pub(crate) memories: Vec<Memory>,
    /// How many connections servers have, for schedulers that ask.
    pub(crate) loads: Loads,
    /// How much services and clients may have.
    pub(crate) limits: Limiter,
    /// What schedulers' draws are seeded with.
    dice_seed: u64,
    pub(crate) fib: Arc<Fib>,
    pub(crate) neighbours: Neighbours,
    /// Next hops of servers, by server id.
    pub(crate) server_hops: Vec<ServerHop>,
    /// What has become of servers, by server id.
    pub(crate) standings: Vec<Standing>,
    /// Whether a service has timeouts of its own.
    pub(crate) own_timeouts: bool,
    /// Whether a packet of a connection may have to be scheduled anew for its server's sake:
    /// LVS's `expire_nodest_conn`, and a server is removed.
    pub(crate) forsaken: bool,
    /// Whether TCP's secure tables are in force.
    pub(crate) secure_tcp: bool,
    pub(crate) parking: Parking<Q::Frame>,
    /// What tunnels' ways are known to take.
    pub(crate) path_mtus: PathMtus,
    pub(crate) defense: Defense,
    /// Services whose clients must prove themselves, and who is about to.
    pub(crate) proxies: SynProxies<Q::Frame>,
    pub(crate) punt: crate::pipeline::PuntPolicers,
    pub(crate) answers: Policer,
    /// Of these, such that say which size fits.
    pub(crate) sizes_told: Policer,
    /// How long a redirect lasts: longer than any connection without packets.
    pub(crate) redirect_ticks: u32,
    /// Identifications for datagrams of the director's own.
    pub(crate) ids: IpIds,
    pub(crate) fragments: frag::Store<(PortId, Q::Frame), FragmentOf>,
    /// What `open` wants another worker to be asked, apart because it is large.
    pub(crate) asking: Option<(CoreId, Message)>,
    /// What some connections need beside their entry.
    pub(crate) records: SideTable,
    /// Which servers clients go to.
    pub(crate) templates: Templates,
    /// Data connections that were announced.
    pub(crate) expected: Expectations,
    /// Always there between bursts.
    pub(crate) columns: Option<Box<Columns>>,
    commands: Consumer<Command>,
    pub(crate) events: Producer<Event>,
    stopped: bool,
}

impl<Q: PortQueue> Worker<Q> {
    /// Makes a worker; its memory is taken here and never grows on a packet's way.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub fn new(setup: Setup<Q>) -> Result<Worker<Q>, SetupError> {
        let Setup {
            ports,
            steer,
            pool,
            links,
            kernel,
            commands,
            events,
            counters,
            ..
        } = setup;
        if counters.ports.len() != ports.len() {
            let (counters, ports) = (counters.ports.len(), ports.len());
            return Err(SetupError::Counters { counters, ports });
        }
        let (pages, secret, now) = (setup.pages, setup.secret, setup.now);
        let sides = Sides {
            v4: side(&steer, setup.max_connections, pages, secret, now)?,
            v6: side(&steer, setup.max_connections6, pages, secret, now)?,
        };
        let connections = setup.max_connections.saturating_add(setup.max_connections6);
        let records = SideTable::new(connections);
        let records = records.map_err(|source| SetupError::Memory {
            connections,
            source,
        })?;
        let room = templates_for(connections);
        let templates = Templates::new(steer.me(), room, [secret[0], secret[3]]);
        let templates = templates.map_err(|source| SetupError::Memory {
            connections,
            source,
        })?;
        let lane = |port| Lane {
            port,
            out: Burst::new(),
            out_bytes: 0,
            inbox: Burst::new(),
        };
        let ids = IpIds::new(steer.me(), steer.workers(), secret[1] as u32);
        let proxies = SynProxies::new(secret, steer.workers(), now);
        let mut worker = Worker {
            lanes: ports.into_iter().map(lane).collect(),
            steer,
            pool,
            farewells: Farewells::new(now),
            aside: (0..links.out.len()).map(|_| ArrayVec::new()).collect(),
            links,
            kernel,
            sides,
            snapshot: Snapshot::empty(),
            memories: Vec::new(),
            limits: Limiter::new(Arc::clone(&counters), setup.peers.clone(), secret[0]),
            loads: Loads::new(Arc::clone(&counters), setup.peers),
            dice_seed: setup.secret[1],
            fib: setup.fib,
            neighbours: Neighbours::default(),
            server_hops: Vec::new(),
            standings: Vec::new(),
            own_timeouts: false,
            forsaken: false,
            secure_tcp: false,
            parking: Parking::default(),
            path_mtus: PathMtus::new(secret[3]),
            defense: Defense::new(setup.now),
            proxies,
            punt: crate::pipeline::PuntPolicers::new(setup.now),
            answers: Policer::new(ANSWERS_A_SECOND, setup.now),
            sizes_told: Policer::new(ANSWERS_A_SECOND, setup.now),
            redirect_ticks: 0,
            ids,
            fragments: frag::Store::new(DATAGRAMS, frag::FRAGMENTS_HELD as u16, secret[2]),
            asking: None,
            records,
            templates,
            expected: Expectations::new(secret),
            columns: Some(Box::default()),
            commands,
            events,
            counters,
            stopped: false,
        };
        worker.use_snapshot(setup.snapshot);
        Ok(worker)
    }

    /// One turn of the loop at `now`: frames and commands handled, 0 when there was nothing to
    /// do and the core may rest.
    pub fn poll_once(&mut self, now: Tick) -> usize {
        let mut work = self.take_commands(now);
        self.expire_templates(now);
        let rules = &self.snapshot.rules;
        let short = self.sides.are_short(rules, self.steer.workers());
        self.secure_tcp = rules.secure(short);
        if self.defense.is_due(now) {
            work += self.defend(now);
        }
        work += self.take_handoffs(now);
        work += self.take_errands(now);
        work += self.take_from_kernel();
        self.loads.fold(now);
        for lane in 0..self.lanes.len() {
            work += self.receive(lane, now);
        }
        for lane in 0..self.lanes.len() {
            self.flush(lane);
        }
        for core in 0..self.aside.len() {
            self.flush_aside(core);
        }
        if self.farewells.are_due(now) {
            work += self.dismiss_some(now);
        }
        self.judge_floods(now);
        work += self.expire(now);
        let polls = if work == 0 {
            &self.counters.idle_polls
        } else {
            &self.counters.busy_polls
        };
        polls.add(1);
        work
    }

    /// Whether [`Command::Stop`] was taken: the loop may end.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// IPv4 connections of this worker.
    #[must_use]
    pub fn conns(&self) -> &ConnTable {
        &self.sides.v4.conns
    }

    /// Its IPv6 connections, those between families included.
    #[must_use]
    pub fn conns6(&self) -> &ConnTable<Key6> {
        &self.sides.v6.conns
    }

    /// Persistence templates that live here.
    #[must_use]
    pub fn templates(&self) -> &Templates {
        &self.templates
    }

    /// Connections that need something beside their entry.
    #[must_use]
    pub fn side_records(&self) -> u32 {
        self.records.used()
    }

    fn receive(&mut self, lane: usize, now: Tick) -> usize {
        let mut burst = Burst::new();
        self.lanes[lane].port.queue.rx_burst(&mut burst);
        let n = burst.len();
        if n == 0 {
            return 0;
        }
        self.process(lane, burst, Arrival::Wire, now);
        n
    }

    /// Takes what other workers hand over: flows of ours, and finished frames to send for them.
    fn take_handoffs(&mut self, now: Tick) -> usize {
        let mut taken = 0;
        for from in 0..self.links.into.len() {
            let Some(ring) = self.links.into[from].as_mut() else {
                continue;
            };
            let mut batch = ArrayVec::<Handoff<Q::Frame>, BURST>::new();
            if let Ok(chunk) = ring.read_chunk(ring.slots().min(BURST)) {
                batch.extend(chunk);
            }
            taken += batch.len();
            for Handoff { frame, port, kind } in batch {
                let lane = usize::from(port.0);
                match kind {
                    HandoffKind::Transmit => self.transmit(lane, frame),
                    HandoffKind::Process => {
                        self.lanes[lane].inbox.push(frame);
                        if self.lanes[lane].inbox.is_full() {
                            self.process_inbox(lane, now);
                        }
                    }
                }
            }
        }
        if taken > 0 {
            self.counters.handoff_in.add(taken as u64);
            for lane in 0..self.lanes.len() {
                self.process_inbox(lane, now);
            }
        }
        taken
    }

    fn process_inbox(&mut self, lane: usize, now: Tick) {
        if !self.lanes[lane].inbox.is_empty() {
            let burst = std::mem::take(&mut self.lanes[lane].inbox);
            self.process(lane, burst, Arrival::Handed, now);
        }
    }

    /// Sends what the kernel sends.
    fn take_from_kernel(&mut self) -> usize {
        let mut taken = 0;
        while taken < BURST
            && let Ok(from_kernel) = self.kernel.into.pop()
        {
            taken += 1;
            self.transmit(usize::from(from_kernel.port.0), from_kernel.frame);
        }
        self.counters.from_kernel.add(taken as u64);
        taken
    }

    /// Queues a finished frame on its port, or hands it to a worker that has a queue there.
    #[inline]
    pub(crate) fn transmit(&mut self, lane: usize, frame: Q::Frame) {
        let to = &mut self.lanes[lane];
        if !to.port.queue.has_tx() {
            return self.transmit_elsewhere(lane, frame);
        }
        to.out_bytes += frame.bytes().len() as u64;
        to.out.push(frame);
        if to.out.is_full() {
            self.flush(lane);
        }
    }

    #[inline(never)]
    fn transmit_elsewhere(&mut self, lane: usize, frame: Q::Frame) {
        let to = &self.lanes[lane].port;
        let (port, core) = (to.id, transmitter(self.steer.me(), to.tx_queues));
        self.hand_over(
            core,
            Handoff {
                frame,
                port,
                kind: HandoffKind::Transmit,
            },
        );
    }

    /// Sets a frame aside for another worker. A burst of them goes on the ring at once: each
    /// store to the ring's end takes its cache line from the other core.
    pub(crate) fn hand_over(&mut self, core: CoreId, handoff: Handoff<Q::Frame>) {
        let Some(aside) = self.aside.get_mut(usize::from(core.0)) else {
            return self.counters.dropped(DropReason::HandoffFull);
        };
        aside.push(handoff);
        if aside.is_full() {
            self.flush_aside(usize::from(core.0));
        }
    }

    /// Puts what was set aside for a worker on its ring; what finds no room is dropped.
    fn flush_aside(&mut self, core: usize) {
        let aside = &mut self.aside[core];
        if aside.is_empty() {
            return;
        }
        let mut put = 0;
        if let Some(ring) = self.links.out[core].as_mut() {
            let n = ring.slots().min(aside.len());
            if let Ok(chunk) = ring.write_chunk_uninit(n) {
                put = chunk.fill_from_iter(aside.drain(..n));
            }
        }
        self.counters.handoff_out.add(put as u64);
        self.counters.drops[DropReason::HandoffFull as usize].add(aside.len() as u64);
        aside.clear();
    }

    /// Gives the port what waits for it; what its queue has no room for is dropped.
    fn flush(&mut self, lane: usize) {
        let Lane {
            port,
            out,
            out_bytes,
            ..
        } = &mut self.lanes[lane];
        if out.is_empty() {
            return;
        }
        let (n, bytes) = (out.len(), std::mem::take(out_bytes));
        port.queue.tx_burst(out);
        let (left, left_bytes) = (
            out.len(),
            out.iter().map(|f| f.bytes().len() as u64).sum::<u64>(),
        );
        let cells = &self.counters.ports[lane];
        for (packets, sent) in [
            (&cells.tx_packets, n - left),
            (&self.counters.tx_packets, n - left),
            (&cells.tx_full, left),
            (&self.counters.drops[DropReason::TxFull as usize], left),
        ] {
            packets.add(sent as u64);
        }
        cells.tx_bytes.add(bytes - left_bytes);
        self.counters.tx_bytes.add(bytes - left_bytes);
        out.clear();
    }

    /// Lets connections run out, a few at a time, and frames that waited too long.
    fn expire(&mut self, now: Tick) -> usize {
        let mut looked = 0;
        for family in [expire_in::<Q, Key4>, expire_in::<Q, Key6>] {
            looked += family(self, now);
        }
        let counters = &self.counters;
        while self.parking.expire(now).is_some() {
            counters.dropped(DropReason::NeighbourUnresolved);
        }
        let mut lost = |reason| counters.dropped(reason);
        self.fragments.expire(now, EXPIRED_A_TURN, &mut lost);
        self.path_mtus.expire(now);
        looked += self.repeat_syns(now);
        self.expected.expire(now);
        self.note_held();
        looked
    }

    fn take_commands(&mut self, now: Tick) -> usize {
        let mut taken = 0;
        // A command answers with one event at most: take none that could not be answered.
        while taken < COMMANDS_A_TURN && self.events.slots() > COMMANDS_A_TURN {
            let Ok(command) = self.commands.pop() else {
                break;
            };
            taken += 1;
            match command {
                Command::Snapshot(snapshot) => {
                    self.defense.look_soon(now);
                    let old = self.use_snapshot(snapshot);
                    self.tell(Event::RetiredSnapshot(old));
                }
                Command::Fib(fib) => {
                    let old = std::mem::replace(&mut self.fib, fib);
                    self.tell(Event::RetiredFib(old));
                }
                Command::Blacklist(blacklist) => {
                    let old = self.defense.use_blacklist(blacklist);
                    self.tell(Event::RetiredBlacklist(old));
                }
                Command::Neighbour(update) => self.update_neighbour(update),
                Command::Port(update) => self.update_port(update),
                Command::ListConns(mut page) => {
                    self.fill(&mut page, now);
                    self.tell(Event::Conns(page));
                }
                Command::ListTemplates(mut page) => {
                    self.list_templates(&mut page);
                    self.tell(Event::Templates(page));
                }
                Command::Stop => self.stop(now),
            }
        }
        taken
    }

    /// Says something to control; lost when the ring is full, so only what will be said again
    /// may come without a free slot seen before.
    pub(crate) fn tell(&mut self, event: Event) {
        let _ = self.events.push(event);
    }

    fn use_snapshot(&mut self, snapshot: Arc<Snapshot>) -> Arc<Snapshot> {
        self.remember_services(&snapshot);
        let servers = snapshot
            .servers()
            .map(|s| s.id.0 as usize + 1)
            .max()
            .unwrap_or(0);
        // An id may have got another address: forget the hops.
        let unknown = ServerHop {
            hop: NeighbourId::NONE,
            epoch: self.fib.epoch.wrapping_sub(1),
            tunnel: None,
        };
        self.server_hops.clear();
        self.server_hops.resize(servers, unknown);
        self.redirect_ticks = snapshot.timeouts.longest() + REDIRECT_GRACE;
        self.templates.silence = self.redirect_ticks;
        let counted = snapshot.services().filter(|s| s.scheduler.kind().counts());
        let counted = counted.flat_map(|s| s.servers.iter().map(|c| c.id));
        let guarded = || snapshot.servers().filter(|s| s.policy.thresholds.are_on());
        let watched = counted.chain(guarded().map(|s| s.id));
        self.loads.watch(servers, watched);
        self.loads
            .guard(guarded().map(|s| (s.id, s.policy.thresholds)));
        self.limits.follow(&snapshot);
        self.note_standings(&snapshot, servers);
        self.farewells.follow(&snapshot, servers);
        if closes_more(&self.snapshot, &snapshot) {
            self.defense.weed();
        }
        self.proxies.follow(&self.snapshot, &snapshot);
        let helps = |s: &Service| s.policy.helper != Helper::none;
        self.expected.provide(snapshot.services().any(helps));
        std::mem::replace(&mut self.snapshot, snapshot)
    }

    /// Has schedulers take note of servers that came, went or changed their weight.
    fn remember_services(&mut self, new: &Snapshot) {
        let (me, workers) = (self.steer.me(), self.steer.workers());
        for service in new.services() {
            let id = service.id.0 as usize;
            while self.memories.len() <= id {
                let seed = self.dice_seed ^ (self.memories.len() as u64) << 32 ^ u64::from(me.0);
                self.memories.push(Memory::new(me, workers, seed));
            }
            let memory = &mut self.memories[id];
            let old = self.snapshot.service(service.id);
            let before: &[Candidate] = match old.filter(|old| old.key == service.key) {
                Some(old) if old.chooses_like(service) => continue,
                Some(old) => &old.servers,
                None => {
                    memory.forget();
                    &[]
                }
            };
            memory.adopt(before, &service.scheduler, &service.servers);
        }
    }

    fn update_neighbour(&mut self, update: NeighbourUpdate) {
        self.neighbours.update(update);
        let Some(mac) = update.mac else { return };
        let hop = Hop {
            port: update.port,
            addr: update.addr,
        };
        while let Some(parked) = self.parking.release(hop) {
            let mut frame = parked.frame;
            let lane = usize::from(hop.port.0);
            let src = self.lanes[lane].port.mac;
            eth::set_macs(frame.bytes_mut(), mac, src);
            self.transmit(lane, frame);
        }
        self.note_held();
    }

    fn update_port(&mut self, update: PortUpdate) {
        if let Some(lane) = self.lanes.get_mut(usize::from(update.port.0)) {
            lane.port.mac = update.mac;
            lane.port.mtu = update.mtu;
        }
    }

    /// Fills a page of connections, IPv4 first: the cursor's highest bit says IPv6.
    fn fill(&self, page: &mut ConnPage, now: Tick) {
        page.core = self.steer.me();
        let (sides, found) = (&self.sides, &mut page.found);
        let mut next = Some(page.cursor);
        if page.cursor & IPV6_PAGE == 0 {
            let (at, conns) = (page.cursor, &sides.v4.conns);
            let left = conns.page(at, page.scan, |_, c| list(found, c, now));
            next = Some(left.unwrap_or(IPV6_PAGE));
        }
        if let Some(cursor) = next.filter(|cursor| cursor & IPV6_PAGE != 0) {
            let (at, conns) = (cursor & !IPV6_PAGE, &sides.v6.conns);
            let left = conns.page(at, page.scan, |_, c| list(found, c, now));
            next = left.map(|at| at | IPV6_PAGE);
        }
        page.done = next.is_none();
        page.cursor = next.unwrap_or(page.cursor);
    }

    /// Sends what is in hand and drops what waits for a neighbour.
    fn stop(&mut self, now: Tick) {
        while let Some(parked) = self.parking.expire(now.after(Tick::seconds(3600))) {
            self.counters.dropped(DropReason::NeighbourUnresolved);
            drop(parked);
        }
        self.drop_held();
        let counters = &self.counters;
        let mut lost = |reason| counters.dropped(reason);
        let later = now.after(Tick::seconds(3600));
        self.fragments
            .expire(later, usize::from(DATAGRAMS), &mut lost);
        self.note_held();
        self.stopped = true;
    }
}

/// Whether a service has another access list that standing connections are measured by.
fn closes_more(old: &Snapshot, new: &Snapshot) -> bool {
    new.services().any(|service| {
        let access = service.policy.access.as_deref();
        let before = old.service(service.id);
        let before = before.and_then(|service| service.policy.access.as_deref());
        access.is_some_and(|access| access.closes && before != Some(access))
    })
}

/// In a page's cursor: the IPv4 connections are through.
const IPV6_PAGE: u32 = 1 << 31;

fn side<K: Key>(
    steer: &Steer,
    connections: u32,
    pages: Pages,
    secret: [u64; 4],
    now: Tick,
) -> Result<Side<K>, SetupError> {
    let conns = ConnTable::new(connections, pages, secret, now);
    let conns = conns.map_err(|source| SetupError::Memory {
        connections,
        source,
    })?;
    let local_ports = LocalPorts::new(steer, secret[0])?;
    Ok(Side { conns, local_ports })
}

/// Room for templates beside so many connections: one for every four, as clients come back.
fn templates_for(connections: u32) -> u32 {
    (connections / 4).clamp(1024, 1 << 24)
}

/// Lets connections of one family run out.
fn expire_in<Q: PortQueue, K: Family>(worker: &mut Worker<Q>, now: Tick) -> usize {
    let (counters, limits) = (&worker.counters, &worker.limits);
    let mut expired = 0;
    let notes = std::cell::RefCell::new(Notes::default());
    let note = |conn: &Conn<K>, stands| {
        if let Some(keys) = redirected_keys(conn) {
            // One for each record at most, and that is what it has room for.
            let _ = notes.borrow_mut().redirected.try_push((keys, stands));
        }
        if let Some(template) = conn.template() {
            let _ = notes
                .borrow_mut()
                .controlled
                .try_push((template, Heard::stands(stands)));
        }
    };
    // Data connections that go on, by the inbound keys of their control connections.
    let mut lingering = ArrayVec::<Key6, 128>::new();
    let conns = &mut K::side_mut(&mut worker.sides).conns;
    let (records, proxies, snapshot) = (&mut worker.records, &mut worker.proxies, &worker.snapshot);
    let looked = conns.expire(
        now,
        TIMERS_A_TURN,
        |conn| {
            if let Some(record) = conn.side() {
                records.give_back(record);
            }
            if conn.is_connection() {
                expired += 1;
                conn_gone(counters, conn);
                limits.gone(snapshot, conn);
                proxies.gone(conn, snapshot);
                note(conn, false);
            }
        },
        |conn| {
            note(conn, true);
            if let Some(control) = conn.control() {
                let _ = lingering.try_push(control.widened()); // at most one for each record
            }
        },
    );
    if expired > 0 {
        counters.conns_expired.add(expired);
        counters.conns.set(worker.sides.len());
    }
    worker.pass_lingering(&lingering, now);
    worker.pass_notes(&notes.borrow()); // 11 kB, not to be moved
    looked
}

/// Adds a connection to a page; false when it is full.
fn list<K: Key>(found: &mut Vec<ConnView>, c: &Conn<K>, now: Tick) -> bool {
    if found.len() == found.capacity() {
        return false;
    }
    found.push(ConnView {
        proto: c.proto(),
        client: c.client(),
        virtual_: c.virtual_(),
        local: c.local(),
        server: c.server(),
        server_id: c.server_id(),
        state: c.state(),
        expires: c.deadline().since(now),
        age: now.since(c.created()),
        in_packets: c.in_packets,
    });
    true
}
