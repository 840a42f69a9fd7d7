//! Equal buffers, taken and given back; never allocated after open.
//!
//! # Invariants
//! - A buffer's range has one owner: its index is in the free list or in one live [`Buffer`], never both and never
//!   twice. Only `Pool::new` and the drop of a buffer push indexes, only `take` pops them.
//! - The memory outlives the buffer: each holds the mapping.
//!
//! # Not here
//! Waiting for a buffer: who runs out evicts, or has sized its pool wrongly.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::arena::Mapping;

struct Shared {
    mapping: Arc<Mapping>,
    /// Offset of buffer 0 in the mapping.
    start: usize,
    buffer_size: usize,
    count: usize,
    /// Indexes of free buffers; the last one is taken next, because its bytes are the likeliest in cache.
    free: Mutex<Vec<usize>>,
}

/// A fixed number of buffers of one size, shared by all clones.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

impl Pool {
    /// The range `start..start + buffer_size * count` of the mapping must belong to this pool alone.
    pub(crate) fn new(mapping: Arc<Mapping>, start: usize, buffer_size: usize, count: usize) -> Self {
        let free = Mutex::new((0..count).rev().collect());
        Self { shared: Arc::new(Shared { mapping, start, buffer_size, count, free }) }
    }

    /// A free buffer, or `None` if all are in use. Its bytes are unspecified: those of an earlier use, or zero.
    pub fn take(&self) -> Option<Buffer> {
        let index = self.shared.free.lock().pop()?;
        let base = self.shared.mapping.at(self.shared.start + index * self.shared.buffer_size);
        Some(Buffer { base, index, shared: Arc::clone(&self.shared) })
    }

    /// Number of free buffers.
    pub fn available(&self) -> usize {
        self.shared.free.lock().len()
    }

    /// Number of buffers, free or in use.
    pub fn count(&self) -> usize {
        self.shared.count
    }

    /// Size of each buffer in bytes.
    pub fn buffer_size(&self) -> usize {
        self.shared.buffer_size
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("buffer_size", &self.buffer_size())
            .field("count", &self.count())
            .field("available", &self.available())
            .finish()
    }
}

/// An owned piece of an arena; goes back to its pool on drop.
pub struct Buffer {
    base: NonNull<u8>,
    index: usize,
    shared: Arc<Shared>,
}

// SAFETY: a buffer owns its range of plain bytes exclusively (see the module's invariants), like a boxed slice.
unsafe impl Send for Buffer {}
// SAFETY: `&Buffer` gives `&[u8]` only, which may be shared between threads.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Sets all bytes to zero.
    pub fn zero(&mut self) {
        self.fill(0);
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: base starts a range of buffer_size initialised bytes inside a mapping that self.shared keeps
        // alive; the range is owned by self alone, so nobody writes to it while &self lives.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.shared.buffer_size) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; &mut self is the only access to the range.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.shared.buffer_size) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.shared.free.lock().push(self.index);
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("index", &self.index)
            .field("size", &self.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use crate::{Arena, Pool, SECTOR};

    #[test]
    fn exhaustion_and_return() {
        let pool = Arena::new(2 * SECTOR).expect("memory").pool(SECTOR, 2).expect("room");
        let first = pool.take().expect("free");
        let second = pool.take().expect("free");
        assert!(pool.take().is_none());
        assert_eq!((pool.available(), pool.count(), pool.buffer_size()), (0, 2, SECTOR));
        drop(first);
        assert_eq!(pool.available(), 1);
        let again = pool.clone().take().expect("free again");
        assert!(pool.take().is_none());
        drop((again, second));
        assert_eq!(pool.available(), 2);
    }

    #[test]
    fn a_returned_buffer_is_stale_until_zeroed() {
        let pool = Arena::new(SECTOR).expect("memory").pool(SECTOR, 1).expect("room");
        pool.take().expect("free").fill(3);
        let mut buffer = pool.take().expect("free");
        assert_eq!(buffer[17], 3);
        buffer.zero();
        assert!(buffer.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn an_empty_pool_gives_nothing() {
        let pool = Arena::new(SECTOR).expect("memory").pool(SECTOR, 0).expect("room");
        assert!(pool.take().is_none());
    }

    /// Each thread takes buffers, marks them and finds its marks: no range has two owners.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test races real threads")]
    fn one_owner_at_a_time() {
        let pool = Arena::new(16 * SECTOR).expect("memory").pool(64, 5).expect("room");
        std::thread::scope(|scope| {
            for thread in 0..4_u8 {
                let pool = pool.clone();
                scope.spawn(move || (0..5000).for_each(|round| take_and_mark(&pool, thread, round)));
            }
        });
        assert_eq!(pool.available(), 5);
    }

    fn take_and_mark(pool: &Pool, thread: u8, round: u32) {
        let Some(mut buffer) = pool.take() else { return };
        buffer.fill(thread);
        let mut other = round.is_multiple_of(2).then(|| pool.take()).flatten();
        if let Some(other) = &mut other {
            other.fill(thread + 100);
        }
        assert!(buffer.iter().all(|byte| *byte == thread));
        assert!(other.iter().flat_map(|other| other.iter()).all(|byte| *byte == thread + 100));
    }
}
