//! Services of one address and one port, by these: what nearly every opening asks.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use foldhash::fast::RandomState;

use crate::types::{Proto, ServiceId};

/// One map for each family: an IPv4 address, port and protocol are one word to hash.
#[derive(Debug, Default)]
pub(super) struct Exact {
    v4: HashMap<u64, ServiceId, RandomState>,
    v6: HashMap<(u128, u32), ServiceId, RandomState>,
}

#[inline]
fn port_and(proto: Proto, port: u16) -> u32 {
    u32::from(port) << 8 | proto as u32
}

impl Exact {
    #[inline]
    pub(super) fn get(&self, proto: Proto, at: SocketAddr) -> Option<ServiceId> {
        let low = port_and(proto, at.port());
        match at.ip() {
            IpAddr::V4(ip) => {
                let key = u64::from(u32::from(ip)) << 32 | u64::from(low);
                self.v4.get(&key).copied()
            }
            IpAddr::V6(ip) => self.v6.get(&(u128::from(ip), low)).copied(),
        }
    }

    pub(super) fn insert(&mut self, proto: Proto, at: SocketAddr, id: ServiceId) {
        let low = port_and(proto, at.port());
        match at.ip() {
            IpAddr::V4(ip) => {
                let key = u64::from(u32::from(ip)) << 32 | u64::from(low);
                self.v4.insert(key, id);
            }
            IpAddr::V6(ip) => {
                self.v6.insert((u128::from(ip), low), id);
            }
        }
    }
}
