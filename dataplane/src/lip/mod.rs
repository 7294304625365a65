//! Local addresses and ports for FULL-NAT and SNAT, chosen so that the server's answers come back to
//! the worker that opened the connection.
//!
//! The Toeplitz hash is linear: hash(rip, lip, rport, lport) = hash(rip, lip, rport, 0) xor
//! part(lport). So the ports are grouped once by the low 7 bits of their part (their *class*),
//! and the ports that lead a wanted bucket's owner to this worker are one table look-up away.
//! No flow director, no rte_flow, no port mask.
//!
//! There is no lease to remember or to leak: a port is free when its reply key is not in the
//! connection table.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::slice;

use arrayvec::ArrayVec;

use crate::conn::entry::Flags;
use crate::conn::state::State;
use crate::conn::{Conn, ConnId, ConnTable, Hit};
use crate::packet::Key;
use crate::service::{LocalAddresses, PortRange};
use crate::steer::{BUCKETS, Steer, UselessKey};
use crate::types::{Proto, ServerId};

#[cfg(test)]
mod tests;

/// Candidates looked at for one connection.
const PROBES: u32 = 64;
/// Candidates worked out together: their index lines load while others open connections.
const AHEAD: usize = 4;
/// Ports that lead to one bucket, about.
const PORTS_OF_A_CLASS: u32 = (1 << 16) / BUCKETS as u32;
/// Cursors, shared by servers whose ids collide: sharing one only makes it roll faster.
const CURSORS: usize = 4096;

/// A free local address and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leased<K> {
    /// The key of the server's answers: its destination is what the server will see as its
    /// client.
    pub reply: K,
    /// A closing connection that has to give this port up early.
    pub early: Option<ConnId>,
}

/// What there is to lease: addresses of either family, and which of their ports.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Supply<'a> {
    pub(crate) v4: &'a [Ipv4Addr],
    pub(crate) v6: &'a [Ipv6Addr],
    pub(crate) ports: PortRange,
}

impl<'a> Supply<'a> {
    /// One address.
    pub(crate) fn one(address: &'a IpAddr, ports: PortRange) -> Supply<'a> {
        let (v4, v6) = match address {
            IpAddr::V4(address) => (slice::from_ref(address), [].as_slice()),
            IpAddr::V6(address) => ([].as_slice(), slice::from_ref(address)),
        };
        Supply { v4, v6, ports }
    }

    /// The key of a server's answers to local address number `at`, but for its port; `None` without
    /// such an address.
    #[inline(always)]
    fn reply<K: Key>(&self, proto: Proto, server: SocketAddr, at: u32) -> Option<K> {
        let lip = match server {
            SocketAddr::V4(_) => IpAddr::V4(*self.v4.get(at as usize)?),
            SocketAddr::V6(_) => IpAddr::V6(*self.v6.get(at as usize)?),
        };
        K::between(proto, server, SocketAddr::new(lip, 0))
    }

    fn count_towards(&self, server: SocketAddr) -> usize {
        match server {
            SocketAddr::V4(_) => self.v4.len(),
            SocketAddr::V6(_) => self.v6.len(),
        }
    }
}

/// One worker's choice of local ports, for the connections of one table.
#[derive(Debug)]
pub struct LocalPorts<K> {
    /// The buckets this worker owns.
    own: Vec<u8>,
    cursors: Box<[Cursor<K>]>,
}

/// Where a server's walk over its candidates is: a few ports that lead to one bucket, the same of
/// each address, the next few, and so on to the next of this worker's buckets. Counted, not
/// divided.
#[derive(Debug, Clone)]
struct Cursor<K> {
    /// Candidates not yet tried, the next one last. Worked out before they are wanted, and some at
    /// once: an opening would wait for its index line, and for a page walk alone where these
    /// overlap (1 k flows: 25 of 240 ns; the ports' own cache lines are used up, too).
    ahead: ArrayVec<Candidate<K>, AHEAD>,
    /// The place of their address in its list.
    ahead_of: u32,
    address: u32,
    bucket: u32,
    /// Which of the ports that lead to the bucket.
    port: u32,
    /// One of the addresses has more of them than those looked at: their classes differ in size.
    more: bool,
}

/// A local address and port, as the reply key that it would have.
#[derive(Debug, Clone, Copy)]
struct Candidate<K> {
    reply: K,
    hash: u64,
}

impl<K: Key> Candidate<K> {
    /// Whether it is the port of such an address for such a server still: it may have been worked
    /// out for another server, or of an older address list.
    #[inline(always)]
    fn fits(&self, proto: Proto, server: SocketAddr, at: u32, supply: &Supply<'_>) -> bool {
        let reply = &self.reply;
        supply.reply(proto, server, at)
            == Some(K::of(reply.addrs(), reply.ports() & !0xffff, reply.proto()))
            && supply.ports.contains(reply.dport())
    }
}

/// The server's side of a lease, and where it looks what is free.
#[derive(Clone, Copy)]
struct Wanted<'a, K: Key> {
    steer: &'a Steer,
    conns: &'a ConnTable<K>,
    proto: Proto,
    server: SocketAddr,
    supply: Supply<'a>,
}

impl<K: Key> Wanted<'_, K> {
    /// The reply key with local address number `at`, but for its port; `None` without an address.
    #[inline]
    fn bare(&self, at: u32) -> Option<K> {
        self.supply.reply(self.proto, self.server, at)
    }

    /// Of the ports there are to lease, those that lead answers to `bucket`.
    #[inline]
    fn ports(&self, bare: K, bucket: u8) -> &[u16] {
        let toeplitz = self.steer.toeplitz();
        let class = (bare.toeplitz(toeplitz) as usize ^ usize::from(bucket)) % BUCKETS;
        let v6 = self.server.is_ipv6();
        match self.supply.ports {
            PortRange::ALL => toeplitz.ports_of(class, v6),
            some => toeplitz.ports_within(class, v6, some.first(), some.last()),
        }
    }
}

impl<K: Key> Cursor<K> {
    /// Takes the next candidate; `None` without an address, or when no port leads here.
    fn next(&mut self, own: &[u8], wanted: &Wanted<'_, K>) -> Option<Candidate<K>> {
        let (proto, server, supply) = (wanted.proto, wanted.server, &wanted.supply);
        let mut next = self.ahead.pop();
        if next.is_some_and(|next| !next.fits(proto, server, self.ahead_of, supply)) {
            self.ahead.clear();
            next = None;
        }
        if next.is_none() {
            self.look_ahead(own, wanted);
            next = self.ahead.pop();
        }
        if self.ahead.is_empty() {
            self.look_ahead(own, wanted);
        }
        next
    }

    /// Works candidates out where there are none left, if there are any at all, and starts loading their index lines.
    #[inline(never)]
    fn look_ahead(&mut self, own: &[u8], wanted: &Wanted<'_, K>) {
        let addresses = wanted.supply.count_towards(wanted.server) as u32;
        // Of few ports, none may lead to a bucket: through all of them once.
        for _ in 0..=BUCKETS {
            if self.address >= addresses {
                self.address = 0; // the list became shorter
            }
            let (Some(bare), Some(bucket)) =
                (wanted.bare(self.address), own.get(self.bucket as usize))
            else {
                return;
            };
            let ports = wanted.ports(bare, *bucket);
            let ports = ports.get(self.port as usize..).unwrap_or(&[]);
            self.ahead_of = self.address;
            self.more |= ports.len() > AHEAD;
            for port in ports.iter().take(AHEAD) {
                let ports = bare.ports() | u32::from(*port);
                let reply = K::of(bare.addrs(), ports, bare.proto());
                let hash = wanted.conns.hash(&reply);
                wanted.conns.prefetch_index(hash);
                self.ahead.push(Candidate { reply, hash });
            }
            self.address += 1;
            if self.address >= addresses {
                self.address = 0;
                self.port += AHEAD as u32;
                if !std::mem::take(&mut self.more) {
                    self.port = 0;
                    self.bucket += 1;
                    if self.bucket as usize >= own.len() {
                        self.bucket = 0;
                    }
                }
            }
            if !self.ahead.is_empty() {
                return;
            }
        }
    }
}

impl<K: Key> LocalPorts<K> {
    /// Cursors start at places drawn from `seed`.
    ///
    /// # Errors
    /// [`UselessKey`].
    pub fn new(steer: &Steer, seed: u64) -> Result<LocalPorts<K>, UselessKey> {
        steer.toeplitz().check()?;
        let mut x = seed | 1;
        let own: Vec<u8> = steer.buckets_of(steer.me()).collect();
        let buckets = own.len().max(1) as u64;
        let cursors = (0..CURSORS)
            .map(|_| {
                // xorshift64: only to begin at different places in each life
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                Cursor {
                    ahead: ArrayVec::new(),
                    ahead_of: 0,
                    address: (x >> 48) as u32, // the first one if there are not so many
                    bucket: ((x >> 32 & 0xffff) % buckets) as u32,
                    port: x as u32 % PORTS_OF_A_CLASS,
                    more: false,
                }
            })
            .collect();
        Ok(LocalPorts { own, cursors })
    }

    /// The next free local address and port towards `server`, oldest use first. Under shortage
    /// the port of a connection in TIME_WAIT or CLOSE, which has to go then.
    #[inline(always)]
    #[must_use]
    pub fn lease(
        &mut self,
        steer: &Steer,
        conns: &ConnTable<K>,
        proto: Proto,
        server_id: ServerId,
        server: SocketAddr,
        addresses: &LocalAddresses,
    ) -> Option<Leased<K>> {
        let from = Supply {
            v4: &addresses.v4,
            v6: &addresses.v6,
            ports: PortRange::ALL,
        };
        self.lease_from(steer, conns, proto, server_id.0, server, from)
    }

    /// The same of some addresses and ports. Who names the same `cursor` walks on together: best
    /// one for each server and address, but any will do.
    #[inline(always)]
    pub(crate) fn lease_from(
        &mut self,
        steer: &Steer,
        conns: &ConnTable<K>,
        proto: Proto,
        cursor: u32,
        server: SocketAddr,
        supply: Supply<'_>,
    ) -> Option<Leased<K>> {
        let at = cursor as usize % CURSORS;
        let cursor = &mut self.cursors[at];
        let wanted = Wanted {
            steer,
            conns,
            proto,
            server,
            supply,
        };
        // Nearly always there is one that was worked out before, and free.
        if let [.., next] = cursor.ahead[..]
            && next.fits(proto, server, cursor.ahead_of, &supply)
            && conns.lookup(next.hash, &next.reply).is_none()
        {
            cursor.ahead.pop();
            if cursor.ahead.is_empty() {
                cursor.look_ahead(&self.own, &wanted);
            }
            let (reply, early) = (next.reply, None);
            return Some(Leased { reply, early });
        }
        self.look_for(at, &wanted)
    }

    /// Goes through candidates until one is free.
    #[inline(never)]
    fn look_for(&mut self, cursor: usize, wanted: &Wanted<'_, K>) -> Option<Leased<K>> {
        let cursor = &mut self.cursors[cursor];
        let conns = wanted.conns;
        let mut early = None;
        for _ in 0..PROBES {
            let Some(Candidate { reply, hash }) = cursor.next(&self.own, wanted) else {
                break;
            };
            let Some(Hit { id, .. }) = conns.lookup(hash, &reply) else {
                return Some(Leased { reply, early: None });
            };
            let conn = conns.get(id);
            if may_go(conn) && early.is_none_or(|(c, _)| is_safer(conn, c)) {
                early = Some((conn, (reply, id)));
            }
        }
        early.map(|(_, (reply, id))| Leased {
            reply,
            early: Some(id),
        })
    }

    /// As [`LocalPorts::lease`], at this local address and no other: `server` knows the client by
    /// it already.
    #[must_use]
    pub fn lease_at(
        &mut self,
        steer: &Steer,
        conns: &ConnTable<K>,
        proto: Proto,
        server_id: ServerId,
        server: SocketAddr,
        local: IpAddr,
    ) -> Option<Leased<K>> {
        let from = Supply::one(&local, PortRange::ALL);
        self.lease_from(steer, conns, proto, server_id.0, server, from)
    }
}

/// Whether a connection may lose its local port before its time: it is over, or one datagram's
/// that waits for an answer.
fn may_go<K: Key>(conn: &Conn<K>) -> bool {
    conn.state().is_closing() || conn.flags().has(Flags::ONE_PACKET)
}

/// Whether the server is likelier to take a SYN on `this` closing connection's tuple than on
/// `that` one's. A reset left nothing at the server. In TIME_WAIT it takes a SYN only with a
/// later timestamp or sequence number (PAWS, RFC 7323; RFC 6191), and another client's may be
/// earlier: then the server answers the old connection, the client resets that, and tries again
/// a second later. So the one that closed the longest ago is next best.
fn is_safer<K: Key>(this: &Conn<K>, that: &Conn<K>) -> bool {
    let waits = |c: &Conn<K>| c.state() == State::TimeWait;
    match (waits(this), waits(that)) {
        (false, true) => true,
        (true, false) => false,
        _ => that.deadline().since(this.deadline()) > 0,
    }
}
