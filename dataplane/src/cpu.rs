//! What depends on the processor: prefetch, and comparing a line's tags at once. Each has a
//! portable twin.

/// Starts loading the cache line that holds the start of `target`. Reads nothing, so any
/// reference will do; a no-op where the architecture has no such hint.
#[inline(always)]
pub(crate) fn prefetch<T: ?Sized>(target: &T) {
    prefetch_at(std::ptr::from_ref(target).cast::<u8>());
}

/// The same of any address, whether something is there or not.
#[inline(always)]
#[allow(unsafe_code)]
pub(crate) fn prefetch_at<T>(target: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: PREFETCHT0 never faults and writes nothing; SSE is in every x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(target.cast::<i8>()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = target;
}

/// A bit for each of 16 bytes that equals `byte`.
#[inline(always)]
#[allow(unsafe_code)]
pub(crate) fn equal_bytes(bytes: &[u8; 16], byte: u8) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_loadu_si128};
        use std::arch::x86_64::{_mm_movemask_epi8, _mm_set1_epi8};
        // SAFETY: SSE2 is in every x86-64; what is loaded are the 16 bytes of `bytes`.
        unsafe {
            let bytes = _mm_loadu_si128(bytes.as_ptr().cast());
            _mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte as i8))) as u32
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    portable_equal_bytes(bytes, byte)
}

#[cfg(any(test, not(target_arch = "x86_64")))]
fn portable_equal_bytes(bytes: &[u8; 16], byte: u8) -> u32 {
    let places = bytes.iter().enumerate();
    places.fold(0, |bits, (i, &b)| bits | u32::from(b == byte) << i)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_twins_find_the_same_bytes() {
        let mut x = 88_172_645_463_325_252u128;
        for byte in 0..=255u8 {
            x = x
                .wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645)
                .wrapping_add(u128::from(byte));
            let bytes = (x & !(0xff << 8) | u128::from(byte) << 8).to_le_bytes();
            let want = portable_equal_bytes(&bytes, byte);
            assert_eq!(equal_bytes(&bytes, byte), want);
            assert!(want & 2 != 0);
        }
    }
}
