//! One file per protocol, checked once at the door.
//!
//! [`parse`] looks at every length and offset that later stages rely on; after it, reads and
//! writes at the offsets in a [`Flow`] stay inside the frame. What is malformed ends as a
//! [`DropReason`]; what is well-formed but not ours to balance is [`Parsed::Other`].
#![forbid(unsafe_code)]

pub mod build;
pub mod checksum;
pub mod eth;
pub mod fragment;
pub mod header;
pub mod icmp;
pub mod ids;
pub mod ipv4;
pub mod ipv6;
pub mod key;
pub mod mss;
pub mod sctp;
pub mod tcp;
#[cfg(test)]
mod tests;
pub mod udp;

pub use key::Key4;

use crate::counters::DropReason;
use crate::types::Proto;

/// An IPv4 TCP or UDP packet, whole, with every offset checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Its five-tuple as the packet carries it.
    pub key: Key4,
    /// Offset of the TCP or UDP header; the IPv4 header is at [`eth::HEADER_LEN`].
    pub l4: u16,
    /// IPv4 total length, bytes.
    pub ip_len: u16,
    /// TCP flags; 0 for UDP.
    pub tcp_flags: u8,
    /// Time to live.
    pub ttl: u8,
}

impl Flow {
    /// No flow: what a place for one holds before [`parse_into`] fills it.
    pub const NONE: Flow = Flow {
        key: Key4 {
            addrs: 0,
            ports: 0,
            proto: Proto::Udp,
        },
        l4: 0,
        ip_len: 0,
        tcp_flags: 0,
        ttl: 0,
    };
}

/// What kind of frame stood at the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Something to balance, perhaps.
    Flow,
    /// An IPv4 fragment.
    Fragment,
    /// Well-formed as far as it was looked at, and not TCP or UDP over IPv4.
    Other,
}

/// What the door found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// Something to balance, perhaps.
    Flow(Flow),
    /// An IPv4 fragment.
    Fragment,
    /// Well-formed as far as it was looked at, and not TCP or UDP over IPv4.
    Other,
}

/// Checks a frame from its Ethernet header to its ports.
///
/// `trust_l3`: the port has verified the IPv4 header checksum already.
///
/// # Errors
/// The reason to drop it.
pub fn parse(frame: &[u8], trust_l3: bool) -> Result<Parsed, DropReason> {
    let mut flow = Flow::NONE;
    Ok(match parse_into(&mut flow, frame, trust_l3)? {
        Kind::Flow => Parsed::Flow(flow),
        Kind::Fragment => Parsed::Fragment,
        Kind::Other => Parsed::Other,
    })
}

/// As [`parse`], the flow written where the burst keeps it. Handing it up by value through
/// enums cost 20 ns a packet: the copies read bytes together that had been stored apart.
///
/// # Errors
/// The reason to drop it.
#[inline(always)]
pub fn parse_into(flow: &mut Flow, frame: &[u8], trust_l3: bool) -> Result<Kind, DropReason> {
    // One length check for both fixed headers: what follows reads at constant places.
    let Some(headers) = frame.first_chunk::<{ ipv4::END }>() else {
        return match eth::ethertype(frame)? {
            eth::IPV4 => Err(DropReason::BadIpHeader),
            _ => Ok(Kind::Other),
        };
    };
    if be16(headers, 12) != eth::IPV4 {
        return Ok(Kind::Other);
    }
    let ip = ipv4::check(headers, frame, trust_l3)?;
    if ip.fragment {
        return Ok(Kind::Fragment);
    }
    let (l4, end) = (
        usize::from(ip.l4),
        eth::HEADER_LEN + usize::from(ip.total_len),
    );
    let segment = frame.get(l4..end).unwrap_or_default();
    (flow.key.proto, flow.tcp_flags, flow.key.ports) = match ip.protocol {
        ipv4::TCP => {
            let tcp = tcp::check(segment)?;
            (Proto::Tcp, tcp[tcp::FLAGS_AT], be32(tcp, 0))
        }
        ipv4::UDP => (Proto::Udp, 0, be32(udp::check(segment)?, 0)),
        _ => return Ok(Kind::Other),
    };
    flow.key.addrs = ip.addrs;
    (flow.l4, flow.ip_len, flow.ttl) = (ip.l4, ip.total_len, ip.ttl);
    Ok(Kind::Flow)
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
