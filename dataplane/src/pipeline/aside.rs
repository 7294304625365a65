//! Connections whose packets need something else than other addresses and ports in place:
//! DR, TUN, the director itself as a server, and sides of different families.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use super::family::Family;
use super::punt::Punt;
use super::{INBOUND, OUTBOUND};
use crate::conn::Hit;
use crate::conn::entry::Flags;
use crate::conn::state::{Direction, Way};
use crate::counters::DropReason;
use crate::forward::tun::{self, Ends, Tunnel};
use crate::forward::{ForwardMode, dr, xlat};
use crate::io::{Frame, PortQueue};
use crate::packet::{Flow, Key6};
use crate::types::{ServerId, Tick};
use crate::worker::Worker;

impl<Q: PortQueue> Worker<Q> {
    /// A packet of such a connection.
    #[inline(never)]
    pub(super) fn aside<K: Family>(
        &mut self,
        lane: usize,
        frame: Q::Frame,
        flow: &Flow<K>,
        hit: Hit,
        now: Tick,
    ) {
        let conn = K::side(&self.sides).conns.get(hit.id);
        if let Some(core) = conn.redirected_to() {
            self.keep_redirect::<K>(hit.id, now);
            return self.away(core, lane, frame);
        }
        if conn.is_let_go() {
            return self.refuse(lane, frame, flow, now); // the server has not noticed the end
        }
        let mode = conn.mode();
        if mode == ForwardMode::local && hit.dir == Direction::Inbound {
            self.account::<K, INBOUND>(flow, hit.id, Way::InputOnly, now);
            return self.punt(lane, frame, Punt::Unicast, now); // delivered here: no hop less
        }
        if flow.ttl <= 1 {
            return self.ttl_expired(lane, frame, now);
        }
        match hit.dir {
            Direction::Inbound => self.aside_to::<K, INBOUND>(lane, frame, flow, hit, now),
            Direction::Outbound => self.aside_to::<K, OUTBOUND>(lane, frame, flow, hit, now),
        }
    }

    #[inline]
    fn aside_to<K: Family, const DIR: bool>(
        &mut self,
        lane: usize,
        mut frame: Q::Frame,
        flow: &Flow<K>,
        hit: Hit,
        now: Tick,
    ) {
        let next = match self.next_hop::<K, DIR>(hit.id) {
            Ok(next) => next,
            Err(reason) => return self.counters.dropped(reason),
        };
        let conn = K::side_mut(&mut self.sides).conns.get_mut(hit.id);
        let (flags, server) = (conn.flags(), conn.server_id());
        let wrapped = DIR == INBOUND && conn.mode() == ForwardMode::tun;
        if DIR == OUTBOUND {
            conn.answered();
        }
        let tunnel = match self.snapshot.server(server) {
            Some(record) if wrapped => record.tunnel.map(|t| (t, record.address.ip())),
            _ => None,
        };
        let grows = match tunnel {
            Some((tunnel, to)) => i32::from(tunnel.overhead(to)),
            None if wrapped => return self.counters.dropped(DropReason::NoServer),
            None if flags.has(Flags::TRANSLATED) => xlat::grows(frame.bytes(), flow),
            None => 0,
        };
        // What fits, in the packet's own terms.
        let mtu = i32::from(self.mtu(next)) - grows;
        if i32::from(flow.ip_len) > mtu {
            return self.too_big(lane, frame, mtu.clamp(0, 0xffff) as u16, now);
        }
        let done = if let Some((tunnel, to)) = tunnel {
            self.wrap(&mut frame, flow, (server, to), tunnel)
        } else if flags.has(Flags::TRANSLATED) {
            let flow = flow.with_key(flow.key.widened());
            let conn = self.sides.v6.conns.get(hit.id);
            xlat::rewrite(&mut frame, &flow, conn, hit.dir, self.ids.next16())
        } else {
            dr::pass(frame.bytes_mut(), flow.ttl);
            Ok(())
        };
        if let Err(reason) = done {
            return self.counters.dropped(reason);
        }
        let way = Way::of(hit.dir, flags.has(Flags::ONE_WAY));
        self.account::<K, DIR>(flow, hit.id, way, now);
        self.emit(next, frame, now);
    }

    /// Puts a packet into a tunnel to `server`, which is at `to`.
    pub(super) fn wrap<K: Family>(
        &mut self,
        frame: &mut Q::Frame,
        flow: &Flow<K>,
        (server, to): (ServerId, IpAddr),
        tunnel: Tunnel,
    ) -> Result<(), DropReason> {
        let ends = self.own_address_to(server, to);
        let ends = ends.and_then(|from| Ends::new(from, to));
        let ends = ends.ok_or(DropReason::NoRoute)?;
        let hash = K::side(&self.sides).conns.hash(&flow.key) as u32;
        dr::pass(frame.bytes_mut(), flow.ttl);
        let pmtu_disc = true;
        tun::encapsulate(frame, tunnel, ends, hash, pmtu_disc, &mut self.ids)
    }

    /// The director's own address on the way to a server.
    fn own_address_to(&self, server: ServerId, to: IpAddr) -> Option<IpAddr> {
        match self.server_hops.get(server.0 as usize) {
            Some(known) if known.epoch == self.fib.epoch && known.source.is_some() => known.source,
            _ => self.fib.lookup(to)?.source,
        }
    }

    /// The connection between families that an IPv4 packet belongs to: these are kept among the
    /// IPv6 ones.
    pub(super) fn find_translated<K: Family>(&self, flow: &Flow<K>) -> Option<(Flow<Key6>, Hit)> {
        if flow.key.source().is_ipv6() || self.sides.v6.conns.is_empty() {
            return None;
        }
        let key = flow.key.widened();
        let conns = &self.sides.v6.conns;
        let hit = conns.lookup(conns.hash(&key), &key)?;
        Some((flow.with_key(key), hit))
    }

    /// A packet from a virtual address: the answer of a DR or TUN server that is routed through
    /// the director. It has the client's key, reversed; what has none is the kernel's.
    pub(super) fn answer_past_us<K: Family>(
        &mut self,
        lane: usize,
        frame: Q::Frame,
        flow: &Flow<K>,
        now: Tick,
    ) {
        let key = flow.key.reversed();
        let owner = self.steer.owner(&key);
        let used = self.snapshot.address_use(flow.key.destination().ip());
        if used.vip || used.local {
            return self.counters.dropped(DropReason::Land);
        }
        if owner != self.steer.me() {
            // Whoever handed it over knew its own key's owner only.
            return self.away(owner, lane, frame);
        }
        let conns = &K::side(&self.sides).conns;
        match conns.lookup(conns.hash(&key), &key) {
            Some(Hit {
                id,
                dir: Direction::Inbound,
            }) if conns.get(id).mode().is_one_way() => {
                let dir = Direction::Outbound;
                self.aside(lane, frame, flow, Hit { id, dir }, now);
            }
            _ => self.punt(lane, frame, Punt::Unicast, now),
        }
    }
}
