//! Whether a service's handshakes are answered by cookies: what the operator said, and in the
//! automatic mode what one worker sees.
//!
//! ```text
//!  off --- half-open connections reach the limit ------------------------------> on
//!  off <-- for 10 s: half of it at most, and the SYNs that nobody followed up     on
//!          would not have brought it there again ------------------------------
//! ```
//! Each worker judges its own share of the service, with its share of the limit: flows are spread
//! by hash, so a flood shows to all of them; where it does not, those that it hits defend
//! themselves.
#![forbid(unsafe_code)]

use super::cookie::{LARGEST_SCALE, Offer};
use crate::types::Tick;

/// When a service's clients must prove where they are before a connection is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// Never.
    #[default]
    Off,
    /// While many connections are half-open.
    Auto,
    /// Always.
    Always,
}

impl Mode {
    /// All of them.
    pub const ALL: [Mode; 3] = [Mode::Auto, Mode::Always, Mode::Off];

    /// The name in the configuration and in listings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Mode::Off => "off",
            Mode::Auto => "auto",
            Mode::Always => "always",
        }
    }
}

/// What an operator asks of a service's SYN proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SynProxy {
    /// When it answers.
    pub mode: Mode,
    /// [`Mode::Auto`]: half-open connections of the service, all workers together, from which on
    /// it does.
    pub half_open: u32,
    /// The most that clients are asked to put into a segment, bytes; less where links want that.
    pub mss: u16,
    /// By how many bits windows told to clients are shifted, whatever their server's are.
    pub window_scale: u8,
    /// A TCP packet that proves nothing is answered by a reset, and not only dropped.
    pub resets: bool,
}

impl Default for SynProxy {
    fn default() -> Self {
        SynProxy {
            mode: Mode::Off,
            half_open: 8192,
            mss: u16::MAX,
            window_scale: 7, // Linux's with its usual largest window, 6 MB
            resets: true,
        }
    }
}

impl SynProxy {
    /// The values that [`SynProxy::window_scale`] may have.
    pub const WINDOW_SCALES: std::ops::RangeInclusive<u8> = 0..=LARGEST_SCALE;

    /// Whether it may ever answer.
    #[inline]
    #[must_use]
    pub fn is_off(&self) -> bool {
        matches!(self.mode, Mode::Off)
    }
}

/// Calm seconds after which it goes off.
const CALM: u8 = 10;

/// What one worker knows of a service's handshakes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Watch {
    /// It answers by cookies now; [`Mode::Auto`] only.
    pub(crate) on: bool,
    /// Half-open connections that were opened without proof.
    half_open: u32,
    /// Cookies sent, and such that came back, in this second.
    sent: u32,
    returned: u32,
    calm: u8,
    /// What its servers refuse of what clients were offered.
    pub(crate) refused: Refused,
}

/// What servers were found not to take of what Weir offers in their name. Forgotten when the
/// servers change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Refused {
    timestamps: bool,
    sack: bool,
    window_scale: bool,
    /// The smallest MSS that one announced; 0: none yet.
    mss: u16,
}

impl Refused {
    /// Notes a server's own offer, in answer to `asked`.
    pub(crate) fn note(&mut self, asked: &Offer, offered: &Offer) {
        self.timestamps |= asked.timestamps.is_some() && offered.timestamps.is_none();
        self.sack |= asked.sack && !offered.sack;
        self.window_scale |= asked.window_scale.is_some() && offered.window_scale.is_none();
        if self.mss == 0 || offered.mss < self.mss {
            self.mss = offered.mss;
        }
    }

    /// Leaves out of an offer what servers would not take.
    pub(crate) fn out_of(&self, offer: Offer) -> Offer {
        Offer {
            mss: match self.mss {
                0 => offer.mss,
                least => offer.mss.min(least),
            },
            window_scale: offer.window_scale.filter(|_| !self.window_scale),
            sack: offer.sack && !self.sack,
            timestamps: offer.timestamps.filter(|_| !self.timestamps),
        }
    }
}

impl Watch {
    /// A SYN is there: whether a cookie answers it. `limit` is this worker's part of
    /// [`SynProxy::half_open`]. Goes on when that is reached.
    #[inline]
    pub(crate) fn answers(&mut self, mode: Mode, limit: u32) -> bool {
        match mode {
            Mode::Off => false,
            Mode::Always => true,
            Mode::Auto => {
                self.on |= self.half_open >= limit;
                self.on
            }
        }
    }

    /// A cookie went out.
    #[inline]
    pub(crate) fn sent(&mut self) {
        self.sent = self.sent.saturating_add(1);
    }

    /// A cookie came back.
    pub(crate) fn returned(&mut self) {
        self.returned = self.returned.saturating_add(1);
    }

    /// A connection was opened without proof.
    pub(crate) fn opened(&mut self) {
        self.half_open += 1;
    }

    /// One of those is half-open no more.
    pub(crate) fn settled(&mut self) {
        self.half_open = self.half_open.saturating_sub(1);
    }

    /// Judges the second that has passed. `syn_recv`: ticks that a half-open connection would
    /// stay.
    pub(crate) fn each_second(&mut self, limit: u32, syn_recv: u32) {
        let alone = self.sent.saturating_sub(self.returned);
        (self.sent, self.returned) = (0, 0);
        let seconds = syn_recv / Tick::PER_SECOND;
        let would_stay = u64::from(alone) * u64::from(seconds.max(1));
        let half = limit / 2;
        let calm = self.half_open <= half && would_stay <= u64::from(half);
        self.calm = if calm { self.calm + 1 } else { 0 };
        if !self.on || self.calm >= CALM {
            (self.on, self.calm) = (false, 0);
        }
    }
}

#[cfg(test)]
mod tests;
