//! `weir conns`: the connections standing now.
#![forbid(unsafe_code)]

use std::path::Path;

use super::number::clock;
use super::table::{Align, Table};
use super::{Output, listing};
use crate::api::documents::Connections;
use crate::api::{ConnectionFilter, Endpoint, client};

/// Lists connections
///
/// The columns are those of `ipvsadm -Lnc` with the local address added: a server sees LOCAL as
/// its client. EXPIRES is minutes:seconds until the connection is forgotten when no packet
/// comes. Workers are asked for a page at a time between their packets, so the list is no exact
/// moment.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Show only connections of this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Show only connections of this client: 10.0.0.1 or 10.0.0.1:40000
    #[arg(long, value_name = "ADDRESS")]
    client: Option<Endpoint>,
    /// Show only connections to this real server: 10.1.0.11 or 10.1.0.11:8080
    #[arg(long, value_name = "ADDRESS")]
    server: Option<Endpoint>,
    /// Show only connections in this state: ESTABLISHED, SYN_RECV, TIME_WAIT, UDP ...
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// Stop after this many, 1 to 100000
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = ConnectionFilter::DEFAULT_LIMIT as u32,
        value_parser = clap::value_parser!(u32).range(1..=ConnectionFilter::MAX_LIMIT as i64)
    )]
    limit: u32,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(options: &Options, socket: &Path) -> anyhow::Result<String> {
    let listed = client::get::<Connections>(socket, &target(options))?;
    options.output.text(&listed, human)
}

/// The request's path and query.
pub(super) fn target(options: &Options) -> String {
    let filters = [
        ("service", options.service.clone()),
        ("client", options.client.map(|at| at.to_string())),
        ("server", options.server.map(|at| at.to_string())),
        ("state", options.state.clone()),
    ];
    listing::target("/v1/connections", options.limit, filters)
}

/// The path and query for the connections of a client or of a server, as `end` says.
pub(super) fn of(end: &str, at: std::net::SocketAddr) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair(end, &at.to_string());
    format!("/v1/connections?{}", query.finish())
}

/// The path and query for as many connections as a listing holds.
pub(super) fn all() -> String {
    format!("/v1/connections?limit={}", ConnectionFilter::MAX_LIMIT)
}

pub(super) fn human(listed: &Connections) -> String {
    if listed.connections.is_empty() {
        return "no connections\n".to_owned();
    }
    let mut table = Table::new([
        ("PRO", Align::Left),
        ("EXPIRES", Align::Right),
        ("STATE", Align::Left),
        ("CLIENT", Align::Left),
        ("VIRTUAL", Align::Left),
        ("LOCAL", Align::Left),
        ("SERVER", Align::Left),
        ("SERVICE", Align::Left),
        ("WORKER", Align::Left),
    ]);
    for c in &listed.connections {
        table.row([
            c.protocol.to_uppercase(),
            clock(c.expires_seconds),
            c.state.clone(),
            c.client.to_string(),
            c.virtual_.to_string(),
            c.local.to_string(),
            c.server.to_string(),
            c.service.clone().unwrap_or_else(|| "-".to_owned()),
            format!("w{}", c.worker),
        ]);
    }
    let mut text = String::new();
    table.write_to(&mut text);
    if listed.more {
        text.push_str(&listing::and_more(listed.connections.len()));
    }
    text
}
