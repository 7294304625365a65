//! `weir check`: would this file be accepted?
#![forbid(unsafe_code)]

use std::path::PathBuf;

use crate::cli::number::count;

/// Checks a configuration file exactly as start-up and reload do, and changes nothing
///
/// Every problem is listed with file, line and column, the value, and what to write instead; what
/// is valid and may still surprise, as a note.
/// Needs no rights, no DPDK and no running daemon.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The configuration file
    #[arg(value_name = "FILE")]
    config: PathBuf,
}

pub(super) fn run(options: &Options) -> anyhow::Result<String> {
    let config = crate::config::load(&options.config)?;
    let servers: usize = config.services.iter().map(|s| s.servers.len()).sum();
    let file = options.config.display();
    let mut said = String::new();
    for surprise in crate::config::surprises(&config) {
        said += &format!("{file}: note: {surprise}\n");
    }
    Ok(format!(
        "{said}{}: valid; {}, {}, {}\n",
        options.config.display(),
        count(config.ports.len() as u64, "port"),
        count(config.services.len() as u64, "service"),
        count(servers as u64, "real server"),
    ))
}
