//! Locality-based least connections: a virtual address stays with its server, until that has more
//! active connections than its weight while another has less than half of its own. Then it moves
//! to the least loaded one, by wlc's rule.
//!
//! For services with many addresses (a transparent cache). As in Linux the server that an address
//! has is not asked for its threshold; one that is drained or gone is left.
#![forbid(unsafe_code)]

use super::destinations;
use super::{Candidate, Load, Memory, Table, View};

pub(super) struct Rule;

impl super::Rule for Rule {
    const COUNTS: bool = true;

    fn adopt(memory: &mut Memory, _: &[Candidate], servers: &[Candidate], _: &Table) {
        destinations::adopt(&mut memory.destinations, servers);
    }

    fn pick(view: View<'_>, memory: &mut Memory) -> Option<usize> {
        let Some(cache) = memory.destinations.as_deref_mut() else {
            return view.least(Load::overhead);
        };
        let (address, now) = (view.request.destination, view.request.now);
        let known = cache.find(address, now);
        if let Some(at) = known.and_then(|known| cache.servers(known).next())
            && view.servers.get(at).is_some_and(|s| s.weight > 0)
            && !overloaded(&view, at)
        {
            return Some(at);
        }
        let at = view.least(Load::overhead)?;
        let entry = known.unwrap_or_else(|| cache.make(address, now));
        cache.clear(entry);
        cache.add(entry, at, view.servers, now);
        Some(at)
    }
}

/// Whether a server has too much to do while another has time.
pub(super) fn overloaded(view: &View<'_>, at: usize) -> bool {
    let weight = |at: usize| view.servers.get(at).map_or(0, |s| u64::from(s.weight));
    let has_time = |other: usize| view.load(other).active * 2 < weight(other);
    view.load(at).active > weight(at) && (0..view.servers.len()).any(has_time)
}
