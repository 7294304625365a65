//! Cutting a packet that is longer than the next link takes.
//!
//! An IPv4 packet without DF may be cut by any router (RFC 791 3.2). An IPv6 packet may be cut by
//! its source alone (RFC 8200 4.5), and the source of a tunnel's outer packet, like that of a
//! packet translated from IPv4, is the director.
#![forbid(unsafe_code)]

use super::ids::IpIds;
use super::{be16, be32, checksum, eth, ipv4, ipv6, put16, put32};
use crate::counters::DropReason;
use crate::io::{BURST, Burst, Frame};

/// Cuts the packet in `frame` into pieces of at most `mtu` bytes of IP, the first of them in
/// `frame` itself; one that fits comes back whole. An IPv6 packet gets its identification from
/// `ids`. MAC addresses are copied.
///
/// # Errors
/// [`DropReason::TooBig`]: the packet must not be cut (DF; IPv6 with extension headers), or would
/// need more than [`BURST`] pieces. [`DropReason::NoBuffer`]. The packet is dropped.
#[cold]
pub fn cut<F: Frame>(mut frame: F, mtu: u16, ids: &mut IpIds) -> Result<Burst<F>, DropReason> {
    let mtu = usize::from(mtu);
    let f = frame.bytes();
    let Some(headers) = f.first_chunk::<{ ipv4::END }>() else {
        return Err(DropReason::BadIpHeader);
    };
    let v6 = be16(headers, 12) == eth::IPV6;
    let len = match v6 {
        false => usize::from(be16(headers, eth::HEADER_LEN + 2)),
        true => ipv6::LEN + usize::from(be16(headers, ipv6::PAYLOAD_LEN_AT)),
    };
    if eth::HEADER_LEN + len > f.len() {
        return Err(DropReason::BadIpHeader);
    }
    if !frame.set_len(eth::HEADER_LEN + len) {
        return Err(DropReason::TooBig);
    }
    if len <= mtu {
        let mut whole = Burst::new();
        whole.push(frame);
        return Ok(whole);
    }
    match v6 {
        false => cut_v4(frame, mtu, len),
        true => cut_v6(frame, mtu, len, ids.next32()),
    }
}

/// Bytes of a piece but the last: a multiple of 8 that fits beside `headers`. There must be two
/// pieces at least and [`BURST`] at most.
fn step(mtu: usize, headers: usize, payload: usize) -> Result<usize, DropReason> {
    let step = mtu.saturating_sub(headers) & !7;
    match step != 0 && payload.div_ceil(step) <= BURST {
        true => Ok(step),
        false => Err(DropReason::TooBig),
    }
}

fn cut_v4<F: Frame>(mut frame: F, mtu: usize, len: usize) -> Result<Burst<F>, DropReason> {
    const AT: usize = eth::HEADER_LEN;
    let f = frame.bytes();
    let header_len = usize::from(f[AT] & 0x0f) * 4;
    let word = be16(f, AT + 6);
    if word & ipv4::DF != 0 {
        return Err(DropReason::TooBig);
    }
    let step = step(mtu, header_len, len.saturating_sub(header_len))?;
    let data = AT + header_len;
    let mut pieces = Burst::new();
    for at in (step..len - header_len).step_by(step) {
        let part = &f[data + at..AT + len.min(header_len + at + step)];
        let mut piece = frame
            .another(data + part.len())
            .ok_or(DropReason::NoBuffer)?;
        let p = piece.bytes_mut();
        p[..data].copy_from_slice(&f[..data]);
        p[data..].copy_from_slice(part);
        forget_options(&mut p[AT + ipv4::MIN_LEN..data]);
        // What is a part already keeps its place, and more follow its last piece as they did.
        let more = word & ipv4::MF != 0 || at + step < len - header_len;
        place_v4(p, word, at, more);
        pieces.push(piece);
    }
    let _ = frame.set_len(data + step); // shorter
    place_v4(frame.bytes_mut(), word, 0, true);
    pieces.insert(0, frame);
    Ok(pieces)
}

/// Writes where a piece belongs: `at` bytes behind the place that `word`, the packet's own flags
/// and offset, says.
fn place_v4(piece: &mut [u8], word: u16, at: usize, more: bool) {
    const AT: usize = eth::HEADER_LEN;
    let offset = (word & ipv4::OFFSET_MASK) + (at / 8) as u16;
    let flags = if more { ipv4::MF } else { 0 };
    put16(piece, AT + 2, (piece.len() - AT) as u16);
    put16(piece, AT + 6, flags | offset & ipv4::OFFSET_MASK);
    checksum::set_ipv4(piece);
}

/// Blanks the options that only the first piece has: those without the copied flag, RFC 791 3.1.
fn forget_options(options: &mut [u8]) {
    const NOP: u8 = 1;
    const COPIED: u8 = 0x80;
    let mut at = 0;
    // At most 40 bytes; each turn takes one at least.
    while at < options.len() {
        let len = match options[at..] {
            [0, ..] => return,
            [NOP, ..] => 1,
            [_, len, ..] if len >= 2 => usize::from(len),
            _ => return,
        };
        let end = options.len().min(at + len);
        if options[at] & COPIED == 0 {
            options[at..end].fill(NOP);
        }
        at = end;
    }
}

fn cut_v6<F: Frame>(mut frame: F, mtu: usize, len: usize, id: u32) -> Result<Burst<F>, DropReason> {
    const DATA: usize = ipv6::END + ipv6::FRAGMENT_LEN;
    let f = frame.bytes();
    // What is a part already keeps its place, and more follow its last piece as they did.
    let was_part = f[ipv6::NEXT_AT] == ipv6::extension::FRAGMENT && f.len() > DATA;
    let (start, place) = match was_part {
        false => (
            ipv6::END,
            Place {
                next: f[ipv6::NEXT_AT],
                word: 0,
                id,
            },
        ),
        true => {
            let (word, id) = (be16(f, ipv6::END + 2), be32(f, ipv6::END + 4));
            (
                DATA,
                Place {
                    next: f[ipv6::END],
                    word,
                    id,
                },
            )
        }
    };
    if ipv6::is_extension(place.next) {
        return Err(DropReason::TooBig);
    }
    let payload = eth::HEADER_LEN + len - start;
    let step = step(mtu, ipv6::LEN + ipv6::FRAGMENT_LEN, payload)?;
    let mut pieces = Burst::new();
    for at in (step..payload).step_by(step) {
        let part = &f[start + at..start + payload.min(at + step)];
        let mut piece = frame
            .another(DATA + part.len())
            .ok_or(DropReason::NoBuffer)?;
        let p = piece.bytes_mut();
        p[..ipv6::END].copy_from_slice(&f[..ipv6::END]);
        p[DATA..].copy_from_slice(part);
        place.write(p, at, at + step < payload);
        pieces.push(piece);
    }
    let _ = frame.set_len(start + step); // shorter
    if !was_part {
        if !frame.push_front(ipv6::FRAGMENT_LEN) {
            return Err(DropReason::TooBig);
        }
        frame.bytes_mut().copy_within(ipv6::FRAGMENT_LEN..DATA, 0);
    }
    place.write(frame.bytes_mut(), 0, true);
    pieces.insert(0, frame);
    Ok(pieces)
}

/// Where the pieces of an IPv6 packet belong.
struct Place {
    /// The protocol behind the fragment header.
    next: u8,
    /// The packet's own offset and flag; 0 of a whole one.
    word: u16,
    id: u32,
}

impl Place {
    /// Writes the fragment header behind the IPv6 header, of a piece `at` bytes behind the packet's
    /// own place, and what depends on it.
    fn write(&self, piece: &mut [u8], at: usize, more: bool) {
        let len = (piece.len() - ipv6::END) as u16;
        put16(piece, ipv6::PAYLOAD_LEN_AT, len);
        piece[ipv6::NEXT_AT] = ipv6::extension::FRAGMENT;
        put16(piece, ipv6::END, u16::from(self.next) << 8);
        let offset = (self.word & !7).wrapping_add(at as u16);
        put16(
            piece,
            ipv6::END + 2,
            offset | self.word & 1 | u16::from(more),
        );
        put32(piece, ipv6::END + 4, self.id);
    }
}

#[cfg(test)]
mod tests;
