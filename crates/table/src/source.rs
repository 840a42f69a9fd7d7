//! What a merge reads from: sorted runs of entries, in memory or on disk, behind one trait.
//!
//! A source has a *head*, its next entry. [`Source::load`] makes the head available and may do I/O for it;
//! everything else is cheap and cannot fail. The order of calls is `load`, then any number of `entry` and
//! `key`, then `advance`, then `load` again. That split is what lets a merge stop between any two values and
//! be resumed after an error: an entry that was handed out stays where it is until `advance`.
//!
//! # Invariants
//! - Keys come in the direction the source was opened with. Equal keys of one source (versions in a memtable)
//!   come newest first. Sources over disk check the order of what they read and give `Corruption`, so that
//!   the merge may rely on it (it asserts what it is given, in debug builds).
//! - `load` after an error tries the same step again; `load` after `load` changes nothing.
//!
//! # Not here
//! The age of a source: it is its place in the merge, see [`Merge`](crate::Merge).

use understory_format::Record;

use crate::{Entry, TableError};

/// A sorted sequence of entries, read from its head.
pub trait Source<R: Record> {
    /// Makes the head available and gives the prefix of its key ([`Key::prefix`](understory_format::Key::prefix)),
    /// or none at the end. Costs nothing if the head is there already.
    ///
    /// # Errors
    /// What reading the next block or page gives. The source stays where it is: the next call tries again.
    fn load(&mut self) -> Result<Option<u64>, TableError>;

    /// The head, without a copy.
    ///
    /// # Panics
    /// Unless the last call was to a `load` that gave a prefix, or to `entry` or `key` after it.
    fn entry(&self) -> Entry<&R>;

    /// The key of the head.
    ///
    /// # Panics
    /// As [`entry`](Self::entry).
    fn key(&self) -> R::Key {
        self.entry().value.key()
    }

    /// Goes past the head; does no I/O.
    ///
    /// # Panics
    /// As [`entry`](Self::entry).
    fn advance(&mut self);

    /// How many entries from the head on are sure to come before the key `bound` (none: there is no bound), to be no
    /// tombstones and of different keys, and to be there without a `load`; at least 1, the head, whatever it is. After
    /// each `advance` the next of them may be had by `entry` at once.
    ///
    /// # Panics
    /// As [`entry`](Self::entry).
    fn stretch(&self, bound: Option<R::Key>) -> usize {
        let _ = bound;
        1
    }

    /// Starts reading what the first `load` will need, without waiting. A merge calls it on all its sources
    /// before it loads the first.
    fn prefetch(&mut self) {}
}

impl<R: Record, S: Source<R> + ?Sized> Source<R> for Box<S> {
    fn load(&mut self) -> Result<Option<u64>, TableError> {
        (**self).load()
    }

    fn entry(&self) -> Entry<&R> {
        (**self).entry()
    }

    fn key(&self) -> R::Key {
        (**self).key()
    }

    fn advance(&mut self) {
        (**self).advance();
    }

    fn stretch(&self, bound: Option<R::Key>) -> usize {
        (**self).stretch(bound)
    }

    fn prefetch(&mut self) {
        (**self).prefetch();
    }
}
