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

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::conn::{ConnId, ConnTable, Hit};
use crate::packet::Key4;
use crate::steer::{BUCKETS, Steer};
use crate::types::{Proto, ServerId};

#[cfg(test)]
mod tests;

/// First local port; those below are left to well-known services.
pub const FIRST_PORT: u16 = 1024;
/// Candidates looked at for one connection.
const PROBES: u32 = 64;
/// Cursors, shared by servers whose ids collide: sharing one only makes it roll faster.
const CURSORS: usize = 4096;

/// A free local address and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leased {
    /// What the server will see as its client.
    pub local: SocketAddrV4,
    /// A closing connection that has to give this port up early.
    pub early: Option<ConnId>,
}

/// One worker's choice of local ports.
#[derive(Debug)]
pub struct LocalPorts {
    /// Ports sorted by class; class `c` is `ports[starts[c]..starts[c + 1]]`.
    ports: Box<[u16]>,
    starts: [u32; BUCKETS + 1],
    /// The buckets this worker owns.
    own: Vec<u8>,
    cursors: Box<[Cursor]>,
}

/// Where a server's walk over its candidates is, and the next one, worked out ahead so that its
/// index line is there when it is wanted (an opening waits 150 ns for it otherwise).
#[derive(Debug, Clone, Copy)]
struct Cursor {
    /// Number of the candidate that `ahead` holds.
    next: u32,
    ahead: Option<Candidate>,
}

/// A local address and port, and the reply key it would have.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    reply: Key4,
    hash: u64,
}

/// The RSS key cannot steer: no local port leads to some bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "RSS key: no local port reaches bucket class {class}; use another key (the low 7 bits of the \
     ports' hashes must take all 128 values)"
)]
pub struct UselessKey {
    /// The class without a port.
    pub class: usize,
}

impl LocalPorts {
    /// Groups the ports for `steer`'s key; cursors start at places drawn from `seed`.
    ///
    /// # Errors
    /// [`UselessKey`].
    pub fn new(steer: &Steer, seed: u64) -> Result<LocalPorts, UselessKey> {
        let class = |port: &u16| steer.toeplitz().dport_part(*port) as usize % BUCKETS;
        let mut ports: Vec<u16> = (FIRST_PORT..=u16::MAX).collect();
        ports.sort_by_key(|p| (class(p), p.wrapping_mul(40_503))); // neighbours far apart
        let mut starts = [0u32; BUCKETS + 1];
        for port in &ports {
            starts[class(port) + 1] += 1;
        }
        if let Some(class) = starts[1..].iter().position(|&n| n == 0) {
            return Err(UselessKey { class });
        }
        for c in 0..BUCKETS {
            starts[c + 1] += starts[c];
        }
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
        let own = steer.buckets_of(steer.me()).collect();
        Ok(LocalPorts {
            ports: ports.into_boxed_slice(),
            starts,
            own,
            cursors,
        })
    }

    /// The next free local address and port towards `server`, oldest use first. Under shortage
    /// the port of a connection in TIME_WAIT or CLOSE, which has to go then.
    #[must_use]
    pub fn lease(
        &mut self,
        steer: &Steer,
        conns: &ConnTable,
        proto: Proto,
        server_id: ServerId,
        server: SocketAddrV4,
        addresses: &[Ipv4Addr],
    ) -> Option<Leased> {
        if addresses.is_empty() || self.own.is_empty() {
            return None;
        }
        let at = server_id.0 as usize % CURSORS;
        let mut early = None;
        for _ in 0..PROBES {
            let Cursor { next, ahead } = self.cursors[at];
            // What was worked out ahead may be another server's, or of an older address list.
            let candidate = ahead
                .filter(|c| {
                    let lip = addresses[next as usize % addresses.len()];
                    c.reply.proto == proto
                        && c.reply.source() == server
                        && c.reply.dst() == u32::from(lip)
                })
                .unwrap_or_else(|| self.candidate(steer, conns, proto, server, addresses, next));
            let next = next.wrapping_add(1);
            let following = self.candidate(steer, conns, proto, server, addresses, next);
            conns.prefetch_index(following.hash);
            self.cursors[at] = Cursor {
                next,
                ahead: Some(following),
            };
            let local = candidate.reply.destination();
            match conns.lookup(candidate.hash, &candidate.reply) {
                None => return Some(Leased { local, early: None }),
                Some(Hit { id, .. }) if early.is_none() && conns.get(id).state().is_closing() => {
                    early = Some(Leased {
                        local,
                        early: Some(id),
                    });
                }
                Some(_) => {}
            }
        }
        early
    }

    /// Candidate number `c` towards `server`: addresses in turn, then this worker's buckets,
    /// then the ports that lead to the bucket.
    #[inline]
    fn candidate(
        &self,
        steer: &Steer,
        conns: &ConnTable,
        proto: Proto,
        server: SocketAddrV4,
        addresses: &[Ipv4Addr],
        c: u32,
    ) -> Candidate {
        let (n, own) = (addresses.len() as u32, self.own.len() as u32);
        let lip = addresses[(c % n) as usize];
        let (bucket, turn) = (self.own[(c / n % own) as usize], c / n / own);
        let rip = u32::from(*server.ip());
        let base = steer
            .toeplitz()
            .hash4(rip, u32::from(lip), server.port(), 0) as usize;
        let class = (base ^ usize::from(bucket)) % BUCKETS;
        let ports = &self.ports[self.starts[class] as usize..self.starts[class + 1] as usize];
        let port = ports[turn as usize % ports.len()];
        let reply = Key4::new(proto, server, SocketAddrV4::new(lip, port));
        Candidate {
            hash: conns.hash(&reply),
            reply,
        }
    }
}
