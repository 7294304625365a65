//! Clients whose server has not answered Weir's SYN yet, and what they have sent meanwhile.
//!
//! A client waits in a slot, from the acknowledgement that proved it until the server's answer:
//! a millisecond or so. Slots are in the order of their next repetition, which is always
//! [`REPEAT`] away, so the order is that of a queue. When all are taken the longest waiting one
//! gives way: its client repeats itself and proves itself again.
#![forbid(unsafe_code)]

use arrayvec::ArrayVec;

use crate::types::{PortId, Tick};

/// Clients that wait in one worker.
pub(crate) const WAITING_MAX: usize = 512;
/// Packets held of each: the acknowledgement, and as many full segments as its window lets it
/// send.
pub(crate) const HELD_EACH: usize = 5;
/// Packets held in one worker, at most.
pub const HELD_MAX: usize = WAITING_MAX * HELD_EACH;
/// After so long the SYN goes again, as TCP begins with (RFC 6298 2.1: 1 s).
pub(crate) const REPEAT: u32 = Tick::seconds(1);
/// SYNs to a server that does not answer; then the client is told.
pub(crate) const SYNS: u8 = 4;

const NIL: u16 = u16::MAX;

/// What a client sent, in the order of arrival, each with the port that it came in on.
pub(crate) type Held<F> = ArrayVec<(PortId, F), HELD_EACH>;

struct Slot<F> {
    held: Held<F>,
    /// When the SYN goes again.
    due: Tick,
    /// How often it went.
    syns: u8,
    /// Neighbours in the queue; `next` of a free slot: the next free one.
    next: u16,
    previous: u16,
}

/// The clients that wait in one worker.
pub(crate) struct Hold<F> {
    slots: Vec<Slot<F>>,
    free: u16,
    first: u16,
    last: u16,
    waiting: u16,
    frames: usize,
}

impl<F> Hold<F> {
    /// Room for `max` clients.
    pub(crate) fn new(max: usize) -> Hold<F> {
        let max = max.clamp(1, usize::from(NIL)) as u16;
        let slot = |at: u16| Slot {
            held: Held::new(),
            due: Tick(0),
            syns: 0,
            next: if at + 1 < max { at + 1 } else { NIL },
            previous: NIL,
        };
        Hold {
            slots: (0..max).map(slot).collect(),
            free: 0,
            first: NIL,
            last: NIL,
            waiting: 0,
            frames: 0,
        }
    }

    /// Packets held.
    pub(crate) fn frames(&self) -> usize {
        self.frames
    }

    /// A slot for a client whose SYN has just gone; `None` when all are taken.
    pub(crate) fn begin(&mut self, now: Tick) -> Option<u16> {
        let at = self.free;
        let slot = self.slots.get_mut(usize::from(at))?;
        self.free = slot.next;
        (slot.due, slot.syns) = (now.after(REPEAT), 1);
        self.waiting += 1;
        self.enqueue(at);
        Some(at)
    }

    /// Adds a packet; it comes back when no more are held of this client.
    pub(crate) fn add(&mut self, at: u16, port: PortId, frame: F) -> Result<(), F> {
        let slot = &mut self.slots[usize::from(at)];
        let added = slot.held.try_push((port, frame));
        self.frames += usize::from(added.is_ok());
        added.map_err(|full| full.element().1)
    }

    /// What is held of a client.
    pub(crate) fn held(&self, at: u16) -> &Held<F> {
        &self.slots[usize::from(at)].held
    }

    /// Ends the wait: what was held.
    pub(crate) fn end(&mut self, at: u16) -> Held<F> {
        self.dequeue(at);
        let slot = &mut self.slots[usize::from(at)];
        let held = std::mem::take(&mut slot.held);
        slot.next = self.free;
        self.free = at;
        self.waiting -= 1;
        self.frames -= held.len();
        held
    }

    /// The one that waits for longest.
    pub(crate) fn oldest(&self) -> Option<u16> {
        (self.first != NIL).then_some(self.first)
    }

    /// One whose SYN is to go again, now put at the queue's end, and how often it went before.
    pub(crate) fn due(&mut self, now: Tick) -> Option<(u16, u8)> {
        let at = self.oldest()?;
        if !self.slots[usize::from(at)].due.reached(now) {
            return None;
        }
        self.dequeue(at);
        let slot = &mut self.slots[usize::from(at)];
        slot.due = now.after(REPEAT);
        let went = slot.syns;
        slot.syns += 1;
        self.enqueue(at);
        Some((at, went))
    }

    fn enqueue(&mut self, at: u16) {
        let last = self.last;
        let slot = &mut self.slots[usize::from(at)];
        (slot.previous, slot.next) = (last, NIL);
        match self.slots.get_mut(usize::from(last)) {
            Some(last) => last.next = at,
            None => self.first = at,
        }
        self.last = at;
    }

    fn dequeue(&mut self, at: u16) {
        let slot = &self.slots[usize::from(at)];
        let (previous, next) = (slot.previous, slot.next);
        match self.slots.get_mut(usize::from(previous)) {
            Some(previous) => previous.next = next,
            None => self.first = next,
        }
        match self.slots.get_mut(usize::from(next)) {
            Some(next) => next.previous = previous,
            None => self.last = previous,
        }
    }
}

#[cfg(test)]
mod tests;
