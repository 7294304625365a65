//! Errors of the director's own, written around the packet they are about.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::map::Head;
use super::{LEN, Message, WORD_AT, is_v6, look, set_checksum, tos_ttl, v4, v6};
use crate::counters::DropReason;
use crate::io::Frame;
use crate::packet::header::{Ends, IpHeader};
use crate::packet::ids::IpIds;
use crate::packet::{be16, eth, ipv4, ipv6, put16, put32};

/// Longest error, IP header included: what every host takes in one piece (RFC 1812 4.3.2.3).
const MAX_V4: usize = 576;
/// As [`MAX_V4`]: RFC 4443 2.4 (c).
const MAX_V6: usize = 1280;
/// TTL of what the director sends on its own.
pub(super) const TTL: u8 = 64;

/// What is wrong with a packet, for its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// It does not fit the next link and must not be cut.
    TooBig {
        /// What would fit: the link's MTU less what the director adds.
        mtu: u16,
    },
    /// Its TTL or hop limit ran out here.
    TtlExpired,
    /// No route leads on.
    NoRoute,
    /// The next hop does not answer.
    HostUnreachable,
    /// Nothing listens: no service, or no server for it.
    PortUnreachable,
    /// A rule forbids it.
    Prohibited,
}

impl Problem {
    fn head(self, is_v6: bool) -> Head {
        match (self, is_v6) {
            (Problem::TooBig { mtu }, false) => {
                (v4::UNREACHABLE, v4::FRAGMENTATION_NEEDED, u32::from(mtu))
            }
            (Problem::TtlExpired, false) => (v4::TIME_EXCEEDED, 0, 0),
            (Problem::NoRoute, false) => (v4::UNREACHABLE, 0, 0),
            (Problem::HostUnreachable, false) => (v4::UNREACHABLE, 1, 0),
            (Problem::PortUnreachable, false) => (v4::UNREACHABLE, 3, 0),
            (Problem::Prohibited, false) => (v4::UNREACHABLE, 13, 0),
            (Problem::TooBig { mtu }, true) => (v6::TOO_BIG, 0, u32::from(mtu)),
            (Problem::TtlExpired, true) => (v6::TIME_EXCEEDED, 0, 0),
            (Problem::NoRoute, true) => (v6::UNREACHABLE, 0, 0),
            (Problem::HostUnreachable, true) => (v6::UNREACHABLE, 3, 0),
            (Problem::PortUnreachable, true) => (v6::UNREACHABLE, 4, 0),
            (Problem::Prohibited, true) => (v6::UNREACHABLE, 1, 0),
        }
    }
}

/// Turns the packet in `frame` into the error about it, from `src` to its sender and back to the
/// MAC address it came from, so that a spoofed flood resolves nothing. The packet was checked at
/// the door. False, and nothing changed, where there must not be an error (RFC 1122 3.2.2,
/// RFC 4443 2.4 (e)): about an error, a fragment other than the first, a multicast or broadcast,
/// a sender that none may be; and when `src` is of the other family or there is no room.
#[cold]
#[must_use]
pub fn build_error<F: Frame>(
    frame: &mut F,
    problem: Problem,
    src: IpAddr,
    ids: &mut IpIds,
) -> bool {
    let f = frame.bytes();
    let Some((dst, end)) = sender(f) else {
        return false;
    };
    let Some(ends) = Ends::new(src, dst) else {
        return false;
    };
    let (here, peer) = (eth::dst(f), eth::src(f));
    let tos = own_tos(ends, tos_ttl(f, eth::HEADER_LEN).0);
    let head = problem.head(is_v6(f));
    let built = finish(frame, eth::HEADER_LEN, end, ends, tos, TTL, head, ids);
    eth::set_macs(frame.bytes_mut(), peer, here);
    built.is_ok()
}

/// Type of service of an error about a packet with `tos`: RFC 1812 4.3.2.5, its own type and the
/// precedence of internetwork control. In IPv6 Linux leaves it 0.
pub(super) fn own_tos(ends: Ends, tos: u8) -> u8 {
    match ends {
        Ends::V4 { .. } => tos & 0x1e | 0xc0,
        Ends::V6 { .. } => 0,
    }
}

/// Who sent the packet, and where it ends; `None` when no error may answer it.
fn sender(f: &[u8]) -> Option<(IpAddr, usize)> {
    if eth::dst(f).is_group() {
        return None;
    }
    if is_v6(f) {
        let headers = f.first_chunk()?;
        let ip = ipv6::check(headers, f).ok()?;
        let end = eth::HEADER_LEN + usize::from(ip.total_len);
        let later = ip.fragment.is_some_and(|fragment| fragment.offset != 0);
        let silent = later
            || ipv6::bad_source(ip.src)
            || ip.dst >> 120 == 0xff
            || ip.protocol == ipv6::ICMP && is_error(f, ip.l4, end);
        return (!silent).then(|| (Ipv6Addr::from(ip.src).into(), end));
    }
    let headers = f.first_chunk()?;
    let ip = ipv4::check(headers, f, true).ok()?;
    let end = eth::HEADER_LEN + usize::from(ip.total_len);
    let (src, dst) = ((ip.addrs >> 32) as u32, ip.addrs as u32);
    let later = be16(f, eth::HEADER_LEN + 6) & ipv4::OFFSET_MASK != 0;
    let silent = later
        || ipv4::bad_source(src)
        || dst >> 28 == 0xe
        || dst == u32::MAX
        || ip.protocol == ipv4::ICMP && is_error(f, ip.l4, end);
    (!silent).then(|| (Ipv4Addr::from(src).into(), end))
}

/// Whether a message is an error, or may be one.
fn is_error(f: &[u8], l4: u16, end: usize) -> bool {
    let at = usize::from(l4);
    let redirect = match is_v6(f) {
        true => v6::REDIRECT,
        false => v4::REDIRECT,
    };
    f.get(at) == Some(&redirect) || look(f, at, end) != Ok(Message::Other)
}

/// Makes the frame an error of `head` that quotes its bytes `from..end`, as many as may be. What
/// stood before them is overwritten, the MAC addresses are not written.
///
/// # Errors
/// [`DropReason::TooBig`]: no room in front. Nothing was changed.
#[allow(clippy::too_many_arguments)] // the fields of three headers
pub(super) fn finish<F: Frame>(
    frame: &mut F,
    from: usize,
    end: usize,
    ends: Ends,
    tos: u8,
    ttl: u8,
    (kind, code, word): Head,
    ids: &mut IpIds,
) -> Result<(), DropReason> {
    let front = eth::HEADER_LEN + ends.header_len() + LEN;
    let (most, protocol) = match ends {
        Ends::V4 { .. } => (MAX_V4, ipv4::ICMP),
        Ends::V6 { .. } => (MAX_V6, ipv6::ICMP),
    };
    let len = end.min(from + eth::HEADER_LEN + most - front) - from;
    match front.checked_sub(from) {
        Some(grows) if !frame.push_front(grows) => return Err(DropReason::TooBig),
        Some(_) => {}
        None => frame.pull_front(from - front),
    }
    // It never grows: `from..end` was in it.
    let _ = frame.set_len(front + len);
    let f = frame.bytes_mut();
    put16(f, 12, ends.ethertype());
    let header = IpHeader {
        ends,
        tos,
        ttl,
        protocol,
        id: match ends {
            Ends::V4 { .. } => ids.next16(),
            Ends::V6 { .. } => 0,
        },
        df: false,
    };
    header.write(&mut f[eth::HEADER_LEN..], (LEN + len) as u16);
    let icmp = front - LEN;
    (f[icmp], f[icmp + 1]) = (kind, code);
    put32(f, icmp + WORD_AT, word);
    set_checksum(f, icmp);
    Ok(())
}
