//! Local addresses and ports for FULL-NAT, chosen so that the server's answers come back to
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

use std::net::{IpAddr, SocketAddr};

use crate::conn::state::State;
use crate::conn::{Conn, ConnId, ConnTable, Hit};
use crate::packet::Key;
use crate::service::LocalAddresses;
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

/// One worker's choice of local ports, for the connections of one table.
#[derive(Debug)]
pub struct LocalPorts<K> {
    /// The buckets this worker owns.
    own: Vec<u8>,
    cursors: Box<[Cursor<K>]>,
}

/// Where a server's walk over its candidates is, and the next one, worked out ahead so that its
/// index line is there when it is wanted (an opening waits 150 ns for it otherwise).
#[derive(Debug, Clone, Copy)]
struct Cursor<K> {
    /// Number of the candidate that `ahead` holds.
    next: u32,
    ahead: Option<Candidate<K>>,
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
        let cursors = (0..CURSORS)
            .map(|_| {
                // xorshift64: only to begin at different places in each life
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                Cursor {
                    next: x as u32,
                    ahead: None,
                }
            })
            .collect();
        Ok(LocalPorts {
            own: steer.buckets_of(steer.me()).collect(),
            cursors,
        })
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
        let at = server_id.0 as usize % CURSORS;
        let mut early = None;
        for _ in 0..PROBES {
            let Cursor { next, ahead } = self.cursors[at];
            let bare = bare(proto, server, addresses, next)?;
            // What was worked out ahead may be another server's, or of an older address list.
            let candidate = match ahead {
                Some(c) if K::of(c.reply.addrs(), c.reply.ports() & !0xffff, proto) == bare => c,
                _ => self.candidate(steer, conns, server, addresses, bare, next)?,
            };
            let next = next.wrapping_add(1);
            let bare = self::bare(proto, server, addresses, next)?;
            let following = self.candidate(steer, conns, server, addresses, bare, next)?;
            conns.prefetch_index(following.hash);
            self.cursors[at] = Cursor {
                next,
                ahead: Some(following),
            };
            let reply = candidate.reply;
            match conns.lookup(candidate.hash, &reply) {
                None => return Some(Leased { reply, early: None }),
                Some(Hit { id, .. }) => {
                    let conn = conns.get(id);
                    if conn.state().is_closing() && early.is_none_or(|(c, _)| is_safer(conn, c)) {
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

    /// Candidate number `c` towards `server`: addresses in turn (`bare`), then this worker's
    /// buckets, then the ports that lead to the bucket.
    #[inline]
    fn candidate(
        &self,
        steer: &Steer,
        conns: &ConnTable<K>,
        server: SocketAddr,
        addresses: &LocalAddresses,
        bare: K,
        c: u32,
    ) -> Option<Candidate<K>> {
        let n = addresses.count_towards(server) as u32;
        let (own, c) = (self.own.len() as u32, c.checked_div(n)?);
        let (bucket, turn) = (self.own[c.checked_rem(own)? as usize], c / own);
        let base = bare.toeplitz(steer.toeplitz()) as usize;
        let class = (base ^ usize::from(bucket)) % BUCKETS;
        let ports = steer.toeplitz().ports_of(class, server.is_ipv6());
        let port = ports[turn as usize % ports.len()];
        let reply = K::of(bare.addrs(), bare.ports() | u32::from(port), bare.proto());
        Some(Candidate {
            hash: conns.hash(&reply),
            reply,
        })
    }
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

/// The reply key of candidate number `c`, but for its port; `None` without a local address.
#[inline]
fn bare<K: Key>(proto: Proto, server: SocketAddr, addresses: &LocalAddresses, c: u32) -> Option<K> {
    let n = addresses.count_towards(server);
    let at = (c as usize).checked_rem(n)?;
    let lip = match server {
        SocketAddr::V4(_) => IpAddr::V4(*addresses.v4.get(at)?),
        SocketAddr::V6(_) => IpAddr::V6(*addresses.v6.get(at)?),
    };
    K::between(proto, server, SocketAddr::new(lip, 0))
}
