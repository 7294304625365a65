//! DR: the packet stays as it is, one hop less, and goes to the server's MAC address.
//!
//! ```text
//!  client -> server   CIP:cport -> VIP:vport   stays
//!  server -> client   VIP:vport -> CIP:cport   past the director
//! ```
//! No byte is added, so the MTU is the link's. TUN begins the same way.
#![forbid(unsafe_code)]

use super::rewrite;
use crate::packet::{be16, eth};

/// One hop less for the IP packet in `frame`.
pub(crate) fn pass(frame: &mut [u8], ttl: u8) {
    if frame.len() < eth::HEADER_LEN {
        return;
    }
    match be16(frame, 12) {
        eth::IPV6 => rewrite::hop6(frame, ttl),
        _ => rewrite::hop4(frame, ttl),
    }
}
