//! `weir drain`: before a machine is switched off.
#![forbid(unsafe_code)]

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Output;
use super::address::address;
use super::number::grouped;
use crate::api::client;
use crate::api::documents::Draining;

/// Takes a real server out of service and says when it is safe to switch it off
///
/// The server gets no new connections; those that it has go on. Waits until none is left, and
/// shows how many there are. To stop waiting (Ctrl-C, --timeout) does not end the draining:
/// `--undo` does, and so does a restart of the daemon; a reload does not. A server that is back
/// starts slowly where its service has `slow_start`.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The service's name
    service: String,
    /// The real server: its address and port, as `weir services` shows it
    #[arg(value_parser = address)]
    server: SocketAddr,
    /// Back into service
    #[arg(long, conflicts_with_all = ["no_wait", "timeout", "reset_after"])]
    undo: bool,
    /// Say what is left, and do not wait
    #[arg(long, conflicts_with = "timeout")]
    no_wait: bool,
    /// Wait this long at most; exits with 1 when connections are left then
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    timeout: Option<u32>,
    /// After so long, reset the connections that are left, at both sides
    #[arg(long, value_name = "SECONDS")]
    reset_after: Option<u32>,
    #[command(flatten)]
    output: Output,
}

/// Between two looks.
const EVERY: Duration = Duration::from_millis(500);

pub(super) fn run(options: &Options, socket: &Path) -> anyhow::Result<String> {
    let target = target(options);
    let deadline = options
        .timeout
        .map(|s| Instant::now() + Duration::from_secs(s.into()));
    let mut shown = None;
    loop {
        let draining = client::post::<Draining>(socket, &target)?;
        if options.undo || options.no_wait || draining.safe {
            let text = |d: &Draining| human(d, options.undo);
            return options.output.text(&draining, text);
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            anyhow::bail!("{}: {}", draining.server, left(&draining));
        }
        let now = (draining.active, draining.inactive);
        if shown != Some(now) && std::io::stderr().is_terminal() {
            // Only to be looked at: nothing is lost where nobody does.
            let _ = writeln!(
                std::io::stderr(),
                "{}: {}",
                draining.server,
                left(&draining)
            );
            shown = Some(now);
        }
        std::thread::sleep(EVERY);
    }
}

fn target(options: &Options) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query
        .append_pair("service", &options.service)
        .append_pair("server", &options.server.to_string())
        .append_pair("undo", &options.undo.to_string());
    if let Some(seconds) = options.reset_after {
        query.append_pair("reset_after", &seconds.to_string());
    }
    format!("/v1/drain?{}", query.finish())
}

fn left(draining: &Draining) -> String {
    let (active, inactive) = (grouped(draining.active), grouped(draining.inactive));
    format!("{active} active and {inactive} closing or idle connections left")
}

pub(super) fn human(draining: &Draining, undo: bool) -> String {
    let Draining {
        service, server, ..
    } = draining;
    match (undo, draining.safe) {
        (true, _) => format!("{server} of service {service:?} is back in service\n"),
        (false, true) => format!(
            "{server} of service {service:?} has no connections left: it is safe to switch it off\n"
        ),
        (false, false) => format!(
            "{server} of service {service:?} drains: {}\n",
            left(draining)
        ),
    }
}
