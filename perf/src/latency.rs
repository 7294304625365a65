//! What Weir adds to a packet's way, beside testpmd on the same link at the same rates.
//!
//! The generator writes the time-stamp counter into each packet and reads it when the packet
//! is back, so a figure holds the link both ways, the generator's own polling, and the device.
//! What Weir adds is the difference to testpmd's.
#![forbid(unsafe_code)]

use serde::Serialize;
use weir_dataplane::forward::ForwardMode;

use crate::link::established::{Latency, Stage};
use crate::link::program::Program;
use crate::link::session::{self, Device, Span};
use crate::link::{Common, median};
use crate::table::{self, Row, count};

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Standing connections.
    #[arg(long, default_value_t = 1_000)]
    flows: u64,
    /// Rates, per cent of Weir's own maximum, which is measured first.
    #[arg(long, value_delimiter = ',', default_values_t = [10.0, 50.0, 90.0])]
    percent: Vec<f64>,
    /// Runs of each side, in turn; percentiles are medians over them, max is the largest.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    #[command(flatten)]
    common: Common,
    /// Leave the reference out: no dpdk-testpmd needed.
    #[arg(long)]
    alone: bool,
}

#[derive(Debug, Serialize)]
struct Measured {
    device: String,
    flows: u64,
    percent: f64,
    /// Asked for, and what came back.
    rate_mpps: f64,
    mpps: f64,
    loss: f64,
    /// Of Weir: share of the time that its worker was held up by the machine in turns of more than
    /// 20 us, median of the runs.
    paused: Option<f64>,
    /// Nanoseconds.
    latency: Latency,
}

impl Row for Measured {
    const TITLES: &'static [&'static str] = &[
        "device",
        "flows",
        "% of max",
        "Mpps asked",
        "Mpps",
        "lost",
        "held up",
        "p50 us",
        "p99 us",
        "p99.9 us",
        "max us",
        "samples",
    ];

    fn cells(&self) -> Vec<String> {
        let us = |ns: f64| format!("{:.1}", ns / 1e3);
        vec![
            self.device.clone(),
            count(self.flows as f64),
            format!("{:.0}", self.percent),
            format!("{:.2}", self.rate_mpps),
            format!("{:.2}", self.mpps),
            format!("{:.4} %", self.loss * 100.0),
            self.paused
                .map_or("-".into(), |p| format!("{:.2} %", p * 100.0)),
            us(self.latency.p50),
            us(self.latency.p99),
            us(self.latency.p999),
            us(self.latency.max),
            count(self.latency.samples as f64),
        ]
    }
}

/// Finds the maximum, then runs the rates.
pub(crate) fn run(args: &Args, json: bool) -> anyhow::Result<()> {
    anyhow::ensure!(args.runs > 0, "runs 0: use at least 1");
    for p in &args.percent {
        anyhow::ensure!(
            *p > 0.0 && *p <= 100.0,
            "percent {p}: use more than 0, up to 100"
        );
    }
    let most = args.common.load(args.flows, vec![0.0; 3])?;
    let outcome = session::run(&Device::Weir(ForwardMode::fullnat), &most)?;
    let maximum = median(outcome.stages.iter().map(|s| s.mpps).collect()).unwrap_or(0.0);
    table::progress(&format!("weir's maximum: {maximum:.2} Mpps"));
    let rates: Vec<f64> = args.percent.iter().map(|p| maximum * p / 100.0).collect();
    let load = args.common.load(args.flows, rates)?;
    let mut devices = vec![Device::Weir(ForwardMode::fullnat)];
    if !args.alone {
        devices.push(Device::Program(Program::testpmd()));
    }
    let mut outcomes: Vec<Vec<session::Outcome>> = devices.iter().map(|_| Vec::new()).collect();
    for _ in 0..args.runs {
        for (device, outcomes) in devices.iter().zip(&mut outcomes) {
            outcomes.push(session::run(device, &load)?);
        }
    }
    let mut rows = Vec::new();
    for (at, percent) in args.percent.iter().enumerate() {
        for (device, outcomes) in devices.iter().zip(&outcomes) {
            let stages: Vec<_> = outcomes.iter().map(|o| &o.stages[at]).collect();
            let mut row = summary(device, args.flows, *percent, &stages);
            if let Some(row) = &mut row {
                let spans = outcomes.iter().filter_map(|o| o.spans.get(at));
                row.paused = median(spans.map(Span::paused).collect());
            }
            rows.extend(row);
        }
    }
    table::print("latency", &rows, json)
}

/// `None` when no stage measured latency.
fn summary(device: &Device, flows: u64, percent: f64, stages: &[&Stage]) -> Option<Measured> {
    let ages: Vec<Latency> = stages.iter().filter_map(|s| s.latency).collect();
    let middle = |of: fn(&Latency) -> f64| median(ages.iter().map(of).collect());
    let (sent, received) = stages
        .iter()
        .fold((0, 0), |(s, r), stage| (s + stage.sent, r + stage.received));
    Some(Measured {
        device: device.name(),
        flows,
        percent,
        rate_mpps: stages.first()?.rate,
        mpps: median(stages.iter().map(|s| s.mpps).collect())?,
        paused: None,
        loss: 1.0 - received as f64 / (sent as f64).max(1.0),
        latency: Latency {
            p50: middle(|l| l.p50)?,
            p99: middle(|l| l.p99)?,
            p999: middle(|l| l.p999)?,
            max: ages.iter().map(|l| l.max).fold(0.0, f64::max),
            samples: ages.iter().map(|l| l.samples).sum(),
        },
    })
}
