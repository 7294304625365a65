//! A whole director in memory: the workers themselves on simulated ports, in one thread, by the
//! caller's clock.
//!
//! `weir explain` and the fuzz targets ask here what becomes of a packet; nothing of a packet's
//! way is written a second time. A [`Scene`] says what the director is made of; a [`Replay`] is
//! given frames one after the other and says what left.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::sync::Arc;

use rtrb::{Consumer, Producer, RingBuffer};

use crate::command::{Command, Event};
use crate::conn::state::{Direction, State};
use crate::conn::{Conn, ConnTable, Pages};
use crate::counters::WorkerCounters;
use crate::defense::blacklist::Blacklist;
use crate::forward::ForwardMode;
use crate::io::sim::{SimFrame, SimPool, SimPort, SimQueue, Spread};
use crate::io::{Frame, RxChecksum};
use crate::packet::{Key, Key6, Parsed};
use crate::route::{Fib, Hop, NeighbourUpdate};
use crate::service::Snapshot;
use crate::steer::{
    Alignment, KernelEnd, KernelFrame, MICROSOFT_KEY, Steer, Toeplitz, kernel_rings, mesh,
};
use crate::types::{CoreId, Mac, PortId, ServerId, Tick};
use crate::worker::{Setup, SetupError, Worker, WorkerPort};

/// Frames that fit each ring. One frame is under way at a time, and its parts.
const RING: usize = 256;
/// Turns of all workers after which they are left as they are: a packet needs some ten.
const TURNS: usize = 10_000;

/// What a director is made of.
#[derive(Debug, Clone)]
pub struct Scene {
    /// How many workers, 1 to 128.
    pub workers: u8,
    /// The ports, by index.
    pub ports: Vec<ScenePort>,
    /// Services and servers.
    pub snapshot: Arc<Snapshot>,
    /// Routes.
    pub fib: Arc<Fib>,
    /// Neighbours that are known from the start.
    pub neighbours: Vec<NeighbourUpdate>,
    /// Cells of workers elsewhere (those of a running daemon): schedulers that count connections
    /// count what stands there too.
    pub live: Vec<Arc<WorkerCounters>>,
    /// Connections that fit each worker's table, of either family.
    pub max_connections: u32,
    /// The longest frame that fits a buffer, bytes.
    pub frame_room: usize,
}

/// A port of a [`Scene`].
#[derive(Debug, Clone)]
pub struct ScenePort {
    /// Its MAC address.
    pub mac: Mac,
    /// Largest IP packet, bytes.
    pub mtu: u16,
    /// Whether its RSS agrees with the ownership function.
    pub alignment: Alignment,
    /// How many of the workers have a transmit queue on it.
    pub tx_queues: u8,
    /// Received L4 checksums may be partial without a mark.
    pub fill_checksums: bool,
}

/// Where a frame went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum To {
    /// Out of this port.
    Port(PortId),
    /// To this port's kernel twin.
    Kernel(PortId),
}

/// A connection as a packet finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Its owner.
    pub worker: CoreId,
    /// Which way the packet goes.
    pub dir: Direction,
    /// The client (CIP).
    pub client: SocketAddr,
    /// The virtual service (VIP).
    pub virtual_: SocketAddr,
    /// What the server sees as its client (LIP).
    pub local: SocketAddr,
    /// The real server (RIP).
    pub server: SocketAddr,
    /// The server's record.
    pub server_id: ServerId,
    /// How packets reach the server.
    pub mode: ForwardMode,
    /// Its state.
    pub state: State,
}

/// A director and what stands in it.
pub struct Replay {
    workers: Vec<Worker<SimQueue>>,
    counters: Vec<Arc<WorkerCounters>>,
    ports: Vec<SimPort>,
    pool: SimPool,
    steer: Steer,
    now: Tick,
    commands: Vec<Producer<Command>>,
    events: Vec<Consumer<Event>>,
    kernel: Vec<KernelEnd<SimFrame>>,
    unresolved: Vec<Hop>,
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay").finish_non_exhaustive()
    }
}

impl Replay {
    /// A director that has seen no packet yet, at `now`. The same scene and the same frames give
    /// the same answers.
    ///
    /// # Errors
    /// The connection tables' memory could not be had.
    pub fn new(scene: &Scene, now: Tick) -> Result<Replay, SetupError> {
        let toeplitz = Arc::new(Toeplitz::new(MICROSOFT_KEY));
        let steer = |me| Steer::new(CoreId(me), scene.workers, Arc::clone(&toeplitz));
        let n = usize::from(scene.workers);
        let mut ports = Vec::new();
        let mut ends: Vec<Vec<WorkerPort<SimQueue>>> = (0..n).map(|_| Vec::new()).collect();
        for (port, id) in scene.ports.iter().zip((0..).map(PortId)) {
            let spread = match port.alignment {
                Alignment::Aligned => Spread::Rss(steer(0)),
                Alignment::Unaligned => Spread::Anywhere,
            };
            let (wire, queues) = SimPort::new(n, n, port.tx_queues.into(), spread);
            ports.push(wire);
            for (queue, ports) in queues.into_iter().zip(&mut ends) {
                ports.push(WorkerPort {
                    id,
                    queue,
                    mac: port.mac,
                    mtu: port.mtu,
                    alignment: port.alignment,
                    tx_queues: port.tx_queues,
                    fill_checksums: port.fill_checksums,
                });
            }
        }
        let cells = || Arc::new(WorkerCounters::new(scene.ports.len()));
        let mut replay = Replay {
            workers: Vec::new(),
            counters: (0..n).map(|_| cells()).collect(),
            ports,
            pool: SimPool::with_room(scene.frame_room),
            steer: steer(0),
            now,
            commands: Vec::new(),
            events: Vec::new(),
            kernel: Vec::new(),
            unresolved: Vec::new(),
        };
        replay.reserve(&scene.snapshot);
        let links = mesh(scene.workers, RING);
        for (me, (ports, links)) in (0..scene.workers).zip(ends.into_iter().zip(links)) {
            let mut peers = replay.counters.clone();
            let counters = peers.remove(me.into());
            peers.extend(scene.live.iter().cloned());
            let (kernel, twin) = kernel_rings(RING);
            let (say, commands) = RingBuffer::new(RING);
            let (events, hear) = RingBuffer::new(RING);
            replay.workers.push(Worker::new(Setup {
                ports,
                steer: steer(me),
                pool: Box::new(replay.pool.clone()),
                links,
                kernel,
                commands,
                events,
                counters,
                peers,
                max_connections: scene.max_connections,
                max_connections6: scene.max_connections,
                pages: Pages::Plain,
                secret: [1, 2, 3, u64::from(me)],
                snapshot: Arc::clone(&scene.snapshot),
                fib: Arc::clone(&scene.fib),
                now,
            })?);
            replay.commands.push(say);
            replay.events.push(hear);
            replay.kernel.push(twin);
        }
        for neighbour in &scene.neighbours {
            replay.learn(*neighbour);
        }
        Ok(replay)
    }

    fn reserve(&self, snapshot: &Snapshot) {
        for counters in &self.counters {
            counters.reserve(snapshot);
        }
    }

    /// Lets the time be `now`, which must not go back, and what runs out run out.
    pub fn at(&mut self, now: Tick) {
        self.now = now;
        self.settle();
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Tick {
        self.now
    }

    /// Tells every worker of a neighbour; what waited for it leaves.
    pub fn learn(&mut self, neighbour: NeighbourUpdate) {
        self.tell(|| Command::Neighbour(neighbour));
    }

    /// Gives every worker another blacklist.
    pub fn shut_out(&mut self, blacklist: &Arc<Blacklist>) {
        self.tell(|| Command::Blacklist(Arc::clone(blacklist)));
    }

    /// Gives every worker other services.
    pub fn publish(&mut self, snapshot: &Arc<Snapshot>) {
        self.reserve(snapshot);
        self.tell(|| Command::Snapshot(Arc::clone(snapshot)));
    }

    fn tell(&mut self, command: impl Fn() -> Command) {
        if self.commands.iter().any(Producer::is_full) {
            self.settle();
        }
        for ring in &mut self.commands {
            let told = ring.push(command());
            debug_assert!(told.is_ok(), "there was room");
        }
    }

    /// The longest frame that [`Replay::feed`] takes, bytes.
    #[must_use]
    pub fn frame_room(&self) -> usize {
        self.pool.room()
    }

    /// Lets a frame arrive on a port, of which the port says `said` about its checksums, and the
    /// workers turn until nobody has anything to do; what left them. A frame that is longer than
    /// [`Replay::frame_room`] does not arrive.
    pub fn feed(&mut self, port: PortId, frame: &[u8], said: RxChecksum) -> Vec<(To, Vec<u8>)> {
        if let Some(wire) = self.ports.get(usize::from(port.0))
            && frame.len() <= self.pool.room()
        {
            wire.deliver(self.pool.frame_with(frame, said), 0);
        }
        self.settle();
        self.left()
    }

    /// Polls everyone until nobody has anything to do.
    fn settle(&mut self) {
        for _ in 0..TURNS {
            let work: usize = self.workers.iter_mut().map(|w| w.poll_once(self.now)).sum();
            for events in &mut self.events {
                while let Ok(event) = events.pop() {
                    if let Event::Resolve { port, addr } = event {
                        self.unresolved.push(Hop { port, addr });
                    }
                }
            }
            if work == 0 {
                return;
            }
        }
    }

    /// What has left the workers and was not taken yet.
    pub fn left(&mut self) -> Vec<(To, Vec<u8>)> {
        self.settle();
        let mut out = Vec::new();
        for (port, id) in self.ports.iter().zip((0..).map(PortId)) {
            while let Some(frame) = port.sent() {
                out.push((To::Port(id), frame.bytes().to_vec()));
            }
        }
        for kernel in &mut self.kernel {
            while let Ok(KernelFrame { port, frame }) = kernel.into.pop() {
                out.push((To::Kernel(port), frame.bytes().to_vec()));
            }
        }
        out
    }

    /// The neighbours that were asked for since the last call.
    pub fn unresolved(&mut self) -> Vec<Hop> {
        std::mem::take(&mut self.unresolved)
    }

    /// What the workers count.
    #[must_use]
    pub fn counters(&self) -> &[Arc<WorkerCounters>] {
        &self.counters
    }

    /// Frames that live: those held, when nothing is wrong.
    #[must_use]
    pub fn frames_alive(&self) -> usize {
        self.pool.live()
    }

    /// Connections standing, over all workers.
    #[must_use]
    pub fn connections(&self) -> u32 {
        let of = |w: &Worker<_>| w.conns().len() + w.conns6().len();
        self.workers.iter().map(of).sum()
    }

    /// The worker that owns the flow of this packet; `None` for what is no whole packet of one.
    #[must_use]
    pub fn owner(&self, packet: &Parsed) -> Option<CoreId> {
        match packet {
            Parsed::Flow(flow) => Some(self.steer.owner(&flow.key)),
            Parsed::Flow6(flow) => Some(self.steer.owner(&flow.key)),
            Parsed::Other(_) => None,
        }
    }

    /// The connection that this packet is of, whichever worker has it.
    #[must_use]
    pub fn connection(&self, packet: &Parsed) -> Option<Standing> {
        let workers = (0..).map(CoreId).zip(&self.workers);
        match packet {
            Parsed::Flow(flow) => workers.clone().find_map(|(core, w)| {
                find(core, w.conns(), flow.key)
                    .or_else(|| find(core, w.conns6(), Key6::from(flow.key)))
            }),
            Parsed::Flow6(flow) => workers
                .clone()
                .find_map(|(core, w)| find(core, w.conns6(), flow.key)),
            Parsed::Other(_) => None,
        }
    }
}

fn find<K: Key>(worker: CoreId, conns: &ConnTable<K>, key: K) -> Option<Standing> {
    let hit = conns.lookup(conns.hash(&key), &key)?;
    let conn: &Conn<K> = conns.get(hit.id);
    conn.is_connection().then(|| Standing {
        worker,
        dir: hit.dir,
        client: conn.client(),
        virtual_: conn.virtual_(),
        local: conn.local(),
        server: conn.server(),
        server_id: conn.server_id(),
        mode: conn.mode(),
        state: conn.state(),
    })
}
