//! What runs out: connections, a few records of the wheel at a time, and frames that waited too
//! long.
#![forbid(unsafe_code)]

use arrayvec::ArrayVec;

use super::Worker;
use crate::conn::Conn;
use crate::conn::templates::Heard;
use crate::counters::DropReason;
use crate::io::PortQueue;
use crate::packet::{Key4, Key6};
use crate::pipeline::{EXPIRED_A_TURN, Family, Notes, conn_gone, redirected_keys};
use crate::types::Tick;

/// Timer records looked at in one turn. A turn of 32 packets opens 32 connections at most, each
/// with one record (and a second when it closes), so this keeps up with any rate.
const TIMERS_A_TURN: usize = 64;

impl<Q: PortQueue> Worker<Q> {
    /// Lets connections run out, a few at a time, and frames that waited too long.
    pub(super) fn expire(&mut self, now: Tick) -> usize {
        let mut looked = 0;
        for family in [expire_in::<Q, Key4>, expire_in::<Q, Key6>] {
            looked += family(self, now);
        }
        let counters = &self.counters;
        while self.parking.expire(now).is_some() {
            counters.dropped(DropReason::NeighbourUnresolved);
        }
        let mut lost = |reason| counters.dropped(reason);
        self.fragments.expire(now, EXPIRED_A_TURN, &mut lost);
        self.path_mtus.expire(now);
        looked += self.repeat_syns(now);
        self.expected.expire(now);
        self.note_held();
        looked
    }
}

/// Lets connections of one family run out.
fn expire_in<Q: PortQueue, K: Family>(worker: &mut Worker<Q>, now: Tick) -> usize {
    let (counters, limits) = (&worker.counters, &worker.limits);
    let mut expired = 0;
    let notes = std::cell::RefCell::new(Notes::default());
    let note = |conn: &Conn<K>, stands| {
        if let Some(keys) = redirected_keys(conn) {
            // One for each record at most, and that is what it has room for.
            let _ = notes.borrow_mut().redirected.try_push((keys, stands));
        }
        if let Some(template) = conn.template() {
            let _ = notes
                .borrow_mut()
                .controlled
                .try_push((template, Heard::stands(stands)));
        }
    };
    // Data connections that go on, by the inbound keys of their control connections.
    let mut lingering = ArrayVec::<Key6, 128>::new();
    let conns = &mut K::side_mut(&mut worker.sides).conns;
    let (records, proxies, snapshot) = (&mut worker.records, &mut worker.proxies, &worker.snapshot);
    let looked = conns.expire(
        now,
        TIMERS_A_TURN,
        |conn| {
            if let Some(record) = conn.side() {
                records.give_back(record);
            }
            if conn.is_connection() {
                expired += 1;
                conn_gone(counters, conn);
                limits.gone(snapshot, conn);
                proxies.gone(conn, snapshot);
                note(conn, false);
            }
        },
        |conn| {
            note(conn, true);
            if let Some(control) = conn.control() {
                let _ = lingering.try_push(control.widened()); // at most one for each record
            }
        },
    );
    if expired > 0 {
        counters.conns_expired.add(expired);
    }
    worker.pass_lingering(&lingering, now);
    worker.pass_notes(&notes.borrow()); // 11 kB, not to be moved
    looked
}
