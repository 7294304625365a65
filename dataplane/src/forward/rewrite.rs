//! The rewrite that all modes share: addresses, ports, TTL and checksums in place, IPv4 and
//! IPv6 apart because every offset differs.
#![forbid(unsafe_code)]

use super::Part;
use crate::packet::checksum::{Diff, TTL_DOWN};
use crate::packet::{
    Flow, Key, Key4, Key6, be16, checksum, common, eth, icmp, ipv4, ipv6, put16, put32, sctp, tcp,
    udp,
};
use crate::types::Proto;

/// Gives an IPv4 packet a new five-tuple. `addrs` and `ports` are packed as in [`Key4`]; `l3`
/// and `l4` are the checksum differences of exactly this rewrite.
///
/// TTL falls by one, as at every router (RFC 1812 5.3.1); the caller has seen to it that it is
/// above one. `flow` was read from this frame, so every header is there.
#[inline(always)]
pub(super) fn tuple4(
    frame: &mut [u8],
    flow: &Flow<Key4>,
    addrs: u64,
    ports: u32,
    l3: Diff,
    l4: Diff,
) {
    if usize::from(flow.l4) == ipv4::END
        && flow.key.proto() as u8 <= Proto::Udp as u8 // or TCP
        && let Some(headers) = frame.first_chunk_mut()
    {
        return common::rewrite(headers, flow.key.proto(), (addrs, ports), (l3, l4));
    }
    uncommon4(frame, flow, addrs, ports, l3, l4);
}

#[inline(never)]
fn uncommon4(frame: &mut [u8], flow: &Flow<Key4>, addrs: u64, ports: u32, l3: Diff, l4: Diff) {
    let Some(headers) = frame.first_chunk_mut::<{ ipv4::END }>() else {
        return;
    };
    headers[ipv4::TTL_AT] = flow.ttl.wrapping_sub(1);
    let sum = be16(headers, ipv4::CHECKSUM_AT);
    put16(headers, ipv4::CHECKSUM_AT, TTL_DOWN.apply(l3.apply(sum)));
    headers[ipv4::SRC_AT..].copy_from_slice(&addrs.to_be_bytes());
    self::ports(frame, flow, ports, l4);
}

/// As [`tuple4`], of an IPv6 packet (RFC 8200 3: the hop limit falls by one). The flow label
/// stays the client's.
#[inline(always)]
pub(super) fn tuple6(frame: &mut [u8], flow: &Flow<Key6>, addrs: [u64; 4], ports: u32, l4: Diff) {
    addrs6(frame, flow.ttl, addrs);
    self::ports(frame, flow, ports, l4);
}

/// New addresses for an IPv4 packet, its header checksum worked out anew, and one hop less.
pub(super) fn addrs4(frame: &mut [u8], ttl: u8, addrs: u64) {
    if let Some(headers) = frame.first_chunk_mut::<{ ipv4::END }>() {
        headers[ipv4::TTL_AT] = ttl.wrapping_sub(1);
        headers[ipv4::SRC_AT..].copy_from_slice(&addrs.to_be_bytes());
        checksum::set_ipv4(frame);
    }
}

/// New addresses for an IPv6 packet, and one hop less.
#[inline]
pub(super) fn addrs6(frame: &mut [u8], hop_limit: u8, addrs: [u64; 4]) {
    let Some(headers) = frame.first_chunk_mut::<{ ipv6::END }>() else {
        return;
    };
    headers[ipv6::HOP_LIMIT_AT] = hop_limit.wrapping_sub(1);
    let places = headers[ipv6::SRC_AT..].chunks_exact_mut(8);
    for (word, place) in addrs.iter().zip(places) {
        place.copy_from_slice(&word.to_be_bytes());
    }
}

/// A new identification for an IPv4 packet.
pub(super) fn identify4(frame: &mut [u8], id: u16) {
    if frame.len() >= ipv4::END {
        put16(frame, eth::HEADER_LEN + 4, id);
        checksum::set_ipv4(frame);
    }
}

/// A new identification for an IPv6 fragment.
pub(super) fn identify6(frame: &mut [u8], part: &Part) {
    let at = usize::from(part.header_at) + 4;
    if at > ipv6::LEN && at + 4 <= frame.len() {
        put32(frame, at, part.id);
    }
}

/// New ports and the checksum that goes with them and with the addresses.
#[inline]
pub(super) fn ports<K: Key>(frame: &mut [u8], flow: &Flow<K>, ports: u32, l4: Diff) {
    let segment = frame.get_mut(usize::from(flow.l4)..).unwrap_or_default();
    match flow.key.proto() {
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
            let sum = be16(udp, udp::CHECKSUM_AT);
            put16(udp, udp::CHECKSUM_AT, udp::checksum_after(l4, sum));
        }
        Proto::Sctp => {
            // Its checksum knows where the packet ends, all of which need not be here.
            let len = (eth::HEADER_LEN + usize::from(flow.ip_len)).saturating_sub(flow.l4.into());
            if let Some(header) = segment.first_chunk_mut() {
                sctp::new_ports_of(header, len, ports);
            }
        }
        Proto::Icmp => echo::<K>(segment, ports, l4),
    }
}

/// A new identifier for an echo message: whichever port is not 0. ICMP's checksum knows no
/// addresses, ICMPv6's does.
#[cold]
fn echo<K: Key>(message: &mut [u8], ports: u32, l4: Diff) {
    let Some(head) = message.first_chunk_mut::<{ icmp::LEN }>() else {
        return;
    };
    let (old, new) = (be16(head, icmp::WORD_AT), (ports >> 16 | ports) as u16);
    let diff = match K::HEADERS == ipv4::END {
        true => Diff::of(&[(old.into(), new.into())]),
        false => l4,
    };
    put16(head, icmp::WORD_AT, new);
    let sum = be16(head, icmp::CHECKSUM_AT);
    put16(head, icmp::CHECKSUM_AT, diff.apply(sum));
}

/// One hop less, and nothing else.
#[inline]
pub(super) fn hop4(frame: &mut [u8], ttl: u8) {
    if let Some(headers) = frame.first_chunk_mut::<{ ipv4::END }>() {
        headers[ipv4::TTL_AT] = ttl.wrapping_sub(1);
        let sum = be16(headers, ipv4::CHECKSUM_AT);
        put16(headers, ipv4::CHECKSUM_AT, TTL_DOWN.apply(sum));
    }
}

/// One hop less, and nothing else.
#[inline]
pub(super) fn hop6(frame: &mut [u8], hop_limit: u8) {
    if let Some(headers) = frame.first_chunk_mut::<{ ipv6::END }>() {
        headers[ipv6::HOP_LIMIT_AT] = hop_limit.wrapping_sub(1);
    }
}
