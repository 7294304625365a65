//! Identifications for the packets that a worker makes itself, and for datagrams that would
//! otherwise share one behind a single local address.
#![forbid(unsafe_code)]

use crate::types::CoreId;

/// A worker's own range of the identifications: no other worker gives one of it to a packet
/// between the same addresses. The range comes round after 65,536 / workers packets, and with
/// 32 bits after 2^32 / workers.
#[derive(Debug, Clone)]
pub struct IpIds {
    /// Bits that say which worker, at the top.
    core_bits: u32,
    core: u32,
    next: u32,
}

impl IpIds {
    /// The range of worker `core` of `workers`, begun at a place that `seed` says.
    #[must_use]
    pub fn new(core: CoreId, workers: u8, seed: u32) -> IpIds {
        IpIds {
            core_bits: u32::from(workers.max(1))
                .next_power_of_two()
                .trailing_zeros(),
            core: u32::from(core.0),
            next: seed,
        }
    }

    /// The next IPv4 identification.
    #[inline]
    pub fn next16(&mut self) -> u16 {
        self.take(16) as u16
    }

    /// The next IPv6 fragment identification.
    #[inline]
    pub fn next32(&mut self) -> u32 {
        self.take(32)
    }

    #[inline]
    fn take(&mut self, bits: u32) -> u32 {
        self.next = self.next.wrapping_add(1);
        let own = bits - self.core_bits;
        // In 64 bits: with one worker and 32 bits there is no core to shift in.
        (u64::from(self.core) << own | u64::from(self.next) & ((1 << own) - 1)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn workers_never_share_one() {
        for workers in [1u8, 2, 3, 8, 128] {
            let round = 65_536 / usize::from(workers).next_power_of_two();
            let mut seen = HashSet::new();
            for core in 0..workers {
                let mut ids = IpIds::new(CoreId(core), workers, 0xffff_fff0);
                seen.extend((0..round).map(|_| ids.next16()));
            }
            assert_eq!(
                seen.len(),
                round * usize::from(workers),
                "{workers} workers"
            );
        }
        let mut ids = IpIds::new(CoreId(0), 1, u32::MAX - 1);
        assert_eq!([ids.next32(), ids.next32()], [u32::MAX, 0]);
        assert_eq!(IpIds::new(CoreId(5), 8, 0).next32(), 0xa000_0001);
    }
}
