//! UOA: a UDP client's address as an IPv4 option, first among the options.
//!
//! ```text
//!  0    1   2      4
//!  | 31 | 8 | port | IPv4 address
//! ```
//! DPVS's module for Linux reads it. IPv6 has no such option.
#![forbid(unsafe_code)]

use std::net::SocketAddr;

use super::{open_gap, resize};
use crate::io::Frame;
use crate::packet::checksum::Diff;
use crate::packet::{Flow, Key, be16, be32, eth, ipv4, put16};

/// The option's number: 31, not copied into fragments, class control.
const KIND: u8 = 31;
/// Bytes of the option.
pub(crate) const LEN: usize = 8;
/// Longest IPv4 header.
const MAX_HEADER: usize = 60;

/// Puts the option into a packet if the result is no longer than `mtu`; whether it did.
pub(crate) fn insert<F: Frame, K: Key>(
    frame: &mut F,
    flow: &mut Flow<K>,
    client: SocketAddr,
    mtu: u16,
) -> bool {
    let SocketAddr::V4(client) = client else {
        return false;
    };
    let ip_len = usize::from(flow.ip_len) + LEN;
    let header_len = usize::from(flow.l4) - eth::HEADER_LEN;
    if eth::ethertype(frame.bytes()) != Ok(eth::IPV4)
        || header_len + LEN > MAX_HEADER
        || ip_len > usize::from(mtu)
        || !open_gap(frame, ipv4::END, LEN)
    {
        return false;
    }
    let port = client.port().to_be_bytes();
    let mut option = [KIND, LEN as u8, port[0], port[1], 0, 0, 0, 0];
    option[4..].copy_from_slice(&client.ip().octets());
    let f = frame.bytes_mut();
    f[ipv4::END..ipv4::END + LEN].copy_from_slice(&option);
    resize(f, flow, ip_len as u16);
    flow.l4 += LEN as u16;
    let word = be32(f, eth::HEADER_LEN);
    f[eth::HEADER_LEN] += (LEN / 4) as u8;
    let words = [
        (word, be32(f, eth::HEADER_LEN)),
        (0, be32(&option, 0)),
        (0, be32(&option, 4)),
    ];
    let sum = be16(f, ipv4::CHECKSUM_AT);
    put16(f, ipv4::CHECKSUM_AT, Diff::of(&words).apply(sum));
    true
}
