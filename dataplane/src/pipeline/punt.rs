//! What goes to the kernel twin, and how much of it.
//!
//! Each class has its own limit, and the last quarter of the ring to the twin thread is kept for
//! what holds the network together: so no flood that the network can deliver from afar (to an
//! address of the director's own, to its BGP port, a broadcast storm) delays ARP or VRRP. What
//! could come from afar is told from what cannot by its TTL: VRRP and single-hop BFD leave with
//! 255 and pass no router (RFC 9568 5.1.1.3, RFC 5881 5), nor does neighbour discovery
//! (RFC 4861 6.1).
#![forbid(unsafe_code)]

use crate::defense::Policer;
use crate::packet::{be16, eth, ipv4, ipv6};
use crate::types::Tick;

/// How urgent a frame for the kernel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Punt {
    /// ARP and neighbour discovery.
    Neighbours,
    /// VRRP, single-hop BFD, OSPF: routers on the link about each other.
    Routing,
    /// BGP and multihop BFD, which may come from anywhere.
    Sessions,
    /// Unicast to an address that is not Weir's: the kernel's own, it must be supposed.
    Unicast,
    /// Broadcast, multicast, everything else.
    Rest,
}

impl Punt {
    /// Whether the last quarter of the ring is for it.
    pub(super) fn is_urgent(self) -> bool {
        matches!(self, Punt::Neighbours | Punt::Routing)
    }
}

/// One worker's limits for what it passes to the kernel, frames a second. A TAP takes some
/// 40,000 small frames a second (PLATFORM section 6).
pub(crate) struct PuntPolicers {
    neighbours: Policer,
    routing: Policer,
    sessions: Policer,
    unicast: Policer,
    rest: Policer,
}

impl PuntPolicers {
    pub(crate) fn new(now: Tick) -> Self {
        PuntPolicers {
            neighbours: Policer::new(10_000, now),
            routing: Policer::new(5_000, now),
            sessions: Policer::new(20_000, now), // a whole table of routes at once
            unicast: Policer::new(50_000, now),
            rest: Policer::new(5_000, now),
        }
    }

    pub(super) fn admit(&mut self, class: Punt, now: Tick) -> bool {
        match class {
            Punt::Neighbours => self.neighbours.admit(now),
            Punt::Routing => self.routing.admit(now),
            Punt::Sessions => self.sessions.admit(now),
            Punt::Unicast => self.unicast.admit(now),
            Punt::Rest => self.rest.admit(now),
        }
    }
}

/// The class of a frame for the kernel.
pub(super) fn punt_class(frame: &[u8]) -> Punt {
    match eth::ethertype(frame) {
        Ok(eth::ARP) => Punt::Neighbours,
        Ok(eth::IPV4) if frame.len() >= ipv4::END => {
            let l4 = eth::HEADER_LEN + usize::from(frame[eth::HEADER_LEN] & 0x0f) * 4;
            let (proto, ttl) = (frame[ipv4::PROTO_AT], frame[ipv4::TTL_AT]);
            punt_class_of(frame, proto, ttl, l4)
        }
        Ok(eth::IPV6) if frame.len() >= ipv6::END => {
            let (proto, hops) = (frame[ipv6::NEXT_AT], frame[ipv6::HOP_LIMIT_AT]);
            punt_class_of(frame, proto, hops, ipv6::END)
        }
        _ => Punt::Rest,
    }
}

/// The same of an IP packet; `l4` is where what it carries begins.
fn punt_class_of(frame: &[u8], proto: u8, ttl: u8, l4: usize) -> Punt {
    const BGP: u16 = 179;
    const BFD: u16 = 3784;
    const BFD_MULTIHOP: u16 = 4784;
    const OSPF: u8 = 89;
    /// Router and neighbour solicitation and advertisement, redirect.
    const DISCOVERY: std::ops::RangeInclusive<u8> = 133..=137;
    let on_link = ttl == 255;
    let ports = (l4 + 4 <= frame.len()).then(|| (be16(frame, l4), be16(frame, l4 + 2)));
    let kind = frame.get(l4).copied().unwrap_or_default();
    match (proto, ports) {
        (ipv6::ICMP, _) if on_link && DISCOVERY.contains(&kind) => Punt::Neighbours,
        (ipv4::VRRP, _) if on_link => Punt::Routing,
        (ipv4::UDP, Some((_, BFD))) if on_link => Punt::Routing,
        (OSPF, _) if ttl == 1 => Punt::Routing,
        (ipv4::TCP, Some((BGP, _) | (_, BGP))) => Punt::Sessions,
        (ipv4::UDP, Some((_, BFD | BFD_MULTIHOP))) => Punt::Sessions,
        _ if eth::dst(frame).is_group() => Punt::Rest,
        _ => Punt::Unicast,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipv4(proto: u8, ttl: u8, group: bool, ports: (u16, u16)) -> Vec<u8> {
        let mut f = vec![0; 60];
        f[0] = u8::from(group);
        f[12..14].copy_from_slice(&[8, 0]);
        f[14] = 0x45;
        (f[ipv4::TTL_AT], f[ipv4::PROTO_AT]) = (ttl, proto);
        f[34..36].copy_from_slice(&ports.0.to_be_bytes());
        f[36..38].copy_from_slice(&ports.1.to_be_bytes());
        f
    }

    fn ipv6(proto: u8, hops: u8, group: bool, kind: u8) -> Vec<u8> {
        let mut f = vec![0; 74];
        f[0] = u8::from(group);
        f[12..14].copy_from_slice(&[0x86, 0xdd]);
        (f[ipv6::NEXT_AT], f[ipv6::HOP_LIMIT_AT], f[54]) = (proto, hops, kind);
        f
    }

    #[test]
    fn what_cannot_come_from_afar_is_apart_from_what_can() {
        let mut arp = vec![0xff; 60];
        arp[12..14].copy_from_slice(&[8, 6]);
        for (frame, class) in [
            (arp, Punt::Neighbours),
            (ipv6(58, 255, true, 135), Punt::Neighbours),
            (ipv6(58, 64, false, 135), Punt::Unicast),
            (ipv6(58, 64, false, 128), Punt::Unicast),
            (ipv6(58, 1, true, 143), Punt::Rest),
            (ipv6(6, 64, false, 0), Punt::Unicast),
            (ipv6(112, 255, true, 0), Punt::Routing),
            (ipv4(112, 255, true, (0, 0)), Punt::Routing),
            (ipv4(112, 64, false, (0, 0)), Punt::Unicast),
            (ipv4(89, 1, true, (0, 0)), Punt::Routing),
            (ipv4(17, 255, false, (50_000, 3784)), Punt::Routing),
            (ipv4(17, 60, false, (50_000, 3784)), Punt::Sessions),
            (ipv4(17, 60, false, (50_000, 4784)), Punt::Sessions),
            (ipv4(6, 255, false, (50_000, 179)), Punt::Sessions),
            (ipv4(6, 64, false, (179, 50_000)), Punt::Sessions),
            (ipv4(6, 64, false, (50_000, 22)), Punt::Unicast),
            (ipv4(17, 64, true, (67, 68)), Punt::Rest),
            (vec![0; 14], Punt::Rest),
            (
                ipv4(6, 64, false, (50_000, 179))[..34].to_vec(),
                Punt::Unicast,
            ),
        ] {
            assert_eq!(punt_class(&frame), class, "{frame:02x?}");
        }
    }
}
