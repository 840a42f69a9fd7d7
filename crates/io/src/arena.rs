//! All large memory: one anonymous mapping, taken at open, from which pools of equal buffers are cut.
//!
//! The mapping starts at a multiple of 2 MiB and huge pages are advised for it. It is returned to the operating
//! system when the arena, all its pools and all their buffers are gone.
//!
//! # Invariants
//! - Pools are disjoint and never given back: `used` only grows (asserted against the size).
//! - Every byte is initialised: anonymous memory reads as zero until written.
//!
//! # Not here
//! Who gets how much; the owner of the budget computes that with [`Arena::needed`].

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::{IoCause, IoError, Operation, Pool, SECTOR, u64_of};

/// Size and alignment of a huge page on the platforms that matter.
const HUGE_PAGE: usize = 2 << 20;

/// An anonymous mapping, and its part that starts at a huge page.
#[derive(Debug)]
pub(crate) struct Mapping {
    raw: NonNull<c_void>,
    raw_size: usize,
    base: NonNull<u8>,
    size: usize,
}

// SAFETY: a mapping is plain memory owned by this value alone; nothing about it belongs to one thread. Access to
// its bytes goes through `Buffer`, which hands out each range to one owner.
unsafe impl Send for Mapping {}
// SAFETY: as above; `&Mapping` gives addresses only, never access.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(size: usize) -> Result<Self, IoCause> {
        let raw_size = size.checked_add(HUGE_PAGE).ok_or(IoCause::from_errno(rustix::io::Errno::NOMEM))?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: an anonymous private mapping at an address of the kernel's choice overlaps nothing that exists.
        let raw = unsafe { mmap_anonymous(std::ptr::null_mut(), raw_size, protection, MapFlags::PRIVATE) }
            .map_err(IoCause::from_errno)?;
        let raw = NonNull::new(raw).expect("a mapping that succeeded is not at address 0");
        let skip = raw.cast::<u8>().align_offset(HUGE_PAGE);
        assert!(skip <= HUGE_PAGE, "a huge page starts within the slack of one huge page");
        // SAFETY: skip <= HUGE_PAGE = raw_size - size, so the result lies in the mapping or at its end.
        let base = unsafe { raw.cast::<u8>().add(skip) };
        let mapping = Self { raw, raw_size, base, size };
        mapping.advise_huge_pages();
        Ok(mapping)
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn advise_huge_pages(&self) {
        use rustix::mm::{Advice, madvise};
        // SAFETY: base..base+size lies in our own mapping, and this advice changes no contents.
        let advised = unsafe { madvise(self.base.as_ptr().cast(), self.size, Advice::LinuxHugepage) };
        if let Err(error) = advised {
            log::debug!("huge pages refused for {} bytes: {error}", self.size);
        }
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn advise_huge_pages(&self) {}

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn touch(&self) {
        use rustix::mm::{Advice, madvise};
        // SAFETY: base..base+size lies in our own mapping, and this advice changes no contents.
        let touched = unsafe { madvise(self.base.as_ptr().cast(), self.size, Advice::LinuxPopulateWrite) };
        if let Err(error) = touched {
            log::debug!("{} bytes could not be touched ahead: {error}", self.size);
        }
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn touch(&self) {}

    /// Address of the byte at `offset`, which must lie within the mapping or at its end.
    pub(crate) fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(offset <= self.size, "offset {offset} lies within the mapping of {} bytes", self.size);
        // SAFETY: base..base+size is one mapping that lives as long as self, and offset <= size.
        unsafe { self.base.add(offset) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: raw..raw+raw_size is exactly what mmap gave; pools and buffers hold this value alive through an
        // `Arc`, so nothing points into it any more.
        let unmapped = unsafe { munmap(self.raw.as_ptr(), self.raw_size) };
        if let Err(error) = unmapped {
            log::error!("cannot return {} bytes of memory: {error}", self.raw_size);
        }
    }
}

/// The one source of large memory.
#[derive(Debug)]
pub struct Arena {
    mapping: Arc<Mapping>,
    used: Mutex<usize>,
}

impl Arena {
    /// Maps `size` bytes, rounded up to whole sectors. The operating system supplies them when they are first
    /// touched.
    ///
    /// # Errors
    /// The operating system refuses the mapping.
    pub fn new(size: usize) -> Result<Self, IoError> {
        let error = |cause| IoError::new(Operation::Map, u64_of(size), cause);
        let rounded = size.max(1).checked_next_multiple_of(SECTOR);
        let rounded = rounded.ok_or(error(IoCause::from_errno(rustix::io::Errno::NOMEM)))?;
        let mapping = Mapping::new(rounded).map_err(error)?;
        Ok(Self { mapping: Arc::new(mapping), used: Mutex::new(0) })
    }

    /// Bytes that `pool(buffer_size, count)` takes, exactly: the sum over several pools, in any order, is the size
    /// of the arena that they need. `None` on overflow.
    pub fn needed(buffer_size: usize, count: usize) -> Option<usize> {
        buffer_size.checked_mul(count)?.checked_next_multiple_of(SECTOR)
    }

    /// Size in bytes.
    pub fn size(&self) -> usize {
        self.mapping.size
    }

    /// Bytes that no pool has taken.
    pub fn left(&self) -> usize {
        self.mapping.size - *self.used.lock()
    }

    /// Lets the operating system supply all memory now (0.1 to 2 s for each GiB) instead of at first use, where it
    /// can; else nothing happens. Contents do not change.
    pub fn touch(&self) {
        self.mapping.touch();
    }

    /// Cuts off a pool of `count` buffers of `buffer_size` bytes each. Buffers start at multiples of [`SECTOR`]
    /// if their size is one; else only the first does.
    ///
    /// # Errors
    /// [`IoCause::ArenaFull`] if fewer bytes are left than [`needed`](Self::needed).
    ///
    /// # Panics
    /// If `buffer_size` is 0.
    pub fn pool(&self, buffer_size: usize, count: usize) -> Result<Pool, IoError> {
        assert!(buffer_size > 0, "buffers have bytes");
        let needed = Self::needed(buffer_size, count).unwrap_or(usize::MAX);
        let mut used = self.used.lock();
        let left = self.mapping.size - *used;
        if needed > left {
            let cause = IoCause::ArenaFull { needed, left };
            return Err(IoError::new(Operation::Map, u64_of(needed), cause));
        }
        let start = *used;
        *used += needed;
        Ok(Pool::new(Arc::clone(&self.mapping), start, buffer_size, count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_zero_and_disjoint() {
        let arena = Arena::new(3 * SECTOR).expect("memory");
        let pool = arena.pool(SECTOR, 3).expect("room");
        let mut buffers: Vec<_> = (0..3).map(|_| pool.take().expect("free")).collect();
        for buffer in &buffers {
            assert_eq!(buffer.as_ptr().align_offset(SECTOR), 0);
            assert!(buffer.iter().all(|byte| *byte == 0));
        }
        assert_eq!(buffers[0].as_ptr().align_offset(HUGE_PAGE), 0);
        for (value, buffer) in (1..).zip(&mut buffers) {
            buffer.fill(value);
        }
        for (value, buffer) in (1..).zip(&buffers) {
            assert!(buffer.iter().all(|byte| *byte == value));
        }
    }

    #[test]
    fn needed_is_exact_in_any_order() {
        let wants = [(SECTOR, 5), (100, 3), (1, 1), (3 * SECTOR, 2), (40, 0)];
        let total = wants.iter().map(|(size, count)| Arena::needed(*size, *count).expect("fits")).sum();
        for rotation in 0..wants.len() {
            let arena = Arena::new(total).expect("memory");
            for turn in 0..wants.len() {
                let (size, count) = wants[(turn + rotation) % wants.len()];
                assert_eq!(arena.pool(size, count).expect("room").count(), count);
            }
            assert_eq!(arena.left(), 0);
        }
    }

    #[test]
    fn a_pool_too_large_says_what_is_left() {
        let arena = Arena::new(2 * SECTOR).expect("memory");
        let error = arena.pool(SECTOR, 3).expect_err("too large");
        assert_eq!(error.operation, Operation::Map);
        assert_eq!(error.source, IoCause::ArenaFull { needed: 3 * SECTOR, left: 2 * SECTOR });
        assert!(!error.is_no_space());
        assert_eq!(arena.left(), 2 * SECTOR);
        let error = arena.pool(usize::MAX, 3).expect_err("overflows");
        assert_eq!(error.source, IoCause::ArenaFull { needed: usize::MAX, left: 2 * SECTOR });
    }

    #[test]
    fn a_mapping_too_large_is_an_error() {
        for size in [usize::MAX, usize::MAX / 2, usize::MAX - HUGE_PAGE] {
            let error = Arena::new(size).expect_err("more than the address space has");
            assert_eq!((error.operation, error.offset), (Operation::Map, u64_of(size)));
        }
    }

    #[test]
    fn touching_keeps_the_bytes() {
        let arena = Arena::new(4 << 20).expect("memory");
        let mut buffer = arena.pool(1 << 20, 4).expect("room").take().expect("free");
        buffer.fill(7);
        arena.touch();
        assert!(buffer.iter().all(|byte| *byte == 7));
    }

    #[test]
    fn buffers_outlive_arena_and_pool() {
        let mut buffer = {
            let arena = Arena::new(SECTOR).expect("memory");
            arena.pool(SECTOR, 1).expect("room").take().expect("free")
        };
        buffer.fill(9);
        assert!(buffer.iter().all(|byte| *byte == 9));
    }
}
