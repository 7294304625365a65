//! What is no whole packet of a flow, and what cannot go on: fragments, packets that ran out of
//! hops or are too big, and what their senders are told.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Arrival;
use crate::counters::DropReason;
use crate::io::{Frame, PortQueue};
use crate::packet::icmp::{Problem, build_error};
use crate::packet::{Kind, be16, be32, eth, ipv4, ipv6};
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
        arrival: Arrival,
        now: Tick,
    ) {
        match kind {
            Kind::Fragment4 | Kind::Fragment6 => {
                self.fragment(lane, frame, kind, arrival, now);
            }
            _ => self.icmp(lane, frame, arrival, now),
        }
    }

    /// A packet whose last hop this is (RFC 1812 5.3.1, RFC 8200 3).
    #[cold]
    pub(super) fn ttl_expired(&mut self, lane: usize, frame: Q::Frame, now: Tick) {
        let from = self.own_address(frame.bytes());
        let what = (Problem::TtlExpired, DropReason::TtlExpired);
        self.tell_sender(lane, frame, what, from, now);
    }

    /// A packet, as it came, of which the next link takes `mtu` bytes at most (RFC 1191,
    /// RFC 8201).
    #[cold]
    pub(super) fn too_big(&mut self, lane: usize, frame: Q::Frame, mtu: u16, now: Tick) {
        let from = self.own_address(frame.bytes());
        let what = (Problem::TooBig { mtu }, DropReason::TooBig);
        self.tell_sender(lane, frame, what, from, now);
    }

    /// Drops a packet and tells its sender why, within the limit for answers.
    pub(super) fn tell_sender(
        &mut self,
        lane: usize,
        mut frame: Q::Frame,
        (problem, reason): (Problem, DropReason),
        from: IpAddr,
        now: Tick,
    ) {
        self.counters.dropped(reason);
        // Apart: no flood at ports where nothing is keeps clients from learning the size that fits.
        let limit = match problem {
            Problem::TooBig { .. } => &mut self.sizes_told,
            _ => &mut self.answers,
        };
        if limit.admit(now) && build_error(&mut frame, problem, from, &mut self.ids) {
            self.counters.generated.add(1);
            self.transmit(lane, frame);
        }
    }

    /// The director's address for an error about a packet: with IPv4 the virtual or local one
    /// that the packet went to, as IPVS does; else its own on the way back.
    fn own_address(&self, frame: &[u8]) -> IpAddr {
        let (src, dst) = addresses(frame);
        let used = self.snapshot.address_use(dst);
        if dst.is_ipv4() && (used.vip || used.local) {
            return dst;
        }
        let way = self.fib.lookup(src);
        way.and_then(|way| way.source).unwrap_or(dst)
    }
}

/// Source and destination of an IP packet that was checked at the door.
pub(super) fn addresses(frame: &[u8]) -> (IpAddr, IpAddr) {
    match be16(frame, 12) {
        eth::IPV6 => {
            let at = |at| IpAddr::V6(Ipv6Addr::from(ipv6::be128(frame, at)));
            (at(ipv6::SRC_AT), at(ipv6::DST_AT))
        }
        _ => {
            let at = |at| IpAddr::V4(Ipv4Addr::from(be32(frame, at)));
            (at(ipv4::SRC_AT), at(ipv4::DST_AT))
        }
    }
}
