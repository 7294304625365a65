//! One run: a generator, a device under test, the link between them; each in a process of its
//! own, ended in the right order whatever happens.
#![forbid(unsafe_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use weir_dataplane::forward::ForwardMode;

use super::forward::Mark;
use super::generate::{Report, Stage};
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
    pub(crate) flows: u64,
    /// Mpps, one stage each; 0 for as fast as the generator can.
    pub(crate) rates: Vec<f64>,
    /// Seconds a stage.
    pub(crate) seconds: f64,
    /// Bytes of a frame without FCS.
    pub(crate) len: usize,
}

/// What one run gave.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// In the order of the load's rates.
    pub(crate) stages: Vec<Stage>,
    /// Cycles a packet of the device, while it found work; of the last stage. Programs that do
    /// not say have none.
    pub(crate) cycles: Option<f64>,
    /// Share of the time that Weir's worker was held up in, one for each stage.
    pub(crate) paused: Vec<f64>,
    /// Connections opened a second, where there were handshakes.
    pub(crate) opened_per_second: Option<f64>,
}

/// How long a process may be silent before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `load` against `device`.
///
/// # Errors
/// A process that does not start, ends early or says nothing; its own words are on stderr.
pub(crate) fn run(device: &Device, load: &Load) -> anyhow::Result<Outcome> {
    let wire = Wire::new(load.via)?;
    let huge = huge_pages();
    let mut generator = generator(&wire, device, load, huge)?;
    match generator.report()? {
        Report::Ready => {}
        other => bail!("the generator began with {other:?}"),
    }
    // Declared after the generator: dropped, and so stopped, before it.
    let mut under_test = start(&wire, device, load, huge)?;
    let mut outcome = Outcome {
        stages: Vec::new(),
        cycles: None,
        paused: Vec::new(),
        opened_per_second: None,
    };
    let mut first = None;
    while outcome.stages.len() < load.rates.len() {
        let report = generator.report().with_context(|| {
            let said = under_test.last_words();
            format!("device under test {}: {said}", device.name())
        })?;
        match report {
            Report::Ready => {}
            Report::Opened { seconds } => {
                outcome.opened_per_second = Some(load.flows as f64 / seconds);
            }
            Report::Measuring => first = mark(device, &mut under_test)?,
            Report::Measured(stage) => {
                outcome.stages.push(stage);
                let last = mark(device, &mut under_test)?;
                if let Some((a, b)) = first.zip(last) {
                    let all = (b.all_cycles - a.all_cycles).max(1) as f64;
                    let paused = (b.paused_cycles - a.paused_cycles) as f64 / all;
                    (outcome.cycles, first) = (per_packet(a, b), last);
                    outcome.paused.push(paused);
                }
            }
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

fn per_packet(first: Mark, last: Mark) -> Option<f64> {
    let packets = last.packets - first.packets;
    (packets > 0).then(|| (last.busy_cycles - first.busy_cycles) as f64 / packets as f64)
}

fn mark(device: &Device, process: &mut Process) -> anyhow::Result<Option<Mark>> {
    let Device::Weir(_) = device else {
        return Ok(None);
    };
    process.write("mark\n")?;
    let line = process.line()?;
    Ok(Some(serde_json::from_str(&line).context(line)?))
}

fn generator(wire: &Wire, device: &Device, load: &Load, huge: bool) -> anyhow::Result<Process> {
    let rates: Vec<String> = load.rates.iter().map(ToString::to_string).collect();
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["generate", "--device", &wire.generator()])
        .args(["--prefix", &wire.prefix("generator")])
        .args(["--core", &load.cores.generator.to_string()])
        .args(["--flows", &load.flows.to_string()])
        .args(["--rates", &rates.join(",")])
        .args(["--seconds", &load.seconds.to_string()])
        .args(["--len", &load.len.to_string()])
        .args(huge.then_some("--huge"))
        .args(device.handshakes().then_some("--handshakes"))
        .args(device.is_one_way().then_some("--one-way"));
    Process::start("generator", &mut command)
}

fn start(wire: &Wire, device: &Device, load: &Load, huge: bool) -> anyhow::Result<Process> {
    match device {
        Device::Weir(mode) => {
            // A tenth more than there are flows, so that no bucket overflows.
            let connections = load.flows + load.flows / 10 + 1000;
            let mut command = Command::new(std::env::current_exe()?);
            command
                .args(["forward", "--device", &wire.device()])
                .args(["--prefix", &wire.prefix("device")])
                .args(["--core", &load.cores.device.to_string()])
                .args(["--connections", &connections.to_string()])
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

/// A child whose stdout is read line by line; it is killed and waited for when dropped.
struct Process {
    name: String,
    child: Child,
    lines: Receiver<String>,
    /// What it said lately, for error texts.
    said: Vec<String>,
}

impl Process {
    fn start(name: &str, command: &mut Command) -> anyhow::Result<Process> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{name}: {}", command.get_program().to_string_lossy()))?;
        let (send, lines) = channel();
        let stdout = child
            .stdout
            .take()
            .map(|o| Box::new(o) as Box<dyn Read + Send>);
        let stderr = child
            .stderr
            .take()
            .map(|o| Box::new(o) as Box<dyn Read + Send>);
        for stream in [stdout, stderr].into_iter().flatten() {
            let send = send.clone();
            // Ends with the child's stream.
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if send.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        Ok(Process {
            name: name.to_owned(),
            child,
            lines,
            said: Vec::new(),
        })
    }

    fn write(&mut self, text: &str) -> anyhow::Result<()> {
        let stdin = self.child.stdin.as_mut().context("stdin is closed")?;
        stdin
            .write_all(text.as_bytes())
            .and_then(|()| stdin.flush())
            .with_context(|| format!("{} does not read", self.name))
    }

    fn line(&mut self) -> anyhow::Result<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => {
                bail!("{}: nothing for {} s", self.name, PATIENCE.as_secs())
            }
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.child.wait()?;
                bail!("{} ended early: {status}", self.name)
            }
        }
    }

    fn report(&mut self) -> anyhow::Result<Report> {
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| format!("{} said: {line}", self.name))
    }

    /// Says `farewell`, closes its stdin and waits for it to end.
    fn end(&mut self, farewell: &str) -> anyhow::Result<()> {
        let _ = self.write(farewell);
        drop(self.child.stdin.take());
        let start = Instant::now();
        while self.child.try_wait()?.is_none() {
            anyhow::ensure!(
                start.elapsed() < Duration::from_secs(20),
                "{} does not end",
                self.name
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// The rest of what it said.
    fn last_words(&mut self) -> String {
        self.said.extend(self.lines.try_iter());
        let from = self.said.len().saturating_sub(12);
        self.said[from..].join(" | ")
    }

    /// What testpmd calls "CPU cycles/packet", of all its packets.
    fn cycles_said(&mut self) -> Option<f64> {
        self.said.extend(self.lines.iter());
        let line = self
            .said
            .iter()
            .rev()
            .find(|l| l.contains("CPU cycles/packet="))?;
        let value = line.split("CPU cycles/packet=").nth(1)?;
        value.split_whitespace().next()?.parse().ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
