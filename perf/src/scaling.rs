//! One worker and two, and what a frame costs that arrives at the wrong one.
//!
//! No link and no generator beside the workers: on a machine of two cores both are the
//! workers' own while the clock runs. A round puts packets on every worker's receive ring (not
//! timed); then all workers start together and run until all packets are through (timed).
//!
//! - `aligned`: RSS agrees with the ownership function, each flow arrives at its owner;
//! - `unaligned`: every flow arrives anywhere: with two workers, half of the frames change
//!   cores on a ring.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::time::Instant;

use serde::Serialize;
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::packet::tcp::flags::{ACK, SYN};
use weir_dataplane::packet::{Key, Key4, Parsed, parse};
use weir_dataplane::steer::{Alignment, Links, MICROSOFT_KEY, Steer, Toeplitz, mesh};
use weir_dataplane::{CoreId, Proto};

use crate::port::BenchFrame;
use crate::table::{self, Row, count};
use crate::testbed::{BUFFERS, Rng, Seat, Side, Testbed, VIP, client, from_server, to_vip};

/// Frames a worker is given in one round.
const ROUND: usize = BUFFERS / 2;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Workers, one row for each steering.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2])]
    workers: Vec<u8>,
    /// Standing connections of each worker.
    #[arg(long, default_value_t = 64_000)]
    flows: u64,
    /// Timed rounds.
    #[arg(long, default_value_t = 200)]
    rounds: usize,
}

#[derive(Debug, Serialize)]
struct Measured {
    workers: u8,
    steering: &'static str,
    flows: u64,
    /// All workers together, millions a second; of the fastest round and the median one.
    mpps_max: f64,
    mpps_median: f64,
    /// Part of the frames that changed cores.
    handed_over: f64,
    /// Of the fastest round, over that of one aligned worker.
    speedup: f64,
}

impl Row for Measured {
    const TITLES: &'static [&'static str] = &[
        "workers",
        "steering",
        "flows each",
        "Mpps max",
        "median",
        "handed over",
        "speedup",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.workers.to_string(),
            self.steering.into(),
            count(self.flows as f64),
            format!("{:.2}", self.mpps_max),
            format!("{:.2}", self.mpps_median),
            format!("{:.1} %", self.handed_over * 100.0),
            format!("{:.2}", self.speedup),
        ]
    }
}

/// Runs all rows.
pub(crate) fn run(args: &Args, json: bool) -> anyhow::Result<()> {
    anyhow::ensure!(args.rounds > 0, "rounds 0: use at least 1");
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let mut rows: Vec<Measured> = Vec::new();
    for &workers in &args.workers {
        anyhow::ensure!(
            (1..=cores.len()).contains(&usize::from(workers)),
            "workers {workers}: use 1 to {}: a worker needs a core of its own",
            cores.len()
        );
        for (steering, alignment) in [
            ("aligned", Alignment::Aligned),
            ("unaligned", Alignment::Unaligned),
        ] {
            let mut row = measure(args, workers, steering, alignment, &cores)?;
            row.speedup = row.mpps_max / rows.first().map_or(row.mpps_max, |r| r.mpps_max);
            rows.push(row);
        }
    }
    table::print("scaling", &rows, json)
}

/// What the workers' threads share.
struct Shared {
    gate: Barrier,
    /// Frames that are through, in the round that runs.
    through: AtomicU64,
}

fn measure(
    args: &Args,
    workers: u8,
    steering: &'static str,
    alignment: Alignment,
    cores: &[core_affinity::CoreId],
) -> anyhow::Result<Measured> {
    let shared = Shared {
        gate: Barrier::new(usize::from(workers)),
        through: AtomicU64::new(0),
    };
    // Room for a whole round: nothing is dropped however uneven the workers run.
    let links = mesh(workers, 2 * BUFFERS);
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> = links
            .into_iter()
            .zip(0..workers)
            .map(|(links, me)| {
                let (shared, core) = (&shared, cores[usize::from(me)]);
                scope.spawn(move || {
                    core_affinity::set_for_current(core);
                    one_worker(args, CoreId(me), workers, alignment, links, shared)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|t| t.join().unwrap_or_else(|p| std::panic::resume_unwind(p)))
            .collect::<anyhow::Result<Vec<_>>>()
    })?;
    // A round takes as long as its slowest worker.
    let mut seconds: Vec<f64> = (0..args.rounds)
        .map(|i| results.iter().map(|r| r.seconds[i]).fold(0.0, f64::max))
        .collect();
    seconds.sort_by(f64::total_cmp);
    let frames = (ROUND * usize::from(workers)) as f64;
    let handed: u64 = results.iter().map(|r| r.handed_over).sum();
    Ok(Measured {
        workers,
        steering,
        flows: args.flows,
        mpps_max: frames / seconds[0] / 1e6,
        mpps_median: frames / seconds[seconds.len() / 2] / 1e6,
        handed_over: handed as f64 / (frames * args.rounds as f64),
        speedup: 1.0,
    })
}

struct Rounds {
    seconds: Vec<f64>,
    handed_over: u64,
}

fn one_worker(
    args: &Args,
    me: CoreId,
    workers: u8,
    alignment: Alignment,
    links: Links<BenchFrame>,
    shared: &Shared,
) -> anyhow::Result<Rounds> {
    let steer = Steer::new(me, workers, Arc::new(Toeplitz::new(MICROSOFT_KEY)));
    let room = u32::try_from(args.flows + args.flows / 4 + 10_000)?;
    let seat = Seat {
        steer: steer.clone(),
        links,
        alignment,
        mode: ForwardMode::fullnat,
    };
    let mut bed = Testbed::at(seat, room, 1)?;
    // A barrier waits for all: nobody may leave before it.
    let opened = open(&mut bed, &steer, args.flows);
    shared.gate.wait();
    let mine = opened?;
    let mut rng = Rng(1 + u64::from(me.0));
    let handed_before = bed.counters.handoff_out.get();
    let mut seconds = Vec::with_capacity(args.rounds);
    let all = (ROUND * usize::from(workers)) as u64;
    for _ in 0..args.rounds {
        for _ in 0..ROUND {
            // Unaligned: clients as they come, whoever owns them.
            let n = match alignment {
                Alignment::Aligned => mine[rng.below(mine.len() as u64) as usize],
                Alignment::Unaligned => rng.below(args.flows * u64::from(workers) * 15 / 16),
            };
            bed.deliver(Side::Client, &to_vip(n, ACK, 60));
        }
        bed.flush();
        if shared.gate.wait().is_leader() {
            shared.through.store(0, SeqCst);
        }
        shared.gate.wait();
        let (start, mut told) = (Instant::now(), bed.counters.tx_packets.get());
        while shared.through.load(SeqCst) < all {
            bed.worker.poll_once(bed.now);
            // Own writes once a burst: the shared line is no part of the product.
            let sent = bed.counters.tx_packets.get();
            if sent > told {
                shared.through.fetch_add(sent - told, SeqCst);
                told = sent;
            }
            if start.elapsed().as_secs() >= 10 {
                break;
            }
        }
        seconds.push(start.elapsed().as_secs_f64());
        bed.collect(|_, _| {});
        shared.gate.wait();
    }
    anyhow::ensure!(
        seconds.iter().all(|s| *s < 10.0),
        "worker {}: a round did not end within 10 s: frames were lost",
        me.0
    );
    Ok(Rounds {
        seconds,
        handed_over: bed.counters.handoff_out.get() - handed_before,
    })
}

/// Opens `flows` connections of clients that this worker owns; which they are.
fn open(bed: &mut Testbed, steer: &Steer, flows: u64) -> anyhow::Result<Vec<u64>> {
    let owned = |n: &u64| steer.owner(&Key4::new(Proto::Tcp, client(*n), VIP)) == steer.me();
    let mine: Vec<u64> = (0..).filter(owned).take(flows as usize).collect();
    for batch in mine.chunks(ROUND) {
        for n in batch {
            bed.deliver(Side::Client, &to_vip(*n, SYN, 60));
        }
        bed.drain();
        let mut keys = Vec::with_capacity(batch.len());
        bed.collect(|side, bytes| {
            if let (Side::Server, Ok(Parsed::Flow(flow))) = (side, parse(bytes, true)) {
                let reply = flow.key.reversed();
                keys.push((reply.addrs, reply.ports));
            }
        });
        anyhow::ensure!(
            keys.len() == batch.len(),
            "{} of {} SYNs were forwarded",
            keys.len(),
            batch.len()
        );
        for key in keys {
            bed.deliver(Side::Server, &from_server(key, SYN | ACK, 60));
        }
        bed.drain();
        bed.collect(|_, _| {});
        for n in batch {
            bed.deliver(Side::Client, &to_vip(*n, ACK, 60));
        }
        bed.drain();
        bed.collect(|_, _| {});
    }
    Ok(mine)
}
