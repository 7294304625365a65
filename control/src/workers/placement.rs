//! Which CPU each worker gets, and what it does there when idle.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;

use super::Idle;
use crate::config::{self, Cores};

/// The kernel's list of CPUs that it keeps its own scheduling away from (`isolcpus=`).
const ISOLATED: &str = "/sys/devices/system/cpu/isolated";

/// Where and how one worker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Placement {
    /// The CPU it is pinned to, by the kernel's number.
    pub(crate) cpu: usize,
    /// What it does when there is nothing to do.
    pub(crate) idle: Idle,
}

/// A placement for each worker of `workers`: the CPUs that it names, or, for a mere count,
/// those that this process may use, in turn; more workers than CPUs share them.
pub(crate) fn place(workers: &config::Workers) -> Vec<Placement> {
    let allowed = core_affinity::get_core_ids().unwrap_or_default();
    let allowed: Vec<usize> = allowed.into_iter().map(|core| core.id).collect();
    let isolated = fs::read_to_string(ISOLATED).unwrap_or_default();
    place_on(workers, &allowed, &isolated)
}

pub(super) fn place_on(
    workers: &config::Workers,
    allowed: &[usize],
    isolated: &str,
) -> Vec<Placement> {
    let cpus: Vec<usize> = match &workers.cores {
        Cores::Pinned(cpus) => cpus.iter().map(|&cpu| cpu.into()).collect(),
        Cores::Count(count) => {
            let allowed = if allowed.is_empty() { &[0] } else { allowed };
            let in_turn = allowed.iter().copied().cycle();
            in_turn.take(usize::from(*count)).collect()
        }
    };
    let idle = match workers.idle {
        config::Idle::Spin => Idle::Spin,
        config::Idle::Yield => Idle::Yield,
        config::Idle::Sleep => Idle::Sleep,
        config::Idle::Auto if have_their_own(&cpus, isolated) => Idle::Spin,
        config::Idle::Auto => Idle::Sleep,
    };
    cpus.into_iter()
        .map(|cpu| Placement { cpu, idle })
        .collect()
}

/// Whether every worker has an isolated CPU to itself.
fn have_their_own(cpus: &[usize], isolated: &str) -> bool {
    let isolated = cpu_list(isolated);
    let different: BTreeSet<usize> = cpus.iter().copied().collect();
    different.len() == cpus.len() && different.is_subset(&isolated)
}

/// Reads the kernel's notation, `2-5,8`; what is not of it counts as nothing.
fn cpu_list(text: &str) -> BTreeSet<usize> {
    let ranges = text.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse::<usize>().ok()?..=last.parse().ok()?)
    });
    ranges.flatten().collect()
}
