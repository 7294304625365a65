//! What goes to the kernel twin, and how much of it.
#![forbid(unsafe_code)]

use crate::defense::Policer;
use crate::packet::{be16, eth, ipv4};
use crate::types::Tick;

/// How urgent a frame for the kernel is; each class has its own limit, so that a flood of one
/// does not starve the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Punt {
    /// ARP, VRRP, BFD, BGP: what keeps the network together.
    Control,
    /// Unicast to an address that is not Weir's: the kernel's own, it must be supposed.
    Unicast,
    /// Broadcast, multicast, everything else.
    Rest,
}

/// One worker's limits for what it passes to the kernel, frames a second. A TAP takes some
/// 40,000 small frames a second (PLATFORM section 6).
pub(crate) struct PuntPolicers {
    control: Policer,
    unicast: Policer,
    rest: Policer,
}

impl PuntPolicers {
    pub(crate) fn new(now: Tick) -> Self {
        PuntPolicers {
            control: Policer::new(20_000, now),
            unicast: Policer::new(50_000, now),
            rest: Policer::new(5_000, now),
        }
    }

    pub(super) fn admit(&mut self, class: Punt, now: Tick) -> bool {
        match class {
            Punt::Control => self.control.admit(now),
            Punt::Unicast => self.unicast.admit(now),
            Punt::Rest => self.rest.admit(now),
        }
    }
}

/// The class of a frame for the kernel.
pub(super) fn punt_class(frame: &[u8]) -> Punt {
    const BGP: u16 = 179;
    const BFD: [u16; 2] = [3784, 4784];
    match eth::ethertype(frame) {
        Ok(eth::ARP) => Punt::Control,
        Ok(eth::IPV4) if frame.len() >= eth::HEADER_LEN + ipv4::MIN_LEN + 4 => {
            let l4 = eth::HEADER_LEN + usize::from(frame[eth::HEADER_LEN] & 0x0f) * 4;
            let ports = (l4 + 4 <= frame.len()).then(|| (be16(frame, l4), be16(frame, l4 + 2)));
            match (frame[ipv4::PROTO_AT], ports) {
                (ipv4::VRRP, _) => Punt::Control,
                (ipv4::TCP, Some((s, d))) if s == BGP || d == BGP => Punt::Control,
                (ipv4::UDP, Some((_, d))) if BFD.contains(&d) => Punt::Control,
                _ if eth::dst(frame).is_group() => Punt::Rest,
                _ => Punt::Unicast,
            }
        }
        // Neighbour discovery is ICMPv6 among other things: IPv6 counts as control until it is
        // forwarded.
        Ok(eth::IPV6) => Punt::Control,
        _ => Punt::Rest,
    }
}
