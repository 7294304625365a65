//! Arithmetic of network prefixes, alike for both families.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bits of an address of the family of `addr`: 32 or 128.
#[must_use]
pub(crate) fn bits(addr: IpAddr) -> u8 {
    match addr {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The address as a number, right-aligned.
#[must_use]
pub(crate) fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => u128::from(u32::from(addr)),
        IpAddr::V6(addr) => u128::from(addr),
    }
}

/// The address of `family`'s family that is this number; what an IPv4 address has no bits for is
/// left out.
#[must_use]
pub(crate) fn address(number: u128, family: IpAddr) -> IpAddr {
    match family {
        IpAddr::V4(_) => Ipv4Addr::from(number as u32).into(), // as said
        IpAddr::V6(_) => Ipv6Addr::from(number).into(),
    }
}

/// The network of `len` bits that `addr` is in: its address, host bits zero.
#[must_use]
pub(crate) fn network(addr: IpAddr, len: u8) -> IpAddr {
    let host_bits = u32::from(bits(addr).saturating_sub(len));
    let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
    address(number(addr) & mask, addr)
}

/// Whether `addr` is in the network of `len` bits that `network_of` is in.
#[must_use]
pub(crate) fn contains(network_of: IpAddr, len: u8, addr: IpAddr) -> bool {
    network_of.is_ipv4() == addr.is_ipv4() && network(network_of, len) == network(addr, len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_of_both_families_at_every_edge() {
        for (addr, len, net) in [
            ("10.1.2.3", 0, "0.0.0.0"),
            ("10.1.2.3", 22, "10.1.0.0"),
            ("10.1.2.3", 32, "10.1.2.3"),
            ("2001:db8::7:1", 0, "::"),
            ("2001:db8::7:1", 1, "::"),
            ("2001:db8:0:ff::1", 60, "2001:db8:0:f0::"),
            ("2001:db8::7:1", 128, "2001:db8::7:1"),
        ] {
            assert_eq!(network(ip(addr), len), ip(net), "{addr}/{len}");
            assert!(contains(ip(addr), len, ip(net)));
        }
        assert!(!contains(ip("10.0.0.0"), 8, ip("11.0.0.0")));
        assert!(!contains(ip("0.0.0.0"), 0, ip("::")));
        assert!(!contains(ip("::"), 0, ip("0.0.0.0")));
    }
}
