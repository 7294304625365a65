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
        State::LastAck => 30,
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
    /// Which of `own`, by service id.
    of_service: Vec<TimeoutSet>,
}

/// Which of [`TimeoutSets`]; valid for one snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TimeoutSet(u32);

impl TimeoutSets {
    /// `global`, and with `own` in its place for these services.
    #[must_use]
    pub fn new(global: Timeouts, own: &[(ServiceId, TimeoutChanges)]) -> TimeoutSets {
        let services = own.iter().map(|(id, _)| id.0 as usize + 1).max();
        let mut of_service = vec![TimeoutSet::default(); services.unwrap_or(0)];
        for (n, (id, _)) in own.iter().enumerate() {
            of_service[id.0 as usize] = TimeoutSet(n as u32 + 1);
        }
        TimeoutSets {
            global,
            own: own
                .iter()
                .map(|(_, changes)| global.with(changes))
                .collect(),
            of_service,
        }
    }

    /// The longest that any connection stands without a packet, ticks.
    #[must_use]
    pub fn longest(&self) -> u32 {
        let sets = std::iter::once(&self.global).chain(&self.own);
        sets.flat_map(|set| set.0).max().unwrap_or(0)
    }

    /// The set that a service's connections have.
    #[must_use]
    pub fn of_service(&self, service: ServiceId) -> TimeoutSet {
        let own = self.of_service.get(service.0 as usize);
        own.copied().unwrap_or_default()
    }

    /// A set's timeouts.
    #[inline]
    #[must_use]
    pub fn get(&self, set: TimeoutSet) -> &Timeouts {
        match set.0 {
            0 => &self.global,
            n => self.own.get(n as usize - 1).unwrap_or(&self.global),
        }
    }
}
