//! Weir over a link, beside dpdk-testpmd on the same link in the same run.
//!
//! The two take turns, so that what disturbs the machine disturbs both; reported are medians.
//! Either is a fresh process each time (DPDK starts once a process), with a fresh link.
#![forbid(unsafe_code)]

pub(crate) mod driver;
pub(crate) mod established;
pub(crate) mod forward;
mod frames;
pub(crate) mod generate;
mod lives;
#[cfg(test)]
mod mirror;
mod port;
mod process;
pub(crate) mod program;
pub(crate) mod segments;
pub(crate) mod session;
pub(crate) mod wire;

use serde::Serialize;

use self::program::Program;
use self::session::{Device, Load, What};
use self::wire::{Cores, Via};
use crate::pipeline::mode;
use crate::table::{self, Row, count};

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Standing connections, one comparison each.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 1_000_000])]
    flows: Vec<u64>,
    /// Ways of forwarding, one row each: fullnat, nat, dr, tun (IP in IP).
    #[arg(long, value_delimiter = ',', default_values_t = ["fullnat".to_string()])]
    modes: Vec<String>,
    /// Runs of each side, in turn.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    #[command(flatten)]
    common: Common,
    /// Leave the reference out: no dpdk-testpmd needed, no ratio given.
    #[arg(long)]
    alone: bool,
}

/// What all benchmarks over a link have in common.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Common {
    /// What the link is made of.
    #[arg(long, value_enum, default_value = "memif")]
    via: Via,
    /// CPUs of the generator and of the device under test.
    #[arg(long, default_value_t = Cores { generator: 0, device: 1 })]
    cores: Cores,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Frame size with FCS, bytes.
    #[arg(long, default_value_t = 64)]
    size: usize,
}

impl Common {
    /// A load of `flows` at `rates`.
    ///
    /// # Errors
    /// Sizes, times or numbers of flows that cannot be.
    pub(crate) fn load(&self, flows: u64, rates: Vec<f64>) -> anyhow::Result<Load> {
        anyhow::ensure!(
            (64..=1518).contains(&self.size),
            "size {}: use 64 to 1518",
            self.size
        );
        anyhow::ensure!(
            self.seconds > 0.0 && self.seconds <= 600.0,
            "seconds {}: use more than 0, up to 600",
            self.seconds
        );
        anyhow::ensure!(
            (1..=100_000_000).contains(&flows),
            "flows {flows}: use 1 to 100000000"
        );
        Ok(Load {
            via: self.via,
            cores: self.cores,
            flows,
            seconds: self.seconds,
            what: What::Packets {
                rates,
                len: self.size - 4,
            },
        })
    }
}

#[derive(Debug, Serialize)]
struct Measured {
    device: String,
    via: Via,
    flows: u64,
    size: usize,
    runs: usize,
    /// Frames forwarded a second, millions.
    mpps_median: f64,
    mpps_max: f64,
    /// Every run, in order.
    mpps: Vec<f64>,
    /// Part of what the generator sent that did not come back.
    loss: f64,
    /// Cycles a packet while the device found work, median.
    cycles: Option<f64>,
    opened_per_second: Option<f64>,
    /// Its median over the reference's.
    ratio: Option<f64>,
}

impl Row for Measured {
    const TITLES: &'static [&'static str] = &[
        "device",
        "via",
        "flows",
        "size",
        "runs",
        "Mpps median",
        "max",
        "lost",
        "cycles/packet",
        "opened/s",
        "of testpmd",
    ];

    fn cells(&self) -> Vec<String> {
        let or_dash = |v: Option<String>| v.unwrap_or_else(|| "-".into());
        vec![
            self.device.clone(),
            format!("{:?}", self.via).to_lowercase(),
            count(self.flows as f64),
            self.size.to_string(),
            self.runs.to_string(),
            format!("{:.2}", self.mpps_median),
            format!("{:.2}", self.mpps_max),
            format!("{:.4} %", self.loss * 100.0),
            or_dash(self.cycles.map(|c| format!("{c:.0}"))),
            or_dash(self.opened_per_second.map(count)),
            or_dash(self.ratio.map(|r| format!("{r:.3}"))),
        ]
    }
}

/// Runs the comparison.
pub(crate) fn run(args: &Args, json: bool) -> anyhow::Result<()> {
    let modes = args.modes.iter().map(|name| mode(name).map(Device::Weir));
    let mut devices = modes.collect::<anyhow::Result<Vec<_>>>()?;
    if !args.alone {
        devices.push(Device::Program(Program::testpmd()));
    }
    compare("link", &devices, &args.flows, args.runs, &args.common, json)
}

/// Measures `devices` in turn, `runs` times each; a program that comes last is the reference.
pub(crate) fn compare(
    benchmark: &str,
    devices: &[Device],
    flows: &[u64],
    runs: usize,
    common: &Common,
    json: bool,
) -> anyhow::Result<()> {
    anyhow::ensure!(runs > 0, "runs 0: use at least 1");
    let mut rows = Vec::new();
    for &flows in flows {
        let load = common.load(flows, vec![0.0])?;
        let mut outcomes: Vec<Vec<session::Outcome>> = devices.iter().map(|_| Vec::new()).collect();
        for run in 0..runs {
            for (device, outcomes) in devices.iter().zip(&mut outcomes) {
                let outcome = session::run(device, &load)?;
                let mpps = outcome.stages[0].mpps;
                table::progress(&format!(
                    "{}, {flows} flows, run {} of {runs}: {mpps:.2} Mpps",
                    device.name(),
                    run + 1
                ));
                outcomes.push(outcome);
            }
        }
        let first = rows.len();
        for (device, outcomes) in devices.iter().zip(&outcomes) {
            rows.push(summary(device, flows, common, outcomes));
        }
        if let Some(Device::Program(_)) = devices.last()
            && let Some(reference) = rows.last().map(|r| r.mpps_median)
        {
            for row in &mut rows[first..] {
                row.ratio = Some(row.mpps_median / reference);
            }
        }
    }
    table::print(benchmark, &rows, json)
}

fn summary(
    device: &Device,
    flows: u64,
    common: &Common,
    outcomes: &[session::Outcome],
) -> Measured {
    let stages = || outcomes.iter().flat_map(|o| &o.stages);
    let mpps: Vec<f64> = stages().map(|s| s.mpps).collect();
    let (sent, received) =
        stages().fold((0, 0), |(s, r), stage| (s + stage.sent, r + stage.received));
    Measured {
        device: device.name(),
        via: common.via,
        flows,
        size: common.size,
        runs: outcomes.len(),
        mpps_median: median(mpps.clone()).unwrap_or(0.0),
        mpps_max: mpps.iter().copied().fold(0.0, f64::max),
        mpps,
        loss: 1.0 - received as f64 / (sent as f64).max(1.0),
        cycles: median(outcomes.iter().filter_map(|o| o.cycles).collect()),
        opened_per_second: median(
            outcomes
                .iter()
                .filter_map(|o| o.opened_per_second)
                .collect(),
        ),
        ratio: None,
    }
}

/// The middle value, the mean of the two middle ones of an even number; `None` of nothing.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().checked_sub(1)? / 2, values.len() / 2);
    Some((values[low] + values[high]) / 2.0)
}
