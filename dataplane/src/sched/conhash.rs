//! Consistent hashing on a ring (ketama): each server has points on it, the more the higher its
//! weight, and a client belongs to the next point. A server that comes or goes moves only the
//! clients that it gets or had; those of one that is drained or full go to the next point.
//!
//! The heaviest server has 160 to 319 points, the others in proportion: weights are scaled by a
//! power of two. (DPVS: 160 for each weight over their common divisor. There the last odd weight
//! that goes may move every client, and weights without a divisor make rings of megabytes.)
#![forbid(unsafe_code)]

use super::{Candidate, Memory, Options, Table, View, hash};

/// Points of a server of weight 1, when that is the highest.
const POINTS: u64 = 160;
/// Keys of the hash for points and for clients: a client must not hash like a server's address.
const POINT_KEY: u64 = 1;
/// See [`POINT_KEY`].
const CLIENT_KEY: u64 = 2;
/// See [`POINT_KEY`].
const CID_KEY: u64 = 3;

/// A place on the ring, and whose it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    pub(super) hash: u64,
    pub(super) at: u32,
}

pub(super) struct Rule;

impl super::Rule for Rule {
    fn prepare(servers: &[Candidate], _: Options) -> Table {
        let most = servers.iter().map(|s| s.hashed).max().unwrap_or(0);
        let scale = most.checked_ilog2().unwrap_or(0);
        let mut ring = Vec::new();
        for (at, server) in servers.iter().enumerate().filter(|(_, s)| s.hashed > 0) {
            let points = ((POINTS * u64::from(server.hashed)) >> scale).max(1);
            ring.extend((0..points as u32).map(|n| Point {
                hash: point(server, n),
                at: at as u32,
            }));
        }
        // Were two hashes equal, the address would decide, not the order in the configuration.
        ring.sort_unstable_by_key(|p| (p.hash, servers[p.at as usize].address));
        Table::Ring(ring.into())
    }

    fn pick(view: View<'_>, _: &mut Memory) -> Option<usize> {
        if let Some(key) = view.request.key {
            return by_key(view, key);
        }
        let mut room = [0; 16];
        let client = hash::octets(view.request.source.ip(), &mut room);
        by_key(view, hash::wide(client, CLIENT_KEY))
    }
}

/// What a QUIC client's first connection ID hashes to, the same on every node.
#[must_use]
pub fn key_of_connection_id(cid: &[u8]) -> u64 {
    hash::wide(cid, CID_KEY)
}

/// The server of the first point at or after `key` that may take a connection.
fn by_key(view: View<'_>, key: u64) -> Option<usize> {
    let Table::Ring(ring) = view.table else {
        return None;
    };
    let (before, after) = ring.split_at(ring.partition_point(|p| p.hash < key));
    let mut walk = after.iter().chain(before).map(|p| p.at as usize);
    let wanted = walk.next()?;
    if view.available(wanted) {
        return Some(wanted);
    }
    match view.any_available() {
        true => walk.find(|&at| view.available(at)),
        false => None,
    }
}

/// Where the `n`th point of a server lies: from its address, port and the number.
fn point(server: &Candidate, n: u32) -> u64 {
    let mut room = [0; 16];
    let addr = hash::octets(server.address.ip(), &mut room);
    let mut bytes = [0; 22];
    let (head, tail) = bytes.split_at_mut(addr.len());
    head.copy_from_slice(addr);
    tail[..2].copy_from_slice(&server.address.port().to_be_bytes());
    tail[2..6].copy_from_slice(&n.to_be_bytes());
    hash::wide(&bytes[..addr.len() + 6], POINT_KEY)
}
