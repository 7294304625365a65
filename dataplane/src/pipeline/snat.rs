//! SNAT: what real servers open themselves leaves with an address of a pool.
//!
//! ```text
//!  real server -> far    RIP:port -> far:port   leaves as   pool:port' -> far:port    Inbound
//!  far -> real server    far:port -> pool:port' leaves as   far:port   -> RIP:port    Outbound
//! ```
//! It is FULL-NAT the other way round, and the same entry: who opens is the client, and the far end
//! is both what the client asked for and the server. So ports come from the same leases, answers
//! come home to the core that opened without a redirect, and packets of connections that stand go
//! the ordinary way. What is different: the next hop to the far end is a connection's own
//! ([`find_far_hop`](Worker::find_far_hop)), and echoes are flows too.
//!
//! What is for the kernel (its own addresses, no route, no rule) never gets here or is passed on.
//! A packet that a rule takes and that opens nothing (a segment in the middle of a stream) is
//! refused, not leaked with an inside address.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};

use super::family::Family;
use super::open::{Refusal, pick_server};
use super::punt::punt_class;
use super::wanted::{bad_source, may_open};
use super::{Arrival, Next};
use crate::conn::entry::NewConn;
use crate::conn::state::Direction;
use crate::conn::{ConnId, Hit};
use crate::counters::DropReason;
use crate::forward::ForwardMode;
use crate::io::{Frame, PortQueue};
use crate::lip::Supply;
use crate::packet::icmp::Echo;
use crate::packet::{self, Flow, Key6, eth, ipv4, ipv6};
use crate::route::{Fib, NeighbourId};
use crate::sched::Request;
use crate::service::{Asked, Service, Snapshot};
use crate::types::{PortId, Proto, ServerId, Tick};
use crate::worker::Worker;

/// Further addresses of a pool that are tried when the chosen one has no port left.
const MORE_ADDRESSES: usize = 8;

impl<Q: PortQueue> Worker<Q> {
    /// Opens the connection of a packet that is for nobody here and arrived on `port`, if a rule
    /// says so.
    #[cold]
    pub(super) fn open_outward<K: Family>(
        &mut self,
        port: PortId,
        flow: &Flow<K>,
        now: Tick,
    ) -> Result<ConnId, Refusal> {
        let k = &flow.key;
        let Some(pool) = pool_for(&self.snapshot, &self.fib, k) else {
            return Err(Refusal::Kernel);
        };
        if self.find_answered_marked(flow).is_some() {
            return Err(Refusal::Kernel); // the caller looks for it again
        }
        // Nobody outside opens anything in a server's name: answers would go to that.
        let back = self.fib.lookup(k.source().ip());
        if back.is_none_or(|way| way.hop.port != port) {
            return Err(Refusal::Kernel);
        }
        if bad_source(k.source()) {
            return Err(DropReason::BadSource.into());
        }
        if !may_open(&self.snapshot, flow) {
            return Err(Refusal::NoConnection);
        }
        self.defense.admit(pool, k.source().ip())?;
        if self.limits.is_on() {
            self.limits.admit(pool, k.source().ip(), now)?;
        }
        let request = Request {
            source: k.source(),
            destination: k.destination().ip(),
            key: None,
            now,
        };
        let (loads, memories) = (&mut self.loads, &mut self.memories);
        let chosen = pick_server(pool, &request, loads, memories);
        let chosen = chosen.map_err(|_| DropReason::SnatExhausted)?;
        let address = self.snapshot.server(chosen).map(|server| server.address);
        let address = address.ok_or(DropReason::SnatExhausted)?;
        if let Some(id) = self.open_from(k, (chosen, address.ip()), now)? {
            return Ok(id);
        }
        for (id, address) in self.other_addresses(k, chosen) {
            if let Some(id) = self.open_from(k, (id, address), now)? {
                return Ok(id);
            }
        }
        Err(DropReason::SnatExhausted.into())
    }

    /// Other addresses of the pool that `chosen` is of, which may take a connection.
    fn other_addresses<K: Family>(
        &mut self,
        k: &K,
        chosen: ServerId,
    ) -> arrayvec::ArrayVec<(ServerId, IpAddr), MORE_ADDRESSES> {
        let mut others = arrayvec::ArrayVec::new();
        let Some(pool) = pool_for(&self.snapshot, &self.fib, k) else {
            return others;
        };
        let candidates = pool.servers.iter().filter(|c| c.weight > 0);
        let candidates = candidates.filter(|c| c.id != chosen && !self.loads.overloaded(c.id));
        others.extend(
            candidates
                .map(|c| (c.id, c.address.ip()))
                .take(MORE_ADDRESSES),
        );
        others
    }

    /// Opens a connection that leaves with this address of a pool, if it has a port left.
    fn open_from<K: Family>(
        &mut self,
        k: &K,
        (id, address): (ServerId, IpAddr),
        now: Tick,
    ) -> Result<Option<ConnId>, DropReason> {
        let server = self.snapshot.server(id);
        let pool = server.and_then(|server| self.snapshot.service(server.service));
        let given = pool.map(|pool| pool.policy.snat).unwrap_or_default();
        let far = k.destination();
        let side = K::side_mut(&mut self.sides);
        let Some(bare) = K::between(k.proto(), far, SocketAddr::new(address, 0)) else {
            return Ok(None); // of the other family
        };
        // One walk for each far end and address, so that a port rests as long as can be.
        let cursor = side.conns.hash(&bare) as u32;
        let supply = Supply::one(&address, given.ports);
        let leased =
            side.local_ports
                .lease_from(&self.steer, &side.conns, k.proto(), cursor, far, supply);
        let Some(leased) = leased else {
            return Ok(None);
        };
        self.give_up_early::<K>(leased.early);
        let new = NewConn {
            inbound: *k,
            outbound: leased.reply,
            server_id: id,
            mode: ForwardMode::snat,
            flags: Default::default(),
        };
        let id = self.insert(&new, now)?;
        let conn = K::side_mut(&mut self.sides).conns.get_mut(id);
        conn.set_far_hop(NeighbourId::NONE, 0);
        self.counters.snat_opened.add(1);
        Ok(Some(id))
    }

    /// The next hop to a connection's far end, kept in its entry.
    pub(super) fn find_far_hop<K: Family>(&mut self, id: ConnId) -> Result<Next, DropReason> {
        let conn = K::side(&self.sides).conns.get(id);
        let (hop, epoch) = conn.far_hop();
        if epoch == self.fib.epoch
            && let Some(reach) = self.neighbours.get(hop)
        {
            return Ok(Next::Known(reach));
        }
        let way = self.fib.lookup(conn.server().ip());
        let way = way.ok_or(DropReason::NoRoute)?;
        let Some(hop) = self.neighbours.find(way.hop) else {
            return Ok(Next::Ask(way.hop));
        };
        let epoch = self.fib.epoch;
        let conn = K::side_mut(&mut self.sides).conns.get_mut(id);
        conn.set_far_hop(hop, epoch);
        Ok(match self.neighbours.get(hop) {
            Some(reach) => Next::Known(reach),
            None => Next::Ask(way.hop),
        })
    }

    /// An ICMP message that is no error: perhaps an echo that goes out, or the answer to one.
    #[cold]
    pub(super) fn echo(&mut self, lane: usize, frame: Q::Frame, arrival: Arrival, now: Tick) {
        let Some((flow, echo)) = echo_in(frame.bytes()) else {
            let class = punt_class(frame.bytes());
            return self.punt(lane, frame, class, now);
        };
        match flow.key.unmapped() {
            Some(key) => self.echo_of(lane, frame, &flow.with_key(key), echo, arrival, now),
            None => self.echo_of(lane, frame, &flow, echo, arrival, now),
        }
    }

    fn echo_of<K: Family>(
        &mut self,
        lane: usize,
        frame: Q::Frame,
        flow: &Flow<K>,
        echo: Echo,
        arrival: Arrival,
        now: Tick,
    ) {
        let to = flow.key.destination().ip();
        let used = self.snapshot.address_use(to);
        // Replies come to a pool; requests go to nobody here.
        let concerns = match echo.asks {
            true => !used.vip && !used.local && !self.fib.is_own(to),
            false => used.local,
        };
        let class = punt_class(frame.bytes());
        if !concerns {
            return self.punt(lane, frame, class, now);
        }
        let owner = self.steer.owner(&flow.key);
        if arrival == Arrival::Wire && owner != self.steer.me() {
            return self.away(owner, lane, frame);
        }
        let conns = &K::side(&self.sides).conns;
        if let Some(hit) = conns.lookup(conns.hash(&flow.key), &flow.key) {
            return self.carry_on(lane, frame, flow, hit, now);
        }
        if !echo.asks {
            return self.punt(lane, frame, class, now);
        }
        let port = self.lanes[lane].port.id;
        match self.open_outward(port, flow, now) {
            Ok(id) => {
                let dir = Direction::Inbound;
                self.carry_on(lane, frame, flow, Hit { id, dir }, now);
            }
            Err(Refusal::Drop(reason) | Refusal::Reset(reason)) => self.counters.dropped(reason),
            Err(_) => self.punt(lane, frame, class, now),
        }
    }
}

/// The pool of a packet that would leave the director, if a rule says so.
fn pool_for<'a, K: Family>(snapshot: &'a Snapshot, fib: &Fib, k: &K) -> Option<&'a Service> {
    let (from, to) = (k.source().ip(), k.destination());
    let used = snapshot.address_use(to.ip());
    if used.vip || used.local || fib.is_own(to.ip()) {
        return None;
    }
    let way = fib.lookup(to.ip())?;
    snapshot.snat_pool(&Asked {
        proto: k.proto(),
        source: from,
        destination: to,
        port: way.hop.port,
    })
}

/// The flow of an echo message in a frame that was checked at the door.
fn echo_in(frame: &[u8]) -> Option<(Flow<Key6>, Echo)> {
    let (at, end) = packet::upper_at(frame).ok()?;
    let protocol = match eth::ethertype(frame) {
        Ok(eth::IPV6) => ipv6::ICMP,
        _ => ipv4::ICMP,
    };
    let echo = Echo::read(protocol, frame.get(at..end)?)?;
    let ports = echo.ports();
    let (src, dst) = super::odd::addresses(frame);
    let (src, dst) = (
        SocketAddr::new(src, (ports >> 16) as u16),
        SocketAddr::new(dst, ports as u16),
    );
    let flow = Flow {
        key: Key6::new(Proto::Icmp, src, dst),
        l4: at as u16,
        ip_len: (end - eth::HEADER_LEN) as u16,
        says: 0,
        ttl: super::icmp::hops(frame),
    };
    Some((flow, echo))
}
