//! What depends on the processor: prefetch, and comparing a line's tags at once. Each has a
//! portable twin.

/// Starts loading the cache line that holds the start of `target`. Reads nothing, so any
/// reference will do; a no-op where the architecture has no such hint.
#[inline(always)]
#[allow(unsafe_code)]
pub(crate) fn prefetch<T: ?Sized>(target: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: PREFETCHT0 never faults and writes nothing; SSE is in every x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(target).cast::<i8>()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = target;
}

/// A bit for each of 16 bytes (the low word's first) that equals `byte`.
#[inline(always)]
#[allow(unsafe_code)]
pub(crate) fn equal_bytes(low: u64, high: u64, byte: u8) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_movemask_epi8, _mm_set_epi64x, _mm_set1_epi8};
        // SAFETY: SSE2 is in every x86-64; the intrinsics work on registers only.
        unsafe {
            let bytes = _mm_set_epi64x(high as i64, low as i64);
            _mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte as i8))) as u32
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    portable_equal_bytes(low, high, byte)
}

#[cfg(any(test, not(target_arch = "x86_64")))]
fn portable_equal_bytes(low: u64, high: u64, byte: u8) -> u32 {
    let all = u128::from(low) | u128::from(high) << 64;
    (0..16).fold(0, |m, i| m | u32::from((all >> (8 * i)) as u8 == byte) << i)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_twins_find_the_same_bytes() {
        let mut x = 88_172_645_463_325_252u64;
        for byte in 0..=255u8 {
            x = x
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(u64::from(byte));
            let low = x & !(0xff << 8) | u64::from(byte) << 8;
            let want = portable_equal_bytes(low, x.rotate_left(31), byte);
            assert_eq!(equal_bytes(low, x.rotate_left(31), byte), want);
            assert!(want & 2 != 0);
        }
    }
}
