//! The table: entries, index and wheel kept in step.
#![forbid(unsafe_code)]

use arrayvec::ArrayVec;

use super::entry::{Conn, ConnId, NewConn};
use super::hash::KeyedHash;
use super::index::Index;
use super::memory::{HugeArray, Pages};
use super::state::{Direction, State};
use super::wheel::{CHUNK, NO_SLOT, Wheel};
use crate::cpu::prefetch;
use crate::packet::{Key, Key4};
use crate::types::{CoreId, Tick};

mod victim;

pub use victim::{Class, Eviction};

const NIL: u32 = u32::MAX;
const BOTH: [Direction; 2] = [Direction::Inbound, Direction::Outbound];
/// Wheel records for each entry: the valid one, and a stale one while a connection closes.
const RECORDS_PER_ENTRY: usize = 2;

/// A connection and the direction whose key was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    /// The connection.
    pub id: ConnId,
    /// Which direction's packets have the key.
    pub dir: Direction,
}

impl Hit {
    #[inline]
    fn from_slot(slot: u32) -> Hit {
        let dir = if slot & 1 == 0 {
            Direction::Inbound
        } else {
            Direction::Outbound
        };
        Hit {
            id: ConnId(slot >> 1),
            dir,
        }
    }

    #[inline]
    fn slot(self) -> u32 {
        self.id.0 << 1 | self.dir as u32
    }
}

/// Which entry a packet may belong to, as the index has it, before anybody looked at the entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Guess(u32);

impl Guess {
    /// None: no table is so large.
    pub(crate) const NONE: Guess = Guess(u32::MAX);
}

/// What an insertion did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inserted(pub ConnId);

/// No room: neither an entry, nor an index slot, nor a wheel record is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableFull;

/// All connections of one worker.
pub struct ConnTable<K: Key = Key4> {
    hash: KeyedHash,
    index: Index,
    entries: HugeArray<Conn<K>>,
    wheel: Wheel,
    /// First entry of the list of freed ones, linked through `side`.
    free: u32,
    /// Entries from here on were never used, so their memory was never touched.
    fresh: u32,
    /// Entries in use, and how many of them are redirects.
    live: u32,
    redirects: u32,
    /// And how many only keep their outbound key ([`ConnTable::let_go`]).
    resting: u32,
    hands: victim::Hands,
}

impl<K: Key> std::fmt::Debug for ConnTable<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnTable")
            .field("live", &self.live)
            .finish_non_exhaustive()
    }
}

impl<K: Key> ConnTable<K> {
    /// A table for `max` connections, at least 1 and below 2^31.
    ///
    /// # Errors
    /// The memory could not be had.
    pub fn new(max: u32, pages: Pages, secret: [u64; 4], now: Tick) -> std::io::Result<Self> {
        let max = max.clamp(1, (1 << 31) - 1) as usize;
        Ok(ConnTable {
            hash: KeyedHash::new(secret),
            index: Index::new(2 * max, pages)?,
            entries: HugeArray::new(max, pages)?,
            wheel: Wheel::new(RECORDS_PER_ENTRY * max, pages, now)?,
            free: NIL,
            fresh: 0,
            live: 0,
            redirects: 0,
            resting: 0,
            hands: victim::Hands::default(),
        })
    }

    /// Bytes of memory for `max` connections, all told.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.entries.len() * size_of::<Conn<K>>() + self.index.bytes() + self.wheel.bytes()
    }

    /// Connections standing.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.live - self.redirects - self.resting
    }

    /// Whether none stands.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Redirects: answers that come here and belong to another worker's connection.
    #[must_use]
    pub fn redirects(&self) -> u32 {
        self.redirects
    }

    /// Entries that are free.
    #[inline]
    #[must_use]
    pub fn free(&self) -> u32 {
        self.capacity() - self.live
    }

    /// Connections that fit.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.entries.len() as u32
    }

    /// The table's hash of `key`.
    #[inline]
    #[must_use]
    pub fn hash(&self, key: &K) -> u64 {
        self.hash.of(key)
    }

    /// Stage one of a burst's lookup: starts loading the index line.
    #[inline]
    pub fn prefetch_index(&self, hash: u64) {
        self.index.prefetch(hash);
    }

    /// Stage two: a first guess from the index line, whose entry starts loading. To be
    /// confirmed, for what comes before it in the burst may change it. Without one, the line
    /// where the key may have spilled to starts loading.
    #[inline(always)]
    #[must_use]
    pub(crate) fn guess(&self, hash: u64) -> Guess {
        self.start_loading(self.index.candidate(hash))
    }

    /// Stage two for the few without a guess: the same from the line they may have spilled to.
    #[cold]
    #[must_use]
    pub(crate) fn guess_spilled(&self, hash: u64) -> Guess {
        self.start_loading(self.index.spilled_candidate(hash))
    }

    #[inline(always)]
    fn start_loading(&self, slot: Option<u32>) -> Guess {
        let Some(slot) = slot else {
            return Guess::NONE;
        };
        self.entries.prefetch((slot >> 1) as usize);
        Guess(slot)
    }

    /// Stage three: what packets with `key` belong to, if the guess at it was right.
    #[inline(always)]
    #[must_use]
    pub(crate) fn confirm(&self, guess: Guess, key: &K) -> Option<Hit> {
        let hit = Hit::from_slot(guess.0);
        let conn = self.entries.get(hit.id.0 as usize)?;
        conn.has_key(hit.dir, key).then_some(hit)
    }

    /// As [`ConnTable::confirm`], and the connection, to be changed.
    #[inline(always)]
    pub(crate) fn guessed(&mut self, guess: Guess, key: &K) -> Option<(Hit, &mut Conn<K>)> {
        let hit = Hit::from_slot(guess.0);
        let conn = self.entries.get_mut(hit.id.0 as usize)?;
        conn.has_key(hit.dir, key).then_some((hit, conn))
    }

    /// Whether packets with `key` belong to `hit`.
    #[inline]
    #[must_use]
    pub fn is(&self, hit: Hit, key: &K) -> bool {
        self.entries[hit.id.0 as usize].has_key(hit.dir, key)
    }

    /// Looks `key` up.
    #[inline]
    #[must_use]
    pub fn lookup(&self, hash: u64, key: &K) -> Option<Hit> {
        match self.index.lacks(hash) {
            true => None,
            false => self.find(hash, key),
        }
    }

    fn find(&self, hash: u64, key: &K) -> Option<Hit> {
        self.index
            .find(hash, |slot| self.is(Hit::from_slot(slot), key))
            .map(Hit::from_slot)
    }

    /// The connection; of one that is gone, what remains of it until the entry is used again.
    #[inline]
    #[must_use]
    pub fn get(&self, id: ConnId) -> &Conn<K> {
        &self.entries[id.0 as usize]
    }

    /// The connection, to be changed.
    #[inline]
    #[must_use]
    pub(crate) fn get_mut(&mut self, id: ConnId) -> &mut Conn<K> {
        &mut self.entries[id.0 as usize]
    }

    /// Opens a connection in state NONE that runs out `ticks` from now. Neither of its keys may
    /// be in the table.
    ///
    /// # Errors
    /// [`TableFull`]; nothing was inserted.
    pub fn insert(
        &mut self,
        new: &NewConn<K>,
        ticks: u32,
        now: Tick,
    ) -> Result<Inserted, TableFull> {
        // A record that the entry's last user left behind serves if it comes up early enough:
        // so evictions under a flood file nothing new.
        let (at, next_free, left) = match self.free {
            NIL if (self.fresh as usize) < self.entries.len() => (self.fresh, NIL, NO_SLOT),
            NIL => return Err(TableFull),
            at => {
                let freed = &self.entries[at as usize];
                (at, freed.side, freed.wheel_slot)
            }
        };
        let deadline = now.after(ticks);
        // The entry is made in its place: made elsewhere, it is stored in pieces and loaded whole to
        // be moved, which waits for the stores (10 ns an opening).
        let entry = &mut self.entries[at as usize];
        *entry = Conn::new(new, now);
        entry.deadline = deadline;
        // So does a later one where records are scarce: then the connection may stay longer. A
        // flood that evicts would fill the wheel with records of those it evicted otherwise.
        let scarce = || self.wheel.spare() <= self.free() as usize;
        let serves = left != NO_SLOT && (scarce() || self.wheel.fires_at(left).reached(deadline));
        let slot = match self.enter(at, new) {
            false => None,
            true if serves => Some(left),
            true => match self.wheel.file(at, deadline) {
                Some(slot) => Some(slot),
                None => {
                    self.take_out(at, Direction::Inbound);
                    self.take_out(at, Direction::Outbound);
                    None
                }
            },
        };
        let entry = &mut self.entries[at as usize];
        let Some(slot) = slot else {
            (entry.proto, entry.side, entry.wheel_slot) = (0, next_free, left);
            return Err(TableFull);
        };
        entry.wheel_slot = slot;
        self.redirects += u32::from(entry.redirected_to().is_some());
        self.live += 1;
        if self.free == NIL {
            self.fresh += 1;
        } else {
            self.free = next_free;
        }
        // The entry that the next opening will take.
        let next = if self.free == NIL {
            self.fresh
        } else {
            self.free
        };
        if let Some(next) = self.entries.get(next as usize) {
            prefetch(next);
        }
        Ok(Inserted(ConnId(at)))
    }

    /// Notes that answers with the key `outbound` belong to a connection that `owner` keeps
    /// under `inbound`. No such key may be in the table.
    ///
    /// # Errors
    /// [`TableFull`]; nothing was inserted.
    pub fn insert_redirect(
        &mut self,
        (inbound, outbound): (K, K),
        owner: CoreId,
        ticks: u32,
        now: Tick,
    ) -> Result<Inserted, TableFull> {
        self.insert(&NewConn::redirect(inbound, outbound, owner), ticks, now)
    }

    /// Enters entry `at`, just made of `new`, in the index under its keys; if there is no room for
    /// both, under none.
    #[inline(always)]
    fn enter(&mut self, at: u32, new: &NewConn<K>) -> bool {
        let (entries, hash) = (&self.entries, &self.hash);
        let hash_of = |slot| {
            let hit = Hit::from_slot(slot);
            hash.of(&entries[hit.id.0 as usize].key(hit.dir))
        };
        let flags = entries[at as usize].flags();
        for (dir, key) in BOTH.into_iter().zip([&new.inbound, &new.outbound]) {
            let id = ConnId(at);
            let slot = Hit { id, dir }.slot();
            if flags.is_keyed(dir) && !self.index.insert(hash.of(key), slot, hash_of) {
                if dir == Direction::Outbound {
                    self.take_out(at, Direction::Inbound);
                }
                return false;
            }
        }
        true
    }

    /// Takes entry `at` out of the index under its key for `dir`, if it is there.
    fn take_out(&mut self, at: u32, dir: Direction) {
        let conn = &self.entries[at as usize];
        if conn.is_keyed(dir) {
            let hash = self.hash.of(&conn.key(dir));
            self.take_out_hashed(at, dir, hash);
        }
    }

    /// The same for an entry that has such a key, whose hash is known.
    #[inline]
    fn take_out_hashed(&mut self, at: u32, dir: Direction, hash: u64) {
        let id = ConnId(at);
        let there = self.index.remove(hash, Hit { id, dir }.slot());
        debug_assert!(there, "a live entry is in the index under its keys");
    }

    /// Forgets a connection and gives it back; `None` when the entry was free already.
    pub fn remove(&mut self, id: ConnId) -> Option<Conn<K>> {
        let conn = self.entries[id.0 as usize];
        if !conn.is_live() {
            return None;
        }
        self.take_out(id.0, Direction::Inbound);
        self.take_out(id.0, Direction::Outbound);
        self.set_free(id.0);
        Some(conn)
    }

    /// Gives an entry back that is in the index no more.
    #[inline]
    fn set_free(&mut self, at: u32) {
        let entry = &mut self.entries[at as usize];
        self.redirects -= u32::from(entry.redirected_to().is_some());
        self.resting -= u32::from(entry.is_let_go());
        entry.proto = 0; // its timer record stays where it is, for the entry's next user
        entry.side = self.free;
        self.free = at;
        self.live -= 1;
    }

    /// Ends a connection, and gives its inbound key free for another one. Its entry only keeps
    /// the outbound key from being used, until its time is up; it is no connection any more.
    pub(crate) fn let_go(&mut self, id: ConnId) {
        if self.entries[id.0 as usize].is_keyed(Direction::Inbound) {
            self.take_out(id.0, Direction::Inbound);
            self.entries[id.0 as usize].let_go();
            self.resting += 1;
        }
    }

    /// Notes a packet as the pipeline does: the state that follows it, and for how long.
    #[cfg(test)]
    pub(crate) fn touch(&mut self, id: ConnId, state: State, ticks: u32, now: Tick) {
        let conn = &mut self.entries[id.0 as usize];
        conn.lasts(ticks, now);
        if conn.state() != state {
            self.set_state(id, state);
            self.file_sooner(id);
        }
    }

    /// Moves a connection to another state; its deadline has been set for it. The state before,
    /// and whether its timer record comes up too late now ([`ConnTable::file_sooner`]).
    #[inline]
    pub(crate) fn set_state(&mut self, id: ConnId, state: State) -> (State, bool) {
        let conn = &mut self.entries[id.0 as usize];
        let before = conn.set_state(state);
        let fires = self.wheel.fires_at(conn.wheel_slot);
        (before, fires.since(conn.deadline) > 0)
    }

    /// Files a record for a deadline that now lies before the one filed, if it does. Without room
    /// for it the connection just stays until the old record comes up.
    #[inline]
    pub(crate) fn file_sooner(&mut self, id: ConnId) {
        // Leave room for a record of every free entry.
        let free = self.free() as usize;
        let conn = &mut self.entries[id.0 as usize];
        if self.wheel.fires_at(conn.wheel_slot).since(conn.deadline) > 0
            && self.wheel.spare() > free
            && let Some(slot) = self.wheel.file(id.0, conn.deadline)
        {
            conn.wheel_slot = slot;
        }
    }

    /// Removes connections that have run out, looking at about `budget` timer records at most;
    /// each goes to `gone`. Those that turn out to last longer go to `kept`: so each connection
    /// does once in a timeout at least. The number of records looked at.
    pub fn expire(
        &mut self,
        now: Tick,
        budget: usize,
        mut gone: impl FnMut(&Conn<K>),
        mut kept: impl FnMut(&Conn<K>),
    ) -> usize {
        let mut looked = 0;
        while looked < budget {
            let Some(due) = self.wheel.next_due(now) else {
                break;
            };
            looked += due.records().len();
            for &at in due.records() {
                prefetch(&self.entries[at as usize]);
            }
            // Removing touches both keys' lines: load them for all before the first.
            let mut over = ArrayVec::<_, CHUNK>::new();
            for &at in due.records() {
                let conn = &mut self.entries[at as usize];
                if conn.wheel_slot != due.slot {
                    continue; // a stale record
                }
                conn.wheel_slot = NO_SLOT;
                if !conn.is_live() {
                    continue;
                }
                if conn.deadline.reached(now) {
                    let hashes = conn.keys().map(|key| self.hash.of(&key));
                    hashes.iter().for_each(|hash| self.index.prefetch(*hash));
                    over.push((at, hashes));
                } else {
                    let slot = self.wheel.file(at, conn.deadline);
                    debug_assert!(slot.is_some(), "this record was just taken out");
                    conn.wheel_slot = slot.unwrap_or(NO_SLOT);
                    kept(conn);
                }
            }
            for &(at, [inbound, outbound]) in &over {
                let conn = &self.entries[at as usize];
                gone(conn);
                let flags = conn.flags();
                if flags.is_keyed(Direction::Inbound) {
                    self.take_out_hashed(at, Direction::Inbound, inbound);
                }
                if flags.is_keyed(Direction::Outbound) {
                    self.take_out_hashed(at, Direction::Outbound, outbound);
                }
                self.set_free(at);
            }
        }
        looked
    }

    /// Live connections among the `scan` entries from `cursor` on, and where to go on; `None`
    /// when that was the last.
    pub fn page(
        &self,
        cursor: u32,
        scan: u32,
        mut each: impl FnMut(ConnId, &Conn<K>) -> bool,
    ) -> Option<u32> {
        let end = cursor.saturating_add(scan).min(self.fresh);
        for at in cursor..end {
            let c = &self.entries[at as usize];
            if c.is_live() && c.is_connection() && !each(ConnId(at), c) {
                return Some(at);
            }
        }
        (end < self.fresh).then_some(end)
    }
}
