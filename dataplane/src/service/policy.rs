//! What an operator may ask of a service or a server beside how it chooses and forwards; nothing
//! of it by default.
//!
//! One field a concept, each of a type of its own whose default is "off": what is off costs
//! nothing.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::quic::{Quic, QuicServerId};
use crate::defense::access::Access;

/// Of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Each datagram is scheduled on its own (UDP).
    pub one_packet: bool,
    /// Packets find their server by QUIC connection ID (UDP).
    pub quic: Option<Arc<Quic>>,
    /// Whom it takes and whom it refuses; everybody without.
    pub access: Option<Arc<Access>>,
}

/// Of a real server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerPolicy {
    /// What its QUIC connection IDs name it by.
    pub quic_server_id: Option<QuicServerId>,
    /// Its connections are to end now: both sides are reset, or told nothing where the protocol
    /// has no words for it.
    pub dismissed: bool,
}
