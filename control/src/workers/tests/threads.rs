//! Real threads with real workers on simulated ports.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use rtrb::{Producer, RingBuffer};
use weir_dataplane::command::Command;
use weir_dataplane::conn::Pages;
use weir_dataplane::counters::WorkerCounters;
use weir_dataplane::io::sim::{SimFrame, SimPool, SimPort, SimQueue, Spread};
use weir_dataplane::route::Fib;
use weir_dataplane::service::Snapshot;
use weir_dataplane::steer::{
    Alignment, KernelEnd, MICROSOFT_KEY, Steer, Toeplitz, kernel_rings, mesh,
};
use weir_dataplane::worker::WorkerPort;
use weir_dataplane::{Mac, PortId};

use super::*;

/// Threads whose guards live.
static GUARDS: AtomicUsize = AtomicUsize::new(0);

struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        GUARDS.fetch_sub(1, SeqCst);
    }
}

fn register() -> Result<Guard, String> {
    let name = std::thread::current().name().map(str::to_owned);
    assert!(name.is_some_and(|name| name.starts_with("weir-w")));
    GUARDS.fetch_add(1, SeqCst);
    Ok(Guard)
}

struct Lab {
    setups: Vec<Setup<SimQueue>>,
    commands: Vec<Producer<Command>>,
    counters: Vec<Arc<WorkerCounters>>,
    _twin_ends: Vec<KernelEnd<SimFrame>>,
}

fn lab(workers: u8) -> Lab {
    let mut lab = Lab {
        setups: Vec::new(),
        commands: Vec::new(),
        counters: Vec::new(),
        _twin_ends: Vec::new(),
    };
    let toeplitz = Arc::new(Toeplitz::new(MICROSOFT_KEY));
    let n = workers.into();
    let (_, ends) = SimPort::new(n, n, n, Spread::Anywhere);
    for ((core, links), queue) in (0..workers).map(CoreId).zip(mesh(workers, 8)).zip(ends) {
        let (command, commands) = RingBuffer::new(8);
        let (events, _) = RingBuffer::new(64);
        let (kernel, twin_end) = kernel_rings(8);
        let counters = Arc::new(WorkerCounters::new(1));
        lab.setups.push(Setup {
            ports: vec![WorkerPort {
                id: PortId(0),
                queue,
                mac: Mac([2; 6]),
                mtu: 1500,
                alignment: Alignment::Unaligned,
                tx_queues: workers,
                fill_checksums: false,
            }],
            steer: Steer::new(core, workers, Arc::clone(&toeplitz)),
            pool: Box::new(SimPool::default()),
            links,
            kernel,
            commands,
            events,
            counters: Arc::clone(&counters),
            peers: vec![],
            max_connections: 1024,
            max_connections6: 64,
            pages: Pages::Plain,
            secret: [5; 4],
            snapshot: Snapshot::empty(),
            fib: Fib::empty(),
            now: Clock::start().now().tick(),
        });
        lab.commands.push(command);
        lab.counters.push(counters);
        lab._twin_ends.push(twin_end);
    }
    lab
}

fn placements(cpus: &[usize]) -> Vec<Placement> {
    let idle = Idle::Sleep;
    cpus.iter().map(|&cpu| Placement { cpu, idle }).collect()
}

fn a_cpu() -> usize {
    core_affinity::get_core_ids().unwrap()[0].id
}

#[test]
fn workers_turn_until_they_are_stopped_and_guards_go_after_them() {
    let mut lab = lab(3);
    let cpus = placements(&[a_cpu(); 3]); // more workers than CPUs
    let threads = WorkerThreads::start(lab.setups, &cpus, Clock::start(), register).unwrap();
    assert_eq!(GUARDS.load(SeqCst), 3);
    let turns = |c: &WorkerCounters| c.idle_polls.get() + c.busy_polls.get();
    for counters in &lab.counters {
        let before = turns(counters);
        while turns(counters) < before + 10 {
            std::thread::yield_now();
        }
    }
    assert!(!threads.ended());
    for commands in &mut lab.commands {
        commands.push(Command::Stop).unwrap();
    }
    threads.join();
    assert_eq!(GUARDS.load(SeqCst), 0);
}

#[test]
fn a_worker_that_cannot_be_placed_is_named() {
    for cpu in [1023, 4095] {
        let lab = lab(1);
        let cpus = placements(&[cpu]);
        let error = WorkerThreads::start(lab.setups, &cpus, Clock::start(), register).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "worker 0: cannot run on CPU {cpu}; is it online and in this process's cpuset? \
                 See [workers] cores"
            )
        );
    }
}

#[test]
fn what_dpdk_says_is_passed_on() {
    let lab = lab(1);
    let no = || Err::<(), _>("no lcore id left".to_owned());
    let cpus = placements(&[a_cpu()]);
    let error = WorkerThreads::start(lab.setups, &cpus, Clock::start(), no).unwrap_err();
    assert_eq!(error.to_string(), "worker 0: no lcore id left");
}
