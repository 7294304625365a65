//! How long a packet may be on its way to a tunnel's far end, as routers on that way said.
//!
//! Believed for ten minutes (RFC 1191 6.3), never above what the link takes, and never below what
//! every network carries, so that a forged error costs little. Two far ends may share a place;
//! then the later one has it, and the other is told again by the next packet that is too big.
#![forbid(unsafe_code)]

use std::hash::BuildHasher;
use std::net::IpAddr;

use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;

use crate::types::Tick;

/// Far ends that are remembered: one place for each value of the hash.
const PLACES: usize = 256;
/// How long an error is believed.
const BELIEVED: u32 = Tick::seconds(600);
/// The least that is believed of a way over IPv4: Linux's `min_pmtu`.
const MIN_V4: u16 = 552;
/// The least that is believed of a way over IPv6 (RFC 8201 4).
const MIN_V6: u16 = 1280;

#[derive(Debug, Clone, Copy)]
struct Known {
    to: IpAddr,
    mtu: u16,
    until: Tick,
}

/// What one worker believes.
#[derive(Debug)]
pub struct PathMtus {
    places: Box<[Option<Known>; PLACES]>,
    hasher: SeedableRandomState,
    used: usize,
    /// The place that is looked at next for whether it is too old.
    hand: usize,
}

impl PathMtus {
    /// Nothing known; `secret` keeps outsiders from aiming at one place.
    #[must_use]
    pub fn new(secret: u64) -> PathMtus {
        PathMtus {
            places: Box::new([None; PLACES]),
            hasher: SeedableRandomState::with_seed(secret, SharedSeed::global_fixed()),
            used: 0,
            hand: 0,
        }
    }

    fn place(&self, to: IpAddr) -> usize {
        self.hasher.hash_one(to) as usize % PLACES
    }

    /// Longest IP packet that gets to `to`, bytes, where less than `link` is known to.
    #[inline]
    #[must_use]
    pub fn bounded(&self, to: IpAddr, link: u16, now: Tick) -> u16 {
        match self.used {
            0 => link,
            _ => self.get(to, now).map_or(link, |known| known.min(link)),
        }
    }

    /// Whether nothing is known of any way.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    fn get(&self, to: IpAddr, now: Tick) -> Option<u16> {
        let known = self.places[self.place(to)].as_ref()?;
        (known.to == to && !known.until.reached(now)).then_some(known.mtu)
    }

    /// Believes that packets to `to` may have `mtu` bytes; whether that is news. What is longer
    /// than what is believed already is not: an old error may come late.
    pub fn learn(&mut self, to: IpAddr, mtu: u16, now: Tick) -> bool {
        let least = match to {
            IpAddr::V4(_) => MIN_V4,
            IpAddr::V6(_) => MIN_V6,
        };
        let mtu = mtu.max(least);
        if self.get(to, now).is_some_and(|known| known <= mtu) {
            return false;
        }
        let until = now.after(BELIEVED);
        let place = self.place(to);
        let old = self.places[place].replace(Known { to, mtu, until });
        self.used += usize::from(old.is_none());
        true
    }

    /// Forgets what is too old, one place a call.
    #[inline]
    pub fn expire(&mut self, now: Tick) {
        if self.used == 0 {
            return;
        }
        self.hand = (self.hand + 1) % PLACES;
        let place = &mut self.places[self.hand];
        if place.is_some_and(|known| known.until.reached(now)) {
            *place = None;
            self.used -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_is_believed_for_a_while() {
        let mut p = PathMtus::new(7);
        let (a, b): (IpAddr, IpAddr) = ("10.1.0.11".parse().unwrap(), "fd00::1".parse().unwrap());
        let now = Tick(u32::MAX - 3);
        assert_eq!(p.bounded(a, 1500, now), 1500);
        assert!(p.learn(a, 1400, now));
        assert!(!p.learn(a, 1400, now), "the same again is no news");
        assert!(!p.learn(a, 1450, now), "never raised");
        assert!(p.learn(a, 1300, now));
        assert_eq!(p.bounded(a, 1500, now), 1300);
        assert_eq!(p.bounded(a, 1200, now), 1200, "the link counts too");
        assert_eq!(p.bounded(b, 1500, now), 1500, "only of that far end");
        // What a forged error may do is bounded.
        assert!(p.learn(a, 68, now) && p.learn(b, 68, now));
        assert_eq!(
            (p.bounded(a, 1500, now), p.bounded(b, 1500, now)),
            (552, 1280)
        );
        let later = now.after(Tick::seconds(600));
        assert_eq!(p.bounded(a, 1500, later), 1500);
        for _ in 0..PLACES {
            p.expire(later);
        }
        assert_eq!(p.used, 0);
        assert!(p.learn(a, 1400, later), "and may be lowered anew");
    }

    #[test]
    fn any_number_of_far_ends_takes_no_more_room() {
        let mut p = PathMtus::new(7);
        for n in 0..10_000u32 {
            let to = IpAddr::from(n.to_be_bytes());
            assert!(p.learn(to, 1400, Tick(n)));
            assert_eq!(p.bounded(to, 1500, Tick(n)), 1400);
        }
        assert!(p.used <= PLACES);
    }
}
