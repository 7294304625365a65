//! Locality-based least connections with replication: a virtual address has a set of servers. The
//! least loaded of them takes the connection; when that one is overloaded (lblc's rule) the least
//! loaded of all joins the set. A set that has not changed for a day loses its most loaded server.
#![forbid(unsafe_code)]

use super::lblc::overloaded;
use super::{Candidate, Load, Memory, Table, View, destinations};

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
        if let Some(known) = known {
            let available = cache.servers(known).filter(|&at| view.available(at));
            let least = available.reduce(|best, at| if less(&view, at, best) { at } else { best });
            if cache.is_settled(known, now) {
                let servers = cache.servers(known).filter(|&at| weight(&view, at) > 0);
                let most =
                    servers.reduce(|worst, at| if less(&view, worst, at) { at } else { worst });
                if let Some(at) = most {
                    cache.remove(known, at, now);
                }
            }
            if let Some(at) = least
                && !overloaded(&view, at)
            {
                return Some(at);
            }
        }
        let at = view.least(Load::overhead)?;
        let entry = known.unwrap_or_else(|| cache.make(address, now));
        cache.add(entry, at, view.servers, now);
        Some(at)
    }
}

fn weight(view: &View<'_>, at: usize) -> u128 {
    view.servers.get(at).map_or(0, |s| s.weight.into())
}

/// Whether `a` has fewer connections for its weight than `b`.
fn less(view: &View<'_>, a: usize, b: usize) -> bool {
    let cost = |at| u128::from(view.load(at).overhead());
    cost(a) * weight(view, b) < cost(b) * weight(view, a)
}
