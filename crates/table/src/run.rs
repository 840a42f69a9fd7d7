//! Index runs: the order of a stretch of a memtable's values, made by sorting and by folding.
//!
//! A [`Rank`] is the prefix of a key together with the index of its value. A *run* is a contiguous stretch of
//! rank slots that hold the ranks of just these values, by key, equal keys newest first. While a beat is open,
//! every [`PART`] values are sorted into a run of their own, a *part*, so that readers of an open beat find
//! little that is unsorted. Closing the beat sorts the rest and merges the parts into one run. Such runs are
//! folded like a counter in base [`FAN_IN`]: six runs of one order become one of the next, all that fold at a
//! close in the same merge as its parts. So with the default 32 beats in a bar, a value is merged twice, a
//! close merges the values of six beats at most, and there are nine runs at most. Folding keeps every version
//! of a key; arrival order is age.
//!
//! Sorting and merging compare a `u64` prefix and look further on ties only. A stretch of equal prefixes is
//! sorted by the next eight bytes of the keys, and so on; a merge looks up the key of a head once.
//!
//! # Invariants
//! - Runs and then parts follow one another without a gap from slot 0 on; the orders of runs never rise from
//!   old to new ([`Runs::verify`]).
//! - After `n` closes there are as many runs as the digits of `n` in base 6 add up to: 9 at most up to 32
//!   closes, 15 up to 256 (tested).
//! - A stretch of slots holds a permutation of its own values (`Contents::verify`).
//!
//! # Not here
//! How ranks are compared: `kernels`. Dropping older versions: [`Merge`](crate::Merge).

mod kernels;

use core::cmp::Ordering;
use core::ops::Range;

use smallvec::SmallVec;
use understory_format::{Key, Record, u32_of, usize_of};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::memtable::Store;
use kernels::{Input, merge, sort};

/// Runs of one order that become one of the next.
pub(crate) const FAN_IN: usize = 6;

/// Values of an open beat that are sorted together: their ranks fit the first-level cache.
pub(crate) const PART: u32 = 1024;

/// The prefix of a key, the index of its value and its tombstone mark.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Rank {
    prefix: U64,
    word: U32,
}

impl Rank {
    pub(crate) fn new(prefix: u64, index: u32, tombstone: bool) -> Self {
        Self { prefix: U64::new(prefix), word: U32::new((index << 1) | u32::from(tombstone)) }
    }

    #[inline]
    pub(crate) fn prefix(self) -> u64 {
        self.prefix.get()
    }

    /// Index and tombstone mark in one: what the hash index keeps.
    #[inline]
    pub(crate) fn word(self) -> u32 {
        self.word.get()
    }

    #[inline]
    pub(crate) fn index(self) -> u32 {
        index_of_word(self.word())
    }

    #[inline]
    pub(crate) fn is_tombstone(self) -> bool {
        is_tombstone_word(self.word())
    }

    /// As one integer in the order of (prefix, newest first).
    #[inline]
    pub(crate) fn packed(self) -> u128 {
        (u128::from(self.prefix()) << 32) | u128::from(!self.word())
    }

    #[inline]
    pub(crate) fn from_packed(packed: u128) -> Self {
        Self { prefix: U64::new(packed_prefix(packed)), word: U32::new(!packed_age(packed)) }
    }
}

/// The index in a rank's word.
#[inline]
pub(crate) fn index_of_word(word: u32) -> u32 {
    word >> 1
}

/// The tombstone mark in a rank's word.
#[inline]
pub(crate) fn is_tombstone_word(word: u32) -> bool {
    word & 1 == 1
}

#[expect(clippy::as_conversions, clippy::cast_possible_truncation, reason = "a packed rank has 96 bits")]
#[inline]
fn packed_prefix(packed: u128) -> u64 {
    (packed >> 32) as u64
}

/// Smaller is newer.
#[expect(clippy::as_conversions, clippy::cast_possible_truncation, reason = "the low 32 bits are meant")]
#[inline]
fn packed_age(packed: u128) -> u32 {
    packed as u32
}

#[inline]
fn packed_key<R: Record>(store: &Store<R>, packed: u128) -> R::Key {
    store.value(index_of_word(!packed_age(packed))).key()
}

/// Compares two packed ranks by key.
#[inline]
pub(crate) fn compare_keys<R: Record>(store: &Store<R>, a: u128, b: u128) -> Ordering {
    let prefixes = packed_prefix(a).cmp(&packed_prefix(b));
    if prefixes != Ordering::Equal || is_prefix_whole::<R>() {
        return prefixes;
    }
    packed_key(store, a).cmp(&packed_key(store, b))
}

/// Compares two packed ranks by age, the newer first.
#[inline]
pub(crate) fn compare_ages(a: u128, b: u128) -> Ordering {
    packed_age(a).cmp(&packed_age(b))
}

/// Whether equal prefixes mean equal keys.
const fn is_prefix_whole<R: Record>() -> bool {
    <R::Key as Key>::SIZE <= size_of::<u64>()
}

/// Room to merge in, shared by all memtables whose beats are closed one after another.
#[derive(Debug, Default)]
pub struct Scratch {
    ranks: Vec<Rank>,
}

impl Scratch {
    /// Room for memtables of `value_count_max` values, 12 bytes for each. Larger ones work too, but at the cost
    /// of an allocation.
    pub fn new(value_count_max: usize) -> Self {
        Self { ranks: Vec::with_capacity(value_count_max) }
    }

    /// Memory in bytes.
    pub fn size(&self) -> usize {
        self.ranks.capacity() * size_of::<Rank>()
    }
}

/// Room to sort a part in.
#[derive(Debug)]
pub(crate) struct Sorter {
    ranks: Vec<u128>,
    /// Ranks by later words of their keys, the deeper ties on top.
    words: Vec<u128>,
    sorted: Vec<Rank>,
}

impl Sorter {
    pub(crate) fn new() -> Self {
        let part = usize_of(PART);
        Self {
            ranks: Vec::with_capacity(part),
            words: Vec::with_capacity(3 * part),
            sorted: Vec::with_capacity(part),
        }
    }

    /// Sorts the ranks of some slots, beside them; [`sorted`](Self::sorted) has them then.
    pub(crate) fn sort<R: Record>(&mut self, store: &Store<R>, slots: Range<u32>) {
        let Self { ranks, words, sorted } = self;
        ranks.clear();
        ranks.extend(slots.map(|slot| store.rank(slot).packed()));
        sort(store, ranks, words);
        sorted.clear();
        sorted.extend(ranks.iter().map(|packed| Rank::from_packed(*packed)));
    }

    /// What was sorted last.
    pub(crate) fn sorted(&self) -> &[Rank] {
        &self.sorted
    }
}

/// One run.
#[derive(Clone, Copy, Debug)]
struct Run {
    start: u32,
    /// How often its values were folded.
    order: u8,
}

/// Where the runs of a memtable are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runs {
    runs: SmallVec<[Run; 12]>,
    /// Where the open beat begins.
    closed: u32,
    /// Starts of the parts of the open beat.
    parts: Vec<u32>,
    /// Where the unsorted rest begins.
    sorted: u32,
}

/// Starts of runs and parts that are merged.
pub(crate) type Starts = SmallVec<[u32; 32]>;

impl Runs {
    /// Without runs; `value_count_max` values will need no allocation.
    pub(crate) fn new(value_count_max: u32) -> Self {
        let parts = Vec::with_capacity(usize_of(value_count_max / PART) + 1);
        Self { parts, ..Self::default() }
    }

    /// Number of runs of closed beats.
    pub(crate) fn len(&self) -> usize {
        self.runs.len()
    }

    /// The end of the last run; what follows is the open beat.
    pub(crate) fn closed(&self) -> u32 {
        self.closed
    }

    /// The end of the last part; what follows is unsorted.
    pub(crate) fn sorted(&self) -> u32 {
        self.sorted
    }

    /// Slots of each part and each run as (start, end), the newest first.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = (u32, u32)> {
        let starts = self.parts.iter().rev().copied().chain(self.runs.iter().rev().map(|run| run.start));
        starts.scan(self.sorted, |end, start| Some((start, core::mem::replace(end, start))))
    }

    pub(crate) fn clear(&mut self) {
        self.runs.clear();
        self.parts.clear();
        (self.closed, self.sorted) = (0, 0);
    }

    /// The stretch from the last part to `end` is sorted.
    pub(crate) fn add_part(&mut self, end: u32) {
        assert!(self.sorted < end, "a part is not empty");
        self.parts.push(core::mem::replace(&mut self.sorted, end));
    }

    /// How many of the oldest runs a close keeps as they are, and the order of the run that it makes of the others.
    fn kept(&self) -> (usize, u8) {
        let (mut kept, mut order) = (self.runs.len(), 0);
        loop {
            let digit = self.runs.iter().take(kept).rev().take_while(|run| run.order == order).count();
            if digit + 1 < FAN_IN {
                return (kept, order);
            }
            kept -= digit;
            order += 1;
        }
    }

    /// The starts of all that [`close`](Self::close) will make one run of, in order; none if the beat is empty.
    pub(crate) fn closing(&self) -> Starts {
        if self.parts.is_empty() {
            return Starts::new();
        }
        let runs = self.runs.iter().skip(self.kept().0).map(|run| run.start);
        runs.chain(self.parts.iter().copied()).collect()
    }

    /// The parts and the runs that fold with them are one run now.
    pub(crate) fn close(&mut self) {
        let Some(&start) = self.closing().first() else { return };
        let (kept, order) = self.kept();
        self.runs.truncate(kept);
        self.runs.push(Run { start, order });
        self.parts.clear();
        self.closed = self.sorted;
    }

    /// Checks the relations between runs; what they hold is the memtable's to check.
    pub(crate) fn verify(&self) {
        assert!(self.runs.first().is_none_or(|first| first.start == 0));
        assert!(self.runs.is_sorted_by(|old, new| old.start < new.start), "runs are not empty");
        assert!(self.runs.is_sorted_by(|old, new| old.order >= new.order), "older runs were folded more");
        assert!(self.runs.last().map_or(self.closed == 0, |last| last.start < self.closed));
        assert!(self.parts.first().is_none_or(|first| *first == self.closed));
        assert!(self.parts.is_sorted_by(|old, new| old < new), "parts are not empty");
        assert!(self.parts.last().map_or(self.sorted == self.closed, |last| *last < self.sorted));
        let digits = self.runs.chunk_by(|a, b| a.order == b.order);
        digits.for_each(|digit| assert!(digit.len() < FAN_IN, "a full digit is folded"));
    }
}

/// Merges the stretches that begin at `starts`, the last up to `end`, with the room of the scratch. The slots stay as
/// they are. None if it is one stretch or none.
pub(crate) fn fold<R: Record>(
    store: &Store<R>,
    starts: &Starts,
    end: u32,
    scratch: &mut Scratch,
) -> Option<Fold> {
    let [start, _, ..] = *starts.as_slice() else { return None };
    let ends = starts.iter().skip(1).copied().chain([end]);
    let mut inputs: SmallVec<[Input<'_, R>; 32]> =
        starts.iter().zip(ends).map(|(start, end)| Input::new(store, *start..end)).collect();
    let mut ranks = core::mem::take(&mut scratch.ranks);
    ranks.clear();
    merge(&mut inputs, &mut ranks);
    Some(Fold { start, ranks, placed: 0 })
}

/// Folded ranks on their way into the slots, some at a time. Until all are there, readers find them here.
#[derive(Debug)]
pub(crate) struct Fold {
    start: u32,
    ranks: Vec<Rank>,
    /// Number of those that are in their slots.
    placed: usize,
}

impl Fold {
    /// Gives the room back.
    pub(crate) fn give_back(self, scratch: &mut Scratch) {
        assert!(self.placed == self.ranks.len(), "a fold ends when all its ranks are in their slots");
        scratch.ranks = self.ranks;
    }

    /// The rank of a slot that it covers.
    pub(crate) fn rank(&self, slot: u32) -> Option<Rank> {
        self.ranks.get(usize_of(slot.checked_sub(self.start)?)).copied()
    }

    /// Puts up to `count` more into their slots; false when all are there.
    pub(crate) fn place<R: Record>(&mut self, store: &mut Store<R>, count: usize) -> bool {
        let left = self.ranks.get(self.placed..).unwrap_or_default();
        let (now, later) = left.split_at(count.min(left.len()));
        store.set_ranks(self.start + u32_of(self.placed), now);
        let is_left = !later.is_empty();
        self.placed += now.len();
        is_left
    }
}

#[cfg(test)]
mod tests {
    use super::{FAN_IN, Runs};

    /// Closes `n` equal beats of three parts and compares the number of runs with the digits of `n`.
    #[test]
    fn runs_are_the_digits_of_the_number_of_closes() {
        let mut runs = Runs::new(10_000);
        let mut most = 0;
        for n in 1..=256_u32 {
            (0..3).for_each(|part| runs.add_part(n * 10 + part));
            assert_eq!(runs.closing().len() % (FAN_IN - 1), 3 % (FAN_IN - 1));
            runs.close();
            assert!(runs.closing().is_empty(), "an empty beat makes no run");
            let len = runs.len();
            runs.close();
            assert_eq!(runs.len(), len);
            runs.verify();
            let mut digits = 0;
            let mut rest = usize::try_from(n).unwrap();
            while rest > 0 {
                digits += rest % FAN_IN;
                rest /= FAN_IN;
            }
            assert_eq!(runs.len(), digits, "after {n} closes");
            most = most.max(digits);
            assert!(n > 32 || most <= 9, "after {n} closes");
        }
        assert_eq!(most, 15);
    }

    #[test]
    fn runs_and_parts_are_given_newest_first_and_without_gaps() {
        let mut runs = Runs::new(100);
        for end in [3, 4, 9, 20, 21, 30, 31] {
            runs.add_part(end);
            runs.close();
        }
        runs.add_part(40);
        runs.add_part(41);
        runs.verify();
        let given: Vec<_> = runs.newest_first().collect();
        assert_eq!(given, [(40, 41), (31, 40), (30, 31), (0, 30)]);
        assert_eq!((runs.closed(), runs.sorted()), (31, 41));
    }
}
