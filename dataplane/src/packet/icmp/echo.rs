//! Echo messages (RFC 792, RFC 4443 4.1 and 4.2) as flows: who asks, by the identifier.
//!
//! ```text
//!  0      1      2          4            6          8
//!  | type | 0    | checksum | identifier | sequence | whatever the asker likes
//! ```
//! The identifier is to an echo what the port is to a datagram (RFC 5508 3.1): it stands for the
//! port of the side that asks, and the side that answers has port 0.
#![forbid(unsafe_code)]

use super::{LEN, WORD_AT, v4, v6};
use crate::packet::{be16, ipv4, ipv6};

/// An echo message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo {
    /// A request, and not a reply.
    pub asks: bool,
    /// Which of the asker's.
    pub id: u16,
}

impl Echo {
    /// Reads a message of this IP protocol from its first bytes; `None` when it is no echo.
    #[must_use]
    pub fn read(protocol: u8, message: &[u8]) -> Option<Echo> {
        let head = message.first_chunk::<LEN>()?;
        let asks = match (protocol, head[0]) {
            (ipv4::ICMP, v4::ECHO) | (ipv6::ICMP, v6::ECHO) => true,
            (ipv4::ICMP, v4::ECHO_REPLY) | (ipv6::ICMP, v6::ECHO_REPLY) => false,
            _ => return None,
        };
        let id = be16(head, WORD_AT);
        Some(Echo { asks, id })
    }

    /// The ports that a key has of it: source in the high half.
    #[must_use]
    pub fn ports(self) -> u32 {
        match self.asks {
            true => u32::from(self.id) << 16,
            false => self.id.into(),
        }
    }
}
