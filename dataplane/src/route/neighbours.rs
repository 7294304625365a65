//! Neighbours by stable index, and by address when a connection looks for one.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::num::NonZeroU64;

use foldhash::fast::RandomState;

use super::{Hop, NeighbourId, NeighbourUpdate};
use crate::types::{Mac, PortId};

/// How frames get to a neighbour: both MAC addresses, the port and the longest IP packet, in two
/// words that stay in registers. (As a struct of bytes it went through memory, stored in pieces
/// and loaded whole: 15 ns a packet.)
///
/// ```text
///  0            48           96     112    120        127
///  | its MAC    | our MAC    | MTU  | port |      | 1 |
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    low: u64,
    high: NonZeroU64,
}

impl Reach {
    const KNOWN: u64 = 1 << 63;

    fn new(mac: Mac, port: PortId, own: OwnEnd) -> Option<Reach> {
        let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (mac.0, own.mac.0);
        let [m, n] = own.mtu.to_le_bytes();
        let high = u64::from_le_bytes([i, j, k, l, m, n, port.0, 0]) | Reach::KNOWN;
        Some(Reach {
            low: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            high: NonZeroU64::new(high)?,
        })
    }

    /// The port that it is behind.
    #[inline]
    #[must_use]
    pub fn port(self) -> PortId {
        PortId((self.high.get() >> 48) as u8)
    }

    /// Largest IP packet that fits the link, bytes.
    #[inline]
    #[must_use]
    pub fn mtu(self) -> u16 {
        (self.high.get() >> 32) as u16
    }

    /// Its MAC address.
    #[must_use]
    pub fn mac(self) -> Mac {
        let [a, b, c, d, e, f, ..] = self.low.to_le_bytes();
        Mac([a, b, c, d, e, f])
    }

    /// Sets a frame's both MAC addresses; of one without a whole header nothing.
    #[inline]
    pub fn address(self, frame: &mut [u8]) {
        if let Some(macs) = frame.first_chunk_mut::<12>() {
            macs[..8].copy_from_slice(&self.low.to_le_bytes());
            macs[8..].copy_from_slice(&(self.high.get() as u32).to_le_bytes());
        }
    }
}

/// The director's own end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OwnEnd {
    /// The port's MAC address.
    pub mac: Mac,
    /// Largest IP packet that fits the link, bytes.
    pub mtu: u16,
}

/// One worker's copy of the neighbours. Changed only by control's commands, between bursts.
#[derive(Debug, Default)]
pub struct Neighbours {
    /// By port.
    own_ends: Vec<OwnEnd>,
    /// `None` while the MAC is not known.
    reach: Vec<Option<Reach>>,
    hops: Vec<Option<Hop>>,
    by_hop: HashMap<Hop, NeighbourId, RandomState>,
    /// What was found last: clients are behind few gateways.
    found: Option<(Hop, NeighbourId)>,
}

impl Neighbours {
    /// Takes note of what the director's own end of a port's link is.
    pub fn set_own_end(&mut self, port: PortId, own: OwnEnd) {
        let at = usize::from(port.0);
        if self.own_ends.len() <= at {
            self.own_ends.resize(at + 1, OwnEnd::default());
        }
        self.own_ends[at] = own;
        for reach in self
            .reach
            .iter_mut()
            .filter(|r| r.is_some_and(|r| r.port() == port))
        {
            *reach = reach.and_then(|reach| Reach::new(reach.mac(), port, own));
        }
    }

    /// Applies what control says. An index that gets another address forgets the old one.
    pub fn update(&mut self, u: NeighbourUpdate) {
        if u.id == NeighbourId::NONE {
            return;
        }
        self.found = None;
        let at = usize::from(u.id.0);
        if self.reach.len() <= at {
            self.reach.resize(at + 1, None);
            self.hops.resize(at + 1, None);
        }
        let hop = Hop {
            port: u.port,
            addr: u.addr,
        };
        if let Some(old) = self.hops[at].replace(hop).filter(|old| *old != hop) {
            // Unless the old address has another index by now: updates come in any order.
            if self.by_hop.get(&old) == Some(&u.id) {
                self.by_hop.remove(&old);
            }
        }
        let own = self.own_ends.get(usize::from(u.port.0));
        let own = own.copied().unwrap_or_default();
        self.reach[at] = u.mac.and_then(|mac| Reach::new(mac, u.port, own));
        self.by_hop.insert(hop, u.id);
    }

    /// The index of the neighbour at `hop`, whether its MAC is known or not.
    #[inline]
    #[must_use]
    pub fn find(&mut self, hop: Hop) -> Option<NeighbourId> {
        match self.found {
            Some((known, id)) if known == hop => Some(id),
            _ => self.look_up(hop),
        }
    }

    #[inline(never)]
    fn look_up(&mut self, hop: Hop) -> Option<NeighbourId> {
        let id = self.by_hop.get(&hop).copied()?;
        self.found = Some((hop, id));
        Some(id)
    }

    /// How frames get to a neighbour whose MAC is known.
    #[inline]
    #[must_use]
    pub fn get(&self, id: NeighbourId) -> Option<Reach> {
        *self.reach.get(usize::from(id.0))?
    }
}
