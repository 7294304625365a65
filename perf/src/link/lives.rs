//! Connections driven through the device: some live at any time, and where one ends the next begins.
//!
//! Each frame that comes back is made the next of its connection's in place and sent again, so the
//! load is as many frames as connections live at once, going round. Nothing is kept of a connection, and
//! nothing is allocated but for its first frame. A frame that the device loses would be missing for ever:
//! so the packets carry when their connection began, in turns of the clock ([`Lives::tick`]), and what
//! has not ended [`PATIENCE`] turns later is counted as lost and replaced.
#![forbid(unsafe_code)]

use weir_dataplane::io::{Burst, Frame, FramePool, PortQueue};
use weir_dataplane::packet::build::checksums_right;

use super::frames::{SMALLEST, answer_arp};
use super::segments::{Segment, Segments, Step, unwrap};

/// Turns after which a connection that has not ended is lost.
pub(crate) const PATIENCE: u16 = 20;
/// Turns remembered: more than [`PATIENCE`], a power of two.
const TURNS: usize = 32;
/// One frame in so many has its checksums computed from scratch.
const CHECKED: u64 = 1024;

/// Whose connections they are.
pub(crate) trait Clients {
    /// The next to begin; `None` while there is none.
    fn next(&mut self) -> Option<u32>;
    /// One has ended.
    fn ended(&mut self, client: u32);
}

/// How far connections go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Course {
    /// Through all seven packets.
    Whole,
    /// They stay open: three packets.
    Open,
    /// The same where servers answer past the device, so that a client's ACK follows its SYN.
    OpenOneWay,
}

impl Course {
    #[inline]
    fn after(self, step: Step) -> Option<Step> {
        match (self, step) {
            (Course::Whole, step) => step.next(),
            (Course::OpenOneWay, Step::Syn) => Some(Step::Ack),
            (_, Step::Ack) => None,
            (_, step) => step.next(),
        }
    }
}

/// Sums since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Connections that went their course.
    pub(crate) ended: u64,
    /// Connections that did not, in time.
    pub(crate) lost: u64,
    /// Frames of such that came all the same, or twice.
    pub(crate) late: u64,
    /// Frames that were none of ours: resets, mostly.
    pub(crate) strange: u64,
    /// Frames that came back.
    pub(crate) received: u64,
    /// Of those that were looked at, one in [`CHECKED`], with wrong checksums.
    pub(crate) wrong: u64,
}

impl Counts {
    /// How many frames were looked at.
    pub(crate) fn checked(self) -> u64 {
        self.received / CHECKED
    }
}

/// The connections that live.
#[derive(Debug)]
pub(crate) struct Lives<F> {
    segments: Segments,
    course: Course,
    /// How many may live at once.
    window: u32,
    living: u32,
    /// The same, by the turn in which they began.
    begun: [u32; TURNS],
    turn: u16,
    counts: Counts,
    /// Frames written and not yet taken by the link.
    out: Burst<F>,
}

impl<F: Frame> Lives<F> {
    /// None yet, and never more than `window` at once.
    pub(crate) fn new(course: Course, window: u32) -> Lives<F> {
        Lives {
            segments: Segments::new(),
            course,
            window,
            living: 0,
            begun: [0; TURNS],
            turn: 0,
            counts: Counts::default(),
            out: Burst::new(),
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// How many live.
    pub(crate) fn living(&self) -> u32 {
        self.living
    }

    /// Begins a turn of the clock: some milliseconds, the caller's to say. Gives up what has waited for
    /// [`PATIENCE`] of them.
    pub(crate) fn tick(&mut self) {
        self.turn = self.turn.wrapping_add(1);
        let old = &mut self.begun[usize::from(self.turn.wrapping_sub(PATIENCE)) % TURNS];
        self.counts.lost += u64::from(*old);
        self.living -= std::mem::take(old);
    }

    /// Takes what came and sends what follows. Returns whether there was anything to do.
    #[inline]
    pub(crate) fn poll<Q, P>(
        &mut self,
        queue: &mut Q,
        pool: &mut P,
        clients: &mut impl Clients,
    ) -> bool
    where
        Q: PortQueue<Frame = F>,
        P: FramePool<Frame = F>,
    {
        let mut burst = Burst::new();
        // What came makes at most as many frames: they fit when the last ones are gone.
        if self.out.is_empty() {
            queue.rx_burst(&mut burst);
        }
        let mut work = !burst.is_empty();
        for frame in burst {
            self.take(frame, clients);
        }
        while self.living < self.window && !self.out.is_full() {
            let Some(client) = clients.next() else { break };
            let Some(frame) = pool.alloc(SMALLEST) else {
                break;
            };
            self.begin(frame, client);
        }
        work |= !self.out.is_empty();
        queue.tx_burst(&mut self.out);
        work
    }

    #[inline]
    fn take(&mut self, mut frame: F, clients: &mut impl Clients) {
        self.counts.received += 1;
        unwrap(&mut frame);
        let Some(seen) = Segment::read(frame.bytes()) else {
            return self.stranger(frame);
        };
        if self.counts.received.is_multiple_of(CHECKED) {
            self.counts.wrong += u64::from(!checksums_right(frame.bytes()));
        }
        let begun = &mut self.begun[usize::from(seen.tag) % TURNS];
        if self.turn.wrapping_sub(seen.tag) >= PATIENCE || *begun == 0 {
            self.counts.late += 1;
            return;
        }
        if let Some(step) = self.course.after(seen.step) {
            return self.send(frame, Segment { step, ..seen });
        }
        *begun -= 1;
        self.living -= 1;
        self.counts.ended += 1;
        clients.ended(seen.client);
        if let Some(client) = clients.next() {
            self.begin(frame, client);
        }
    }

    #[inline]
    fn begin(&mut self, frame: F, client: u32) {
        self.living += 1;
        self.begun[usize::from(self.turn) % TURNS] += 1;
        let (step, tag) = (Step::Syn, self.turn);
        self.send(frame, Segment { step, client, tag });
    }

    /// A frame whose buffer is too small is lost, as any other can be.
    #[inline]
    fn send(&mut self, mut frame: F, segment: Segment) {
        if self.segments.write(&mut frame, segment) {
            self.out.push(frame);
        }
    }

    #[cold]
    fn stranger(&mut self, mut frame: F) {
        match answer_arp(frame.bytes_mut()) {
            true => self.out.push(frame),
            false => self.counts.strange += 1,
        }
    }
}

#[cfg(test)]
mod tests;
