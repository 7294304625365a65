//! The hashes of the hashing schedulers: fixed, so that all nodes choose alike.
#![forbid(unsafe_code)]

use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher13;

/// An address in 32 bits, as IPVS folds it: IPv6 by exclusive or of its four words.
pub(super) fn fold(addr: IpAddr) -> u32 {
    match addr {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => {
            let bits = u128::from(v6);
            (bits >> 96) as u32 ^ (bits >> 64) as u32 ^ (bits >> 32) as u32 ^ bits as u32
        }
    }
}

/// The bucket of 256 that dh and sh hash to: Linux's hash_32, a multiplication by 2^32 over the
/// golden ratio.
pub(super) fn bucket(addr: IpAddr, port: u16) -> u8 {
    let key = fold(addr).wrapping_add(port.into());
    (key.wrapping_mul(0x61c8_8647) >> 24) as u8
}

/// The two keys of mh, fixed in Linux: for a server's offset (and for clients), and for its skip.
pub(super) const OFFSET_KEY: u64 = 2_654_435_761;
/// See [`OFFSET_KEY`].
pub(super) const SKIP_KEY: u64 = 2_654_446_892;

/// mh's hash: Linux's hsiphash of one 32-bit word, which is SipHash-1-3 cut to 32 bits where
/// words have 64.
pub(super) fn hsip(word: u32, key: u64) -> u32 {
    let mut hasher = SipHasher13::new_with_keys(key, key);
    hasher.write(&word.to_le_bytes());
    hasher.finish() as u32
}

/// A 64-bit hash of bytes, the same on every node.
pub(super) fn wide(bytes: &[u8], key: u64) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(key, 0);
    hasher.write(bytes);
    hasher.finish()
}

/// The octets of an address; IPv4 has 4 and IPv6 16.
pub(super) fn octets(addr: IpAddr, room: &mut [u8; 16]) -> &[u8] {
    match addr {
        IpAddr::V4(v4) => {
            room[..4].copy_from_slice(&v4.octets());
            &room[..4]
        }
        IpAddr::V6(v6) => {
            *room = v6.octets();
            room
        }
    }
}
