//! The rewrite that all NAT-like modes share: addresses, ports, TTL and checksums in place.
#![forbid(unsafe_code)]

use crate::packet::checksum::{Diff, TTL_DOWN};
use crate::packet::{Flow, be16, ipv4, put16, tcp, udp};
use crate::types::Proto;

/// Gives the packet a new five-tuple. `addrs` and `ports` are packed as in
/// [`crate::packet::Key4`]; `l3` and `l4` are the checksum differences of exactly this rewrite.
///
/// TTL falls by one, as at every router (RFC 1812 5.3.1); the caller has seen to it that it is
/// above one. `flow` was read from this frame, so every header is there.
#[inline]
pub(super) fn tuple(frame: &mut [u8], flow: &Flow, addrs: u64, ports: u32, l3: Diff, l4: Diff) {
    let Some(headers) = frame.first_chunk_mut::<{ ipv4::END }>() else {
        return;
    };
    headers[ipv4::TTL_AT] = flow.ttl.wrapping_sub(1);
    let sum = be16(headers, ipv4::CHECKSUM_AT);
    put16(headers, ipv4::CHECKSUM_AT, l3.apply_with(TTL_DOWN, sum));
    headers[ipv4::SRC_AT..].copy_from_slice(&addrs.to_be_bytes());
    let segment = frame.get_mut(usize::from(flow.l4)..).unwrap_or_default();
    match flow.key.proto {
        Proto::Tcp => {
            let Some(tcp) = segment.first_chunk_mut::<{ tcp::MIN_LEN }>() else {
                return;
            };
            tcp[..4].copy_from_slice(&ports.to_be_bytes());
            let sum = be16(tcp, tcp::CHECKSUM_AT);
            put16(tcp, tcp::CHECKSUM_AT, l4.apply(sum));
        }
        Proto::Udp => {
            let Some(udp) = segment.first_chunk_mut::<{ udp::LEN }>() else {
                return;
            };
            udp[..4].copy_from_slice(&ports.to_be_bytes());
            // RFC 768: 0 means no checksum, and one that comes out as 0 is sent as 0xffff.
            let old = be16(udp, udp::CHECKSUM_AT);
            if old != 0 {
                let new = l4.apply(old);
                put16(udp, udp::CHECKSUM_AT, if new == 0 { 0xffff } else { new });
            }
        }
    }
}
