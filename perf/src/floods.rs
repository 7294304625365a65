//! Floods, and what the SYN proxy costs against them: SYNs from everywhere, forged acknowledgements,
//! and whole handshakes of clients that mean it; each without a SYN proxy and with one that always
//! answers.
//!
//! As in `pipeline` nothing but the worker's own time counts: frames are made and taken back outside.

mod world;

use serde::Serialize;
use weir_dataplane::defense::syn_proxy::{Mode, SynProxy};
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::service::Policy;

use self::world::{ack, reply, syn};
use crate::alloc::allocations;
use crate::clock::{cycles, cycles_per_ns};
use crate::table::{self, Row, count};
use crate::testbed::{Rng, Side, Testbed, snapshot};

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Connections that fit the table, which a flood of SYNs fills where nothing stops it.
    #[arg(long, default_value_t = 1_000_000)]
    connections: u32,
    /// Timed rounds a row: of 4,096 packets, or 256 handshakes (fewer than may wait for servers).
    #[arg(long, default_value_t = 30)]
    rounds: usize,
}

/// What comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// From clients at random, who never say more.
    Syn,
    /// Acknowledgements of nothing.
    Ack,
    /// SYN, SYN-ACK, ACK: with a SYN proxy the server's come after the client's.
    Handshake,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Syn, Kind::Ack, Kind::Handshake];

    /// How many a round. Forged packets are dropped and their buffers lost (`port.rs`), so no more.
    const fn batch(self) -> usize {
        match self {
            Kind::Syn | Kind::Ack => 4096,
            Kind::Handshake => 256,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Kind::Syn => "SYN",
            Kind::Ack => "forged ACK",
            Kind::Handshake => "handshake",
        }
    }
}

#[derive(Debug, Serialize)]
struct Measured {
    kind: Kind,
    syn_proxy: &'static str,
    ns_min: f64,
    ns_median: f64,
    /// Of the median.
    per_second: f64,
    /// Frames that the worker got and sent for each.
    frames_in: f64,
    frames_out: f64,
    cookies_sent: u64,
    cookies_valid: u64,
    /// Connections that stood at the end.
    in_table: u32,
    allocations_per_frame: f64,
}

impl Row for Measured {
    const TITLES: &'static [&'static str] = &[
        "of",
        "SYN proxy",
        "ns min",
        "ns median",
        "per second",
        "frames in",
        "out",
        "cookies sent",
        "came back",
        "in table",
        "allocs/frame",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.kind.name().into(),
            self.syn_proxy.into(),
            format!("{:.1}", self.ns_min),
            format!("{:.1}", self.ns_median),
            count(self.per_second),
            format!("{:.2}", self.frames_in),
            format!("{:.2}", self.frames_out),
            count(self.cookies_sent as f64),
            count(self.cookies_valid as f64),
            count(f64::from(self.in_table)),
            format!("{:.3}", self.allocations_per_frame),
        ]
    }
}

pub(crate) fn run(args: &Args, json: bool) -> anyhow::Result<()> {
    anyhow::ensure!(args.rounds > 0, "rounds 0: use at least 1");
    let mut rows = Vec::new();
    for kind in Kind::ALL {
        for mode in [Mode::Off, Mode::Always] {
            rows.push(measure(args, kind, mode)?);
        }
    }
    table::print("floods", &rows, json)
}

/// What one round took.
#[derive(Default)]
struct Round {
    cycles: u64,
    allocations: u64,
    frames_in: usize,
    frames_out: usize,
}

fn measure(args: &Args, kind: Kind, mode: Mode) -> anyhow::Result<Measured> {
    const WARM_UP: usize = 4;
    let mut bed = guarded(args, mode)?;
    // A flood is measured against the table that it leaves: a full one, where every SYN opens.
    let warm_up = match (kind, mode) {
        (Kind::Syn, Mode::Off) => WARM_UP + args.connections as usize * 5 / 4 / kind.batch(),
        _ => WARM_UP,
    };
    let (mut rng, mut next, mut rounds) = (Rng(7), 0, Vec::new());
    for at in 0..warm_up + args.rounds {
        // Four million packets a second: a tick is 1/64 s.
        if at % 16 == 0 {
            bed.now = bed.now.after(1);
        }
        let mut client = || match kind {
            Kind::Syn | Kind::Ack => rng.below(1 << 32),
            Kind::Handshake => {
                next += 1;
                next
            }
        };
        let clients: Vec<u64> = (0..kind.batch()).map(|_| client()).collect();
        let took = round(&mut bed, kind, &clients)?;
        if at >= warm_up {
            rounds.push(took);
        }
    }
    let shaken = (warm_up + args.rounds) * kind.batch();
    let stand = bed.worker.conns().len() as usize;
    anyhow::ensure!(
        kind != Kind::Handshake || stand == shaken,
        "{stand} connections stand after {shaken} handshakes"
    );
    Ok(summary(&bed, kind, mode, &rounds))
}

/// A worker whose service has a SYN proxy of this mode.
fn guarded(args: &Args, mode: Mode) -> anyhow::Result<Testbed> {
    let mut bed = Testbed::new(args.connections, 1)?;
    let policy = Policy {
        syn_proxy: SynProxy {
            mode,
            ..SynProxy::default()
        },
        ..Policy::default()
    };
    let mode = ForwardMode::fullnat;
    let snapshot = snapshot(args.connections, 1, mode, policy, &bed.counters);
    bed.follow(snapshot)?;
    Ok(bed)
}

/// One of each client, and of handshakes all that follows.
fn round(bed: &mut Testbed, kind: Kind, clients: &[u64]) -> anyhow::Result<Round> {
    let mut round = Round::default();
    let first = |n: &u64| match kind {
        Kind::Ack => (Side::Client, ack(*n)),
        Kind::Syn | Kind::Handshake => (Side::Client, syn(*n)),
    };
    let mut frames: Vec<(Side, Vec<u8>)> = clients.iter().map(first).collect();
    while !frames.is_empty() {
        for (side, frame) in &frames {
            anyhow::ensure!(bed.deliver(*side, frame), "a ring is too small");
        }
        round.frames_in += frames.len();
        let (a, c) = (allocations(), cycles());
        bed.drain();
        round.cycles += cycles() - c;
        round.allocations += allocations() - a;
        frames.clear();
        round.frames_out += bed.collect(|to, frame| {
            if kind == Kind::Handshake {
                frames.extend(reply(to, frame));
            }
        });
    }
    Ok(round)
}

fn summary(bed: &Testbed, kind: Kind, mode: Mode, rounds: &[Round]) -> Measured {
    let per_ns = cycles_per_ns();
    let each = |round: &Round| round.cycles as f64 / kind.batch() as f64 / per_ns;
    let mut ns: Vec<f64> = rounds.iter().map(each).collect();
    ns.sort_by(f64::total_cmp);
    let median = ns[ns.len() / 2];
    let sum = |of: fn(&Round) -> u64| rounds.iter().map(of).sum::<u64>() as f64;
    let (came, went) = (sum(|r| r.frames_in as u64), sum(|r| r.frames_out as u64));
    let all = (rounds.len() * kind.batch()) as f64;
    Measured {
        kind,
        syn_proxy: mode.name(),
        ns_min: ns[0],
        ns_median: median,
        per_second: 1e9 / median,
        frames_in: came / all,
        frames_out: went / all,
        cookies_sent: bed.counters.cookies_sent.get(),
        cookies_valid: bed.counters.cookies_valid.get(),
        in_table: bed.worker.conns().len(),
        allocations_per_frame: sum(|r| r.allocations) / came,
    }
}
