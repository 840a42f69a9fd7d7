//! Reading a memtable that others write: entries are copied out some at a time, nothing is held between.
//!
//! Who reads so takes its turn with the writer for each [`refill`](MemReader::refill), which looks at a bounded
//! number of entries: few at first, so that a short scan stays short, then more and more. In between the reader
//! holds copies and the numbers of slots where it is. The contents may change meanwhile: later values are over the
//! reader's limit, and when runs were folded it looks its place up again.
//!
//! # Invariants
//! - Of each key with a version below the limit the newest of these is given, by key in the direction; what is at or
//!   over the limit is as if it were not there (model tests).
//! - A refill looks at `STEPS_MAX` entries at most, and at one rank of each part and run or a few
//!   more if it has to find its place.
//!
//! # Not here
//! Whether the memtable is still the same one: the caller's.

use core::fmt;

use understory_format::Record;

use super::Contents;
use super::cursor::Cursor;
use crate::run::Rank;
use crate::{Direction, Entry, KeyRange};

/// Entries that a refill gathers at least,
const COUNT_MIN: usize = 4;
/// and otherwise this part of what was gathered before: what is gathered in vain costs as much as what is given.
const GROWTH_PART: usize = 4;
/// But at most so many,
const COUNT_MAX: usize = 256;
/// and so many bytes of values.
const SIZE_MAX: usize = 64 << 10;

/// Entries that a refill looks at, those gathered among them, for each that it may gather.
const STEPS_PER_ENTRY: usize = 4;
/// Twice as many if the refill before found none; but at most so many.
const STEPS_MAX: usize = STEPS_PER_ENTRY * COUNT_MAX;

/// A read of the entries of one memtable, each key's newest version below a limit.
pub struct MemReader<R: Record> {
    range: KeyRange<R::Key>,
    direction: Direction,
    /// Values from this one on are not seen.
    limit: u32,
    cursor: Option<Cursor<R>>,
    /// How often runs had been folded when the cursor was made.
    folds: u32,
    /// The key last gathered, with its prefix before it: later entries of it are older versions.
    last: Option<(u64, R::Key)>,
    /// Copies.
    gathered: Vec<Entry<R>>,
    /// How many of them were passed.
    passed: usize,
    /// How many were gathered before.
    before: usize,
    /// By how much refills look further, because the ones before found nothing.
    patience: usize,
    ended: bool,
}

impl<R: Record> MemReader<R> {
    /// A read of `range` in `direction` that sees the first `limit` values of a memtable.
    #[must_use]
    pub fn new(range: KeyRange<R::Key>, direction: Direction, limit: u32) -> Self {
        Self {
            range,
            direction,
            limit,
            cursor: None,
            folds: 0,
            last: None,
            gathered: Vec::new(),
            passed: 0,
            before: 0,
            patience: 1,
            ended: limit == 0,
        }
    }

    /// Entries that the next refill gathers.
    fn count(&self) -> usize {
        let count_max = (SIZE_MAX / size_of::<R>()).clamp(1, COUNT_MAX);
        (self.before / GROWTH_PART).max(COUNT_MIN).min(count_max)
    }

    /// The next entry, if one is gathered. If not, and the reader has not [ended](Self::is_ended), it is to be
    /// refilled.
    #[inline]
    pub fn head(&self) -> Option<Entry<&R>> {
        let Entry { value, tombstone } = self.gathered.get(self.passed)?;
        Some(Entry { value, tombstone: *tombstone })
    }

    /// Goes past the head.
    #[inline]
    pub fn advance(&mut self) {
        self.passed += 1;
    }

    /// Whether the memtable has nothing more for it than what is gathered.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Gathers the next entries, if it has none; it may take several calls to find the first.
    pub(super) fn refill(&mut self, contents: &Contents<R>) {
        if self.ended || self.passed < self.gathered.len() {
            return;
        }
        self.before += self.gathered.len();
        self.gathered.clear();
        self.passed = 0;
        let mut cursor = match self.cursor.take().filter(|_| self.folds == contents.folds) {
            Some(cursor) => cursor,
            None => self.find(contents),
        };
        let count = self.count();
        for _ in 0..(STEPS_PER_ENTRY * count * self.patience).min(STEPS_MAX) {
            if self.gathered.len() == count {
                break;
            }
            let Some(prefix) = cursor.load(contents) else {
                self.ended = true;
                break;
            };
            self.gather(contents, prefix, cursor.head());
            cursor.advance();
        }
        self.patience = if self.gathered.is_empty() { (2 * self.patience).min(STEPS_MAX) } else { 1 };
        self.cursor = Some(cursor);
    }

    /// Takes the entry if it is the newest that is seen of its key.
    #[inline]
    fn gather(&mut self, contents: &Contents<R>, prefix: u64, rank: Rank) {
        if rank.index() >= self.limit {
            return;
        }
        let Entry { value, tombstone } = contents.entry(rank);
        let key = value.key();
        if self.last.is_none_or(|(last, of)| last != prefix || of != key) {
            self.last = Some((prefix, key));
            self.gathered.push(Entry { value: *value, tombstone });
        }
    }

    /// A cursor at the key last gathered, whose versions are passed over, or at the start.
    #[cold]
    fn find(&mut self, contents: &Contents<R>) -> Cursor<R> {
        self.folds = contents.folds;
        let rest = self.last.and_then(|(_, key)| match self.direction {
            Direction::Ascending => KeyRange::new(key, self.range.max()),
            Direction::Descending => KeyRange::new(self.range.min(), key),
        });
        Cursor::new(contents, rest.unwrap_or(self.range), self.direction, self.limit)
    }
}

impl<R: Record> fmt::Debug for MemReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemReader")
            .field("range", &self.range)
            .field("direction", &self.direction)
            .field("limit", &self.limit)
            .field("left", &(self.gathered.len() - self.passed))
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
