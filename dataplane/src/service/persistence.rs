//! Persistence: all connections of a client, or of what an engine finds in its packets, go to one
//! server.
#![forbid(unsafe_code)]

use std::net::IpAddr;

/// A service's persistence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Persistence {
    /// How long it lasts from the last new connection on, ticks.
    pub ticks: u32,
    /// Leading bits of the address that clients share; of an address of the service's family.
    pub prefix: u8,
    /// What is looked at beside the address.
    pub engine: Engine,
}

impl Persistence {
    /// By the whole address, for as long as `ipvsadm -p` says.
    #[must_use]
    pub fn new(client: IpAddr, ticks: u32) -> Persistence {
        Persistence {
            ticks,
            prefix: if client.is_ipv4() { 32 } else { 128 },
            engine: Engine::Address,
        }
    }
}

/// What is looked at beside the client's address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Engine {
    /// Nothing.
    #[default]
    Address,
    /// SIP's Call-ID, over UDP.
    Sip,
}
