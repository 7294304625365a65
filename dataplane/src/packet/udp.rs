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

/// Checks the header at `at` of a packet that ends at `end`.
///
/// # Errors
/// [`DropReason::BadUdpHeader`].
#[inline]
pub fn check(frame: &[u8], at: usize, end: usize) -> Result<(), DropReason> {
    const BAD: DropReason = DropReason::BadUdpHeader;
    let udp = frame
        .get(at..end)
        .filter(|udp| udp.len() >= LEN)
        .ok_or(BAD)?;
    let length = usize::from(be16(udp, 4));
    if length < LEN || length > udp.len() {
        Err(BAD)
    } else {
        Ok(())
    }
}
