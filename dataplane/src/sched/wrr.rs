//! Weighted round robin, LVS's interleaved walk. A level falls from the largest weight in steps of
//! the weights' greatest common divisor, and each pass takes the servers whose weight reaches the
//! level: in full rounds, weights 4, 3, 2 give A A B A B C A B C. As in Linux the first pass is at
//! the lowest level, so the sequence begins with A B C.
#![forbid(unsafe_code)]

use super::{Memory, Table, View};
use crate::service::Candidate;

pub(super) struct Rule;

impl super::Rule for Rule {
    /// Levels are 1, 1 + step, ... up to the largest weight that one of them can tell from the
    /// next: weights are multiples of the step.
    fn prepare(servers: &[Candidate], _: super::Options) -> Table {
        let max = servers.iter().map(|s| s.weight).max().unwrap_or(0);
        let step = servers.iter().map(|s| s.weight).fold(0, gcd);
        let highest = if max == 0 { 0 } else { max - step + 1 };
        Table::Levels { highest, step }
    }

    /// Begins again at the first server, at about the level where it was.
    fn adopt(memory: &mut Memory, _: &[Candidate], servers: &[Candidate], table: &Table) {
        let &Table::Levels { highest, step } = table else {
            return;
        };
        memory.next = memory.start(servers.len());
        memory.level = match memory.level {
            _ if highest == 0 => 0,
            0 => 1,
            level if level > highest => highest,
            level if step > 1 => level / step * step + 1,
            level => level,
        };
    }

    #[inline(always)]
    fn pick(view: View<'_>, memory: &mut Memory) -> Option<usize> {
        // Nearly always the next one is as good as the level asks.
        let next = memory.next as usize;
        if let Some(server) = view.servers.get(next)
            && server.weight >= memory.level
            && view.available(next)
        {
            memory.next += 1;
            return Some(next);
        }
        walk(view, memory)
    }
}

/// Walks on to the next server that the level, or else a lower one, asks for.
#[inline(never)]
fn walk(view: View<'_>, memory: &mut Memory) -> Option<usize> {
    let &Table::Levels { highest, step } = view.table else {
        return None;
    };
    if highest == 0 {
        return None;
    }
    let n = view.servers.len();
    let walk = |from: usize, level: u32| {
        let reaches = |&at: &usize| view.servers[at].weight >= level && view.available(at);
        (from.min(n)..n).find(reaches)
    };
    let mut found = walk(memory.next as usize, memory.level);
    if found.is_none() {
        let Some(reach) = view.all_available().map(|(_, weight)| weight).max() else {
            give_up(memory, n);
            return None;
        };
        // Levels above the heaviest available server would be empty passes.
        let below = match memory.level > step {
            true => memory.level - step,
            false => highest,
        };
        memory.level = below.min(reach - step + 1);
        found = walk(0, memory.level);
    }
    memory.next = found? as u32 + 1;
    found
}

/// Where the walk stands when nobody is available: it has gone through the lowest level, from
/// wherever it was in it, or to the end.
fn give_up(memory: &mut Memory, n: usize) {
    if memory.level > 1 || memory.next == 0 {
        (memory.next, memory.level) = (n as u32, 1);
    }
}

pub(super) fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
