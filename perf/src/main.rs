//! `weir-perf`: Weir's speed, measured by a stranger.
//!
//! One subcommand a question; each prints a table for people, or JSON with `--json`.

mod alloc;
mod clock;
mod connections;
#[cfg(feature = "dpdk")]
mod link;
mod machine;
mod memory;
mod pipeline;
mod port;
mod table;
mod testbed;

use clap::{Parser, Subcommand};

/// Measures Weir: the packet path alone, connections, memory.
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
    /// Complete TCP lifecycles a second, until the table is steady.
    Connections(connections::Args),
    /// Bytes a connection, all told.
    Memory(memory::Args),
    /// Weir over memif or veth, beside dpdk-testpmd macswap on the same link, in turn.
    #[cfg(feature = "dpdk")]
    Link(link::Args),
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
        What::Memory(args) => memory::run(&args, cli.json),
        #[cfg(feature = "dpdk")]
        What::Link(args) => link::run(&args, cli.json),
        #[cfg(feature = "dpdk")]
        What::Generate(args) => link::generate::run(&args),
        #[cfg(feature = "dpdk")]
        What::Forward(args) => link::forward::run(&args),
    }
}
