//! TOA: the client's address as an option of TCP, first among the options.
//!
//! ```text
//!  0     1     2      4
//!  | 254 | 8   | port | IPv4 address
//!  | 254 | 20  | port | IPv6 address, 16 bytes
//! ```
//! Kind 254 is one of those for experiments (RFC 4727). Modules for Linux read it from the packet
//! that completes the handshake.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};

use arrayvec::ArrayVec;

use super::{mend, mended, open_gap, resize, tcp_header_len};
use crate::io::Frame;
use crate::packet::checksum::Diff;
use crate::packet::{Flow, Key, be32, eth, tcp};

/// The option's kind.
const KIND: u8 = 254;
/// Bytes of the option for an IPv4 client.
const LEN4: usize = 8;
/// Bytes of the option for an IPv6 client.
const LEN6: usize = 20;

/// The option for `client`.
pub(crate) fn option(client: SocketAddr) -> ArrayVec<u8, LEN6> {
    let mut option = ArrayVec::new();
    let port = client.port().to_be_bytes();
    match client.ip() {
        IpAddr::V4(ip) => {
            option.extend([KIND, LEN4 as u8, port[0], port[1]]);
            option.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            option.extend([KIND, LEN6 as u8, port[0], port[1]]);
            option.extend(ip.octets());
        }
    }
    option
}

/// Bytes of the option for `client`.
pub(crate) fn len(client: SocketAddr) -> u16 {
    match client {
        SocketAddr::V4(_) => LEN4 as u16,
        SocketAddr::V6(_) => LEN6 as u16,
    }
}

/// Overwrites options of this kind that came with the packet: nobody may claim to be another.
pub(crate) fn remove<K: Key>(frame: &mut [u8], flow: &Flow<K>) {
    let len = tcp_header_len(frame, flow);
    if len == tcp::MIN_LEN {
        return;
    }
    mended(frame, flow, |header| {
        for option in tcp::options(header) {
            if header[option.start] == KIND {
                header[option].fill(tcp::NOP);
            }
        }
    });
}

/// Puts an option into a packet if the result is no longer than `mtu`; whether it did.
pub(crate) fn insert<F: Frame, K: Key>(
    frame: &mut F,
    flow: &mut Flow<K>,
    option: &[u8],
    mtu: u16,
) -> bool {
    let header_len = tcp_header_len(frame.bytes(), flow);
    let ip_len = usize::from(flow.ip_len) + option.len();
    let at = usize::from(flow.l4) + tcp::MIN_LEN;
    if header_len + option.len() > tcp::MAX_LEN
        || ip_len > usize::from(mtu)
        || !open_gap(frame, at, option.len())
    {
        return false;
    }
    let bytes = frame.bytes_mut();
    bytes[at..at + option.len()].copy_from_slice(option);
    let longer = resize(bytes, flow, ip_len as u16);
    let header = &mut bytes[usize::from(flow.l4)..];
    let word = be32(header, 12);
    let new = word + ((option.len() as u32 / 4) << 28);
    header[12] = (new >> 24) as u8;
    let words = option.chunks_exact(4).map(|w| (0, be32(w, 0)));
    let added = words.fold(Diff::of(&[(word, new)]), |sum, word| {
        sum.plus(Diff::of(&[word]))
    });
    mend(header, added.plus(longer));
    debug_assert!(bytes.len() >= eth::HEADER_LEN + ip_len);
    true
}
