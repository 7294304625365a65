//! The Toeplitz hash of receive-side scaling, in software, exactly as a NIC computes it.
//!
//! The hash is linear: every input bit that is set contributes one 32-bit window of the key.
//! So it is a table of 256 entries for each of the 12 input bytes, and the contribution of one
//! field can be taken out and put in alone (`lip` lives on that).
#![forbid(unsafe_code)]

use super::classes::{Classes, UselessKey};

/// Bytes of an RSS key. NICs take 40 or 52; 12 bytes of input use the first 16.
pub const KEY_LEN: usize = 40;

/// Microsoft's verification key: well spread, and what drivers fall back to.
pub const MICROSOFT_KEY: [u8; KEY_LEN] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// Input of a flow: source, destination, source port, destination port; 12 bytes for IPv4, 36
/// for IPv6.
const INPUT_LEN: usize = 36;
/// Where the destination port stands in the input of either family.
const DPORT4_AT: usize = 10;
const DPORT6_AT: usize = 34;

/// A Toeplitz hash with its key compiled into tables (12 kB for IPv4: they stay in the
/// first-level cache; 9.5 cycles a hash where DPDK's `rte_softrss_be` takes 87, PLATFORM
/// section 5).
#[derive(Debug)]
pub struct Toeplitz {
    key: [u8; KEY_LEN],
    tables: Box<[[u32; 256]; INPUT_LEN]>,
    /// Local ports by what they add to the hash of an IPv4 and of an IPv6 flow.
    classes: [Classes; 2],
}

impl Toeplitz {
    /// Compiles `key`.
    #[must_use]
    pub fn new(key: [u8; KEY_LEN]) -> Toeplitz {
        let window = |bit: usize| {
            let word = key[bit / 8..bit / 8 + 5]
                .iter()
                .fold(0u64, |w, b| w << 8 | u64::from(*b));
            (word >> (8 - bit % 8)) as u32
        };
        let mut tables = Box::new([[0u32; 256]; INPUT_LEN]);
        for (byte, table) in tables.iter_mut().enumerate() {
            for (value, entry) in table.iter_mut().enumerate() {
                for bit in (0..8).filter(|bit| value & (0x80 >> bit) != 0) {
                    *entry ^= window(byte * 8 + bit);
                }
            }
        }
        let classes = [DPORT4_AT, DPORT6_AT].map(|at| Classes::new(|port| part(&tables, at, port)));
        Toeplitz {
            key,
            tables,
            classes,
        }
    }

    /// Whether the key can steer FULL-NAT's answers.
    ///
    /// # Errors
    /// [`UselessKey`].
    pub fn check(&self) -> Result<(), UselessKey> {
        self.classes.iter().try_for_each(Classes::check)
    }

    /// The local ports of a class (below [`super::BUCKETS`]): those that add it, in the low bits,
    /// to the hash of an IPv4 or IPv6 flow that they are the destination port of.
    #[inline]
    #[must_use]
    pub fn ports_of(&self, class: usize, ipv6: bool) -> &[u16] {
        self.classes[usize::from(ipv6)].ports(class)
    }

    /// Those of [`Toeplitz::ports_of`] from `first` to `last`, perhaps none.
    #[must_use]
    pub fn ports_within(&self, class: usize, ipv6: bool, first: u16, last: u16) -> &[u16] {
        self.classes[usize::from(ipv6)].within(class, first, last)
    }

    /// The key, for the ports' RSS.
    #[must_use]
    pub fn key(&self) -> &[u8; KEY_LEN] {
        &self.key
    }

    /// The hash of an IPv4 TCP or UDP flow; addresses and ports as numbers.
    #[inline]
    #[must_use]
    pub fn hash4(&self, src: u32, dst: u32, sport: u16, dport: u16) -> u32 {
        let (s, d) = (src.to_be_bytes(), dst.to_be_bytes());
        let p = (u32::from(sport) << 16 | u32::from(dport)).to_be_bytes();
        let t = &self.tables;
        let mut h = 0;
        for i in 0..4 {
            h ^=
                t[i][usize::from(s[i])] ^ t[4 + i][usize::from(d[i])] ^ t[8 + i][usize::from(p[i])];
        }
        h
    }

    /// What the destination port adds to [`Toeplitz::hash4`]:
    /// `hash4(s, d, sp, dp) == hash4(s, d, sp, 0) ^ dport_part(dp)`.
    #[inline]
    #[must_use]
    pub fn dport_part(&self, dport: u16) -> u32 {
        part(&self.tables, DPORT4_AT, dport)
    }

    /// The hash of an IPv6 flow; addresses and ports as in [`crate::packet::Key6`].
    #[inline]
    #[must_use]
    pub fn hash6(&self, addrs: &[u64; 4], ports: u32) -> u32 {
        let mut h = 0;
        for (word, tables) in addrs.iter().zip(self.tables.chunks_exact(8)) {
            for (byte, table) in word.to_be_bytes().into_iter().zip(tables) {
                h ^= table[usize::from(byte)];
            }
        }
        for (byte, table) in ports.to_be_bytes().into_iter().zip(&self.tables[32..]) {
            h ^= table[usize::from(byte)];
        }
        h
    }

    /// As [`Toeplitz::dport_part`], for [`Toeplitz::hash6`].
    #[inline]
    #[must_use]
    pub fn dport_part6(&self, dport: u16) -> u32 {
        part(&self.tables, DPORT6_AT, dport)
    }
}

/// What a port that stands at byte `at` of the input adds to the hash.
#[inline]
fn part(tables: &[[u32; 256]; INPUT_LEN], at: usize, port: u16) -> u32 {
    let [high, low] = port.to_be_bytes();
    tables[at][usize::from(high)] ^ tables[at + 1][usize::from(low)]
}
