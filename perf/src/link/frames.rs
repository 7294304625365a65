//! The frames of an established load, what comes back of them, and the gateway's answers.
#![forbid(unsafe_code)]

use std::ops::Range;

use weir_dataplane::packet::build::Packet;
use weir_dataplane::packet::checksum::Diff;
use weir_dataplane::packet::tcp::flags::ACK;
use weir_dataplane::packet::{be16, be32, eth, ipv4, put16, put32};

use crate::testbed::{MACS, PEER, VIP, client};

/// The smallest frame, without FCS.
pub(crate) const SMALLEST: usize = 60;
const L4: usize = ipv4::END;
const TCP_CHECKSUM_AT: usize = L4 + 16;
/// Six bytes of payload carry the time of sending.
const STAMP_AT: usize = L4 + 20;
/// IP in IP.
pub(super) const IPIP: u8 = 4;
const STAMP_MASK: u64 = (1 << 48) - 1;

/// A client's data packet, made by differences from a template: a few nanoseconds each.
#[derive(Debug)]
pub(crate) struct Data {
    /// Headers and stamp; the rest of the frame is never looked at.
    template: [u8; SMALLEST],
    len: usize,
    source: (u32, u16),
}

impl Data {
    /// Frames of `len` bytes without FCS (60 to 1,514).
    pub(crate) fn new(len: usize) -> Data {
        let from = client(0);
        let frame = Packet::tcp(from, VIP, ACK)
            .macs(PEER, MACS[0])
            .payload(&vec![0; len - STAMP_AT])
            .build();
        Data {
            template: std::array::from_fn(|i| frame[i]),
            len,
            source: (u32::from(*from.ip()), from.port()),
        }
    }

    /// Bytes a frame.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Makes `frame`, [`Data::len`] bytes, a packet of client `n`; `stamp` travels in its
    /// payload. All checksums are right where the rest of the frame is zeroes.
    #[inline]
    pub(crate) fn write(&self, frame: &mut [u8], n: u64, stamp: u64) {
        // A fixed length: moves instead of a call, and no check of bounds below.
        let Some(frame) = frame.first_chunk_mut::<SMALLEST>() else {
            return;
        };
        *frame = self.template;
        let from = client(n);
        let (address, port) = (u32::from(*from.ip()), from.port());
        let stamp = stamp & STAMP_MASK;
        let (high, low) = ((stamp >> 16) as u32, stamp as u16);
        put32(frame, ipv4::SRC_AT, address);
        put16(frame, L4, port);
        put32(frame, STAMP_AT, high);
        put16(frame, STAMP_AT + 4, low);
        let addresses = Diff::of(&[(self.source.0, address)]);
        let rest = Diff::of(&[
            (u32::from(self.source.1), u32::from(port)),
            (0, high),
            (0, u32::from(low)),
        ]);
        let sum = be16(&self.template, ipv4::CHECKSUM_AT);
        put16(frame, ipv4::CHECKSUM_AT, addresses.apply(sum));
        let sum = be16(&self.template, TCP_CHECKSUM_AT);
        put16(frame, TCP_CHECKSUM_AT, rest.apply(addresses.apply(sum)));
    }
}

/// The time of sending that a frame carries, and how far `now` is from it.
#[inline]
pub(crate) fn age(frame: &[u8], now: u64) -> u64 {
    let at = match frame[ipv4::PROTO_AT] {
        IPIP => STAMP_AT + ipv4::MIN_LEN,
        _ => STAMP_AT,
    };
    let stamp = u64::from(be32(frame, at)) << 16 | u64::from(be16(frame, at + 4));
    now.wrapping_sub(stamp) & STAMP_MASK
}

/// Whether it is one of the load's: TCP over IPv4, perhaps in a tunnel, and long enough to be.
#[inline]
pub(crate) fn counts(frame: &[u8]) -> bool {
    frame.len() >= SMALLEST
        && be16(frame, 12) == eth::IPV4
        && match frame[ipv4::PROTO_AT] {
            ipv4::TCP => true,
            IPIP => frame.len() >= SMALLEST + ipv4::MIN_LEN,
            _ => false,
        }
}

/// Turns an ARP request round: the gateway answers for every IPv4 address that is asked for (RFC 826).
/// False, and nothing changed, when it is none.
pub(crate) fn answer_arp(frame: &mut [u8]) -> bool {
    const REQUEST: u16 = 1;
    const REPLY: u16 = 2;
    const ASKER: Range<usize> = 22..32;
    const SENDER: Range<usize> = 22..28;
    const TARGET_ADDRESS: usize = 38;
    if frame.len() < 42 || be16(frame, 12) != eth::ARP || be16(frame, 20) != REQUEST {
        return false;
    }
    let asked = be32(frame, TARGET_ADDRESS);
    let asker = eth::src(frame);
    eth::set_macs(frame, asker, PEER);
    put16(frame, 20, REPLY);
    frame.copy_within(ASKER, ASKER.end);
    frame[SENDER].copy_from_slice(&PEER.0);
    put32(frame, SENDER.end, asked);
    true
}

#[cfg(test)]
mod tests;
