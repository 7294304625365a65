//! The index: lines of one cache line with a dozen tagged slots.
//!
//! ```text
//!  0              12     13      16                                64
//!  | 12 tags (u8) | spill | unused | 12 slots (u32: entry << 1 | direction) |
//! ```
//!
//! A key lives in its primary line or, when that is full, in its alternate line; `spill` counts
//! the keys of this primary line that went elsewhere, so that a lookup that ends in the primary
//! line costs one cache miss and a miss in both lines is looked for only where it can be. The
//! number of lines is no power of two: a line is chosen by multiply and shift, because doubling
//! steps would cost up to half of the memory.
#![forbid(unsafe_code)]

use super::memory::{HugeArray, Pages};
use crate::cpu::equal_bytes;

const SLOTS: usize = 12;
/// Bytes before the slots.
const HEAD: usize = 16;
/// Where the spill count is in them.
const SPILL: usize = SLOTS;
/// A spill count that stays: it can no longer be counted down.
const SPILL_STUCK: u8 = u8::MAX;

/// One cache line of the index.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line {
    /// The slots' tags, 0 for an empty one, and behind them the spill count: compared at once.
    head: [u8; HEAD],
    slots: [u32; SLOTS],
}

const _: () = assert!(size_of::<Line>() == 64);

impl Line {
    /// A bit for each slot whose tag is `tag`.
    #[inline]
    fn matches(&self, tag: u8) -> u32 {
        equal_bytes(&self.head, tag) & ((1 << SLOTS) - 1)
    }

    #[inline]
    fn free_slot(&self) -> Option<usize> {
        let free = self.matches(0);
        (free != 0).then(|| free.trailing_zeros() as usize)
    }

    fn put(&mut self, slot: usize, tag: u8, value: u32) {
        self.head[slot] = tag;
        self.slots[slot] = value;
    }
}

/// Where the keys of both directions are found.
pub(super) struct Index {
    lines: HugeArray<Line>,
}

#[inline]
fn tag_of(hash: u64) -> u8 {
    let tag = hash as u8;
    tag + u8::from(tag == 0) // 0 marks an empty slot
}

impl Index {
    /// Room for `keys` keys at a load of 5/8, where one key in a hundred spills (at 3/4 three do,
    /// and each costs another cache miss), and some lines more: in a small table chance fills
    /// both lines of a key and all that these could be moved to.
    pub(super) fn new(keys: usize, pages: Pages) -> std::io::Result<Index> {
        let lines = (keys * 8).div_ceil(5 * SLOTS) + 16;
        Ok(Index {
            lines: HugeArray::new(lines, pages)?,
        })
    }

    /// Bytes of memory that the index takes.
    pub(super) fn bytes(&self) -> usize {
        self.lines.len() * size_of::<Line>()
    }

    #[inline]
    fn range(&self, half: u32) -> usize {
        ((u64::from(half) * self.lines.len() as u64) >> 32) as usize
    }

    #[inline]
    fn primary(&self, hash: u64) -> usize {
        self.range((hash >> 32) as u32)
    }

    #[inline]
    fn alternate(&self, hash: u64) -> usize {
        let (first, second) = (self.primary(hash), self.range(hash as u32));
        if second != first {
            second
        } else if first + 1 < self.lines.len() {
            first + 1
        } else {
            0
        }
    }

    /// Starts loading the line where `hash` is looked for first.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        self.lines.prefetch(self.primary(hash));
    }

    /// A first guess: the first slot of the primary line with the right tag. Where there is none
    /// the alternate line starts loading, if the key may be there.
    #[inline]
    pub(super) fn candidate(&self, hash: u64) -> Option<u32> {
        let line = &self.lines[self.primary(hash)];
        let m = line.matches(tag_of(hash));
        if m == 0 {
            self.prefetch_alternate(line, hash);
            return None;
        }
        Some(line.slots[m.trailing_zeros() as usize])
    }

    /// Starts loading the line that a key of this one may have spilled to.
    #[cold]
    #[inline(never)]
    fn prefetch_alternate(&self, primary: &Line, hash: u64) {
        if primary.head[SPILL] > 0 {
            self.lines.prefetch(self.alternate(hash));
        }
    }

    /// As [`Index::candidate`], in the alternate line.
    pub(super) fn spilled_candidate(&self, hash: u64) -> Option<u32> {
        if self.lines[self.primary(hash)].head[SPILL] == 0 {
            return None;
        }
        let line = &self.lines[self.alternate(hash)];
        let m = line.matches(tag_of(hash));
        (m != 0).then(|| line.slots[m.trailing_zeros() as usize])
    }

    /// Whether one look says that no key of this hash is there; most that are not are found so.
    #[inline(always)]
    pub(super) fn lacks(&self, hash: u64) -> bool {
        let line = &self.lines[self.primary(hash)];
        line.head[SPILL] == 0 && line.matches(tag_of(hash)) == 0
    }

    /// The slot of this hash for which `is_it` holds.
    #[inline]
    pub(super) fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let first = &self.lines[self.primary(hash)];
        if let Some((_, value)) = Self::find_in(first, hash, &mut is_it) {
            return Some(value);
        }
        if first.head[SPILL] == 0 {
            return None;
        }
        Self::find_in(&self.lines[self.alternate(hash)], hash, &mut is_it).map(|(_, value)| value)
    }

    #[inline]
    fn find_in(
        line: &Line,
        hash: u64,
        is_it: &mut impl FnMut(u32) -> bool,
    ) -> Option<(usize, u32)> {
        let mut m = line.matches(tag_of(hash));
        while m != 0 {
            let slot = m.trailing_zeros() as usize;
            if is_it(line.slots[slot]) {
                return Some((slot, line.slots[slot]));
            }
            m &= m - 1;
        }
        None
    }

    /// Inserts `value`, which must not be there. `hash_of` gives the hash of a value that is
    /// there already, so that it can make room. False when both lines are full of keys that
    /// have nowhere to go; nothing was changed then.
    #[inline]
    #[must_use]
    pub(super) fn insert(&mut self, hash: u64, value: u32, hash_of: impl Fn(u32) -> u64) -> bool {
        let first = self.primary(hash);
        let line = &mut self.lines[first];
        match line.free_slot() {
            Some(slot) => {
                line.put(slot, tag_of(hash), value);
                true
            }
            None => self.insert_elsewhere(hash, value, hash_of),
        }
    }

    /// The same where the primary line is full.
    #[cold]
    fn insert_elsewhere(&mut self, hash: u64, value: u32, hash_of: impl Fn(u32) -> u64) -> bool {
        let (first, second) = (self.primary(hash), self.alternate(hash));
        let tag = tag_of(hash);
        if let Some(slot) = self.lines[second].free_slot() {
            self.lines[second].put(slot, tag, value);
            self.spilled(first);
            return true;
        }
        for home in [first, second] {
            if let Some(slot) = self.displace(home, &hash_of) {
                self.lines[home].put(slot, tag, value);
                if home == second {
                    self.spilled(first);
                }
                return true;
            }
        }
        false
    }

    /// Moves one key of a full line to that key's other line; the slot that became free.
    fn displace(&mut self, line: usize, hash_of: &impl Fn(u32) -> u64) -> Option<usize> {
        for slot in 0..SLOTS {
            let value = self.lines[line].slots[slot];
            let hash = hash_of(value);
            let (first, second) = (self.primary(hash), self.alternate(hash));
            let other = if first == line { second } else { first };
            let Some(free) = self.lines[other].free_slot() else {
                continue;
            };
            self.lines[other].put(free, tag_of(hash), value);
            if other == second {
                self.spilled(first);
            } else {
                self.unspilled(first);
            }
            self.lines[line].head[slot] = 0;
            return Some(slot);
        }
        None
    }

    fn spilled(&mut self, line: usize) {
        let spill = &mut self.lines[line].head[SPILL];
        *spill = spill.saturating_add(1);
    }

    fn unspilled(&mut self, line: usize) {
        let spill = &mut self.lines[line].head[SPILL];
        if *spill != SPILL_STUCK {
            *spill -= 1;
        }
    }

    /// Removes `value`; whether it was there.
    #[inline]
    pub(super) fn remove(&mut self, hash: u64, value: u32) -> bool {
        let first = self.primary(hash);
        self.remove_from(first, hash, value) || self.remove_elsewhere(hash, value)
    }

    #[inline]
    fn remove_from(&mut self, line: usize, hash: u64, value: u32) -> bool {
        let line = &mut self.lines[line];
        let found = Self::find_in(line, hash, &mut |v| v == value);
        if let Some((slot, _)) = found {
            line.head[slot] = 0;
        }
        found.is_some()
    }

    #[cold]
    fn remove_elsewhere(&mut self, hash: u64, value: u32) -> bool {
        let (first, second) = (self.primary(hash), self.alternate(hash));
        let there = self.remove_from(second, hash, value);
        if there {
            self.unspilled(first);
        }
        there
    }
}
