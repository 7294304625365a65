//! Connections that stand and are not wanted any more: their clients are refused now (a
//! blacklist, an access list that closes), or memory is short and `drop_entry` looks for those
//! of an attack. Templates go with them that no connection was ever established for: a flood from
//! many sources leaves one for each.
//!
//! Both go through the tables a few entries in a turn. What they find is forgotten as any other
//! connection; nobody is told.
#![forbid(unsafe_code)]

use arrayvec::ArrayVec;

use super::family::Family;
use crate::conn::templates::Heard;
use crate::conn::{Conn, ConnId};
use crate::defense::pressure::{Defense, Place};
use crate::io::PortQueue;
use crate::packet::{Key4, Key6};
use crate::service::Snapshot;
use crate::types::Tick;
use crate::worker::Worker;

/// Entries looked at in one turn.
const ENTRIES_A_TURN: u32 = 256;
/// Connections forgotten in one turn.
const CLOSED_A_TURN: usize = 32;

type Found = ArrayVec<ConnId, CLOSED_A_TURN>;

impl<Q: PortQueue> Worker<Q> {
    /// What the defence has to do beside the packets; some work done when there was any.
    #[cold]
    pub(crate) fn defend(&mut self, now: Tick) -> usize {
        let rules = &self.snapshot.rules;
        let memory = self.sides.memory(rules, self.steer.workers());
        let templates = self.templates.slots();
        self.defense.look(rules, memory, templates, now);
        usize::from(self.weed()) + usize::from(self.shed(now))
    }

    /// Forgets connections whose clients are refused, a few.
    fn weed(&mut self) -> bool {
        let Some(place) = self.defense.weeding else {
            return false;
        };
        let next = match place {
            Place::V4(at) => self.weed_in::<Key4>(at),
            Place::V6(at) => self.weed_in::<Key6>(at),
        };
        self.defense.weeding = after(place, next);
        if self.defense.weeding.is_none() && std::mem::take(&mut self.defense.weed_again) {
            self.defense.weed();
        }
        true
    }

    fn weed_in<K: Family>(&mut self, at: u32) -> Option<u32> {
        let mut found = Found::new();
        let (snapshot, defense) = (&self.snapshot, &self.defense);
        let conns = &K::side(&self.sides).conns;
        let next = conns.page(at, ENTRIES_A_TURN, |id, conn| {
            !is_refused(snapshot, defense, conn) || found.try_push(id).is_ok()
        });
        self.counters.conns_denied.add(found.len() as u64);
        self.forget::<K>(&found);
        next
    }

    /// `drop_entry`: forgets what may be an attack's, a few.
    fn shed(&mut self, now: Tick) -> bool {
        if !self.defense.sheds() {
            return false;
        }
        self.shed_templates();
        if self.defense.shed_left == 0 {
            return true;
        }
        let looked = self.defense.shed_left.min(ENTRIES_A_TURN);
        let place = self.defense.shed_at;
        let next = match place {
            Place::V4(at) => self.shed_in::<Key4>(at, looked, now),
            Place::V6(at) => self.shed_in::<Key6>(at, looked, now),
        };
        self.defense.shed_at = after(place, next).unwrap_or(Place::FIRST);
        self.defense.shed_left -= looked;
        true
    }

    fn shed_in<K: Family>(&mut self, at: u32, looked: u32, now: Tick) -> Option<u32> {
        let mut found = Found::new();
        let (snapshot, defense) = (&self.snapshot, &mut self.defense);
        let conns = &K::side(&self.sides).conns;
        let next = conns.page(at, looked, |id, conn| {
            if found.is_full() {
                return false;
            }
            let timeouts = snapshot.timeouts_of(conn.server_id());
            let left = conn.deadline().since(now);
            let silent = timeouts.of(conn.state()).saturating_sub(left);
            if defense.drops_entry(conn.state(), silent, conn.in_packets) {
                found.push(id);
            }
            true
        });
        self.counters.conns_shed.add(found.len() as u64);
        for &id in &found {
            let conns = &mut K::side_mut(&mut self.sides).conns;
            if let Some(template) = conns.get_mut(id).set_template(None) {
                self.tell_template(template, Heard::Shed);
            }
        }
        self.forget::<K>(&found);
        next
    }

    /// Forgets some templates that are not assured and control nothing. Those of one-packet
    /// services stay: what they control is gone at once (IPVS counts a template's packets to
    /// judge it, and there are none).
    fn shed_templates(&mut self) {
        let looked = self.defense.templates_left.min(ENTRIES_A_TURN);
        self.defense.templates_left -= looked;
        let snapshot = &self.snapshot;
        let shed = self.templates.shed(looked, |service| {
            let service = snapshot.service(service);
            service.is_none_or(|service| !service.policy.one_packet)
        });
        self.counters.templates_shed.add(shed.into());
        self.counters.templates.set(self.templates.len().into());
    }

    fn forget<K: Family>(&mut self, found: &Found) {
        for &id in found {
            self.close::<K>(id);
        }
    }
}

/// Whether the client of a standing connection is refused now, and such are closed.
fn is_refused<K: Family>(snapshot: &Snapshot, defense: &Defense, conn: &Conn<K>) -> bool {
    let Some(server) = snapshot.server(conn.server_id()) else {
        return false;
    };
    let client = conn.client().ip();
    if defense.blacklist().denies(server.service, client) {
        return true;
    }
    let service = snapshot.service(server.service);
    let access = service.and_then(|service| service.policy.access.as_deref());
    access.is_some_and(|access| access.closes && access.denied.denies(client))
}

/// The place behind `place`, where its table goes on at `next`.
fn after(place: Place, next: Option<u32>) -> Option<Place> {
    match (place, next) {
        (Place::V4(_), Some(at)) => Some(Place::V4(at)),
        (Place::V6(_), Some(at)) => Some(Place::V6(at)),
        (Place::V4(_), None) => Some(Place::V6(0)),
        (Place::V6(_), None) => None,
    }
}
