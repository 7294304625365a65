//! SCTP (RFC 9260).
//!
//! ```text
//!  0      2      4                  8        12
//!  | sport| dport| verification tag | CRC32c | chunks: type, flags, length (2), value, padding
//! ```
//!
//! The checksum covers no pseudo-header, so addresses may change under it; ports may not.
//! CRCs are linear over XOR: what new ports change in it depends on how far behind them the
//! packet ends and on nothing in between. So [`new_ports`] mends the checksum without reading
//! the packet, and one that was wrong stays wrong.
#![forbid(unsafe_code)]

use super::{be16, be32, put32, tcp};
use crate::counters::DropReason;

/// IP protocol number.
pub const PROTOCOL: u8 = 132;
/// Bytes of the common header.
pub const LEN: usize = 12;
/// Offset of the verification tag.
pub const TAG_AT: usize = 4;
/// Offset of the checksum.
pub const CHECKSUM_AT: usize = 8;
/// Bytes of a chunk's header.
pub const CHUNK_LEN: usize = 4;
/// Chunks that [`check`] looks at: more than ordinary senders put before data.
const CHUNKS: usize = 8;

/// Types of chunks that more than the state table knows.
pub mod chunk {
    /// User data.
    pub const DATA: u8 = 0;
    /// Opens an association; comes alone.
    pub const INIT: u8 = 1;
    /// Ends one at once.
    pub const ABORT: u8 = 6;
    /// Answer to SHUTDOWN.
    pub const SHUTDOWN_ACK: u8 = 8;
    /// Something is wrong.
    pub const ERROR: u8 = 9;
    /// Answer to COOKIE ECHO.
    pub const COOKIE_ACK: u8 = 11;
    /// Answer to SHUTDOWN ACK.
    pub const SHUTDOWN_COMPLETE: u8 = 14;
    /// User data, interleaved (RFC 8260).
    pub const I_DATA: u8 = 64;
    /// In the flags of ABORT and SHUTDOWN COMPLETE: the verification tag is the receiver's own.
    pub const FLAG_T: u8 = 1;
}

/// What a packet's chunks mean for the connection's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Event {
    /// Anything that is none of the others: DATA, SACK, HEARTBEAT, unknown chunks.
    #[default]
    Data = 0,
    /// INIT.
    Init = 1,
    /// INIT ACK.
    InitAck = 2,
    /// COOKIE ECHO.
    CookieEcho = 3,
    /// COOKIE ACK.
    CookieAck = 4,
    /// SHUTDOWN.
    Shutdown = 5,
    /// SHUTDOWN ACK.
    ShutdownAck = 6,
    /// SHUTDOWN COMPLETE.
    ShutdownComplete = 7,
    /// ERROR.
    Error = 8,
    /// ABORT.
    Abort = 9,
}

impl Event {
    /// All events, by number.
    pub const ALL: [Event; 10] = [
        Event::Data,
        Event::Init,
        Event::InitAck,
        Event::CookieEcho,
        Event::CookieAck,
        Event::Shutdown,
        Event::ShutdownAck,
        Event::ShutdownComplete,
        Event::Error,
        Event::Abort,
    ];

    /// The event of this number; of others [`Event::Data`].
    #[inline]
    #[must_use]
    pub fn from_u8(number: u8) -> Event {
        match Event::ALL.get(usize::from(number)) {
            Some(event) => *event,
            None => Event::Data,
        }
    }

    /// As [`Flow::says`] has it: the event's number above, and of TCP's flags SYN for what
    /// begins an association and RST for what ends it at once, so that one test serves both
    /// protocols.
    ///
    /// [`Flow::says`]: super::Flow::says
    #[inline]
    #[must_use]
    pub const fn says(self) -> u8 {
        let flags = match self {
            Event::Init => tcp::flags::SYN,
            Event::Abort => tcp::flags::RST,
            _ => 0,
        };
        (self as u8) << 4 | flags
    }

    /// The event that [`Event::says`] made this of.
    #[inline]
    #[must_use]
    pub fn of_says(says: u8) -> Event {
        Event::from_u8(says >> 4)
    }

    /// What one chunk of type `chunk` says (RFC 9260 3.2).
    #[inline]
    #[must_use]
    pub fn of_chunk(chunk: u8) -> Event {
        match chunk {
            1 => Event::Init,
            2 => Event::InitAck,
            6 => Event::Abort,
            7 => Event::Shutdown,
            8 => Event::ShutdownAck,
            9 => Event::Error,
            10 => Event::CookieEcho,
            11 => Event::CookieAck,
            14 => Event::ShutdownComplete,
            _ => Event::Data,
        }
    }
}

/// Checks the header and the chunks that `packet` begins with; gives the header, and what the
/// chunks say.
///
/// Control chunks come before data (RFC 9260 6.10), so the walk ends with the first DATA. An
/// ABORT anywhere is what counts, else the first chunk that moves the state.
///
/// # Errors
/// [`DropReason::BadSctpHeader`]: no whole header, or no whole first chunk header.
#[inline(never)] // rare beside TCP and UDP, whose code stays closer together without it
pub fn check(packet: &[u8]) -> Result<(&[u8; LEN], Event), DropReason> {
    let (sctp, mut chunks) = packet
        .split_first_chunk::<LEN>()
        .ok_or(DropReason::BadSctpHeader)?;
    let mut event = None;
    for _ in 0..CHUNKS {
        let Some(head) = chunks.first_chunk::<CHUNK_LEN>() else {
            break;
        };
        let (kind, length) = (head[0], usize::from(be16(head, 2)));
        if length < CHUNK_LEN {
            break;
        }
        match Event::of_chunk(kind) {
            Event::Abort => return Ok((sctp, Event::Abort)),
            says if event.is_none_or(|e| e == Event::Data) => event = Some(says),
            _ => {}
        }
        if matches!(kind, chunk::DATA | chunk::I_DATA) {
            break;
        }
        chunks = chunks.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    event
        .map(|event| (sctp, event))
        .ok_or(DropReason::BadSctpHeader)
}

/// The checksum that `packet` should carry, whatever it does carry.
#[must_use]
pub fn checksum(packet: &[u8]) -> u32 {
    let before = crc32c::crc32c(packet.get(..CHECKSUM_AT).unwrap_or_default());
    let zeroed = crc32c::crc32c_append(before, &[0; 4]);
    crc32c::crc32c_append(zeroed, packet.get(LEN..).unwrap_or_default())
}

/// The checksum that `packet` carries. On the wire its bytes are those of the little-endian
/// number (RFC 9260 appendix A).
#[must_use]
pub fn found_checksum(packet: &[u8]) -> u32 {
    be32(packet, CHECKSUM_AT).swap_bytes()
}

/// Writes the right checksum into `packet`, of a whole header at least.
pub fn set_checksum(packet: &mut [u8]) {
    let right = checksum(packet);
    put32(packet, CHECKSUM_AT, right.swap_bytes());
}

/// Completes a checksum that a local sender left to its card: then it is 0. Whether it was.
#[inline(never)]
pub fn complete_partial(packet: &mut [u8]) -> bool {
    let partial = packet.len() >= LEN && found_checksum(packet) == 0;
    if partial {
        set_checksum(packet);
    }
    partial
}

/// Gives `packet`, a whole one, new ports (source in the high half), and mends the checksum.
#[inline(never)]
pub fn new_ports(packet: &mut [u8], ports: u32) {
    let len = packet.len();
    if let Some(sctp) = packet.first_chunk_mut::<LEN>() {
        new_ports_of(sctp, len, ports);
    }
}

/// As [`new_ports`], of a packet of `len` bytes of which only the header is there: an ICMP error
/// quotes it.
#[inline]
pub fn new_ports_of(sctp: &mut [u8; LEN], len: usize, ports: u32) {
    let changed = be32(sctp, 0) ^ ports;
    if changed == 0 {
        return;
    }
    sctp[..4].copy_from_slice(&ports.to_be_bytes());
    let sum = be32(sctp, CHECKSUM_AT).swap_bytes();
    let sum = sum ^ crc::followed(changed.swap_bytes(), len);
    sctp[CHECKSUM_AT..].copy_from_slice(&sum.to_le_bytes());
}

/// Arithmetic of CRC32c: polynomials over GF(2) modulo its own, the lowest power in the
/// highest bit.
mod crc {
    /// x^32 mod P, which is P without its x^32 (RFC 3385; 0x1EDC6F41 mirrored).
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    const ONE: u32 = 1 << 31;

    const fn times_x(a: u32) -> u32 {
        (a >> 1) ^ (POLYNOMIAL & (a & 1).wrapping_neg())
    }

    /// a·b mod P, without a branch on either.
    const fn times(a: u32, mut b: u32) -> u32 {
        let (mut product, mut bit) = (0, 32);
        while bit > 0 {
            bit -= 1;
            product ^= b & (a >> bit & 1).wrapping_neg();
            b = times_x(b);
        }
        product
    }

    /// The powers 0 to 127 of `base`.
    const fn powers(base: u32) -> [u32; 128] {
        let mut powers = [ONE; 128];
        let mut n = 1;
        while n < powers.len() {
            powers[n] = times(powers[n - 1], base);
            n += 1;
        }
        powers
    }

    /// x^(32n): n words of four bytes.
    static WORDS: [u32; 128] = powers(POLYNOMIAL);
    /// x^(32·128n): n times 512 bytes.
    static BLOCKS: [u32; 128] = powers(times(WORDS[127], POLYNOMIAL));

    /// What a packet of `len` bytes, at most 65,535, has in its CRC from its first word being
    /// other by `word`, XORed and in the order of its bytes.
    pub(super) fn followed(word: u32, len: usize) -> u32 {
        let mut crc = times(WORDS[len / 4 % 128], word);
        let blocks = len / 512 % 128;
        if blocks > 0 {
            crc = times(BLOCKS[blocks], crc);
        }
        for _ in 0..len % 4 * 8 {
            crc = times_x(crc); // no sender should; padding belongs to the packet
        }
        crc
    }
}

#[cfg(test)]
mod tests;
