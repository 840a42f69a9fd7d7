//! One file, by offset: the contract of all back ends.
//!
//! An operation owns its buffers while it is in flight and yields a [`Ticket`]; completions come in any order.
//! Control flow above stays plain: submit several, wait for what is needed.
//!
//! # Invariants
//! - Offsets and lengths are multiples of [`SECTOR`]: asserted by every back end. (Buffers of an arena whose size
//!   is such a multiple are aligned likewise, which direct I/O wants.)
//! - Writes end at or before [`Storage::size`]: asserted. Space comes from [`Storage::grow`] alone, because
//!   parallel writes past the end of a file serialise in the kernel.
//! - No operation overlaps a write in flight: asserted by the simulated back end, unless it is told to let reads.
//!
//! # Not here
//! Retries, checksums, caching.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use smallvec::SmallVec;

use crate::{Buffer, Completion, IoError, Ticket, u64_of};

/// Unit of offsets and lengths in bytes, and what the simulated crash tears at.
pub const SECTOR: usize = 4096;

/// So long may an operation take, unless a storage is told otherwise, before a wait for it ends.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// An operation that takes longer is slow, unless a storage is told otherwise.
pub(crate) const SLOW: Duration = Duration::from_secs(1);

/// One piece of a write: the first `len` bytes of a buffer.
#[derive(Clone, Debug)]
pub struct WritePart {
    /// Where the bytes are; shared, so that readers can be served while the write is in flight.
    pub buffer: Arc<Buffer>,
    /// How many bytes of it to write; a multiple of [`SECTOR`], more than 0, at most the buffer's length.
    pub len: usize,
}

impl WritePart {
    /// The bytes to write.
    ///
    /// # Panics
    /// If `len` breaks its contract.
    pub fn bytes(&self) -> &[u8] {
        assert!(self.len > 0, "a part writes something");
        assert!(self.len.is_multiple_of(SECTOR), "a part is whole sectors, not {} bytes", self.len);
        self.buffer.get(..self.len).expect("a part lies within its buffer")
    }
}

/// Pieces that lie one after another on disk and are written as one request: this is how writes are coalesced.
pub type WriteParts = SmallVec<[WritePart; 4]>;

/// Sum of the lengths of the parts, in bytes.
pub fn write_size(parts: &WriteParts) -> usize {
    parts.iter().map(|part| part.len).sum()
}

/// One file, real or simulated.
pub trait Storage: Send + Sync + Debug {
    /// The file's size in bytes.
    fn size(&self) -> u64;

    /// Starts to fill the whole buffer from `offset`. A file that ends before fails with
    /// [`IoCause::Truncated`](crate::IoCause::Truncated). If the medium does not give some of it (EIO), the error names
    /// the first sector that is meant: what fails whole was tried sector by sector.
    fn read(&self, offset: u64, buffer: Buffer) -> Ticket;

    /// Starts to write the parts, one after another, from `offset`. After a failure the bytes of that range on
    /// disk are unspecified.
    fn write(&self, offset: u64, parts: WriteParts) -> Ticket;

    /// Starts to make durable every write that had completed, and every `grow` and `truncate` that had returned,
    /// before this call. Once a sync failed, all later ones fail with the same cause: it is never retried.
    fn sync(&self) -> Ticket;

    /// As [`write`](Self::write), for a caller who would wait at once: a back end that can writes in the calling thread,
    /// and then without a deadline.
    ///
    /// # Errors
    /// Those of a write.
    fn write_now(&self, offset: u64, parts: WriteParts) -> Result<(), IoError> {
        self.write(offset, parts).wait().result
    }

    /// As [`sync`](Self::sync), for a caller who would wait at once: a back end that can syncs in the calling thread,
    /// and then without a deadline.
    ///
    /// # Errors
    /// Those of a sync.
    fn sync_now(&self) -> Result<(), IoError> {
        self.sync().wait().result
    }

    /// Reads in the calling thread: cheaper than a ticket when the caller would wait at once. Without a deadline.
    fn read_now(&self, offset: u64, buffer: Buffer) -> Completion;

    /// Extends the file to `size` bytes (a multiple of [`SECTOR`]) of allocated space that reads as zeroes; does
    /// nothing if it is as large already. To be called from one thread at a time.
    ///
    /// # Errors
    /// No space or another failure; the file then has its old size again.
    fn grow(&self, size: u64) -> Result<(), IoError>;

    /// Cuts the file to `size` bytes (a multiple of [`SECTOR`]), at most its size now. No operation beyond that
    /// may be in flight. Not at the same time as `grow`.
    ///
    /// # Errors
    /// The operating system refuses.
    fn truncate(&self, size: u64) -> Result<(), IoError>;

    /// Gives the space behind a part of the file (whole sectors) back to the file system, or does nothing where that
    /// cannot take it. What is read there from now on is unspecified; before it is written again,
    /// [`allocate`](Self::allocate) takes space for it. No write there may be in flight.
    ///
    /// # Errors
    /// The operating system refuses.
    fn discard(&self, range: Range<u64>) -> Result<(), IoError>;

    /// Sees to it that a part of the file (whole sectors) has space behind it, so that writing there needs no more. What
    /// is read there from now on is unspecified. Costs little where there is space already. Not at the same time as
    /// `grow` and `truncate`, and no write there may be in flight.
    ///
    /// # Errors
    /// No space, or another failure: a part of the range may have space then.
    fn allocate(&self, range: Range<u64>) -> Result<(), IoError>;

    /// Whether it is known that every part of the file has space behind it. A file may have holes that were made by
    /// [`discard`](Self::discard) before it was opened, or by who copied it; space that was taken and not written to yet
    /// may count as a hole too. One system call.
    fn is_dense(&self) -> bool;

    /// Bytes that the file takes of the file system, as far as a back end knows: its size without holes. One system
    /// call.
    fn allocated_size(&self) -> u64 {
        self.size()
    }

    /// Looks whether the file is still what it was: not shorter than this program made it (a reader knows no size of
    /// its own), and not removed. For who meets an error or garbage and wonders, and for now and then: one system
    /// call. Says yes unless a back end knows better.
    ///
    /// # Errors
    /// [`IoCause::Truncated`](crate::IoCause::Truncated) with the size found, or
    /// [`IoCause::Unlinked`](crate::IoCause::Unlinked); or the file cannot be asked.
    fn check(&self) -> Result<(), IoError> {
        Ok(())
    }

    /// How long to wait for something that another thread does with [`write_now`](Self::write_now) or
    /// [`sync_now`](Self::sync_now) before it is taken to hang; none where these calls end by themselves, like waits
    /// for tickets do.
    fn patience(&self) -> Option<Duration> {
        None
    }

    /// What was done so far.
    fn counters(&self) -> Counters;
}

/// Operations that succeeded, and their bytes; and how many were slow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Reads.
    pub reads: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Writes; coalesced parts count as one.
    pub writes: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Syncs.
    pub syncs: u64,
    /// Operations, failed ones included, that took longer than the storage was told is usual. For a real file each is
    /// a warning in the log, and how long it waited for its turn does not count.
    pub slow: u64,
}

impl Counters {
    /// What was done since `earlier` values were taken from the same storage.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            reads: self.reads.saturating_sub(earlier.reads),
            bytes_read: self.bytes_read.saturating_sub(earlier.bytes_read),
            writes: self.writes.saturating_sub(earlier.writes),
            bytes_written: self.bytes_written.saturating_sub(earlier.bytes_written),
            syncs: self.syncs.saturating_sub(earlier.syncs),
            slow: self.slow.saturating_sub(earlier.slow),
        }
    }
}

/// [`Counters`] that several threads add to.
#[derive(Debug, Default)]
pub(crate) struct SharedCounters {
    reads: AtomicU64,
    bytes_read: AtomicU64,
    writes: AtomicU64,
    bytes_written: AtomicU64,
    syncs: AtomicU64,
    slow: AtomicU64,
}

impl SharedCounters {
    pub(crate) fn add_read(&self, bytes: usize) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.bytes_read.fetch_add(u64_of(bytes), Ordering::Relaxed);
    }

    pub(crate) fn add_write(&self, bytes: usize) {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.bytes_written.fetch_add(u64_of(bytes), Ordering::Relaxed);
    }

    pub(crate) fn add_sync(&self) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_slow(&self) {
        self.slow.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> Counters {
        Counters {
            reads: self.reads.load(Ordering::Relaxed),
            bytes_read: self.bytes_read.load(Ordering::Relaxed),
            writes: self.writes.load(Ordering::Relaxed),
            bytes_written: self.bytes_written.load(Ordering::Relaxed),
            syncs: self.syncs.load(Ordering::Relaxed),
            slow: self.slow.load(Ordering::Relaxed),
        }
    }
}

/// The border of every back end: what a read must satisfy.
pub(crate) fn assert_read(offset: u64, buffer: &Buffer) {
    assert_range(offset, buffer.len());
}

/// The border of every back end: what a write must satisfy. Returns its length.
pub(crate) fn assert_write(offset: u64, parts: &WriteParts, size: u64) -> usize {
    for part in parts {
        assert!(!part.bytes().is_empty(), "a part writes something");
    }
    let len = write_size(parts);
    assert_range(offset, len);
    assert!(
        offset.checked_add(u64_of(len)).is_some_and(|end| end <= size),
        "a write of {len} bytes at {offset} lies within the file of {size} bytes: grow first",
    );
    len
}

/// The border of every back end: what a new size must satisfy.
pub(crate) fn assert_size(size: u64) {
    assert!(size.is_multiple_of(u64_of(SECTOR)), "a file is whole sectors, not {size} bytes");
}

/// `size` is that of the file.
pub(crate) fn assert_part(range: &Range<u64>, size: u64) {
    let Range { start, end } = *range;
    assert!(start < end && end <= size, "bytes {start} to {end} are a part of the file of {size}");
    let sector = u64_of(SECTOR);
    assert!(start.is_multiple_of(sector) && end.is_multiple_of(sector), "a part of a file is whole sectors");
}

fn assert_range(offset: u64, len: usize) {
    assert!(len > 0, "an operation moves something");
    assert!(len.is_multiple_of(SECTOR), "an operation moves whole sectors, not {len} bytes");
    assert!(offset.is_multiple_of(u64_of(SECTOR)), "an operation starts at a sector, not at {offset}");
}
