//! How long a connection without packets stays in each state.
#![forbid(unsafe_code)]

use super::{STATES, State};
use crate::types::{ServiceId, Tick};

/// Seconds: the largest retransmission timeout (RFC 9260 16: 60 s) and one more.
const SCTP_RTO_MAX: u32 = 61;

/// A timeout for each state, ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Timeouts([u32; STATES]);

impl Default for Timeouts {
    /// IPVS's defaults (REFERENCE B1.1, B1.2).
    fn default() -> Self {
        let mut t = Timeouts([0; STATES]);
        for state in State::ALL {
            t.set(state, Tick::seconds(ipvs_seconds(state)));
        }
        t
    }
}

fn ipvs_seconds(state: State) -> u32 {
    match state {
        State::None => 2,
        State::Established | State::SctpEstablished => 900,
        State::SynRecv | State::CloseWait => 60,
        State::SynSent | State::FinWait | State::TimeWait | State::Listen | State::SynAck => 120,
        State::Close => 10,
        // What Linux's connection tracking gives a ping.
        State::LastAck | State::Icmp => 30,
        State::Udp => 300,
        State::SctpInit1 | State::SctpRejected => 4,
        State::SctpInit
        | State::SctpCookieSent
        | State::SctpCookieReplied
        | State::SctpCookieWait
        | State::SctpCookie
        | State::SctpCookieEchoed
        | State::SctpShutdownSent
        | State::SctpShutdownReceived
        | State::SctpShutdownAckSent
        | State::SctpClosed => SCTP_RTO_MAX,
    }
}

impl Timeouts {
    /// Ticks that a connection without packets stays in `state`.
    #[inline]
    #[must_use]
    pub fn of(&self, state: State) -> u32 {
        self.0[state as usize]
    }

    /// Sets `state`'s timeout, ticks; at least one.
    pub fn set(&mut self, state: State, ticks: u32) {
        self.0[state as usize] = ticks.max(1);
    }

    /// These, with a service's own in their place where it has some.
    #[must_use]
    pub fn with(&self, changes: &TimeoutChanges) -> Timeouts {
        let mut all = *self;
        for (state, ticks) in changes.iter() {
            all.set(state, ticks);
        }
        all
    }
}

/// The timeouts that a service sets for itself; the others are the global ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TimeoutChanges([u32; STATES]);

impl TimeoutChanges {
    /// Sets `state`'s timeout, ticks; at least one.
    pub fn set(&mut self, state: State, ticks: u32) {
        self.0[state as usize] = ticks.max(1);
    }

    /// The states that are set, and their ticks.
    pub fn iter(&self) -> impl Iterator<Item = (State, u32)> + '_ {
        let all = State::ALL.into_iter().zip(self.0);
        all.filter(|(_, ticks)| *ticks != 0)
    }

    /// Whether none is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

/// The timeouts of all services: the global ones, and a set for each service with its own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TimeoutSets {
    global: Timeouts,
    own: Vec<Timeouts>,
    /// By service id: one more than the place in `own`; 0 for a service without.
    places: Vec<u32>,
}

impl TimeoutSets {
    /// `global`, and with `own` in its place for these services.
    #[must_use]
    pub fn new(global: Timeouts, own: &[(ServiceId, TimeoutChanges)]) -> TimeoutSets {
        let services = own.iter().map(|(id, _)| id.0 as usize + 1).max();
        let mut places = vec![0; services.unwrap_or(0)];
        for (place, (id, _)) in (1..).zip(own) {
            places[id.0 as usize] = place;
        }
        TimeoutSets {
            global,
            own: own
                .iter()
                .map(|(_, changes)| global.with(changes))
                .collect(),
            places,
        }
    }

    /// Of services without their own.
    #[inline]
    #[must_use]
    pub fn global(&self) -> &Timeouts {
        &self.global
    }

    /// The longest of all, ticks.
    #[must_use]
    pub fn longest(&self) -> u32 {
        let sets = self.own.iter().chain([&self.global]);
        sets.flat_map(|set| set.0).max().unwrap_or(0)
    }

    /// Whether a service has its own.
    #[inline]
    #[must_use]
    pub fn any_own(&self) -> bool {
        !self.own.is_empty()
    }

    /// Of this service's connections.
    #[inline]
    #[must_use]
    pub fn of(&self, service: ServiceId) -> &Timeouts {
        let place = self.places.get(service.0 as usize).copied().unwrap_or(0);
        let own = self.own.get((place as usize).wrapping_sub(1));
        own.unwrap_or(&self.global)
    }
}
