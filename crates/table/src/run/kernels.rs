//! Sorting and merging of packed ranks.
//!
//! Both compare prefixes, which are in the ranks, and look further on ties only. What is further differs: a sort
//! of tied ranks fetches the next eight bytes of all their keys and sorts by these, a merge fetches the key of a
//! head when it first ties.
//!
//! # Invariants
//! - The order is (key, newest first), whatever ties (tests of the memtable with keys of one prefix).

use core::cell::Cell;
use core::ops::Range;

use smallvec::SmallVec;
use understory_format::{Key, KeyKind, Record, u32_of};

use super::{Rank, packed_age, packed_key, packed_prefix};
use crate::loser_tree::LoserTree;
use crate::memtable::Store;

/// How far ahead of a head keys are brought nearer, in a stretch of ties.
const PREFETCH_DISTANCE: usize = 8;

/// Eight bytes of a key as an integer in the key's order; the word 0 is its prefix.
fn word_of_key<R: Record>(key: R::Key, word: usize) -> u64 {
    let encoded = key.encode();
    let mut ordered = [0; 32];
    let (mut from, mut to) = (encoded.0.as_slice(), ordered.as_mut_slice());
    for field in R::KEY.fields() {
        let (bytes, bytes_behind) = from.split_at(usize::from(field.size));
        let (place, place_behind) = to.split_at_mut(usize::from(field.size));
        place.copy_from_slice(bytes);
        if field.kind == KeyKind::Uint {
            place.reverse();
        }
        (from, to) = (bytes_behind, place_behind);
    }
    let (words, _) = ordered.as_chunks();
    words.get(word).map_or(0, |bytes| u64::from_le_bytes(*bytes).swap_bytes())
}

/// Sorts packed ranks by key, equal keys newest first.
pub(super) fn sort<R: Record>(store: &Store<R>, ranks: &mut [u128], words: &mut Vec<u128>) {
    ranks.sort_unstable();
    words.clear();
    for tied in ranks.chunk_by_mut(|a, b| packed_prefix(*a) == packed_prefix(*b)) {
        sort_tied(store, tied, 1, words);
    }
}

/// Sorts packed ranks of keys whose words before `word` are equal; they are in order of age.
fn sort_tied<R: Record>(store: &Store<R>, tied: &mut [u128], word: usize, words: &mut Vec<u128>) {
    if tied.len() < 2 || word * size_of::<u64>() >= <R::Key as Key>::SIZE {
        return;
    }
    let base = words.len();
    words.extend(tied.iter().map(|&packed| {
        let word = word_of_key::<R>(packed_key(store, packed), word);
        (u128::from(word) << 32) | u128::from(packed_age(packed))
    }));
    let sorted = words.get_mut(base..).expect("what was pushed");
    sorted.sort_unstable();
    for (packed, word) in tied.iter_mut().zip(sorted) {
        *packed = (*packed >> 32 << 32) | u128::from(packed_age(*word));
    }
    let (mut rest, mut at) = (tied, base);
    while let Some(first) = words.get(at).copied() {
        let same = |other: &&u128| packed_prefix(**other) == packed_prefix(first);
        let count = words.iter().skip(at).take_while(same).count();
        let (tied, behind) = rest.split_at_mut(count);
        at += count;
        sort_tied(store, tied, word + 1, words);
        rest = behind;
    }
    words.truncate(base);
}

/// What is left of one input of a merge.
pub(super) struct Input<'a, R: Record> {
    store: &'a Store<R>,
    /// The head and what lies together with it.
    ranks: &'a [Rank],
    /// Slots behind these.
    rest: Range<u32>,
    /// The key of the head, once it was asked for.
    key: Cell<Option<R::Key>>,
}

impl<'a, R: Record> Input<'a, R> {
    pub(super) fn new(store: &'a Store<R>, slots: Range<u32>) -> Self {
        let mut input = Self { store, ranks: &[], rest: slots, key: Cell::new(None) };
        input.go_on();
        input
    }

    /// Goes on to the ranks of the next chunk.
    #[cold]
    fn go_on(&mut self) {
        if !self.rest.is_empty() {
            self.ranks = self.store.ranks(self.rest.clone());
            self.rest.start += u32_of(self.ranks.len());
        }
    }

    #[inline]
    fn prefix(&self) -> Option<u64> {
        self.ranks.first().map(|rank| rank.prefix())
    }

    /// Key and age of the head, in order; there is one.
    #[inline]
    fn place(&self) -> (R::Key, u32) {
        let rank = self.ranks.first().expect("only heads are compared");
        let key = self.key.get().unwrap_or_else(|| self.store.value(rank.index()).key());
        self.key.set(Some(key));
        (key, !rank.word())
    }

    /// Takes the head.
    #[inline]
    fn pop(&mut self) -> Rank {
        let (&rank, behind) = self.ranks.split_first().expect("a winner has a head");
        if let Some(ahead) = behind.get(PREFETCH_DISTANCE)
            && ahead.prefix() == rank.prefix()
        {
            self.store.prefetch_value(ahead.index());
        }
        (self.ranks, self.key) = (behind, Cell::new(None));
        if self.ranks.is_empty() {
            self.go_on();
        }
        rank
    }
}

/// Merges sorted `inputs` into `out`.
#[expect(clippy::indexing_slicing, reason = "per value; the tree knows no other inputs")]
pub(super) fn merge<R: Record>(inputs: &mut [Input<'_, R>], out: &mut Vec<Rank>) {
    let heads: SmallVec<[Option<u64>; 32]> = inputs.iter().map(Input::prefix).collect();
    let tie = |inputs: &[Input<'_, R>], a: usize, b: usize| inputs[a].place() < inputs[b].place();
    let mut tree = LoserTree::new(&heads, |a, b| tie(inputs, a, b));
    while !tree.winner().is_ended() {
        let winner = tree.winner().input;
        out.push(inputs[winner].pop());
        tree.replay(inputs[winner].prefix(), |a, b| tie(inputs, a, b));
    }
}

#[cfg(test)]
mod tests {
    use understory_format::Key;

    use super::word_of_key;
    use crate::test_rows::{Named, Row, Short, Tied};

    fn check_words<R: Row>() {
        let mut random = fastrand::Rng::with_seed(3);
        let mut last: Option<(R::Key, [u64; 4])> = None;
        for number in (0..200).chain((0..200).map(|_| random.u64(0..1 << 20))) {
            let key = R::key_of(number);
            let words = [0, 1, 2, 3].map(|word| word_of_key::<R>(key, word));
            assert_eq!(words[0], key.prefix());
            if let Some((before, words_before)) = last {
                assert_eq!(key.cmp(&before), words.cmp(&words_before));
            }
            last = Some((key, words));
        }
        assert_eq!(word_of_key::<R>(R::row(7, 1).key(), 4), 0);
    }

    #[test]
    fn words_have_the_order_of_keys() {
        check_words::<Short>();
        check_words::<Tied>();
        check_words::<Named>();
    }
}
