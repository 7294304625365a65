//! The tables that say what is balanced: `[[service]]` and `[[service.real_server]]`.
#![forbid(unsafe_code)]

use std::net::SocketAddr;

use weir_dataplane::Proto;
use weir_dataplane::conn::state::TimeoutChanges;
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::forward::carrier::ClientAddress;
use weir_dataplane::forward::tun::Tunnel;
use weir_dataplane::sched::{Options, Rows, SchedulerKind};
use weir_dataplane::service::{Mark, Policy, ServerPolicy};

use super::defaults::{self, MAX_LOCAL_ADDRESSES, WEIGHT_RANGE};
use super::forwarding;
use super::machine::named;
use super::policy;
use super::reader::{At, Key, Problems, Section};
use super::scalars::{self, Range};
use super::states;
use super::turnover;
use super::types::Turnover;
use super::vips::{self, Vips, Wanted};
use super::words::{alternatives, listed};

pub(super) const SERVICE: &[Key] = &[
    Key::new("name", "\"web\""),
    Key::new("address", "\"10.0.0.10:80\""),
    Key::new("protocol", "\"tcp\""),
    Key::new("fwmark", "7"),
    Key::new("family", "\"ipv4\""),
    Key::new("scheduler", "\"wrr\""),
    Key::new("scheduler_flags", "[\"mh-port\"]"),
    Key::new("mh_table_size", "4093"),
    Key::new("forward", "\"fullnat\""),
    Key::new("tunnel", "{ type = \"gue\", port = 6080 }"),
    Key::new("local_addresses", "[\"10.1.0.100-10.1.0.103\"]"),
    Key::new("port", "\"wan0\""),
    Key::new("client_address", "\"none\""),
    Key::new("syn_proxy", "{ mode = \"auto\" }"),
    Key::new("access", "{ allow = [\"10.0.0.0/8\"] }"),
    Key::new("helper", "\"ftp\""),
    Key::new("timeouts", "{ established = \"90s\" }"),
    Key::new("limits", "{ connections = 10_000 }"),
    Key::new("persistence", "{ timeout = \"300s\", netmask = 24 }"),
    Key::new("slow_start", "\"none\""),
    Key::new("removal", "\"keep\""),
    Key::new("one_packet", "false"),
    Key::new("quic", "false"),
    Key::new("quic_lb", "[[service.quic_lb]]"),
    Key::new("real_server", "[[service.real_server]]"),
    Key::planned("health_check"),
];
pub(super) const REAL_SERVER: &[Key] = &[
    Key::new("name", "\"web-1\""),
    Key::new("address", "\"10.1.0.11:80\""),
    Key::new("weight", "100"),
    Key::new("upper_threshold", "0"),
    Key::new("lower_threshold", "0"),
    Key::new("forward", "\"fullnat\""),
    Key::new("tunnel", "{ type = \"gue\", port = 6080 }"),
    Key::new("quic_server_id", "\"a001\""),
    Key::planned("health_check"),
];

/// One `[[service]]` as written; `None` is what is missing or wrong, and reported.
#[derive(Debug)]
pub(super) struct ServiceDraft<'t> {
    pub(super) section: Section<'t>,
    pub(super) name: Option<At<String>>,
    pub(super) address: Option<At<Vips>>,
    pub(super) protocol: Option<At<Proto>>,
    pub(super) fwmark: Option<At<Mark>>,
    /// Whether its clients speak IPv6; `None` while that is not known.
    pub(super) v6: Option<bool>,
    pub(super) scheduler: SchedulerKind,
    pub(super) options: Options,
    pub(super) forward: ForwardMode,
    pub(super) tunnel: Option<Tunnel>,
    pub(super) local_addresses: Vec<At<Range>>,
    pub(super) port: Option<At<String>>,
    pub(super) client_address: ClientAddress,
    pub(super) timeouts: TimeoutChanges,
    pub(super) turnover: Turnover,
    pub(super) policy: Policy,
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
    pub(super) policy: ServerPolicy,
}

impl ServiceDraft<'_> {
    /// How packets reach this server of it.
    pub(super) fn mode_of(&self, server: &ServerDraft<'_>) -> ForwardMode {
        server.forward.unwrap_or(self.forward)
    }

    /// What clients ask of it, where that is known.
    pub(super) fn wanted(&self) -> Option<Wanted> {
        let address = self.address.as_ref().map(|a| a.value);
        Some(Wanted {
            v6: self.v6?,
            port: address.and_then(|a| a.port()),
            vips: address.map(|a| a.vips),
        })
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
    let marked = section.has("fwmark");
    for required in ["name", "address", "protocol"] {
        // fwmark stands for address and protocol.
        let instead = required != "name" && marked;
        if !instead && !section.has(required) {
            section.missing(p, required);
        }
    }
    if marked {
        let why = "the [[mark]] rules say which packets a service with fwmark takes; remove it";
        section.refuse(p, "address", why);
        section.refuse(p, "protocol", why);
    } else {
        section.refuse(p, "family", "the address says it; remove it");
    }
    let families = [("ipv4", false), ("ipv6", true)];
    let family = section.choice(p, "family", &families, &[]);
    let schedulers: Vec<_> = SchedulerKind::ALL.iter().map(|s| (s.name(), *s)).collect();
    let protocols = [Proto::Tcp, Proto::Udp, Proto::Sctp].map(|p| (p.name(), p));
    let scheduler = section.choice(p, "scheduler", &schedulers, &[]);
    let kind = scheduler.map_or(defaults::SCHEDULER, |s| s.value);
    let protocol = section.choice(p, "protocol", &protocols, &[]);
    let client_address = client_address(p, &section, protocol.as_ref().map(|p| p.value));
    let address = section.parsed(p, "address", vips::vips);
    let of_address = address.as_ref().map(|a| a.value.vips.is_ipv6());
    let fwmark = section.integer(p, "fwmark", 1..=u32::MAX, "");
    let about = policy::About {
        v6: family.as_ref().map(|f| f.value).or(of_address),
        protocol: protocol.as_ref().map(|p| p.value),
    };
    let mut draft = ServiceDraft {
        name: section.parsed(p, "name", scalars::label),
        v6: family.map(|f| f.value).or(of_address),
        address,
        protocol,
        fwmark: fwmark.and_then(|m| Mark::new(m.value).map(|mark| m.with(mark))),
        scheduler: kind,
        options: options(p, &section, kind),
        forward: forwarding::forward(p, &section).unwrap_or(defaults::FORWARD),
        tunnel: forwarding::tunnel(p, &section),
        local_addresses: local_addresses(p, &section),
        port: section.parsed(p, "port", scalars::interface),
        client_address: client_address
            .as_ref()
            .map_or(ClientAddress::none, |c| c.value),
        timeouts: states::changes(p, &section),
        turnover: turnover::turnover(p, &section),
        policy: policy::of_service(p, &section, about),
        servers: servers(p, &section),
        section,
    };
    policy::check(p, &draft);
    if let Some(carrier) = client_address.filter(|c| c.value != ClientAddress::none) {
        let mut modes = draft.servers.iter().map(|s| draft.mode_of(s));
        if let Some(mode) = modes.find(|mode| !carrier.value.goes_with(*mode)) {
            let header = match mode {
                ForwardMode::nat => " (\"proxy-v1\" or \"proxy-v2\" for such that insist on it)",
                _ => "",
            };
            let why = format!(
                "client_address = {:?}: with forward = {:?} servers see the client's address \
                 themselves; use \"none\"{header}, or forward = \"fullnat\"",
                carrier.value.name(),
                mode.name()
            );
            draft.section.problem(p, carrier.at, &why);
        }
    }
    policy::syn_proxy::check(p, &draft);
    draft.policy.helper = policy::helper(p, &draft);
    draft
}

/// How servers are told the client's address: not every protocol has room for each.
fn client_address(
    p: &mut Problems<'_>,
    section: &Section<'_>,
    protocol: Option<Proto>,
) -> Option<At<ClientAddress>> {
    let all: Vec<_> = ClientAddress::ALL.iter().map(|c| (c.name(), *c)).collect();
    let chosen = section.choice(p, "client_address", &all, &[])?;
    if let Some(protocol) = protocol.filter(|protocol| !chosen.value.carries(*protocol)) {
        let fitting = ClientAddress::ALL.iter().filter(|c| c.carries(protocol));
        let why = format!(
            "client_address = {:?}: not for {}; use {}",
            chosen.value.name(),
            protocol.name(),
            alternatives(fitting.map(|c| c.name()))
        );
        section.problem(p, chosen.at, &why);
    }
    Some(chosen)
}

/// The scheduler's flags, and the size of mh's table.
fn options(p: &mut Problems<'_>, section: &Section<'_>, kind: SchedulerKind) -> Options {
    let (known, name) = (kind.flags(), kind.name());
    let flags = section.texts(p, "scheduler_flags", |flag| {
        if known.names().any(|known| known == flag) {
            return Ok(flag.to_owned());
        }
        Err(match known.names().next() {
            Some(_) => format!("not a flag of {name}; use {}", alternatives(known.names())),
            None => format!("scheduler {name} has no flags; remove it"),
        })
    });
    let flags = flags.unwrap_or_default();
    let is_set = |flag: Option<&str>| flags.iter().any(|f| Some(f.value.as_str()) == flag);
    Options {
        port: is_set(known.port),
        fallback: is_set(known.fallback),
        rows: table_size(p, section, kind),
    }
}

fn table_size(p: &mut Problems<'_>, section: &Section<'_>, kind: SchedulerKind) -> Rows {
    const KEY: &str = "mh_table_size";
    let Some(size) = section.integer(p, KEY, 1..=u32::MAX, " rows") else {
        return Rows::default();
    };
    if kind != SchedulerKind::mh {
        let why = format!("scheduler {} has no such table; remove it", kind.name());
        section.refuse(p, KEY, &why);
    }
    Rows::new(size.value).unwrap_or_else(|| {
        let primes = Rows::PRIMES.map(|prime| prime.to_string());
        let primes = listed(primes.iter().map(String::as_str));
        section.refuse(
            p,
            KEY,
            &format!("not a prime that Linux offers; use one of {primes}"),
        );
        Rows::default()
    })
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
        policy: policy::of_server(p, &section),
        section,
    }
}
