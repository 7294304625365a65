//! One run: a generator, a device under test, the link between them; each in a process of its
//! own, ended in the right order whatever happens.
#![forbid(unsafe_code)]

use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use weir_dataplane::forward::ForwardMode;

use super::driver::Turned;
use super::established::Stage;
use super::forward::Mark;
use super::generate::Report;
use super::process::Process;
use super::program::Program;
use super::wire::{Cores, Via, Wire, huge_pages};

/// What stands at the other end of the link.
#[derive(Debug, Clone)]
pub(crate) enum Device {
    /// Weir's worker, whose servers are reached so.
    Weir(ForwardMode),
    /// Another DPDK program.
    Program(Program),
}

impl Device {
    /// Its name in tables.
    pub(crate) fn name(&self) -> String {
        match self {
            Device::Weir(ForwardMode::fullnat) => "weir".to_owned(),
            Device::Weir(mode) => format!("weir {}", mode.name()),
            Device::Program(program) => program.name.clone(),
        }
    }

    fn is_one_way(&self) -> bool {
        matches!(self, Device::Weir(mode) if mode.is_one_way())
    }

    fn handshakes(&self) -> bool {
        match self {
            Device::Weir(_) => true,
            Device::Program(program) => program.handshakes,
        }
    }
}

/// What one run sends.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) via: Via,
    pub(crate) cores: Cores,
    /// Connections that stand.
    pub(crate) flows: u64,
    /// Seconds a stage.
    pub(crate) seconds: f64,
    pub(crate) what: What,
}

/// What of.
#[derive(Debug, Clone)]
pub(crate) enum What {
    /// Packets of the connections that stand.
    Packets {
        /// Mpps, one stage each; 0 for as fast as the generator can.
        rates: Vec<f64>,
        /// Bytes of a frame without FCS.
        len: usize,
    },
    /// Whole TCP lifecycles beside them, in one stage.
    Lifecycles {
        /// How many at once.
        window: u32,
        /// Seconds that closing states last.
        closing: u32,
        /// How many of them Weir's table holds.
        room: u64,
        /// Seconds before it counts.
        warm_up: f64,
    },
}

/// What one run gave.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Of packets, in the order of the load's rates.
    pub(crate) stages: Vec<Stage>,
    /// Of lifecycles.
    pub(crate) turned: Option<Turned>,
    /// What Weir says of each stage; other programs say nothing.
    pub(crate) spans: Vec<Span>,
    /// Cycles a packet of the device, while it found work: Weir's of the last stage, a program's if it
    /// says them when it ends.
    pub(crate) cycles: Option<f64>,
    /// Connections opened a second, where there were handshakes.
    pub(crate) opened_per_second: Option<f64>,
}

/// What Weir said before a stage and after it.
#[derive(Debug)]
pub(crate) struct Span {
    pub(crate) first: Mark,
    pub(crate) last: Mark,
}

impl Span {
    /// Cycles a packet of turns that found work.
    fn cycles(&self) -> Option<f64> {
        let packets = self.last.packets - self.first.packets;
        (packets > 0).then(|| self.spent(|mark| mark.busy_cycles) as f64 / packets as f64)
    }

    /// Share of the time in turns that found work.
    pub(crate) fn busy(&self) -> f64 {
        self.share(|mark| mark.busy_cycles)
    }

    /// Share of the time that the machine held the worker up in.
    pub(crate) fn paused(&self) -> f64 {
        self.share(|mark| mark.paused_cycles)
    }

    fn share(&self, of: fn(&Mark) -> u64) -> f64 {
        self.spent(of) as f64 / self.spent(|mark| mark.all_cycles).max(1) as f64
    }

    fn spent(&self, of: fn(&Mark) -> u64) -> u64 {
        of(&self.last) - of(&self.first)
    }
}

/// Runs `load` against `device`.
///
/// # Errors
/// A process that does not start, ends early or says nothing; its own words are on stderr.
pub(crate) fn run(device: &Device, load: &Load) -> anyhow::Result<Outcome> {
    let wire = Wire::new(load.via)?;
    let huge = huge_pages();
    let mut generator = generator(&wire, device, load, huge)?;
    match generator.reads()? {
        Report::Ready => {}
        other => bail!("the generator began with {other:?}"),
    }
    // Declared after the generator: dropped, and so stopped, before it.
    let mut under_test = start(&wire, device, load, huge)?;
    let mut outcome = Outcome::default();
    let mut first = None;
    loop {
        let report = generator.reads().with_context(|| {
            let said = under_test.last_words();
            format!("device under test {}: {said}", device.name())
        })?;
        match report {
            Report::Ready => continue,
            Report::Opened { seconds } => {
                outcome.opened_per_second = Some(load.flows as f64 / seconds.max(1e-6));
                continue;
            }
            Report::Measuring => {
                first = mark(device, &mut under_test)?;
                continue;
            }
            Report::Measured(stage) => outcome.stages.push(stage),
            Report::Turned(turned) => outcome.turned = Some(turned),
            Report::Quiet => break,
        }
        let last = mark(device, &mut under_test)?;
        if let Some((first, last)) = first.take().zip(last) {
            let span = Span { first, last };
            outcome.cycles = span.cycles();
            outcome.spans.push(span);
        }
    }
    // The device first: memif's other side can crash when it is left alone in mid-traffic.
    match device {
        Device::Weir(_) => under_test.end("")?,
        Device::Program(program) => {
            under_test.end(&program.quit)?;
            outcome.cycles = under_test.cycles_said();
        }
    }
    generator.end("")?;
    Ok(outcome)
}

fn mark(device: &Device, process: &mut Process) -> anyhow::Result<Option<Mark>> {
    let Device::Weir(_) = device else {
        return Ok(None);
    };
    process.write("mark\n")?;
    process.reads().map(Some)
}

fn generator(wire: &Wire, device: &Device, load: &Load, huge: bool) -> anyhow::Result<Process> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["generate", "--device", &wire.generator()])
        .args(["--prefix", &wire.prefix("generator")])
        .args(["--core", &load.cores.generator.to_string()])
        .args(["--flows", &load.flows.to_string()])
        .args(["--seconds", &load.seconds.to_string()])
        .args(huge.then_some("--huge"))
        .args(device.handshakes().then_some("--handshakes"))
        .args(device.is_one_way().then_some("--one-way"));
    match &load.what {
        What::Packets { rates, len } => {
            let rates: Vec<String> = rates.iter().map(ToString::to_string).collect();
            command
                .args(["established", "--rates", &rates.join(",")])
                .args(["--len", &len.to_string()]);
        }
        What::Lifecycles {
            window,
            room,
            warm_up,
            ..
        } => {
            command
                .args(["lifecycles", "--window", &window.to_string()])
                // They come round again long after their last connection is forgotten.
                .args(["--clients", &(room * 2).to_string()])
                .args(["--warm-up", &warm_up.to_string()]);
        }
    }
    Process::start("generator", &mut command)
}

fn start(wire: &Wire, device: &Device, load: &Load, huge: bool) -> anyhow::Result<Process> {
    match device {
        Device::Weir(mode) => {
            let (closing, room) = match load.what {
                What::Packets { .. } => (1, 0),
                What::Lifecycles { closing, room, .. } => (closing, room),
            };
            // A tenth more than there are flows, so that no bucket overflows.
            let connections = room + load.flows + load.flows / 10 + 1000;
            let mut command = Command::new(std::env::current_exe()?);
            command
                .args(["forward", "--device", &wire.device()])
                .args(["--prefix", &wire.prefix("device")])
                .args(["--core", &load.cores.device.to_string()])
                .args(["--connections", &connections.to_string()])
                .args(["--closing", &closing.to_string()])
                .args(["--mode", mode.name()])
                .args(huge.then_some("--huge"));
            Process::start("weir", &mut command)
        }
        Device::Program(program) => {
            let words = program.command_line(wire, load.cores, huge)?;
            let (name, args) = words.split_first().context("command: empty")?;
            // What it says on either is shown only when something goes wrong.
            Process::start(
                &program.name,
                Command::new(name).args(args).stderr(Stdio::piped()),
            )
        }
    }
}
