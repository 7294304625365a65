//! The tables that say what is balanced: `[[service]]` and `[[service.real_server]]`.
#![forbid(unsafe_code)]

use std::net::SocketAddr;

use weir_dataplane::Proto;
use weir_dataplane::conn::state::TimeoutChanges;
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::forward::tun::Tunnel;
use weir_dataplane::sched::SchedulerKind;

use super::defaults::{self, MAX_LOCAL_ADDRESSES, WEIGHT_RANGE};
use super::forwarding;
use super::machine::named;
use super::reader::{At, Key, Problems, Section};
use super::scalars::{self, Range};
use super::states;

pub(super) const SERVICE: &[Key] = &[
    Key::new("name", "\"web\""),
    Key::new("address", "\"10.0.0.10:80\""),
    Key::new("protocol", "\"tcp\""),
    Key::new("scheduler", "\"wrr\""),
    Key::new("forward", "\"fullnat\""),
    Key::new("tunnel", "{ type = \"gue\", port = 6080 }"),
    Key::new("local_addresses", "[\"10.1.0.100-10.1.0.103\"]"),
    Key::new("port", "\"wan0\""),
    Key::new("client_address", "\"none\""),
    Key::new("timeouts", "{ established = \"90s\" }"),
    Key::new("real_server", "[[service.real_server]]"),
    Key::planned("persistence"),
    Key::planned("health_check"),
    Key::planned("fwmark"),
];
pub(super) const REAL_SERVER: &[Key] = &[
    Key::new("name", "\"web-1\""),
    Key::new("address", "\"10.1.0.11:80\""),
    Key::new("weight", "100"),
    Key::new("forward", "\"fullnat\""),
    Key::new("tunnel", "{ type = \"gue\", port = 6080 }"),
    Key::planned("health_check"),
];

/// One `[[service]]` as written; `None` is what is missing or wrong, and reported.
#[derive(Debug)]
pub(super) struct ServiceDraft<'t> {
    pub(super) section: Section<'t>,
    pub(super) name: Option<At<String>>,
    pub(super) address: Option<At<SocketAddr>>,
    pub(super) protocol: Option<At<Proto>>,
    pub(super) scheduler: SchedulerKind,
    pub(super) forward: ForwardMode,
    pub(super) tunnel: Option<Tunnel>,
    pub(super) local_addresses: Vec<At<Range>>,
    pub(super) port: Option<At<String>>,
    pub(super) timeouts: TimeoutChanges,
    pub(super) servers: Vec<ServerDraft<'t>>,
}

/// One `[[service.real_server]]` as written.
#[derive(Debug)]
pub(super) struct ServerDraft<'t> {
    pub(super) section: Section<'t>,
    pub(super) name: Option<At<String>>,
    pub(super) address: Option<At<SocketAddr>>,
    pub(super) weight: u16,
    pub(super) forward: Option<ForwardMode>,
    pub(super) tunnel: Option<Tunnel>,
}

impl ServiceDraft<'_> {
    /// How packets reach this server of it.
    pub(super) fn mode_of(&self, server: &ServerDraft<'_>) -> ForwardMode {
        server.forward.unwrap_or(self.forward)
    }
}

pub(super) fn services<'t>(p: &mut Problems<'_>, top: &Section<'t>) -> Vec<ServiceDraft<'t>> {
    let sections = top.tables(p, "service", SERVICE, |n, table| named("service", n, table));
    sections
        .into_iter()
        .map(|section| service(p, section))
        .collect()
}

fn service<'t>(p: &mut Problems<'_>, section: Section<'t>) -> ServiceDraft<'t> {
    for required in ["name", "address", "protocol"] {
        // fwmark stands for an address, and is refused itself
        let instead = required == "address" && section.has("fwmark");
        if !instead && !section.has(required) {
            section.missing(p, required);
        }
    }
    let schedulers: Vec<_> = SchedulerKind::ALL.iter().map(|s| (s.name(), *s)).collect();
    let protocols = [Proto::Tcp, Proto::Udp, Proto::Sctp].map(|p| (p.name(), p));
    let scheduler = section.choice(p, "scheduler", &schedulers, &[]);
    let carriers = ["toa", "proxy-v1", "proxy-v2"];
    section.choice(p, "client_address", &[("none", ())], &carriers);
    ServiceDraft {
        name: section.parsed(p, "name", scalars::label),
        address: section.parsed(p, "address", scalars::endpoint),
        protocol: section.choice(p, "protocol", &protocols, &[]),
        scheduler: scheduler.map_or(defaults::SCHEDULER, |s| s.value),
        forward: forwarding::forward(p, &section).unwrap_or(defaults::FORWARD),
        tunnel: forwarding::tunnel(p, &section),
        local_addresses: local_addresses(p, &section),
        port: section.parsed(p, "port", scalars::interface),
        timeouts: states::changes(p, &section),
        servers: servers(p, &section),
        section,
    }
}

fn local_addresses(p: &mut Problems<'_>, section: &Section<'_>) -> Vec<At<Range>> {
    let ranges = section
        .texts(p, "local_addresses", scalars::range)
        .unwrap_or_default();
    let mut total = 0;
    for range in &ranges {
        total += range.value.len();
        if total > MAX_LOCAL_ADDRESSES {
            let why = format!(
                "local_addresses: {total} addresses up to here; a service takes at most \
                 {MAX_LOCAL_ADDRESSES}"
            );
            section.problem(p, range.at, &why);
            break;
        }
    }
    ranges
}

fn servers<'t>(p: &mut Problems<'_>, service: &Section<'t>) -> Vec<ServerDraft<'t>> {
    let sections = service.tables(p, "real_server", REAL_SERVER, |n, table| {
        let address = table.get("address").and_then(|a| a.get_ref().as_str());
        match address.filter(|a| (1..=64).contains(&a.len())) {
            Some(address) => format!("{}: real server {address}", service.what),
            None => format!("{}: real server #{n}", service.what),
        }
    });
    sections
        .into_iter()
        .map(|section| server(p, section))
        .collect()
}

fn server<'t>(p: &mut Problems<'_>, section: Section<'t>) -> ServerDraft<'t> {
    if !section.has("address") {
        section.missing(p, "address");
    }
    let weight = section.integer(p, "weight", WEIGHT_RANGE, " (0 drains)");
    ServerDraft {
        name: section.parsed(p, "name", scalars::label),
        address: section.parsed(p, "address", scalars::endpoint),
        weight: weight
            .and_then(|w| u16::try_from(w.value).ok())
            .unwrap_or(defaults::WEIGHT),
        forward: forwarding::forward(p, &section),
        tunnel: forwarding::tunnel(p, &section),
        section,
    }
}
