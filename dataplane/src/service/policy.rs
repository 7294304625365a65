//! What an operator may ask of a service or a server beside how it chooses and forwards; nothing
//! of it by default.
//!
//! One field a concept, each of a type of its own whose default is "off": what is off costs
//! nothing.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::persistence::Persistence;
use super::quic::{Quic, QuicServerId};
use super::snat::SnatPool;
use crate::defense::access::Access;
use crate::defense::syn_proxy::SynProxy;
use crate::helper::Helper;

/// Of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// A client's connections go to one server.
    pub persistence: Option<Persistence>,
    /// Each datagram is scheduled on its own (UDP).
    pub one_packet: bool,
    /// Packets find their server by QUIC connection ID (UDP).
    pub quic: Option<Arc<Quic>>,
    /// Clients prove where they are before a connection is opened.
    pub syn_proxy: SynProxy,
    /// Whom it takes and whom it refuses; everybody without.
    pub access: Option<Arc<Access>>,
    /// How much it, and each of its clients, may have.
    pub limits: Limits,
    /// Of a pool of SNAT, what it gives.
    pub snat: SnatPool,
    /// What reads its connections for the others that they announce.
    pub helper: Helper,
}

impl Policy {
    /// Whether a connection to it opens without a further question: none before a server is chosen,
    /// none about which one.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let Policy {
            persistence,
            one_packet,
            quic,
            syn_proxy,
            access,
            limits,
            snat: _,   // its pools' connections open elsewhere
            helper: _, // asked of the connection, once it is open
        } = self;
        persistence.is_none()
            && !one_packet
            && quic.is_none()
            && syn_proxy.is_off()
            && access.is_none()
            && !limits.are_on()
    }
}

/// How much a service and each of its clients may have. What is more than that is refused, and
/// counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// All clients together.
    pub service: Rates,
    /// Each client.
    pub client: Rates,
    /// Leading bits of its address that make a client, IPv4 and IPv6.
    pub prefix4: u8,
    /// See `prefix4`.
    pub prefix6: u8,
    /// What becomes of a new TCP connection that is too much. Packets are dropped.
    pub excess: Excess,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            service: Rates::default(),
            client: Rates::default(),
            prefix4: 32,
            prefix6: 64,
            excess: Excess::Drop,
        }
    }
}

impl Limits {
    /// Whether there is any.
    #[inline]
    #[must_use]
    pub fn are_on(&self) -> bool {
        self.service.are_on() || self.client.are_on()
    }

    /// Whether packets of connections have to be counted.
    #[inline]
    #[must_use]
    pub fn meter_packets(&self) -> bool {
        self.service.meter_packets() || self.client.meter_packets()
    }
}

/// What may stand, and what may come in a second; 0 is no limit. Packets and bits (of IP packets)
/// are those of both directions, as they pass here: with DR and TUN the clients' alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// Connections standing.
    pub connections: u32,
    /// Connections opened in a second.
    pub connections_per_second: u64,
    /// Packets in a second.
    pub packets_per_second: u64,
    /// Bits in a second.
    pub bits_per_second: u64,
}

impl Rates {
    /// Whether there is any.
    #[inline]
    #[must_use]
    pub fn are_on(&self) -> bool {
        *self != Rates::default()
    }

    /// Whether packets of connections have to be counted.
    #[inline]
    #[must_use]
    pub fn meter_packets(&self) -> bool {
        self.packets_per_second | self.bits_per_second != 0
    }
}

/// What becomes of a new TCP connection that is too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// Its SYN is dropped: the client tries again after a second.
    Drop,
    /// It is answered by a reset: the client knows at once.
    Reset,
}

/// Of a real server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerPolicy {
    /// What its QUIC connection IDs name it by.
    pub quic_server_id: Option<QuicServerId>,
    /// Its connections are to end now: both sides are reset, or told nothing where the protocol
    /// has no words for it.
    pub dismissed: bool,
    /// How many connections it may have.
    pub thresholds: Thresholds,
}

/// When a server has connections enough, as `ipvsadm -x` and `-y` set it: from `upper` on it gets
/// no new ones, until it has fewer than `lower`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Thresholds {
    /// Connections, active and inactive, that are enough; 0 for as many as come.
    pub upper: u32,
    /// Fewer than this are not enough any more; 0 for three quarters of `upper`.
    pub lower: u32,
}

impl Thresholds {
    /// Whether there is a limit.
    #[inline]
    #[must_use]
    pub fn are_on(self) -> bool {
        self.upper > 0
    }

    /// Whether a server with `connections` is overloaded from now on.
    #[inline]
    #[must_use]
    pub fn are_reached(self, connections: u64) -> bool {
        self.upper > 0 && connections >= u64::from(self.upper)
    }

    /// Whether it is not any more.
    #[inline]
    #[must_use]
    pub fn are_cleared(self, connections: u64) -> bool {
        match (self.upper, self.lower) {
            (0, 0) => true,
            (upper, 0) => connections * 4 < u64::from(upper) * 3,
            (_, lower) => connections < u64::from(lower),
        }
    }

    /// Whether a server that was overloaded under `before` is not under these: the upper one was
    /// raised or taken away.
    #[must_use]
    pub fn frees(self, before: Thresholds) -> bool {
        self.upper == 0 || self.upper > before.upper
    }
}
