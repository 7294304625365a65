//! VXLAN (RFC 7348): an Ethernet frame inside UDP.
//!
//! ```text
//!  0     8       9    12    15   16                   30
//!  | UDP | flags | 0  | VNI | 0  | Ethernet, no FCS  | packet
//! ```
#![forbid(unsafe_code)]

use std::net::IpAddr;

use super::Ends;
use crate::packet::{eth, put16, udp};
use crate::types::Mac;

/// Bytes from the UDP header to the packet.
pub(super) const LEN: usize = ETHERNET + eth::HEADER_LEN;
/// Where the inner Ethernet header is.
const ETHERNET: usize = udp::LEN + 8;
/// The VNI is valid.
pub(super) const VNI_VALID: u8 = 0x08;

/// The MAC address that a VXLAN device has by agreement where the configuration names none: a
/// locally administered one that ends in the last four octets of the address the tunnel ends at.
/// `scripts/realserver` sets it on the device that it makes.
#[must_use]
pub fn device_mac(at: IpAddr) -> Mac {
    let [a, b, c, d] = match at {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(v6) => (u128::from(v6) as u32).to_be_bytes(),
    };
    Mac([0x02, 0x57, a, b, c, d])
}

/// Writes the VXLAN and the inner Ethernet header behind the UDP header's place.
pub(super) fn write(payload: &mut [u8], vni: u32, ethertype: u16, ends: Ends, mac: Option<Mac>) {
    let (src, dst) = ends.addrs();
    payload[udp::LEN..udp::LEN + 4].copy_from_slice(&[VNI_VALID, 0, 0, 0]);
    payload[udp::LEN + 4..ETHERNET].copy_from_slice(&(vni << 8).to_be_bytes());
    let inner = &mut payload[ETHERNET..LEN];
    eth::set_macs(
        inner,
        mac.unwrap_or_else(|| device_mac(dst)),
        device_mac(src),
    );
    put16(inner, 12, ethertype);
}
