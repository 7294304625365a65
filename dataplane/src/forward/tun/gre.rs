//! Generic routing encapsulation (RFC 2784).
//!
//! ```text
//!  0          2               4          6
//!  | C, 0 ..  | protocol type | checksum | 0      the last two only when C is set
//! ```
#![forbid(unsafe_code)]

use crate::packet::{checksum, put16};

/// IP protocol number.
pub(super) const PROTOCOL: u8 = 47;
/// The checksum is present.
pub(super) const CHECKSUM_PRESENT: u16 = 0x8000;

/// Bytes of the header.
#[inline]
pub(super) fn len(checksum: bool) -> usize {
    if checksum { 8 } else { 4 }
}

/// Writes the header at the front of `payload`, which the packet follows; gives the protocol.
pub(super) fn write(payload: &mut [u8], ethertype: u16, with_checksum: bool) -> u8 {
    put16(payload, 0, if with_checksum { CHECKSUM_PRESENT } else { 0 });
    put16(payload, 2, ethertype);
    if with_checksum {
        payload[4..8].fill(0);
        let sum = !checksum::sum(payload);
        put16(payload, 4, sum);
    }
    PROTOCOL
}
