//! Where a service's limits are met: a connection is counted as it opens, a packet as it passes.
#![forbid(unsafe_code)]

use super::family::Family;
use super::reset::make_reset;
use super::wanted::bad_source;
use crate::conn::ConnId;
use crate::conn::entry::NewConn;
use crate::counters::DropReason;
use crate::io::PortQueue;
use crate::packet::Flow;
use crate::packet::tcp::flags::RST;
use crate::types::{Proto, Tick};
use crate::worker::Worker;

impl<Q: PortQueue> Worker<Q> {
    /// Inserts a connection if its service and its client may have one more.
    #[inline(never)]
    pub(super) fn insert_limited<K: Family>(
        &mut self,
        new: &NewConn<K>,
        now: Tick,
    ) -> Result<ConnId, DropReason> {
        let (server, client) = (new.server_id, new.inbound.source().ip());
        let marks = self.limits.take_place(&self.snapshot, server, client)?;
        let inserted = self.insert_freely(new, now);
        match inserted {
            Ok(id) => {
                let conn = K::side_mut(&mut self.sides).conns.get_mut(id);
                conn.limit(marks);
            }
            Err(_) => self
                .limits
                .give_place_back(&self.snapshot, server, client, marks),
        }
        inserted
    }

    /// Why a packet of a metered connection may not pass, if it may not.
    pub(super) fn over_limit<K: Family>(
        &mut self,
        id: ConnId,
        ip_len: u16,
        now: Tick,
    ) -> Option<DropReason> {
        let conn = K::side(&self.sides).conns.get(id);
        let (server, client) = (conn.server_id(), conn.client().ip());
        self.limits
            .meter(&self.snapshot, server, client, ip_len, now)
    }

    /// A new connection that is too much: counted, and TCP is told.
    #[cold]
    pub(super) fn reset_over_limit<K: Family>(
        &mut self,
        lane: usize,
        mut frame: Q::Frame,
        flow: &Flow<K>,
        reason: DropReason,
        now: Tick,
    ) {
        self.counters.dropped(reason);
        let is_answered = flow.key.proto() == Proto::Tcp
            && flow.says & RST == 0
            && !bad_source(flow.key.source());
        if is_answered && self.answers.admit(now) {
            let mac = self.lanes[lane].port.mac;
            if make_reset(&mut frame, flow, mac) {
                self.counters.generated.add(1);
                self.transmit(lane, frame);
            }
        }
    }
}
