//! The generator: one core that sends and counts. A process of its own (hidden subcommand
//! `generate`), because DPDK starts once a process and the link has two ends.
//!
//! It says what it does on stdout, one JSON object a line ([`Report`]), and ends when its stdin
//! does: whoever runs it stops the device under test first (memif can crash the side that is
//! left alone in mid-traffic).
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use weir_dataplane::io::dpdk::{DpdkQueue, Mbuf, OpenPort, Pool};
use weir_dataplane::io::{BURST, Burst, Frame, FramePool, PortQueue};

use super::frames::{Data, Reaction, SMALLEST, age, counts, react, syn};
use super::port::{open, take_core};
use crate::clock::{cycles, cycles_per_ns};
use crate::testbed::Rng;

/// How the generator is run.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Device string of its end.
    #[arg(long)]
    device: String,
    /// Name for DPDK's files.
    #[arg(long)]
    prefix: String,
    /// The CPU that sends.
    #[arg(long)]
    core: usize,
    /// Flows, taken at random.
    #[arg(long)]
    flows: u64,
    /// Open them first, with whole handshakes.
    #[arg(long)]
    handshakes: bool,
    /// Servers answer past the device (DR, TUN).
    #[arg(long)]
    one_way: bool,
    /// Rates to send at, Mpps, one stage each; 0 for as fast as it can.
    #[arg(long, value_delimiter = ',')]
    rates: Vec<f64>,
    /// Seconds of each stage.
    #[arg(long)]
    seconds: f64,
    /// Bytes of a frame without FCS.
    #[arg(long, default_value_t = SMALLEST)]
    len: usize,
    /// Memory on huge pages.
    #[arg(long)]
    huge: bool,
}

/// What the generator says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "says", rename_all = "snake_case")]
pub(crate) enum Report {
    /// Its port is open: the other end may come.
    Ready,
    /// All flows stand.
    Opened {
        /// How long that took.
        seconds: f64,
    },
    /// A stage starts to count.
    Measuring,
    /// A stage is over.
    Measured(Stage),
}

/// One stage's result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Stage {
    /// Mpps asked for; 0 for as fast as it can.
    pub(crate) rate: f64,
    /// Frames sent while it counted.
    pub(crate) sent: u64,
    /// Frames that came back, those in flight at the end included.
    pub(crate) received: u64,
    /// Frames that came back a second, millions, in flight not included.
    pub(crate) mpps: f64,
    /// Time from sending to receiving, of each eighth frame.
    pub(crate) latency: Option<Latency>,
}

/// Nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the percentiles' names say it
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
    pub(crate) samples: u64,
}

fn say(report: &Report) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(report)?)?;
    Ok(out.flush()?)
}

/// The generator's life.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    anyhow::ensure!(
        (SMALLEST..=1514).contains(&args.len),
        "len {}: use {SMALLEST} to 1514",
        args.len
    );
    let (pool, port) = open(&args.device, &args.prefix, args.huge)?;
    let registered = take_core(args.core)?;
    say(&Report::Ready)?;
    let (mut port, patience) = (port, Instant::now());
    while !port.handle.link().up {
        anyhow::ensure!(
            patience.elapsed() < Duration::from_secs(30),
            "nobody connected to the other end of the link within 30 s"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut generator = Generator::new(args, pool, &mut port);
    if args.handshakes {
        let start = Instant::now();
        generator.open_all()?;
        let seconds = start.elapsed().as_secs_f64();
        say(&Report::Opened { seconds })?;
    }
    for &rate in &args.rates {
        generator.warm_up(rate);
        say(&Report::Measuring)?;
        let stage = generator.stage(rate);
        say(&Report::Measured(stage))?;
    }
    std::io::stdin().read_to_end(&mut Vec::new())?;
    drop(port);
    drop(registered);
    Ok(())
}

struct Generator<'a> {
    queue: &'a mut DpdkQueue,
    pool: Pool,
    data: Data,
    flows: u64,
    one_way: bool,
    seconds: f64,
    per_ns: f64,
    rng: Rng,
    /// Frames written and not yet taken by the link.
    out: Burst<Mbuf>,
    /// Buffers of frames that came back, to be written again: cheaper than the pool, and the
    /// generator must not be what limits the link.
    stock: Vec<Mbuf>,
}

/// Buffers kept to be written again: two bursts.
const STOCK: usize = 2 * BURST;

impl<'a> Generator<'a> {
    fn new(args: &Args, pool: Pool, port: &'a mut OpenPort) -> Generator<'a> {
        Generator {
            queue: &mut port.queues[0],
            pool,
            data: Data::new(args.len),
            flows: args.flows,
            one_way: args.one_way,
            seconds: args.seconds,
            per_ns: cycles_per_ns(),
            rng: Rng(42),
            out: Burst::new(),
            stock: Vec::with_capacity(STOCK),
        }
    }

    /// Completes the handshakes of all flows, some at a time, again where something was lost.
    fn open_all(&mut self) -> anyhow::Result<()> {
        /// Half of the link's ring: three frames of a handshake are never there at once.
        const WINDOW: u64 = 1024;
        const ATTEMPTS: u32 = 20;
        for first in (0..self.flows).step_by(WINDOW as usize) {
            let window = first..(first + WINDOW).min(self.flows);
            let mut open = vec![false; (window.end - window.start) as usize];
            for attempt in 0.. {
                let missing: Vec<u64> = window
                    .clone()
                    .filter(|n| !open[(n - first) as usize])
                    .collect();
                if missing.is_empty() {
                    break;
                }
                anyhow::ensure!(
                    attempt < ATTEMPTS,
                    "{} of the connections {window:?} could not be opened in {ATTEMPTS} attempts: \
                     the device under test does not forward them",
                    missing.len()
                );
                self.handshakes(&missing, first, &mut open);
            }
        }
        Ok(())
    }

    /// Sends SYNs and reacts to what comes, until all are open or nothing comes any more.
    fn handshakes(&mut self, clients: &[u64], first: u64, open: &mut [bool]) {
        /// Silence after which a frame counts as lost.
        const QUIET: Duration = Duration::from_millis(100);
        let mut todo = clients.iter();
        let mut left = clients.len();
        let mut heard = Instant::now();
        while left > 0 && heard.elapsed() < QUIET {
            for n in todo.by_ref().take(BURST / 2) {
                self.send(&syn(*n));
            }
            let mut burst = Burst::new();
            self.queue.rx_burst(&mut burst);
            if !burst.is_empty() {
                heard = Instant::now();
            }
            for frame in &burst {
                match react(frame.bytes(), self.one_way) {
                    Reaction::None => {}
                    Reaction::Answer(answer) => self.send(&answer),
                    Reaction::Open(n) => {
                        let known = n
                            .checked_sub(first)
                            .and_then(|at| open.get_mut(at as usize));
                        if let Some(open) = known.filter(|open| !**open) {
                            *open = true;
                            left -= 1;
                        }
                    }
                }
            }
            self.queue.tx_burst(&mut self.out);
        }
    }

    /// Queues a frame; sends when the burst is full. A frame without a buffer is lost, as on
    /// any link.
    fn send(&mut self, bytes: &[u8]) {
        if self.out.is_full() {
            self.queue.tx_burst(&mut self.out);
        }
        if !self.out.is_full()
            && let Some(mut frame) = self.pool.alloc(bytes.len())
        {
            frame.bytes_mut().copy_from_slice(bytes);
            self.out.push(frame);
        }
    }

    /// Fills caches before anything counts, and leaves nothing on its way.
    fn warm_up(&mut self, rate: f64) {
        let seconds = (self.seconds / 4.0).min(0.5);
        self.load(rate, seconds, &mut None);
        self.settle();
    }

    fn stage(&mut self, rate: f64) -> Stage {
        // Up to 10 s, three digits. Only where a rate is given: at the limit latency is that of
        // full rings.
        let histogram = || Histogram::new_with_bounds(1, 100_000_000_000, 3).ok();
        let mut ages = if rate > 0.0 { histogram() } else { None };
        let (sent, received, seconds) = self.load(rate, self.seconds, &mut ages);
        let in_flight = self.settle();
        let per_ns = self.per_ns;
        let ns = |cycles: u64| cycles as f64 / per_ns;
        Stage {
            rate,
            sent,
            received: received + in_flight,
            mpps: received as f64 / seconds / 1e6,
            latency: ages.map(|h| Latency {
                p50: ns(h.value_at_quantile(0.5)),
                p99: ns(h.value_at_quantile(0.99)),
                p999: ns(h.value_at_quantile(0.999)),
                max: ns(h.max()),
                samples: h.len(),
            }),
        }
    }

    /// Sends and receives for `seconds`: frames sent, received, and the seconds it took.
    fn load(
        &mut self,
        rate: f64,
        seconds: f64,
        ages: &mut Option<Histogram<u64>>,
    ) -> (u64, u64, f64) {
        let start = cycles();
        let end = start + (seconds * 1e9 * self.per_ns) as u64;
        // Frames a cycle, as a fraction of 2^32: no division and no floating point in the loop.
        let per_cycle = (rate * 1e-3 / self.per_ns * f64::from(u32::MAX)) as u128;
        let (mut written, mut sent, mut received) = (0u64, 0u64, 0u64);
        let mut now = start;
        while now < end {
            let due = match rate > 0.0 {
                true => ((u128::from(now - start) * per_cycle) >> 32) as u64 - written,
                false => BURST as u64,
            };
            written += self.fill(due as usize, now);
            let before = self.out.len();
            self.queue.tx_burst(&mut self.out);
            sent += (before - self.out.len()) as u64;
            received += self.receive(ages, received);
            now = cycles();
        }
        (sent, received, (now - start) as f64 / self.per_ns / 1e9)
    }

    /// Writes up to `due` frames into the burst's free places.
    #[inline]
    fn fill(&mut self, due: usize, stamp: u64) -> u64 {
        let (first, n) = (self.out.len(), due.min(self.out.remaining_capacity()));
        let again = n.min(self.stock.len());
        self.out
            .extend(self.stock.drain(self.stock.len() - again..));
        // Without buffers the loop comes round again when some have come back.
        let _ = self
            .pool
            .alloc_burst(n - again, self.data.len(), &mut self.out);
        for new in &mut self.out[first + again..] {
            new.bytes_mut()[SMALLEST..].fill(0);
        }
        for frame in &mut self.out[first..] {
            let n = self.rng.quick(self.flows);
            self.data.write(frame.bytes_mut(), n, stamp);
        }
        (self.out.len() - first) as u64
    }

    /// Takes what came, twice a burst at most: more than was sent, or the rings fill up.
    #[inline]
    fn receive(&mut self, ages: &mut Option<Histogram<u64>>, so_far: u64) -> u64 {
        let mut counted = 0;
        for _ in 0..2 {
            let mut burst = Burst::new();
            self.queue.rx_burst(&mut burst);
            if burst.is_empty() {
                break;
            }
            let now = ages.as_ref().map(|_| cycles());
            for mut frame in burst {
                let bytes = frame.bytes();
                if !counts(bytes) {
                    self.other(bytes);
                    continue;
                }
                counted += 1;
                if let (Some(ages), Some(now)) = (ages.as_mut(), now)
                    && (so_far + counted).is_multiple_of(8)
                {
                    ages.saturating_record(age(bytes, now));
                }
                let as_sent = bytes.len() == self.data.len();
                if self.stock.len() < STOCK && as_sent && frame.set_len(self.data.len()) {
                    self.stock.push(frame);
                }
            }
        }
        counted
    }

    #[cold]
    fn other(&mut self, bytes: &[u8]) {
        if let Reaction::Answer(answer) = react(bytes, self.one_way) {
            self.send(&answer);
        }
    }

    /// Sends nothing more and takes what is still on its way.
    fn settle(&mut self) -> u64 {
        let (mut received, mut heard) = (0, Instant::now());
        while heard.elapsed() < Duration::from_millis(20) {
            let n = self.receive(&mut None, 0);
            if n > 0 {
                (received, heard) = (received + n, Instant::now());
            }
        }
        received
    }
}
