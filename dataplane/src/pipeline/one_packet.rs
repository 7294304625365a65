//! One-packet scheduling (LVS's `ipvsadm -o`): each datagram gets a server of its own.
//!
//! The client's key is never looked for, so every datagram is scheduled. Where answers pass here
//! (FULL-NAT, NAT) the entry keeps their key for a while; LVS, which forgets at once, sends them
//! on untranslated. Where they do not (DR, TUN) nothing stays.
//!
//! A datagram in fragments is an exception: its parts need one server, so it is a connection like
//! any other, and ends like one.
#![forbid(unsafe_code)]

use super::family::Family;
use crate::conn::entry::Flags;
use crate::conn::state::Direction;
use crate::conn::{ConnId, Hit};
use crate::io::PortQueue;
use crate::packet::Key;
use crate::service::Service;
use crate::types::{Proto, ServerId};
use crate::worker::Worker;

/// How a packet's connection begins, `whole` or in parts.
#[inline(always)]
pub(super) fn flags<K: Key>(service: &Service, key: &K, whole: bool) -> Flags {
    match service.policy.one_packet && whole && key.proto() == Proto::Udp {
        true => Flags::ONE_PACKET,
        false => Flags::NONE,
    }
}

impl<Q: PortQueue> Worker<Q> {
    /// Earlier datagrams of the same client to the same server (NAT): answers to them and to
    /// this one are all alike.
    pub(super) fn datagrams_before<K: Family>(
        &self,
        inbound: &K,
        answers: &K,
        server: ServerId,
    ) -> Option<ConnId> {
        let conns = &K::side(&self.sides).conns;
        let Hit { id, .. } = conns.lookup(conns.hash(answers), answers)?;
        let known = conns.get(id);
        let same = known.flags().has(Flags::ONE_PACKET)
            && known.server_id() == server
            && known.key(Direction::Inbound) == *inbound;
        same.then_some(id)
    }

    /// Forgets a datagram that has gone its way, if nobody will ask for it.
    #[inline]
    pub(super) fn has_gone<K: Family>(&mut self, id: ConnId) {
        let conn = K::side(&self.sides).conns.get(id);
        if conn.flags().has(Flags::ONE_PACKET) && conn.mode().is_one_way() {
            self.counters.conns_expired.add(1);
            self.close::<K>(id);
        }
    }
}
