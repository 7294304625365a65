//! Connections whose packets need something else than other addresses and ports in place:
//! DR, TUN, the director itself as a server, and sides of different families.
#![forbid(unsafe_code)]

use super::family::Family;
use super::punt::Punt;
use super::{INBOUND, OUTBOUND};
use crate::conn::Hit;
use crate::conn::entry::Flags;
use crate::conn::state::{Direction, Way};
use crate::counters::DropReason;
use crate::forward::{ForwardMode, dr, xlat};
use crate::io::{Frame, PortQueue};
use crate::packet::{Flow, Key6};
use crate::types::Tick;
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
        let conn = K::side_mut(&mut self.sides).conns.get_mut(hit.id);
        let (flags, mode) = (conn.flags(), conn.mode());
        if DIR == OUTBOUND {
            conn.answered();
        }
        let way = Way::of(hit.dir, flags.has(Flags::ONE_WAY));
        if flags.has(Flags::TRANSLATED) {
            let id = self.ids.next16();
            let flow = flow.with_key(flow.key.widened());
            let conn = self.sides.v6.conns.get(hit.id);
            if let Err(reason) = xlat::rewrite(&mut frame, &flow, conn, hit.dir, id) {
                return self.counters.dropped(reason);
            }
        } else {
            dr::pass(frame.bytes_mut(), flow.ttl);
            let _ = mode;
        }
        self.account::<K, DIR>(flow, hit.id, way, now);
        self.send_on::<K, DIR>(lane, frame, hit.id, now);
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
