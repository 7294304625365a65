//! The cells of limits: a service's, and those of its clients.
#![forbid(unsafe_code)]

use std::sync::OnceLock;

use crossbeam::utils::CachePadded;

use super::{Account, REASONS, stamp};
use crate::counters::Cell;
use crate::types::{ServiceId, Tick};

/// Places in one worker's table of sources: 4 MiB, made when a service limits its clients.
const PLACES: usize = 1 << 15;
/// Places that one client may take.
const WAYS: usize = 8;
/// A client without connections is forgotten when it was quiet for this long and another wants
/// its place.
const QUIET: u32 = Tick::seconds(8);
/// One with connections, too: they were counted wrongly, or it does not open any more.
const VERY_QUIET: u32 = Tick::seconds(3600);

/// What one worker counts for the limits of one service.
#[derive(Debug, Default)]
pub struct ServiceCells {
    /// Connections standing that were opened since it has limits (gauge).
    pub connections: Cell,
    pub(super) accounts: [Account; 3],
    /// Connections and packets refused, by [`REASONS`].
    pub refused: [Cell; REASONS.len()],
}

/// Service ids that may have limits.
const SERVICES: usize = 1 << 16;
const CHUNK: usize = 64;
type Chunk = Box<[CachePadded<ServiceCells>; CHUNK]>;

/// Cells of services by id. Control makes room before it publishes a service with limits.
pub struct ServiceTable(Box<[OnceLock<Chunk>]>);

impl std::fmt::Debug for ServiceTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceTable").finish_non_exhaustive()
    }
}

impl Default for ServiceTable {
    fn default() -> Self {
        ServiceTable((0..SERVICES / CHUNK).map(|_| OnceLock::new()).collect())
    }
}

impl ServiceTable {
    /// Makes room for `id`; ids from 65,536 on have none, and no limits.
    pub fn reserve(&self, id: ServiceId) {
        if let Some(chunk) = self.0.get(id.0 as usize / CHUNK) {
            chunk.get_or_init(|| Box::new(std::array::from_fn(|_| CachePadded::default())));
        }
    }

    /// The cells of `id`, where there are any.
    #[inline]
    #[must_use]
    pub fn get(&self, id: ServiceId) -> Option<&ServiceCells> {
        let chunk = self.0.get(id.0 as usize / CHUNK)?.get()?;
        Some(&chunk[id.0 as usize % CHUNK])
    }
}

/// What one worker counts of one client of one service.
#[derive(Debug, Default)]
pub(super) struct Source {
    /// Connections standing (gauge).
    pub(super) connections: Cell,
    /// When it last opened, closed or sent something.
    pub(super) touched: Cell,
    pub(super) accounts: [Account; 3],
}

/// One worker's clients. A client's place is one of eight, the same eight with each worker; when
/// all are taken by others that are not quiet, it goes unlimited rather than unserved.
#[derive(Debug)]
pub struct Sources {
    /// Whose each place is; 0 for nobody's. Eight to a cache line.
    keys: Box<[Ways]>,
    sources: Box<[CachePadded<Source>]>,
}

type Ways = CachePadded<[Cell; WAYS]>;

impl Default for Sources {
    fn default() -> Self {
        Sources {
            keys: (0..PLACES / WAYS).map(|_| CachePadded::default()).collect(),
            sources: (0..PLACES).map(|_| CachePadded::default()).collect(),
        }
    }
}

impl Sources {
    /// How many there may be.
    #[must_use]
    pub fn places(&self) -> usize {
        self.sources.len()
    }

    pub(super) fn get(&self, at: usize) -> Option<&Source> {
        self.sources.get(at).map(|source| &**source)
    }

    /// The client named `key`, and its place.
    #[inline]
    pub(super) fn find(&self, key: u64) -> Option<(usize, &Source)> {
        let (first, ways) = self.ways(key)?;
        let way = ways.iter().position(|cell| cell.get() == key)?;
        Some((first + way, self.get(first + way)?))
    }

    /// A place for the client named `key`, and whether it is new there; `None` when it finds
    /// none. Only the owner may call it.
    pub(super) fn place(&self, key: u64, now: Tick) -> Option<(usize, bool)> {
        if let Some((at, source)) = self.find(key) {
            source.touched.set(stamp(now));
            return Some((at, false));
        }
        let (first, ways) = self.ways(key)?;
        let quiet_for = |way: usize| {
            let source = &self.sources[first + way];
            let quiet = now.since(Tick(source.touched.get() as u32));
            let enough = match source.connections.get() {
                0 => QUIET,
                _ => VERY_QUIET,
            };
            (quiet >= enough).then_some(quiet)
        };
        let free = ways.iter().position(|cell| cell.get() == 0);
        let quietest = || (0..WAYS).max_by_key(|&way| quiet_for(way));
        let way = free.or_else(|| quietest().filter(|&way| quiet_for(way).is_some()))?;
        ways[way].set(0); // nobody's while it changes hands
        let source = &self.sources[first + way];
        source.connections.set(0);
        source.touched.set(stamp(now));
        source.accounts.iter().for_each(Account::forget);
        ways[way].set(key);
        Some((first + way, true))
    }

    fn ways(&self, key: u64) -> Option<(usize, &Ways)> {
        let line = (key >> 8) as usize % (PLACES / WAYS);
        Some((line * WAYS, self.keys.get(line)?))
    }
}
