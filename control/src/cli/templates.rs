//! `weir templates`: which servers clients of persistent services go to.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::path::Path;

use super::number::{clock, grouped};
use super::table::{Align, Table};
use super::{Output, listing};
use crate::api::documents::Templates;
use crate::api::{ConnectionFilter, Endpoint, client};

/// Lists persistence templates
///
/// A template says which real server the new connections of a client, or of a network of clients,
/// go to. The columns are those of `ipvsadm -Lnc`, where templates have the state NONE, or ASSURED
/// once a connection of theirs was established. EXPIRES is minutes:seconds until the template is
/// forgotten when no connection comes; one that still controls connections (CONNS) is armed again
/// for a minute then. SIP's have the hash of their Call-ID behind the client.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Show only templates of this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Show only templates that this client goes by: 10.0.0.1
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// Show only templates that name this real server: 10.1.0.11 or 10.1.0.11:8080
    #[arg(long, value_name = "ADDRESS")]
    server: Option<Endpoint>,
    /// Show only the template of the SIP call with this Call-ID
    #[arg(long, value_name = "TEXT")]
    call_id: Option<String>,
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
    let listed = client::get::<Templates>(socket, &target(options))?;
    options.output.text(&listed, human)
}

/// The request's path and query.
pub(super) fn target(options: &Options) -> String {
    let filters = [
        ("service", options.service.clone()),
        ("client", options.client.map(|at| at.to_string())),
        ("server", options.server.map(|at| at.to_string())),
        ("call_id", options.call_id.clone()),
    ];
    listing::target("/v1/templates", options.limit, filters)
}

pub(super) fn human(listed: &Templates) -> String {
    if listed.templates.is_empty() {
        return "no templates\n".to_owned();
    }
    let mut table = Table::new([
        ("PRO", Align::Left),
        ("EXPIRES", Align::Right),
        ("STATE", Align::Left),
        ("CLIENT", Align::Left),
        ("VIRTUAL", Align::Left),
        ("SERVER", Align::Left),
        ("CONNS", Align::Right),
        ("SERVICE", Align::Left),
        ("WORKER", Align::Left),
    ]);
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    for t in &listed.templates {
        let client = match &t.call_id_hash {
            Some(hash) => format!("{} call {hash}", t.client),
            None => t.client.clone(),
        };
        table.row([
            t.protocol.to_uppercase(),
            clock(t.expires_seconds),
            t.state.clone(),
            client,
            or_none(t.virtual_.clone()),
            or_none(t.server.map(|at| at.to_string())),
            grouped(t.connections.into()),
            or_none(t.service.clone()),
            format!("w{}", t.worker),
        ]);
    }
    let mut text = String::new();
    table.write_to(&mut text);
    if listed.more {
        text.push_str(&listing::and_more(listed.templates.len()));
    }
    text
}
