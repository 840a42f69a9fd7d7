//! Reading a memtable in key order: one small cursor for each run and part, a contest among them.
//!
//! A cursor of a run walks its rank slots. Downwards it has to give equal keys newest first too, so it
//! carves the stretch of an equal key off the end and walks that upwards. The last values are unsorted, and
//! readers do not change what they read: their cursor takes a copy of the ranks in range and sorts that from
//! the front in growing steps, so that a read of a few values does not pay for all.
//!
//! A [`Cursor`] holds no contents, only numbers of slots and values; it is given the contents with each call. So it
//! can be kept while others write, until runs are folded ([`Contents::folds`]): values that come later are in no
//! stretch that it walks.
//!
//! # Invariants
//! - Every version is given, by key in the direction, equal keys newest first (model tests).

use core::cmp::Ordering;
use core::fmt;
use core::ops::{Deref, Range};

use understory_format::{Key, Record};

use super::Contents;
use crate::contest::{Contest, Sources};
use crate::run::{Rank, compare_ages, compare_keys};
use crate::{Direction, Entry, KeyRange, Source, TableError};

/// Values that are brought nearer ahead of the head.
const PREFETCH_DISTANCE: u32 = 8;

/// How much of the suffix is sorted first; each further step is three times what is sorted by then.
const SORT_STEP_MIN: usize = 64;

/// A place in the order of a memtable's entries, and the way on from it.
#[derive(Debug)]
pub(super) struct Cursor<R: Record> {
    runs: Vec<RunCursor<R>>,
    contest: Contest<R>,
}

impl<R: Record> Cursor<R> {
    /// At the first of the entries of `range` in `direction`. Of the values, those from `limit` on are given only
    /// as far as they are in one run with others.
    pub(super) fn new(
        contents: &Contents<R>,
        range: KeyRange<R::Key>,
        direction: Direction,
        limit: u32,
    ) -> Self {
        let mut runs = Vec::new();
        let suffix = contents.runs.sorted()..contents.store.len().min(limit);
        if !suffix.is_empty() {
            let walk = Walk::Suffix(Suffix::new(contents, suffix, range, direction));
            runs.push(RunCursor { head: None, walk });
        }
        for (start, end) in contents.runs.newest_first().filter(|(start, _)| *start < limit) {
            let slots = slots_in_range(contents, start..end, range);
            if !slots.is_empty() {
                let walk = Walk::Slots(Slots::new(slots, direction));
                runs.push(RunCursor { head: None, walk });
            }
        }
        Self { runs, contest: Contest::new(direction) }
    }

    /// Finds the next entry, and gives the prefix of its key; none at the end.
    #[inline]
    pub(super) fn load(&mut self, contents: &Contents<R>) -> Option<u64> {
        let loaded = self.contest.load(&mut Among { contents, runs: &mut self.runs });
        loaded.expect("memory does not fail")
    }

    /// The rank of the entry that was loaded.
    #[expect(clippy::indexing_slicing, reason = "per value; the winner is one of the runs")]
    #[inline]
    pub(super) fn head(&self) -> Rank {
        self.runs[self.contest.winner()].head()
    }

    /// Goes past the entry that was loaded.
    #[expect(clippy::indexing_slicing, reason = "per value; the winner is one of the runs")]
    #[inline]
    pub(super) fn advance(&mut self) {
        self.contest.pass();
        let head = self.runs[self.contest.winner()].head.take();
        assert!(head.is_some(), "the caller has loaded a head");
    }

    fn prefetch(&mut self, contents: &Contents<R>) {
        Among { contents, runs: &mut self.runs }.prefetch();
    }
}

/// The entries of a memtable: all versions of each key, newest first. A [`Source`] that never fails.
///
/// `H` is what holds the contents: a reference for a memtable that is open, a counted one if it is sealed.
pub struct MemCursor<R: Record, H> {
    contents: H,
    cursor: Cursor<R>,
}

impl<R: Record, H: Deref<Target = Contents<R>>> MemCursor<R, H> {
    pub(super) fn new(contents: H, range: KeyRange<R::Key>, direction: Direction) -> Self {
        let cursor = Cursor::new(&contents, range, direction, contents.store.len());
        Self { contents, cursor }
    }
}

impl<R: Record, H: Deref<Target = Contents<R>>> Source<R> for MemCursor<R, H> {
    #[inline]
    fn load(&mut self) -> Result<Option<u64>, TableError> {
        Ok(self.cursor.load(&self.contents))
    }

    #[inline]
    fn entry(&self) -> Entry<&R> {
        self.contents.entry(self.cursor.head())
    }

    #[inline]
    fn advance(&mut self) {
        self.cursor.advance();
    }

    fn prefetch(&mut self) {
        self.cursor.prefetch(&self.contents);
    }
}

impl<R: Record, H> fmt::Debug for MemCursor<R, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemCursor").finish_non_exhaustive()
    }
}

/// The runs of a cursor with the contents that they are of.
struct Among<'a, R: Record> {
    contents: &'a Contents<R>,
    runs: &'a mut [RunCursor<R>],
}

#[expect(clippy::indexing_slicing, reason = "per value; a contest knows no other inputs than the runs")]
impl<R: Record> Sources<R> for Among<'_, R> {
    fn count(&self) -> usize {
        self.runs.len()
    }

    #[inline]
    fn load(&mut self, input: usize) -> Result<Option<u64>, TableError> {
        Ok(self.runs[input].load(self.contents).map(Rank::prefix))
    }

    #[inline]
    fn key(&self, input: usize) -> R::Key {
        self.contents.entry(self.runs[input].head()).value.key()
    }

    fn prefetch(&mut self) {
        self.runs.iter().for_each(|run| run.prefetch(self.contents));
    }
}

/// The part of a run's slots whose keys are in `range`.
fn slots_in_range<R: Record>(
    contents: &Contents<R>,
    slots: Range<u32>,
    range: KeyRange<R::Key>,
) -> Range<u32> {
    match contents.fold {
        // Most of the time; the search is half of what a short scan costs.
        None => search(contents, |slot| contents.store.rank(slot), slots, range),
        Some(_) => search(contents, |slot| contents.rank(slot), slots, range),
    }
}

/// As [`slots_in_range`], with the rank of a slot.
#[inline]
fn search<R: Record>(
    contents: &Contents<R>,
    rank: impl Fn(u32) -> Rank,
    slots: Range<u32>,
    range: KeyRange<R::Key>,
) -> Range<u32> {
    let bound = |within: Range<u32>, key: R::Key, is_inside: fn(Ordering) -> bool| {
        let (mut low, mut high) = (within.start, within.end);
        while low < high {
            let middle = low + (high - low) / 2;
            if is_inside(compare_with(contents, rank(middle), key)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    };
    // Open ends are common.
    let start = if range.min() == R::Key::MIN {
        slots.start
    } else {
        bound(slots.clone(), range.min(), Ordering::is_lt)
    };
    let end = if range.max() == R::Key::MAX {
        slots.end
    } else {
        bound(start..slots.end, range.max(), Ordering::is_le)
    };
    start..end
}

/// Compares the key of a rank with `key`.
#[inline]
fn compare_with<R: Record>(contents: &Contents<R>, rank: Rank, key: R::Key) -> Ordering {
    let prefixes = rank.prefix().cmp(&key.prefix());
    prefixes.then_with(|| contents.store.value(rank.index()).key().cmp(&key))
}

/// A cursor over one run or over the open suffix.
#[derive(Debug)]
struct RunCursor<R> {
    head: Option<Rank>,
    walk: Walk<R>,
}

#[derive(Debug)]
enum Walk<R> {
    Slots(Slots),
    Suffix(Suffix<R>),
}

impl<R: Record> RunCursor<R> {
    #[inline]
    fn head(&self) -> Rank {
        self.head.expect("the caller has loaded a head")
    }

    #[inline]
    fn load(&mut self, contents: &Contents<R>) -> Option<Rank> {
        if self.head.is_none() {
            self.head = match &mut self.walk {
                Walk::Slots(slots) => slots.next(contents),
                Walk::Suffix(suffix) => suffix.next(contents),
            };
        }
        self.head
    }

    fn prefetch(&self, contents: &Contents<R>) {
        if let Walk::Slots(slots) = &self.walk {
            slots.prefetch_first(contents);
        }
    }
}

/// The slots of a run that are still to be given.
#[derive(Debug)]
struct Slots {
    /// Given next, upwards.
    stretch: Range<u32>,
    /// Given after it, downwards; ascending cursors have everything in the stretch.
    below: Range<u32>,
}

impl Slots {
    fn new(slots: Range<u32>, direction: Direction) -> Self {
        let none = slots.start..slots.start;
        match direction {
            Direction::Ascending => Self { stretch: slots, below: none },
            Direction::Descending => Self { stretch: none, below: slots },
        }
    }

    #[inline]
    fn next<R: Record>(&mut self, contents: &Contents<R>) -> Option<Rank> {
        if self.stretch.is_empty() {
            return self.carve(contents);
        }
        let ahead = self.stretch.start + PREFETCH_DISTANCE;
        if ahead < self.stretch.end {
            contents.prefetch(ahead);
        }
        let slot = self.stretch.start;
        self.stretch.start += 1;
        Some(contents.rank(slot))
    }

    /// Makes the slots of the greatest key below the stretch, and gives the first of them; none if there are none.
    #[inline]
    fn carve<R: Record>(&mut self, contents: &Contents<R>) -> Option<Rank> {
        if self.below.is_empty() {
            return None;
        }
        let end = self.below.end;
        let mut start = end - 1;
        if let Some(ahead) = start.checked_sub(PREFETCH_DISTANCE).filter(|ahead| self.below.contains(ahead)) {
            contents.prefetch(ahead);
        }
        let last = contents.rank(start);
        let mut first = last;
        while start > self.below.start {
            let before = contents.rank(start - 1);
            if compare_keys(&contents.store, before.packed(), last.packed()).is_ne() {
                break;
            }
            (first, start) = (before, start - 1);
        }
        self.stretch = start + 1..end;
        self.below.end = start;
        Some(first)
    }

    /// Brings those values nearer that `next` will not prefetch.
    fn prefetch_first<R: Record>(&self, contents: &Contents<R>) {
        let first = self.stretch.clone().take(8);
        let last = self.below.clone().rev().take(8);
        first.chain(last).for_each(|slot| contents.prefetch(slot));
    }
}

/// A copy of the suffix's ranks in range, sorted as far as needed.
#[derive(Debug)]
struct Suffix<R> {
    packed: Vec<u128>,
    sorted: usize,
    next: usize,
    direction: Direction,
    record: core::marker::PhantomData<fn() -> R>,
}

impl<R: Record> Suffix<R> {
    fn new(contents: &Contents<R>, slots: Range<u32>, range: KeyRange<R::Key>, direction: Direction) -> Self {
        let is_inside = |rank: &Rank| {
            compare_with(contents, *rank, range.min()).is_ge()
                && compare_with(contents, *rank, range.max()).is_le()
        };
        let packed = slots.map(|slot| contents.rank(slot)).filter(is_inside).map(Rank::packed).collect();
        Self { packed, sorted: 0, next: 0, direction, record: core::marker::PhantomData }
    }

    #[inline]
    fn next(&mut self, contents: &Contents<R>) -> Option<Rank> {
        if self.next == self.sorted {
            self.sort_more(contents);
        }
        let rank = Rank::from_packed(*self.packed.get(self.next)?);
        self.next += 1;
        Some(rank)
    }

    #[cold]
    fn sort_more(&mut self, contents: &Contents<R>) {
        let direction = self.direction;
        let compare = |a: &u128, b: &u128| {
            let keys = compare_keys(&contents.store, *a, *b);
            let keys = if direction.is_ascending() { keys } else { keys.reverse() };
            keys.then(compare_ages(*a, *b))
        };
        let (_, mut rest) = self.packed.split_at_mut(self.sorted);
        let step = rest.len().min(SORT_STEP_MIN.max(3 * self.sorted));
        if step < rest.len() {
            (rest, ..) = rest.select_nth_unstable_by(step, compare);
        }
        rest.sort_unstable_by(compare);
        self.sorted += step;
    }
}
