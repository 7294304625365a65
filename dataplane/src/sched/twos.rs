//! Power of two choices: two servers drawn by weight, the one with fewer connections for its
//! weight wins, the first draw when they are equal.
//!
//! Linux draws from one number too many, which gives the last added server the share of an extra
//! connection in every round; here each server's chance is its weight.
#![forbid(unsafe_code)]

use super::{Memory, View};

pub(super) struct Rule;

impl super::Rule for Rule {
    const COUNTS: bool = true;

    fn pick(view: View<'_>, memory: &mut Memory) -> Option<usize> {
        let sum = view
            .all_available()
            .map(|(_, weight)| u64::from(weight))
            .sum();
        let (first, second) = (memory.dice.roll(sum), memory.dice.roll(sum));
        let (a, b) = (drawn(&view, first)?, drawn(&view, second)?);
        let cost = |at| u128::from(view.load(at).overhead());
        let ((a, weight_a), (b, weight_b)) = (a, b);
        let b_is_better = cost(b) * u128::from(weight_a) < cost(a) * u128::from(weight_b);
        Some(if b_is_better { b } else { a })
    }
}

/// The server on whose stretch of the summed weights `ticket` falls.
fn drawn(view: &View<'_>, mut ticket: u64) -> Option<(usize, u32)> {
    view.all_available().find(|&(_, weight)| {
        let here = ticket < u64::from(weight);
        ticket = ticket.saturating_sub(weight.into());
        here
    })
}
