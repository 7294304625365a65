//! TCP (RFC 9293).
//!
//! ```text
//!  0      2      4     8     12          13      14       16         18
//!  | sport| dport| seq | ack | off rsvd  | flags | window | checksum | urgent | options
//! ```
#![forbid(unsafe_code)]

use std::ops::Range;

use arrayvec::ArrayVec;

use crate::counters::DropReason;

/// Bytes of a header without options.
pub const MIN_LEN: usize = 20;
/// Bytes of the longest header.
pub const MAX_LEN: usize = 60;
/// One byte of padding among the options.
pub const NOP: u8 = 1;
/// The options' end, before the header's.
const END: u8 = 0;
/// Offset of the sequence number from the header's start.
pub const SEQ_AT: usize = 4;
/// Offset of the acknowledgement number.
pub const ACK_AT: usize = 8;
/// Offset of the flags octet.
pub const FLAGS_AT: usize = 13;
/// Offset of the window.
pub const WINDOW_AT: usize = 14;
/// Offset of the checksum.
pub const CHECKSUM_AT: usize = 16;

/// Bits of the flags octet.
pub mod flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
}

/// Checks the header that `segment` begins with; gives its fixed part.
///
/// # Errors
/// [`DropReason::BadTcpHeader`].
#[inline(always)]
pub fn check(segment: &[u8]) -> Result<&[u8; MIN_LEN], DropReason> {
    let tcp = segment
        .first_chunk::<MIN_LEN>()
        .ok_or(DropReason::BadTcpHeader)?;
    let offset = usize::from(tcp[12] >> 4) * 4;
    if offset < MIN_LEN || offset > segment.len() {
        return Err(DropReason::BadTcpHeader);
    }
    Ok(tcp)
}

/// The options of a whole header that have a length, each from its kind on: two bytes at least.
/// They end at the first that makes no sense.
#[must_use]
pub fn options(header: &[u8]) -> ArrayVec<Range<usize>, { (MAX_LEN - MIN_LEN) / 2 }> {
    let mut found = ArrayVec::new();
    let mut at = MIN_LEN;
    while let Some(&[kind, ref rest @ ..]) = header.get(at..) {
        let len = match (kind, rest.first()) {
            (END, _) => break,
            (NOP, _) => {
                at += 1;
                continue;
            }
            (_, Some(&len)) if len >= 2 => usize::from(len),
            _ => break,
        };
        if at + len > header.len() || found.try_push(at..at + len).is_err() {
            break;
        }
        at += len;
    }
    found
}
