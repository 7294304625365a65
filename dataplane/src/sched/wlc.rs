//! Weighted least connections: the first server with the fewest for its weight.
#![forbid(unsafe_code)]

use super::{Load, Memory, View};

pub(super) struct Rule;

impl super::Rule for Rule {
    const COUNTS: bool = true;

    fn pick(view: View<'_>, _: &mut Memory) -> Option<usize> {
        view.least(Load::overhead)
    }
}
