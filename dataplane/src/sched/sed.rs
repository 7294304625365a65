//! Shortest expected delay: the first server with the fewest active connections for its weight,
//! the new one counted in.
#![forbid(unsafe_code)]

use super::{Load, Memory, View};

pub(super) struct Rule;

impl super::Rule for Rule {
    const COUNTS: bool = true;

    fn pick(view: View<'_>, _: &mut Memory) -> Option<usize> {
        view.least(Load::expected)
    }
}
