//! The packet path alone: the product's own worker loop over ports without a link.
//!
//! A round delivers 8,192 packets of random flows (not timed), lets the worker take them all
//! (timed), and takes the buffers back (not timed). Reported are the fastest round and the
//! median: on a shared machine the fastest is the least disturbed.

use serde::Serialize;
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::packet::tcp::flags::{ACK, SYN};

use crate::alloc::allocations;
use crate::clock::{cycles, cycles_per_ns};
use crate::table::{self, Row, count};
use crate::testbed::{BUFFERS, Rng, Side, Testbed, from_server, to_vip};

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Standing connections, one row each.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 1_000, 64_000, 1_000_000, 10_000_000])]
    flows: Vec<u64>,
    /// Frame sizes with FCS, bytes, one row each; `imix` is 7 of 64, 4 of 570, 1 of 1518.
    #[arg(long, value_delimiter = ',', default_values_t = ["64".to_string()])]
    sizes: Vec<String>,
    /// Kinds of traffic: `in` (clients' packets of open connections), `both` (half of them
    /// servers' answers), `new` (every packet opens a connection).
    #[arg(long, value_delimiter = ',', default_values_t = ["in".to_string(), "both".to_string(), "new".to_string()])]
    kinds: Vec<String>,
    /// Ways of forwarding, one row each: fullnat, nat, dr, tun (IP in IP). The last two have
    /// clients' packets only.
    #[arg(long, value_delimiter = ',', default_values_t = ["fullnat".to_string()])]
    modes: Vec<String>,
    /// Timed rounds of 8,192 packets a row.
    #[arg(long, default_value_t = 60)]
    rounds: usize,
}

#[derive(Debug, Serialize)]
struct Measured {
    mode: &'static str,
    kind: String,
    flows: u64,
    size: String,
    ns_min: f64,
    ns_median: f64,
    cycles_median: f64,
    mpps: f64,
    allocations_per_packet: f64,
}

impl Row for Measured {
    const TITLES: &'static [&'static str] = &[
        "mode",
        "kind",
        "flows",
        "size",
        "ns min",
        "ns median",
        "cycles",
        "Mpps",
        "allocs/packet",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.mode.into(),
            self.kind.clone(),
            count(self.flows as f64),
            self.size.clone(),
            format!("{:.1}", self.ns_min),
            format!("{:.1}", self.ns_median),
            format!("{:.0}", self.cycles_median),
            format!("{:.2}", self.mpps),
            format!("{:.3}", self.allocations_per_packet),
        ]
    }
}

/// Frame lengths without FCS that a size stands for.
fn lengths(size: &str) -> anyhow::Result<Vec<usize>> {
    if size == "imix" {
        return Ok([vec![60; 7], vec![566; 4], vec![1514]].concat());
    }
    let size: usize = size.parse()?;
    anyhow::ensure!(
        (64..=1518).contains(&size),
        "frame size {size}: use 64 to 1518, or imix"
    );
    Ok(vec![size - 4])
}

/// The way of forwarding of this name.
pub(crate) fn mode(name: &str) -> anyhow::Result<ForwardMode> {
    let known = [
        ForwardMode::fullnat,
        ForwardMode::nat,
        ForwardMode::dr,
        ForwardMode::tun,
    ];
    let mode = known.into_iter().find(|m| m.name() == name);
    mode.ok_or_else(|| anyhow::anyhow!("mode {name}: use fullnat, nat, dr or tun"))
}

pub(crate) fn run(args: &Args, json: bool) -> anyhow::Result<()> {
    let per_ns = cycles_per_ns();
    let mut rows = Vec::new();
    let modes = args.modes.iter().map(|name| mode(name));
    let modes = modes.collect::<anyhow::Result<Vec<_>>>()?;
    for (&flows, mode) in args
        .flows
        .iter()
        .flat_map(|f| modes.iter().map(move |m| (f, *m)))
    {
        anyhow::ensure!(flows > 0, "flows 0: use at least 1");
        let opened = if args.kinds.iter().any(|k| k == "new") {
            BUFFERS * (args.rounds + 4)
        } else {
            0
        };
        let room = u32::try_from(
            flows * args.sizes.len() as u64 + (opened * args.sizes.len()) as u64 + 100_000,
        )?;
        let mut bed = Testbed::of(mode, room, 1)?;
        let keys = bed.open(flows)?;
        let mut fresh = flows;
        let passes = |kind: &&String| !(mode.is_one_way() && *kind == "both");
        for kind in args.kinds.iter().filter(passes) {
            for size in &args.sizes {
                rows.push(measure(
                    mode.name(),
                    &mut bed,
                    &keys,
                    kind,
                    size,
                    args.rounds,
                    per_ns,
                    &mut fresh,
                )?);
                if !json {
                    eprintln_progress(&rows);
                }
            }
        }
    }
    table::print("pipeline", &rows, json)
}

/// A long run shows that it lives.
fn eprintln_progress(rows: &[Measured]) {
    use std::io::Write;
    if let Some(row) = rows.last() {
        let _ = writeln!(std::io::stderr(), "  {}", row.cells().join("  "));
    }
}

#[expect(clippy::too_many_arguments)]
fn measure(
    mode: &'static str,
    bed: &mut Testbed,
    keys: &[(u64, u32)],
    kind: &str,
    size: &str,
    rounds: usize,
    per_ns: f64,
    fresh: &mut u64,
) -> anyhow::Result<Measured> {
    let lengths = lengths(size)?;
    let mut rng = Rng(42);
    let mut spent = Vec::new();
    let mut allocated = 0;
    for round in 0..rounds + 4 {
        for i in 0..BUFFERS {
            let (n, len) = (rng.below(keys.len() as u64), lengths[i % lengths.len()]);
            let delivered = match kind {
                "in" => bed.deliver(Side::Client, &to_vip(n, ACK, len)),
                "both" if i % 2 == 0 => bed.deliver(Side::Client, &to_vip(n, ACK, len)),
                "both" => bed.deliver(Side::Server, &from_server(keys[n as usize], ACK, len)),
                "new" => {
                    *fresh += 1;
                    bed.deliver(Side::Client, &to_vip(*fresh, SYN, len))
                }
                _ => anyhow::bail!("kind {kind}: use in, both or new"),
            };
            anyhow::ensure!(delivered, "a ring is too small");
        }
        bed.flush();
        let (a, c) = (allocations(), cycles());
        bed.drain();
        let (a, c) = (allocations() - a, cycles() - c);
        let sent = bed.collect(|_, _| {});
        anyhow::ensure!(
            sent == BUFFERS,
            "only {sent} of {BUFFERS} packets were forwarded"
        );
        if round >= 4 {
            spent.push(c as f64 / BUFFERS as f64);
            allocated += a;
        }
    }
    spent.sort_by(f64::total_cmp);
    let median = spent[spent.len() / 2];
    Ok(Measured {
        mode,
        kind: kind.into(),
        flows: keys.len() as u64,
        size: size.into(),
        ns_min: spent[0] / per_ns,
        ns_median: median / per_ns,
        cycles_median: median,
        mpps: 1e3 * per_ns / median,
        allocations_per_packet: allocated as f64 / (rounds * BUFFERS) as f64,
    })
}
