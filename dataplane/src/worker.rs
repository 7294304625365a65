//! READ FIRST. The run-to-completion loop of one core.
//!
//! What a worker owns, it owns alone: its queues, its connection table, its timers, its local
//! ports, its counters. [`Worker::poll_once`] is one turn of the loop and is given the time, so
//! a seed replays everything. What happens to a packet is in [`crate::pipeline`].
#![forbid(unsafe_code)]

use std::sync::Arc;

use arrayvec::ArrayVec;
use rtrb::{Consumer, Producer};

use crate::command::{Command, Event};
use crate::conn::ConnTable;
use crate::conn::side::SideTable;
use crate::conn::state::Standing;
use crate::conn::templates::Templates;
use crate::counters::WorkerCounters;
use crate::defense::Policer;
use crate::defense::limits::Limiter;
use crate::defense::pressure::Defense;
use crate::frag;
use crate::helper::expected::Expectations;
use crate::io::{BURST, Burst, FramePool, PortQueue};
use crate::packet::Key6;
use crate::packet::ids::IpIds;
use crate::pipeline::{Arrival, Farewells, Findings, PuntPolicers, Sides, SynProxies};
use crate::route::{Fib, Neighbours, Parking, PathMtus};
use crate::sched::{Loads, Memory};
use crate::service::Snapshot;
use crate::steer::{FragmentOf, Handoff, KernelEnd, Links, Message, Steer};
use crate::types::{CoreId, PortId, Tick};

mod commands;
mod exchange;
mod expiry;
mod servers;
mod setup;

pub(crate) use servers::AtHand;
use servers::Servers;
pub use setup::{Setup, SetupError, WorkerPort};

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
    /// What packets need of their servers.
    pub(crate) servers: Servers,
    /// What has become of servers, by server id.
    pub(crate) standings: Vec<Standing>,
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
    pub(crate) punt: PuntPolicers,
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
    pub(crate) findings: Option<Box<Findings>>,
    commands: Consumer<Command>,
    pub(crate) events: Producer<Event>,
    stopped: bool,
}

impl<Q: PortQueue> Worker<Q> {
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
        self.counters.conns.set(self.sides.len());
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
}
