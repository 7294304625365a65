//! The five-tuple of an IPv4 flow, packed for comparing and hashing.
#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::types::Proto;

/// Protocol, addresses and ports of one direction of a flow, as its packets carry them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key4 {
    /// Source address in the high half, destination address in the low half.
    pub addrs: u64,
    /// Source port in the high half, destination port in the low half.
    pub ports: u32,
    /// TCP or UDP.
    pub proto: Proto,
}

impl Key4 {
    /// The key of packets from `src` to `dst`.
    #[must_use]
    pub fn new(proto: Proto, src: SocketAddrV4, dst: SocketAddrV4) -> Key4 {
        Key4 {
            addrs: u64::from(u32::from(*src.ip())) << 32 | u64::from(u32::from(*dst.ip())),
            ports: u32::from(src.port()) << 16 | u32::from(dst.port()),
            proto,
        }
    }

    /// Source address.
    #[inline]
    #[must_use]
    pub fn src(self) -> u32 {
        (self.addrs >> 32) as u32
    }

    /// Destination address.
    #[inline]
    #[must_use]
    pub fn dst(self) -> u32 {
        self.addrs as u32
    }

    /// Source port.
    #[inline]
    #[must_use]
    pub fn sport(self) -> u16 {
        (self.ports >> 16) as u16
    }

    /// Destination port.
    #[inline]
    #[must_use]
    pub fn dport(self) -> u16 {
        self.ports as u16
    }

    /// Source address and port.
    #[must_use]
    pub fn source(self) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::from(self.src()), self.sport())
    }

    /// Destination address and port.
    #[must_use]
    pub fn destination(self) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::from(self.dst()), self.dport())
    }

    /// The key of the answers to packets with this key.
    #[inline]
    #[must_use]
    pub fn reversed(self) -> Key4 {
        Key4 {
            addrs: self.addrs.rotate_left(32),
            ports: self.ports.rotate_left(16),
            ..self
        }
    }
}
