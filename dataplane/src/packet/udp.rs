//! UDP (RFC 768).
//!
//! ```text
//!  0      2      4        6
//!  | sport| dport| length | checksum (0: none)
//! ```
#![forbid(unsafe_code)]

use super::be16;
use super::checksum::Diff;
use crate::counters::DropReason;

/// Bytes of the header.
pub const LEN: usize = 8;
/// Offset of the checksum from the header's start.
pub const CHECKSUM_AT: usize = 6;

/// Checks the header that `datagram` begins with; gives it.
///
/// # Errors
/// [`DropReason::BadUdpHeader`].
#[inline(always)]
pub fn check(datagram: &[u8]) -> Result<&[u8; LEN], DropReason> {
    let udp = datagram
        .first_chunk::<LEN>()
        .ok_or(DropReason::BadUdpHeader)?;
    let length = usize::from(be16(udp, 4));
    if length < LEN || length > datagram.len() {
        return Err(DropReason::BadUdpHeader);
    }
    Ok(udp)
}

/// The checksum after a rewrite: 0 stays "none", and one that comes out as 0 is sent as 0xffff.
#[inline(always)]
pub(crate) fn checksum_after(diff: Diff, old: u16) -> u16 {
    match (old, diff.apply(old)) {
        (0, _) => 0,
        (_, 0) => 0xffff,
        (_, new) => new,
    }
}
