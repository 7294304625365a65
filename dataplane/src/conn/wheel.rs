//! A lazy timer wheel: 4-byte records in slots of time, no list through the entries.
//!
//! Two levels: 1,024 slots of one tick (16 s) and 1,024 slots of 64 ticks (17 minutes); what is
//! farther away waits in the farthest slot and is filed again. An entry has one valid record,
//! in the slot its `wheel_slot` names. Lengthening a deadline touches nothing here: when the
//! record comes up early it is filed again. Shortening files a second record in an earlier slot
//! and renames the valid one; the stale record is thrown away when it comes up.
#![forbid(unsafe_code)]

use super::memory::{HugeArray, Pages};
use crate::types::Tick;

const SLOTS: u32 = 1024;
const FINE_BITS: u32 = 6; // a coarse slot is 64 ticks: one second
/// Words of a chunk, one cache line: the chunk behind it, then records.
const WORDS: usize = 16;
/// Records in one chunk.
pub(super) const CHUNK: usize = WORDS - 1;
const NO_CHUNK: u32 = u32::MAX;
/// Of a slot without a chunk. To whom files a record it is as one whose first chunk is full.
const EMPTY: u32 = u32::MAX;
/// The slot of an entry without a record.
pub(super) const NO_SLOT: u16 = u16::MAX;
/// Chunks that can be told from one another with the number of their records beside them.
const MOST_CHUNKS: usize = NO_CHUNK as usize / WORDS;

/// What one chunk held, and the slot it was in.
pub(super) struct Due {
    pub(super) slot: u16,
    chunk: [u32; WORDS],
    count: usize,
}

impl Due {
    #[inline]
    pub(super) fn records(&self) -> &[u32] {
        self.chunk.get(1..=self.count).unwrap_or_default()
    }
}

/// The wheel of one table.
pub(super) struct Wheel {
    /// Chunk after chunk.
    words: HugeArray<u32>,
    /// Of each slot (fine, then coarse) where the last record of its first chunk is, so also how
    /// many that has; the chunks behind it are full.
    heads: Box<[u32; 2 * SLOTS as usize]>,
    free: u32,
    fresh: u32,
    /// Records filed, valid and stale, and how many may be. Only the first chunk of a slot is
    /// ever partly filled, so `room / CHUNK` chunks and one a slot always hold them all.
    filed: usize,
    room: usize,
    /// All slots up to this tick have been emptied.
    done: Tick,
    /// Slots of the tick after `done` that are to be emptied still: coarse first, then fine.
    coarse_pending: bool,
}

impl Wheel {
    /// A wheel with room for `records` records, all in the future of `now`.
    pub(super) fn new(records: usize, pages: Pages, now: Tick) -> std::io::Result<Wheel> {
        let chunks = (records.div_ceil(CHUNK) + 2 * SLOTS as usize).min(MOST_CHUNKS);
        Ok(Wheel {
            words: HugeArray::new(chunks * WORDS, pages)?,
            heads: Box::new([EMPTY; 2 * SLOTS as usize]),
            free: NO_CHUNK,
            fresh: 0,
            filed: 0,
            room: records.min((chunks - 2 * SLOTS as usize) * CHUNK),
            done: now,
            coarse_pending: Self::starts_second(now.after(1)),
        })
    }

    /// Bytes of memory that the wheel takes.
    pub(super) fn bytes(&self) -> usize {
        self.words.len() * size_of::<u32>()
    }

    fn starts_second(t: Tick) -> bool {
        t.0 & ((1 << FINE_BITS) - 1) == 0
    }

    /// The slot for `deadline`.
    fn slot_for(&self, deadline: Tick) -> u16 {
        let ahead = deadline.since(self.done).max(1);
        let at = self.done.after(ahead);
        if ahead < SLOTS {
            (at.0 % SLOTS) as u16
        } else {
            // Two coarse slots short of a full turn: the current one may be half emptied.
            let farthest = (SLOTS - 2) << FINE_BITS;
            let at = self.done.after(ahead.min(farthest));
            (SLOTS + (at.0 >> FINE_BITS) % SLOTS) as u16
        }
    }

    /// The moment at which `slot` comes up next.
    pub(super) fn fires_at(&self, slot: u16) -> Tick {
        let next = self.done.after(1);
        let slot = u32::from(slot);
        if slot < SLOTS {
            next.after(slot.wrapping_sub(next.0) % SLOTS)
        } else {
            let second = next.0.wrapping_add((1 << FINE_BITS) - 1) >> FINE_BITS;
            let ahead = (slot - SLOTS).wrapping_sub(second) % SLOTS;
            Tick((second + ahead) << FINE_BITS)
        }
    }

    /// Files a record; its slot, or `None` when there is no room. A record that was just taken
    /// from the wheel always finds room again.
    #[inline]
    #[must_use]
    pub(super) fn file(&mut self, record: u32, deadline: Tick) -> Option<u16> {
        if self.filed >= self.room {
            return None;
        }
        let slot = self.slot_for(deadline);
        let last = self.heads[usize::from(slot) % self.heads.len()];
        let last = match last as usize % WORDS == CHUNK {
            true => self.new_chunk(last)?,
            false => last,
        };
        self.words[last as usize + 1] = record;
        self.heads[usize::from(slot) % self.heads.len()] = last + 1;
        self.filed += 1;
        Some(slot)
    }

    /// A chunk in front of the full one whose last record is there; its link's place.
    #[inline(never)]
    fn new_chunk(&mut self, last: u32) -> Option<u32> {
        let at = self.take_chunk()? * WORDS as u32;
        self.words[at as usize] = match last {
            EMPTY => NO_CHUNK,
            last => last / WORDS as u32,
        };
        Some(at)
    }

    /// Takes one chunk of records that are due at `now`, walking forward in time; `None` when
    /// everything up to `now` has been taken.
    pub(super) fn next_due(&mut self, now: Tick) -> Option<Due> {
        while self.done != now && self.done.reached(now) {
            let tick = self.done.after(1);
            if self.coarse_pending {
                let slot = SLOTS + (tick.0 >> FINE_BITS) % SLOTS;
                if let Some(due) = self.take(slot as u16) {
                    return Some(due);
                }
                self.coarse_pending = false;
            }
            if let Some(due) = self.take((tick.0 % SLOTS) as u16) {
                return Some(due);
            }
            self.done = tick;
            self.coarse_pending = Self::starts_second(tick.after(1));
        }
        None
    }

    /// Records that still fit.
    pub(super) fn spare(&self) -> usize {
        self.room - self.filed
    }

    fn take(&mut self, slot: u16) -> Option<Due> {
        let head = &mut self.heads[usize::from(slot)];
        let (at, count) = match *head {
            EMPTY => return None,
            last => (last as usize / WORDS * WORDS, last as usize % WORDS),
        };
        let place = self.words.get_mut(at..)?.first_chunk_mut::<WORDS>()?;
        let chunk = *place;
        *head = match chunk[0] {
            NO_CHUNK => EMPTY,
            next => next * WORDS as u32 + CHUNK as u32,
        };
        place[0] = self.free;
        self.free = (at / WORDS) as u32;
        self.filed -= count;
        Some(Due { slot, chunk, count })
    }

    fn take_chunk(&mut self) -> Option<u32> {
        if self.free != NO_CHUNK {
            let chunk = self.free;
            self.free = self.words[chunk as usize * WORDS];
            return Some(chunk);
        }
        let chunk = self.fresh;
        if chunk as usize == self.words.len() / WORDS {
            return None;
        }
        self.fresh += 1;
        Some(chunk)
    }
}
