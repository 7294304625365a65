//! Least connections: the first server with the fewest, weights aside.
#![forbid(unsafe_code)]

use super::{Memory, View};

pub(super) struct Rule;

impl super::Rule for Rule {
    const COUNTS: bool = true;

    fn pick(view: View<'_>, _: &mut Memory) -> Option<usize> {
        let servers = view.all_available().map(|(at, _)| at);
        servers.min_by_key(|&at| view.load(at).overhead())
    }
}
