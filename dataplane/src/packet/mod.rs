//! One file per protocol, checked once at the door.
//!
//! [`parse`] looks at every length and offset that later stages rely on; after it, reads and
//! writes at the offsets in a [`Flow`] stay inside the frame. What is malformed ends as a
//! [`DropReason`]; what is well-formed but not ours to balance is [`Parsed::Other`].
#![forbid(unsafe_code)]

pub mod build;
pub mod checksum;
pub mod common;
pub mod eth;
pub mod fragment;
pub mod header;
pub mod icmp;
pub mod ids;
pub mod ipv4;
pub mod ipv6;
pub mod key;
pub mod mss;
pub mod quic;
pub mod sctp;
pub mod sip;
pub mod tcp;
#[cfg(test)]
mod tests;
pub mod udp;

pub use key::{Key, Key4, Key6};

use crate::counters::DropReason;
use crate::types::Proto;

/// A TCP, UDP or SCTP packet, whole, with every offset checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow<K = Key4> {
    /// Its five-tuple as the packet carries it.
    pub key: K,
    /// Offset of the layer-4 header; the IP header is at [`eth::HEADER_LEN`].
    pub l4: u16,
    /// Bytes of the IP packet, headers included, without Ethernet padding.
    pub ip_len: u16,
    /// What the packet says to the state table: TCP's flags; of SCTP [`sctp::Event::says`]; 0
    /// for UDP.
    pub says: u8,
    /// Time to live, or hop limit.
    pub ttl: u8,
}

impl<K: Key> Flow<K> {
    /// The same packet under another key: an IPv4 packet whose flow is kept among the IPv6 ones.
    #[inline]
    #[must_use]
    pub fn with_key<T: Key>(&self, key: T) -> Flow<T> {
        Flow {
            key,
            l4: self.l4,
            ip_len: self.ip_len,
            says: self.says,
            ttl: self.ttl,
        }
    }
}

impl Flow<Key4> {
    /// No flow: what a place for one holds before [`parse_into`] fills it.
    pub const NONE: Flow = Flow {
        key: Key4 {
            addrs: 0,
            ports: 0,
            proto: Proto::Udp,
        },
        l4: 0,
        ip_len: 0,
        says: 0,
        ttl: 0,
    };
}

impl Flow<Key6> {
    /// See [`Flow::NONE`].
    pub const NONE6: Flow<Key6> = Flow {
        key: Key6 {
            addrs: [0; 4],
            ports: 0,
            proto: Proto::Udp,
        },
        l4: 0,
        ip_len: 0,
        says: 0,
        ttl: 0,
    };
}

/// What kind of frame stood at the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// IPv4, something to balance, perhaps.
    Flow4,
    /// The same over IPv6.
    Flow6,
    /// A part of an IPv4 datagram.
    Fragment4,
    /// A part of an IPv6 datagram.
    Fragment6,
    /// ICMP over IPv4.
    Icmp4,
    /// ICMP for IPv6, neighbour discovery included.
    Icmp6,
    /// Well-formed as far as it was looked at, and none of the above.
    Other,
}

/// What the door found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// IPv4, something to balance, perhaps.
    Flow(Flow),
    /// The same over IPv6.
    Flow6(Flow<Key6>),
    /// No whole packet of a flow.
    Other(Kind),
}

/// Checks a frame from its Ethernet header to its ports.
///
/// `trust_l3`: the port has verified the IPv4 header checksum already.
///
/// # Errors
/// The reason to drop it.
pub fn parse(frame: &[u8], trust_l3: bool) -> Result<Parsed, DropReason> {
    let (mut flow, mut flow6) = (Flow::NONE, Flow::NONE6);
    Ok(match parse_into(&mut flow, &mut flow6, frame, trust_l3)? {
        Kind::Flow4 => Parsed::Flow(flow),
        Kind::Flow6 => Parsed::Flow6(flow6),
        other => Parsed::Other(other),
    })
}

/// As [`parse`], the flow written where the burst keeps it, by family. Handing it up by value
/// through enums cost 20 ns a packet: the copies read bytes together that had been stored apart.
/// Of [`common`] packets it says what [`common::read`] does, and takes longer.
///
/// # Errors
/// The reason to drop it.
#[inline(always)]
pub fn parse_into(
    flow: &mut Flow,
    flow6: &mut Flow<Key6>,
    frame: &[u8],
    trust_l3: bool,
) -> Result<Kind, DropReason> {
    // One length check for both fixed headers: what follows reads at constant places.
    let Some(headers) = frame.first_chunk::<{ ipv4::END }>() else {
        return match eth::ethertype(frame)? {
            eth::IPV4 => Err(DropReason::BadIpHeader),
            eth::IPV6 => Err(DropReason::BadIp6Header),
            _ => Ok(Kind::Other),
        };
    };
    match be16(headers, 12) {
        eth::IPV4 => {}
        eth::IPV6 => return parse6(flow6, frame),
        _ => return Ok(Kind::Other),
    }
    let ip = ipv4::check(headers, frame, trust_l3)?;
    if ip.fragment {
        return Ok(Kind::Fragment4);
    }
    let end = eth::HEADER_LEN + usize::from(ip.total_len);
    let segment = frame.get(usize::from(ip.l4)..end).unwrap_or_default();
    let Some((proto, says, ports)) = upper(ip.protocol, segment)? else {
        return Ok(match ip.protocol {
            ipv4::ICMP => Kind::Icmp4,
            _ => Kind::Other,
        });
    };
    flow.key = Key4::of(ip.addrs, ports, proto);
    (flow.says, flow.l4) = (says, ip.l4);
    (flow.ip_len, flow.ttl) = (ip.total_len, ip.ttl);
    Ok(Kind::Flow4)
}

#[inline(never)]
fn parse6(flow: &mut Flow<Key6>, frame: &[u8]) -> Result<Kind, DropReason> {
    let headers = frame.first_chunk::<{ ipv6::END }>();
    let headers = headers.ok_or(DropReason::BadIp6Header)?;
    let ip = ipv6::check(headers, frame)?;
    if ip.fragment.is_some() {
        return Ok(Kind::Fragment6);
    }
    let end = eth::HEADER_LEN + usize::from(ip.total_len);
    let segment = frame.get(usize::from(ip.l4)..end).unwrap_or_default();
    let Some((proto, says, ports)) = upper(ip.protocol, segment)? else {
        return Ok(match ip.protocol {
            ipv6::ICMP => Kind::Icmp6,
            _ => Kind::Other,
        });
    };
    let halves = |a: u128| [(a >> 64) as u64, a as u64];
    let ([a, b], [c, d]) = (halves(ip.src), halves(ip.dst));
    flow.key = Key6::of([a, b, c, d], ports, proto);
    (flow.says, flow.l4) = (says, ip.l4);
    (flow.ip_len, flow.ttl) = (ip.total_len, ip.hop_limit);
    Ok(Kind::Flow6)
}

/// Where the upper-layer header of a frame that [`parse_into`] has passed begins, and where the
/// packet ends.
///
/// # Errors
/// As [`parse`]'s for the IP header.
pub fn upper_at(frame: &[u8]) -> Result<(usize, usize), DropReason> {
    let (l4, len) = match eth::ethertype(frame)? {
        eth::IPV6 => {
            let headers = frame.first_chunk().ok_or(DropReason::BadIp6Header)?;
            let ip = ipv6::check(headers, frame)?;
            (ip.l4, ip.total_len)
        }
        _ => {
            let headers = frame.first_chunk().ok_or(DropReason::BadIpHeader)?;
            let ip = ipv4::check(headers, frame, true)?;
            (ip.l4, ip.total_len)
        }
    };
    Ok((usize::from(l4), eth::HEADER_LEN + usize::from(len)))
}

/// Checks the layer-4 header that `segment` begins with: its protocol, what it says to the state
/// table, and its ports. `None`: a protocol that is not balanced.
#[inline(always)]
fn upper(protocol: u8, segment: &[u8]) -> Result<Option<(Proto, u8, u32)>, DropReason> {
    Ok(Some(match protocol {
        ipv4::TCP => {
            let tcp = tcp::check(segment)?;
            (Proto::Tcp, tcp[tcp::FLAGS_AT], be32(tcp, 0))
        }
        ipv4::UDP => (Proto::Udp, 0, be32(udp::check(segment)?, 0)),
        ipv4::SCTP => {
            let (sctp, event) = sctp::check(segment)?;
            (Proto::Sctp, event.says(), be32(sctp, 0))
        }
        _ => return Ok(None),
    }))
}

/// The big-endian 16-bit word at `at`.
#[inline]
#[must_use]
pub fn be16(frame: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

/// Writes a big-endian 16-bit word at `at`.
#[inline]
pub fn put16(frame: &mut [u8], at: usize, value: u16) {
    frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// The big-endian 32-bit word at `at`.
#[inline]
#[must_use]
pub fn be32(frame: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]])
}

/// Writes a big-endian 32-bit word at `at`.
#[inline]
pub fn put32(frame: &mut [u8], at: usize, value: u32) {
    frame[at..at + 4].copy_from_slice(&value.to_be_bytes());
}
