//! The common packet: IPv4 without options, TCP or UDP, with at least a TCP header's bytes.
//!
//! ```text
//!  0     12    14         16      20      22    23      24   26    34     38          46      50
//!  | MACs | type | 45 tos | total | flags | ttl | proto | sum | addrs | ports | (tcp) | offset | sum
//! ```
//! Nearly every packet is one, and its headers are at constant places behind one length check.
//! [`read`] only ever says what [`super::parse`] would say; what it does not take goes there.
#![forbid(unsafe_code)]

use super::checksum::{self, Diff, TTL_DOWN};
use super::{Flow, Key, Key4, be16, be32, eth, ipv4, put16, tcp, udp};
use crate::types::{Mac, Proto};

/// Bytes that the headers of a common packet take.
pub const LEN: usize = ipv4::END + tcp::MIN_LEN;
/// Bytes of its IP packet at least.
const MIN_TOTAL: usize = LEN - eth::HEADER_LEN;

/// Of bytes 12 to 19 the Ethernet type, version and header length, which are the same in all common
/// packets.
const FIXED: u64 = u64::from_le_bytes([0x08, 0x00, 0x45, 0, 0, 0, 0, 0]);
const FIXED_MASK: u64 = u64::from_le_bytes([0xff, 0xff, 0xff, 0, 0, 0, 0, 0]);
/// Of bytes 20 to 27 what makes a packet a fragment: all but reserved and don't-fragment.
const FRAGMENT: u64 = u64::from_le_bytes([0x3f, 0xff, 0, 0, 0, 0, 0, 0]);

/// Eight bytes at once; which is which does not matter to who compares them.
#[inline(always)]
fn le64(headers: &[u8; LEN], at: usize) -> u64 {
    let bytes = headers[at..].first_chunk();
    bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Reads a frame that is sent to `mac`, if it is a common packet and sound; `flow` is not to be
/// used otherwise. `trust_l3`: see [`super::parse`].
#[inline(always)]
pub fn read(flow: &mut Flow, frame: &[u8], mac: Mac, trust_l3: bool) -> bool {
    let Some(headers) = frame.first_chunk::<LEN>() else {
        return false;
    };
    let total = usize::from(be16(headers, 16));
    let [a, b, c, d, e, f] = mac.0;
    let ours = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
    // Differences that must be nothing, gathered for one branch.
    let strange = (le64(headers, 0) ^ ours) << 16
        | (le64(headers, 12) ^ FIXED) & FIXED_MASK
        | le64(headers, 20) & FRAGMENT;
    // One comparison for both bounds: below the least, the difference wraps.
    let behind = total.wrapping_sub(MIN_TOTAL);
    if strange != 0 || behind > frame.len() - LEN {
        return false;
    }
    let (proto, says) = match headers[ipv4::PROTO_AT] {
        ipv4::TCP => {
            let offset = usize::from(headers[ipv4::END + 12] >> 4) * 4;
            if offset.wrapping_sub(tcp::MIN_LEN) > behind {
                return false;
            }
            (Proto::Tcp, headers[ipv4::END + tcp::FLAGS_AT])
        }
        ipv4::UDP => {
            let length = usize::from(be16(headers, ipv4::END + 4));
            if length.wrapping_sub(udp::LEN) > total - ipv4::MIN_LEN - udp::LEN {
                return false;
            }
            (Proto::Udp, 0)
        }
        _ => return false,
    };
    if !trust_l3 && !header_sums_up(headers) {
        return false;
    }
    let addrs = le64(headers, ipv4::SRC_AT).swap_bytes();
    *flow = Flow {
        key: Key4::of(addrs, be32(headers, ipv4::END), proto),
        l4: ipv4::END as u16,
        ip_len: total as u16,
        says,
        ttl: headers[ipv4::TTL_AT],
    };
    true
}

/// Whether the checksum of the IPv4 header is right.
#[inline(always)]
fn header_sums_up(headers: &[u8; LEN]) -> bool {
    let header = headers[eth::HEADER_LEN..].first_chunk();
    header.is_some_and(|header| checksum::of_header(header) == 0xffff)
}

/// Gives a common TCP or UDP packet new addresses and ports, packed as in [`Key4`], and one hop
/// less; `l3` and `l4` are the checksum differences of exactly this rewrite.
#[inline(always)]
pub fn rewrite(
    headers: &mut [u8; LEN],
    proto: Proto,
    (addrs, ports): (u64, u32),
    (l3, l4): (Diff, Diff),
) {
    headers[ipv4::TTL_AT] = headers[ipv4::TTL_AT].wrapping_sub(1);
    let sum = be16(headers, ipv4::CHECKSUM_AT);
    put16(headers, ipv4::CHECKSUM_AT, TTL_DOWN.apply(l3.apply(sum)));
    headers[ipv4::SRC_AT..ipv4::END].copy_from_slice(&addrs.to_be_bytes());
    headers[ipv4::END..ipv4::END + 4].copy_from_slice(&ports.to_be_bytes());
    if proto == Proto::Tcp {
        const AT: usize = ipv4::END + tcp::CHECKSUM_AT;
        let sum = be16(headers, AT);
        put16(headers, AT, l4.apply(sum));
    } else {
        const AT: usize = ipv4::END + udp::CHECKSUM_AT;
        let sum = be16(headers, AT);
        put16(headers, AT, udp::checksum_after(l4, sum));
    }
}
