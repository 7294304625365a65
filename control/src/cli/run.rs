//! `weir run`: the daemon.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use crate::log::Format;

/// Runs the load balancer in the foreground
///
/// Starts DPDK, opens the ports, makes their kernel twins, starts the workers and forwards until
/// it is told to stop. systemd is told when the service is ready (`Type=notify-reload`).
///
/// Signals: SIGHUP reads the configuration file again (like `weir reload`); SIGTERM and SIGINT
/// stop cleanly: addresses are withdrawn, workers end, kernel twins go. A second SIGTERM or
/// SIGINT exits at once.
///
/// What is logged is chosen by WEIR_LOG, or RUST_LOG, in the syntax of tracing's filters:
/// `WEIR_LOG=debug`, `WEIR_LOG=info,weir::net=trace`. Without them it is the configuration's
/// `[log] level`.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "/etc/weir/weir.toml")]
    config: PathBuf,
    /// How log lines look, whatever the configuration's `[log] format` is
    #[arg(long, value_enum, value_name = "FORMAT")]
    log: Option<Format>,
}

pub(super) fn run(options: &Options, socket: &Path) -> anyhow::Result<String> {
    crate::run::run(&options.config, socket, options.log)?;
    Ok(String::new())
}
