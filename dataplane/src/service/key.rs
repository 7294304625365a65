//! What a service is known by: an address and port, a range of either, a mark, or a rule of SNAT.
#![forbid(unsafe_code)]

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;

use crate::types::{PortId, Proto};

/// What marking rules put on a packet, as netfilter's fwmark: never 0.
pub type Mark = NonZeroU32;

/// What clients address, what marks their packets, or which rule of SNAT. No two services share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServiceKey {
    /// One virtual address.
    Address {
        /// TCP, UDP or SCTP.
        proto: Proto,
        /// The virtual address.
        vip: IpAddr,
        /// The virtual port; 0 is every port that no other service of this VIP names.
        port: u16,
    },
    /// Several virtual addresses, or several ports, or both.
    Range {
        /// TCP, UDP or SCTP.
        proto: Proto,
        /// The virtual addresses.
        vips: AddressRange,
        /// The virtual ports.
        ports: PortRange,
    },
    /// Packets of one family that carry a mark, of every protocol.
    Mark {
        /// The mark.
        mark: Mark,
        /// IPv6, or IPv4.
        v6: bool,
    },
    /// Packets of one family that real servers open themselves, and that this rule of SNAT is for.
    Snat {
        /// The rule.
        rule: RuleName,
        /// IPv6, or IPv4.
        v6: bool,
    },
}

/// The name of a rule, held in place so that keys stay `Copy`: up to [`RuleName::MAX`] bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleName([u8; RuleName::MAX]);

impl RuleName {
    /// Bytes of the longest name.
    pub const MAX: usize = 64;

    /// `None` when the name is too long, or ends in a zero byte.
    #[must_use]
    pub fn new(name: &str) -> Option<RuleName> {
        let mut bytes = [0; RuleName::MAX];
        let fits = !name.ends_with('\0');
        let place = bytes.get_mut(..name.len()).filter(|_| fits)?;
        place.copy_from_slice(name.as_bytes());
        Some(RuleName(bytes))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let len = self
            .0
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |at| at + 1);
        std::str::from_utf8(&self.0[..len]).unwrap_or_default() // it was a string's
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

impl ServiceKey {
    /// Its protocol; `None` where it takes every one.
    #[must_use]
    pub fn proto(&self) -> Option<Proto> {
        match *self {
            ServiceKey::Address { proto, .. } | ServiceKey::Range { proto, .. } => Some(proto),
            ServiceKey::Mark { .. } | ServiceKey::Snat { .. } => None,
        }
    }

    /// Its virtual addresses; `None` where rules say them.
    #[must_use]
    pub fn vips(&self) -> Option<AddressRange> {
        match *self {
            ServiceKey::Address { vip, .. } => Some(AddressRange::one(vip)),
            ServiceKey::Range { vips, .. } => Some(vips),
            ServiceKey::Mark { .. } | ServiceKey::Snat { .. } => None,
        }
    }

    /// The one port that it names; `None` where clients choose.
    #[inline(always)]
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match *self {
            ServiceKey::Address { port, .. } => Some(port).filter(|port| *port != 0),
            ServiceKey::Range { ports, .. } => Some(ports.first).filter(|_| ports.len() == 1),
            ServiceKey::Mark { .. } | ServiceKey::Snat { .. } => None,
        }
    }

    /// Whether its clients speak IPv6.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        match *self {
            ServiceKey::Address { vip, .. } => vip.is_ipv6(),
            ServiceKey::Range { vips, .. } => vips.is_ipv6(),
            ServiceKey::Mark { v6, .. } | ServiceKey::Snat { v6, .. } => v6,
        }
    }

    /// Address and port as the configuration writes them: `10.0.0.0/28:80`; `None` for a mark and
    /// for SNAT.
    #[must_use]
    pub fn address(&self) -> Option<String> {
        match *self {
            ServiceKey::Address { vip, port, .. } => Some(SocketAddr::new(vip, port).to_string()),
            ServiceKey::Range { vips, ports, .. } if vips.is_ipv6() => {
                Some(format!("[{vips}]:{ports}"))
            }
            ServiceKey::Range { vips, ports, .. } => Some(format!("{vips}:{ports}")),
            ServiceKey::Mark { .. } | ServiceKey::Snat { .. } => None,
        }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.address(), self.proto()) {
            (_, Some(address), Some(proto)) => write!(f, "{address}/{proto}"),
            (ServiceKey::Mark { mark, v6: true }, ..) => write!(f, "fwmark {mark}, ipv6"),
            (ServiceKey::Mark { mark, .. }, ..) => write!(f, "fwmark {mark}"),
            (ServiceKey::Snat { rule, v6: true }, ..) => write!(f, "snat {rule}, ipv6"),
            (ServiceKey::Snat { rule, .. }, ..) => write!(f, "snat {rule}"),
            _ => Ok(()),
        }
    }
}

/// What a packet without a connection says, as far as services care.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// Its protocol.
    pub proto: Proto,
    /// Where it comes from.
    pub source: IpAddr,
    /// Where it wants to go.
    pub destination: SocketAddr,
    /// The port (network card) that it arrived on; for SNAT, that it leaves by.
    pub port: PortId,
}

/// Addresses of one family from the first to the last, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

impl AddressRange {
    /// `None` when the families differ, or the range runs backwards.
    #[must_use]
    pub fn new(first: IpAddr, last: IpAddr) -> Option<AddressRange> {
        let right = first.is_ipv4() == last.is_ipv4() && first <= last;
        right.then_some(AddressRange { first, last })
    }

    /// One address.
    #[must_use]
    pub fn one(address: IpAddr) -> AddressRange {
        AddressRange {
            first: address,
            last: address,
        }
    }

    /// The network of `len` bits that `address` is in; a length beyond the address's bits is
    /// the address alone.
    #[must_use]
    pub fn network(address: IpAddr, len: u8) -> AddressRange {
        match address {
            IpAddr::V4(a) => {
                let hosts = u32::MAX.checked_shr(len.into()).unwrap_or(0);
                AddressRange {
                    first: Ipv4Addr::from(u32::from(a) & !hosts).into(),
                    last: Ipv4Addr::from(u32::from(a) | hosts).into(),
                }
            }
            IpAddr::V6(a) => {
                let hosts = u128::MAX.checked_shr(len.into()).unwrap_or(0);
                AddressRange {
                    first: Ipv6Addr::from(u128::from(a) & !hosts).into(),
                    last: Ipv6Addr::from(u128::from(a) | hosts).into(),
                }
            }
        }
    }

    /// The first address.
    #[must_use]
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// The last address.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        self.last
    }

    /// Whether these are IPv6 addresses.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        self.first.is_ipv6()
    }

    /// Whether `address` is one of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.first.is_ipv4() && (self.first..=self.last).contains(&address)
    }

    /// Whether all of `other` are among them.
    #[must_use]
    pub fn covers(&self, other: &AddressRange) -> bool {
        self.contains(other.first) && self.contains(other.last)
    }

    /// Whether any address is in both.
    #[must_use]
    pub fn meets(&self, other: &AddressRange) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }

    /// How many beside the first one.
    #[must_use]
    pub fn steps(&self) -> u128 {
        number(self.last) - number(self.first)
    }

    /// All of them, ascending.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let v6 = self.is_ipv6();
        (number(self.first)..=number(self.last)).map(move |n| match v6 {
            true => IpAddr::V6(n.into()),
            false => IpAddr::V4((n as u32).into()), // numbers of IPv4 addresses
        })
    }
}

/// As people write them: an address, a network where it is one, else first and last.
impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return write!(f, "{}", self.first);
        }
        let bits: u8 = if self.is_ipv6() { 128 } else { 32 };
        let hosts = (self.steps().count_ones()) as u8;
        match AddressRange::network(self.first, bits - hosts) == *self {
            true => write!(f, "{}/{}", self.first, bits - hosts),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// Ports from the first to the last, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Every port.
    pub const ALL: PortRange = PortRange {
        first: 0,
        last: u16::MAX,
    };

    /// `None` when it runs backwards.
    #[must_use]
    pub fn new(first: u16, last: u16) -> Option<PortRange> {
        (first <= last).then_some(PortRange { first, last })
    }

    /// One port.
    #[must_use]
    pub fn one(port: u16) -> PortRange {
        PortRange {
            first: port,
            last: port,
        }
    }

    /// The first port.
    #[must_use]
    pub fn first(&self) -> u16 {
        self.first
    }

    /// The last port.
    #[must_use]
    pub fn last(&self) -> u16 {
        self.last
    }

    /// Whether `port` is one of them.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// Whether all of `other` are among them.
    #[must_use]
    pub fn covers(&self, other: &PortRange) -> bool {
        self.contains(other.first) && self.contains(other.last)
    }

    /// Whether any port is in both.
    #[must_use]
    pub fn meets(&self, other: &PortRange) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }

    /// How many, 1 to 65536.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "none is empty")]
    pub fn len(&self) -> u32 {
        u32::from(self.last - self.first) + 1
    }
}

/// As people write them; every port is 0.
impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            PortRange::ALL => f.write_str("0"),
            PortRange { first, last } if first == last => write!(f, "{first}"),
            PortRange { first, last } => write!(f, "{first}-{last}"),
        }
    }
}
