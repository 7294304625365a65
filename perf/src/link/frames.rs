//! The frames of the load: clients' packets, servers' answers, and what comes back.
#![forbid(unsafe_code)]

use weir_dataplane::packet::build::Packet;
use weir_dataplane::packet::checksum::Diff;
use weir_dataplane::packet::tcp::flags::{ACK, SYN};
use weir_dataplane::packet::{Key, Parsed, be16, be32, eth, ipv4, parse, put16, put32};

use crate::testbed::{MACS, PEER, VIP, client};

/// The smallest frame, without FCS.
pub(crate) const SMALLEST: usize = 60;
const L4: usize = ipv4::END;
const SEQ_AT: usize = L4 + 4;
const TCP_CHECKSUM_AT: usize = L4 + 16;
/// Six bytes of payload carry the time of sending.
const STAMP_AT: usize = L4 + 20;
/// IP in IP.
const IPIP: u8 = 4;
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
        put16(frame, TCP_CHECKSUM_AT, addresses.apply_with(rest, sum));
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

/// Client `n`'s first packet. Its sequence number says which client it is: the other side of
/// a FULL-NAT balancer shows another address.
pub(crate) fn syn(n: u64) -> Vec<u8> {
    client_says(n, SYN, 0)
}

fn client_says(n: u64, flags: u8, ack: u32) -> Vec<u8> {
    let mut packet = Packet::tcp(client(n), VIP, flags).macs(PEER, MACS[0]);
    (packet.seq, packet.ack) = (n as u32, ack);
    padded(packet)
}

fn padded(packet: Packet) -> Vec<u8> {
    packet.payload(&[0; SMALLEST - STAMP_AT]).build()
}

/// What the world behind the link does with a frame of a handshake.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reaction {
    /// Nothing.
    None,
    /// Answers.
    Answer(Vec<u8>),
    /// A server got the ACK of this client: the connection stands.
    Open(u64),
}

/// Plays clients, servers and gateway: a server answers SYN with SYN-ACK, a client SYN-ACK with
/// ACK, the gateway every ARP request with its own address. `one_way`: a server's SYN-ACK goes
/// past the device, so that its client's ACK is the next that this sees.
pub(crate) fn react(frame: &[u8], one_way: bool) -> Reaction {
    if counts(frame) && frame[ipv4::PROTO_AT] == IPIP {
        let inner = [&frame[..eth::HEADER_LEN], &frame[ipv4::END..]].concat();
        return react(&inner, one_way);
    }
    if frame.len() >= 42 && be16(frame, 12) == eth::ARP {
        return arp(frame);
    }
    let Ok(Parsed::Flow(flow)) = parse(frame, true) else {
        return Reaction::None;
    };
    let (seq, ack) = (be32(frame, SEQ_AT), be32(frame, SEQ_AT + 4));
    match flow.says & (SYN | ACK) {
        SYN if one_way => Reaction::Answer(client_says(u64::from(seq), ACK, 2)),
        SYN => {
            let back = flow.key.reversed();
            let mut packet =
                Packet::tcp(back.source4(), back.destination4(), SYN | ACK).macs(PEER, MACS[0]);
            (packet.seq, packet.ack) = (1, seq.wrapping_add(1));
            Reaction::Answer(padded(packet))
        }
        ACK => Reaction::Open(u64::from(seq)),
        both if both == SYN | ACK => {
            let n = u64::from(ack.wrapping_sub(1));
            Reaction::Answer(client_says(n, ACK, seq.wrapping_add(1)))
        }
        _ => Reaction::None,
    }
}

/// RFC 826: an answer for every IPv4 address that is asked for.
fn arp(frame: &[u8]) -> Reaction {
    const REQUEST: u16 = 1;
    if be16(frame, 20) != REQUEST {
        return Reaction::None;
    }
    let mut answer = frame[..42].to_vec();
    answer.resize(SMALLEST, 0);
    eth::set_macs(
        &mut answer,
        weir_dataplane::Mac(std::array::from_fn(|i| frame[6 + i])),
        PEER,
    );
    put16(&mut answer, 20, 2); // reply
    let (asker, asked) = (frame[22..32].to_vec(), frame[38..42].to_vec());
    answer[22..28].copy_from_slice(&PEER.0);
    answer[28..32].copy_from_slice(&asked);
    answer[32..42].copy_from_slice(&asker);
    Reaction::Answer(answer)
}

#[cfg(test)]
mod tests;
