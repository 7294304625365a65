//! What a person types. One file per subcommand; each returns the text to print.
#![forbid(unsafe_code)]

use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::api::DEFAULT_SOCKET;

mod address;
mod blacklist;
mod check;
mod conns;
mod counters;
mod drain;
mod explain;
mod listing;
mod number;
mod reload;
mod run;
mod services;
mod status;
mod table;
mod templates;
#[cfg(test)]
mod tests;

/// Weir, a layer-4 load balancer on DPDK.
///
/// `weir run` is the daemon; everything else asks a running daemon over its unix socket, or
/// looks at a configuration file without touching anything.
#[derive(Debug, Parser)]
#[command(
    name = "weir",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "Exit codes: 0 done; 1 refused or failed, with one clear line on stderr; 2 \
                  wrong usage.\n\nFiles: /etc/weir/weir.toml, the configuration; \
                  /run/weir/weir.sock, the socket."
)]
struct Cli {
    /// The daemon's unix socket: where `run` listens and the other commands ask
    #[arg(long, global = true, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Options),
    Check(check::Options),
    Reload(reload::Options),
    Drain(drain::Options),
    Blacklist(blacklist::Options),
    Status(status::Options),
    Services(services::Options),
    Conns(conns::Options),
    Templates(templates::Options),
    Counters(counters::Options),
    Explain(explain::Options),
}

/// How a listing is printed.
#[derive(Debug, Clone, Copy, Args)]
struct Output {
    /// Print the API's JSON document instead of a table
    #[arg(long)]
    json: bool,
}

impl Output {
    /// `document` as JSON, or as `human` makes it.
    fn text<T: serde::Serialize>(
        self,
        document: &T,
        human: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<String> {
        if !self.json {
            return Ok(human(document));
        }
        let mut text = serde_json::to_string_pretty(document)?;
        text.push('\n');
        Ok(text)
    }
}

/// Runs the command line; the exit code is the process's.
pub(crate) fn main() -> ExitCode {
    let Cli { socket, command } = Cli::parse();
    let done = match command {
        Command::Run(options) => run::run(&options, &socket),
        Command::Check(options) => check::run(&options),
        Command::Reload(options) => reload::run(&options, &socket),
        Command::Blacklist(options) => blacklist::run(&options, &socket),
        Command::Drain(options) => drain::run(&options, &socket),
        Command::Status(options) => status::run(&options, &socket),
        Command::Services(options) => services::run(&options, &socket),
        Command::Conns(options) => conns::run(&options, &socket),
        Command::Templates(options) => templates::run(&options, &socket),
        Command::Counters(options) => counters::run(&options, &socket),
        Command::Explain(options) => explain::run(&options, &socket),
    };
    match done.and_then(|text| print(&text)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A report's lines begin with file:line:col, for people and editors alike.
            let from = if error.is::<crate::config::Report>() {
                ""
            } else {
                "weir: "
            };
            // Nothing is left to do when stderr is gone as well.
            let _ = writeln!(io::stderr(), "{from}{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Writes to stdout. A reader that has seen enough (`weir conns | head`) is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}
