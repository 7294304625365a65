//! What answers SCTP without an association.
#![forbid(unsafe_code)]

use crate::io::Frame;
use crate::packet::sctp::{self, CHUNK_LEN, chunk};
use crate::packet::tcp::flags::RST;
use crate::packet::{Flow, Key, be16, be32, eth, put16, put32};
use crate::types::Mac;

/// Cause of an ERROR that wants no answer (RFC 9260 3.3.10.3).
const STALE_COOKIE: u16 = 3;

/// Turns an SCTP packet into the one that answers it where there is no association (RFC 9260
/// 8.4), back to its source MAC: a spoofed flood resolves nothing. False: it wants no answer, or
/// the buffer has no room.
pub(super) fn make_abort<F: Frame, K: Key>(frame: &mut F, flow: &Flow<K>, mac: Mac) -> bool {
    let bytes = frame.bytes();
    let from = usize::from(flow.l4);
    let first = from + sctp::LEN; // a whole chunk header is there: the door has seen to it
    let end = eth::HEADER_LEN + usize::from(flow.ip_len);
    let value = bytes.get(first + CHUNK_LEN..end).unwrap_or_default();
    let tag = be32(bytes, from + sctp::TAG_AT);
    // The tag that the receiver knows, T bit set; of an INIT the one that it has just chosen.
    let (kind, flags, tag) = match bytes[first] {
        _ if flow.says & RST != 0 => return false, // 8.4 (2)
        chunk::INIT => match value.first_chunk::<4>() {
            Some(chosen) => (chunk::ABORT, 0, u32::from_be_bytes(*chosen)), // 8.4 (3)
            None => return false,
        },
        chunk::SHUTDOWN_ACK => (chunk::SHUTDOWN_COMPLETE, chunk::FLAG_T, tag), // 8.4 (5)
        chunk::SHUTDOWN_COMPLETE | chunk::COOKIE_ACK => return false,          // 8.4 (6), (7)
        chunk::ERROR if value.len() >= 2 && be16(value, 0) == STALE_COOKIE => return false,
        _ => (chunk::ABORT, chunk::FLAG_T, tag), // 8.4 (8)
    };
    let (peer, back, l4) = (eth::src(bytes), flow.key.reversed(), K::HEADERS);
    let len = sctp::LEN + CHUNK_LEN;
    if !frame.set_len(l4 + len) {
        return false;
    }
    let f = frame.bytes_mut();
    eth::set_macs(f, peer, mac);
    f[eth::HEADER_LEN..].fill(0);
    back.write_header(f, len as u16);
    put32(f, l4, back.ports());
    put32(f, l4 + sctp::TAG_AT, tag);
    f[l4 + sctp::LEN] = kind;
    f[l4 + sctp::LEN + 1] = flags;
    put16(f, l4 + sctp::LEN + 2, CHUNK_LEN as u16);
    sctp::set_checksum(&mut f[l4..]);
    true
}
