//! What a line that changes its length does to TCP's numbers, and another line in a segment's data.
//!
//! ```text
//!  the sender counts     .. from            to ..
//!                           | its line      |
//!  the receiver counts   .. from + before                     to + after ..
//!                           | the line that it got instead    |
//! ```
//! Of each direction the last change is known, and what all before it amount to: so what is under
//! way from before the last change keeps its numbers. A line and the one before it are under way at
//! most, since FTP waits for an answer to each.
#![forbid(unsafe_code)]

use crate::forward::carrier::{mend, mended, resize, stream, tcp_header_len};
use crate::io::Frame;
use crate::packet::checksum::{self, Diff};
use crate::packet::icmp::Quote;
use crate::packet::tcp::flags::ACK;
use crate::packet::{Flow, Key, be32, eth, put32, tcp};

/// Of TCP's options, selective acknowledgement (RFC 2018).
const SACK: u8 = 5;

/// How the numbers of one direction change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Shift {
    /// The last line that changed: its first byte and the one behind it, as its sender counts.
    from: u32,
    to: u32,
    /// What is added to numbers before it, and from `to` on.
    before: i32,
    after: i32,
}

/// `a` is `b` or later.
fn reached(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) < 1 << 31
}

impl Shift {
    /// No change; the stream's first byte has the number `start`.
    pub(crate) fn new(start: u32) -> Shift {
        Shift {
            from: start,
            to: start,
            ..Shift::default()
        }
    }

    /// Whether all numbers stay as they are.
    pub(crate) fn is_none(&self) -> bool {
        self.before == 0 && self.after == 0
    }

    /// Notes that the line `from..to` grew by `by` bytes, unless that, or a later one, is known.
    pub(crate) fn note(&mut self, from: u32, to: u32, by: i32) {
        if by != 0 && reached(from, self.to) {
            *self = Shift {
                from,
                to,
                before: self.after,
                after: self.after.wrapping_add(by),
            };
        }
    }

    /// The receiver's number for the sender's.
    pub(crate) fn there(&self, number: u32) -> u32 {
        let by = match reached(number, self.to) {
            true => self.after,
            false => self.before,
        };
        number.wrapping_add_signed(by)
    }

    /// The sender's number for the receiver's; inside of the line that it never sent, `inside`.
    fn back_or(&self, number: u32, inside: u32) -> u32 {
        let (late, early) = (
            number.wrapping_add_signed(self.after.wrapping_neg()),
            number.wrapping_add_signed(self.before.wrapping_neg()),
        );
        match (reached(late, self.to), reached(self.from, early)) {
            (true, _) => late,
            (false, true) => early,
            (false, false) => inside,
        }
    }

    /// The sender's number for what the receiver acknowledges: of a line all or nothing.
    pub(crate) fn back(&self, number: u32) -> u32 {
        self.back_or(number, self.from)
    }

    /// In the quote of an error about a segment of this direction, which was sent on: the number
    /// as its sender counts.
    pub(crate) fn put_back(&self, frame: &mut [u8], quote: &Quote) {
        if !self.is_none() {
            stream::quoted_number(frame, quote, tcp::SEQ_AT, |seq| self.back(seq));
        }
    }

    /// The same for a block of selective acknowledgement; `None`: nothing whole is in it.
    fn block(&self, left: u32, right: u32) -> Option<(u32, u32)> {
        let (left, right) = (self.back_or(left, self.to), self.back_or(right, self.from));
        (left != right && reached(right, left)).then_some((left, right))
    }
}

/// Gives a segment its receiver's numbers: `own` is how those of its direction change, `others` how
/// those that it acknowledges do.
pub(crate) fn renumber<K: Key>(frame: &mut [u8], flow: &Flow<K>, own: &Shift, others: &Shift) {
    if own.is_none() && others.is_none() {
        return;
    }
    mended(frame, flow, |header| {
        let seq = own.there(be32(header, tcp::SEQ_AT));
        put32(header, tcp::SEQ_AT, seq);
        if flow.says & ACK == 0 {
            return;
        }
        let ack = others.back(be32(header, tcp::ACK_AT));
        put32(header, tcp::ACK_AT, ack);
        for option in tcp::options(header) {
            if header[option.start] != SACK {
                continue;
            }
            let mut sound = true;
            for block in header[option.clone()][2..].chunks_exact_mut(8) {
                match others.block(be32(block, 0), be32(block, 4)) {
                    Some((left, right)) => {
                        put32(block, 0, left);
                        put32(block, 4, right);
                    }
                    None => sound = false,
                }
            }
            // A part of a line is nothing to who did not send it so: then without blocks.
            if !sound {
                header[option].fill(tcp::NOP);
            }
        }
    });
}

/// The data of a TCP segment, in its frame.
pub(crate) fn data<K: Key>(frame: &[u8], flow: &Flow<K>) -> std::ops::Range<usize> {
    let end = eth::HEADER_LEN + usize::from(flow.ip_len);
    let start = usize::from(flow.l4) + tcp_header_len(frame, flow);
    start.min(end)..end.min(frame.len())
}

/// Changes a segment's data in place, without its length, and mends its checksum.
pub(crate) fn edit<K: Key>(frame: &mut [u8], flow: &Flow<K>, change: impl FnOnce(&mut [u8])) {
    let data = data(frame, flow);
    // A TCP header is of whole words: the data begins at an even place of the sum.
    let before = checksum::sum(&frame[data.clone()]);
    change(&mut frame[data.clone()]);
    let diff = Diff::adding(!before).plus(Diff::adding(checksum::sum(&frame[data])));
    mend(&mut frame[usize::from(flow.l4)..], diff);
}

/// Puts `words` into the place of `place` among a segment's data; false, and nothing changed, when
/// the frame has no room.
pub(crate) fn replace<F: Frame, K: Key>(
    frame: &mut F,
    flow: &mut Flow<K>,
    place: std::ops::Range<usize>,
    words: &[u8],
) -> bool {
    let data = data(frame.bytes(), flow);
    let tail = data.start + place.end..data.end;
    let end = data.start + place.start + words.len() + tail.len();
    let Ok(ip_len) = u16::try_from(end - eth::HEADER_LEN) else {
        return false;
    };
    let before = checksum::sum(&frame.bytes()[data.clone()]);
    if end > data.end && !frame.set_len(end) {
        return false;
    }
    let f = frame.bytes_mut();
    let at = data.start + place.start;
    f.copy_within(tail, at + words.len());
    f[at..at + words.len()].copy_from_slice(words);
    let after = checksum::sum(&f[data.start..end]);
    let longer = resize(f, flow, ip_len);
    let diff = longer.plus(Diff::adding(!before)).plus(Diff::adding(after));
    mend(&mut f[usize::from(flow.l4)..], diff);
    // Shorter always fits.
    let _ = frame.set_len(end);
    true
}

#[cfg(test)]
mod tests;
