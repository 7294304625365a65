//! Weir as the device under test: the product's worker on one core, one-armed on one port. A
//! process of its own (hidden subcommand `forward`). `mark` on stdin is answered by one line of
//! JSON ([`Mark`]) on stdout; the end of stdin ends it.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anyhow::Context;
use rtrb::RingBuffer;
use serde::{Deserialize, Serialize};
use weir_dataplane::command::Command;
use weir_dataplane::conn::Pages;
use weir_dataplane::counters::{Cell, DropReason, WorkerCounters};
use weir_dataplane::io::dpdk::{DpdkQueue, Pool, PortHandle};
use weir_dataplane::service::Policy;
use weir_dataplane::steer::{MICROSOFT_KEY, Steer, Toeplitz, kernel_rings, mesh};
use weir_dataplane::worker::{Setup, Worker, WorkerPort};
use weir_dataplane::{CoreId, PortId, Tick};

use super::port::{open, take_core};
use crate::clock::{cycles, cycles_per_ns};
use crate::pipeline::mode;
use crate::testbed::{WAN, fib, neighbours, snapshot};

/// How the worker is run.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Device string of its end.
    #[arg(long)]
    device: String,
    /// Name for DPDK's files.
    #[arg(long)]
    prefix: String,
    /// The worker's CPU.
    #[arg(long)]
    core: usize,
    /// Connections that the table holds.
    #[arg(long)]
    connections: u32,
    /// Seconds that closing states last.
    #[arg(long, default_value_t = 1)]
    closing: u32,
    /// How servers are reached.
    #[arg(long, default_value = "fullnat")]
    mode: String,
    /// Memory on huge pages.
    #[arg(long)]
    huge: bool,
}

/// Sums since the start.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// Frames received.
    pub(crate) packets: u64,
    /// Cycles of turns that found work.
    pub(crate) busy_cycles: u64,
    /// Cycles of all turns.
    pub(crate) all_cycles: u64,
    /// Cycles of turns longer than [`PAUSE_NS`].
    pub(crate) paused_cycles: u64,
    /// Frames dropped, by reason, where there were any.
    pub(crate) drops: BTreeMap<String, u64>,
    /// Connections that stand.
    pub(crate) connections: u64,
    /// Connections that gave way to others in a full table.
    pub(crate) evicted: u64,
}

impl Mark {
    fn of(counters: &WorkerCounters, spent: &Spent) -> Mark {
        let drops = DropReason::ALL
            .iter()
            .map(|r| (r.name().to_owned(), counters.drops[*r as usize].get()));
        Mark {
            packets: counters.rx_packets.get(),
            busy_cycles: spent.busy.get(),
            all_cycles: spent.all.get(),
            paused_cycles: spent.paused.get(),
            drops: drops.filter(|(_, n)| *n > 0).collect(),
            connections: counters.conns.get(),
            evicted: counters.conns_evicted.get(),
        }
    }
}

/// What the worker's thread counts besides the worker.
#[derive(Debug, Default)]
struct Spent {
    busy: Cell,
    all: Cell,
    paused: Cell,
}

/// A turn is some 32 packets: one that takes longer than this was interrupted, by the kernel's timer
/// or the hypervisor.
const PAUSE_NS: f64 = 20_000.0;

/// The worker's life.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (pool, mut port) = open(&args.device, &args.prefix, args.huge)?;
    let end = WorkerPort {
        id: PortId(0),
        queue: port.queues.pop().context("the port has no queue")?,
        mac: port.mac,
        mtu: port.mtu,
        alignment: port.alignment,
        tx_queues: port.tx_queues,
        fill_checksums: false,
    };
    let handle = &port.handle;
    let counters = Arc::new(WorkerCounters::new(1));
    let (spent, stop) = (Arc::new(Spent::default()), Arc::new(AtomicBool::new(false)));
    let per_tick = (cycles_per_ns() * 1e9) as u64 / u64::from(Tick::PER_SECOND);
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let end = end; // the queue moves in: it is one thread's
            let registered = take_core(args.core)?;
            let done = work(args, pool, end, &counters, &spent, &stop, per_tick);
            drop(registered); // after the worker's frames went back to the thread's cache
            done
        });
        let answered = answer(handle, &counters, &spent, || worker.is_finished());
        stop.store(true, Relaxed);
        let worked = worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        worked.and(answered)
    })
}

/// Answers marks until stdin ends.
fn answer(
    port: &PortHandle,
    counters: &WorkerCounters,
    spent: &Spent,
    ended: impl Fn() -> bool,
) -> anyhow::Result<()> {
    // A memif client that found nobody tries again when it is asked for its link.
    while !port.link().up && !ended() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    for line in std::io::stdin().lock().lines() {
        if line? != "mark" || ended() {
            break;
        }
        let mark = Mark::of(counters, spent);
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(&mark)?)?;
        out.flush()?;
    }
    Ok(())
}

fn work(
    args: &Args,
    pool: Pool,
    port: WorkerPort<DpdkQueue>,
    counters: &Arc<WorkerCounters>,
    spent: &Spent,
    stop: &AtomicBool,
    per_tick: u64,
) -> anyhow::Result<()> {
    let mut now = Tick(0);
    let (kernel, _twin) = kernel_rings(256);
    let (mut say, commands) = RingBuffer::new(64);
    let (events, _hear) = RingBuffer::new(64);
    for update in neighbours(WAN) {
        say.push(Command::Neighbour(update))?;
    }
    let mut worker = Worker::new(Setup {
        ports: vec![port],
        steer: Steer::new(CoreId(0), 1, Arc::new(Toeplitz::new(MICROSOFT_KEY))),
        pool: Box::new(pool),
        links: mesh(1, 8).pop().context("no links")?,
        kernel,
        commands,
        events,
        counters: Arc::clone(counters),
        peers: vec![],
        max_connections: args.connections,
        max_connections6: 1,
        pages: Pages::Huge,
        secret: [0x5eed, 2, 3, 4],
        snapshot: Arc::new(snapshot(
            args.connections,
            args.closing,
            mode(&args.mode)?,
            Policy::default(),
            counters,
        )),
        fib: Arc::new(fib(WAN)),
        now,
    })?;
    let pause = (cycles_per_ns() * PAUSE_NS) as u64;
    let (mut before, mut next) = (cycles(), cycles() + per_tick);
    while !stop.load(Relaxed) {
        let work = worker.poll_once(now);
        let after = cycles();
        spent.all.add(after - before);
        if work > 0 {
            spent.busy.add(after - before);
        }
        if after - before > pause {
            spent.paused.add(after - before);
        }
        if after >= next {
            (now, next) = (now.after(1), next + per_tick);
        }
        before = after;
    }
    Ok(())
}
