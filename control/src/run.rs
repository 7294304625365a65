//! The daemon from start to stop: what is made, in which order, and taken away in reverse.
//!
//! ```text
//! configuration, log, API socket    nothing is touched when another weir runs
//! DPDK: EAL, buffers, ports         run/dpdk.rs; run/ports.rs: their VLANs
//! kernel twins                      without carrier
//! worker threads, twin thread       they turn, with no services yet
//! carrier, mirror, port addresses   the kernel sees the network
//! control loop                      services to the workers, then their addresses; ready
//! ```
#![forbid(unsafe_code)]

use std::io::Read;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use rtrb::RingBuffer;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use weir_dataplane::conn::Pages;
use weir_dataplane::counters::WorkerCounters;
use weir_dataplane::io::dpdk::{DpdkQueue, Mbuf, WorkerThread};
use weir_dataplane::io::vlan::{self, VlanQueue};
use weir_dataplane::route::Fib;
use weir_dataplane::service::Snapshot;
use weir_dataplane::steer::{self, BUCKETS, KernelEnd, MICROSOFT_KEY, Steer, Toeplitz};
use weir_dataplane::worker::{Setup, WorkerPort};
use weir_dataplane::{CoreId, PortId};

use crate::api;
use crate::config::{self, Config};
use crate::control::kernel;
use crate::control::link::WorkerLink;
use crate::control::members::Members;
use crate::control::ports::{Outside, Port};
use crate::control::{self, Control, Inputs, Parts, systemd};
use crate::log;
use crate::net::{Mirror, NetEvent, NetHandle, PortAddress, TwinThread};
use crate::workers::{self, Clock, Placement, WorkerThreads};

mod dpdk;
mod outside;
mod ports;

use dpdk::Dataplane;
use outside::Outsides;
use ports::Opened;

/// Commands that fit a worker's ring; what does not fit waits in control.
const COMMANDS: usize = 1024;
/// Events of a worker: a question for each parked frame (256), a page and retired snapshots,
/// for some turns of the control loop.
const EVENTS: usize = 1024;
/// Frames between a worker and the twin thread, each way: a burst of a few hundred
/// microseconds' worth of system calls.
const KERNEL_RING: usize = 512;
/// How long workers may take to end.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Frames on the ring between two of `workers` workers: a worker that loses its CPU for some
/// milliseconds loses nothing, and 128 workers' 16,256 rings still fit a machine.
fn handoff_ring(workers: u8) -> usize {
    (2048 / usize::from(workers.max(1))).clamp(64, 1024)
}

/// Runs the daemon until it is told to stop. `format` overrides the configuration's log format.
///
/// # Errors
/// Why it did not start, or why it ended by itself; what was made is taken away again.
pub(crate) fn run(file: &Path, socket: &Path, format: Option<log::Format>) -> anyhow::Result<()> {
    let config = config::load(file)?;
    for surprise in config::surprises(&config) {
        tracing::warn!("{}: {surprise}", file.display());
    }
    let format = format.unwrap_or(config.log.format.into());
    log::init(format, config.log.level)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the control thread's runtime")?;
    runtime.block_on(async {
        let (stop, reload) = signals().context("cannot listen to signals")?;
        let (_socket, listener) = api::socket::listen(socket)?;
        let (api, requests) = mpsc::channel(api::server::WAITING);
        let mut appliance = Appliance::start(file, config)?;
        let net = appliance.connect().await?;
        tokio::spawn(api::server::serve(listener, api));
        let mut inputs = Inputs {
            requests,
            net: net.events,
            reload,
            stop,
        };
        let ended = appliance.control.run(&mut inputs).await;
        match &ended {
            Ok(()) => tracing::info!("stopping"),
            Err(error) => tracing::error!("stopping: {error:#}"),
        }
        systemd::stopping();
        net.handle.shutdown().await; // addresses go while workers still serve them
        appliance.stop().await?;
        tracing::info!("stopped");
        ended
    })
}

/// The first SIGTERM or SIGINT, and every SIGHUP. A second SIGTERM or SIGINT ends the process.
fn signals() -> std::io::Result<(oneshot::Receiver<()>, mpsc::Receiver<()>)> {
    let (stop, stopped) = oneshot::channel();
    let (reload, reloads) = mpsc::channel(1);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        let mut stop = Some(stop);
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {
                    let _ = reload.try_send(()); // one waits already: it reads the same file
                    continue;
                }
            }
            match stop.take() {
                Some(stop) => drop(stop.send(())), // the loop may have ended by itself
                None => {
                    tracing::warn!("told to stop again: exiting at once");
                    std::process::exit(1);
                }
            }
        }
    });
    Ok((stopped, reloads))
}

/// Everything that runs beside the control thread, and the control loop's state.
struct Appliance {
    control: Control,
    threads: WorkerThreads,
    twin_thread: TwinThread,
    /// The kernel's side of the control loop, until [`Appliance::connect`] takes it.
    kernel: Option<kernel::KernelTasks>,
    port_addresses: Vec<PortAddress>,
    /// Last: dropped after everything that uses them.
    outsides: Outsides,
}

/// The mirror's two ends.
struct Net {
    handle: NetHandle,
    events: mpsc::Receiver<NetEvent>,
}

impl Appliance {
    /// Ports, twins, workers and the twin thread, in this order.
    fn start(file: &Path, config: Config) -> anyhow::Result<Appliance> {
        let workers = config.workers.cores.workers();
        let pairs = usize::from(workers) * usize::from(workers - 1);
        let handoffs = handoff_ring(workers);
        let between = pairs * (handoffs + steer::errand_room(handoffs));
        let vlans = config
            .ports
            .iter()
            .filter(|port| port.vlan.is_some())
            .count();
        let rings = between + (2 * KERNEL_RING + vlan::HELD * vlans) * usize::from(workers);
        let dataplane = dpdk::open(&config, MICROSOFT_KEY, rings)?;
        let outsides = Outsides::create(&dataplane.ports)?;
        let ports = control_ports(&dataplane, &outsides);
        let pool = dataplane.pool.clone();
        let placements = workers::place(&config.workers);
        let clock = Clock::start();
        let made = make_workers(&config, dataplane, &placements, clock)?;
        let register = || WorkerThread::register().map_err(|e| e.to_string());
        let threads = WorkerThreads::start(made.setups, &placements, clock, register)?;
        let twin_thread = TwinThread::spawn(outsides.ios(), made.kernel_ends, pool)
            .context("cannot start the twin thread")?;
        let (kernel, tasks) = kernel::channel();
        let port_addresses = port_addresses(&config);
        let control = Control::new(Parts {
            config_file: file.to_owned(),
            config,
            workers: made.control_ends,
            ports,
            twins: Some(Arc::clone(twin_thread.counters())),
            kernel,
            ticks_began_s: clock.began_s(),
        })?;
        Ok(Appliance {
            control,
            threads,
            twin_thread,
            kernel: Some(tasks),
            port_addresses,
            outsides,
        })
    }

    /// Carrier on the twins, then the kernel's network: mirrored, and given the ports'
    /// addresses.
    async fn connect(&mut self) -> anyhow::Result<Net> {
        self.control.follow_links();
        let (handle, events) =
            Mirror::start(self.outsides.infos()).context("cannot follow the kernel's network")?;
        let addresses = std::mem::take(&mut self.port_addresses);
        if let Err(problems) = handle.set_port_addresses(addresses).await {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            handle.shutdown().await;
            anyhow::bail!("{}", problems.join("; "));
        }
        if let Some(tasks) = self.kernel.take() {
            tokio::spawn(kernel::run(tasks, handle.clone()));
        }
        Ok(Net { handle, events })
    }

    /// Workers end, then the twin thread, the twins and the ports.
    async fn stop(mut self) -> anyhow::Result<()> {
        self.control.stop_workers();
        let began = Instant::now();
        while !self.threads.ended() {
            self.control.turn();
            if began.elapsed() > STOP_WITHIN {
                let seconds = STOP_WITHIN.as_secs();
                anyhow::bail!("a worker did not end within {seconds} seconds; twins are left");
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.threads.join();
        self.twin_thread.stop();
        drop(self.control);
        self.outsides.remove();
        Ok(())
    }
}

/// The ports as the control loop sees them.
fn control_ports(dataplane: &Dataplane, outsides: &Outsides) -> Vec<Port> {
    let ports = dataplane.ports.iter().zip(outsides.iter());
    let port = |(open, outside): (&Opened, &Rc<_>)| Port {
        id: open.id,
        name: open.name.clone(),
        device: open.device.clone(),
        driver: open.driver.clone(),
        mac: open.mac,
        mtu: open.mtu,
        mtu_limit: open.mtu,
        alignment: open.alignment,
        rx_queues: open.rx_queues,
        tx_queues: open.tx_queues,
        outside: Rc::clone(outside) as Rc<dyn Outside>,
        carrier: false,
        members: Members::default(),
    };
    ports.map(port).collect()
}

fn port_addresses(config: &Config) -> Vec<PortAddress> {
    let ports = config.ports.iter().zip(0..);
    let addresses = ports.flat_map(|(port, index)| {
        port.addresses.iter().map(move |at| PortAddress {
            port: PortId(index),
            addr: at.address,
            prefix_len: at.prefix,
        })
    });
    addresses.collect()
}

/// What the workers are made of, and the other ends of their rings.
struct Made {
    setups: Vec<Setup<VlanQueue<DpdkQueue>>>,
    control_ends: Vec<control::Worker>,
    kernel_ends: Vec<KernelEnd<Mbuf>>,
}

fn make_workers(
    config: &Config,
    dataplane: Dataplane,
    placements: &[Placement],
    clock: Clock,
) -> anyhow::Result<Made> {
    let workers = config.workers.cores.workers();
    let toeplitz = Arc::new(Toeplitz::new(MICROSOFT_KEY));
    let pool = dataplane.pool;
    let secret = secret().context("/dev/urandom")?;
    let mut made = Made {
        setups: Vec::new(),
        control_ends: Vec::new(),
        kernel_ends: Vec::new(),
    };
    let mut lanes = worker_ports(dataplane.ports);
    let links = steer::mesh(workers, handoff_ring(workers));
    let counters: Vec<Arc<WorkerCounters>> = (0..workers)
        .map(|_| Arc::new(WorkerCounters::new(config.ports.len())))
        .collect();
    for ((core, links), placement) in (0..workers).map(CoreId).zip(links).zip(placements) {
        let steer = Steer::new(core, workers, Arc::clone(&toeplitz));
        let (kernel, kernel_end) = steer::kernel_rings(KERNEL_RING);
        let (command, commands) = RingBuffer::new(COMMANDS);
        let (events, event) = RingBuffer::new(EVENTS);
        let mut peers = counters.clone();
        let counters = peers.remove(core.0.into());
        let snapshot = Snapshot::empty();
        made.control_ends.push(control::Worker {
            link: WorkerLink::new(
                core,
                command,
                event,
                Arc::clone(&counters),
                snapshot.generation,
            ),
            cpu: placement.cpu,
            idle: placement.idle.name(),
        });
        made.kernel_ends.push(kernel_end);
        made.setups.push(Setup {
            ports: lanes.iter_mut().filter_map(Iterator::next).collect(),
            pool: Box::new(pool.clone()),
            links,
            kernel,
            commands,
            events,
            counters,
            peers,
            max_connections: share(config.workers.max_connections, &steer),
            max_connections6: share(config.workers.max_connections6, &steer),
            pages: match config.workers.hugepages {
                true => Pages::Huge,
                false => Pages::Plain,
            },
            secret,
            snapshot,
            fib: Fib::empty(),
            now: clock.now().tick(),
            steer,
        });
    }
    Ok(made)
}

/// Each port's lanes, one for each worker in turn.
fn worker_ports(ports: Vec<Opened>) -> Vec<impl Iterator<Item = WorkerPort<VlanQueue<DpdkQueue>>>> {
    let lanes = ports.into_iter().map(|open| {
        open.queues.into_iter().map(move |queue| WorkerPort {
            id: open.id,
            queue,
            mac: open.mac,
            mtu: open.mtu,
            alignment: open.alignment,
            tx_queues: open.tx_queues,
            fill_checksums: open.fill_checksums,
        })
    });
    lanes.collect()
}

/// One worker's part of `all` connections: as many as its part of the ownership map, so that
/// the worker with one bucket more is not full before the others.
fn share(all: u32, steer: &Steer) -> u32 {
    let buckets = steer.buckets_of(steer.me()).count() as u64;
    (u64::from(all) * buckets).div_ceil(BUCKETS as u64) as u32
}

/// The key of the connection tables' hash: nobody outside can aim at one bucket.
fn secret() -> std::io::Result<[u64; 4]> {
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let (words, _) = bytes.as_chunks::<8>();
    Ok(std::array::from_fn(|i| u64::from_ne_bytes(words[i])))
}

#[cfg(test)]
mod tests;
