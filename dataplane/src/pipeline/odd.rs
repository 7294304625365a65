//! What is no whole packet of a flow, and what cannot go on: fragments, ICMP, packets that ran
//! out of hops or are too big.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Arrival;
use super::punt::punt_class;
use crate::counters::DropReason;
use crate::io::{Frame, PortQueue};
use crate::packet::{Kind, be32, ipv4, ipv6};
use crate::types::Tick;
use crate::worker::Worker;

impl<Q: PortQueue> Worker<Q> {
    /// A fragment or an ICMP message.
    #[cold]
    pub(super) fn odd(
        &mut self,
        lane: usize,
        frame: Q::Frame,
        kind: Kind,
        _arrival: Arrival,
        now: Tick,
    ) {
        let class = punt_class(frame.bytes());
        let bytes = frame.bytes();
        let dst = match kind {
            Kind::Fragment4 => IpAddr::V4(Ipv4Addr::from(be32(bytes, ipv4::DST_AT))),
            Kind::Fragment6 => IpAddr::V6(Ipv6Addr::from(ipv6::be128(bytes, ipv6::DST_AT))),
            _ => return self.punt(lane, frame, class, now),
        };
        let used = self.snapshot.address_use(dst);
        match used.vip || used.local {
            true => self.counters.dropped(DropReason::Fragment),
            false => self.punt(lane, frame, class, now),
        }
    }

    /// A packet whose last hop this is.
    #[cold]
    pub(super) fn ttl_expired(&mut self, _lane: usize, _frame: Q::Frame, _now: Tick) {
        self.counters.dropped(DropReason::TtlExpired);
    }

    /// A finished packet that does not fit the link it is to leave by. `from`: where it came in.
    #[cold]
    pub(super) fn too_big(&mut self, _from: usize, _frame: Q::Frame, _mtu: u16) {
        self.counters.dropped(DropReason::TooBig);
    }
}
