//! The 256 buckets of sh and dh: how they are filled, and what happens to a client whose bucket's
//! server may take no connection.
//!
//! A drained server keeps its buckets, so that draining or losing one moves only its own clients:
//! they go on to another bucket. In Linux they get no server at all, unless sh-fallback is set.
//! For a server that is full (over its threshold) the flag decides, as in Linux.
#![forbid(unsafe_code)]

use super::View;
use crate::service::Candidate;

/// How many buckets.
const BUCKETS: usize = 256;

/// sh's way: servers in order, each in as many buckets in a row as its weight says, over and over.
pub(super) fn in_rows(servers: &[Candidate]) -> Box<[u32; BUCKETS]> {
    let mut buckets = Box::new([0; BUCKETS]);
    let (mut at, mut filled) = (0, 0);
    for bucket in buckets.iter_mut().take_while(|_| !servers.is_empty()) {
        *bucket = at as u32;
        filled += 1;
        if filled >= servers[at].hashed {
            (at, filled) = ((at + 1) % servers.len(), 0);
        }
    }
    buckets
}

/// dh's way: servers in turn, those with more weight more often, spread out evenly (each bucket
/// goes to the server that is furthest behind its share, the first of equals).
pub(super) fn in_turn(servers: &[Candidate]) -> Box<[u32; BUCKETS]> {
    let weight = |server: &Candidate| i64::from(server.hashed.max(1));
    let sum: i64 = servers.iter().map(weight).sum();
    let mut behind = vec![0; servers.len()];
    let mut buckets = Box::new([0; BUCKETS]);
    for bucket in buckets.iter_mut() {
        for (behind, server) in behind.iter_mut().zip(servers) {
            *behind += weight(server);
        }
        let first_of_most =
            |best: usize, at: usize| if behind[at] > behind[best] { at } else { best };
        let Some(at) = (0..servers.len()).reduce(first_of_most) else {
            break;
        };
        behind[at] -= sum;
        *bucket = at as u32;
    }
    buckets
}

/// The server of bucket `hash`, or of the next bucket in Linux's order of probing whose server may
/// take a connection.
pub(super) fn pick(view: View<'_>, buckets: &[u32; BUCKETS], hash: u8) -> Option<usize> {
    let of = |bucket: u8| buckets[usize::from(bucket)] as usize;
    let wanted = of(hash);
    if view.available(wanted) {
        return Some(wanted);
    }
    if !view.may_go_elsewhere(wanted) {
        return None;
    }
    // Linux begins at twice the hash.
    let probes = (0..=u8::MAX).map(|i| of(hash.wrapping_add(hash).wrapping_add(i)));
    probes.into_iter().find(|&at| view.available(at))
}
