//! An error about a translated flow, for the side that knows it under other addresses.
//!
//! ```text
//!  server side     src  router -> LIP            quotes  LIP:lport -> RIP:rport
//!  client side     src  VIP    -> CIP            quotes  CIP:cport -> VIP:vport
//! ```
//! All that the client once sent is put back: addresses, ports and checksums of the quote
//! (RFC 5508 4), so that traceroute finds its probe in it.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};

use super::map::{self, LONGER, MIN_MTU_V6};
use super::{CHECKSUM_AT, Quote, WORD_AT, head, mtu, set_checksum, tos_ttl, v6};
use crate::counters::DropReason;
use crate::io::Frame;
use crate::packet::checksum::Diff;
use crate::packet::header::{Ends, IpHeader};
use crate::packet::ids::IpIds;
use crate::packet::{be16, be32, eth, ipv4, ipv6, put16, put32, sctp, tcp, udp};

/// What the addresses of an error become. `src` and `dst`, like the quoted two, are of one
/// family; if it is not the error's, the error is translated (RFC 7915).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Translation {
    /// The error's source.
    pub src: IpAddr,
    /// Its destination: who sent the quoted packet.
    pub dst: IpAddr,
    /// The quoted packet's source.
    pub quoted_src: SocketAddr,
    /// The quoted packet's destination.
    pub quoted_dst: SocketAddr,
    /// Bytes that the director adds to packets of the flow on that way (TCP options): the MTU
    /// that is told is so much less.
    pub overhead: u16,
}

/// Rewrites the error in `frame`, which [`super::look`] found and whose TTL is above one. The MAC
/// addresses are still to be written.
///
/// # Errors
/// [`DropReason::IcmpUntranslatable`]: no such error in the other family, a quote without ports,
/// or addresses of mixed families. [`DropReason::TooBig`]: no room in the buffer for longer headers.
pub fn translate<F: Frame>(
    frame: &mut F,
    quote: &Quote,
    new: &Translation,
    ids: &mut IpIds,
) -> Result<(), DropReason> {
    let ends = Ends::new(new.src, new.dst).ok_or(DropReason::IcmpUntranslatable)?;
    let quoted = Ends::new(new.quoted_src.ip(), new.quoted_dst.ip())
        .filter(|q| q.ethertype() == ends.ethertype() && quote.ports.is_some())
        .ok_or(DropReason::IcmpUntranslatable)?;
    // Ethernet padding is no part of the quote. A frame always shrinks.
    let _ = frame.set_len(usize::from(quote.end));
    let mtu = mtu(frame.bytes(), quote).map(|mtu| mtu.saturating_sub(new.overhead));
    quoted_segment(frame.bytes_mut(), quote, new);
    if quote.src.is_ipv6() == new.src.is_ipv6() {
        in_place(frame.bytes_mut(), quote, ends, quoted, mtu);
        return Ok(());
    }
    across(frame, quote, ends, quoted, mtu, ids)
}

/// The words that the checksum sees of an address.
fn words(addr: IpAddr) -> [u32; 4] {
    match addr {
        IpAddr::V4(a) => [u32::from(a), 0, 0, 0],
        IpAddr::V6(a) => {
            let a = u128::from(a);
            [96, 64, 32, 0].map(|shift| (a >> shift) as u32)
        }
    }
}

/// Gives the quoted transport header its ports and what checksum of it is quoted.
fn quoted_segment(frame: &mut [u8], quote: &Quote, new: &Translation) {
    let Some(old_ports) = quote.ports else {
        return;
    };
    let len = quote.segment_len(frame);
    let ports = u32::from(new.quoted_src.port()) << 16 | u32::from(new.quoted_dst.port());
    let segment = frame.get_mut(usize::from(quote.l4)..).unwrap_or_default();
    if segment.len() < 8 {
        return;
    }
    if quote.protocol == sctp::PROTOCOL {
        match segment.first_chunk_mut() {
            Some(header) => sctp::new_ports_of(header, len, ports),
            None => put32(segment, 0, ports),
        }
        return;
    }
    match quote.protocol {
        ipv4::ICMP | ipv6::ICMP => put16(segment, WORD_AT, (ports >> 16 | ports) as u16),
        _ => put32(segment, 0, ports),
    }
    let mut pairs = [(old_ports, ports); 9];
    let addrs = [
        (quote.src, new.quoted_src.ip()),
        (quote.dst, new.quoted_dst.ip()),
    ];
    for (places, (old, new)) in pairs[1..].chunks_exact_mut(4).zip(addrs) {
        for (i, pair) in places.iter_mut().enumerate() {
            *pair = (words(old)[i], words(new)[i]);
        }
    }
    let diff = match quote.protocol {
        ipv4::ICMP => Diff::of(&pairs[..1]), // knows no addresses
        _ => Diff::of(&pairs),
    };
    let at = match quote.protocol {
        ipv4::TCP => tcp::CHECKSUM_AT,
        ipv4::ICMP | ipv6::ICMP => CHECKSUM_AT,
        _ => udp::CHECKSUM_AT,
    };
    if segment.len() < at + 2 {
        return;
    }
    match (be16(segment, at), quote.protocol) {
        (0, ipv4::UDP) => {} // none
        (old, ipv4::UDP) => put16(
            segment,
            at,
            match diff.apply(old) {
                0 => 0xffff,
                sum => sum,
            },
        ),
        (old, _) => put16(segment, at, diff.apply(old)),
    }
}

/// Both families the same: addresses change where they stand, options and extension headers
/// stay.
fn in_place(frame: &mut [u8], quote: &Quote, ends: Ends, quoted: Ends, mtu: Option<u16>) {
    let ip = usize::from(quote.ip);
    match (ends, quoted) {
        (
            Ends::V4 { src, dst },
            Ends::V4 {
                src: qsrc,
                dst: qdst,
            },
        ) => {
            put_v4(frame, eth::HEADER_LEN, src.into(), dst.into(), 1);
            // TTL as it was quoted: it says where the packet got to.
            put_v4(frame, ip, qsrc.into(), qdst.into(), 0);
        }
        (
            Ends::V6 { src, dst },
            Ends::V6 {
                src: qsrc,
                dst: qdst,
            },
        ) => {
            frame[ipv6::HOP_LIMIT_AT] = frame[ipv6::HOP_LIMIT_AT].wrapping_sub(1);
            frame[ipv6::SRC_AT..ipv6::DST_AT].copy_from_slice(&src.octets());
            frame[ipv6::DST_AT..ipv6::END].copy_from_slice(&dst.octets());
            frame[ip + 8..ip + 24].copy_from_slice(&qsrc.octets());
            frame[ip + 24..ip + ipv6::LEN].copy_from_slice(&qdst.octets());
        }
        _ => {}
    }
    let icmp = usize::from(quote.icmp);
    if let Some(mtu) = mtu {
        match ends {
            // The upper half of IPv4's word is not the MTU's (RFC 1191 4, RFC 4884 4.1).
            Ends::V4 { .. } => put16(frame, icmp + WORD_AT + 2, mtu),
            Ends::V6 { .. } => put32(frame, icmp + WORD_AT, u32::from(mtu)),
        }
    }
    set_checksum(frame, icmp);
}

/// New addresses and a TTL lower by `hops` for the IPv4 header at `at`, its checksum mended: one
/// that was wrong stays so.
fn put_v4(frame: &mut [u8], at: usize, src: u32, dst: u32, hops: u8) {
    let ttl = u32::from(be16(frame, at + 8));
    frame[at + 8] = frame[at + 8].wrapping_sub(hops);
    let diff = Diff::of(&[
        (be32(frame, at + 12), src),
        (be32(frame, at + 16), dst),
        (ttl, u32::from(be16(frame, at + 8))),
    ]);
    put32(frame, at + 12, src);
    put32(frame, at + 16, dst);
    let sum = diff.apply(be16(frame, at + 10));
    put16(frame, at + 10, sum);
}

/// The other family: both IP headers and the ICMP header are written anew in front of the quoted
/// upper layer.
fn across<F: Frame>(
    frame: &mut F,
    quote: &Quote,
    ends: Ends,
    quoted: Ends,
    mtu: Option<u16>,
    ids: &mut IpIds,
) -> Result<(), DropReason> {
    let f = frame.bytes();
    let (icmp, ip, l4) = (
        usize::from(quote.icmp),
        usize::from(quote.ip),
        usize::from(quote.l4),
    );
    let (tos, ttl) = tos_ttl(f, eth::HEADER_LEN);
    let (quoted_tos, quoted_ttl) = tos_ttl(f, ip);
    let head = head(f, icmp);
    // What fits the other side's next hop, in packets of this side's.
    let new_head = match ends {
        Ends::V6 { .. } => map::to_v6(head, mtu.map(|mtu| mtu.saturating_add(LONGER))),
        Ends::V4 { .. } => map::to_v4(head, mtu.map(|mtu| mtu.saturating_sub(LONGER))),
    };
    let new_head = new_head.ok_or(DropReason::IcmpUntranslatable)?;
    let segment = quote.segment_len(f);
    // RFC 7915 5.1: what was no longer than IPv6's smallest MTU may be fragmented.
    let df = quote.src.is_ipv6() && segment + ipv6::LEN > usize::from(MIN_MTU_V6);
    // RFC 4884: a length says where the quote ends and extensions begin. Those stay behind.
    let length = match (quote.src, head.0) {
        (IpAddr::V4(_), _) => usize::from(f[icmp + 5]) * 4,
        (IpAddr::V6(_), v6::UNREACHABLE | v6::TIME_EXCEEDED) => usize::from(f[icmp + 4]) * 8,
        _ => 0,
    };
    let end = match length {
        0 => f.len(),
        length => f.len().min(ip + length).max(l4),
    };
    let quoted_header = IpHeader {
        ends: quoted,
        tos: quoted_tos,
        ttl: quoted_ttl,
        protocol: quote.protocol,
        id: 0,
        df,
    };
    // There is room: an error's own headers are before it.
    let at = l4 - quoted.header_len();
    let segment = u16::try_from(segment).map_err(|_| DropReason::BadIcmp)?;
    quoted_header.write(&mut frame.bytes_mut()[at..], segment);
    super::build::finish(
        frame,
        at,
        end,
        ends,
        tos,
        ttl.wrapping_sub(1),
        new_head,
        ids,
    )
}
