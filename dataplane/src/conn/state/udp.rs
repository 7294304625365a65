//! UDP has one state. IPVS counts its flows as inactive, whatever passes.
#![forbid(unsafe_code)]

use super::State;

/// The state after any packet.
#[inline]
#[must_use]
pub fn next() -> State {
    State::Udp
}
