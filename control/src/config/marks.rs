//! `[[mark]]`: rules that mark packets for services with `fwmark`, in their order.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::sync::Arc;

use toml::de::DeValue;
use weir_dataplane::service::{AddressRange, Mark, MarkRule, Marks, Pattern, PortRange};
use weir_dataplane::{PortId, Proto};

use super::reader::{At, Key, Problems, Section};
use super::services::ServiceDraft;
use super::types::Port;
use super::vips;
use super::words::{grouped, listed};

pub(super) const MARK: &[Key] = &[
    Key::new("mark", "7"),
    Key::new("source", "[\"192.0.2.0/24\"]"),
    Key::new("destination", "[\"10.0.0.10\", \"10.0.0.16/28\"]"),
    Key::new("ports", "[80, 443, \"8000-8999\"]"),
    Key::new("protocol", "\"tcp\""),
    Key::new("interface", "\"wan0\""),
];

/// Addresses and networks that all rules name together: the compiled rules stay below 100 MiB.
const MOST_RANGES: usize = 32_768;

/// One `[[mark]]` as written.
#[derive(Debug)]
pub(super) struct MarkDraft<'t> {
    pub(super) section: Section<'t>,
    /// 0 exempts.
    pub(super) mark: u32,
    pub(super) sources: Vec<At<AddressRange>>,
    pub(super) destinations: Vec<At<AddressRange>>,
    pub(super) ports: Vec<At<PortRange>>,
    pub(super) proto: Option<Proto>,
    pub(super) interface: Option<At<String>>,
}

pub(super) fn marks<'t>(p: &mut Problems<'_>, top: &Section<'t>) -> Vec<MarkDraft<'t>> {
    let sections = top.tables(p, "mark", MARK, |n, _| format!("mark rule #{n}"));
    sections
        .into_iter()
        .map(|section| rule(p, section))
        .collect()
}

fn rule<'t>(p: &mut Problems<'_>, section: Section<'t>) -> MarkDraft<'t> {
    if !section.has("mark") {
        section.missing(p, "mark");
    }
    let protocols = [Proto::Tcp, Proto::Udp, Proto::Sctp].map(|p| (p.name(), p));
    let mark = section.integer(p, "mark", 0..=u32::MAX, " (0 marks nothing)");
    for key in ["source", "destination", "ports"] {
        section.refused_empty(
            p,
            key,
            "meets nothing; name some, or remove the key to meet all",
        );
    }
    let addresses =
        |p: &mut Problems<'_>, key| section.texts(p, key, vips::addresses).unwrap_or_default();
    MarkDraft {
        mark: mark.map_or(0, |mark| mark.value),
        sources: addresses(p, "source"),
        destinations: addresses(p, "destination"),
        ports: section.array(p, "ports", ports).unwrap_or_default(),
        proto: section
            .choice(p, "protocol", &protocols, &[])
            .map(|p| p.value),
        interface: section.parsed(p, "interface", super::scalars::interface),
        section,
    }
}

pub(super) fn ports(value: &DeValue<'_>) -> Result<PortRange, String> {
    match (value.as_integer(), value.as_str()) {
        (Some(number), _) => match u32::from_str_radix(number.as_str(), number.radix()) {
            Ok(port @ 1..=65535) => Ok(PortRange::one(port as u16)), // as said
            _ => Err("out of range; use 1 to 65535".to_owned()),
        },
        (_, Some(text)) => vips::ports(text),
        _ => Err("not a port; write it like 80 or \"8000-8999\"".to_owned()),
    }
}

impl MarkDraft<'_> {
    /// Whether IPv4's, and IPv6's, packets can meet it.
    fn families(&self) -> [bool; 2] {
        [false, true].map(|v6| {
            let takes = |ranges: &[At<AddressRange>]| {
                ranges.is_empty() || ranges.iter().any(|r| r.value.is_ipv6() == v6)
            };
            takes(&self.sources) && takes(&self.destinations)
        })
    }
}

/// Says of each service with `fwmark`, and without `family`, whose packets it takes: those of
/// the one family that its rules mark, else of that of its real servers.
pub(super) fn settle_families(
    p: &mut Problems<'_>,
    services: &mut [ServiceDraft<'_>],
    rules: &[MarkDraft<'_>],
) {
    for service in services {
        let Some(mark) = &service.fwmark else {
            continue;
        };
        if service.v6.is_some() {
            continue;
        }
        let of_mark = rules.iter().filter(|rule| rule.mark == mark.value.get());
        let [v4, v6] = of_mark.fold([false; 2], |[v4, v6], rule| {
            let [of4, of6] = rule.families();
            [v4 || of4, v6 || of6]
        });
        let servers = || service.servers.iter().filter_map(|s| s.address.as_ref());
        service.v6 = match (v4, v6) {
            (true, false) => Some(false),
            (false, true) => Some(true),
            _ if servers().all(|a| a.value.is_ipv4()) => Some(false),
            _ if servers().all(|a| a.value.is_ipv6()) => Some(true),
            _ => None,
        };
        if service.v6.is_none() {
            let why = "family is missing; rules and real servers are of both: add \
                       family = \"ipv4\", and a service with family = \"ipv6\" beside it";
            service.section.problem(p, service.section.at, why);
        }
    }
}

/// Adds what is wrong with the rules: `own` names the port that an address is the own one of.
pub(super) fn check(
    p: &mut Problems<'_>,
    rules: &[MarkDraft<'_>],
    ports: Option<&[&str]>,
    own: impl Fn(&Problems<'_>, IpAddr) -> Option<String>,
) {
    if let Some(rule) = rules.get(Marks::MOST_RULES) {
        let most = grouped(Marks::MOST_RULES as u32);
        let why = format!("{} rules; at most {most} are possible", rules.len());
        rule.section.problem(p, rule.section.at, &why);
    }
    let mut total = 0;
    for rule in rules {
        let section = &rule.section;
        total += rule.sources.len() + rule.destinations.len() + rule.ports.len();
        if let (Some(interface), Some(ports)) = (&rule.interface, ports)
            && !ports.contains(&interface.value.as_str())
        {
            let why = format!("no such port; use one of {}", listed(ports.iter().copied()));
            section.refuse(p, "interface", &why);
        }
        for range in rule.destinations.iter().filter(|_| rule.mark != 0) {
            if range.value.steps() == 0
                && let Some(is) = own(p, range.value.first())
            {
                let why =
                    format!("destination: {is}, whose packets are the kernel's; leave it out");
                section.problem(p, range.at, &why);
            }
        }
        if total > MOST_RANGES {
            let why = format!(
                "{total} addresses, networks and ports up to here; at most {} are possible",
                grouped(MOST_RANGES as u32)
            );
            return section.problem(p, section.at, &why);
        }
    }
}

/// The rules, compiled. `exempt` are addresses that no rule means: ports' own and local ones.
pub(super) fn finish(drafts: &[MarkDraft<'_>], ports: &[Port], exempt: Vec<IpAddr>) -> Arc<Marks> {
    if drafts.is_empty() {
        return Arc::default();
    }
    fn values<T: Copy>(written: &[At<T>]) -> Vec<T> {
        written.iter().map(|w| w.value).collect()
    }
    let rule = |draft: &MarkDraft<'_>| MarkRule {
        pattern: Pattern {
            sources: values(&draft.sources),
            destinations: values(&draft.destinations),
            ports: values(&draft.ports),
            proto: draft.proto,
            arrival: draft.interface.as_ref().and_then(|name| {
                let at = ports.iter().position(|port| port.name == name.value)?;
                Some(PortId(at as u8)) // at most 16
            }),
        },
        mark: Mark::new(draft.mark),
    };
    let exempt = MarkRule {
        pattern: Pattern {
            destinations: exempt.into_iter().map(AddressRange::one).collect(),
            ..Pattern::default()
        },
        mark: None,
    };
    let exempt = Some(exempt).filter(|rule| !rule.pattern.destinations.is_empty());
    Arc::new(Marks::new(
        exempt.into_iter().chain(drafts.iter().map(rule)).collect(),
    ))
}
