//! The generator: one core that sends and counts. A process of its own (hidden subcommand
//! `generate`), because DPDK starts once a process and the link has two ends.
//!
//! It says what it does on stdout, one JSON object a line ([`Report`]), and ends when its stdin
//! does: whoever runs it stops the device under test first (memif can crash the side that is
//! left alone in mid-traffic).
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::driver::{self, Lifecycles, Turned};
use super::established::{Established, Stage};
use super::frames::SMALLEST;
use super::port::{open, take_core};

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
    /// Memory on huge pages.
    #[arg(long)]
    huge: bool,
    /// Connections that stand.
    #[arg(long)]
    flows: u64,
    /// Open them first, with whole handshakes.
    #[arg(long)]
    handshakes: bool,
    /// Servers answer past the device (DR, TUN).
    #[arg(long)]
    one_way: bool,
    /// Seconds of each stage.
    #[arg(long)]
    seconds: f64,
    #[command(subcommand)]
    what: What,
}

/// What is sent.
#[derive(Debug, clap::Subcommand)]
enum What {
    /// Clients' packets of connections that stand, taken at random.
    Established {
        /// Rates to send at, Mpps, one stage each; 0 for as fast as it can.
        #[arg(long, value_delimiter = ',')]
        rates: Vec<f64>,
        /// Bytes of a frame without FCS.
        #[arg(long, default_value_t = SMALLEST)]
        len: usize,
    },
    /// Whole TCP lifecycles, beside those that stand.
    Lifecycles {
        /// How many at once.
        #[arg(long)]
        window: u32,
        /// Clients, which come round again.
        #[arg(long)]
        clients: u32,
        /// Seconds before it counts.
        #[arg(long)]
        warm_up: f64,
    },
}

/// What the generator says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "says", rename_all = "snake_case")]
pub(crate) enum Report {
    /// Its port is open: the other end may come.
    Ready,
    /// All flows stand.
    Opened {
        /// How long that took since the first did.
        seconds: f64,
    },
    /// A stage starts to count.
    Measuring,
    /// A stage of packets is over.
    Measured(Stage),
    /// A stage of lifecycles is over.
    Turned(Turned),
    /// Nothing is on its way any more: the other end may go.
    Quiet,
}

fn say(report: &Report) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(report)?)?;
    Ok(out.flush()?)
}

/// The generator's life.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
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
    let queue = port.queues.first_mut().context("the port has no queue")?;
    let flows = u32::try_from(args.flows)?;
    if args.handshakes && flows > 0 {
        let seconds = driver::open(queue, pool.clone(), flows, args.one_way)?;
        say(&Report::Opened { seconds })?;
    }
    match args.what {
        What::Established { ref rates, len } => {
            let mut load = Established::new(queue, pool, args.flows, len, args.seconds)?;
            for &rate in rates {
                load.warm_up(rate);
                say(&Report::Measuring)?;
                let stage = load.stage(rate);
                say(&Report::Measured(stage))?;
            }
        }
        What::Lifecycles {
            window,
            clients,
            warm_up,
        } => {
            let mut lives = Lifecycles::new(queue, pool, window, flows..flows + clients);
            lives.run(warm_up)?;
            say(&Report::Measuring)?;
            let turned = lives.run(args.seconds)?;
            say(&Report::Turned(turned))?;
            lives.settle()?;
        }
    }
    say(&Report::Quiet)?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    drop(port);
    drop(registered);
    Ok(())
}
