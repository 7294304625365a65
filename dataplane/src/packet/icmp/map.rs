//! An error's type, code and word in the other family (RFC 7915 4.2 and 5.2).
#![forbid(unsafe_code)]

use super::{v4, v6};

/// Smallest MTU of a link that carries IPv6 (RFC 8200 5).
pub(super) const MIN_MTU_V6: u16 = 1280;
/// What an IPv6 header is longer than an IPv4 header.
pub(super) const LONGER: u16 = 20;

/// The head of an error: type, code, and what follows the checksum.
pub(super) type Head = (u8, u8, u32);

/// An ICMP error for a receiver of IPv6. `mtu`: of the next hop, for packets as the receiver
/// sends them. `None`: there is no such error, it ends here.
pub(super) fn to_v6(head: Head, mtu: Option<u16>) -> Option<Head> {
    const NO_ROUTE: u8 = 0;
    const PROHIBITED: u8 = 1;
    const PORT: u8 = 4;
    const UNKNOWN_NEXT_HEADER: u8 = 1;
    Some(match head {
        (v4::UNREACHABLE, 2, _) => (v6::PARAMETER, UNKNOWN_NEXT_HEADER, 6),
        (v4::UNREACHABLE, 3, _) => (v6::UNREACHABLE, PORT, 0),
        (v4::UNREACHABLE, v4::FRAGMENTATION_NEEDED, _) => {
            (v6::TOO_BIG, 0, u32::from(mtu?.max(MIN_MTU_V6)))
        }
        (v4::UNREACHABLE, 9 | 10 | 13 | 15, _) => (v6::UNREACHABLE, PROHIBITED, 0),
        (v4::UNREACHABLE, 0 | 1 | 5..=8 | 11 | 12, _) => (v6::UNREACHABLE, NO_ROUTE, 0),
        (v4::TIME_EXCEEDED, code, _) => (v6::TIME_EXCEEDED, code, 0),
        // Figure 3 of the RFC; the pointer is the word's first byte.
        (v4::PARAMETER, 0 | 2, word) => {
            let pointer = match word >> 24 {
                0 => 0,
                1 => 1,
                2 | 3 => 4,
                8 => 7,
                9 => 6,
                12..=15 => 8,
                16..=19 => 24,
                _ => return None,
            };
            (v6::PARAMETER, 0, pointer)
        }
        _ => return None,
    })
}

/// An ICMPv6 error for a receiver of IPv4; as [`to_v6`].
pub(super) fn to_v4(head: Head, mtu: Option<u16>) -> Option<Head> {
    const HOST: u8 = 1;
    const HOST_PROHIBITED: u8 = 10;
    const PROTOCOL: u8 = 2;
    const PORT: u8 = 3;
    Some(match head {
        (v6::UNREACHABLE, 0 | 2 | 3, _) => (v4::UNREACHABLE, HOST, 0),
        (v6::UNREACHABLE, 1, _) => (v4::UNREACHABLE, HOST_PROHIBITED, 0),
        (v6::UNREACHABLE, 4, _) => (v4::UNREACHABLE, PORT, 0),
        (v6::TOO_BIG, ..) => (v4::UNREACHABLE, v4::FRAGMENTATION_NEEDED, u32::from(mtu?)),
        (v6::TIME_EXCEEDED, code, _) => (v4::TIME_EXCEEDED, code, 0),
        (v6::PARAMETER, 1, _) => (v4::UNREACHABLE, PROTOCOL, 0),
        (v6::PARAMETER, 0, pointer) => {
            let pointer = match pointer {
                0 => 0,
                1 => 1,
                4 | 5 => 2,
                6 => 9,
                7 => 8,
                8..=23 => 12,
                24..=39 => 16,
                _ => return None,
            };
            (v4::PARAMETER, 0, pointer << 24)
        }
        _ => return None,
    })
}
