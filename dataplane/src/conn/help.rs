//! What is remembered of control connections that a helper reads: where lines begin, and how
//! TCP's numbers change.
#![forbid(unsafe_code)]

use crate::helper::expected::Wanted;
use crate::helper::shift::Shift;

/// Of one control connection; both directions by their number.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HelpRecord {
    /// How numbers of packets change.
    pub(crate) shifts: [Shift; 2],
    /// Where lines are known to begin, the last two: the sequence number after a line's end.
    lines: [[u32; 2]; 2],
    /// What it announced last; nothing while the port is 0.
    pub(crate) announced: Wanted,
    /// The sequence number of the last command that got a local port, and that port.
    pub(crate) asked: u32,
    pub(crate) given: u16,
}

impl HelpRecord {
    /// A stream begins with the number `start` in direction `dir`.
    pub(crate) fn begin(&mut self, dir: usize, start: u32) {
        self.shifts[dir] = Shift::new(start);
        self.lines[dir] = [start; 2];
    }

    /// Whether a line begins there.
    pub(crate) fn is_line(&self, dir: usize, number: u32) -> bool {
        self.lines[dir].contains(&number)
    }

    /// Notes that a line begins there.
    pub(crate) fn line_begins(&mut self, dir: usize, number: u32) {
        let [last, _] = self.lines[dir];
        let ahead = number.wrapping_sub(last);
        if ahead > 0 && ahead < 1 << 31 {
            self.lines[dir] = [number, last];
        }
    }
}
