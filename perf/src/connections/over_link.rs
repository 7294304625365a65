//! Lifecycles over a link: one generator that plays all clients and servers, one device, in turn Weir
//! and dpdk-testpmd.
//!
//! testpmd keeps no connection and sends back what it gets, but the same packets go through it in the
//! same order: each says itself what follows it (`link/segments.rs`). So its row is what the link and the
//! generator can do, and Weir's ratio to it what a balancer leaves of that.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use anyhow::Context;
use serde::Serialize;
use weir_dataplane::forward::ForwardMode;

use crate::link::driver::Turned;
use crate::link::median;
use crate::link::program::Program;
use crate::link::segments::PACKETS;
use crate::link::session::{self, Device, Load, Outcome, Span, What};
use crate::link::wire::{Cores, Via};
use crate::table::{self, Row, count};

/// Over what, and how.
#[derive(Debug, clap::Args)]
pub(super) struct Over {
    /// Over a link instead of in process, beside dpdk-testpmd on the same link.
    #[arg(long, value_enum)]
    via: Option<Via>,
    /// CPUs of the generator and of the device under test.
    #[arg(long, default_value_t = Cores { generator: 0, device: 1 }, requires = "via")]
    cores: Cores,
    /// Lifecycles at once, a frame of each on its way.
    #[arg(long, default_value_t = 128, requires = "via")]
    window: u32,
    /// Runs of each side, in turn.
    #[arg(long, default_value_t = 3, requires = "via")]
    runs: usize,
    /// Leave the reference out: no dpdk-testpmd needed, no ratio given.
    #[arg(long, requires = "via")]
    alone: bool,
}

impl Over {
    pub(super) fn is_wanted(&self) -> bool {
        self.via.is_some()
    }
}

#[derive(Debug, Serialize)]
struct Measured {
    device: String,
    via: Via,
    /// Of Weir.
    closing: Option<u32>,
    standing: u64,
    window: u32,
    runs: usize,
    /// Connections in Weir's table when the measurement ended, median, and by which part that was more
    /// than when it began.
    in_table: Option<f64>,
    grew: Option<f64>,
    /// Median, fastest run, and every run in order.
    lifecycles_per_second: f64,
    lifecycles_per_second_max: f64,
    lifecycles_per_second_all: Vec<f64>,
    /// Part of them that lost a frame.
    lost: f64,
    /// Frames that Weir dropped, by reason, all runs and all their time.
    drops: BTreeMap<String, u64>,
    /// Cycles a lifecycle while the device found work, median.
    cycles_per_lifecycle: Option<f64>,
    /// Share of the time that the device found work in, median.
    busy: Option<f64>,
    /// Share of the time that the generator had nothing to do in, median.
    generator_idle: f64,
    /// Its median over the reference's.
    ratio: Option<f64>,
}

impl Row for Measured {
    const TITLES: &'static [&'static str] = &[
        "device",
        "closing s",
        "standing",
        "via",
        "runs",
        "in table",
        "grew",
        "lifecycles/s",
        "max",
        "lost",
        "drops",
        "cycles/lifecycle",
        "busy",
        "generator idle",
        "of testpmd",
    ];

    fn cells(&self) -> Vec<String> {
        let or_dash = |v: Option<String>| v.unwrap_or_else(|| "-".into());
        let percent = |part: f64| format!("{:.1} %", part * 100.0);
        let drops: Vec<String> = self
            .drops
            .iter()
            .map(|(why, n)| format!("{why} {}", count(*n as f64)))
            .collect();
        vec![
            self.device.clone(),
            or_dash(self.closing.map(|s| s.to_string())),
            count(self.standing as f64),
            format!("{:?}", self.via).to_lowercase(),
            self.runs.to_string(),
            or_dash(self.in_table.map(count)),
            or_dash(self.grew.map(percent)),
            count(self.lifecycles_per_second),
            count(self.lifecycles_per_second_max),
            format!("{:.4} %", self.lost * 100.0),
            match drops.is_empty() {
                true => "-".into(),
                false => drops.join(", "),
            },
            or_dash(self.cycles_per_lifecycle.map(|c| format!("{c:.0}"))),
            or_dash(self.busy.map(percent)),
            percent(self.generator_idle),
            or_dash(self.ratio.map(|r| format!("{r:.3}"))),
        ]
    }
}

/// One row: a device, and how long its closing states last.
struct Line {
    device: Device,
    closing: Option<u32>,
    outcomes: Vec<Outcome>,
}

/// Measures each in turn.
pub(super) fn run(args: &super::Args, json: bool) -> anyhow::Result<()> {
    let link = &args.link;
    anyhow::ensure!(link.runs > 0, "runs 0: use at least 1");
    anyhow::ensure!(
        (1..=1024).contains(&link.window),
        "window {}: use 1 to 1024, half of the link's ring",
        link.window
    );
    anyhow::ensure!(args.seconds > 0, "seconds 0: use at least 1");
    let mut rows = Vec::new();
    for &standing in &args.standing {
        let line = |device: Device, closing| Line {
            device,
            closing,
            outcomes: Vec::new(),
        };
        let weir = |closing: &u32| line(Device::Weir(ForwardMode::fullnat), Some(*closing));
        let mut lines: Vec<Line> = args.closing.iter().map(weir).collect();
        if !link.alone {
            lines.push(line(Device::Program(Program::testpmd()), None));
        }
        for run in 0..link.runs {
            for line in &mut lines {
                let outcome = session::run(&line.device, &load(args, standing, line.closing)?)?;
                let rate = per_second(turned(&outcome)?);
                check(&outcome)?;
                table::progress(&format!(
                    "{}, run {} of {}: {} lifecycles/s",
                    line.device.name(),
                    run + 1,
                    link.runs,
                    count(rate)
                ));
                line.outcomes.push(outcome);
            }
        }
        let first = rows.len();
        for line in &lines {
            rows.push(summary(args, standing, line)?);
        }
        if let Some(reference) = (!link.alone).then(|| rows[rows.len() - 1].lifecycles_per_second) {
            for row in &mut rows[first..] {
                row.ratio = Some(row.lifecycles_per_second / reference);
            }
        }
    }
    table::print("connections", &rows, json)
}

fn load(args: &super::Args, standing: u64, closing: Option<u32>) -> anyhow::Result<Load> {
    let link = &args.link;
    let of_table = closing.unwrap_or(1);
    Ok(Load {
        via: link.via.context("no link")?,
        cores: link.cores,
        flows: standing,
        seconds: f64::from(args.seconds),
        what: What::Lifecycles {
            window: link.window,
            closing: of_table,
            room: args.room(of_table),
            // Until as many expire as open: closing states last `closing` seconds, and each opening's
            // first timer record 2.
            warm_up: closing.map_or(0.5, |closing| f64::from(closing.max(2) + 1)),
        },
    })
}

fn turned(outcome: &Outcome) -> anyhow::Result<Turned> {
    outcome.turned.context("the generator measured nothing")
}

fn per_second(turned: Turned) -> f64 {
    turned.completed as f64 / turned.seconds
}

/// What would make the figures those of something else.
fn check(outcome: &Outcome) -> anyhow::Result<()> {
    for Span { last, .. } in &outcome.spans {
        anyhow::ensure!(
            last.evicted == 0,
            "{} connections evicted: the table is too small; raise --rate",
            last.evicted
        );
    }
    Ok(())
}

fn summary(args: &super::Args, standing: u64, line: &Line) -> anyhow::Result<Measured> {
    let outcomes = &line.outcomes;
    let turns = outcomes
        .iter()
        .map(turned)
        .collect::<anyhow::Result<Vec<_>>>()?;
    let rates: Vec<f64> = turns.iter().copied().map(per_second).collect();
    let spans = || outcomes.iter().flat_map(|o| &o.spans);
    let of_spans = |of: fn(&Span) -> f64| median(spans().map(of).collect());
    let (lost, completed) = turns
        .iter()
        .fold((0, 0), |(l, c), t| (l + t.lost, c + t.completed));
    let mut drops = BTreeMap::new();
    for (why, n) in spans().flat_map(|s| &s.last.drops) {
        *drops.entry(why.clone()).or_default() += n;
    }
    let cycles = outcomes.iter().filter_map(|o| o.cycles);
    Ok(Measured {
        device: line.device.name(),
        via: args.link.via.context("no link")?,
        closing: line.closing,
        standing,
        window: args.link.window,
        runs: args.link.runs,
        in_table: of_spans(|s| s.last.connections as f64),
        grew: of_spans(|s| s.last.connections as f64 / s.first.connections as f64 - 1.0),
        lifecycles_per_second: median(rates.clone()).unwrap_or(0.0),
        lifecycles_per_second_max: rates.iter().copied().fold(0.0, f64::max),
        lifecycles_per_second_all: rates,
        lost: lost as f64 / (lost + completed).max(1) as f64,
        drops,
        cycles_per_lifecycle: median(cycles.collect()).map(|c| c * PACKETS as f64),
        busy: of_spans(Span::busy),
        generator_idle: median(turns.iter().map(|t| t.idle).collect()).unwrap_or(0.0),
        ratio: None,
    })
}
