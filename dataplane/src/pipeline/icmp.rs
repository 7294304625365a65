//! ICMP errors about balanced flows.
//!
//! ```text
//!  from clients' side   about VIP -> CIP   to the server, about what it sent
//!  from servers' side   about LIP -> RIP   to the client, about what it sent
//!                       about a tunnel     to the client, about what was inside
//!                       about LIP -> far   to the server that opened it (SNAT)
//! ```
//! The quoted packet's key, reversed, is one of the connection's; that key's owner has it.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};

use super::family::Family;
use super::odd::addresses;
use super::punt::punt_class;
use super::{Arrival, INBOUND, OUTBOUND};
use crate::conn::entry::Flags;
use crate::conn::side::SideId;
use crate::conn::state::Direction;
use crate::conn::{Conn, Hit};
use crate::counters::DropReason;
use crate::forward::{ForwardMode, dr, tun};
use crate::io::{Frame, PortQueue};
use crate::packet::icmp::{self, Message, Quote, Translation};
use crate::packet::{self, Flow, Key, Key4, Key6, be16, eth, ipv4, ipv6};
use crate::types::{Proto, Tick};
use crate::worker::Worker;

/// The connection that an error is about, as far as it matters here.
struct About {
    /// Its place, among the IPv4 or the IPv6 ones.
    hit: Hit,
    v6: bool,
    mode: ForwardMode,
    translated: bool,
    client: SocketAddr,
    virtual_: SocketAddr,
    server: SocketAddr,
    local: SocketAddr,
    /// What is remembered beside its entry.
    record: Option<SideId>,
}

impl About {
    fn of<K: Key>(hit: Hit, v6: bool, conn: &Conn<K>) -> About {
        About {
            hit,
            v6,
            mode: conn.mode(),
            translated: conn.flags().has(Flags::TRANSLATED),
            client: conn.client(),
            virtual_: conn.virtual_(),
            server: conn.server(),
            local: conn.local(),
            record: conn.side(),
        }
    }
}

impl<Q: PortQueue> Worker<Q> {
    /// An ICMP message: an error about a flow goes where the flow's packets come from, all else
    /// is the kernel's.
    #[cold]
    pub(super) fn icmp(&mut self, lane: usize, frame: Q::Frame, arrival: Arrival, now: Tick) {
        let bytes = frame.bytes();
        let found = packet::upper_at(bytes).and_then(|(at, end)| icmp::look(bytes, at, end));
        let class = punt_class(bytes);
        match found {
            Ok(Message::Error(quote)) => self.icmp_error(lane, frame, &quote, arrival, now),
            Ok(Message::Other) if self.snapshot.has_snat() => {
                self.echo(lane, frame, arrival, now);
            }
            Ok(Message::Other) => self.punt(lane, frame, class, now),
            Err(reason) => self.counters.dropped(reason),
        }
    }

    fn icmp_error(
        &mut self,
        lane: usize,
        frame: Q::Frame,
        quote: &Quote,
        arrival: Arrival,
        now: Tick,
    ) {
        let inside = tun::inside(frame.bytes(), quote);
        // A tunnel's packet quotes the client's as it came; all others were sent by us.
        let tunnelled = inside.as_ref().and_then(key_of);
        let answered = key_of(quote).map(|key| key.reversed());
        let echo = |key: &Key6| key.proto == Proto::Icmp;
        let answered = answered.filter(|key| !echo(key) || self.snapshot.has_snat());
        for key in [answered, tunnelled].into_iter().flatten() {
            if arrival == Arrival::Wire {
                let owner = self.steer.owner(&key);
                let ours = owner == self.steer.me();
                // Of a tunnel's packet only the inner key can be anybody's.
                if !ours && (tunnelled.is_none() || Some(key) == tunnelled) {
                    return self.away(owner, lane, frame);
                }
            }
            let Some(about) = self.find_flow(&key) else {
                continue;
            };
            if let Some(core) = self.redirected(&about) {
                return self.away(core, lane, frame);
            }
            let inner = inside.as_ref().filter(|_| Some(key) == tunnelled);
            return self.pass_error(lane, frame, quote, inner, &about, now);
        }
        // Perhaps too little is quoted to tell whose packet was inside a tunnel.
        self.learn_from_outside(frame.bytes(), quote, now);
        let class = punt_class(frame.bytes());
        self.punt(lane, frame, class, now);
    }

    /// The connection of this key, in whichever table it is.
    fn find_flow(&self, key: &Key6) -> Option<About> {
        if let Some(key) = key.unmapped() {
            let conns = &self.sides.v4.conns;
            if let Some(hit) = conns.lookup(conns.hash(&key), &key) {
                return Some(About::of(hit, false, conns.get(hit.id)));
            }
        }
        let conns = &self.sides.v6.conns;
        let hit = conns.lookup(conns.hash(key), key)?;
        Some(About::of(hit, true, conns.get(hit.id)))
    }

    fn redirected(&self, about: &About) -> Option<crate::types::CoreId> {
        match about.v6 {
            true => self.sides.v6.conns.get(about.hit.id).redirected_to(),
            false => self.sides.v4.conns.get(about.hit.id).redirected_to(),
        }
    }

    fn pass_error(
        &mut self,
        lane: usize,
        mut frame: Q::Frame,
        quote: &Quote,
        inner: Option<&Quote>,
        about: &About,
        now: Tick,
    ) {
        let ttl = hops(frame.bytes());
        if ttl <= 1 {
            return self.counters.dropped(DropReason::TtlExpired); // no error about an error
        }
        let (mut quote, mut overhead) = (*quote, 0);
        if let Some(record) = about.record {
            let (dir, ends) = (about.hit.dir, (about.client, about.virtual_));
            overhead = self.put_back(&mut frame, &mut quote, (record, dir), ends);
        }
        let quote = &quote;
        let done = match (about.hit.dir, inner) {
            (Direction::Inbound, Some(inner)) => {
                let tunnel = match about.v6 {
                    true => self.tunnel_of(self.sides.v6.conns.get(about.hit.id), quote),
                    false => self.tunnel_of(self.sides.v4.conns.get(about.hit.id), quote),
                };
                if tunnel.is_some() {
                    self.learn_path_mtu(frame.bytes(), quote, now);
                }
                let from = self.own_address_towards(about);
                match tunnel {
                    Some(overhead) => {
                        let ids = &mut self.ids;
                        icmp::relay(&mut frame, quote, inner, from, overhead, ids)
                            .map(|()| Direction::Outbound)
                    }
                    None => Err(DropReason::IcmpUntranslatable),
                }
            }
            (Direction::Inbound, None) if about.mode == ForwardMode::local => {
                let class = punt_class(frame.bytes());
                return self.punt(lane, frame, class, now);
            }
            // The server sent that packet as it is quoted.
            (Direction::Inbound, None) if about.mode.is_one_way() => {
                return self.pass_whole(frame, about, ttl, now);
            }
            (Direction::Inbound, None) => {
                let router = addresses(frame.bytes()).0;
                let new = Translation {
                    // Routers behind SNAT are nobody's business either (RFC 5508 4.2).
                    src: match about.translated || about.mode == ForwardMode::snat {
                        true => about.local.ip(),
                        false => router,
                    },
                    dst: about.server.ip(),
                    quoted_src: about.server,
                    quoted_dst: about.local,
                    overhead: 0,
                };
                icmp::translate(&mut frame, quote, &new, &mut self.ids).map(|()| Direction::Inbound)
            }
            (Direction::Outbound, _) => {
                let router = addresses(frame.bytes()).0;
                let new = Translation {
                    src: match about.mode {
                        ForwardMode::snat => router, // on the way out, for traceroute
                        _ => about.virtual_.ip(),    // what is behind it is nobody's business
                    },
                    dst: about.client.ip(),
                    quoted_src: about.client,
                    quoted_dst: about.virtual_,
                    overhead,
                };
                icmp::translate(&mut frame, quote, &new, &mut self.ids)
                    .map(|()| Direction::Outbound)
            }
        };
        match done {
            Ok(towards) => self.send_error(frame, about, towards, now),
            Err(reason) => self.counters.dropped(reason),
        }
    }

    /// What a connection's tunnel adds, if `quote` is of that tunnel's.
    fn tunnel_of<K: Family>(&self, conn: &Conn<K>, quote: &Quote) -> Option<u16> {
        let server = self.snapshot.server(conn.server_id())?;
        let to = server.address.ip();
        let tunnel = server.tunnelled().filter(|_| to == quote.dst)?;
        Some(tunnel.overhead(to))
    }

    /// Passes an error on to a DR or TUN server: it is about what that server sent.
    fn pass_whole(&mut self, mut frame: Q::Frame, about: &About, ttl: u8, now: Tick) {
        let server = match about.v6 {
            true => self.sides.v6.conns.get(about.hit.id).server_id(),
            false => self.sides.v4.conns.get(about.hit.id).server_id(),
        };
        let record = self.snapshot.server(server).copied();
        let tunnel = record.and_then(|r| r.tunnelled().map(|t| (t, r.address.ip())));
        let done = match tunnel {
            Some((tunnel, to)) => {
                let flow = Flow { ttl, ..Flow::NONE };
                let ends = self.ends_to(server, to);
                ends.and_then(|ends| self.wrap::<Key4>(&mut frame, &flow, tunnel, ends))
            }
            None => {
                dr::pass(frame.bytes_mut(), ttl);
                Ok(())
            }
        };
        match done {
            Ok(()) => self.send_error(frame, about, Direction::Inbound, now),
            Err(reason) => self.counters.dropped(reason),
        }
    }

    fn send_error(&mut self, frame: Q::Frame, about: &About, towards: Direction, now: Tick) {
        let id = about.hit.id;
        let next = match (about.v6, towards) {
            (false, Direction::Inbound) => self.next_hop::<Key4, INBOUND>(id),
            (false, Direction::Outbound) => self.next_hop::<Key4, OUTBOUND>(id),
            (true, Direction::Inbound) => self.next_hop::<Key6, INBOUND>(id),
            (true, Direction::Outbound) => self.next_hop::<Key6, OUTBOUND>(id),
        };
        match next {
            Ok(next) if frame.bytes().len() <= eth::HEADER_LEN + usize::from(self.mtu(next)) => {
                self.counters.icmp_errors.add(1);
                self.send_to(next, frame, now);
            }
            Ok(_) => self.counters.dropped(DropReason::TooBig),
            Err(reason) => self.counters.dropped(reason),
        }
    }

    /// Who tells a client of a tunnel's trouble: the virtual address over IPv4, as IPVS does, the
    /// director itself over IPv6.
    fn own_address_towards(&self, about: &About) -> IpAddr {
        let vip = about.virtual_.ip();
        if vip.is_ipv4() {
            return vip;
        }
        let way = self.fib.lookup(about.client.ip());
        way.and_then(|way| way.source).unwrap_or(vip)
    }
}

/// The quoted packet's key.
fn key_of(quote: &Quote) -> Option<Key6> {
    let (src, dst) = (quote.source()?, quote.destination()?);
    Some(Key6::new(Proto::from_number(quote.protocol)?, src, dst))
}

/// The TTL or hop limit of a packet that was checked at the door.
pub(super) fn hops(frame: &[u8]) -> u8 {
    match be16(frame, 12) {
        eth::IPV6 => frame[ipv6::HOP_LIMIT_AT],
        _ => frame[ipv4::TTL_AT],
    }
}
