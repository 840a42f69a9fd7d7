//! The memtable: the newest values of a tree, in memory, until they are flushed into tables.
//!
//! Values are appended in arrival order and never move (`store`). A hash index from key to newest value answers
//! point reads at once, and from there each value says which version it follows, so that a reader may leave the
//! last values out. While a beat is open, every thousand values are sorted by index; at its end they are
//! merged into a run, and runs are folded (`run`), so that a range read merges few runs. What is unsorted when
//! a range read comes is sorted by the reader, in a copy of the ranks in range, as far as it gets. At the end
//! of a bar the memtable is [sealed](Memtable::seal): the same contents, shared and immutable.
//!
//! A memtable may be read while it is written ([`MemReader`], [`MemWriter`]): one writer works in short steps, and
//! readers see the values below a *limit*, a number of values that their owner has made visible.
//!
//! All versions of a key are kept, their arrival order is their age; cursors give them newest first, and
//! [`Merge`](crate::Merge) drops the older ones.
//!
//! # Invariants
//! - The hash index has one entry for each key, the newest version's; from it all versions of the key are found, each
//!   older than the one before ([`Contents::verify`]).
//! - Each run is sorted by key, equal keys newest first, and holds just the values of its stretch
//!   ([`Contents::verify`]).
//! - Memory: chunks of the pool, taken as values arrive, and the hash index, which doubles as keys arrive, up to
//!   the stated number of values, and is kept by `reset` and `recycle`. Nothing else grows.
//!
//! # Not here
//! How many values a beat or a bar may have: the forest's pace. What is visible, and the lock: the tree.

mod cursor;
mod reader;
mod store;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

use core::fmt;
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;
use understory_format::{Key, Record, u64_of};
use understory_io::Pool;

pub use cursor::MemCursor;
pub use reader::MemReader;
pub(crate) use store::Store;
pub use writer::{Access, MemWriter};

use crate::run::{self, Fold, Rank, Runs};
use crate::{Direction, Entry, Found, KeyRange};
use store::NO_WORD;

/// A memtable has no room for a value. Nothing of the value was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Full {
    /// It holds as many values as it may.
    #[error("the memtable holds {count_max} values, which is its limit")]
    Values {
        /// The limit.
        count_max: u32,
    },
    /// The pool that memtables take their chunks from has none left.
    #[error("all {count} chunks of the memtables are in use")]
    Chunks {
        /// Number of chunks in the pool.
        count: usize,
    },
}

/// What a memtable holds; read through [`Memtable`] and [`Sealed`].
pub struct Contents<R: Record> {
    store: Store<R>,
    runs: Runs,
    /// Ranks of the newest run that are not in their slots yet.
    fold: Option<Fold>,
    /// How often slots of runs have changed.
    folds: u32,
    /// By key, the word of the newest version's rank.
    newest: HashTable<u32>,
    tombstone_count: u32,
    /// Least and greatest key.
    bounds: Option<(R::Key, R::Key)>,
}

impl<R: Record> Contents<R> {
    fn new(pool: Pool, value_count_max: u32) -> Self {
        Self {
            store: Store::new(pool, value_count_max),
            runs: Runs::new(value_count_max),
            fold: None,
            folds: 0,
            newest: HashTable::new(),
            tombstone_count: 0,
            bounds: None,
        }
    }

    /// Appends a value, for which there is a chunk and room in the hash index.
    fn append(&mut self, value: &R, tombstone: bool) {
        let key = value.key();
        let rank = Rank::new(key.prefix(), self.store.len(), tombstone);
        let Self { store, newest, .. } = self;
        let is_same = |&other: &u32| store.value(run::index_of_word(other)).key() == key;
        let hash_of = |&other: &u32| store.value(run::index_of_word(other)).key().hash();
        let previous = match newest.entry(key.hash(), is_same, hash_of) {
            Slot::Occupied(mut slot) => core::mem::replace(slot.get_mut(), rank.word()),
            Slot::Vacant(slot) => {
                slot.insert(rank.word());
                NO_WORD
            }
        };
        if tombstone {
            store.append(&R::tombstone(key), rank, previous);
        } else {
            store.append(value, rank, previous);
        }
        self.tombstone_count += u32::from(tombstone);
        self.bounds = Some(self.bounds.map_or((key, key), |(min, max)| (min.min(key), max.max(key))));
    }

    /// The newest version of `key` among the first `limit` values.
    fn get(&self, key: R::Key, limit: u32) -> Found<R> {
        if limit == 0 {
            return Found::Absent;
        }
        let is_same = |&word: &u32| self.store.value(run::index_of_word(word)).key() == key;
        let mut word = self.newest.find(key.hash(), is_same).copied();
        while let Some(newer) = word.filter(|word| run::index_of_word(*word) >= limit) {
            word = self.store.previous(run::index_of_word(newer));
        }
        match word {
            None => Found::Absent,
            Some(word) if run::is_tombstone_word(word) => Found::Tombstone,
            Some(word) => Found::Value(*self.store.value(run::index_of_word(word))),
        }
    }

    /// The rank in a slot.
    #[inline]
    fn rank(&self, slot: u32) -> Rank {
        match &self.fold {
            None => self.store.rank(slot),
            Some(fold) => fold.rank(slot).unwrap_or_else(|| self.store.rank(slot)),
        }
    }

    /// What a rank stands for.
    #[inline]
    fn entry(&self, rank: Rank) -> Entry<&R> {
        Entry { value: self.store.value(rank.index()), tombstone: rank.is_tombstone() }
    }

    /// Brings the value nearer whose rank is in `slot`.
    #[inline]
    fn prefetch(&self, slot: u32) {
        self.store.prefetch_value(self.rank(slot).index());
    }

    fn key_range(&self) -> Option<KeyRange<R::Key>> {
        self.bounds.and_then(|(min, max)| KeyRange::new(min, max))
    }

    fn reset(&mut self) {
        assert!(self.fold.is_none(), "nobody forgets a memtable in the middle of a fold");
        self.store.reset();
        self.runs.clear();
        if !self.newest.is_empty() {
            self.newest.clear();
        }
        self.tombstone_count = 0;
        self.bounds = None;
    }
}

impl<R: Record> fmt::Debug for Contents<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contents")
            .field("store", &self.store)
            .field("runs", &self.runs.len())
            .field("distinct", &self.newest.len())
            .finish_non_exhaustive()
    }
}

/// A memtable that takes values.
#[derive(Debug)]
pub struct Memtable<R: Record> {
    contents: Contents<R>,
}

impl<R: Record> Memtable<R> {
    /// An empty memtable for at most `value_count_max` values, versions and tombstones counted, which takes its
    /// chunks from `pool`. The hash index takes 5 to 12 bytes a key on top.
    ///
    /// # Panics
    /// If a buffer of the pool has no room for two values, or `value_count_max` is over 2^31.
    pub fn new(pool: Pool, value_count_max: u32) -> Self {
        Self { contents: Contents::new(pool, value_count_max) }
    }

    /// How many values a chunk of `chunk_size` bytes holds. A memtable needs two at least.
    #[must_use]
    pub const fn values_per_chunk(chunk_size: usize) -> usize {
        store::values_per_chunk::<R>(chunk_size)
    }

    /// Ends the life of the memtable as one that takes values.
    ///
    /// # Panics
    /// If values came since the last [`close_beat`](MemWriter::close_beat): a bar ends with a beat.
    pub fn seal(self) -> Sealed<R> {
        let contents = self.contents;
        assert!(contents.fold.is_none(), "a fold is ended before its memtable");
        assert!(contents.runs.closed() == contents.store.len(), "only a closed memtable can be sealed");
        Sealed { contents: Arc::new(contents) }
    }

    /// Forgets everything and gives the chunks back to the pool; the hash index keeps its memory.
    pub fn reset(&mut self) {
        self.contents.reset();
    }

    /// The most values it may hold.
    pub fn value_count_max(&self) -> u32 {
        self.contents.store.len_max()
    }

    /// The entries of `range` in `direction`; an open beat's too.
    pub fn cursor(&self, range: KeyRange<R::Key>, direction: Direction) -> MemCursor<R, &Contents<R>> {
        MemCursor::new(&self.contents, range, direction)
    }
}

/// A memtable that is complete: to be read, then flushed, then [recycled](Self::recycle). Clones share it.
#[derive(Debug)]
pub struct Sealed<R: Record> {
    contents: Arc<Contents<R>>,
}

impl<R: Record> Clone for Sealed<R> {
    fn clone(&self) -> Self {
        Self { contents: Arc::clone(&self.contents) }
    }
}

impl<R: Record> Sealed<R> {
    /// The entries of `range` in `direction`. The cursor keeps the contents alive.
    pub fn cursor(&self, range: KeyRange<R::Key>, direction: Direction) -> MemCursor<R, Arc<Contents<R>>> {
        MemCursor::new(Arc::clone(&self.contents), range, direction)
    }

    /// The keys of `count` values, or of all if there are fewer, evenly spread over its sorted runs; ascending. So
    /// among all versions of all keys, they are evenly spread up to one in `count` for each run.
    pub fn sample(&self, count: u32) -> Vec<R::Key> {
        let Contents { store, .. } = &*self.contents;
        let (len, count) = (store.len(), count.min(store.len()));
        let slot = |number| u64::from(len) * u64::from(number) / u64::from(count);
        let slots = (0..count).filter_map(|number| u32::try_from(slot(number)).ok());
        let key = |slot| store.value(self.contents.rank(slot).index()).key();
        let mut keys: Vec<R::Key> = slots.map(key).collect();
        keys.sort_unstable();
        keys
    }

    /// An empty memtable with the memory of this one; its chunks go back to the pool.
    ///
    /// # Errors
    /// Gives `self` back while a clone or a cursor still uses the contents.
    pub fn recycle(self) -> Result<Memtable<R>, Self> {
        let mut contents = Arc::try_unwrap(self.contents).map_err(|contents| Self { contents })?;
        contents.reset();
        Ok(Memtable { contents })
    }
}

macro_rules! reads {
    ($($type:ident),+) => {$(
        impl<R: Record> $type<R> {
            /// The newest version of `key`.
            pub fn get(&self, key: R::Key) -> Found<R> {
                self.contents.get(key, u32::MAX)
            }

            /// The newest version of `key` among the first `limit` values.
            pub fn get_below(&self, key: R::Key, limit: u32) -> Found<R> {
                self.contents.get(key, limit)
            }

            /// Gathers the next entries for a reader that has none, a bounded number. The reader has not ended, or
            /// nothing is done. It may take several calls to find an entry.
            pub fn refill(&self, reader: &mut MemReader<R>) {
                reader.refill(&self.contents);
            }

            /// Number of values, all versions and tombstones counted: what a merge of it consumes.
            pub fn len(&self) -> u64 {
                u64::from(self.contents.store.len())
            }

            /// Whether it holds nothing.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// Number of keys: what a merge of it alone emits if it keeps tombstones.
            pub fn distinct(&self) -> u64 {
                u64_of(self.contents.newest.len())
            }

            /// Number of tombstones among [`len`](Self::len).
            pub fn tombstone_count(&self) -> u64 {
                u64::from(self.contents.tombstone_count)
            }

            /// Bytes of its values: their number times the size of a record.
            pub fn bytes(&self) -> u64 {
                self.len() * u64_of(size_of::<R>())
            }

            /// Bytes of the chunks it has taken.
            pub fn memory(&self) -> u64 {
                u64_of(self.contents.store.chunk_count() * self.contents.store.chunk_size())
            }

            /// Least and greatest key, tombstones counted; none if empty.
            pub fn key_range(&self) -> Option<KeyRange<R::Key>> {
                self.contents.key_range()
            }

            /// Number of sorted runs, the open beat not counted.
            pub fn run_count(&self) -> usize {
                self.contents.runs.len()
            }

            /// Checks the invariants; see [`Contents::verify`].
            pub fn verify(&self) {
                self.contents.verify();
            }
        }
    )+};
}

reads!(Memtable, Sealed);
