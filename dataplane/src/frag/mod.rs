//! Fragments that arrive: who belongs to whom, and where they all go. Owner: the worker that
//! hash(source, destination, protocol, identification) names.
//!
//! Only the first fragment of a datagram has ports. What the pipeline concludes from it (a flow
//! key) is remembered in the [`Store`] and given to the others, which come in any order; those
//! that come before the first wait for it. Nothing is put together: fragments travel on as they
//! are. Those of an SCTP packet wait for each other, because its checksum changes with its ports by
//! what its length says, and only the last part tells that.
//!
//! Bounded in everything: datagrams, parts of one, frames that wait, time. Parts that overlap
//! are an attack (RFC 5722, RFC 8900 3.7), and end their datagram.
#![forbid(unsafe_code)]

use std::net::Ipv4Addr;

use crate::counters::DropReason;
use crate::packet::{be16, eth, icmp, ipv4, ipv6, sctp, tcp, udp};

mod store;
#[cfg(test)]
mod tests;

pub use store::{Arrived, Store};

/// Frames of one worker that wait for a first fragment, at most.
pub const FRAGMENTS_HELD: usize = 256;

/// Which datagram a fragment is of: RFC 791 3.2, RFC 8200 4.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FragKey {
    /// Source address; an IPv4 one is IPv4-mapped.
    pub src: u128,
    /// Destination address.
    pub dst: u128,
    /// Identification.
    pub id: u32,
    /// Upper-layer protocol; 0 for IPv6, whose fragments are told apart without it.
    pub protocol: u8,
}

/// One part of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Which datagram.
    pub key: FragKey,
    /// Where its data begins in the datagram's, bytes.
    pub offset: u16,
    /// Bytes of data.
    pub len: u16,
    /// Others follow behind it.
    pub more: bool,
    /// It is a first part, and waits for all others: what becomes of it depends on the whole
    /// datagram's length (SCTP's checksum).
    pub together: bool,
}

impl Piece {
    /// The part that an IPv4 frame carries whose header was checked and says it is one.
    ///
    /// # Errors
    /// [`DropReason::BadFragment`]: no data, a part before the last that is no multiple of 8
    /// bytes, or an end past 65,535. [`DropReason::TinyFragment`]: a first fragment without its
    /// whole transport header, or another that begins inside TCP's (RFC 1858, RFC 3128).
    #[cold]
    pub fn v4(frame: &[u8], ip: &ipv4::Header) -> Result<Piece, DropReason> {
        let word = be16(frame, eth::HEADER_LEN + 6);
        let mapped = |addr: u32| u128::from(Ipv4Addr::from(addr).to_ipv6_mapped());
        let piece = Piece {
            key: FragKey {
                src: mapped((ip.addrs >> 32) as u32),
                dst: mapped(ip.addrs as u32),
                id: be16(frame, eth::HEADER_LEN + 4).into(),
                protocol: ip.protocol,
            },
            offset: (word & ipv4::OFFSET_MASK) << 3,
            len: (eth::HEADER_LEN as u16 + ip.total_len).saturating_sub(ip.l4),
            more: word & ipv4::MF != 0,
            together: false,
        };
        let end = eth::HEADER_LEN + usize::from(ip.total_len);
        piece.check(frame, ip.l4, end, ip.protocol)
    }

    /// As [`Piece::v4`], of an IPv6 frame; `None` when it carries a whole datagram.
    ///
    /// # Errors
    /// As [`Piece::v4`].
    #[cold]
    pub fn v6(frame: &[u8], ip: &ipv6::Header) -> Option<Result<Piece, DropReason>> {
        let fragment = ip.fragment?;
        let end = eth::HEADER_LEN as u16 + ip.total_len;
        let piece = Piece {
            key: FragKey {
                src: ip.src,
                dst: ip.dst,
                id: fragment.id,
                protocol: 0,
            },
            offset: fragment.offset,
            len: end.saturating_sub(fragment.at + ipv6::FRAGMENT_LEN as u16),
            more: fragment.more,
            together: false,
        };
        Some(piece.check(frame, ip.l4, usize::from(end), ip.protocol))
    }

    fn check(
        mut self,
        frame: &[u8],
        l4: u16,
        end: usize,
        protocol: u8,
    ) -> Result<Piece, DropReason> {
        let ragged = self.more && !self.len.is_multiple_of(8);
        if self.len == 0 || ragged || self.offset.checked_add(self.len).is_none() {
            return Err(DropReason::BadFragment);
        }
        let whole = match self.offset {
            0 => has_header(
                frame.get(usize::from(l4)..end).unwrap_or_default(),
                protocol,
            ),
            offset => protocol != ipv4::TCP || usize::from(offset) >= tcp::MIN_LEN,
        };
        self.together = self.offset == 0 && protocol == sctp::PROTOCOL;
        match whole {
            true => Ok(self),
            false => Err(DropReason::TinyFragment),
        }
    }
}

/// Whether the whole transport header is there (RFC 7112 for IPv6; RFC 1858 for IPv4).
fn has_header(upper: &[u8], protocol: u8) -> bool {
    let needs = match protocol {
        ipv4::TCP => match upper.get(12) {
            Some(offset) => (usize::from(offset >> 4) * 4).max(tcp::MIN_LEN),
            None => return false,
        },
        ipv4::UDP => udp::LEN,
        ipv4::ICMP | ipv6::ICMP => icmp::LEN,
        sctp::PROTOCOL => sctp::LEN,
        _ => 0,
    };
    upper.len() >= needs
}
