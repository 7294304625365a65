//! Connections that are announced and have not come yet.
//!
//! Who will own a data connection is known when its first packet comes, because that depends on the
//! port that its opener chooses. So every worker expects it, and the one that meets it has the
//! others forget it. There is one for a control connection at most, the last that it announced.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::conn::KeyedHash;
use crate::packet::{Key, Key6};
use crate::types::{Proto, ServerId, Tick};

/// Sets of places, and places in a set: 4,096 data connections announced at once in a worker.
const SETS: usize = 512;
const WAYS: usize = 8;
/// How long an announcement holds: as IPVS's LISTEN state.
const HOLDS: u32 = Tick::seconds(120);

/// What an expected connection is known by: who opens it, from any port, and to where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Its opener, IPv4-mapped for IPv4.
    pub from: u128,
    /// The address that it goes to, likewise.
    pub to: u128,
    /// The port that it goes to.
    pub port: u16,
}

impl Wanted {
    /// From there to there.
    #[must_use]
    pub fn new(from: IpAddr, to: SocketAddr) -> Wanted {
        Wanted {
            from: bits(from),
            to: bits(to.ip()),
            port: to.port(),
        }
    }

    /// What a packet with this key may be the first of.
    #[must_use]
    pub fn by(key: &Key6) -> Wanted {
        Wanted {
            from: key.src(),
            to: key.dst(),
            port: key.dport(),
        }
    }

    fn key(&self) -> Key6 {
        let halves = |a: u128| [(a >> 64) as u64, a as u64];
        let ([a, b], [c, d]) = (halves(self.from), halves(self.to));
        Key6::of([a, b, c, d], self.port.into(), Proto::Tcp)
    }
}

/// A data connection that was announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// What it is known by.
    pub wanted: Wanted,
    /// Whether the server opens it (FTP's active mode).
    pub is_active: bool,
    /// Its opener's port, once that is known; 0 before.
    pub from_port: u16,
    /// Who it is led to: the server, or in active mode the client. IPv4-mapped for IPv4.
    pub leads: u128,
    /// That one's port.
    pub leads_port: u16,
    /// What that one is to see as its opener: the client, the virtual address and port; the
    /// server in FULL-NAT, the control connection's local address, since it refuses others, on a
    /// port that is chosen when the first packet comes (0). IPv4-mapped for IPv4.
    pub seen: u128,
    /// See `seen`.
    pub seen_port: u16,
    /// The server's record.
    pub server: ServerId,
    /// The ports of the control connection's inbound key.
    pub control: u32,
}

impl Expected {
    /// Who it is led to.
    #[must_use]
    pub fn target(&self) -> SocketAddr {
        SocketAddr::new(address(self.leads), self.leads_port)
    }

    /// What that one is to see as its opener.
    #[must_use]
    pub fn seen_as(&self) -> SocketAddr {
        SocketAddr::new(address(self.seen), self.seen_port)
    }
}

/// An address as one number.
#[must_use]
pub fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_ipv6_mapped()),
        IpAddr::V6(address) => u128::from(address),
    }
}

fn address(bits: u128) -> IpAddr {
    Ipv6Addr::from(bits).to_canonical()
}

/// A place in the table, and until when what is in it holds.
type Place = Option<(Expected, Tick)>;

/// The connections that one worker expects.
pub(crate) struct Expectations {
    hash: KeyedHash,
    /// Empty as long as no service has a helper.
    places: Vec<Place>,
    live: usize,
    /// Where expiry goes on.
    hand: usize,
    /// The turn of local ports that announcements are given.
    turn: u16,
}

impl Expectations {
    /// None, and no room for any.
    pub(crate) fn new(secret: [u64; 4]) -> Expectations {
        Expectations {
            hash: KeyedHash::new(secret),
            places: Vec::new(),
            live: 0,
            hand: 0,
            turn: secret[0] as u16,
        }
    }

    /// Makes room, if any service has a helper. Called when services change.
    pub(crate) fn provide(&mut self, wanted: bool) {
        if wanted && self.places.is_empty() {
            self.places.resize(SETS * WAYS, None);
        }
    }

    /// Whether any service has a helper, or had.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        !self.places.is_empty()
    }

    /// Whether none is expected.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.live == 0
    }

    fn set(&mut self, wanted: &Wanted) -> &mut [Place] {
        let hash = self.hash.of(&wanted.key());
        let at = (hash >> 32) as usize % SETS * WAYS;
        self.places.get_mut(at..at + WAYS).unwrap_or_default()
    }

    /// The one that is expected so.
    pub(crate) fn get(&mut self, wanted: &Wanted, now: Tick) -> Option<&mut Expected> {
        let mut set = self.set(wanted).iter_mut().flatten();
        let found = set.find(|(e, until)| e.wanted == *wanted && !until.reached(now));
        found.map(|(expected, _)| expected)
    }

    /// Expects one, in the place of what was expected so before; where all places are taken, of
    /// the one that was announced first.
    pub(crate) fn put(&mut self, expected: Expected, now: Tick) {
        let set = self.set(&expected.wanted);
        let known = |p: &Place| p.is_some_and(|(e, _)| e.wanted == expected.wanted);
        let at = set.iter().position(known);
        let at = at.or_else(|| set.iter().position(Option::is_none));
        let oldest = || {
            let left = |p: &Place| p.map_or(0, |(_, until)| until.since(now).cast_signed());
            (0..set.len()).min_by_key(|&at| left(&set[at]))
        };
        let Some(at) = at.or_else(oldest) else {
            return; // no room was made: no service has a helper here
        };
        let was = set[at].replace((expected, now.after(HOLDS)));
        self.live += usize::from(was.is_none());
    }

    /// Expects one no more.
    pub(crate) fn remove(&mut self, wanted: &Wanted) {
        let set = self.set(wanted);
        let known = |p: &&mut Place| p.is_some_and(|(e, _)| e.wanted == *wanted);
        let was = set.iter_mut().find(known).and_then(Option::take);
        self.live -= usize::from(was.is_some());
    }

    /// Forgets what did not come in time, of one set a turn.
    #[inline]
    pub(crate) fn expire(&mut self, now: Tick) {
        if self.live == 0 {
            return;
        }
        self.hand = (self.hand + 1) % SETS;
        let at = self.hand * WAYS;
        for place in self.places.get_mut(at..at + WAYS).unwrap_or_default() {
            if place.is_some_and(|(_, until)| until.reached(now)) {
                *place = None;
                self.live -= 1;
            }
        }
    }

    /// The next port of a local address for an announcement, of those that are worker `me`'s among
    /// `workers`; the one unused for longest.
    pub(crate) fn next_port(&mut self, me: u8, workers: u8) -> u16 {
        const FIRST: u16 = 1024;
        let workers = u16::from(workers.max(1));
        let own = (u16::MAX - FIRST) / workers;
        self.turn = (self.turn + 1) % own;
        FIRST + self.turn * workers + u16::from(me)
    }
}

#[cfg(test)]
mod tests;
