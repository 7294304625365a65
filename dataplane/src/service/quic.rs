//! QUIC connection IDs that name their server: draft-ietf-quic-load-balancers-21 (QUIC-LB).
//!
//! ```text
//!  first octet                | server ID (1..15) | nonce (4..) |  19 octets at most behind the first
//!  configuration (3) len (5)  |<------ encrypted, with a key -->|
//! ```
//! The first three bits say which of up to seven configurations the ID was made by (111 stands
//! for none), so that keys and lengths can be changed while old IDs are about. Without a key the
//! server ID is there to read; with one, the two fields together are encrypted: by one pass of
//! AES-128-ECB where they are 16 octets, by a Feistel network of four passes otherwise.
#![forbid(unsafe_code)]

use std::fmt;

use aes::Aes128;
use aes::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};

#[cfg(test)]
mod tests;

/// What a server's connection IDs name it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QuicServerId {
    len: u8,
    octets: [u8; QuicServerId::LONGEST],
}

impl QuicServerId {
    /// Octets of the longest: a nonce has four at least.
    pub const LONGEST: usize = 15;

    /// The ID of these octets; `None` when there are none or too many.
    #[must_use]
    pub fn new(octets: &[u8]) -> Option<QuicServerId> {
        let mut id = QuicServerId {
            len: u8::try_from(octets.len()).ok()?,
            octets: [0; QuicServerId::LONGEST],
        };
        id.octets.get_mut(..octets.len())?.copy_from_slice(octets);
        (!octets.is_empty()).then_some(id)
    }

    /// Its octets.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        &self.octets[..usize::from(self.len)]
    }
}

impl fmt::Display for QuicServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.octets().iter().try_for_each(|o| write!(f, "{o:02x}"))
    }
}

/// One configuration of QUIC-LB.
#[derive(Clone)]
pub struct QuicLb {
    /// Octets of server ID and nonce.
    server_id: u8,
    nonce: u8,
    key: Option<([u8; 16], Aes128)>,
}

impl QuicLb {
    /// Octets of the shortest nonce, and of server ID and nonce together at most.
    pub const LEAST_NONCE: u8 = 4;
    /// See [`QuicLb::LEAST_NONCE`].
    pub const MOST: u8 = 19;

    /// `None` when the lengths are not possible.
    #[must_use]
    pub fn new(server_id: u8, nonce: u8, key: Option<[u8; 16]>) -> Option<QuicLb> {
        let possible = server_id > 0
            && nonce >= QuicLb::LEAST_NONCE
            && server_id.checked_add(nonce)? <= QuicLb::MOST;
        possible.then(|| QuicLb {
            server_id,
            nonce,
            key: key.map(|key| (key, Aes128::new(&Array::from(key)))),
        })
    }

    /// Octets of its server IDs.
    #[must_use]
    pub fn server_id_len(&self) -> u8 {
        self.server_id
    }

    /// The server ID in what follows a connection ID's first octet.
    fn decode(&self, behind_first: &[u8]) -> Option<QuicServerId> {
        let (id, both) = (
            usize::from(self.server_id),
            usize::from(self.server_id + self.nonce),
        );
        let block = behind_first.get(..both)?;
        let Some((_, cipher)) = &self.key else {
            return QuicServerId::new(&block[..id]);
        };
        let mut plain = [0; QuicLb::MOST as usize];
        let plain = &mut plain[..both];
        plain.copy_from_slice(block);
        match plain.first_chunk::<16>() {
            Some(whole) if both == 16 => {
                let mut whole = Array::from(*whole);
                cipher.decrypt_block(&mut whole);
                plain.copy_from_slice(&whole);
            }
            _ => unscramble(cipher, plain),
        }
        QuicServerId::new(&plain[..id])
    }
}

/// By what was configured.
impl PartialEq for QuicLb {
    fn eq(&self, other: &QuicLb) -> bool {
        let key = |lb: &QuicLb| lb.key.as_ref().map(|(key, _)| *key);
        (self.server_id, self.nonce, key(self)) == (other.server_id, other.nonce, key(other))
    }
}

impl Eq for QuicLb {}

/// Without the key.
impl fmt::Debug for QuicLb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicLb")
            .field("server_id", &self.server_id)
            .field("nonce", &self.nonce)
            .field("encrypted", &self.key.is_some())
            .finish()
    }
}

/// How a service's packets find their server by connection ID.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quic {
    /// By the first three bits of IDs made with them; the eighth codepoint means none.
    pub configs: [Option<QuicLb>; 7],
}

impl Quic {
    /// Whether any connection ID names a server.
    #[inline]
    #[must_use]
    pub fn names_servers(&self) -> bool {
        self.configs.iter().any(Option::is_some)
    }

    /// The server ID that a connection ID (and perhaps what follows it) names; `None` when it
    /// was made by no configuration that is known.
    #[must_use]
    pub fn server_id(&self, cid: &[u8]) -> Option<QuicServerId> {
        let (first, rest) = cid.split_first()?;
        self.configs
            .get(usize::from(first >> 5))?
            .as_ref()?
            .decode(rest)
    }
}

/// Takes back the four passes (section 5.4.2). Two halves, of which the middle octet of an odd
/// length belongs to both: its high four bits to the left one, the low four to the right one.
fn unscramble(cipher: &Aes128, block: &mut [u8]) {
    let (both, half) = (block.len(), block.len().div_ceil(2));
    let odd = both % 2 == 1;
    let (mut left, mut right) = ([0u8; 16], [0u8; 16]);
    left[..half].copy_from_slice(&block[..half]);
    right[..half].copy_from_slice(&block[both - half..]);
    let trim_left = |left: &mut [u8; 16]| left[half - 1] &= if odd { 0xf0 } else { 0xff };
    let trim_right = |right: &mut [u8; 16]| right[0] &= if odd { 0x0f } else { 0xff };
    trim_left(&mut left);
    trim_right(&mut right);
    let pass = |from: &[u8; 16], to: &mut [u8; 16], number: u8| {
        let mut input = [0; 16];
        input[..half].copy_from_slice(&from[..half]);
        (input[14], input[15]) = (both as u8, number);
        let mut output = Array::from(input);
        cipher.encrypt_block(&mut output);
        for (to, out) in to[..half].iter_mut().zip(output) {
            *to ^= out;
        }
    };
    pass(&right, &mut left, 4);
    trim_left(&mut left);
    pass(&left, &mut right, 3);
    trim_right(&mut right);
    pass(&right, &mut left, 2);
    trim_left(&mut left);
    pass(&left, &mut right, 1);
    trim_right(&mut right);
    block[..half].copy_from_slice(&left[..half]);
    let shared = block[half - 1];
    block[both - half..].copy_from_slice(&right[..half]);
    if odd {
        block[half - 1] |= shared;
    }
}
