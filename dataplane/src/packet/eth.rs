//! Ethernet II.
//!
//! ```text
//!  0      6      12     14
//!  | dst  | src  | type | payload
//! ```
#![forbid(unsafe_code)]

use crate::counters::DropReason;
use crate::types::Mac;

/// Bytes of the header; where the IPv4 header starts.
pub const HEADER_LEN: usize = 14;
/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;

/// The frame's EtherType.
///
/// # Errors
/// [`DropReason::RuntFrame`] when there is no whole header.
#[inline]
pub fn ethertype(frame: &[u8]) -> Result<u16, DropReason> {
    match frame.get(12..HEADER_LEN) {
        Some(t) => Ok(u16::from_be_bytes([t[0], t[1]])),
        None => Err(DropReason::RuntFrame),
    }
}

/// The destination MAC of a frame that has a whole header.
#[inline]
#[must_use]
pub fn dst(frame: &[u8]) -> Mac {
    Mac([frame[0], frame[1], frame[2], frame[3], frame[4], frame[5]])
}

/// The source MAC of a frame that has a whole header.
#[inline]
#[must_use]
pub fn src(frame: &[u8]) -> Mac {
    Mac([frame[6], frame[7], frame[8], frame[9], frame[10], frame[11]])
}

/// Sets both addresses of a frame that has a whole header.
#[inline]
pub fn set_macs(frame: &mut [u8], dst: Mac, src: Mac) {
    frame[0..6].copy_from_slice(&dst.0);
    frame[6..12].copy_from_slice(&src.0);
}
