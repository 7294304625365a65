//! The announcement of an IPv4 address: "from now on this address is at this MAC".
//!
//! ```text
//! Ethernet  broadcast | our MAC | 0x0806
//! ARP       Ethernet, IPv4, request | our MAC, address | 00:00:00:00:00:00, address
//! ```
//!
//! It is sent out of the twin by a packet socket, so it takes the way of the kernel's own ARP
//! (TAP, twin thread, worker, port) and `tcpdump -i` on the twin shows it.
#![forbid(unsafe_code)]

use std::net::Ipv4Addr;

use weir_dataplane::Mac;

/// Bytes of an ARP frame: Ethernet header and ARP for IPv4.
pub(super) const FRAME_LEN: usize = 14 + 28;

/// An ARP announcement (RFC 5227 section 3): a broadcast request in which both addresses are
/// the announced one.
pub(super) fn announcement(mac: Mac, addr: Ipv4Addr) -> [u8; FRAME_LEN] {
    let mut frame = [0; FRAME_LEN];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&mac.0);
    frame[12..14].copy_from_slice(&0x0806_u16.to_be_bytes());
    // RFC 826: hardware Ethernet (1), protocol IPv4, lengths 6 and 4, operation request (1).
    frame[14..22].copy_from_slice(&[0, 1, 0x08, 0x00, 6, 4, 0, 1]);
    frame[22..28].copy_from_slice(&mac.0);
    frame[28..32].copy_from_slice(&addr.octets());
    frame[38..42].copy_from_slice(&addr.octets());
    frame
}
