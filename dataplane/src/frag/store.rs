//! The datagrams of which fragments are under way, and the frames that wait for a first one.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use arrayvec::ArrayVec;
use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;

use super::{FragKey, Piece};
use crate::counters::DropReason;
use crate::types::Tick;

/// Parts of one datagram: 65,535 bytes in packets of 1,280 are 53.
const PARTS: usize = 64;
/// How long a datagram is remembered after its first part came, and after it was decided on:
/// what Linux waits (`ipfrag_time`).
const LIFETIME: u32 = Tick::seconds(30);
/// No entry, no slot.
const NONE: u16 = u16::MAX;

/// What became of a fragment.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrived<F, D> {
    /// It is its datagram's first: find out where it goes, then tell [`Store::decide`].
    First(F),
    /// It goes where the first went.
    Follows(F, D),
    /// It is the last of a datagram whose parts go together: [`Store::take`] gives the others. Its
    /// data is so many bytes in all.
    All(F, u16),
    /// It waits for the first, or was dropped (and reported).
    Gone,
}

/// Where a datagram stands.
#[derive(Debug, Clone, Copy)]
enum State<D> {
    /// The first fragment has not come, or nothing was decided yet.
    Waiting,
    /// Its fragments go there.
    Decided(D),
    /// Its fragments are dropped.
    Refused(DropReason),
}

#[derive(Debug)]
struct Datagram<D> {
    key: FragKey,
    state: State<D>,
    since: Tick,
    /// Neighbours in the list of its age; of a free entry `newer` is the next free one.
    older: u16,
    newer: u16,
    /// Frames that wait, first to last.
    held: (u16, u16),
    /// Parts that came, as `start..end`; they do not overlap.
    parts: ArrayVec<(u16, u16), PARTS>,
    /// Where the last part ends, once it came.
    end: Option<u16>,
    /// The first has come, and waits until all have.
    together: bool,
}

impl<D> Datagram<D> {
    /// Whether all parts have come.
    fn is_complete(&self) -> bool {
        let bytes: u32 = self.parts.iter().map(|&(a, b)| u32::from(b - a)).sum();
        self.end.is_some_and(|end| bytes == u32::from(end))
    }

    /// Whether `piece` was here before, or what is wrong with it beside the others.
    fn clash(&self, piece: &Piece) -> Option<DropReason> {
        let (start, end) = (piece.offset, piece.offset + piece.len);
        if self.parts.contains(&(start, end)) {
            return Some(DropReason::FragmentDuplicate);
        }
        let overlaps = self.parts.iter().any(|&(a, b)| start < b && a < end);
        let past_end = match (self.end, piece.more) {
            (Some(known), true) => end >= known,
            (Some(_), false) => true, // a second last one
            (None, true) => false,
            (None, false) => self.parts.iter().any(|&(_, b)| b > end),
        };
        match (overlaps || past_end, self.parts.is_full()) {
            (true, _) => Some(DropReason::FragmentOverlap),
            (_, true) => Some(DropReason::FragmentLimit),
            _ => None,
        }
    }
}

#[derive(Debug)]
struct Slot<F> {
    frame: Option<F>,
    /// The next frame of the same datagram, or the next free slot.
    next: u16,
}

/// A list of datagrams by age.
#[derive(Debug, Clone, Copy)]
struct Ages {
    oldest: u16,
    newest: u16,
}

const NO_AGES: Ages = Ages {
    oldest: NONE,
    newest: NONE,
};

/// The fragments of one worker: frames `F`, and decisions `D`, which are small.
///
/// Frames that end here are reported to the `lost` of each call, one reason a frame. Nothing is
/// allocated after [`Store::new`].
#[derive(Debug)]
pub struct Store<F, D> {
    index: HashMap<FragKey, u16, SeedableRandomState>,
    datagrams: Box<[Datagram<D>]>,
    free: u16,
    /// Datagrams in [`State::Waiting`], and all others.
    waiting: Ages,
    settled: Ages,
    slots: Box<[Slot<F>]>,
    free_slot: u16,
    held: usize,
}

impl<F, D: Copy> Store<F, D> {
    /// Room for `datagrams` and `frames` that wait, 65,535 of each at most and one at least.
    /// `secret` keeps outsiders from aiming at one place of the index.
    #[must_use]
    pub fn new(datagrams: u16, frames: u16, secret: u64) -> Store<F, D> {
        let (datagrams, frames) = (datagrams.max(1), frames.max(1));
        let next = |i: u16, count: u16| if i + 1 < count { i + 1 } else { NONE };
        let datagrams: Box<[_]> = (0..datagrams)
            .map(|i| Datagram {
                key: FragKey {
                    src: 0,
                    dst: 0,
                    id: 0,
                    protocol: 0,
                },
                state: State::Waiting,
                since: Tick::default(),
                older: NONE,
                newer: next(i, datagrams),
                held: (NONE, NONE),
                parts: ArrayVec::new(),
                end: None,
                together: false,
            })
            .collect();
        let slots = (0..frames).map(|i| Slot {
            frame: None,
            next: next(i, frames),
        });
        let hasher = SeedableRandomState::with_seed(secret, SharedSeed::global_fixed());
        Store {
            // Twice the room: then the map tidies up in place and never grows.
            index: HashMap::with_capacity_and_hasher(datagrams.len() * 2, hasher),
            datagrams,
            free: 0,
            waiting: NO_AGES,
            settled: NO_AGES,
            slots: slots.collect(),
            free_slot: 0,
            held: 0,
        }
    }

    /// Frames that wait now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    /// Datagrams that are remembered now.
    #[must_use]
    pub fn datagrams(&self) -> usize {
        self.index.len()
    }

    /// A fragment has come.
    pub fn arrive(
        &mut self,
        piece: &Piece,
        frame: F,
        now: Tick,
        lost: &mut impl FnMut(DropReason),
    ) -> Arrived<F, D> {
        let at = self.find_or_make(piece.key, now, lost);
        let datagram = &mut self.datagrams[usize::from(at)];
        if let State::Refused(reason) = datagram.state {
            lost(reason);
            return Arrived::Gone;
        }
        match datagram.clash(piece) {
            None => {}
            Some(DropReason::FragmentDuplicate) => {
                lost(DropReason::FragmentDuplicate);
                return Arrived::Gone;
            }
            Some(reason) => {
                lost(reason);
                self.refuse(at, reason, now, lost);
                return Arrived::Gone;
            }
        }
        let end = piece.offset + piece.len;
        datagram.parts.push((piece.offset, end));
        if !piece.more {
            datagram.end = Some(end);
        }
        match datagram.state {
            State::Decided(decision) => {
                if datagram.is_complete() {
                    self.forget(at);
                }
                Arrived::Follows(frame, decision)
            }
            _ if piece.offset == 0 && !piece.together => Arrived::First(frame),
            _ => {
                datagram.together |= piece.offset == 0;
                if let (true, true, Some(end)) =
                    (datagram.together, datagram.is_complete(), datagram.end)
                {
                    return Arrived::All(frame, end);
                }
                self.hold(at, frame, now, lost);
                Arrived::Gone
            }
        }
    }

    /// Says where the datagram of a first fragment goes, or why it does not; the frames that
    /// waited for that go to `out`, in the order they came, or are lost. A datagram that was
    /// evicted meanwhile is none any more.
    pub fn decide(
        &mut self,
        key: &FragKey,
        decision: Result<D, DropReason>,
        now: Tick,
        lost: &mut impl FnMut(DropReason),
        mut out: impl FnMut(F),
    ) {
        let Some(&at) = self.index.get(key) else {
            return;
        };
        let decision = match decision {
            Ok(decision) => decision,
            Err(reason) => return self.refuse(at, reason, now, lost),
        };
        while let Some(frame) = self.take_held(at) {
            out(frame);
        }
        self.settle(at, State::Decided(decision), now);
        if self.datagrams[usize::from(at)].is_complete() {
            self.forget(at);
        }
    }

    /// Gives all frames that wait of a datagram whose parts go together, in the order they came,
    /// and forgets it.
    pub fn take(&mut self, key: &FragKey, mut out: impl FnMut(F)) {
        let Some(&at) = self.index.get(key) else {
            return;
        };
        while let Some(frame) = self.take_held(at) {
            out(frame);
        }
        self.forget(at);
    }

    /// Forgets datagrams that are too old, `budget` at most; how many.
    pub fn expire(&mut self, now: Tick, budget: usize, lost: &mut impl FnMut(DropReason)) -> usize {
        let mut expired = 0;
        for waiting in [true, false] {
            while expired < budget {
                let oldest = match waiting {
                    true => self.waiting.oldest,
                    false => self.settled.oldest,
                };
                if oldest == NONE || !self.is_old(oldest, now) {
                    break;
                }
                self.drop_held(oldest, DropReason::FragmentTimeout, lost);
                self.forget(oldest);
                expired += 1;
            }
        }
        expired
    }

    fn is_old(&self, at: u16, now: Tick) -> bool {
        let since = self.datagrams[usize::from(at)].since;
        since.after(LIFETIME).reached(now)
    }

    fn find_or_make(&mut self, key: FragKey, now: Tick, lost: &mut impl FnMut(DropReason)) -> u16 {
        if let Some(&at) = self.index.get(&key) {
            if !self.is_old(at, now) {
                return at;
            }
            self.drop_held(at, DropReason::FragmentTimeout, lost);
            self.forget(at);
        }
        if self.free == NONE {
            let oldest = self.oldest();
            self.drop_held(oldest, DropReason::FragmentsFull, lost);
            self.forget(oldest);
        }
        let at = self.free;
        let datagram = &mut self.datagrams[usize::from(at)];
        self.free = datagram.newer;
        datagram.key = key;
        datagram.state = State::Waiting;
        datagram.since = now;
        datagram.parts.clear();
        datagram.end = None;
        datagram.together = false;
        self.index.insert(key, at);
        self.link(at);
        at
    }

    /// The oldest datagram. All entries are in use when this is asked for.
    fn oldest(&self) -> u16 {
        match (self.waiting.oldest, self.settled.oldest) {
            (waiting, NONE) => waiting,
            (NONE, settled) => settled,
            (waiting, settled) => {
                let since = |at: u16| self.datagrams[usize::from(at)].since;
                match since(waiting).reached(since(settled)) {
                    true => waiting,
                    false => settled,
                }
            }
        }
    }

    /// Lets a frame wait, in the place of the oldest datagrams that wait if there is no room.
    fn hold(&mut self, at: u16, frame: F, now: Tick, lost: &mut impl FnMut(DropReason)) {
        // An older one may hold nothing and wait for its decision. Each turn forgets one.
        while self.free_slot == NONE {
            let oldest = self.waiting.oldest;
            if oldest == at {
                // All frames are its own.
                lost(DropReason::FragmentsFull);
                return self.refuse(at, DropReason::FragmentsFull, now, lost);
            }
            self.drop_held(oldest, DropReason::FragmentsFull, lost);
            self.forget(oldest);
        }
        let slot = self.free_slot;
        let place = &mut self.slots[usize::from(slot)];
        self.free_slot = place.next;
        (place.frame, place.next) = (Some(frame), NONE);
        self.held += 1;
        let (first, last) = &mut self.datagrams[usize::from(at)].held;
        let newest = std::mem::replace(last, slot);
        match newest {
            NONE => *first = slot,
            newest => self.slots[usize::from(newest)].next = slot,
        }
    }

    fn take_held(&mut self, at: u16) -> Option<F> {
        let (first, last) = &mut self.datagrams[usize::from(at)].held;
        let slot = *first;
        let place = self.slots.get_mut(usize::from(slot))?;
        *first = std::mem::replace(&mut place.next, self.free_slot);
        if *first == NONE {
            *last = NONE;
        }
        self.free_slot = slot;
        self.held -= 1;
        place.frame.take()
    }

    /// Drops what waits, and what comes.
    fn refuse(
        &mut self,
        at: u16,
        reason: DropReason,
        now: Tick,
        lost: &mut impl FnMut(DropReason),
    ) {
        self.drop_held(at, reason, lost);
        self.settle(at, State::Refused(reason), now);
    }

    fn settle(&mut self, at: u16, state: State<D>, now: Tick) {
        self.unlink(at);
        let datagram = &mut self.datagrams[usize::from(at)];
        (datagram.state, datagram.since) = (state, now);
        self.link(at);
    }

    fn drop_held(&mut self, at: u16, reason: DropReason, lost: &mut impl FnMut(DropReason)) {
        while self.take_held(at).is_some() {
            lost(reason);
        }
    }

    /// Frees a datagram's entry; nothing waits for it any more.
    fn forget(&mut self, at: u16) {
        self.unlink(at);
        let datagram = &mut self.datagrams[usize::from(at)];
        datagram.newer = self.free;
        self.free = at;
        self.index.remove(&datagram.key);
    }

    /// The list that a datagram of this state is in.
    fn ages(&mut self, at: u16) -> &mut Ages {
        match self.datagrams[usize::from(at)].state {
            State::Waiting => &mut self.waiting,
            _ => &mut self.settled,
        }
    }

    /// Puts a datagram at the young end of its list.
    fn link(&mut self, at: u16) {
        let ages = self.ages(at);
        let newest = std::mem::replace(&mut ages.newest, at);
        if newest == NONE {
            ages.oldest = at;
        }
        let datagram = &mut self.datagrams[usize::from(at)];
        (datagram.older, datagram.newer) = (newest, NONE);
        if let Some(newest) = self.datagrams.get_mut(usize::from(newest)) {
            newest.newer = at;
        }
    }

    fn unlink(&mut self, at: u16) {
        let datagram = &self.datagrams[usize::from(at)];
        let (older, newer) = (datagram.older, datagram.newer);
        let ages = self.ages(at);
        if ages.oldest == at {
            ages.oldest = newer;
        }
        if ages.newest == at {
            ages.newest = older;
        }
        if let Some(older) = self.datagrams.get_mut(usize::from(older)) {
            older.newer = newer;
        }
        if let Some(newer) = self.datagrams.get_mut(usize::from(newer)) {
            newer.older = older;
        }
    }
}
