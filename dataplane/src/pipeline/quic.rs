//! Which server a QUIC packet without a connection belongs to: its connection ID says.
//!
//! A client that changes its address comes with another five-tuple, perhaps to another core. What
//! its packets keep is the connection ID, which the server chose so that it names the server
//! ([`crate::service::Quic`]): no core has to know what another one decided. An ID that names
//! nobody is the client's own, of its first packets: a scheduler that hashes takes that for the
//! client, so that they stay together while its address changes; it is the fallback of the
//! QUIC-LB draft (section 4.3) together with the connection table, which keeps the five-tuple.
#![forbid(unsafe_code)]

use crate::io::PortQueue;
use crate::packet::quic::Destination;
use crate::packet::{Flow, Key, eth, udp};
use crate::sched::key_of_connection_id;
use crate::service::{Server, Service};
use crate::types::Proto;
use crate::worker::Worker;

/// What a connection ID says of the choice of a server.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ByCid {
    /// It names this server.
    pub(super) server: Option<Server>,
    /// It names none: what to hash in the client's place.
    pub(super) key: Option<u64>,
}

impl<Q: PortQueue> Worker<Q> {
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
