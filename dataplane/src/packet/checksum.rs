//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! A [`Diff`] is what a rewrite adds to the one's complement sum; it is computed once per
//! connection and applied to every packet. The way back is its complement.
#![forbid(unsafe_code)]

use super::{be16, be32, eth, icmp, ipv4, ipv6, put16, sctp, tcp, udp};
use crate::types::Proto;

/// Folds a sum of 16-bit words into 16 bits, carries added back in.
#[inline]
#[must_use]
pub fn fold(sum: u32) -> u16 {
    let s = (sum & 0xffff) + (sum >> 16);
    ((s & 0xffff) + (s >> 16)) as u16
}

/// The one's complement sum of `bytes` as big-endian words, an odd last byte padded with zero.
/// A header whose checksum is right sums to 0xffff.
#[must_use]
pub fn sum(bytes: &[u8]) -> u16 {
    // Four bytes at a time into 64 bits: 2^32 additions before the carry could be lost.
    let mut wide = 0u64;
    let mut chunks = bytes.chunks_exact(4);
    for c in &mut chunks {
        wide += u64::from(u32::from_be_bytes([c[0], c[1], c[2], c[3]]));
    }
    let mut last = [0u8; 4];
    last[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    wide += u64::from(u32::from_be_bytes(last));
    let wide = (wide & 0xffff_ffff) + (wide >> 32);
    let wide = (wide & 0xffff_ffff) + (wide >> 32);
    fold((wide as u32 & 0xffff) + (wide as u32 >> 16))
}

/// As [`sum`], of an IPv4 header without options and in the machine's order of bytes, which does
/// not matter to the sum (RFC 1071 2 B): so none is turned round.
#[inline(always)]
#[must_use]
pub fn of_header(header: &[u8; 20]) -> u16 {
    let word = |at: usize| {
        let word = [header[at], header[at + 1], header[at + 2], header[at + 3]];
        u64::from(u32::from_ne_bytes(word))
    };
    let sum = word(0) + word(4) + word(8) + word(12) + word(16);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    fold((sum & 0xffff) as u32 + (sum >> 16) as u32)
}

/// What a rewrite adds to a one's complement sum: `sum(!old words) + sum(new words)`. Kept in the
/// order of bytes that packets have, so that applying it turns nothing round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Diff(u16);

impl Diff {
    /// The difference that adds `sum`: of words that were not there before, their [`sum`]; of such
    /// that are gone, its complement.
    #[inline]
    #[must_use]
    pub const fn adding(sum: u16) -> Diff {
        Diff(sum.to_be())
    }

    /// The difference of replacing each `(old, new)` pair of 32-bit words, fewer than 2^31 of them.
    #[inline]
    #[must_use]
    pub fn of(words: &[(u32, u32)]) -> Diff {
        let parts = words
            .iter()
            .map(|&(old, new)| u64::from(!old) + u64::from(new));
        let sum: u64 = parts.sum();
        let sum = (sum & 0xffff_ffff) + (sum >> 32); // at most 33 bits, and so on as in `fold`
        Diff::adding(fold((sum & 0xffff) as u32 + (sum >> 16) as u32))
    }

    /// The difference of this rewrite and another one.
    #[must_use]
    pub fn plus(self, other: Diff) -> Diff {
        Diff(fold(u32::from(self.0) + u32::from(other.0)))
    }

    /// The difference of undoing this one.
    #[inline]
    #[must_use]
    pub fn reversed(self) -> Diff {
        Diff(!self.0)
    }

    /// The checksum after the rewrite. RFC 1624 eqn. 3 has HC' = ~(~HC + ~m + m'): the difference
    /// taken away in one's complement, where a borrow is taken once more.
    #[inline]
    #[must_use]
    pub fn apply(self, checksum: u16) -> u16 {
        let (less, borrow) = checksum.to_be().overflowing_sub(self.0);
        u16::from_be(less.wrapping_sub(u16::from(borrow)))
    }
}

/// What lowering the TTL by one adds to the header's sum: the word (ttl, protocol) falls by
/// 0x0100.
pub const TTL_DOWN: Diff = Diff::adding(!0x0100);

/// Offset of the L4 checksum from the L4 header's start; SCTP's has four bytes.
#[inline]
#[must_use]
pub fn l4_at(proto: Proto) -> usize {
    match proto {
        Proto::Tcp => tcp::CHECKSUM_AT,
        Proto::Udp => udp::CHECKSUM_AT,
        Proto::Sctp => sctp::CHECKSUM_AT,
        Proto::Icmp => icmp::CHECKSUM_AT,
    }
}

/// The folded sum of the pseudo-header, IPv4's (RFC 9293 3.1) or IPv6's (RFC 8200 8.1), for an
/// L4 length of `len`.
pub(super) fn pseudo(frame: &[u8], proto: Proto, len: u16) -> u16 {
    if let Some(headers) = frame.first_chunk::<{ ipv6::END }>()
        && be16(headers, 12) == eth::IPV6
    {
        let addrs = headers.last_chunk::<32>();
        return ipv6::pseudo(addrs.unwrap_or(&[0; 32]), proto as u8, u32::from(len));
    }
    let (src, dst) = (be32(frame, ipv4::SRC_AT), be32(frame, ipv4::DST_AT));
    fold(
        (src >> 16)
            + (src & 0xffff)
            + (dst >> 16)
            + (dst & 0xffff)
            + u32::from(proto as u8)
            + u32::from(len),
    )
}

/// The TCP or UDP checksum that the packet should carry ([`sctp::checksum`] is SCTP's); never 0 for UDP, where 0 means none
/// (RFC 768). `l4` and `end` are the L4 header's and the packet's offsets.
#[must_use]
pub fn l4(frame: &[u8], proto: Proto, l4: usize, end: usize) -> u16 {
    let at = l4 + l4_at(proto);
    let payload = u32::from(sum(&frame[l4..end]));
    // The old checksum is part of that sum: take it out again.
    let without = payload + u32::from(!be16(frame, at));
    let sum = u32::from(fold(without)) + u32::from(pseudo(frame, proto, (end - l4) as u16));
    match (!fold(sum), proto) {
        (0, Proto::Udp) => 0xffff,
        (sum, _) => sum,
    }
}

/// Completes a partial L4 checksum: one that holds the pseudo-header's sum only, as packets
/// from a local virtual link carry it. Returns whether it was one. A complete checksum that
/// looks like a partial one (1 in 65,536) is computed again, to the same value. SCTP has no
/// pseudo-header, and a partial checksum of its is 0.
#[inline]
pub fn complete_partial(frame: &mut [u8], proto: Proto, l4_at_frame: usize, end: usize) -> bool {
    if proto == Proto::Sctp {
        return sctp::complete_partial(frame.get_mut(l4_at_frame..end).unwrap_or_default());
    }
    let at = l4_at_frame + l4_at(proto);
    if be16(frame, at) != pseudo(frame, proto, (end - l4_at_frame) as u16) {
        return false;
    }
    let right = l4(frame, proto, l4_at_frame, end);
    put16(frame, at, right);
    true
}

/// Sets the IPv4 header checksum from scratch.
pub fn set_ipv4(frame: &mut [u8]) {
    put16(frame, ipv4::CHECKSUM_AT, 0);
    let len = usize::from(frame[eth::HEADER_LEN] & 0x0f) * 4;
    let sum = sum(&frame[eth::HEADER_LEN..eth::HEADER_LEN + len]);
    put16(frame, ipv4::CHECKSUM_AT, !sum);
}
