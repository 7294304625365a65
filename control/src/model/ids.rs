//! Numbers that stand for something while it lives, and for something else afterwards.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

/// Gives out the lowest free number, so that what is indexed by it stays small.
#[derive(Debug, Default)]
pub(super) struct Ids {
    /// All below are given out, or in `free`.
    next: u32,
    free: BTreeSet<u32>,
}

impl Ids {
    /// As after `n` things that all still live.
    #[cfg(test)]
    pub(super) fn after(n: u32) -> Ids {
        Ids {
            next: n,
            free: BTreeSet::new(),
        }
    }

    pub(super) fn take(&mut self) -> u32 {
        self.free.pop_first().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }

    /// Takes `id` back: nothing bears it any more.
    pub(super) fn give_back(&mut self, id: u32) {
        let fresh = self.free.insert(id);
        debug_assert!(fresh && id < self.next, "{id} was not given out");
    }

    /// How many are given out.
    pub(super) fn taken(&self) -> usize {
        self.next as usize - self.free.len()
    }
}
