//! Frames that wait for a neighbour's MAC address: few, bounded, and not for long.
#![forbid(unsafe_code)]

use super::Hop;
use crate::types::Tick;

/// Frames that wait in one worker, all neighbours together.
pub const PARKED_MAX: usize = 256;
/// Frames that wait for one neighbour: a SYN and its retransmissions, a DNS burst.
pub(super) const PARKED_PER_HOP: usize = 16;
/// How long a frame waits: the kernel gives up after three probes a second apart.
const PARKED_TICKS: u32 = Tick::seconds(3);

/// A finished frame but for its MAC addresses.
#[derive(Debug)]
pub struct Parked<F> {
    /// The frame, rewritten, its Ethernet header still to be filled in.
    pub frame: F,
    /// Who it waits for.
    pub hop: Hop,
    deadline: Tick,
}

/// The waiting frames of one worker, oldest first.
#[derive(Debug)]
pub struct Parking<F> {
    waiting: Vec<Parked<F>>,
}

impl<F> Default for Parking<F> {
    fn default() -> Self {
        Parking {
            waiting: Vec::with_capacity(PARKED_MAX),
        }
    }
}

impl<F> Parking<F> {
    /// Lets `frame` wait for `hop`. `Ok(true)` when it is the first: someone has to ask.
    ///
    /// # Errors
    /// The frame comes back when too many wait already.
    pub fn park(&mut self, frame: F, hop: Hop, now: Tick) -> Result<bool, F> {
        let same = self.waiting.iter().filter(|p| p.hop == hop).count();
        if same >= PARKED_PER_HOP || self.waiting.len() >= PARKED_MAX {
            return Err(frame);
        }
        self.waiting.push(Parked {
            frame,
            hop,
            deadline: now.after(PARKED_TICKS),
        });
        Ok(same == 0)
    }

    /// The oldest frame that waits for `hop`.
    pub fn release(&mut self, hop: Hop) -> Option<Parked<F>> {
        let at = self.waiting.iter().position(|p| p.hop == hop)?;
        Some(self.waiting.remove(at))
    }

    /// A frame that has waited too long.
    pub fn expire(&mut self, now: Tick) -> Option<Parked<F>> {
        if !self.waiting.first()?.deadline.reached(now) {
            return None;
        }
        Some(self.waiting.remove(0))
    }

    /// Frames waiting now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
