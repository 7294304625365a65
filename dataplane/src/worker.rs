//! READ FIRST. The run-to-completion loop of one core.
//!
//! What a worker owns, it owns alone: its queues, its connection table, its timers, its local
//! ports, its counters. [`Worker::poll_once`] is one turn of the loop and is given the time and
//! the randomness, so a seed replays everything.
#![forbid(unsafe_code)]

use std::sync::Arc;

use rtrb::{Consumer, Producer};

use crate::command::{Command, Event};
use crate::counters::WorkerCounters;
use crate::io::PortQueue;
use crate::route::Fib;
use crate::service::Snapshot;
use crate::steer::{Alignment, KernelEnd, Links, Steer};
use crate::types::{Mac, PortId, Tick};

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
#[derive(Debug)]
pub struct Setup<Q: PortQueue> {
    /// All ports, by index.
    pub ports: Vec<WorkerPort<Q>>,
    /// Who owns what.
    pub steer: Steer,
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
    /// Connections that fit the table.
    pub max_connections: u32,
    /// Key of the table's hash, random at each start.
    pub secret: [u64; 4],
    /// The first snapshot.
    pub snapshot: Arc<Snapshot>,
    /// The first routes.
    pub fib: Arc<Fib>,
    /// Now.
    pub now: Tick,
}
