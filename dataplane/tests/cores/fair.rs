//! Schedulers that count, on many cores: in the long run as fair as one core would be.
//!
//! Real schedulers, loads and counters; connections without packets, on a virtual clock.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::sync::Arc;

use weir_dataplane::counters::WorkerCounters;
use weir_dataplane::sched::{Loads, Memory, Options, Request, Scheduler, SchedulerKind};
use weir_dataplane::service::Candidate;
use weir_dataplane::{CoreId, ServerId, Tick};

const WEIGHTS: [u32; 8] = [100, 100, 50, 25, 100, 200, 10, 75];
/// Connections opened in one tick, 1/64 s: 51,200 a second.
const OPENS: usize = 800;
/// Shortest and longest a connection lives, ticks; half the time is spent closing.
const LIVES: (u64, u64) = (64, 4 * 64);

struct Core {
    counters: Arc<WorkerCounters>,
    loads: Loads,
    memory: Memory,
}

/// The share of standing connections that each server has, in parts of a million, on the average
/// over the last half of the time.
fn shares(kind: SchedulerKind, cores: u8, seed: u64) -> Vec<f64> {
    let at = |id: u32| SocketAddr::from(([10, 1, 0, id as u8], 80));
    let servers: Vec<_> = (0..)
        .zip(WEIGHTS)
        .map(|(id, weight)| Candidate::new(ServerId(id), at(id), weight))
        .collect();
    let scheduler = Scheduler::new(kind, Options::default(), &servers);
    let counters: Vec<_> = (0..cores)
        .map(|_| Arc::new(WorkerCounters::new(0)))
        .collect();
    counters.iter().for_each(|c| c.servers.reserve(ServerId(0)));
    let core = |me: u8| {
        let mut peers = counters.clone();
        let own = peers.remove(me.into());
        let mut core = Core {
            counters: Arc::clone(&own),
            loads: Loads::new(own, peers),
            memory: Memory::new(CoreId(me), cores, seed),
        };
        core.memory.adopt(&[], &scheduler, &servers);
        core.loads
            .watch(servers.len(), servers.iter().map(|s| s.id));
        core
    };
    let mut all: Vec<Core> = (0..cores).map(core).collect();
    let mut dice = seed;
    let mut random = move |below: u64| {
        dice = dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % below
    };
    // When, whose, which server, and whether it is to close then or to go.
    let mut ends = BinaryHeap::<Reverse<(u64, usize, u32, bool)>>::new();
    let mut sums = vec![0u64; servers.len()];
    let ticks = 64 * 16;
    for tick in 0..ticks {
        let now = Tick(tick as u32 + 1);
        while ends.peek().is_some_and(|Reverse(end)| end.0 <= tick) {
            let Some(Reverse((_, core, server, closes))) = ends.pop() else {
                break;
            };
            let cells = all[core].counters.servers.get(ServerId(server)).unwrap();
            match closes {
                true => {
                    cells.active.sub(1);
                    cells.inactive.add(1);
                    ends.push(Reverse((tick + 64, core, server, false)));
                }
                false => cells.inactive.sub(1),
            }
        }
        all.iter_mut().for_each(|core| core.loads.fold(now));
        for _ in 0..OPENS {
            let at = random(u64::from(cores)) as usize;
            let core = &mut all[at];
            let request = Request {
                key: None,
                source: SocketAddr::from(([192, 0, 2, 1], 1024)),
                destination: [10, 0, 0, 10].into(),
                now,
            };
            let pick = scheduler.pick(&servers, &mut core.loads, &request, &mut core.memory);
            let server = servers[pick.unwrap()].id;
            core.counters.servers.get(server).unwrap().active.add(1);
            let life = LIVES.0 + random(LIVES.1 - LIVES.0);
            ends.push(Reverse((tick + life, at, server.0, true)));
        }
        if tick >= ticks / 2 {
            for (sum, server) in sums.iter_mut().zip(&servers) {
                let cells = counters.iter().filter_map(|c| c.servers.get(server.id));
                *sum += cells
                    .map(|c| c.active.get() + c.inactive.get())
                    .sum::<u64>();
            }
        }
    }
    let all = sums.iter().sum::<u64>() as f64;
    sums.iter().map(|sum| *sum as f64 * 1e6 / all).collect()
}

#[test]
fn sixteen_cores_are_as_fair_as_one() {
    let mut worst = 0f64;
    for kind in [
        SchedulerKind::wlc,
        SchedulerKind::lc,
        SchedulerKind::sed,
        SchedulerKind::nq,
    ] {
        let one = shares(kind, 1, 1);
        for cores in [2, 8, 16] {
            let many = shares(kind, cores, u64::from(cores));
            for (server, (one, many)) in one.iter().zip(&many).enumerate() {
                let off = (many - one).abs() / one;
                let name = kind.name();
                println!(
                    "{name} on {cores} cores: server {server}: {:.2} % off",
                    off * 100.0
                );
                worst = worst.max(off);
            }
        }
    }
    assert!(
        worst < 0.01,
        "a server's share is {:.2} % off",
        worst * 100.0
    );
}
