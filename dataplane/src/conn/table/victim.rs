//! Who gives way in a full table.
//!
//! Eight hands go round the entries like a clock's, each in its own eighth. When somebody must
//! go, the next eight entries under each are compared and the one that is missed least goes: so
//! an eviction costs 64 entries, loaded together, however large the table is, and needs no list
//! to be kept. Eight places and not one: what was opened together lies together, and is lively or
//! idle together.
//!
//! A flood of half-open connections evicts its own kind: the oldest one within reach. Where
//! established ones fill the table, one of them goes only when there is no half-open one within
//! reach, so that the flood gets some twentieth of the table and no more. A handshake under way
//! has as long as the flood takes to fill that much. For that a hand waits where it has half-open
//! ones until it is its turn: within a tick all are of an age, and the order is that of the round.
#![forbid(unsafe_code)]

use super::{ConnId, ConnTable};
use crate::conn::entry::Conn;
use crate::conn::state::State;
use crate::cpu::prefetch;
use crate::packet::Key;
use crate::types::Tick;

/// Places where entries are compared ...
const HANDS: u32 = 8;
/// ... and how many at each.
const REACH: u32 = 8;
/// How often the hands move on when none of those can go (redirects, say).
const MOVES: u32 = 16;

/// Where the hands are, each in its own part of the entries, and which is asked first.
#[derive(Debug, Default)]
pub(super) struct Hands {
    at: [u32; HANDS as usize],
    first: u32,
}

/// Who gives way in a full table, after the oldest half-open connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Eviction {
    /// What is over, then UDP flows, then what one side has closed, then established
    /// connections; of each, the one that was silent for longest.
    #[default]
    ClosingFirst,
    /// Whatever was silent for longest.
    IdleFirst,
    /// As [`Eviction::ClosingFirst`], but never an established connection: then the new one is
    /// refused.
    NeverEstablished,
}

impl Eviction {
    /// All of them.
    pub const ALL: [Eviction; 3] = [
        Eviction::ClosingFirst,
        Eviction::IdleFirst,
        Eviction::NeverEstablished,
    ];

    /// Its name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Eviction::ClosingFirst => "closing-first",
            Eviction::IdleFirst => "idle-first",
            Eviction::NeverEstablished => "never-established",
        }
    }
}

/// What kind of connection was evicted, as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Its handshake never completed.
    HalfOpen,
    /// It is over, or one side has closed.
    Closing,
    /// A UDP flow.
    Udp,
    /// An established connection.
    Established,
}

impl Class {
    /// Of a connection in this state.
    #[must_use]
    pub fn of(state: State) -> Class {
        match state {
            s if s.is_half_open() => Class::HalfOpen,
            State::Udp | State::Icmp => Class::Udp,
            State::Established | State::SctpEstablished => Class::Established,
            _ => Class::Closing,
        }
    }
}

impl<K: Key> ConnTable<K> {
    /// Someone to evict from a full table. `idle` tells for how many ticks a connection was
    /// silent. `None` when nobody within reach may go.
    #[must_use]
    pub fn victim(
        &mut self,
        eviction: Eviction,
        now: Tick,
        idle: impl Fn(&Conn<K>) -> u32,
    ) -> Option<ConnId> {
        let entries = self.entries.len() as u32;
        let (hands, reach) = match entries / HANDS {
            0..REACH => (1, entries), // all of it
            _ => (HANDS, REACH),
        };
        let part = entries / hands;
        for _ in 0..MOVES {
            let Hands { at, first } = self.hands;
            let place = |hand: u32, k| {
                let at = hand * part + at[hand as usize] + k;
                if at < entries { at } else { at - entries }
            };
            for hand in 0..hands {
                (0..reach).for_each(|k| prefetch(&self.entries[place(hand, k) as usize]));
            }
            let mut best: Option<((u8, u32), u32, u32)> = None;
            let mut has_half_open = [false; HANDS as usize];
            for hand in (0..hands).map(|n| (first + n) % hands) {
                for k in 0..reach {
                    let conn = &self.entries[place(hand, k) as usize];
                    if !conn.is_live() || conn.redirected_to().is_some() {
                        continue;
                    }
                    let Some(rank) = rank(conn.state(), eviction) else {
                        continue;
                    };
                    has_half_open[hand as usize] |= rank == 0;
                    let since = match rank {
                        0 => now.since(conn.created),
                        _ => idle(conn),
                    };
                    let order = (rank, u32::MAX - since);
                    if best.is_none_or(|(known, ..)| order < known) {
                        best = Some((order, hand, k));
                    }
                }
            }
            for hand in 0..hands {
                let step = match best {
                    Some((_, chosen, k)) if chosen == hand => k + 1,
                    Some(_) if has_half_open[hand as usize] => 0,
                    _ => reach,
                };
                let at = &mut self.hands.at[hand as usize];
                *at = (*at + step) % part;
            }
            if let Some((_, hand, k)) = best {
                self.hands.first = (hand + 1) % hands;
                return Some(ConnId(place(hand, k)));
            }
        }
        None
    }
}

/// Lower ranks go first.
fn rank(state: State, eviction: Eviction) -> Option<u8> {
    let class = Class::of(state);
    match (class, eviction) {
        (Class::HalfOpen, _) => Some(0),
        (_, Eviction::IdleFirst) => Some(1),
        (Class::Closing, _) if state.is_closing() => Some(1),
        (Class::Udp, _) => Some(2),
        (Class::Closing, _) => Some(3),
        (Class::Established, Eviction::ClosingFirst) => Some(4),
        (Class::Established, Eviction::NeverEstablished) => None,
    }
}
