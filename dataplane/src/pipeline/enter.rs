//! A connection enters the table and leaves it, and both are counted.
#![forbid(unsafe_code)]

use super::family::Family;
use crate::conn::entry::{Flags, NewConn};
use crate::conn::state::State;
use crate::conn::templates::Heard;
use crate::conn::{Conn, ConnId};
use crate::counters::{DropReason, WorkerCounters};
use crate::io::PortQueue;
use crate::packet::Key;
use crate::steer::Keys;
use crate::types::Tick;
use crate::worker::Worker;

impl<Q: PortQueue> Worker<Q> {
    pub(super) fn give_up_early<K: Family>(&mut self, closing: Option<ConnId>) {
        if let Some(closing) = closing {
            self.close::<K>(closing);
            self.counters.lip_early_reuse.add(1);
        }
    }

    /// Inserts a connection, in the place of another one if the table is full, and counts it.
    #[inline(always)]
    pub(super) fn insert<K: Family>(
        &mut self,
        new: &NewConn<K>,
        now: Tick,
    ) -> Result<ConnId, DropReason> {
        if self.limits.is_on() {
            return self.insert_limited(new, now);
        }
        self.insert_freely(new, now)
    }

    /// As [`Worker::insert`], where no limit is to be asked, or all have been.
    #[inline(always)]
    pub(super) fn insert_freely<K: Family>(
        &mut self,
        new: &NewConn<K>,
        now: Tick,
    ) -> Result<ConnId, DropReason> {
        let ticks = self.snapshot.timeouts_of(new.server_id).of(State::None);
        let conns = &mut K::side_mut(&mut self.sides).conns;
        let id = match conns.insert(new, ticks, now) {
            Ok(inserted) => inserted.0,
            Err(_) => {
                self.make_room::<K>(now)?;
                let conns = &mut K::side_mut(&mut self.sides).conns;
                let inserted = conns.insert(new, ticks, now);
                inserted.map_err(|_| DropReason::ConnTableFull)?.0
            }
        };
        self.counters.conns_opened.add(1);
        if let Some(cells) = self.counters.servers.get(new.server_id) {
            cells.conns.add(1);
            cells.inactive.add(1); // state NONE; the packet makes it active
        }
        self.loads.opened(new.server_id);
        Ok(id)
    }

    /// Forgets a connection before its time.
    pub(super) fn close<K: Family>(&mut self, id: ConnId) {
        if let Some(conn) = K::side_mut(&mut self.sides).conns.remove(id) {
            if let Some(record) = conn.side() {
                self.records.give_back(record);
            }
            if conn.is_connection() {
                conn_gone(&self.counters, &conn);
                self.limits.gone(&self.snapshot, &conn);
                self.proxies.gone(&conn, &self.snapshot);
            }
            if let Some(keys) = redirected_keys(&conn) {
                self.release(keys);
            }
            if let Some(template) = conn.template() {
                self.tell_template(template, Heard::Gone);
            }
        }
    }
}

/// The keys of a connection whose answers another worker passes on.
pub(crate) fn redirected_keys<K: Family>(conn: &Conn<K>) -> Option<Keys> {
    use crate::conn::state::Direction::{Inbound, Outbound};
    conn.flags().has(Flags::REDIRECTED).then(|| Keys {
        inbound: conn.key(Inbound).widened(),
        outbound: conn.key(Outbound).widened(),
    })
}

/// Takes a connection that is gone out of its server's gauges.
pub(crate) fn conn_gone<K: Key>(counters: &WorkerCounters, conn: &Conn<K>) {
    if let Some(cells) = counters.servers.get(conn.server_id()) {
        let gauge = if conn.state().is_active() {
            &cells.active
        } else {
            &cells.inactive
        };
        gauge.sub(1);
    }
}
