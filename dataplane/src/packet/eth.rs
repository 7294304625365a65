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

/// The destination MAC; zeros when there is no whole one.
#[inline]
#[must_use]
pub fn dst(frame: &[u8]) -> Mac {
    Mac(frame.first_chunk().copied().unwrap_or_default())
}

/// The source MAC; zeros when there is no whole header.
#[inline]
#[must_use]
pub fn src(frame: &[u8]) -> Mac {
    frame.first_chunk::<12>().map_or(Mac::default(), |macs| {
        let [_, _, _, _, _, _, a, b, c, d, e, f] = *macs;
        Mac([a, b, c, d, e, f])
    })
}

/// Sets both addresses of a frame; of one without a whole header nothing.
#[inline]
pub fn set_macs(frame: &mut [u8], dst: Mac, src: Mac) {
    if let Some(macs) = frame.first_chunk_mut::<12>() {
        macs[..6].copy_from_slice(&dst.0);
        macs[6..].copy_from_slice(&src.0);
    }
}
