//! Never queue: the first server without an active connection, else as sed.
#![forbid(unsafe_code)]

use super::{Load, Memory, View};

pub(super) struct Rule;

impl super::Rule for Rule {
    const COUNTS: bool = true;

    fn pick(view: View<'_>, _: &mut Memory) -> Option<usize> {
        let idle = view
            .all_available()
            .find(|&(at, _)| view.load(at).active == 0);
        idle.map(|(at, _)| at)
            .or_else(|| view.least(Load::expected))
    }
}
