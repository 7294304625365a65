//! IPv4 (RFC 791).
//!
//! ```text
//!  0          1         2              4        6              8     9       10         12    16
//!  | ver ihl  | dscp    | total length | id     | flags offset | ttl | proto | checksum | src | dst | options
//! ```
#![forbid(unsafe_code)]

use super::{be16, be32, checksum, eth};
use crate::counters::DropReason;

/// Don't fragment, among the flags.
pub const DF: u16 = 0x4000;
/// More fragments follow, among the flags.
pub const MF: u16 = 0x2000;
/// The fragment's offset beside the flags, in units of 8 bytes.
pub const OFFSET_MASK: u16 = 0x1fff;
/// Bytes of a header without options.
pub const MIN_LEN: usize = 20;
/// IP protocol numbers.
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// SCTP.
pub const SCTP: u8 = 132;
/// VRRP (RFC 5798).
pub const VRRP: u8 = 112;

/// Where a header without options ends, from the frame's start.
pub const END: usize = eth::HEADER_LEN + MIN_LEN;
/// Offsets from the frame's start of the fields that forwarding rewrites.
pub const TTL_AT: usize = eth::HEADER_LEN + 8;
/// Protocol.
pub const PROTO_AT: usize = eth::HEADER_LEN + 9;
/// Header checksum.
pub const CHECKSUM_AT: usize = eth::HEADER_LEN + 10;
/// Source address.
pub const SRC_AT: usize = eth::HEADER_LEN + 12;
/// Destination address.
pub const DST_AT: usize = eth::HEADER_LEN + 16;

/// What a checked header says.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    /// Source address in the high half, destination address in the low half.
    pub addrs: u64,
    /// Offset of the payload from the frame's start.
    pub l4: u16,
    /// Total length, bytes: header and payload, without Ethernet padding.
    pub total_len: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Time to live.
    pub ttl: u8,
    /// More fragments follow or came before.
    pub fragment: bool,
}

/// Checks the header of an IPv4 frame; `headers` are its first bytes.
///
/// # Errors
/// [`DropReason::BadIpHeader`] or [`DropReason::BadIpChecksum`].
#[inline(always)]
pub fn check(
    headers: &[u8; END],
    frame: &[u8],
    trust_checksum: bool,
) -> Result<Header, DropReason> {
    const AT: usize = eth::HEADER_LEN;
    let header_len = usize::from(headers[AT] & 0x0f) * 4;
    let total_len = be16(headers, AT + 2);
    // RFC 1812 5.2.2: version, header length, total length against what the link delivered.
    if headers[AT] >> 4 != 4
        || header_len < MIN_LEN
        || usize::from(total_len) < header_len
        || AT + usize::from(total_len) > frame.len()
    {
        return Err(DropReason::BadIpHeader);
    }
    if !trust_checksum && checksum::sum(&frame[AT..AT + header_len]) != 0xffff {
        return Err(DropReason::BadIpChecksum);
    }
    Ok(Header {
        addrs: u64::from(be32(headers, SRC_AT)) << 32 | u64::from(be32(headers, DST_AT)),
        l4: (AT + header_len) as u16,
        total_len,
        protocol: headers[PROTO_AT],
        ttl: headers[TTL_AT],
        // The more-fragments bit or an offset; not don't-fragment.
        fragment: be16(headers, AT + 6) & 0x3fff != 0,
    })
}

/// Whether no packet may come from `addr` (RFC 1122 3.2.1.3): 0/8, 127/8, and everything from
/// 224.0.0.0 up (multicast, reserved, broadcast).
#[must_use]
pub fn bad_source(addr: u32) -> bool {
    matches!(addr >> 24, 0 | 127 | 224..)
}
