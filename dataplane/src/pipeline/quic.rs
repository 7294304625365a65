//! Which server a QUIC packet without a connection belongs to: its connection ID says.
//!
//! A client that changes its address comes with another five-tuple, perhaps to another core. What
//! its packets keep is the connection ID, which the server chose so that it names the server
//! ([`crate::service::Quic`]): no core has to know what another one decided. An ID that names
//! nobody is the client's own, of its first packets: a scheduler that hashes takes that for the
//! client, so that they stay together while its address changes; it is the fallback of the
//! QUIC-LB draft (section 4.3) together with the connection table, which keeps the five-tuple.
//! A five-tuple that is used again, by another client behind the same NAT, has a connection to the
//! wrong server: so the packets of these connections, and of no others, are asked each.
#![forbid(unsafe_code)]

use super::family::Family;
use crate::conn::Hit;
use crate::conn::entry::Flags;
use crate::conn::state::Direction;
use crate::io::PortQueue;
use crate::packet::quic::Destination;
use crate::packet::{Flow, Key, eth, udp};
use crate::sched::key_of_connection_id;
use crate::service::Service;
use crate::steer::Progress;
use crate::types::{Proto, ServerId, Tick};
use crate::worker::Worker;

/// What a connection ID says of the choice of a server.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ByCid {
    /// It names this server.
    pub(super) server: Option<ServerId>,
    /// It names none: what to hash in the client's place.
    pub(super) key: Option<u64>,
}

/// Whether a connection's packets are to be asked whose they are.
#[inline(always)]
pub(super) fn flags<K: Key>(service: &Service, key: &K) -> Flags {
    match &service.policy.quic {
        Some(quic) if quic.names_servers() && key.proto() == Proto::Udp => Flags::QUIC,
        _ => Flags::NONE,
    }
}

impl<Q: PortQueue> Worker<Q> {
    /// Whether a packet with a connection names another server than that has: another client
    /// has got the address and port, or another of the client's connections is meant.
    pub(super) fn belongs_elsewhere<K: Family>(
        &self,
        frame: &[u8],
        flow: &Flow<K>,
        hit: Hit,
    ) -> bool {
        let has = K::side(&self.sides).conns.get(hit.id).server_id();
        let service = self.snapshot.server(has).map(|server| server.service);
        let service = service.and_then(|service| self.snapshot.service(service));
        let named = service.and_then(|service| self.by_cid(service, frame, flow).server);
        hit.dir == Direction::Inbound && named.is_some_and(|server| server != has)
    }

    /// Its connection makes way for one to the server that it names.
    pub(super) fn open_elsewhere<K: Family>(
        &mut self,
        lane: usize,
        frame: Q::Frame,
        flow: &Flow<K>,
        hit: Hit,
        now: Tick,
    ) {
        self.give_up::<K>(hit.id);
        let first = self.first(lane, &frame);
        // One between families is kept among the IPv6 ones, whatever its client speaks.
        match flow.key.widened().unmapped() {
            Some(key) => {
                let flow = flow.with_key(key);
                let opened = self.open(first, &flow, Progress::default(), now);
                self.go_on(lane, frame, &flow, opened, now);
            }
            None => {
                let opened = self.open(first, flow, Progress::default(), now);
                self.go_on(lane, frame, flow, opened, now);
            }
        }
    }

    /// Reads the connection ID of a packet to a service that asks for it.
    #[inline]
    pub(super) fn by_cid<K: Key>(&self, service: &Service, frame: &[u8], flow: &Flow<K>) -> ByCid {
        match &service.policy.quic {
            None => ByCid::default(),
            Some(_) if flow.key.proto() != Proto::Udp => ByCid::default(),
            Some(quic) => {
                let end = eth::HEADER_LEN + usize::from(flow.ip_len);
                let datagram = frame.get(usize::from(flow.l4) + udp::LEN..end);
                let Some(to) = datagram.and_then(Destination::of) else {
                    return ByCid::default();
                };
                let named = quic.server_id(to.bytes());
                let named = named.and_then(|id| self.snapshot.server_of_quic(service.id, id));
                match (named, to) {
                    (None, Destination::Long(cid)) => ByCid {
                        server: None,
                        key: Some(key_of_connection_id(cid)),
                    },
                    (server, _) => ByCid { server, key: None },
                }
            }
        }
    }
}
