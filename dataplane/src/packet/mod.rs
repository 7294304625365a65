//! One file per protocol, checked once at the door.
//!
//! [`parse`] looks at every length and offset that later stages rely on; after it, reads and
//! writes at the offsets in a [`Flow`] stay inside the frame. What is malformed ends as a
//! [`DropReason`]; what is well-formed but not ours to balance is [`Parsed::Other`].
#![forbid(unsafe_code)]

pub mod build;
pub mod checksum;
pub mod eth;
pub mod ipv4;
pub mod key;
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

/// What the door found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// Something to balance, perhaps.
    Flow(Flow),
    /// An IPv4 fragment; its addresses.
    Fragment {
        /// Source address.
        src: u32,
        /// Destination address.
        dst: u32,
    },
    /// Well-formed as far as it was looked at, and not TCP or UDP over IPv4.
    Other,
}

/// Checks a frame from its Ethernet header to its ports.
///
/// `trust_l3`: the port has verified the IPv4 header checksum already.
///
/// # Errors
/// The reason to drop it.
#[inline]
pub fn parse(frame: &[u8], trust_l3: bool) -> Result<Parsed, DropReason> {
    let ethertype = eth::ethertype(frame)?;
    if ethertype != eth::IPV4 {
        return Ok(Parsed::Other);
    }
    let ip = ipv4::check(frame, trust_l3)?;
    if ip.fragment {
        return Ok(Parsed::Fragment {
            src: ip.src,
            dst: ip.dst,
        });
    }
    let end = eth::HEADER_LEN + usize::from(ip.total_len);
    let (proto, tcp_flags) = match ip.protocol {
        ipv4::TCP => (Proto::Tcp, tcp::check(frame, usize::from(ip.l4), end)?),
        ipv4::UDP => {
            udp::check(frame, usize::from(ip.l4), end)?;
            (Proto::Udp, 0)
        }
        _ => return Ok(Parsed::Other),
    };
    let l4 = usize::from(ip.l4);
    let ports = u32::from_be_bytes([frame[l4], frame[l4 + 1], frame[l4 + 2], frame[l4 + 3]]);
    let key = Key4 {
        addrs: u64::from(ip.src) << 32 | u64::from(ip.dst),
        ports,
        proto,
    };
    Ok(Parsed::Flow(Flow {
        key,
        l4: ip.l4,
        ip_len: ip.total_len,
        tcp_flags,
        ttl: ip.ttl,
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
