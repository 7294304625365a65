//! Answers of a marked service's DR and TUN servers that are routed through the director.
//!
//! An answer comes from the address that its client asked for. Of other services these addresses
//! are known, and nobody else's packets come from there; marking rules may lead anywhere, so a
//! packet is such an answer only if it opens nothing itself and its connection stands.
#![forbid(unsafe_code)]

use super::family::Family;
use crate::conn::Hit;
use crate::io::PortQueue;
use crate::packet::Flow;
use crate::types::{CoreId, Tick};
use crate::worker::Worker;

impl<Q: PortQueue> Worker<Q> {
    /// For a packet that opens nothing: who owns the connection that it may be an answer of, and
    /// that connection if we do. `None` when it is none.
    pub(super) fn find_answered_marked<K: Family>(
        &self,
        flow: &Flow<K>,
    ) -> Option<(CoreId, Option<Hit>)> {
        if !self.snapshot.may_answer_marked(flow.key.source().ip()) {
            return None;
        }
        let (owner, hit) = self.answered(flow);
        (owner != self.steer.me() || hit.is_some()).then_some((owner, hit))
    }

    /// Takes it to its connection; the owner finds out whether there is one.
    pub(super) fn answer_of_marked<K: Family>(
        &mut self,
        lane: usize,
        frame: Q::Frame,
        flow: &Flow<K>,
        (owner, hit): (CoreId, Option<Hit>),
        now: Tick,
    ) {
        match hit.filter(|_| owner == self.steer.me()) {
            Some(hit) => self.aside(lane, frame, flow, hit, now),
            None => self.away(owner, lane, frame),
        }
    }
}
