//! Table memory: mapped once at start, on huge pages where there are any, zeroed by the kernel.

use std::ops::{Deref, DerefMut};

use memmap2::{Advice, MmapMut, MmapOptions};

use crate::cpu::prefetch_at;

/// Types whose all-zero bytes are a valid value and that need no drop.
///
/// # Safety
/// Every bit pattern of zeros must be a valid `Self`, and `Self` must not implement `Drop`.
pub(super) unsafe trait Zeroable: Copy {}

// SAFETY: plain numbers.
unsafe impl Zeroable for u32 {}
// SAFETY: plain numbers, newtypes of them, and `State`, whose zero is `State::None`. `Key` is
// sealed: its addresses are a `u64` or an array of them.
unsafe impl<K: crate::packet::Key> Zeroable for super::entry::Conn<K> {}
// SAFETY: arrays of plain numbers.
unsafe impl Zeroable for super::index::Line {}
// SAFETY: plain numbers, and `ClientAddress`, whose zero is `ClientAddress::none`.
unsafe impl Zeroable for super::side::Record {}
// SAFETY: plain numbers and newtypes of them.
unsafe impl Zeroable for super::templates::Template {}
// SAFETY: plain numbers, and arrays of them.
unsafe impl Zeroable for super::help::HelpRecord {}

/// A fixed array of zeroed `T` in its own mapping.
pub(super) struct HugeArray<T: Zeroable> {
    map: MmapMut,
    len: usize,
    of: std::marker::PhantomData<T>,
}

/// What pages a table may lie on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    /// Reserved huge pages if there are enough, else as `Plain`.
    Huge,
    /// Ordinary pages, which the kernel is asked to merge (MADV_HUGEPAGE).
    Plain,
}

impl<T: Zeroable> HugeArray<T> {
    /// Maps room for `len` items.
    ///
    /// # Errors
    /// The mapping was refused: not enough memory or address space.
    pub(super) fn new(len: usize, pages: Pages) -> std::io::Result<Self> {
        const { assert!(align_of::<T>() <= 4096 && size_of::<T>() > 0) };
        const HUGE: usize = 2 << 20;
        let bytes = (len * size_of::<T>()).max(1);
        let huge = if pages == Pages::Huge && bytes >= HUGE {
            let len = bytes.next_multiple_of(HUGE);
            MmapOptions::new().len(len).huge(Some(21)).map_anon().ok()
        } else {
            None
        };
        let map = match huge {
            Some(map) => map,
            None => {
                let map = MmapOptions::new().len(bytes).map_anon()?;
                // Advice only: without transparent huge pages small ones do, slower.
                let _ = map.advise(Advice::HugePage);
                map
            }
        };
        Ok(HugeArray {
            map,
            len,
            of: std::marker::PhantomData,
        })
    }

    /// Starts loading item `at`; what is not there is no harm.
    #[inline(always)]
    pub(super) fn prefetch(&self, at: usize) {
        prefetch_at(self.map.as_ptr().cast::<T>().wrapping_add(at));
    }
}

impl<T: Zeroable> Deref for HugeArray<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: the mapping is page-aligned (so aligned for T), holds at least
        // len * size_of::<T>() bytes, was zeroed by the kernel, and is borrowed with self.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast(), self.len) }
    }
}

impl<T: Zeroable> DerefMut for HugeArray<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and borrowed mutably with self.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr().cast(), self.len) }
    }
}
