//! Identifications for the packets that a worker makes itself, and for datagrams that would
//! otherwise share one behind a single local address.
#![forbid(unsafe_code)]

use crate::types::CoreId;

/// A worker's own range of the identifications: no other worker gives one of it to a packet
/// between the same addresses. The range comes round after 65,536 / workers packets, and with
/// 32 bits after 2^32 / workers.
///
/// ```text
///  31            16 15                     0
///  | counter, high | worker | counter, low |      the lower half is one of 16 bits
/// ```
#[derive(Debug, Clone)]
pub struct IpIds {
    core: u32,
    /// Bits of the counter beside the worker in the lower half.
    own: u32,
    next: u32,
}

impl IpIds {
    /// The range of worker `core` of `workers`, begun at a place that `seed` says.
    #[must_use]
    pub fn new(core: CoreId, workers: u8, seed: u32) -> IpIds {
        let core_bits = u32::from(workers.max(1)).next_power_of_two();
        IpIds {
            core: core.0.into(),
            own: 16 - core_bits.trailing_zeros(),
            next: seed,
        }
    }

    /// The next IPv4 identification.
    #[inline]
    pub fn next16(&mut self) -> u16 {
        self.next32() as u16
    }

    /// The next IPv6 fragment identification. Its lower half will do for IPv4: a datagram that is
    /// translated has one identification on either side.
    #[inline]
    pub fn next32(&mut self) -> u32 {
        self.next = self.next.wrapping_add(1);
        let low = self.core << self.own | self.next & ((1 << self.own) - 1);
        (self.next >> self.own) << 16 | low & 0xffff
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
        assert_eq!(IpIds::new(CoreId(5), 8, 0).next32(), 0xa001);
        assert_eq!(IpIds::new(CoreId(5), 8, 0x1fff).next32(), 0x0001_a000);
    }
}
