//! What was inside a tunnel's packet that an ICMP error quotes.
#![forbid(unsafe_code)]

use super::{gre, gue, ipip, vxlan};
use crate::packet::icmp::Quote;
use crate::packet::{be16, eth, ipv4, udp};

/// The client's packet inside the tunnel's packet that `outer` is; `None` when that is none, or
/// too little of it is quoted (RFC 792 promises 8 bytes; routers since RFC 1812 send more).
///
/// Any GUE or VXLAN packet will do, whatever its port: the caller compares what is found with a
/// connection whose server is at `outer.dst`, and nothing else that the director sends can look
/// like one of those.
#[must_use]
pub fn inside(frame: &[u8], outer: &Quote) -> Option<Quote> {
    let (at, end) = (usize::from(outer.l4), usize::from(outer.end));
    let tunnel = frame.get(at..end)?;
    let skip = match outer.protocol {
        ipip::IPV4 | ipip::IPV6 => 0,
        gre::PROTOCOL => {
            let flags = be16(tunnel.first_chunk::<4>()?, 0);
            match flags {
                0 | gre::CHECKSUM_PRESENT => gre::len(flags != 0),
                _ => return None,
            }
        }
        ipv4::UDP => match tunnel.get(udp::LEN..)? {
            [0, ipip::IPV4 | ipip::IPV6, 0, 0, ..] => gue::LEN,
            [vxlan::VNI_VALID, rest @ ..] => {
                match be16(rest.get(7..)?.first_chunk::<{ eth::HEADER_LEN }>()?, 12) {
                    eth::IPV4 | eth::IPV6 => vxlan::LEN,
                    _ => return None,
                }
            }
            _ => return None,
        },
        _ => return None,
    };
    Quote::read(frame, usize::from(outer.icmp), at + skip, end)
}
