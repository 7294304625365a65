//! What a valid configuration means that its writer may not expect. `weir check` says it, start
//! and reload log it; nothing is refused for it.
#![forbid(unsafe_code)]

use weir_dataplane::ServerId;
use weir_dataplane::sched::{Scheduler, SchedulerKind};
use weir_dataplane::service::Candidate;

use super::types::{Config, Service};

/// One line for each surprise, in the file's order.
#[must_use]
pub(crate) fn surprises(config: &Config) -> Vec<String> {
    let of = |service: &Service| {
        let says: Vec<String> = [
            weights(service),
            slow_start(service),
            one_address(service),
            full(config, service),
        ]
        .into_iter()
        .flatten()
        .chain(shares(service))
        .collect();
        let name = service.name.clone();
        says.into_iter()
            .map(move |what| format!("service {name:?}: {what}"))
    };
    config.services.iter().flat_map(of).collect()
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

/// Schedulers that choose by the virtual address.
fn one_address(service: &Service) -> Option<String> {
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
