//! Complete TCP lifecycles: SYN, SYN-ACK, ACK, data, FIN, FIN, ACK; seven packets, one
//! connection opened, tracked, closed and forgotten. In process, or over a link ([`over_link`]).

#[cfg(feature = "dpdk")]
mod over_link;

use serde::Serialize;
use weir_dataplane::packet::tcp::flags::{ACK, FIN, PSH, SYN};
use weir_dataplane::packet::{Key, Parsed, parse};

use crate::clock::{cycles, cycles_per_ns};
use crate::table::{self, Row, count};
use crate::testbed::{BUFFERS, Rng, Side, Testbed, from_server, to_vip};

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Seconds that closing states last (DPVS was measured with 1).
    #[arg(long, value_delimiter = ',', default_values_t = [1])]
    closing: Vec<u32>,
    /// Connections that stand besides, idle.
    #[arg(long, value_delimiter = ',', default_values_t = [0])]
    standing: Vec<u64>,
    /// Seconds that are timed once the table is steady, after `closing` of them: simulated ones, over
    /// a link real ones.
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// Lifecycles in one second, over a link at most: fixes the table's size at rate x closing.
    #[arg(long, default_value_t = 2_500_000)]
    rate: u64,
    #[cfg(feature = "dpdk")]
    #[command(flatten)]
    link: over_link::Over,
}

impl Args {
    /// How many closing connections the table must have room for.
    fn room(&self, closing: u32) -> u64 {
        let steady = self.rate * u64::from(closing);
        // Each opening files a timer record for the 2 s of state NONE, which outlives a shorter
        // closing state: a table with too few of them would keep the closed, fill up and evict.
        steady.max(2 * self.rate) * 9 / 8 + 200_000
    }
}

#[derive(Debug, Serialize)]
struct Measured {
    closing: u32,
    standing: u64,
    in_table: u32,
    lifecycles_per_second: f64,
    ns_per_lifecycle: f64,
    ns_per_packet: f64,
}

impl Row for Measured {
    const TITLES: &'static [&'static str] = &[
        "closing s",
        "standing",
        "in table",
        "lifecycles/s",
        "ns/lifecycle",
        "ns/packet",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.closing.to_string(),
            count(self.standing as f64),
            count(f64::from(self.in_table)),
            count(self.lifecycles_per_second),
            format!("{:.0}", self.ns_per_lifecycle),
            format!("{:.1}", self.ns_per_packet),
        ]
    }
}

/// Measures, in process or over a link.
pub(crate) fn run(args: &Args, json: bool) -> anyhow::Result<()> {
    #[cfg(feature = "dpdk")]
    if args.link.is_wanted() {
        return over_link::run(args, json);
    }
    let mut rows = Vec::new();
    for &standing in &args.standing {
        for &closing in &args.closing {
            rows.push(measure(args, standing, closing)?);
        }
    }
    table::print("connections", &rows, json)
}

fn measure(args: &Args, standing: u64, closing: u32) -> anyhow::Result<Measured> {
    const BATCH: u64 = BUFFERS as u64 / 2;
    const PACKETS: u64 = 7;
    let per_ns = cycles_per_ns();
    let room = standing + args.room(closing);
    let mut bed = Testbed::new(u32::try_from(room)?, closing)?;
    bed.open(standing)?;
    // Clients come round again long after their last connection is forgotten.
    let clients = (room * 2).max(1_000_000);
    let batches_per_tick = (args.rate / 64).div_ceil(BATCH).max(1);
    let batch = (args.rate / 64) / batches_per_tick;
    let mut rng = Rng(7);
    let (mut next, mut spent, mut done) = (0u64, 0u64, 0u64);
    for tick in 0..64 * (closing + args.seconds) {
        bed.now = bed.now.after(1);
        for _ in 0..batches_per_tick {
            let who: Vec<u64> = (0..batch)
                .map(|i| standing + (next + i) % clients)
                .collect();
            next += batch;
            let mut keys = Vec::with_capacity(batch as usize);
            let mut cycles_of = 0;
            let mut step = |bed: &mut Testbed,
                            side,
                            frames: &mut dyn Iterator<Item = Vec<u8>>,
                            keys: Option<&mut Vec<(u64, u32)>>| {
                frames.for_each(|f| {
                    bed.deliver(side, &f);
                });
                let c = cycles();
                bed.drain();
                cycles_of += cycles() - c;
                let mut sink = keys;
                bed.collect(|side, bytes| {
                    if let (Some(keys), Side::Server) = (sink.as_deref_mut(), side)
                        && let Ok(Parsed::Flow(f)) = parse(bytes, true)
                    {
                        keys.push((f.key.reversed().addrs, f.key.reversed().ports));
                    }
                })
            };
            step(
                &mut bed,
                Side::Client,
                &mut who.iter().map(|n| to_vip(*n, SYN, 60)),
                Some(&mut keys),
            );
            anyhow::ensure!(
                keys.len() == who.len(),
                "{} of {} SYNs forwarded; drops {:?}",
                keys.len(),
                who.len(),
                drops(&bed)
            );
            // Answers come in another order than questions went.
            for i in (1..keys.len()).rev() {
                keys.swap(i, rng.below(i as u64 + 1) as usize);
            }
            step(
                &mut bed,
                Side::Server,
                &mut keys.iter().map(|k| from_server(*k, SYN | ACK, 60)),
                None,
            );
            step(
                &mut bed,
                Side::Client,
                &mut who.iter().map(|n| to_vip(*n, ACK, 60)),
                None,
            );
            step(
                &mut bed,
                Side::Client,
                &mut who.iter().map(|n| to_vip(*n, ACK | PSH, 200)),
                None,
            );
            step(
                &mut bed,
                Side::Client,
                &mut who.iter().map(|n| to_vip(*n, FIN | ACK, 60)),
                None,
            );
            step(
                &mut bed,
                Side::Server,
                &mut keys.iter().map(|k| from_server(*k, FIN | ACK, 60)),
                None,
            );
            let sent = step(
                &mut bed,
                Side::Client,
                &mut who.iter().map(|n| to_vip(*n, ACK, 60)),
                None,
            );
            anyhow::ensure!(
                sent == who.len(),
                "{sent} of {} last ACKs forwarded",
                who.len()
            );
            if tick >= 64 * closing {
                spent += cycles_of;
                done += batch;
            }
        }
    }
    let evicted = bed.counters.conns_evicted.get();
    anyhow::ensure!(
        evicted == 0,
        "{evicted} connections evicted: the table is too small"
    );
    let ns = spent as f64 / per_ns / done as f64;
    Ok(Measured {
        closing,
        standing,
        in_table: bed.worker.conns().len(),
        lifecycles_per_second: 1e9 / ns,
        ns_per_lifecycle: ns,
        ns_per_packet: ns / PACKETS as f64,
    })
}

fn drops(bed: &Testbed) -> Vec<(&'static str, u64)> {
    use weir_dataplane::counters::DropReason;
    let count = |r: &DropReason| (r.name(), bed.counters.drops[*r as usize].get());
    DropReason::ALL
        .iter()
        .map(count)
        .filter(|(_, n)| *n > 0)
        .collect()
}
