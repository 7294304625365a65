//! A device for tests: sends back what it gets.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use weir_dataplane::io::sim::SimFrame;
use weir_dataplane::io::{Burst, PortQueue};

/// A device that sends back what it gets, but loses some.
pub(super) struct Mirror {
    pub(super) frames: VecDeque<SimFrame>,
    /// Frames that it was sent.
    pub(super) seen: u64,
    /// Which frames it loses.
    loses: fn(u64) -> bool,
    /// Frames that it takes at once.
    pub(super) takes: usize,
}

impl Mirror {
    pub(super) fn new(loses: fn(u64) -> bool) -> Mirror {
        Mirror {
            frames: VecDeque::new(),
            seen: 0,
            loses,
            takes: usize::MAX,
        }
    }
}

impl PortQueue for Mirror {
    type Frame = SimFrame;

    fn rx_burst(&mut self, out: &mut Burst<SimFrame>) {
        let n = self.frames.len().min(out.remaining_capacity());
        out.extend(self.frames.drain(..n));
    }

    fn tx_burst(&mut self, frames: &mut Burst<SimFrame>) {
        for frame in frames.drain(..frames.len().min(self.takes)) {
            self.seen += 1;
            if !(self.loses)(self.seen) {
                self.frames.push_back(frame);
            }
        }
    }

    fn has_rx(&self) -> bool {
        true
    }

    fn has_tx(&self) -> bool {
        true
    }
}
