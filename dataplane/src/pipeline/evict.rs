//! Room in a full table.
#![forbid(unsafe_code)]

use super::family::Family;
use crate::conn::Class;
use crate::counters::DropReason;
use crate::io::PortQueue;
use crate::types::Tick;
use crate::worker::Worker;

impl<Q: PortQueue> Worker<Q> {
    /// Evicts somebody from a full table, in the way of every other end of a connection.
    #[cold]
    pub(super) fn make_room<K: Family>(&mut self, now: Tick) -> Result<(), DropReason> {
        let snapshot = &self.snapshot;
        let conns = &mut K::side_mut(&mut self.sides).conns;
        let victim = conns.victim(snapshot.rules.eviction, now, |conn| {
            let timeouts = snapshot.timeouts_of(conn.server_id());
            let left = conn.deadline().since(now);
            timeouts.of(conn.state()).saturating_sub(left)
        });
        let victim = victim.ok_or(DropReason::ConnTableFull)?;
        let conn = conns.get(victim);
        if conn.is_connection() {
            self.counters.conns_evicted.add(1);
            let kind = match Class::of(conn.state()) {
                Class::HalfOpen => &self.counters.evicted_half_open,
                Class::Closing => &self.counters.evicted_closing,
                Class::Udp => &self.counters.evicted_udp,
                Class::Established => &self.counters.evicted_established,
            };
            kind.add(1);
        }
        self.close::<K>(victim);
        Ok(())
    }
}
