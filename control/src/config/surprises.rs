//! What a valid configuration means that its writer may not expect. `weir check` says it, start
//! and reload log it; nothing is refused for it.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use weir_dataplane::ServerId;
use weir_dataplane::forward::carrier::ClientAddress;
use weir_dataplane::sched::{Scheduler, SchedulerKind};
use weir_dataplane::service::{Candidate, ServiceKey};

use super::types::{Config, Device, Port, Service, VipOwner};

/// One line for each surprise, in the file's order.
#[must_use]
pub(crate) fn surprises(config: &Config) -> Vec<String> {
    let of = |service: &Service| {
        let says: Vec<String> = [
            weights(service),
            slow_start(service),
            one_address(service),
            full(config, service),
            unmarked(config, service),
            other_family(service),
        ]
        .into_iter()
        .flatten()
        .chain(shares(service))
        .chain(routed(config, service))
        .collect();
        let name = service.name.clone();
        says.into_iter()
            .map(move |what| format!("service {name:?}: {what}"))
    };
    let services = config.services.iter().flat_map(of);
    let ports = config.ports.iter().flat_map(silent_members);
    ports
        .chain(services)
        .chain(marked_for_nobody(config))
        .collect()
}

/// Members of a bond that never tell that their link went.
fn silent_members(port: &Port) -> Vec<String> {
    let Device::Bond(bond) = &port.device else {
        return Vec::new();
    };
    if port.vlan.is_some() || !bond.needs_links() {
        return Vec::new();
    }
    let silent = |device: &&Device| device.is_of("net_af_packet") || device.is_of("net_af_xdp");
    let says = |device: &Device| {
        format!(
            "port {:?}: bond member {} does not tell when its link goes down, so the bond never \
             leaves it",
            port.name,
            device.name()
        )
    };
    bond.members.iter().filter(silent).map(says).collect()
}

/// Rules that mark packets for no service.
fn marked_for_nobody(config: &Config) -> Vec<String> {
    let wanted = |key: &ServiceKey| match key {
        ServiceKey::Mark { mark, .. } => Some(*mark),
        _ => None,
    };
    let wanted: BTreeSet<_> = config
        .services
        .iter()
        .filter_map(|s| wanted(&s.key))
        .collect();
    let given: BTreeSet<_> = config.marks.rules().iter().filter_map(|r| r.mark).collect();
    let says = |mark| {
        format!(
            "[[mark]] rules give mark {mark}, and no service has fwmark = {mark}: packets go on as without"
        )
    };
    given.difference(&wanted).map(says).collect()
}

/// A service for marked packets that no rule marks.
fn unmarked(config: &Config, service: &Service) -> Option<String> {
    let ServiceKey::Mark { mark, .. } = service.key else {
        return None;
    };
    let given = config
        .marks
        .rules()
        .iter()
        .any(|rule| rule.mark == Some(mark));
    (!given).then(|| format!("no [[mark]] rule gives mark {mark}: the service gets no packet"))
}

/// More virtual addresses than Weir puts on an interface.
fn routed(config: &Config, service: &Service) -> Vec<String> {
    if config.addresses.vips == VipOwner::External {
        return Vec::new();
    }
    let marked = config.marked_for(&service.key);
    let vips = service.key.vips().into_iter().chain(marked);
    let many = vips.filter(|vips| vips.steps() >= Config::MOST_PLACED);
    many.map(|vips| {
        format!(
            "{vips} is more than the {} addresses that Weir puts on an interface: route it to this \
             machine",
            Config::MOST_PLACED
        )
    })
    .collect()
}

/// Weights that differ, under a scheduler that does not look at them.
fn weights(service: &Service) -> Option<String> {
    let instead = match service.scheduler {
        SchedulerKind::rr => "wrr",
        SchedulerKind::lc => "wlc",
        _ => return None,
    };
    let mut weights = service.servers.iter().map(|s| s.weight).filter(|w| *w > 0);
    let first = weights.next()?;
    let name = service.scheduler.name();
    weights.any(|w| w != first).then(|| {
        format!("scheduler {name} ignores weights (only 0 drains); {instead} follows them")
    })
}

/// A slow start, under a scheduler that has no use for it.
fn slow_start(service: &Service) -> Option<String> {
    let name = service.scheduler.name();
    let useless = !service.turnover.slow_start.is_zero() && !service.scheduler.is_proportional();
    useless.then(|| {
        format!(
            "scheduler {name} does not share in proportion to weights, so that slow_start does \
             nothing; wrr, wlc, sed, nq and twos do"
        )
    })
}

/// UOA where it cannot go.
fn other_family(service: &Service) -> Option<String> {
    let v6 = service.key.is_ipv6();
    let across = service.servers.iter().any(|s| s.address.is_ipv6() != v6);
    let name = service.client_address.name();
    match service.client_address {
        ClientAddress::uoa if v6 => Some(format!(
            "client_address {name} is an option of IPv4, so servers are told nothing; uoa-opp \
             goes with both families"
        )),
        ClientAddress::uoa | ClientAddress::uoa_opp if across => Some(format!(
            "client_address {name} does not pass between families: servers of the other one are \
             told nothing; proxy-v2 does"
        )),
        _ => None,
    }
}

/// Schedulers that choose by the virtual address.
fn one_address(service: &Service) -> Option<String> {
    service.key.vips().filter(|vips| vips.steps() == 0)?;
    let name = service.scheduler.name();
    match service.scheduler {
        SchedulerKind::dh => Some(
            "scheduler dh chooses by the virtual address, and this service has one: all \
             connections go to one server"
                .to_owned(),
        ),
        SchedulerKind::lblc | SchedulerKind::lblcr => Some(format!(
            "scheduler {name} chooses by the virtual address, and this service has one: a server \
             gets no connection until another has more active ones than its weight"
        )),
        _ => None,
    }
}

/// Weights that are counts of connections, or ranks.
fn full(config: &Config, service: &Service) -> Option<String> {
    let weights = || {
        service
            .servers
            .iter()
            .map(|s| u32::from(s.weight))
            .filter(|w| *w > 0)
    };
    match service.scheduler {
        SchedulerKind::ovf => {
            let all: u32 = weights().map(|w| w + 1).sum();
            (all < config.workers.max_connections).then(|| {
                format!(
                    "scheduler ovf takes weights as numbers of active connections: with {all} it \
                     refuses more"
                )
            })
        }
        SchedulerKind::fo => {
            let most = weights().max()?;
            (weights().filter(|w| *w == most).count() > 1).then(|| {
                format!(
                    "scheduler fo sends everything to the first server of the highest weight, and \
                     several have {most}"
                )
            })
        }
        _ => None,
    }
}

/// Servers whose part of a hash table is far from their weight: more than a third off.
fn shares(service: &Service) -> Vec<String> {
    let candidate =
        |(n, s): (u32, &super::RealServer)| Candidate::new(ServerId(n), s.address, s.weight.into());
    let servers: Vec<_> = (0..).zip(&service.servers).map(candidate).collect();
    let scheduler = Scheduler::new(service.scheduler, service.options, &servers);
    let sum: u64 = servers.iter().map(|s| u64::from(s.weight)).sum();
    let shares = scheduler.shares(&servers).unwrap_or_default();
    let mut off = Vec::new();
    for (server, share) in servers.iter().zip(shares) {
        let wanted = (u64::from(server.weight) * 1000)
            .checked_div(sum)
            .unwrap_or(0) as u32;
        let differs = share.abs_diff(wanted) > 10 && share.abs_diff(wanted) * 3 > wanted;
        if differs && server.weight > 0 && service.scheduler != SchedulerKind::dh {
            let percent = |permille: u32| format!("{}.{} %", permille / 10, permille % 10);
            off.push(format!(
                "scheduler {} gives real server {} {} of the clients, where its weight asks for {}",
                service.scheduler.name(),
                server.address,
                percent(share),
                percent(wanted),
            ));
        }
    }
    off
}
