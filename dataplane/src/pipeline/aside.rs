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
use crate::forward::{ForwardMode, Part, dr, xlat};
use crate::io::{Frame, PortQueue};
use crate::packet::tcp::flags::SYN;
use crate::packet::{Flow, Key6, be16, eth, fragment, ipv4, ipv6};
use crate::route::Reach;
use crate::types::{CoreId, ServerId, Tick};
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
        // DR's and TUN's common packets, before all that is seldom asked.
        if conn.is_only_one_way() && hit.dir == Direction::Inbound && flow.ttl > 1 {
            match conn.mode() {
                ForwardMode::dr => return self.direct(lane, frame, flow, hit, now),
                ForwardMode::tun => return self.through_tunnel(lane, frame, flow, hit, now),
                _ => {}
            }
        }
        if let Some(core) = conn.redirected_to() {
            self.keep_redirect::<K>(hit.id, now);
            return self.away(core, lane, frame);
        }
        if conn.is_let_go() {
            return self.refuse(lane, frame, flow, now); // the server has not noticed the end
        }
        let stays = conn.mode() == ForwardMode::local && hit.dir == Direction::Inbound;
        if flow.ttl <= 1 && !stays {
            return self.ttl_expired(lane, frame, now);
        }
        if conn.flags().has(Flags::DISMISSED) {
            return self.farewell(lane, frame, flow, hit, now);
        }
        if conn.flags().has(Flags::QUIC) && self.belongs_elsewhere(frame.bytes(), flow, hit) {
            return self.open_elsewhere(lane, frame, flow, hit, now);
        }
        let only = conn.is_only_watched();
        if conn.awaits_answer() && hit.dir == Direction::Outbound {
            self.assure::<K>(hit.id);
        }
        let conn = K::side(&self.sides).conns.get(hit.id);
        if conn.flags().has(Flags::METERED)
            && let Some(reason) = self.over_limit::<K>(hit.id, flow.ip_len, now)
        {
            return self.counters.dropped(reason);
        }
        if only {
            return match hit.dir {
                Direction::Inbound => self.forward::<K, INBOUND>(lane, frame, flow, hit.id, now),
                Direction::Outbound => self.forward::<K, OUTBOUND>(lane, frame, flow, hit.id, now),
            };
        }
        let conn = K::side(&self.sides).conns.get(hit.id);
        if conn.flags().has(Flags::SIDE) {
            return self.carried(lane, frame, flow, hit, now);
        }
        match hit.dir {
            Direction::Inbound => self.pass_on::<K, INBOUND>(lane, frame, flow, hit, None, now),
            Direction::Outbound => self.pass_on::<K, OUTBOUND>(lane, frame, flow, hit, None, now),
        }
    }

    /// A client's packet for a DR server: a hop less, another MAC.
    #[inline]
    fn direct<K: Family>(
        &mut self,
        lane: usize,
        mut frame: Q::Frame,
        flow: &Flow<K>,
        hit: Hit,
        now: Tick,
    ) {
        let fits = |reach: &Reach| flow.ip_len <= reach.mtu();
        let Some(reach) = self.reach::<K, INBOUND>(hit.id).filter(fits) else {
            return self.pass_on::<K, INBOUND>(lane, frame, flow, hit, None, now);
        };
        dr::pass(frame.bytes_mut(), flow.ttl);
        self.account::<K, INBOUND>(flow, hit.id, Way::of(hit.dir, true), now);
        self.emit(reach, frame);
    }

    /// A client's packet for a TUN server: wrapped, if its way is known and nothing is to be cut
    /// or clamped; else [`Worker::pass_on`] does it.
    #[inline]
    fn through_tunnel<K: Family>(
        &mut self,
        lane: usize,
        mut frame: Q::Frame,
        flow: &Flow<K>,
        hit: Hit,
        now: Tick,
    ) {
        let conn = K::side(&self.sides).conns.get(hit.id);
        let server = self.servers.get(conn.server_id());
        let (tunnel, reach) = server.map_or((None, None), |s| (s.tunnel, s.reach));
        let (Some((tunnel, ends)), Some(reach), 0) = (tunnel, reach, flow.says & SYN) else {
            return self.pass_on::<K, INBOUND>(lane, frame, flow, hit, None, now);
        };
        let link = match self.path_mtus.is_empty() {
            true => reach.mtu(),
            false => self.path_mtus.bounded(ends.addrs().1, reach.mtu(), now),
        };
        if usize::from(flow.ip_len) + tunnel.grows(ends) > usize::from(link) {
            return self.pass_on::<K, INBOUND>(lane, frame, flow, hit, None, now);
        }
        if let Err(reason) = self.wrap(&mut frame, flow, tunnel, ends) {
            return self.counters.dropped(reason);
        }
        self.account::<K, INBOUND>(flow, hit.id, Way::of(hit.dir, true), now);
        self.emit(reach, frame);
    }

    /// Passes a packet on that is not simply rewritten: wrapped, translated, as it is, a part of
    /// a datagram, or to be cut into parts.
    #[inline(never)]
    pub(super) fn pass_on<K: Family, const DIR: bool>(
        &mut self,
        lane: usize,
        mut frame: Q::Frame,
        flow: &Flow<K>,
        hit: Hit,
        part: Option<Part>,
        now: Tick,
    ) {
        let next = match self.next_hop::<K, DIR>(hit.id) {
            Ok(next) => next,
            Err(reason) => return self.counters.dropped(reason),
        };
        let conn = K::side_mut(&mut self.sides).conns.get_mut(hit.id);
        let (flags, server, mode) = (conn.flags(), conn.server_id(), conn.mode());
        let wrapped = DIR == INBOUND && mode == ForwardMode::tun;
        if DIR == INBOUND && mode == ForwardMode::local {
            self.account::<K, DIR>(flow, hit.id, Way::InputOnly, now);
            return self.punt(lane, frame, Punt::Unicast, now); // delivered here: no hop less
        }
        if DIR == OUTBOUND {
            conn.answered();
        }
        let tunnel = match self.snapshot.server(server) {
            Some(record) if wrapped => record.tunnelled().map(|t| (t, record.address.ip())),
            _ => None,
        };
        let grows = match tunnel {
            Some((tunnel, to)) => i32::from(tunnel.overhead(to)),
            None if wrapped => return self.counters.dropped(DropReason::NoServer),
            None if flags.has(Flags::TRANSLATED) => xlat::grows(frame.bytes(), flow, part.as_ref()),
            None => 0,
        };
        // What fits, in the packet's own terms.
        let link = match tunnel {
            Some((_, to)) => self.path_mtus.bounded(to, self.mtu(next), now),
            None => self.mtu(next),
        };
        let mtu = i32::from(link) - grows;
        let is_too_big = i32::from(flow.ip_len) > mtu;
        let no_pmtu_disc = wrapped && !self.snapshot.rules.pmtu_disc;
        // A part of a datagram over IPv6 may be cut by who sends it, and that is the director.
        let own_part = (mode.shares_addresses() || flags.has(Flags::SIDE))
            && part.is_some_and(|part| usize::from(part.header_at) == ipv6::END);
        if is_too_big && !own_part && !may_be_cut(frame.bytes(), no_pmtu_disc) {
            return self.too_big(lane, frame, mtu.clamp(0, 0xffff) as u16, now);
        }
        if mode == ForwardMode::tun && part.is_none() {
            self.clamp_to_tunnel(&mut frame, flow, server, now);
        }
        let done = if let Some((tunnel, to)) = tunnel {
            let ends = self.ends_to(server, to);
            ends.and_then(|ends| self.wrap(&mut frame, flow, tunnel, ends))
        } else if flags.has(Flags::TRANSLATED) {
            let flow = flow.with_key(flow.key.widened());
            let conn = self.sides.v6.conns.get(hit.id);
            let id = self.ids.next16();
            xlat::rewrite(&mut frame, &flow, conn, hit.dir, part.as_ref(), id)
        } else {
            let conn = K::side(&self.sides).conns.get(hit.id);
            match part {
                _ if mode.is_one_way() => dr::pass(frame.bytes_mut(), flow.ttl),
                Some(part) => K::rewrite_part(frame.bytes_mut(), flow, conn, hit.dir, &part),
                None => K::rewrite(frame.bytes_mut(), flow, conn, hit.dir),
            }
            Ok(())
        };
        if let Err(reason) = done {
            return self.counters.dropped(reason);
        }
        let way = Way::of(hit.dir, flags.has(Flags::ONE_WAY));
        self.account::<K, DIR>(flow, hit.id, way, now);
        if !is_too_big {
            return self.send_to(next, frame, now);
        }
        match fragment::cut(frame, link, &mut self.ids) {
            Ok(pieces) => {
                self.counters.generated.add(pieces.len() as u64 - 1);
                for piece in pieces {
                    self.send_to(next, piece, now);
                }
            }
            Err(reason) => self.counters.dropped(reason),
        }
    }

    /// Puts a packet into a tunnel.
    #[inline]
    pub(super) fn wrap<K: Family>(
        &mut self,
        frame: &mut Q::Frame,
        flow: &Flow<K>,
        tunnel: Tunnel,
        ends: Ends,
    ) -> Result<(), DropReason> {
        let hash = match tunnel.has_ports() {
            true => K::side(&self.sides).conns.hash(&flow.key) as u32,
            false => 0,
        };
        dr::pass(frame.bytes_mut(), flow.ttl);
        let pmtu_disc = self.snapshot.rules.pmtu_disc;
        tun::encapsulate(frame, tunnel, ends, hash, pmtu_disc, &mut self.ids)
    }

    /// The ends of the tunnel to a server, which is at `to`.
    pub(super) fn ends_to(&self, server: ServerId, to: IpAddr) -> Result<Ends, DropReason> {
        if let Some((_, ends)) = self.servers.get(server).and_then(|known| known.tunnel) {
            return Ok(ends);
        }
        let way = self.fib.lookup(to).ok_or(DropReason::NoRoute)?;
        let ends = way.source.and_then(|from| Ends::new(from, to));
        ends.ok_or(DropReason::NoRoute)
    }

    /// The connection between families that an IPv4 packet belongs to: these are kept among the
    /// IPv6 ones.
    #[inline]
    pub(super) fn find_translated<K: Family>(&self, flow: &Flow<K>) -> Option<(Flow<Key6>, Hit)> {
        match flow.key.source().is_ipv6() || self.sides.v6.conns.is_empty() {
            true => None,
            false => self.look_for_translated(flow),
        }
    }

    #[inline(never)]
    fn look_for_translated<K: Family>(&self, flow: &Flow<K>) -> Option<(Flow<Key6>, Hit)> {
        let key = flow.key.widened();
        let conns = &self.sides.v6.conns;
        let hit = conns.lookup(conns.hash(&key), &key)?;
        Some((flow.with_key(key), hit))
    }

    /// For a packet from a virtual address, which may be the answer of a DR or TUN server that is
    /// routed through the director: who owns its connection, and that connection if we do. It
    /// has the client's key, reversed.
    #[inline]
    pub(super) fn find_answered<K: Family>(&self, flow: &Flow<K>) -> Option<(CoreId, Option<Hit>)> {
        match self.snapshot.address_use(flow.key.source().ip()).vip {
            true => Some(self.answered(flow)),
            false => None,
        }
    }

    /// Who owns the connection that a packet would be a DR or TUN server's answer of, and that
    /// connection if we do.
    #[inline(never)]
    pub(super) fn answered<K: Family>(&self, flow: &Flow<K>) -> (CoreId, Option<Hit>) {
        let key = flow.key.reversed();
        let owner = self.steer.owner(&key);
        let conns = &K::side(&self.sides).conns;
        let hit = conns.lookup(conns.hash(&key), &key);
        let hit =
            hit.filter(|h| h.dir == Direction::Inbound && conns.get(h.id).mode().is_one_way());
        let dir = Direction::Outbound;
        (owner, hit.map(|Hit { id, .. }| Hit { id, dir }))
    }

    /// A packet from a virtual address. What is no such answer is the kernel's.
    pub(super) fn answer_past_us<K: Family>(
        &mut self,
        lane: usize,
        frame: Q::Frame,
        flow: &Flow<K>,
        (owner, hit): (CoreId, Option<Hit>),
        now: Tick,
    ) {
        let used = self.snapshot.address_use(flow.key.destination().ip());
        if used.vip || used.local {
            return self.counters.dropped(DropReason::Land);
        }
        if owner != self.steer.me() {
            // Whoever handed it over knew its own key's owner only.
            return self.away(owner, lane, frame);
        }
        match hit {
            Some(hit) => self.aside(lane, frame, flow, hit, now),
            None => self.punt(lane, frame, Punt::Unicast, now),
        }
    }
}

/// Whether a packet may be cut into fragments on its way: IPv4 without DF, and as IPVS has it
/// also with DF inside a tunnel `without_pmtu_disc`. Inside a tunnel over IPv6 as well: the
/// director is that tunnel's source (RFC 8200 5).
pub(super) fn may_be_cut(frame: &[u8], without_pmtu_disc: bool) -> bool {
    let df = |frame| be16(frame, eth::HEADER_LEN + 6) & ipv4::DF != 0;
    eth::ethertype(frame) == Ok(eth::IPV4) && (without_pmtu_disc || !df(frame))
}
