//! PROXY protocol headers (haproxy's proxy-protocol.txt).
//!
//! ```text
//!  v1  PROXY TCP4 192.0.2.7 198.51.100.1 40000 80\r\n
//!  v2  0       12              13             14       16
//!      | magic | version, cmd  | family,proto | length | addresses, ports: 12 or 36 bytes
//! ```
//! Source is the client, destination the virtual address. TLVs are not sent, but for one that
//! fills up the header of a datagram in parts.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};

use arrayvec::ArrayVec;

use super::{ClientAddress, open_gap, resize};
use crate::io::Frame;
use crate::packet::checksum::{self, Diff};
use crate::packet::icmp::Quote;
use crate::packet::{Flow, Key, be16, eth, put16, udp};
use crate::types::Proto;

/// Longest header: version 1 with two IPv6 addresses written out has 104 bytes, and the protocol
/// ends lines at 107.
const MAX_LEN: usize = 107;
const MAGIC: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const PROXY: u8 = 0x21;

/// A header.
pub(crate) type Header = ArrayVec<u8, MAX_LEN>;

/// Version 1: one line of text; TCP only.
pub(crate) fn v1(client: SocketAddr, service: SocketAddr) -> Header {
    let mut h = Header::new();
    h.extend(match client {
        SocketAddr::V4(_) => *b"PROXY TCP4 ",
        SocketAddr::V6(_) => *b"PROXY TCP6 ",
    });
    address(&mut h, client.ip());
    h.push(b' ');
    address(&mut h, service.ip());
    h.push(b' ');
    decimal(&mut h, client.port());
    h.push(b' ');
    decimal(&mut h, service.port());
    h.extend(*b"\r\n");
    h
}

/// Version 2. Both addresses are of one family, as those of a packet are.
pub(crate) fn v2(proto: Proto, client: SocketAddr, service: SocketAddr) -> Header {
    let mut h = Header::new();
    h.extend(MAGIC);
    let transport = match proto {
        Proto::Tcp => 1,
        _ => 2, // datagrams
    };
    match (client.ip(), service.ip()) {
        (IpAddr::V4(client), IpAddr::V4(service)) => {
            h.extend([PROXY, 0x10 | transport, 0, 12]);
            h.extend(client.octets());
            h.extend(service.octets());
        }
        (client, service) => {
            h.extend([PROXY, 0x20 | transport, 0, 36]);
            h.extend(v6(client));
            h.extend(v6(service));
        }
    }
    h.extend(client.port().to_be_bytes());
    h.extend(service.port().to_be_bytes());
    h
}

/// The header, if that is what carries the client's address.
pub(crate) fn of(
    carrier: ClientAddress,
    client: SocketAddr,
    service: SocketAddr,
    proto: Proto,
) -> Option<Header> {
    match carrier {
        ClientAddress::proxy_v1 => Some(v1(client, service)),
        ClientAddress::proxy_v2 => Some(v2(proto, client, service)),
        _ => None,
    }
}

/// A header of version 2 as datagrams in parts get it: made a multiple of 8 bytes by a TLV that
/// says nothing.
pub(crate) fn filled_up(mut header: Header) -> Header {
    const NOOP: u8 = 4;
    const TLV: usize = 3; // type, length
    let short = header.len().next_multiple_of(8) - header.len();
    let fill = match short {
        0 => return header,
        1 | 2 => short + 8,
        _ => short,
    };
    header.extend([NOOP, 0, (fill - TLV) as u8]);
    header.extend(std::iter::repeat_n(0, fill - TLV));
    let len = be16(&header, 14) + fill as u16;
    put16(&mut header, 14, len);
    header
}

/// Takes the header off a quoted datagram, and off the lengths and checksums that cover it. What
/// is too short to have it stays as it is.
pub(crate) fn take_off_quoted<F: Frame>(frame: &mut F, quote: &mut Quote, header: &[u8]) {
    let (ip, l4, end) = (
        usize::from(quote.ip),
        usize::from(quote.l4),
        usize::from(quote.end),
    );
    let n = header.len() as u16;
    let f = frame.bytes_mut();
    let Some(udp) = f.get_mut(l4..l4 + udp::LEN) else {
        return;
    };
    let len = be16(udp, 4);
    let Some(shorter) = len.checked_sub(n).filter(|len| *len >= udp::LEN as u16) else {
        return;
    };
    put16(udp, 4, shorter);
    let sum = be16(udp, udp::CHECKSUM_AT);
    if sum != 0 {
        // The length counts twice: in the header and in the pseudo-header.
        let length = Diff::of(&[(u32::from(len), u32::from(shorter))]);
        let diff = length
            .plus(length)
            .plus(Diff::adding(!checksum::sum(header)));
        let sum = diff.apply(sum);
        put16(udp, udp::CHECKSUM_AT, if sum == 0 { 0xffff } else { sum });
    }
    shorten(f, ip, n);
    // Perhaps not all of it is quoted.
    let at = l4 + udp::LEN;
    let gone = header.len().min(end - at);
    f.copy_within(at + gone..end, at);
    shorten(f, eth::HEADER_LEN, gone as u16);
    quote.end -= gone as u16;
}

/// Takes `n` bytes off the length of the IP packet at `ip`; in IPv4 the header's checksum follows.
fn shorten(frame: &mut [u8], ip: usize, n: u16) {
    match frame[ip] >> 4 {
        4 => {
            let len = be16(frame, ip + 2);
            let new = len.wrapping_sub(n);
            put16(frame, ip + 2, new);
            let diff = Diff::of(&[(u32::from(len), u32::from(new))]);
            let sum = diff.apply(be16(frame, ip + 10));
            put16(frame, ip + 10, sum);
        }
        _ => {
            let len = be16(frame, ip + 4).wrapping_sub(n);
            put16(frame, ip + 4, len);
        }
    }
}

/// Puts a header in front of a datagram's data; false, and nothing changed, without room in the
/// buffer or in UDP's length. The link's MTU is seen to like that of any datagram.
pub(crate) fn prepend<F: Frame, K: Key>(frame: &mut F, flow: &mut Flow<K>, header: &[u8]) -> bool {
    let at = usize::from(flow.l4) + udp::LEN;
    // An odd number of bytes would swap the halves of every word behind it.
    debug_assert!(header.len().is_multiple_of(2));
    let Ok(ip_len) = u16::try_from(usize::from(flow.ip_len) + header.len()) else {
        return false;
    };
    if !open_gap(frame, at, header.len()) {
        return false;
    }
    let f = frame.bytes_mut();
    f[at..at + header.len()].copy_from_slice(header);
    let longer = resize(f, flow, ip_len);
    let udp = &mut f[usize::from(flow.l4)..];
    let len = be16(udp, 4);
    let new = len.saturating_add(header.len() as u16);
    put16(udp, 4, new);
    let sum = be16(udp, udp::CHECKSUM_AT);
    if sum != 0 {
        // The length counts twice: in the header and in the pseudo-header.
        let diff = longer
            .plus(Diff::of(&[(u32::from(len), u32::from(new))]))
            .plus(Diff::adding(checksum::sum(header)));
        let sum = diff.apply(sum);
        put16(udp, udp::CHECKSUM_AT, if sum == 0 { 0xffff } else { sum });
    }
    true
}

fn v6(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn address(h: &mut Header, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            for (n, octet) in ip.octets().into_iter().enumerate() {
                if n > 0 {
                    h.push(b'.');
                }
                decimal(h, octet.into());
            }
        }
        // Every group written out: as good as "::" to a reader, and simple.
        IpAddr::V6(ip) => {
            for (n, group) in ip.segments().into_iter().enumerate() {
                if n > 0 {
                    h.push(b':');
                }
                hex(h, group);
            }
        }
    }
}

fn decimal(h: &mut Header, value: u16) {
    let digits = [10_000, 1000, 100, 10, 1];
    let first = digits.iter().position(|d| value >= *d).unwrap_or(4);
    h.extend(
        digits[first..]
            .iter()
            .map(|d| b'0' + (value / d % 10) as u8),
    );
}

fn hex(h: &mut Header, value: u16) {
    let first = (value.leading_zeros() / 4).min(3);
    let nibbles = (first..4).map(|n| value >> (12 - 4 * n) & 0xf);
    h.extend(nibbles.map(|n| b"0123456789abcdef"[usize::from(n)]));
}
