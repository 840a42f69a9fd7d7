//! Writing a memtable that others read: in short steps, with the long work done beside it.
//!
//! What takes long (sorting, merging, a larger hash index) is computed while readers may read on; only putting it
//! in its place excludes them. The [`Access`] says how the memtable is shared and read or changed; this module says in
//! which steps.
//!
//! # Invariants
//! - A step that excludes readers takes in at most [`APPEND_MAX`] values, or puts one part or [`PLACE_MAX`] folded
//!   ranks into their slots, or exchanges a hash index or chunks, which costs the same whatever their size.
//! - There is one writer: between its steps nobody else changes the memtable.
//!
//! # Not here
//! The lock, and what readers see of values that were appended: the owner of the memtable.

use understory_format::Record;

use super::{Full, Memtable};
use crate::run::{Scratch, Sorter};

/// Values that one step appends at most.
pub(crate) const APPEND_MAX: usize = 64;

/// Folded ranks that one step puts into their slots at most.
pub(crate) const PLACE_MAX: usize = 4096;

/// How a writer gets at a memtable that it shares with readers.
pub trait Access<R: Record> {
    /// Runs `work` on the memtable while readers may read it too.
    fn read<T>(&self, work: impl FnOnce(&Memtable<R>) -> T) -> T;
    /// Runs `work` on the memtable while nobody reads it.
    fn write<T>(&mut self, work: impl FnOnce(&mut Memtable<R>) -> T) -> T;
}

/// A memtable that nobody shares.
impl<R: Record> Access<R> for Memtable<R> {
    fn read<T>(&self, work: impl FnOnce(&Self) -> T) -> T {
        work(self)
    }

    fn write<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        work(self)
    }
}

/// What a writer of memtables works with, whatever their records are.
#[derive(Debug)]
pub struct MemWriter {
    sorter: Sorter,
}

impl Default for MemWriter {
    fn default() -> Self {
        Self { sorter: Sorter::new() }
    }
}

impl MemWriter {
    /// Appends values, in order; bit `i` of `tombstones` says that the value `i` is a tombstone for its key, the rest
    /// of which is not kept. Costs an allocation if chunks are taken, and one as large as the hash index when that is
    /// full.
    ///
    /// # Errors
    /// If there is no room for all of them; the memtable is as before.
    ///
    /// # Panics
    /// If there is a bitmap and it is not as long as the values need.
    pub fn append<R: Record>(
        &mut self,
        to: &mut impl Access<R>,
        values: &[R],
        tombstones: Option<&[u8]>,
    ) -> Result<(), Full> {
        if let Some(bitmap) = tombstones {
            assert!(bitmap.len() == values.len().div_ceil(8), "a bit for each value");
        }
        let chunks = to.read(|memtable| memtable.take_chunks(values.len()))?;
        if !chunks.is_empty() {
            to.write(|memtable| memtable.add_chunks(chunks));
        }
        let mut at = 0;
        while at < values.len() {
            let room = to.read(|memtable| memtable.part_room());
            let end = values.len().min(at + room.min(APPEND_MAX));
            let now = values.get(at..end).expect("at < end <= len");
            make_index_room(to, now.len());
            to.write(|memtable| memtable.append(now, |index| is_set(tombstones, at + index)));
            if now.len() == room {
                self.sort_part(to);
            }
            at = end;
        }
        Ok(())
    }

    /// Appends one value, or a tombstone for its key.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn put<R: Record>(
        &mut self,
        to: &mut impl Access<R>,
        value: &R,
        tombstone: bool,
    ) -> Result<(), Full> {
        let bitmap: &[u8] = &[1];
        self.append(to, core::slice::from_ref(value), tombstone.then_some(bitmap))
    }

    /// Ends a beat: makes what came since the last close one sorted run, and folds runs. Costs one merge of the
    /// beat's values and of those that fold: of six beats, at every sixth close (of all beats since the last
    /// such merge, at every 36th).
    pub fn close_beat<R: Record>(&mut self, of: &mut impl Access<R>, scratch: &mut Scratch) {
        self.sort_part(of);
        let folded = of.read(|memtable| memtable.fold(scratch));
        let is_folded = folded.is_some();
        of.write(|memtable| memtable.close_runs(folded));
        if !is_folded {
            return;
        }
        while of.write(|memtable| memtable.place_folded(PLACE_MAX)) {}
        of.write(Memtable::end_fold).give_back(scratch);
    }

    /// Makes what is unsorted a part.
    fn sort_part<R: Record>(&mut self, of: &mut impl Access<R>) {
        let Self { sorter } = self;
        if of.read(|memtable| memtable.sort_part(sorter)) {
            of.write(|memtable| memtable.place_part(sorter));
        }
    }
}

/// Makes the hash index large enough for `count` more keys.
fn make_index_room<R: Record>(of: &mut impl Access<R>, count: usize) {
    if let Some(index) = of.read(|memtable| memtable.larger_index(count)) {
        // The old one is given back when readers may read again.
        let old = of.write(|memtable| memtable.exchange_index(index));
        drop(old);
    }
}

/// Whether a bit is set in a bitmap, if there is one.
fn is_set(bitmap: Option<&[u8]>, index: usize) -> bool {
    let byte = bitmap.and_then(|bitmap| bitmap.get(index / 8));
    byte.is_some_and(|byte| byte >> (index % 8) & 1 == 1)
}
