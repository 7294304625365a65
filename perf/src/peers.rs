//! The same load against any DPDK program on the same link, described in a file.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use weir_dataplane::forward::ForwardMode;

use crate::link::program::Program;
use crate::link::session::Device;
use crate::link::{Common, compare};

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Files that say how to start a program; perf/peers/README.md explains them.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Standing connections, one comparison each.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 1_000_000])]
    flows: Vec<u64>,
    /// Runs of each program, in turn.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    #[command(flatten)]
    common: Common,
}

/// Weir, the programs, and testpmd as the reference.
pub(crate) fn run(args: &Args, json: bool) -> anyhow::Result<()> {
    let mut devices = vec![Device::Weir(ForwardMode::fullnat)];
    for file in &args.files {
        devices.push(Device::Program(Program::read(file)?));
    }
    devices.push(Device::Program(Program::testpmd()));
    compare(
        "peers",
        &devices,
        &args.flows,
        args.runs,
        &args.common,
        json,
    )
}
