//! Whole IP headers, written from scratch: of tunnels, of ICMP errors, of translated packets.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{checksum, eth, ipv4, ipv6, put16};

/// Source and destination of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// IPv4.
    V4 {
        /// Source address.
        src: Ipv4Addr,
        /// Destination address.
        dst: Ipv4Addr,
    },
    /// IPv6.
    V6 {
        /// Source address.
        src: Ipv6Addr,
        /// Destination address.
        dst: Ipv6Addr,
    },
}

impl Ends {
    /// From `src` to `dst`; `None` when one is IPv4 and the other IPv6.
    #[must_use]
    pub fn new(src: IpAddr, dst: IpAddr) -> Option<Ends> {
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => Some(Ends::V4 { src, dst }),
            (IpAddr::V6(src), IpAddr::V6(dst)) => Some(Ends::V6 { src, dst }),
            _ => None,
        }
    }

    /// Bytes of an IP header between them, without options.
    #[inline]
    #[must_use]
    pub fn header_len(self) -> usize {
        match self {
            Ends::V4 { .. } => ipv4::MIN_LEN,
            Ends::V6 { .. } => ipv6::LEN,
        }
    }

    /// The EtherType of packets between them.
    #[inline]
    #[must_use]
    pub fn ethertype(self) -> u16 {
        match self {
            Ends::V4 { .. } => eth::IPV4,
            Ends::V6 { .. } => eth::IPV6,
        }
    }

    /// Source and destination as addresses of either family.
    #[must_use]
    pub fn addrs(self) -> (IpAddr, IpAddr) {
        match self {
            Ends::V4 { src, dst } => (src.into(), dst.into()),
            Ends::V6 { src, dst } => (src.into(), dst.into()),
        }
    }

    /// The folded sum of the pseudo-header for `len` bytes of `protocol`.
    #[must_use]
    pub fn pseudo(self, protocol: u8, len: u16) -> u16 {
        let addrs = match self {
            Ends::V4 { src, dst } => {
                u32::from(checksum::sum(&src.octets())) + u32::from(checksum::sum(&dst.octets()))
            }
            Ends::V6 { src, dst } => {
                u32::from(checksum::sum(&src.octets())) + u32::from(checksum::sum(&dst.octets()))
            }
        };
        checksum::fold(addrs + u32::from(protocol) + u32::from(len))
    }
}

/// An IP header to be: the fields that both families have, and IPv4's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpHeader {
    /// Addresses, and so the version.
    pub ends: Ends,
    /// Type of service, or traffic class.
    pub tos: u8,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// What follows.
    pub protocol: u8,
    /// Identification; IPv4 only.
    pub id: u16,
    /// Don't fragment; IPv4 only.
    pub df: bool,
}

impl IpHeader {
    /// Writes the header over the first bytes of `packet`, for `payload` bytes behind it. Its
    /// flow label is 0. Does nothing where it does not fit, which is a mistake of the caller's.
    #[inline]
    pub fn write(&self, packet: &mut [u8], payload: u16) {
        match self.ends {
            Ends::V4 { src, dst } => {
                let Some(h) = packet.first_chunk_mut::<{ ipv4::MIN_LEN }>() else {
                    return;
                };
                (h[0], h[1]) = (0x45, self.tos);
                put16(h, 2, payload.saturating_add(ipv4::MIN_LEN as u16));
                put16(h, 4, self.id);
                put16(h, 6, if self.df { ipv4::DF } else { 0 });
                (h[8], h[9]) = (self.ttl, self.protocol);
                put16(h, 10, 0);
                h[12..16].copy_from_slice(&src.octets());
                h[16..].copy_from_slice(&dst.octets());
                let sum = !checksum::of_header(h);
                h[10..12].copy_from_slice(&sum.to_ne_bytes());
            }
            Ends::V6 { src, dst } => {
                let Some(h) = packet.first_chunk_mut::<{ ipv6::LEN }>() else {
                    return;
                };
                (h[0], h[1]) = (0x60 | self.tos >> 4, self.tos << 4);
                put16(h, 2, 0); // the rest of the flow label
                put16(h, 4, payload);
                (h[6], h[7]) = (self.protocol, self.ttl);
                h[8..24].copy_from_slice(&src.octets());
                h[24..].copy_from_slice(&dst.octets());
            }
        }
    }
}
