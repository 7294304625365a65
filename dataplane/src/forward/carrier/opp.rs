//! UOA's other form: a UDP client's address in a header of its own between IP and UDP, for both
//! families (DPVS's default).
//!
//! ```text
//!  0              1    2        4    5   6      8
//!  | version 4, 0 | 17 | length | 31 | 8 | port | IPv4 address      version 1: of an IPv4 packet
//!                               | 31 | 20 | port | IPv6 address     version 2: of an IPv6 packet
//! ```
//! The IP packet's protocol becomes 248, and its receiver's module takes the header out again.
//! Over IPv4 the UDP checksum is left out as DPVS does: receivers take the packet apart after the
//! card has looked at it. An ICMP error about one of these few packets is the kernel's: the client
//! never sent that protocol.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};

use arrayvec::ArrayVec;

use super::{open_gap, resize};
use crate::io::Frame;
use crate::packet::checksum::Diff;
use crate::packet::{Flow, Key, be16, eth, ipv4, ipv6, put16, udp};

/// The protocol's number: one of those that nobody has.
const PROTOCOL: u8 = 248;
/// The option's number.
const KIND: u8 = 31;
/// Longest header.
const MAX_LEN: usize = 24;

fn header(client: SocketAddr, version: u8) -> ArrayVec<u8, MAX_LEN> {
    let mut h = ArrayVec::new();
    let len = len(client) as u8;
    let port = client.port().to_be_bytes();
    h.extend([
        version << 4,
        ipv4::UDP,
        0,
        len,
        KIND,
        len - 4,
        port[0],
        port[1],
    ]);
    match client.ip() {
        IpAddr::V4(ip) => h.extend(ip.octets()),
        IpAddr::V6(ip) => h.extend(ip.octets()),
    }
    h
}

/// Bytes of the header for `client`.
pub(crate) fn len(client: SocketAddr) -> u16 {
    match client {
        SocketAddr::V4(_) => 12,
        SocketAddr::V6(_) => 24,
    }
}

/// Puts the header into a whole packet if the result is no longer than `mtu`; whether it did. Not
/// behind IPv6 extension headers.
pub(crate) fn insert<F: Frame, K: Key>(
    frame: &mut F,
    flow: &mut Flow<K>,
    client: SocketAddr,
    mtu: u16,
) -> bool {
    let n = len(client);
    let at = usize::from(flow.l4);
    let v6 = eth::ethertype(frame.bytes()) == Ok(eth::IPV6);
    let Some(ip_len) = flow.ip_len.checked_add(n).filter(|len| *len <= mtu) else {
        return false;
    };
    if v6 && at != ipv6::END || !open_gap(frame, at, usize::from(n)) {
        return false;
    }
    let f = frame.bytes_mut();
    let header = header(client, if v6 { 2 } else { 1 });
    f[at..at + header.len()].copy_from_slice(&header);
    resize(f, flow, ip_len);
    flow.l4 += n;
    if v6 {
        f[ipv6::NEXT_AT] = PROTOCOL;
        return true;
    }
    let ttl = be16(f, ipv4::TTL_AT);
    f[ipv4::PROTO_AT] = PROTOCOL;
    let diff = Diff::of(&[(u32::from(ttl), u32::from(be16(f, ipv4::TTL_AT)))]);
    let sum = diff.apply(be16(f, ipv4::CHECKSUM_AT));
    put16(f, ipv4::CHECKSUM_AT, sum);
    put16(f, usize::from(flow.l4) + udp::CHECKSUM_AT, 0);
    true
}
