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

use hashbrown::HashTable;
use understory_format::{Key, Record, usize_of};
use understory_io::Buffer;

use super::{Contents, Full, Memtable};
use crate::run::{self, Fold, PART, Scratch, Sorter, index_of_word};

/// Values that one step appends at most.
pub(crate) const APPEND_MAX: usize = 64;

/// Folded ranks that one step puts into their slots at most.
pub(crate) const PLACE_MAX: usize = 4096;

/// Keys that a hash index has room for when it is first made.
const INDEX_COUNT_MIN: usize = 112;

/// How many values ahead of the one that moves into a larger index one is brought nearer.
const PREFETCH_DISTANCE: usize = 8;

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

/// The steps of [`MemWriter`]: those that take long change nothing, those that change something are short.
impl<R: Record> Memtable<R> {
    fn take_chunks(&self, count: usize) -> Result<Vec<Buffer>, Full> {
        self.contents.store.take_chunks(count)
    }

    fn add_chunks(&mut self, chunks: Vec<Buffer>) {
        self.contents.store.add_chunks(chunks);
    }

    /// Values that it takes before a part is to be sorted, at least one.
    fn part_room(&self) -> usize {
        let Contents { store, runs, .. } = &self.contents;
        usize_of(PART - (store.len() - runs.sorted()))
    }

    /// A hash index with the same keys and room for more, if the present one has no room for `count` more.
    fn larger_index(&self, count: usize) -> Option<HashTable<u32>> {
        let Contents { store, newest, .. } = &self.contents;
        if newest.len() + count <= newest.capacity() {
            return None;
        }
        let hash_of = |&word: &u32| store.value(index_of_word(word)).key().hash();
        let mut larger = HashTable::with_capacity((2 * newest.capacity()).max(INDEX_COUNT_MIN));
        let mut ahead = newest.iter().skip(PREFETCH_DISTANCE);
        for word in newest {
            if let Some(word) = ahead.next() {
                store.prefetch_value(index_of_word(*word));
            }
            larger.insert_unique(hash_of(word), *word, hash_of);
        }
        Some(larger)
    }

    fn exchange_index(&mut self, index: HashTable<u32>) -> HashTable<u32> {
        assert!(index.len() == self.contents.newest.len(), "nobody else writes");
        core::mem::replace(&mut self.contents.newest, index)
    }

    fn append(&mut self, values: &[R], is_tombstone: impl Fn(usize) -> bool) {
        let newest = &self.contents.newest;
        assert!(
            newest.len() + values.len() <= newest.capacity(),
            "the index does not grow while readers wait"
        );
        for (index, value) in values.iter().enumerate() {
            self.contents.append(value, is_tombstone(index));
        }
    }

    /// Sorts what is unsorted; false if nothing is.
    fn sort_part(&self, sorter: &mut Sorter) -> bool {
        let Contents { store, runs, .. } = &self.contents;
        let slots = runs.sorted()..store.len();
        sorter.sort(store, slots.clone());
        !slots.is_empty()
    }

    fn place_part(&mut self, sorter: &Sorter) {
        let Contents { store, runs, .. } = &mut self.contents;
        store.set_ranks(runs.sorted(), sorter.sorted());
        runs.add_part(store.len());
    }

    /// Merges what the close of the beat folds, if it folds anything.
    fn fold(&self, scratch: &mut Scratch) -> Option<Fold> {
        let Contents { store, runs, fold, .. } = &self.contents;
        assert!(runs.sorted() == store.len(), "a beat is closed when all of it is sorted");
        assert!(fold.is_none(), "the fold before was ended");
        run::fold(store, &runs.closing(), store.len(), scratch)
    }

    fn close_runs(&mut self, fold: Option<Fold>) {
        self.contents.folds += u32::from(fold.is_some());
        self.contents.fold = fold;
        self.contents.runs.close();
        self.contents.runs.verify();
    }

    /// Puts some of the folded ranks into their slots; false when all are there.
    fn place_folded(&mut self, count: usize) -> bool {
        let Contents { store, fold, .. } = &mut self.contents;
        fold.as_mut().expect("a fold has begun").place(store, count)
    }

    fn end_fold(&mut self) -> Fold {
        self.contents.fold.take().expect("a fold has begun")
    }
}
