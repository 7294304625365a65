//! Overflow: the heaviest server takes connections until its active ones pass its weight, then the
//! next one does.
#![forbid(unsafe_code)]

use super::fo::heaviest;
use super::{Memory, View};

pub(super) struct Rule;

impl super::Rule for Rule {
    const COUNTS: bool = true;

    fn pick(view: View<'_>, _: &mut Memory) -> Option<usize> {
        let has_room = |&(at, weight): &(usize, u32)| view.load(at).active <= u64::from(weight);
        heaviest(view.all_available().filter(has_room))
    }
}
