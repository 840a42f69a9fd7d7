//! The merge of sorted sources into what a reader of the whole sees: of each key the newest version.
//!
//! Scans and compactions use the same merge. The sources stand by age, the newest first. Of the versions of a
//! key the newest is emitted and the others are dropped; a tombstone is emitted too, or dropped where nothing
//! older is left that it could hide ([`Tombstones::Drop`]). A scan pulls entries with [`Merge::next`]; a
//! compaction pushes them into a sink with [`Merge::step`], which takes in a given number of values and stops:
//! where it stops depends on the values alone, not on blocks, caches or the I/O's order.
//!
//! Where one source goes on for a while, it is asked how many of its entries come before all others ([`Source::stretch`]),
//! and these are given out without a comparison.
//!
//! # Invariants
//! - `consumed = emitted + dropped` at all times (asserted by every step), and at the end `consumed` is the
//!   number of entries of all sources.
//! - Emitted keys are strictly monotonic.
//! - An error of a source or of the sink changes nothing: the same step can be tried again.
//!
//! # Not here
//! Which tombstones may be dropped: the compaction knows what lies deeper.

#[cfg(test)]
mod tests;

use core::fmt;

use understory_format::{Key, Record};

use crate::contest::{Challenger, Contest};
use crate::{Direction, Entry, Source, TableError};

/// What becomes of a tombstone that is the newest version of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tombstones {
    /// It is emitted: something older may have to be hidden.
    Keep,
    /// It is dropped: nothing is older than the sources.
    Drop,
}

/// Entries taken in and given out by a merge, by their number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Entries that the merge went past.
    pub consumed: u64,
    /// Entries that were given out.
    pub emitted: u64,
    /// Older versions, and tombstones if they are dropped.
    pub dropped: u64,
}

impl Counts {
    fn verify(self) {
        assert!(self.consumed == self.emitted + self.dropped, "each entry is emitted or dropped");
    }

    /// What came after `start`, an earlier state of the same counts.
    #[must_use]
    pub fn since(self, start: Self) -> Self {
        Self {
            consumed: self.consumed - start.consumed,
            emitted: self.emitted - start.emitted,
            dropped: self.dropped - start.dropped,
        }
    }
}

/// What one [`Merge::step`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Entries of this step.
    pub counts: Counts,
    /// Whether the step met the end of the sources. A step that ends on its budget does not look further, so
    /// that it does no I/O for what it does not take: a merge may be at its end and say so only next time.
    pub is_done: bool,
}

/// A merge under way.
pub struct Merge<R: Record, S> {
    sources: Vec<S>,
    contest: Contest<R>,
    tombstones: Tombstones,
    counts: Counts,
    /// The key that was last consumed, with its prefix before it: later entries of it are older versions. Within a
    /// stretch, that of the last entry before it.
    last: Option<(u64, R::Key)>,
    /// Entries of the winning source, the head first, that are all emitted: nothing is compared for them.
    stretch: usize,
    /// The head was given out by `next` and is still to be passed.
    is_lent: bool,
}

impl<R: Record, S: Source<R>> Merge<R, S> {
    /// A merge of `sources`, the newest first, all opened in `direction`. Reads nothing yet.
    pub fn new(sources: Vec<S>, direction: Direction, tombstones: Tombstones) -> Self {
        Self {
            sources,
            contest: Contest::new(direction),
            tombstones,
            counts: Counts::default(),
            last: None,
            stretch: 0,
            is_lent: false,
        }
    }

    /// All entries so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The sources, the newest first.
    pub fn sources(&self) -> &[S] {
        &self.sources
    }

    /// Takes in `budget` entries, or as many as there are, and gives those that remain to `sink`, in order and
    /// without a copy. Budgets add up: steps of any sizes give the same as one step of their sum.
    ///
    /// # Errors
    /// What a source or the sink gives. The entry in question is neither consumed nor counted: the next step
    /// begins with it, so a sink that fails must not have kept it. What the step did before is in
    /// [`counts`](Self::counts).
    pub fn step<E: From<TableError>>(
        &mut self,
        budget: u64,
        mut sink: impl FnMut(Entry<&R>) -> Result<(), E>,
    ) -> Result<Step, E> {
        self.pass_lent();
        let start = self.counts;
        let mut is_done = false;
        while self.counts.consumed - start.consumed < budget {
            let Some(head) = self.head()? else {
                is_done = true;
                break;
            };
            if head.is_emitted() {
                sink(self.entry())?;
            }
            self.count(&head);
            self.advance();
        }
        self.counts.verify();
        Ok(Step { counts: self.counts.since(start), is_done })
    }

    /// The next entry that is to be given out, or none at the end.
    ///
    /// # Errors
    /// What a source gives; nothing is lost, the next call tries again.
    #[expect(clippy::should_implement_trait, reason = "it lends, and it can fail")]
    #[inline]
    pub fn next(&mut self) -> Result<Option<Entry<&R>>, TableError> {
        if self.is_lent && self.stretch > 1 {
            self.advance();
            self.count(&Head::InStretch);
            return Ok(Some(self.entry()));
        }
        self.next_after_stretch()
    }

    fn next_after_stretch(&mut self) -> Result<Option<Entry<&R>>, TableError> {
        self.pass_lent();
        loop {
            let Some(head) = self.head()? else { return Ok(None) };
            self.count(&head);
            if head.is_emitted() {
                break;
            }
            self.advance();
        }
        self.is_lent = true;
        self.counts.verify();
        Ok(Some(self.entry()))
    }

    /// Whether nothing is left to consume. May read the next block to know.
    ///
    /// # Errors
    /// What a source gives; nothing is lost.
    pub fn is_done(&mut self) -> Result<bool, TableError> {
        self.pass_lent();
        Ok(self.load()?.is_none())
    }

    #[inline]
    fn load(&mut self) -> Result<Option<u64>, TableError> {
        self.contest.load(self.sources.as_mut_slice())
    }

    /// What becomes of the head; none at the end. The same head may be asked for again.
    #[inline]
    fn head(&mut self) -> Result<Option<Head<R::Key>>, TableError> {
        if self.stretch > 0 {
            return Ok(Some(Head::InStretch));
        }
        let Some(prefix) = self.load()? else { return Ok(None) };
        Ok(Some(self.judge(prefix)))
    }

    /// The head, which is loaded.
    #[expect(clippy::indexing_slicing, reason = "per value; the winner is one of the sources")]
    #[inline]
    fn entry(&self) -> Entry<&R> {
        self.sources[self.contest.winner()].entry()
    }

    #[expect(clippy::indexing_slicing, reason = "per value; the winner is one of the sources")]
    #[inline]
    fn advance(&mut self) {
        self.stretch = self.stretch.saturating_sub(1);
        if self.stretch == 0 {
            self.contest.pass();
        }
        self.sources[self.contest.winner()].advance();
    }

    #[inline]
    fn pass_lent(&mut self) {
        if self.is_lent {
            self.advance();
            self.is_lent = false;
        }
    }

    /// What becomes of the head, which is loaded.
    #[inline]
    fn judge(&mut self, prefix: u64) -> Head<R::Key> {
        let entry = self.entry();
        let (key, tombstone) = (entry.value.key(), entry.tombstone);
        if self.last.is_some_and(|(last, of)| last == prefix && of == key) {
            return Head::Dropped { prefix, key };
        }
        if tombstone {
            return match self.tombstones {
                Tombstones::Keep => Head::Emitted { prefix, key },
                Tombstones::Drop => Head::Dropped { prefix, key },
            };
        }
        match self.stretch_from_here() {
            0 | 1 => Head::Emitted { prefix, key },
            stretch => {
                self.stretch = stretch;
                Head::InStretch
            }
        }
    }

    /// How many entries of the winning source, the head first, come before those of all others; 0 if that is not known.
    #[expect(clippy::indexing_slicing, reason = "the winner and who comes next are sources")]
    #[inline]
    fn stretch_from_here(&self) -> usize {
        let bound = match self.contest.challenger() {
            Challenger::Unknown => return 0,
            Challenger::Nobody => None,
            Challenger::Source(next) => Some(self.sources[next].key()),
        };
        self.sources[self.contest.winner()].stretch(bound)
    }

    #[inline]
    fn count(&mut self, head: &Head<R::Key>) {
        self.counts.consumed += 1;
        match *head {
            Head::InStretch if self.stretch == 1 => {
                let key = self.entry().value.key();
                self.last = Some((key.prefix(), key));
            }
            Head::InStretch => {}
            Head::Emitted { prefix, key } | Head::Dropped { prefix, key } => self.last = Some((prefix, key)),
        }
        self.counts.emitted += u64::from(head.is_emitted());
        self.counts.dropped += u64::from(!head.is_emitted());
    }
}

/// The entry at the head of the merge.
enum Head<K> {
    /// One of many that are emitted: nobody looked at its key.
    InStretch,
    Emitted {
        prefix: u64,
        key: K,
    },
    Dropped {
        prefix: u64,
        key: K,
    },
}

impl<K> Head<K> {
    #[inline]
    fn is_emitted(&self) -> bool {
        !matches!(self, Self::Dropped { .. })
    }
}

impl<R: Record, S> fmt::Debug for Merge<R, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Merge")
            .field("tombstones", &self.tombstones)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}
