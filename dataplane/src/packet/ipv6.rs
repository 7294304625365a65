//! IPv6 (RFC 8200).
//!
//! ```text
//!  0                         4                6             7           8     24    40
//!  | ver, class, flow label  | payload length | next header | hop limit | src | dst | extension headers, payload
//! ```
//! Most packets have no extension header: their check reads at constant places and is done. The
//! walk over a chain of them is apart, and bounded.
#![forbid(unsafe_code)]

use super::{be16, be32, checksum, eth};
use crate::counters::DropReason;

#[cfg(test)]
mod tests;

/// Bytes of the header.
pub const LEN: usize = 40;
/// Where it ends, from the frame's start.
pub const END: usize = eth::HEADER_LEN + LEN;
/// Offsets from the frame's start of the fields that forwarding rewrites.
pub const PAYLOAD_LEN_AT: usize = eth::HEADER_LEN + 4;
/// Next header.
pub const NEXT_AT: usize = eth::HEADER_LEN + 6;
/// Hop limit.
pub const HOP_LIMIT_AT: usize = eth::HEADER_LEN + 7;
/// Source address; the destination follows it at once.
pub const SRC_AT: usize = eth::HEADER_LEN + 8;
/// Destination address.
pub const DST_AT: usize = eth::HEADER_LEN + 24;

/// ICMP for IPv6 (RFC 4443).
pub const ICMP: u8 = 58;
/// Nothing follows (RFC 8200 4.7).
pub const NO_NEXT: u8 = 59;
/// Extension headers that the walk passes.
pub mod extension {
    /// Hop-by-hop options: only right behind the IPv6 header.
    pub const HOP_BY_HOP: u8 = 0;
    /// Routing.
    pub const ROUTING: u8 = 43;
    /// Fragment.
    pub const FRAGMENT: u8 = 44;
    /// Authentication (RFC 4302).
    pub const AUTHENTICATION: u8 = 51;
    /// Destination options.
    pub const DESTINATION: u8 = 60;
}

/// Bytes of a fragment header.
pub const FRAGMENT_LEN: usize = 8;

/// Extension headers of one packet that are walked. Real ones have three at most; RFC 8504 5.3
/// lets a node set such a limit.
pub const MAX_EXTENSIONS: usize = 8;

/// What a checked header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Source address.
    pub src: u128,
    /// Destination address.
    pub dst: u128,
    /// Offset from the frame's start of the upper-layer header; of a fragment other than the
    /// first, of what follows the fragment header.
    pub l4: u16,
    /// IPv6 header, extension headers and payload, bytes, without Ethernet padding.
    pub total_len: u16,
    /// Protocol of the upper-layer header; of a fragment other than the first, what its fragment
    /// header says.
    pub protocol: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Set when this is a part of a datagram. An atomic fragment (RFC 6946: offset 0 and no more
    /// to come) is a whole datagram and not a part.
    pub fragment: Option<Fragment>,
}

/// What a fragment header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// Offset of the fragment header from the frame's start.
    pub at: u16,
    /// Where this part belongs in the datagram's fragmentable part, bytes.
    pub offset: u16,
    /// More fragments follow.
    pub more: bool,
    /// Identification.
    pub id: u32,
}

impl Fragment {
    /// Whether it is a whole datagram all the same (RFC 6946).
    #[must_use]
    pub fn is_atomic(&self) -> bool {
        self.offset == 0 && !self.more
    }

    /// Checks its length; the packet ends at `end`.
    fn check(&self, end: usize) -> Result<(), DropReason> {
        let payload = end - usize::from(self.at) - FRAGMENT_LEN;
        // RFC 8200 4.5: all but the last are multiples of 8; none reaches past the largest
        // datagram.
        let ragged = self.more && (payload == 0 || !payload.is_multiple_of(8));
        match ragged || usize::from(self.offset) + payload > usize::from(u16::MAX) {
            true => Err(DropReason::BadFragment),
            false => Ok(()),
        }
    }
}

/// Where the chain of extension headers ends, and with what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain {
    /// Offset of the upper-layer header in the bytes that were walked.
    pub upper: usize,
    /// Its protocol.
    pub protocol: u8,
    /// The fragment header that was passed, atomic ones too; the walk ends at one with an offset.
    pub fragment: Option<Fragment>,
}

/// Checks the header of an IPv6 frame; `headers` are its first bytes.
///
/// # Errors
/// [`DropReason::BadIp6Header`]; of the extension headers [`DropReason::BadIp6Extension`],
/// [`DropReason::SourceRouted`], [`DropReason::TinyFragment`] and [`DropReason::BadFragment`].
#[inline(always)]
pub fn check(headers: &[u8; END], frame: &[u8]) -> Result<Header, DropReason> {
    const AT: usize = eth::HEADER_LEN;
    let end = END + usize::from(be16(headers, PAYLOAD_LEN_AT));
    // A length that fits 16 bits: no frame of ours is a jumbogram (RFC 2675).
    if headers[AT] >> 4 != 6 || end > frame.len() || end - AT > usize::from(u16::MAX) {
        return Err(DropReason::BadIp6Header);
    }
    let mut header = Header {
        src: be128(headers, SRC_AT),
        dst: be128(headers, DST_AT),
        l4: END as u16,
        total_len: (end - AT) as u16,
        protocol: headers[NEXT_AT],
        hop_limit: headers[HOP_LIMIT_AT],
        fragment: None,
    };
    if is_extension(header.protocol) {
        let chain = walk(&frame[..end], END, header.protocol)?;
        header.l4 = chain.upper as u16;
        header.protocol = chain.protocol;
        if let Some(fragment) = chain.fragment {
            fragment.check(end)?;
            header.fragment = Some(fragment).filter(|f| !f.is_atomic());
        }
    }
    Ok(header)
}

/// Whether `protocol` is an extension header that [`walk`] passes.
#[inline]
#[must_use]
pub fn is_extension(protocol: u8) -> bool {
    use extension::*;
    matches!(
        protocol,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION
    )
}

/// Walks the extension headers of `packet`, whose first one is a `next` at offset `at`. `packet`
/// ends where the datagram or its quote does.
///
/// # Errors
/// [`DropReason::BadIp6Extension`]: cut short, too many, in an order that RFC 8200 4.1 rules out,
/// or with a hop-by-hop option that asks to be dropped where it is not known.
/// [`DropReason::SourceRouted`]: a routing header that still names addresses (RFC 5095, and a
/// detour that nobody here asked for). [`DropReason::TinyFragment`]: a first fragment that ends
/// in the middle of its headers (RFC 7112).
#[cold]
pub fn walk(packet: &[u8], at: usize, next: u8) -> Result<Chain, DropReason> {
    let (mut at, mut next) = (at, next);
    let mut fragment: Option<Fragment> = None;
    for nth in 0..=MAX_EXTENSIONS {
        if !is_extension(next) {
            return Ok(Chain {
                upper: at,
                protocol: next,
                fragment,
            });
        }
        if nth == MAX_EXTENSIONS {
            break;
        }
        let cut = match fragment {
            Some(_) => DropReason::TinyFragment,
            None => DropReason::BadIp6Extension,
        };
        // Every extension header is at least 8 bytes long.
        let rest = packet.get(at..).unwrap_or_default();
        let head = rest.first_chunk::<8>().ok_or(cut)?;
        let len = match next {
            extension::FRAGMENT => FRAGMENT_LEN,
            extension::AUTHENTICATION => (usize::from(head[1]) + 2) * 4,
            _ => (usize::from(head[1]) + 1) * 8,
        };
        let whole = rest.get(..len).ok_or(cut)?;
        match next {
            extension::HOP_BY_HOP if nth > 0 => break,
            extension::HOP_BY_HOP if !options_pass(whole) => break,
            extension::ROUTING if head[3] != 0 => return Err(DropReason::SourceRouted),
            extension::FRAGMENT if fragment.is_some() => break,
            extension::FRAGMENT => {
                let word = be16(head, 2);
                let found = Fragment {
                    at: at as u16,
                    offset: word & 0xfff8,
                    more: word & 1 != 0,
                    id: be32(head, 4),
                };
                fragment = Some(found);
                if found.offset != 0 {
                    // What follows belongs to the middle of the datagram.
                    return Ok(Chain {
                        upper: at + len,
                        protocol: head[0],
                        fragment,
                    });
                }
            }
            _ => {}
        }
        (at, next) = (at + len, head[0]);
    }
    Err(DropReason::BadIp6Extension)
}

/// Whether a forwarding node may pass these hop-by-hop options: RFC 8200 4.2, the two highest
/// bits of a type that is not known say what to do, 00 is "skip". Known are the pads and the
/// router alert, which have 00 as well, so no list of them is needed; a jumbo payload has 11.
fn options_pass(header: &[u8]) -> bool {
    let mut options = header.get(2..).unwrap_or_default();
    // Bounded by the header's 2,048 bytes; each turn takes one at least.
    while let [kind, rest @ ..] = options {
        options = match (*kind, rest) {
            (0, _) => rest,
            (kind, [len, body @ ..]) if kind >> 6 == 0 && body.len() >= usize::from(*len) => {
                &body[usize::from(*len)..]
            }
            _ => return false,
        };
    }
    true
}

/// The folded sum of the pseudo-header (RFC 8200 8.1): `addrs` are the source and destination
/// address as they stand in the header, `len` the upper-layer packet's bytes.
#[inline]
#[must_use]
pub fn pseudo(addrs: &[u8; 32], protocol: u8, len: u32) -> u16 {
    let rest = u32::from(checksum::fold(len)) + u32::from(protocol);
    checksum::fold(u32::from(checksum::sum(addrs)) + rest)
}

/// Whether no packet may come from `addr`: unspecified, loopback, multicast (RFC 4291 2.5.2,
/// 2.5.3, 2.7), and IPv4-mapped, which never stands on a wire (RFC 4942 2.2) and would pass as an
/// IPv4 address behind the filters for those.
#[must_use]
pub fn bad_source(addr: u128) -> bool {
    addr <= 1 || addr >> 120 == 0xff || addr >> 32 == 0xffff
}

/// The big-endian 128-bit word at `at`.
#[inline]
#[must_use]
pub fn be128(frame: &[u8], at: usize) -> u128 {
    let mut word = [0; 16];
    word.copy_from_slice(&frame[at..at + 16]);
    u128::from_be_bytes(word)
}
