//! What a worker is made of, and the making of it.
#![forbid(unsafe_code)]

use std::sync::Arc;

use arrayvec::ArrayVec;
use rtrb::{Consumer, Producer};

use super::servers::Servers;
use super::{Lane, Worker};
use crate::command::{Command, Event};
use crate::conn::side::SideTable;
use crate::conn::templates::Templates;
use crate::conn::{ConnTable, Pages};
use crate::counters::WorkerCounters;
use crate::defense::Policer;
use crate::defense::limits::Limiter;
use crate::defense::pressure::Defense;
use crate::frag;
use crate::helper::expected::Expectations;
use crate::io::{Burst, FramePool, PortQueue};
use crate::lip::LocalPorts;
use crate::packet::Key;
use crate::packet::ids::IpIds;
use crate::pipeline::{DATAGRAMS, Farewells, PuntPolicers, Side, Sides, SynProxies};
use crate::route::{Fib, Neighbours, OwnEnd, Parking, PathMtus};
use crate::sched::Loads;
use crate::service::Snapshot;
use crate::steer::{Alignment, KernelEnd, Links, Steer, UselessKey};
use crate::types::{Mac, PortId, Tick};

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
        let mut neighbours = Neighbours::default();
        for port in &ports {
            let (mac, mtu) = (port.mac, port.mtu);
            neighbours.set_own_end(port.id, OwnEnd { mac, mtu });
        }
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
            neighbours,
            servers: Servers::default(),
            standings: Vec::new(),
            forsaken: false,
            secure_tcp: false,
            parking: Parking::default(),
            path_mtus: PathMtus::new(secret[3]),
            defense: Defense::new(setup.now),
            proxies,
            punt: PuntPolicers::new(setup.now),
            answers: Policer::new(ANSWERS_A_SECOND, setup.now),
            sizes_told: Policer::new(ANSWERS_A_SECOND, setup.now),
            redirect_ticks: 0,
            ids,
            fragments: frag::Store::new(DATAGRAMS, frag::FRAGMENTS_HELD as u16, secret[2]),
            asking: None,
            records,
            templates,
            expected: Expectations::new(secret),
            findings: Some(Box::default()),
            commands,
            events,
            counters,
            stopped: false,
        };
        worker.use_snapshot(setup.snapshot);
        Ok(worker)
    }
}

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
