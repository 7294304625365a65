//! The laboratory's addresses in both families; the IPv4 ones are [`topology`](crate::topology)'s.
//!
//! ```text
//!   client 2001:db8::1 ── wan ── director 2001:db8::2, VIP 2001:db8::10
//!                                director 2001:db8:1::2 ── lan ── servers 2001:db8:1::11 ...
//! ```

use std::net::{IpAddr, Ipv6Addr};

use crate::topology::{CLIENT, DIRECTOR, VIP, rip};

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

use Family::{V4, V6};

const fn wan(last: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last))
}

const fn lan(last: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, last))
}

impl Family {
    /// The client's address.
    pub(crate) const fn client(self) -> IpAddr {
        match self {
            V4 => IpAddr::V4(CLIENT),
            V6 => wan(1),
        }
    }

    /// The client's address in the servers' network, when answers go straight to it.
    pub(crate) fn client_in_lan(self) -> IpAddr {
        match self {
            V4 => IpAddr::from([10, 1, 0, 1]),
            V6 => lan(1),
        }
    }

    /// The director's own address on the client's side.
    pub(crate) const fn director(self) -> IpAddr {
        match self {
            V4 => IpAddr::V4(DIRECTOR),
            V6 => wan(2),
        }
    }

    /// The director's own address on the servers' side (DIP).
    pub(crate) fn director_in_lan(self) -> IpAddr {
        match self {
            V4 => IpAddr::from([10, 1, 0, 2]),
            V6 => lan(2),
        }
    }

    /// The virtual service's address.
    pub(crate) const fn vip(self) -> IpAddr {
        match self {
            V4 => IpAddr::V4(VIP),
            V6 => wan(0x10),
        }
    }

    /// The real servers' address, counted from 1.
    pub(crate) fn rip(self, server: usize) -> IpAddr {
        match self {
            V4 => rip(server).into(),
            V6 => lan(0x10 + u16::try_from(server).expect("a test has few servers")),
        }
    }

    /// The length of every network's prefix here.
    pub(crate) const fn prefix(self) -> u8 {
        match self {
            V4 => 24,
            V6 => 64,
        }
    }
}
