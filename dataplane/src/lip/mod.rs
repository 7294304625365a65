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

/// Where a server's walk over its candidates is: addresses in turn, then this worker's buckets,
/// then the ports that lead to the bucket. Counted, not divided: divisions cost an opening 20 ns.
#[derive(Debug, Clone, Copy)]
struct Cursor<K> {
    address: u32,
    bucket: u32,
    turn: u32,
    /// The candidate there, worked out ahead so that its index line is there when it is wanted
    /// (an opening waits 150 ns for it otherwise).
    ahead: Option<Candidate<K>>,
}

impl<K> Cursor<K> {
    /// Goes on to the next of `addresses` and `buckets`.
    #[inline]
    fn step(&mut self, addresses: u32, buckets: u32) {
        self.address += 1;
        if self.address >= addresses {
            self.address = 0;
            self.bucket += 1;
            if self.bucket >= buckets {
                self.bucket = 0;
                self.turn = self.turn.wrapping_add(1);
            }
        }
    }
}

/// A local address and port, as the reply key that it would have.
#[derive(Debug, Clone, Copy)]
struct Candidate<K> {
    reply: K,
    hash: u64,
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
                    address: (x >> 48) as u32, // the first one if there are not so many
                    bucket: ((x >> 32 & 0xffff) % buckets) as u32,
                    turn: x as u32,
                    ahead: None,
                }
            })
            .collect();
        Ok(LocalPorts { own, cursors })
    }

    /// The next free local address and port towards `server`, oldest use first. Under shortage
    /// the port of a connection in TIME_WAIT or CLOSE, which has to go then.
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
    #[inline]
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
        let count = supply.count_towards(server) as u32;
        let buckets = self.own.len() as u32;
        let mut early = None;
        for _ in 0..PROBES {
            let mut cursor = self.cursors[at];
            if cursor.address >= count {
                cursor.address = 0;
            }
            let bare = bare(proto, server, supply, cursor.address)?;
            // What was worked out ahead may be another server's, or of an older address list.
            let fits = |c: &Candidate<K>| {
                let reply = &c.reply;
                K::of(reply.addrs(), reply.ports() & !0xffff, proto) == bare
                    && supply.ports.contains(reply.dport())
            };
            let candidate = match cursor.ahead.filter(fits) {
                Some(ahead) => Some(ahead),
                None => self.candidate(steer, conns, server, bare, supply.ports, &cursor),
            };
            let address = cursor.address;
            cursor.step(count, buckets);
            let bare = match cursor.address == address {
                true => bare,
                false => self::bare(proto, server, supply, cursor.address)?,
            };
            let following = self.candidate(steer, conns, server, bare, supply.ports, &cursor);
            if let Some(following) = following {
                conns.prefetch_index(following.hash);
            }
            cursor.ahead = following;
            self.cursors[at] = cursor;
            let Some(candidate) = candidate else {
                continue; // of few ports, none leads to this bucket
            };
            let reply = candidate.reply;
            match conns.lookup(candidate.hash, &reply) {
                None => return Some(Leased { reply, early: None }),
                Some(Hit { id, .. }) => {
                    let conn = conns.get(id);
                    if may_go(conn) && early.is_none_or(|(c, _)| is_safer(conn, c)) {
                        early = Some((conn, (reply, id)));
                    }
                }
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
        let at = server_id.0 as usize % CURSORS;
        let bare = K::between(proto, server, SocketAddr::new(local, 0))?;
        let mut early = None;
        for _ in 0..PROBES {
            let mut cursor = self.cursors[at];
            cursor.step(1, self.own.len() as u32);
            cursor.ahead = None;
            self.cursors[at] = cursor;
            let ports = PortRange::ALL;
            let candidate = self.candidate(steer, conns, server, bare, ports, &cursor)?;
            let Candidate { reply, hash } = candidate;
            let Some(Hit { id, .. }) = conns.lookup(hash, &reply) else {
                return Some(Leased { reply, early: None });
            };
            let conn = conns.get(id);
            if may_go(conn) && early.is_none_or(|(c, _)| is_safer(conn, c)) {
                early = Some((
                    conn,
                    Leased {
                        reply,
                        early: Some(id),
                    },
                ));
            }
        }
        early.map(|(_, leased)| leased)
    }

    /// The candidate towards `server` where `cursor` is; `bare` is its reply key without a port.
    #[inline]
    fn candidate(
        &self,
        steer: &Steer,
        conns: &ConnTable<K>,
        server: SocketAddr,
        bare: K,
        ports: PortRange,
        cursor: &Cursor<K>,
    ) -> Option<Candidate<K>> {
        let bucket = *self.own.get(cursor.bucket as usize)?;
        let base = bare.toeplitz(steer.toeplitz()) as usize;
        let class = (base ^ usize::from(bucket)) % BUCKETS;
        let (toeplitz, v6) = (steer.toeplitz(), server.is_ipv6());
        let ports = match ports {
            PortRange::ALL => toeplitz.ports_of(class, v6),
            some => toeplitz.ports_within(class, v6, some.first(), some.last()),
        };
        let at = cursor.turn.checked_rem(ports.len() as u32)?;
        let port = *ports.get(at as usize)?;
        let reply = K::of(bare.addrs(), bare.ports() | u32::from(port), bare.proto());
        Some(Candidate {
            hash: conns.hash(&reply),
            reply,
        })
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

/// The reply key with local address number `at`, but for its port; `None` without an address.
#[inline]
fn bare<K: Key>(proto: Proto, server: SocketAddr, supply: Supply<'_>, at: u32) -> Option<K> {
    let lip = match server {
        SocketAddr::V4(_) => IpAddr::V4(*supply.v4.get(at as usize)?),
        SocketAddr::V6(_) => IpAddr::V6(*supply.v6.get(at as usize)?),
    };
    K::between(proto, server, SocketAddr::new(lip, 0))
}
