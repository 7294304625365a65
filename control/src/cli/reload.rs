//! `weir reload`: the file again, all of it or nothing.
#![forbid(unsafe_code)]

use std::fmt::Write;
use std::path::Path;

use crate::api::client;
use crate::api::documents::Reloaded;

/// Tells the running daemon to read its configuration file again
///
/// The whole new file is applied, or, when anything in it is wrong, nothing: then the running
/// configuration stays as it is and the problems are printed. No connection is lost: a real
/// server that was removed keeps its connections until they end. Returns when every worker uses
/// the new configuration.
#[derive(Debug, clap::Args)]
pub(super) struct Options {}

pub(super) fn run(_: &Options, socket: &Path) -> anyhow::Result<String> {
    Ok(human(&client::post::<Reloaded>(socket, "/v1/reload")?))
}

/// Changes that are printed one by one.
const DETAILS: usize = 50;

pub(super) fn human(reloaded: &Reloaded) -> String {
    let mut text = format!("generation {}: {}\n", reloaded.generation, reloaded.summary);
    for change in reloaded.changes.iter().take(DETAILS) {
        let _ = writeln!(text, "  {change}");
    }
    if let Some(more @ 1..) = reloaded.changes.len().checked_sub(DETAILS) {
        let _ = writeln!(text, "  ... and {more} more");
    }
    for warning in &reloaded.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    text
}
