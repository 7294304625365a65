//! `[[snat]]`: what real servers open themselves, and the addresses that it leaves with; rules in
//! their order.
//!
//! A rule with a pool becomes a service of the model for each family of the pool, whose real
//! servers are the pool's addresses ([`SnatRules`] says which packets are its).
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use weir_dataplane::conn::state::TimeoutChanges;
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::forward::carrier::ClientAddress;
use weir_dataplane::sched::{Options, SchedulerKind};
use weir_dataplane::service::{
    AddressRange, Limits, Pattern, Policy, PortRange, RuleName, ServerPolicy, ServiceKey, SnatPool,
    SnatRule, SnatRules,
};
use weir_dataplane::{PortId, Proto};

use super::defaults::{FIRST_SNAT_PORT, LEAST_SNAT_PORTS, MAX_LOCAL_ADDRESSES, SNAT_SCHEDULER};
use super::machine::named;
use super::marks;
use super::policy;
use super::reader::{At, Key, Problems, Section};
use super::scalars::{self, Range};
use super::services::ServiceDraft;
use super::states;
use super::types::{Port, RealServer, Service, Turnover};
use super::vips;
use super::words::{grouped, listed};

pub(super) const SNAT: &[Key] = &[
    Key::new("name", "\"out\""),
    Key::new("source", "[\"10.1.0.0/24\"]"),
    Key::new("destination", "[\"0.0.0.0/0\"]"),
    Key::new("ports", "[53, \"8000-8999\"]"),
    Key::new("protocol", "\"tcp\""),
    Key::new("out", "\"wan0\""),
    Key::new("to", "[\"10.0.0.100-10.0.0.103\"]"),
    Key::new("to_ports", "\"1024-65535\""),
    Key::new("scheduler", "\"mh\""),
    Key::new("port", "\"wan0\""),
    Key::new("timeouts", "{ udp = \"60s\" }"),
    Key::new("limits", "{ per_client = { connections = 1_000 } }"),
];

/// One `[[snat]]` as written; `None` is what is missing or wrong, and reported.
#[derive(Debug)]
pub(super) struct SnatDraft<'t> {
    pub(super) section: Section<'t>,
    pub(super) name: Option<At<String>>,
    sources: Vec<At<AddressRange>>,
    destinations: Vec<At<AddressRange>>,
    ports: Vec<At<PortRange>>,
    proto: Option<Proto>,
    out: Option<At<String>>,
    /// What it translates to; nothing for a rule that exempts.
    pub(super) to: Vec<At<Range>>,
    to_ports: PortRange,
    scheduler: SchedulerKind,
    pub(super) port: Option<At<String>>,
    timeouts: TimeoutChanges,
    limits: Limits,
}

pub(super) fn rules<'t>(p: &mut Problems<'_>, top: &Section<'t>) -> Vec<SnatDraft<'t>> {
    let sections = top.tables(p, "snat", SNAT, |n, table| named("snat", n, table));
    sections
        .into_iter()
        .map(|section| rule(p, section))
        .collect()
}

fn rule<'t>(p: &mut Problems<'_>, section: Section<'t>) -> SnatDraft<'t> {
    for required in ["name", "source", "to"] {
        if !section.has(required) {
            section.missing(p, required);
        }
    }
    for key in ["source", "destination", "ports"] {
        let all = match key {
            "source" => "name the networks of the real servers",
            _ => "name some, or remove the key to meet all",
        };
        section.refused_empty(p, key, &format!("meets nothing; {all}"));
    }
    section.refused_empty(p, "to", "no address; name some, or write to = \"none\"");
    let exempts = exempts(p, &section);
    if exempts {
        for key in ["to_ports", "scheduler", "port", "timeouts", "limits"] {
            section.refuse(p, key, "a rule with to = \"none\" opens nothing; remove it");
        }
    }
    let protocols =
        [Proto::Tcp, Proto::Udp, Proto::Sctp, Proto::Icmp].map(|proto| (proto.name(), proto));
    let schedulers = [SchedulerKind::mh, SchedulerKind::rr, SchedulerKind::lc];
    let schedulers = schedulers.map(|kind| (kind.name(), kind));
    let proto = section.choice(p, "protocol", &protocols, &[]);
    let proto = proto.map(|proto| proto.value);
    if proto == Some(Proto::Icmp) {
        section.refuse(p, "ports", "an echo has none; remove it");
    }
    let addresses =
        |p: &mut Problems<'_>, key| section.texts(p, key, vips::addresses).unwrap_or_default();
    let to = match exempts || section.is_text("to") {
        true => Vec::new(),
        false => section.texts(p, "to", scalars::range).unwrap_or_default(),
    };
    let to_ports = section.parsed(p, "to_ports", to_ports);
    let scheduler = section.choice(p, "scheduler", &schedulers, &[]);
    SnatDraft {
        name: section.parsed(p, "name", scalars::label),
        sources: addresses(p, "source"),
        destinations: addresses(p, "destination"),
        ports: section.array(p, "ports", marks::ports).unwrap_or_default(),
        proto,
        out: section.parsed(p, "out", scalars::interface),
        to,
        to_ports: to_ports.map_or_else(|| SnatPool::default().ports, |ports| ports.value),
        scheduler: scheduler.map_or(SNAT_SCHEDULER, |s| s.value),
        port: section.parsed(p, "port", scalars::interface),
        timeouts: states::changes(p, &section),
        limits: policy::limits::limits(p, &section),
        section,
    }
}

/// Whether the rule says `to = "none"`.
fn exempts(p: &mut Problems<'_>, section: &Section<'_>) -> bool {
    if !section.is_text("to") {
        return false;
    }
    let none = section.parsed(p, "to", |text| match text {
        "none" => Ok(()),
        _ => Err(format!(
            "not known; write to = [\"{text}\"], or to = \"none\" for no translation"
        )),
    });
    none.is_some()
}

/// The ports of a pool.
fn to_ports(text: &str) -> Result<PortRange, String> {
    let ports = vips::ports(text)?;
    if ports.first() < FIRST_SNAT_PORT {
        return Err(format!(
            "ports below {FIRST_SNAT_PORT} are left to services; use \"{FIRST_SNAT_PORT}-65535\" \
             or a part of it"
        ));
    }
    match ports.len() {
        LEAST_SNAT_PORTS.. => Ok(ports),
        few => Err(format!(
            "{few} ports, shared out among all workers; use {LEAST_SNAT_PORTS} at least"
        )),
    }
}

impl SnatDraft<'_> {
    /// Whether it translates.
    fn has_pool(&self) -> bool {
        !self.to.is_empty()
    }

    /// Whether packets of this family can meet it.
    fn takes(&self, v6: bool) -> bool {
        let of_it = |ranges: &[At<AddressRange>]| ranges.iter().any(|r| r.value.is_ipv6() == v6);
        of_it(&self.sources) && (self.destinations.is_empty() || of_it(&self.destinations))
    }

    fn pool(&self, v6: bool) -> impl Iterator<Item = IpAddr> {
        let of_it = self
            .to
            .iter()
            .filter(move |range| range.value.is_ipv4() != v6);
        of_it.flat_map(|range| range.value.addresses())
    }

    /// The pools as services of the model, one for each family.
    fn services(&self) -> Vec<Service> {
        let name = self.name.as_ref().map_or("", |name| &*name.value);
        let (Some(rule), true) = (RuleName::new(name), self.has_pool()) else {
            return Vec::new();
        };
        let server = |address| RealServer {
            name: None,
            address: SocketAddr::new(address, 0),
            weight: 1,
            forward: ForwardMode::snat,
            tunnel: None,
            policy: ServerPolicy::default(),
        };
        let service = |v6: bool| Service {
            name: name.to_owned(),
            key: ServiceKey::Snat { rule, v6 },
            scheduler: self.scheduler,
            options: Options::default(),
            forward: ForwardMode::snat,
            local_addresses: self.pool(v6).collect(),
            port: self.port.as_ref().map(|port| port.value.clone()),
            client_address: ClientAddress::none,
            timeouts: self.timeouts,
            turnover: Turnover::default(),
            policy: Policy {
                limits: self.limits,
                snat: SnatPool {
                    ports: self.to_ports,
                },
                ..Policy::default()
            },
            servers: self.pool(v6).map(server).collect(),
        };
        let families = [false, true].into_iter().filter(|v6| self.takes(*v6));
        families.map(service).collect()
    }
}

/// What else the file says that rules must go together with.
pub(super) struct Beside<'a> {
    /// The ports' names, where all are known.
    pub(super) ports: Option<&'a [&'a str]>,
    /// Services, for their addresses.
    pub(super) services: &'a [ServiceDraft<'a>],
}

/// Adds what is wrong with the rules: `own` names the port that an address is the own one of.
pub(super) fn check(
    p: &mut Problems<'_>,
    rules: &[SnatDraft<'_>],
    beside: &Beside<'_>,
    own: impl Fn(&Problems<'_>, IpAddr) -> Option<String>,
) {
    if let Some(rule) = rules.get(SnatRules::MOST_RULES) {
        let most = grouped(SnatRules::MOST_RULES as u32);
        let why = format!("{} rules; at most {most} are possible", rules.len());
        rule.section.problem(p, rule.section.at, &why);
    }
    for (nth, rule) in rules.iter().enumerate() {
        let section = &rule.section;
        if let Some(name) = &rule.name {
            let others = rules[..nth].iter().map(|r| &r.name);
            let services = beside.services.iter().map(|s| &s.name);
            let mut named = others.chain(services).flatten();
            if let Some(other) = named.find(|other| other.value == name.value) {
                let line = p.line(other.at);
                let why =
                    format!("the name of another rule or service (line {line}); give each its own");
                section.refuse(p, "name", &why);
            }
        }
        for (key, port) in [("out", &rule.out), ("port", &rule.port)] {
            if let (Some(port), Some(ports)) = (port, beside.ports)
                && !ports.contains(&port.value.as_str())
            {
                let why = format!("no such port; use one of {}", listed(ports.iter().copied()));
                section.refuse(p, key, &why);
            }
        }
        families(p, rule);
        let total: usize = rule.to.iter().map(|range| range.value.len()).sum();
        if total > MAX_LOCAL_ADDRESSES {
            let why = format!("to: {total} addresses; a rule takes at most {MAX_LOCAL_ADDRESSES}");
            section.problem(p, section.at, &why);
        }
        let mut given = std::collections::HashSet::new();
        for range in &rule.to {
            let conflict = range.value.addresses().find_map(|address| {
                if !given.insert(address) {
                    return Some(format!("{address} is given already; leave it out"));
                }
                let own = own(p, address).map(|is| format!("{is}; leave it out"));
                own.or_else(|| of_service(p, rule, address, beside.services))
            });
            if let Some(why) = conflict {
                section.problem(p, range.at, &format!("to: {why}"));
            }
        }
    }
}

/// Every family that can meet a rule has addresses in its pool, and no other has.
fn families(p: &mut Problems<'_>, rule: &SnatDraft<'_>) {
    let section = &rule.section;
    if rule.sources.is_empty() {
        return; // reported
    }
    let name = |v6| if v6 { "IPv6" } else { "IPv4" };
    if ![false, true].into_iter().any(|v6| rule.takes(v6)) {
        let why = "no packet has a source of one family and a destination of the other; name both \
                   of one";
        return section.refuse(p, "destination", why);
    }
    for v6 in [false, true] {
        let family = name(v6);
        match (rule.takes(v6), rule.pool(v6).next()) {
            (true, None) if rule.has_pool() => {
                let why = format!(
                    "no {family} address, and source has {family} networks; add one, or make it \
                     two rules"
                );
                section.refuse(p, "to", &why);
            }
            (false, Some(address)) => {
                let why = format!(
                    "{address} is of no use, as source and destination have no {family} network; \
                     leave it out, or add one"
                );
                section.refuse(p, "to", &why);
            }
            _ => {}
        }
    }
}

/// Why this address of a rule's pool cannot be it, because of a service.
fn of_service(
    p: &Problems<'_>,
    rule: &SnatDraft<'_>,
    address: IpAddr,
    services: &[ServiceDraft<'_>],
) -> Option<String> {
    services.iter().find_map(|service| {
        let what = &service.section.what;
        let vip = service
            .address
            .as_ref()
            .filter(|at| at.value.vips.contains(address) && at.value.ports.meets(&rule.to_ports));
        if let Some(vip) = vip {
            return Some(format!(
                "{address} is the virtual address of {what} (line {}), whose ports are among \
                 to_ports; use others, like to_ports = \"32768-60999\", or another address",
                p.line(vip.at)
            ));
        }
        let server = service.servers.iter().find_map(|server| {
            let at = server.address.as_ref()?;
            let elsewhere = service.mode_of(server) != ForwardMode::local;
            (at.value.ip() == address && elsewhere).then_some(at)
        })?;
        Some(format!(
            "{address} is a real server of {what} (line {}); use an address of the director's",
            p.line(server.at)
        ))
    })
}

/// The rules, compiled, and their pools.
pub(super) fn finish(drafts: &[SnatDraft<'_>], ports: &[Port]) -> (Arc<SnatRules>, Vec<Service>) {
    fn values<T: Copy>(written: &[At<T>]) -> Vec<T> {
        written.iter().map(|w| w.value).collect()
    }
    let rule = |draft: &SnatDraft<'_>| SnatRule {
        pattern: Pattern {
            sources: values(&draft.sources),
            destinations: values(&draft.destinations),
            ports: values(&draft.ports),
            proto: draft.proto,
            arrival: draft.out.as_ref().and_then(|name| {
                let at = ports.iter().position(|port| port.name == name.value)?;
                Some(PortId(at as u8)) // at most 16
            }),
        },
        pool: draft.name.as_ref().and_then(|name| {
            let name = RuleName::new(&name.value);
            name.filter(|_| draft.has_pool())
        }),
    };
    let rules = drafts.iter().map(rule).collect();
    let pools = drafts.iter().flat_map(SnatDraft::services).collect();
    (Arc::new(SnatRules::new(rules)), pools)
}
