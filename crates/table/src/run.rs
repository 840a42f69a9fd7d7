//! Index runs: the order of a stretch of a memtable's values, made by sorting and by folding.
//!
//! A [`Rank`] is the prefix of a key together with the index of its value. A *run* is a contiguous stretch of
//! rank slots that hold the ranks of just these values, by key, equal keys newest first. Closing a beat sorts
//! the ranks of the values that came since the last close. Then runs are folded like a counter in base
//! [`FAN_IN`]: four runs of one order become one of the next, all that fold at one close in a single merge.
//! Folding keeps every version of a key; arrival order is age.
//!
//! Sorting and merging compare a `u64` prefix and look at the key itself on ties only. Where ties are many
//! (long common prefixes), sorting first gathers the keys of a tied stretch beside their ranks.
//!
//! # Invariants
//! - Runs follow one another without a gap from slot 0 on, and their orders never rise from old to new
//!   ([`Runs::verify`]).
//! - After `n` closes there are at most as many runs as the digits of `n` in base 4 add up to: 7 up to 32
//!   closes, 12 up to 256 (tested).
//! - A stretch of slots holds a permutation of its own values (model tests of the memtable).

use core::cmp::Ordering;

use smallvec::SmallVec;
use understory_format::{Key, KeyBytes, Record, usize_of};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::loser_tree::LoserTree;
use crate::memtable::Store;

/// Runs of one order that become one of the next.
pub(crate) const FAN_IN: usize = 4;

/// The prefix of a key, the index of its value and its tombstone mark.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Rank {
    prefix: U64,
    word: U32,
}

impl Rank {
    pub(crate) fn new<R: Record>(value: &R, index: u32, tombstone: bool) -> Self {
        let word = (index << 1) | u32::from(tombstone);
        Self { prefix: U64::new(value.key().prefix()), word: U32::new(word) }
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

/// A key beside its packed rank.
#[derive(Clone, Copy, Debug)]
struct Keyed {
    key: KeyBytes,
    age: u32,
}

/// Room to sort and fold in, shared by all memtables that are closed one after another.
#[derive(Debug, Default)]
pub struct Scratch {
    ranks: Vec<u128>,
    keyed: Vec<Keyed>,
}

impl Scratch {
    /// Room for memtables of `value_count_max` values of which `beat_count_max` come in one beat. More would
    /// fit too, but at the cost of an allocation.
    pub fn new(value_count_max: usize, beat_count_max: usize) -> Self {
        Self { ranks: Vec::with_capacity(value_count_max), keyed: Vec::with_capacity(beat_count_max) }
    }

    /// Memory in bytes.
    pub fn size(&self) -> usize {
        self.ranks.capacity() * size_of::<u128>() + self.keyed.capacity() * size_of::<Keyed>()
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
    end: u32,
}

/// Starts of the runs that a close turns into one, the last of them still unsorted.
type Starts = SmallVec<[u32; 16]>;

impl Runs {
    pub(crate) fn len(&self) -> usize {
        self.runs.len()
    }

    /// The end of the last run; what follows is the open suffix.
    pub(crate) fn end(&self) -> u32 {
        self.end
    }

    /// Slots of each run as (start, end), the newest first.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = (u32, u32)> {
        self.runs
            .iter()
            .rev()
            .scan(self.end, |end, run| Some((run.start, core::mem::replace(end, run.start))))
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Adds the stretch from the last run to `end` and folds; none if the stretch is empty.
    fn close(&mut self, end: u32) -> Option<Starts> {
        assert!(self.end <= end, "values are never taken back");
        if self.end == end {
            return None;
        }
        let (mut kept, mut order) = (self.runs.len(), 0);
        loop {
            let digit = self.runs.iter().take(kept).rev().take_while(|run| run.order == order).count();
            if digit + 1 < FAN_IN {
                break;
            }
            kept -= digit;
            order += 1;
        }
        let mut starts: Starts = self.runs.iter().skip(kept).map(|run| run.start).collect();
        starts.push(self.end);
        self.runs.truncate(kept);
        self.runs.push(Run { start: starts.first().copied().unwrap_or(self.end), order });
        self.end = end;
        self.verify();
        Some(starts)
    }

    /// Checks the relations between runs; what they hold is the memtable's to check.
    pub(crate) fn verify(&self) {
        assert!(self.runs.first().is_none_or(|first| first.start == 0));
        assert!(self.runs.is_sorted_by(|old, new| old.start < new.start), "runs are not empty");
        assert!(self.runs.is_sorted_by(|old, new| old.order >= new.order), "older runs were folded more");
        assert!(self.runs.last().is_none_or(|last| last.start < self.end));
        let digits = self.runs.chunk_by(|a, b| a.order == b.order);
        digits.for_each(|digit| assert!(digit.len() < FAN_IN, "a full digit is folded"));
    }
}

/// Sorts the open suffix into a run and folds.
pub(crate) fn close<R: Record>(store: &mut Store<R>, runs: &mut Runs, scratch: &mut Scratch) {
    let suffix = runs.end();
    let end = store.len();
    let Some(starts) = runs.close(end) else { return };
    let start = starts.first().copied().unwrap_or(suffix);
    let Scratch { ranks, keyed } = scratch;
    ranks.clear();
    ranks.extend((start..end).map(|slot| store.rank(slot).packed()));
    let mut rest = ranks.as_mut_slice();
    let mut inputs: SmallVec<[&[u128]; 16]> = SmallVec::new();
    let ends = starts.iter().skip(1).copied().chain([end]);
    for (from, to) in starts.iter().zip(ends) {
        let (run, behind) = rest.split_at_mut(usize_of(to - from));
        if *from == suffix {
            sort(store, run, keyed);
        }
        inputs.push(run);
        rest = behind;
    }
    merge(store, start, &mut inputs);
}

/// Sorts packed ranks by key, equal keys newest first.
fn sort<R: Record>(store: &Store<R>, ranks: &mut [u128], keyed: &mut Vec<Keyed>) {
    ranks.sort_unstable();
    if is_prefix_whole::<R>() {
        return;
    }
    for tied in ranks.chunk_by_mut(|a, b| packed_prefix(*a) == packed_prefix(*b)) {
        if tied.len() > 1 {
            sort_tied(store, tied, keyed);
        }
    }
}

/// Sorts packed ranks of one prefix.
fn sort_tied<R: Record>(store: &Store<R>, tied: &mut [u128], keyed: &mut Vec<Keyed>) {
    keyed.clear();
    keyed.extend(
        tied.iter().map(|&packed| Keyed { key: packed_key(store, packed).encode(), age: packed_age(packed) }),
    );
    keyed.sort_unstable_by(|a, b| {
        let (a_key, b_key) = (R::Key::decode(a.key.get()), R::Key::decode(b.key.get()));
        a_key.cmp(&b_key).then(a.age.cmp(&b.age))
    });
    for (packed, keyed) in tied.iter_mut().zip(keyed) {
        *packed = (*packed >> 32 << 32) | u128::from(keyed.age);
    }
}

/// Merges sorted `inputs` into the slots from `start` on.
#[expect(
    clippy::indexing_slicing,
    reason = "per value; the tree knows no other inputs and asks only for heads"
)]
fn merge<R: Record>(store: &mut Store<R>, start: u32, inputs: &mut [&[u128]]) {
    let heads: SmallVec<[Option<u64>; 16]> =
        inputs.iter().map(|run| run.first().map(|&packed| packed_prefix(packed))).collect();
    let mut tree = LoserTree::new(&heads, |a, b| is_before(store, inputs[a], inputs[b]));
    let mut slot = start;
    while !tree.winner().is_ended() {
        let winner = tree.winner().input;
        let Some((&packed, rest)) = inputs[winner].split_first() else {
            unreachable!("a winner has a head");
        };
        store.set_rank(slot, Rank::from_packed(packed));
        slot += 1;
        inputs[winner] = rest;
        let rank = rest.first().map(|&packed| packed_prefix(packed));
        tree.replay(rank, |a, b| is_before(store, inputs[a], inputs[b]));
    }
}

/// Whether the head of `a` comes before that of `b`; their prefixes are equal.
#[expect(clippy::indexing_slicing, reason = "per tie; both have heads")]
fn is_before<R: Record>(store: &Store<R>, a: &[u128], b: &[u128]) -> bool {
    compare_keys(store, a[0], b[0]).then(compare_ages(a[0], b[0])).is_lt()
}

#[cfg(test)]
mod tests {
    use super::{FAN_IN, Runs};

    /// Closes `n` equal beats and compares the number of runs with the digits of `n`.
    #[test]
    fn runs_are_the_digits_of_the_number_of_closes() {
        let mut runs = Runs::default();
        let mut most = 0;
        for n in 1..=256_u32 {
            assert!(runs.close(n * 10).is_some());
            assert!(runs.close(n * 10).is_none(), "an empty beat makes no run");
            let mut digits = 0;
            let mut rest = usize::try_from(n).unwrap();
            while rest > 0 {
                digits += rest % FAN_IN;
                rest /= FAN_IN;
            }
            assert_eq!(runs.len(), digits, "after {n} closes");
            most = most.max(digits);
            assert!(n > 32 || most <= 7, "after {n} closes");
        }
        assert_eq!(most, 12);
    }

    #[test]
    fn runs_are_given_newest_first_and_without_gaps() {
        let mut runs = Runs::default();
        for end in [3, 4, 9, 20, 21, 30] {
            runs.close(end);
        }
        let given: Vec<_> = runs.newest_first().collect();
        assert_eq!(given, [(21, 30), (20, 21), (0, 20)]);
    }
}
