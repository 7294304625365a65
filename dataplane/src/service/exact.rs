//! Services of one address and one port, by these: what every opening asks.
//!
//! IPv4's are in a table of one word a key, never more than a quarter full and looked through from
//! where the key's product with a constant says: an opening takes a fifth of the instructions that
//! a general map takes. What is in it comes from the operator, so nobody can fill one place of it.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use foldhash::fast::RandomState;

use crate::types::{Proto, ServiceId};

#[cfg(test)]
mod tests;

/// No key: protocol 0.
const EMPTY: u64 = 0;

/// Made once for a snapshot.
#[derive(Debug)]
pub(super) struct Exact {
    /// A power of two of them, at least one empty.
    v4: Box<[(u64, ServiceId)]>,
    v6: HashMap<(u128, u32), ServiceId, RandomState>,
}

#[inline]
fn port_and(proto: Proto, port: u16) -> u32 {
    u32::from(port) << 8 | proto as u32
}

impl Exact {
    /// Of two services with the same address, port and protocol, the last.
    pub(super) fn new(of: impl Iterator<Item = (Proto, SocketAddr, ServiceId)>) -> Exact {
        let mut v6 = HashMap::default();
        let mut keys = Vec::new();
        for (proto, at, id) in of {
            let low = port_and(proto, at.port());
            match at.ip() {
                IpAddr::V4(ip) => keys.push((u64::from(u32::from(ip)) << 32 | u64::from(low), id)),
                IpAddr::V6(ip) => {
                    v6.insert((u128::from(ip), low), id);
                }
            }
        }
        let places = (4 * keys.len()).next_power_of_two();
        let mut exact = Exact {
            v4: vec![(EMPTY, ServiceId(0)); places].into(),
            v6,
        };
        for (key, id) in keys {
            let at = exact.place(key);
            exact.v4[at] = (key, id);
        }
        exact
    }

    /// Where `key` is, or would be.
    #[inline(always)]
    fn place(&self, key: u64) -> usize {
        let last = self.v4.len() - 1;
        let mixed = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut at = (mixed >> 32) as usize & last;
        while self.v4[at].0 != key && self.v4[at].0 != EMPTY {
            at = (at + 1) & last;
        }
        at
    }

    #[inline(always)]
    pub(super) fn get(&self, proto: Proto, at: SocketAddr) -> Option<ServiceId> {
        let low = port_and(proto, at.port());
        match at.ip() {
            IpAddr::V4(ip) => {
                let key = u64::from(u32::from(ip)) << 32 | u64::from(low);
                let (found, id) = self.v4[self.place(key)];
                (found == key).then_some(id)
            }
            IpAddr::V6(ip) => self.v6.get(&(u128::from(ip), low)).copied(),
        }
    }
}
