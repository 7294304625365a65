//! The rewrite that all NAT-like modes share: addresses, ports, TTL and checksums in place.
#![forbid(unsafe_code)]

use crate::packet::checksum::{Diff, TTL_DOWN, l4_at};
use crate::packet::{Flow, be16, ipv4, put16};
use crate::types::Proto;

/// Gives the packet a new five-tuple. `addrs` and `ports` are packed as in
/// [`crate::packet::Key4`]; `l3` and `l4` are the checksum differences of exactly this rewrite.
///
/// TTL falls by one, as at every router (RFC 1812 5.3.1); the caller has seen to it that it is
/// above one.
#[inline]
pub(super) fn tuple(frame: &mut [u8], flow: &Flow, addrs: u64, ports: u32, l3: Diff, l4: Diff) {
    frame[ipv4::TTL_AT] = flow.ttl.wrapping_sub(1);
    let sum = be16(frame, ipv4::CHECKSUM_AT);
    put16(frame, ipv4::CHECKSUM_AT, l3.and(TTL_DOWN).apply(sum));
    frame[ipv4::SRC_AT..ipv4::SRC_AT + 8].copy_from_slice(&addrs.to_be_bytes());
    let at = usize::from(flow.l4);
    frame[at..at + 4].copy_from_slice(&ports.to_be_bytes());
    let at = at + l4_at(flow.key.proto);
    let old = be16(frame, at);
    let new = l4.apply(old);
    match flow.key.proto {
        Proto::Tcp => put16(frame, at, new),
        // RFC 768: 0 means no checksum, and a checksum that comes out as 0 is sent as 0xffff.
        Proto::Udp if old == 0 => {}
        Proto::Udp => put16(frame, at, if new == 0 { 0xffff } else { new }),
    }
}
