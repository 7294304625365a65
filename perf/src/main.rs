//! `weir-perf`: Weir's speed, measured by a stranger.
//!
//! One subcommand a question; each prints a table for people, or JSON with `--json`.

mod access;
mod alloc;
mod clock;
mod connections;
mod floods;
#[cfg(feature = "dpdk")]
mod latency;
#[cfg(feature = "dpdk")]
mod link;
mod machine;
mod memory;
#[cfg(feature = "dpdk")]
mod peers;
mod pipeline;
mod port;
mod report;
mod scaling;
mod table;
mod testbed;

use clap::{Parser, Subcommand};

/// Measures Weir: the packet path alone and over a link, connections, memory, latency, scaling.
#[derive(Debug, Parser)]
#[command(name = "weir-perf", version, arg_required_else_help = true)]
struct Cli {
    /// Print JSON for machines instead of a table for people.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The product's worker loop alone, in process, no link: ns and cycles a packet.
    Pipeline(pipeline::Args),
    /// Complete TCP lifecycles a second, the table steady; with --via over a link, beside testpmd.
    Connections(connections::Args),
    /// Floods of SYNs and forged ACKs, and handshakes, with the SYN proxy and without.
    Floods(floods::Args),
    /// Access lists: time to compile, bytes a network, ns a question.
    Access(access::Args),
    /// Bytes a connection, all told.
    Memory(memory::Args),
    /// Weir over memif or veth, beside dpdk-testpmd macswap on the same link, in turn.
    #[cfg(feature = "dpdk")]
    Link(link::Args),
    /// What Weir adds to a packet's way, at parts of its own maximum rate, beside testpmd.
    #[cfg(feature = "dpdk")]
    Latency(latency::Args),
    /// The same load against any DPDK program on the same link, described in a file.
    #[cfg(feature = "dpdk")]
    Peers(peers::Args),
    /// One worker and two, with and without RSS that matches.
    Scaling(scaling::Args),
    /// Makes tables and plots of results that were written with --json.
    Report(report::Args),
    /// The generator's side of a link (started by the other subcommands).
    #[cfg(feature = "dpdk")]
    #[command(hide = true)]
    Generate(link::generate::Args),
    /// Weir's side of a link (started by the other subcommands).
    #[cfg(feature = "dpdk")]
    #[command(hide = true)]
    Forward(link::forward::Args),
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match cli.what {
        What::Pipeline(args) => pipeline::run(&args, cli.json),
        What::Connections(args) => connections::run(&args, cli.json),
        What::Floods(args) => floods::run(&args, cli.json),
        What::Access(args) => access::run(&args, cli.json),
        What::Memory(args) => memory::run(&args, cli.json),
        #[cfg(feature = "dpdk")]
        What::Link(args) => link::run(&args, cli.json),
        #[cfg(feature = "dpdk")]
        What::Latency(args) => latency::run(&args, cli.json),
        #[cfg(feature = "dpdk")]
        What::Peers(args) => peers::run(&args, cli.json),
        What::Scaling(args) => scaling::run(&args, cli.json),
        What::Report(args) => report::run(&args),
        #[cfg(feature = "dpdk")]
        What::Generate(args) => link::generate::run(&args),
        #[cfg(feature = "dpdk")]
        What::Forward(args) => link::forward::run(&args),
    }
}
