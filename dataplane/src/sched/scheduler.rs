//! A service's scheduler with its options and the table worked out from its servers.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::sync::Arc;

use super::conhash::Point;
use super::{Loads, Memory, Request, SchedulerKind, View};
use crate::service::Candidate;

/// How often a choice is made anew because the other workers have meanwhile made it too.
const CHECKS: usize = 2;

/// A service's scheduler, ready for its servers. A clone shares the table.
#[derive(Debug, Clone)]
pub struct Scheduler {
    kind: SchedulerKind,
    options: Options,
    prepared: Arc<Prepared>,
}

/// What the operator may choose about a scheduler.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// sh-port, mh-port: the client's port is hashed beside its address.
    pub port: bool,
    /// sh-fallback, mh-fallback: a client whose server is full goes to another.
    pub fallback: bool,
    /// mh: rows of the table.
    pub rows: Rows,
}

/// How many rows a Maglev table has: one of the kernel's primes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows(u32);

impl Rows {
    /// The primes that Linux offers (CONFIG_IP_VS_MH_TAB_INDEX 8 to 17).
    pub const PRIMES: [u32; 10] = [
        251, 509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_521, 131_071,
    ];

    /// A table of this many rows; `None` where it is none of [`Rows::PRIMES`].
    #[must_use]
    pub fn new(rows: u32) -> Option<Rows> {
        Self::PRIMES.contains(&rows).then_some(Rows(rows))
    }

    /// How many.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl Default for Rows {
    /// Linux's default.
    fn default() -> Self {
        Rows(4093)
    }
}

#[derive(Debug)]
struct Prepared {
    /// What it was worked out from: addresses, weights, weights for hashing.
    from: Vec<(SocketAddr, u32, u32)>,
    table: Table,
}

/// What a scheduler works out from the servers; positions are those in the service's list.
#[derive(Debug)]
pub(super) enum Table {
    Nothing,
    /// wrr: the highest level, and the step between levels; both 0 when all is drained.
    Levels {
        highest: u32,
        step: u32,
    },
    /// dh, sh: whose each bucket is.
    Buckets(Box<[u32; 256]>),
    /// mh: whose each row is.
    Rows(Box<[u32]>),
    /// conhash: points by hash.
    Ring(Box<[Point]>),
}

impl Scheduler {
    /// Works out the tables for `servers`, the list that is given to [`Scheduler::pick`]. May take
    /// milliseconds: never in a worker.
    #[must_use]
    pub fn new(kind: SchedulerKind, options: Options, servers: &[Candidate]) -> Scheduler {
        let from = servers.iter().map(|s| (s.address, s.weight, s.hashed));
        let prepared = Prepared {
            from: from.collect(),
            table: kind.prepare(servers, options),
        };
        Scheduler {
            kind,
            options,
            prepared: Arc::new(prepared),
        }
    }

    /// This one if it holds for these arguments too, else a new one.
    #[must_use]
    pub fn renewed(
        &self,
        kind: SchedulerKind,
        options: Options,
        servers: &[Candidate],
    ) -> Scheduler {
        let from = servers.iter().map(|s| (s.address, s.weight, s.hashed));
        let same = self.kind == kind
            && self.options == options
            && self.prepared.from.iter().copied().eq(from);
        match same {
            true => self.clone(),
            false => Scheduler::new(kind, options, servers),
        }
    }

    /// Which scheduler it is.
    #[must_use]
    pub fn kind(&self) -> SchedulerKind {
        self.kind
    }

    /// What was chosen about it.
    #[must_use]
    pub fn options(&self) -> Options {
        self.options
    }

    /// The share of all clients that the table gives each of `servers`, in permille; `None` for a
    /// scheduler that does not hash. Drained servers have theirs, until their clients move on.
    #[must_use]
    pub fn shares(&self, servers: &[Candidate]) -> Option<Vec<u32>> {
        let mut parts = vec![0u128; servers.len()];
        let mut give = |at: u32, part: u64| {
            if let Some(own) = parts.get_mut(at as usize) {
                *own += u128::from(part);
            }
        };
        match &self.prepared.table {
            Table::Nothing | Table::Levels { .. } => return None,
            Table::Buckets(buckets) => buckets.iter().for_each(|&at| give(at, 1)),
            Table::Rows(rows) => rows.iter().for_each(|&at| give(at, 1)),
            Table::Ring(ring) => {
                let mut before = ring.last()?.hash;
                for point in ring {
                    give(point.at, point.hash.wrapping_sub(before));
                    before = point.hash;
                }
            }
        }
        let all = parts.iter().sum::<u128>().max(1);
        Some(
            parts
                .iter()
                .map(|part| (part * 1000 / all) as u32)
                .collect(),
        )
    }

    pub(super) fn table(&self) -> &Table {
        &self.prepared.table
    }

    /// The same with another table.
    #[cfg(test)]
    pub(super) fn with_table(&self, table: Table) -> Scheduler {
        let prepared = Prepared {
            from: Vec::new(),
            table,
        };
        Scheduler {
            prepared: Arc::new(prepared),
            ..self.clone()
        }
    }

    /// Chooses a server for a new connection: its position in `servers`, the list that this was
    /// made for and that `memory` adopted last.
    #[inline(always)]
    #[must_use]
    pub fn pick(
        &self,
        servers: &[Candidate],
        loads: &mut Loads,
        request: &Request,
        memory: &mut Memory,
    ) -> Option<usize> {
        let at = self.choose(servers, loads, request, memory);
        match self.kind.counts() {
            true => self.check(at, servers, loads, request, memory),
            false => at,
        }
    }

    #[inline(always)]
    fn choose(
        &self,
        servers: &[Candidate],
        loads: &Loads,
        request: &Request,
        memory: &mut Memory,
    ) -> Option<usize> {
        let view = View {
            servers,
            table: &self.prepared.table,
            options: self.options,
            loads,
            request,
        };
        self.kind.pick(view, memory)
    }

    /// A server that looks idle may only look so until the next reading, and to all cores: asks
    /// before one goes there.
    #[inline(never)]
    fn check(
        &self,
        mut at: Option<usize>,
        servers: &[Candidate],
        loads: &mut Loads,
        request: &Request,
        memory: &mut Memory,
    ) -> Option<usize> {
        for _ in 0..CHECKS {
            match at.and_then(|at| servers.get(at)) {
                Some(server) if loads.has_grown(server.id) => {
                    at = self.choose(servers, loads, request, memory);
                }
                _ => break,
            }
        }
        at
    }
}
