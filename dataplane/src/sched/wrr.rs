//! Weighted round robin, LVS's interleaved walk: a level falls from the largest weight to the
//! greatest common divisor in steps of that divisor, and each pass takes the servers whose
//! weight reaches the level. Weights 4, 3, 2 give A A B A B C A B C.
//!
//! A server list that changes under the cursor only shifts where the walk goes on: shares are
//! right again from the next full round.
#![forbid(unsafe_code)]

use super::{Cursor, View};

pub(super) fn pick(view: View<'_>, cursor: &mut Cursor) -> Option<usize> {
    let servers = view.servers;
    if cursor.generation != view.generation {
        // Once a snapshot and worker, not once a connection: the divisions cost 70 ns.
        cursor.max = servers.iter().map(|s| s.weight).max().unwrap_or(0);
        cursor.step = servers.iter().map(|s| s.weight).fold(0, gcd);
        cursor.generation = view.generation;
    }
    let (max, step) = (cursor.max, cursor.step);
    if max == 0 {
        return None;
    }
    if cursor.level == 0 || cursor.level > max {
        (cursor.next, cursor.level) = (0, max);
    }
    // Bounded: at the lowest level at least the heaviest server qualifies, so two passes do.
    for _ in 0..=2 * servers.len() {
        if cursor.next as usize >= servers.len() {
            cursor.next = 0;
            cursor.level = if cursor.level > step {
                cursor.level - step
            } else {
                max
            };
        }
        let at = cursor.next as usize;
        cursor.next += 1;
        if servers[at].weight >= cursor.level {
            return Some(at);
        }
    }
    None
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
