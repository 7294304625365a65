//! Clients and servers as Linux is: their segments with its options, and what they answer.

use weir_dataplane::Proto;
use weir_dataplane::packet::build::Packet;
use weir_dataplane::packet::tcp::flags::{ACK, SYN};
use weir_dataplane::packet::tcp::{ACK_AT, MIN_LEN, SEQ_AT};
use weir_dataplane::packet::{Flow, Key, Parsed, be32, checksum, eth, ipv4, parse, put16};

use crate::testbed::{MACS, PEER, Side, VIP, client};

/// Of a first segment: MSS 1460, SACK permitted, timestamps, window scale 7.
const OPENING: [u8; 20] = [
    2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 0x10, 0, 0, 0, 0, 0, 1, 3, 3, 7,
];
/// Of all others: timestamps.
const LATER: [u8; 12] = [1, 1, 8, 10, 0, 0, 0x10, 1, 0, 0, 0, 0];
const TIMESTAMPS: u8 = 8;
const NOP: u8 = 1;

/// A client's first segment.
pub(super) fn syn(n: u64) -> Vec<u8> {
    let mut packet = Packet::tcp(client(n), VIP, SYN);
    packet.seq = (n as u32).wrapping_mul(0x9e37_79b9);
    with(packet, Side::Client, &OPENING, 0)
}

/// An acknowledgement of something that this client was never sent.
pub(super) fn ack(n: u64) -> Vec<u8> {
    let mut packet = Packet::tcp(client(n), VIP, ACK);
    packet.seq = (n as u32).wrapping_mul(0x9e37_79b9);
    packet.ack = packet.seq.rotate_left(16);
    with(packet, Side::Client, &LATER, 0)
}

/// What the end on side `to` answers: to a SYN SYN-ACK, to that an ACK, to that nothing.
pub(super) fn reply(to: Side, frame: &[u8]) -> Option<(Side, Vec<u8>)> {
    let Ok(Parsed::Flow(flow)) = parse(frame, true) else {
        return None;
    };
    let (flags, options): (u8, &[u8]) = match flow.says & (SYN | ACK) {
        SYN => (SYN | ACK, &OPENING),
        ACK => return None,
        _ => (ACK, &LATER),
    };
    let back = flow.key.reversed();
    let l4 = usize::from(flow.l4);
    let mut packet = Packet::tcp(back.source4(), back.destination4(), flags);
    packet.seq = match flags {
        ACK => be32(frame, l4 + ACK_AT),
        _ => 0x5e4e_0001,
    };
    packet.ack = be32(frame, l4 + SEQ_AT).wrapping_add(1);
    Some((to, with(packet, to, options, clock(frame, &flow))))
}

/// The clock that a segment tells, 0 when it tells none.
fn clock(frame: &[u8], flow: &Flow) -> u32 {
    let l4 = usize::from(flow.l4);
    let end = l4 + usize::from(frame[l4 + 12] >> 4) * 4;
    let mut at = l4 + MIN_LEN;
    while at + 1 < end {
        match frame[at] {
            TIMESTAMPS => return be32(frame, at + 2),
            NOP => at += 1,
            _ => at += usize::from(frame[at + 1]).max(1),
        }
    }
    0
}

/// The frame of `packet` as the end on `side` sends it, with these options, of which the timestamps
/// echo `echo`.
fn with(packet: Packet, side: Side, options: &[u8], echo: u32) -> Vec<u8> {
    const L4: usize = ipv4::END;
    let mut frame = packet.macs(PEER, MACS[side as usize]).build();
    frame.extend_from_slice(options);
    if let Some(at) = options.iter().position(|kind| *kind == TIMESTAMPS) {
        let at = L4 + MIN_LEN + at + 6;
        frame[at..at + 4].copy_from_slice(&echo.to_be_bytes());
    }
    let end = frame.len();
    put16(
        &mut frame,
        eth::HEADER_LEN + 2,
        (end - eth::HEADER_LEN) as u16,
    );
    frame[L4 + 12] = ((MIN_LEN + options.len()) / 4) as u8 * 16;
    checksum::set_ipv4(&mut frame);
    let sum = checksum::l4(&frame, Proto::Tcp, L4, end);
    put16(&mut frame, L4 + 16, sum);
    frame
}

#[cfg(test)]
mod tests;
