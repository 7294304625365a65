//! The table's keyed hash. Never the NIC's: Toeplitz is invertible, and one worker's flows
//! share its low bits.
#![forbid(unsafe_code)]

use crate::packet::Key;

/// A hash with a secret drawn at each start, so that nobody outside can aim at one line.
#[derive(Debug, Clone)]
pub(crate) struct KeyedHash([u64; 4]);

impl KeyedHash {
    /// `secret` is stretched (splitmix64): the multiplications need words with many bits set.
    pub(crate) fn new(secret: [u64; 4]) -> Self {
        let mut state = 0u64;
        KeyedHash(secret.map(|word| {
            state = state.wrapping_add(word).wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ z >> 31
        }))
    }

    /// 64 well-mixed bits: two folded 64x64-bit multiplications, three for IPv6 (the scheme of
    /// wyhash and foldhash), some 3 ns less than AES without needing it of the processor.
    #[inline]
    pub(crate) fn of<K: Key>(&self, key: &K) -> u64 {
        key.mixed(&self.0, folded_mul)
    }
}

#[inline]
fn folded_mul(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    wide as u64 ^ (wide >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Key4;
    use crate::types::Proto;

    /// Keys that differ in one port or one address bit spread over lines as chance would: the
    /// chi-square of 64 buckets stays near 63 for weak secrets too.
    #[test]
    fn neighbouring_keys_spread_evenly() {
        for secret in [[0; 4], [1, 2, 3, 4], [u64::MAX; 4]] {
            let hash = KeyedHash::new(secret);
            for vary in 0..3u64 {
                for shift in [0, 8, 32, 58] {
                    let mut buckets = [0u32; 64];
                    for n in 0..6400u64 {
                        let key = Key4 {
                            addrs: 0x0a01_000b_0a01_0064
                                ^ if vary == 0 { n << 16 } else { n >> 13 },
                            ports: 0x1f90_0000 ^ (n as u32) << if vary == 1 { 16 } else { 0 },
                            proto: if vary == 2 { Proto::Udp } else { Proto::Tcp },
                        };
                        buckets[(hash.of(&key) >> shift) as usize % 64] += 1;
                    }
                    let chi: f64 = buckets
                        .iter()
                        .map(|&b| (f64::from(b) - 100.0).powi(2) / 100.0)
                        .sum();
                    assert!(
                        chi < 150.0,
                        "secret {secret:x?} vary {vary} shift {shift}: {chi}"
                    );
                }
            }
        }
    }
}
