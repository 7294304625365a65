//! Failover: the first available server of the highest weight takes everything.
#![forbid(unsafe_code)]

use super::{Memory, View};

pub(super) struct Rule;

impl super::Rule for Rule {
    fn pick(view: View<'_>, _: &mut Memory) -> Option<usize> {
        heaviest(view.all_available())
    }
}

/// The first server of the highest weight.
pub(super) fn heaviest(servers: impl Iterator<Item = (usize, u32)>) -> Option<usize> {
    let heavier = |best: (usize, u32), server: (usize, u32)| match server.1 > best.1 {
        true => server,
        false => best,
    };
    servers.reduce(heavier).map(|(at, _)| at)
}
