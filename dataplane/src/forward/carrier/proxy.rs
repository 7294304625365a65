//! PROXY protocol headers (haproxy's proxy-protocol.txt).
//!
//! ```text
//!  v1  PROXY TCP4 192.0.2.7 198.51.100.1 40000 80\r\n
//!  v2  0       12              13             14       16
//!      | magic | version, cmd  | family,proto | length | addresses, ports: 12 or 36 bytes
//! ```
//! Source is the client, destination the virtual address. TLVs are not sent.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};

use arrayvec::ArrayVec;

use super::{open_gap, resize};
use crate::io::Frame;
use crate::packet::checksum::{self, Diff};
use crate::packet::{Flow, Key, be16, put16, udp};
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
            .plus(Diff(checksum::sum(header)));
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
