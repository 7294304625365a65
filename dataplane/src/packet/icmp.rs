//! ICMP (RFC 792) and ICMPv6 (RFC 4443): which messages are errors, and which flow they are about.
//!
//! ```text
//!  0      1      2          4             8
//!  | type | code | checksum | MTU, pointer | the packet that the error is about, as much as fits
//! ```
//! An error quotes a packet that left the director, or left for it, so the quoted flow finds
//! the connection. [`translate`] turns the error into one that the receiver of the translated
//! flow understands, [`relay`] one about a tunnel into one about what was inside, and
//! [`build_error`] makes one.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::ipv6::be128;
use super::{be16, be32, checksum, eth, ipv4, ipv6, sctp};
use crate::counters::DropReason;

mod build;
mod echo;
mod map;
mod relay;
#[cfg(test)]
mod tests;
mod translate;

pub use build::{Problem, build_error};
pub use echo::Echo;
pub use relay::relay;
pub use translate::{Translation, translate};

/// Bytes of the header.
pub const LEN: usize = 8;
/// Offset of the checksum from the header's start.
pub const CHECKSUM_AT: usize = 2;
/// Offset of the word whose lower half is the MTU (RFC 1191), the whole of it in ICMPv6.
pub const WORD_AT: usize = 4;

/// Types of ICMP, and the codes that more than one place knows.
pub mod v4 {
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Echo request.
    pub const ECHO: u8 = 8;
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Of [`UNREACHABLE`]: fragmentation needed and DF set.
    pub const FRAGMENTATION_NEEDED: u8 = 4;
    /// Source quench, obsolete (RFC 6633).
    pub const SOURCE_QUENCH: u8 = 4;
    /// Redirect.
    pub const REDIRECT: u8 = 5;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER: u8 = 12;
}

/// Types of ICMPv6.
pub mod v6 {
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 1;
    /// Packet too big.
    pub const TOO_BIG: u8 = 2;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 3;
    /// Parameter problem.
    pub const PARAMETER: u8 = 4;
    /// The first type that is not an error's (RFC 4443 2.1).
    pub const INFORMATIONAL: u8 = 128;
    /// Echo request.
    pub const ECHO: u8 = 128;
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 129;
    /// Redirect (RFC 4861).
    pub const REDIRECT: u8 = 137;
}

/// What a message is to the balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// An error about a packet that it quotes.
    Error(Quote),
    /// Echo, neighbour discovery, a redirect ...: the kernel's.
    Other,
}

/// The packet that an error quotes, and where it stands in the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quote {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Upper-layer protocol.
    pub protocol: u8,
    /// Ports, source in the high half, of a TCP, UDP or SCTP packet whose first 8 bytes are
    /// quoted, or what [`Echo::ports`] says of an echo. A fragment other than the first has none.
    pub ports: Option<u32>,
    /// Offset of its IP header from the frame's start.
    pub ip: u16,
    /// Offset of its upper-layer header.
    pub l4: u16,
    /// Where the quote ends.
    pub end: u16,
    /// Offset of the ICMP header.
    pub icmp: u16,
}

impl Quote {
    /// Source address and port of the quoted packet.
    #[must_use]
    pub fn source(&self) -> Option<SocketAddr> {
        let ports = self.ports?;
        Some(SocketAddr::new(self.src, (ports >> 16) as u16))
    }

    /// Destination address and port of the quoted packet.
    #[must_use]
    pub fn destination(&self) -> Option<SocketAddr> {
        let ports = self.ports?;
        Some(SocketAddr::new(self.dst, ports as u16))
    }

    /// Reads the packet quoted at `ip`, IPv4 or IPv6 as its version says, of which `frame[..end]`
    /// holds a part. `None` when not even its header is there or is one.
    #[must_use]
    pub fn read(frame: &[u8], icmp: usize, ip: usize, end: usize) -> Option<Quote> {
        let frame = frame.get(..end)?;
        let (src, dst, protocol, l4, first) = match frame.get(ip)? >> 4 {
            4 => {
                let h = frame.get(ip..)?.first_chunk::<{ ipv4::MIN_LEN }>()?;
                let len = usize::from(h[0] & 0x0f) * 4;
                if len < ipv4::MIN_LEN {
                    return None;
                }
                let (src, dst) = (Ipv4Addr::from(be32(h, 12)), Ipv4Addr::from(be32(h, 16)));
                let first = be16(h, 6) & ipv4::OFFSET_MASK == 0;
                (src.into(), dst.into(), h[9], ip + len, first)
            }
            6 => {
                let h = frame.get(ip..)?.first_chunk::<{ ipv6::LEN }>()?;
                let (src, dst) = (Ipv6Addr::from(be128(h, 8)), Ipv6Addr::from(be128(h, 24)));
                let at = ip + ipv6::LEN;
                let (mut l4, mut protocol, mut first) = (at, h[6], true);
                if ipv6::is_extension(protocol) {
                    let chain = ipv6::walk(frame, at, protocol).ok()?;
                    (l4, protocol) = (chain.upper, chain.protocol);
                    first = chain.fragment.is_none_or(|f| f.offset == 0);
                }
                (IpAddr::from(src), IpAddr::from(dst), protocol, l4, first)
            }
            _ => return None,
        };
        // RFC 792 promises 8 bytes of it.
        let quoted = frame.get(l4..l4 + 8).filter(|_| first);
        let ports = quoted.and_then(|l4| match protocol {
            ipv4::TCP | ipv4::UDP | sctp::PROTOCOL => Some(be32(l4, 0)),
            _ => Echo::read(protocol, l4).map(Echo::ports),
        });
        Some(Quote {
            src,
            dst,
            protocol,
            ports,
            ip: ip as u16,
            l4: l4 as u16,
            end: end as u16,
            icmp: icmp as u16,
        })
    }

    /// Bytes of the quoted packet's upper layer as it travelled, not as much as is quoted.
    fn segment_len(&self, frame: &[u8]) -> usize {
        let end = usize::from(self.ip) + self.packet_len(frame);
        end.saturating_sub(usize::from(self.l4))
    }

    /// Whether it is a part of a datagram.
    pub(crate) fn is_part(&self, frame: &[u8]) -> bool {
        let (ip, l4) = (usize::from(self.ip), usize::from(self.l4));
        match self.src {
            IpAddr::V4(_) => be16(frame, ip + 6) & (ipv4::MF | ipv4::OFFSET_MASK) != 0,
            IpAddr::V6(_) => {
                let chain = ipv6::walk(frame, ip + ipv6::LEN, frame[ip + 6]);
                l4 > ip + ipv6::LEN && chain.is_ok_and(|chain| chain.fragment.is_some())
            }
        }
    }

    /// Bytes of the quoted packet as it travelled.
    pub(crate) fn packet_len(&self, frame: &[u8]) -> usize {
        let ip = usize::from(self.ip);
        match self.src {
            IpAddr::V4(_) => usize::from(be16(frame, ip + 2)),
            IpAddr::V6(_) => ipv6::LEN + usize::from(be16(frame, ip + 4)),
        }
    }
}

/// Looks at the message in `frame`, a packet checked at the door that ends at `end` and whose
/// ICMP header is at `at`.
///
/// # Errors
/// [`DropReason::BadIcmp`]: no whole header, or an error that quotes less than an IP header.
/// [`DropReason::BadIcmpChecksum`]: of an error; of all else the kernel checks it.
#[cold]
pub fn look(frame: &[u8], at: usize, end: usize) -> Result<Message, DropReason> {
    let message = frame.get(at..end).ok_or(DropReason::BadIcmp)?;
    let head = message.first_chunk::<LEN>().ok_or(DropReason::BadIcmp)?;
    let v6 = is_v6(frame);
    let is_error = match v6 {
        true => head[0] < v6::INFORMATIONAL,
        // A redirect tells a host of a better router on its link; it goes nowhere else.
        false => matches!(
            head[0],
            v4::UNREACHABLE | v4::SOURCE_QUENCH | v4::TIME_EXCEEDED | v4::PARAMETER
        ),
    };
    if !is_error {
        return Ok(Message::Other);
    }
    let pseudo = pseudo(frame, message.len());
    if checksum::fold(pseudo + u32::from(checksum::sum(message))) != 0xffff {
        return Err(DropReason::BadIcmpChecksum);
    }
    let quote = Quote::read(frame, at, at + LEN, end).ok_or(DropReason::BadIcmp)?;
    // An error carries what its own protocol carried: RFC 792, RFC 4443 2.1.
    match quote.src.is_ipv6() == v6 {
        true => Ok(Message::Error(quote)),
        false => Err(DropReason::BadIcmp),
    }
}

/// The next hop's MTU that an error names; `None` when it is not about that. A router older than
/// RFC 1191 leaves it 0: then the next plateau below the quoted packet's length (RFC 1191 7.1).
#[must_use]
pub fn mtu(frame: &[u8], error: &Quote) -> Option<u16> {
    let at = usize::from(error.icmp);
    let (kind, code) = (*frame.get(at)?, *frame.get(at + 1)?);
    let word = be32(frame.get(..at + LEN)?, at + WORD_AT);
    match error.src {
        IpAddr::V4(_) if (kind, code) == (v4::UNREACHABLE, v4::FRAGMENTATION_NEEDED) => {
            match word as u16 {
                0 => {
                    let len = be16(frame, usize::from(error.ip) + 2);
                    PLATEAUS.iter().copied().find(|&p| p < len)
                }
                mtu => Some(mtu),
            }
        }
        IpAddr::V6(_) if kind == v6::TOO_BIG => Some(u16::try_from(word).unwrap_or(u16::MAX)),
        _ => None,
    }
}

/// Type, code and word of the message at `at`.
fn head(frame: &[u8], at: usize) -> map::Head {
    (frame[at], frame[at + 1], be32(frame, at + WORD_AT))
}

/// Type of service and TTL, or traffic class and hop limit, of the IP header at `at`.
fn tos_ttl(frame: &[u8], at: usize) -> (u8, u8) {
    match frame[at] >> 4 {
        4 => (frame[at + 1], frame[at + 8]),
        _ => (frame[at] << 4 | frame[at + 1] >> 4, frame[at + 7]),
    }
}

/// MTUs that links used to have (RFC 1191 7).
const PLATEAUS: &[u16] = &[
    32_000, 17_914, 8_166, 4_352, 2_002, 1_492, 1_006, 508, 296, 68,
];

fn is_v6(frame: &[u8]) -> bool {
    eth::ethertype(frame) == Ok(eth::IPV6)
}

/// What the pseudo-header adds to the checksum of a message of `len` bytes: nothing in ICMP.
fn pseudo(frame: &[u8], len: usize) -> u32 {
    let addrs = frame
        .get(ipv6::SRC_AT..)
        .and_then(|addrs| addrs.first_chunk());
    match addrs {
        Some(addrs) if is_v6(frame) => u32::from(ipv6::pseudo(addrs, ipv6::ICMP, len as u32)),
        _ => 0,
    }
}

/// Computes the checksum of the message at `at` that the frame ends with.
pub(super) fn set_checksum(frame: &mut [u8], at: usize) {
    let Some(len) = frame.len().checked_sub(at + LEN) else {
        return;
    };
    super::put16(frame, at + CHECKSUM_AT, 0);
    let sum = pseudo(frame, len + LEN) + u32::from(checksum::sum(&frame[at..]));
    super::put16(frame, at + CHECKSUM_AT, !checksum::fold(sum));
}
