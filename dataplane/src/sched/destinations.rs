//! Which servers a virtual address has: the memory of lblc and lblcr, in one worker for one
//! service.
//!
//! Room is taken when servers are adopted, never on a packet's way: for 1,024 addresses, in 256
//! groups of 4, and for their sets of servers a pool of links. An address that finds its group full
//! takes the place of the one unused for longest. Each address is sure of one server; a set that
//! would take the last links from others does not grow.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::IpAddr;

use super::hash;
use crate::service::Candidate;
use crate::types::{ServerId, Tick};

const GROUPS: usize = 256;
const GROUP: usize = 4;
/// Links for each server beside one for each address.
const LINKS_A_SERVER: usize = 16;
/// An address unused for a day is forgotten, and a set unchanged for a day is settled (Linux's
/// lblc_expiration and lblcr_expiration, 86,400 s).
const DAY: u32 = Tick::seconds(86_400);
/// No link; also the position of a server that is not in the list.
const NONE: u32 = u32::MAX;

/// See the module.
#[derive(Debug)]
pub(super) struct Destinations {
    entries: Box<[Entry]>,
    links: Vec<Link>,
    free: u32,
    /// Links that are free.
    spare: usize,
    /// Entries without a link: as many links are kept for them.
    lonely: usize,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    address: Option<IpAddr>,
    /// Its servers, the last to join first.
    first: u32,
    used: Tick,
    changed: Tick,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    id: ServerId,
    /// Its position in the list; `NONE` while it is not there. It keeps its place in the set: it
    /// may come back.
    at: u32,
    next: u32,
}

/// An address's entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct EntryId(usize);

/// Makes room in `memory` for these servers, and follows them to their new positions.
pub(super) fn adopt(memory: &mut Option<Box<Destinations>>, servers: &[Candidate]) {
    let cache = memory.get_or_insert_with(|| Box::new(Destinations::new()));
    cache.adopt(servers);
}

impl Destinations {
    fn new() -> Destinations {
        let unused = Entry {
            address: None,
            first: NONE,
            used: Tick(0),
            changed: Tick(0),
        };
        Destinations {
            entries: vec![unused; GROUPS * GROUP].into(),
            links: Vec::new(),
            free: NONE,
            spare: 0,
            lonely: GROUPS * GROUP,
        }
    }

    fn adopt(&mut self, servers: &[Candidate]) {
        let at = |(at, server): (usize, &Candidate)| (server.id, at as u32);
        let places: HashMap<ServerId, u32> = servers.iter().enumerate().map(at).collect();
        for link in &mut self.links {
            link.at = places.get(&link.id).copied().unwrap_or(NONE);
        }
        let wanted = GROUPS * GROUP + LINKS_A_SERVER * servers.len();
        while self.links.len() < wanted {
            let next = std::mem::replace(&mut self.free, self.links.len() as u32);
            self.links.push(Link {
                id: ServerId(0),
                at: NONE,
                next,
            });
            self.spare += 1;
        }
    }

    /// The entry of `address`, which is used now.
    pub(super) fn find(&mut self, address: IpAddr, now: Tick) -> Option<EntryId> {
        let start = group(address);
        let entries = self.entries.iter_mut().enumerate();
        let mut entries = entries.skip(start).take(GROUP);
        let (id, entry) = entries.find(|(_, e)| e.address == Some(address))?;
        let stale = now.since(entry.used) > DAY;
        entry.used = now;
        if stale {
            self.clear(EntryId(id));
            self.entries[id].address = None;
            return None;
        }
        Some(EntryId(id))
    }

    /// A new entry for `address`, without servers: in a free place or in that of the address
    /// unused for longest.
    pub(super) fn make(&mut self, address: IpAddr, now: Tick) -> EntryId {
        let start = group(address);
        let idle = |id: &usize| match self.entries[*id].address {
            Some(_) => now.since(self.entries[*id].used),
            None => u32::MAX,
        };
        let id = (start..start + GROUP).max_by_key(idle).unwrap_or(start);
        self.clear(EntryId(id));
        self.entries[id] = Entry {
            address: Some(address),
            first: NONE,
            used: now,
            changed: now,
        };
        EntryId(id)
    }

    /// The positions of an entry's servers, the last to join first.
    pub(super) fn servers(&self, entry: EntryId) -> impl Iterator<Item = usize> + '_ {
        let links = self.links(self.entries[entry.0].first);
        links
            .map(|(_, link)| link.at as usize)
            .filter(|&at| at != NONE as usize)
    }

    /// Whether an entry has more than one server and has not changed for a day.
    pub(super) fn is_settled(&self, entry: EntryId, now: Tick) -> bool {
        let Entry { first, changed, .. } = self.entries[entry.0];
        now.since(changed) > DAY && self.links(first).nth(1).is_some()
    }

    /// Adds the server at position `at` to an entry, if it is not in it and there is a link.
    pub(super) fn add(&mut self, entry: EntryId, at: usize, servers: &[Candidate], now: Tick) {
        let Some(id) = servers.get(at).map(|s| s.id) else {
            return;
        };
        let first = self.entries[entry.0].first;
        if self.links(first).any(|(_, link)| link.id == id) {
            return;
        }
        if first == NONE {
            self.lonely -= 1;
        } else if self.spare <= self.lonely {
            return;
        }
        let Some(link) = self.links.get_mut(self.free as usize) else {
            return;
        };
        self.spare -= 1;
        let taken = std::mem::replace(&mut self.free, link.next);
        *link = Link {
            id,
            at: at as u32,
            next: first,
        };
        (self.entries[entry.0].first, self.entries[entry.0].changed) = (taken, now);
    }

    /// Takes the server at position `at` out of an entry.
    pub(super) fn remove(&mut self, entry: EntryId, at: usize, now: Tick) {
        let (mut before, first) = (NONE, self.entries[entry.0].first);
        let found = self.links(first).find(|&(index, link)| {
            let here = link.at as usize == at;
            before = if here { before } else { index };
            here
        });
        let Some((index, link)) = found.map(|(index, link)| (index, *link)) else {
            return;
        };
        match self.links.get_mut(before as usize) {
            Some(before) => before.next = link.next,
            None => self.entries[entry.0].first = link.next,
        }
        self.lonely += usize::from(self.entries[entry.0].first == NONE);
        self.give_back(index);
        self.entries[entry.0].changed = now;
    }

    /// Takes all servers out of an entry.
    pub(super) fn clear(&mut self, entry: EntryId) {
        let mut next = std::mem::replace(&mut self.entries[entry.0].first, NONE);
        self.lonely += usize::from(next != NONE);
        while let Some(link) = self.links.get(next as usize) {
            let index = std::mem::replace(&mut next, link.next);
            self.give_back(index);
        }
    }

    fn give_back(&mut self, index: u32) {
        self.spare += 1;
        self.links[index as usize].next = std::mem::replace(&mut self.free, index);
    }

    /// The chain of links that begins with number `first`.
    fn links(&self, first: u32) -> impl Iterator<Item = (u32, &Link)> {
        let mut next = first;
        std::iter::from_fn(move || {
            let link = self.links.get(next as usize)?;
            Some((std::mem::replace(&mut next, link.next), link))
        })
    }
}

/// Where the group of an address begins.
fn group(address: IpAddr) -> usize {
    usize::from(hash::bucket(address, 0)) * GROUP
}
