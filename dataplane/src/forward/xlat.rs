//! NAT64 and NAT46: one IP header for the other (RFC 7915), for FULL-NAT between families.
//!
//! ```text
//!  | eth | IPv6 40, extensions | TCP, UDP ..   becomes   | eth | IPv4 20 | TCP, UDP ..   and back
//! ```
//! The connection is kept among the IPv6 ones, its IPv4 side IPv4-mapped. A packet grows by 20
//! bytes towards IPv6.
#![forbid(unsafe_code)]

use super::{Part, rewrite};
use crate::conn::Conn;
use crate::conn::state::Direction;
use crate::counters::DropReason;
use crate::io::Frame;
use crate::packet::{Flow, Key, Key4, Key6, be16, checksum, eth, ipv4, ipv6, put16, put32, udp};
use crate::types::Proto;

/// Largest IPv4 packet that comes of an IPv6 packet of 1,280 bytes: up to it the packet may be
/// fragmented on its further way (RFC 7915 5.1).
const MAY_BE_FRAGMENTED: usize = 1260;

/// Bytes by which the packet in `frame` grows (IPv4 to IPv6) or shrinks.
pub(crate) fn grows<K: Key>(frame: &[u8], flow: &Flow<K>, part: Option<&Part>) -> i32 {
    let becomes_v6 = eth::ethertype(frame) != Ok(eth::IPV6);
    headers_end(becomes_v6, part) as i32 - i32::from(flow.l4)
}

/// Rewrites a packet of `conn` that goes in direction `dir`, whichever family it is of. `id`
/// identifies an IPv4 packet that may be fragmented.
///
/// # Errors
/// [`DropReason::TooBig`]: no room in the buffer, or longer than an IP packet can be.
pub(crate) fn rewrite<F: Frame>(
    frame: &mut F,
    flow: &Flow<Key6>,
    conn: &Conn<Key6>,
    dir: Direction,
    part: Option<&Part>,
    id: u16,
) -> Result<(), DropReason> {
    let (addrs, ports) = conn.leaves_as(dir);
    let l4 = match dir {
        Direction::Inbound => conn.l4_diff,
        Direction::Outbound => conn.l4_diff.reversed(),
    };
    let leaves = Key6::of(addrs, ports, flow.key.proto());
    match leaves.unmapped() {
        Some(leaves) => to_ipv4(frame, flow, leaves, part, id)?,
        None => to_ipv6(frame, flow, leaves, part)?,
    }
    if part.is_some_and(|part| part.offset > 0) {
        return Ok(()); // no ports in it
    }
    let headers = headers_end(be16(frame.bytes(), 12) == eth::IPV6, part);
    let moved = Flow {
        l4: headers as u16,
        ip_len: (frame.bytes().len() - eth::HEADER_LEN) as u16,
        ..*flow
    };
    let moved = part.map_or(moved, |part| part.whole_flow(&moved));
    no_empty_checksum(frame.bytes(), &moved, part)?;
    rewrite::ports(frame.bytes_mut(), &moved, ports, l4);
    fill_checksum(frame.bytes_mut(), &moved);
    Ok(())
}

/// Where the headers of a translated packet end, from the frame's start.
fn headers_end(v6: bool, part: Option<&Part>) -> usize {
    match (v6, part) {
        (false, _) => ipv4::END,
        (true, None) => ipv6::END,
        (true, Some(_)) => ipv6::END + ipv6::FRAGMENT_LEN,
    }
}

fn to_ipv4<F: Frame>(
    frame: &mut F,
    flow: &Flow<Key6>,
    leaves: Key4,
    part: Option<&Part>,
    id: u16,
) -> Result<(), DropReason> {
    let class = frame.bytes().get(eth::HEADER_LEN..ipv6::END);
    let class = be16(class.ok_or(DropReason::BadIp6Header)?, 0) >> 4;
    let payload = usize::from(flow.ip_len) + eth::HEADER_LEN - usize::from(flow.l4);
    let total = ipv4::MIN_LEN + payload;
    move_header(frame, flow, ipv4::END, eth::IPV4)?;
    let Some(headers) = frame.bytes_mut().first_chunk_mut::<{ ipv4::END }>() else {
        return Err(DropReason::TooBig);
    };
    headers[eth::HEADER_LEN] = 0x45;
    headers[eth::HEADER_LEN + 1] = class as u8;
    put16(headers, eth::HEADER_LEN + 2, total as u16);
    let (id, fragment) = match part {
        Some(part) => (part.id as u16, part.word4()),
        None if total <= MAY_BE_FRAGMENTED => (id, 0),
        None => (0, ipv4::DF),
    };
    put16(headers, eth::HEADER_LEN + 4, id);
    put16(headers, eth::HEADER_LEN + 6, fragment);
    headers[ipv4::TTL_AT] = flow.ttl.wrapping_sub(1);
    headers[ipv4::PROTO_AT] = flow.key.proto() as u8;
    headers[ipv4::SRC_AT..].copy_from_slice(&leaves.addrs.to_be_bytes());
    checksum::set_ipv4(headers);
    Ok(())
}

fn to_ipv6<F: Frame>(
    frame: &mut F,
    flow: &Flow<Key6>,
    leaves: Key6,
    part: Option<&Part>,
) -> Result<(), DropReason> {
    let tos = frame.bytes().get(eth::HEADER_LEN + 1).copied();
    let tos = tos.ok_or(DropReason::BadIpHeader)?;
    let payload = usize::from(flow.ip_len) + eth::HEADER_LEN - usize::from(flow.l4);
    move_header(frame, flow, headers_end(true, part), eth::IPV6)?;
    let (proto, payload) = match part {
        None => (flow.key.proto() as u8, payload),
        Some(part) => {
            let header = frame.bytes_mut().get_mut(ipv6::END..).unwrap_or_default();
            if let Some(header) = header.first_chunk_mut::<{ ipv6::FRAGMENT_LEN }>() {
                header[..2].copy_from_slice(&[flow.key.proto() as u8, 0]);
                put16(header, 2, part.word6());
                put32(header, 4, part.id);
            }
            (ipv6::extension::FRAGMENT, payload + ipv6::FRAGMENT_LEN)
        }
    };
    let Some(headers) = frame.bytes_mut().first_chunk_mut::<{ ipv6::END }>() else {
        return Err(DropReason::TooBig);
    };
    put32(headers, eth::HEADER_LEN, 6 << 28 | u32::from(tos) << 20);
    put16(headers, ipv6::PAYLOAD_LEN_AT, payload as u16);
    headers[ipv6::NEXT_AT] = proto;
    headers[ipv6::HOP_LIMIT_AT] = flow.ttl.wrapping_sub(1);
    for (word, place) in leaves
        .addrs
        .iter()
        .zip(headers[ipv6::SRC_AT..].chunks_exact_mut(8))
    {
        place.copy_from_slice(&word.to_be_bytes());
    }
    Ok(())
}

/// Makes room for headers that end at `end`, cuts padding off, and puts the Ethernet header's
/// type in front; MAC addresses are written on the way out.
fn move_header<F: Frame>(
    frame: &mut F,
    flow: &Flow<Key6>,
    end: usize,
    ethertype: u16,
) -> Result<(), DropReason> {
    let old = usize::from(flow.l4);
    if !frame.set_len(eth::HEADER_LEN + usize::from(flow.ip_len)) {
        return Err(DropReason::TooBig);
    }
    if old >= end {
        frame.pull_front(old - end);
    } else if !frame.push_front(end - old) {
        return Err(DropReason::TooBig);
    }
    put16(frame.bytes_mut(), 12, ethertype);
    Ok(())
}

/// UDP over IPv6 wants a checksum (RFC 8200 8.1). What IPv4 did without in fragments cannot be
/// worked out here (RFC 7915 4.5).
fn no_empty_checksum(
    frame: &[u8],
    flow: &Flow<Key6>,
    part: Option<&Part>,
) -> Result<(), DropReason> {
    match part.is_some() && lacks_checksum(frame, flow) {
        true => Err(DropReason::FragmentWithoutChecksum),
        false => Ok(()),
    }
}

/// Works out the checksum that IPv4 did without.
fn fill_checksum(frame: &mut [u8], flow: &Flow<Key6>) {
    if lacks_checksum(frame, flow) {
        let l4 = usize::from(flow.l4);
        let sum = checksum::l4(frame, Proto::Udp, l4, frame.len());
        put16(frame, l4 + udp::CHECKSUM_AT, sum);
    }
}

fn lacks_checksum(frame: &[u8], flow: &Flow<Key6>) -> bool {
    let at = usize::from(flow.l4) + udp::CHECKSUM_AT;
    flow.key.proto() == Proto::Udp && be16(frame, 12) == eth::IPV6 && be16(frame, at) == 0
}
