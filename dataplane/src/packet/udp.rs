//! UDP (RFC 768).
//!
//! ```text
//!  0      2      4        6
//!  | sport| dport| length | checksum (0: none)
//! ```
#![forbid(unsafe_code)]

use super::be16;
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
