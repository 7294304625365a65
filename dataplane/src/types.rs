//! Small newtypes that every room uses; a swap of two of them must not compile.
#![forbid(unsafe_code)]

use std::fmt;

/// Index of a worker, `0..workers`. Not a CPU number: see `[workers] cores` for those.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CoreId(pub u8);

/// Index of a port, in the order of the configuration's `[[port]]` tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub u8);

/// A virtual service's stable number; never reused while a worker still has its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceId(pub u32);

/// A real server's stable number within the process, 24 bits: it fits a connection entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(pub u32);

impl ServerId {
    /// One past the largest id: ids are 24 bits wide.
    pub const LIMIT: u32 = 1 << 24;
}

/// A layer-4 protocol that Weir balances, or translates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Proto {
    /// Transmission Control Protocol (RFC 9293).
    Tcp = 6,
    /// User Datagram Protocol (RFC 768).
    Udp = 17,
    /// Stream Control Transmission Protocol (RFC 9260).
    Sctp = 132,
    /// Echo of either ICMP (RFC 792, RFC 4443): of SNAT alone, no service has it. A flow's
    /// identifier stands in the port of the side that asks; the other side's is 0. The number is
    /// ICMPv6's for both.
    Icmp = 58,
}

impl Proto {
    /// The protocol of this IP protocol number.
    #[inline]
    #[must_use]
    pub fn from_number(number: u8) -> Option<Proto> {
        match number {
            6 => Some(Proto::Tcp),
            17 => Some(Proto::Udp),
            132 => Some(Proto::Sctp),
            1 | 58 => Some(Proto::Icmp),
            _ => None,
        }
    }
}

impl Proto {
    /// Its name in the configuration and in listings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Proto::Tcp => "tcp",
            Proto::Udp => "udp",
            Proto::Sctp => "sctp",
            Proto::Icmp => "icmp",
        }
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Broadcast and multicast frames have the group bit (the first octet's lowest).
    #[must_use]
    pub fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let m = self.0;
        write!(
            f,
            "{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}",
            m[0], m[1], m[2], m[3], m[4], m[5]
        )
    }
}

/// A moment, in 1/64 s since the process's tick base. Wraps after two years, so moments are
/// compared only by [`Tick::reached`] and [`Tick::since`], which hold across the wrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Tick(pub u32);

impl Tick {
    /// Ticks in one second.
    pub const PER_SECOND: u32 = 64;

    /// This moment plus `ticks`.
    #[must_use]
    pub fn after(self, ticks: u32) -> Tick {
        Tick(self.0.wrapping_add(ticks))
    }

    /// Whether this deadline has come at `now`.
    #[must_use]
    pub fn reached(self, now: Tick) -> bool {
        now.0.wrapping_sub(self.0) as i32 >= 0
    }

    /// Ticks from `earlier` to this moment; 0 when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Tick) -> u32 {
        let d = self.0.wrapping_sub(earlier.0) as i32;
        d.max(0) as u32
    }

    /// `seconds` as a number of ticks.
    #[must_use]
    pub const fn seconds(seconds: u32) -> u32 {
        seconds * Self::PER_SECOND
    }
}
