//! A growing set of small integers, one bit each, in words of 64.
//!
//! # Invariants
//! - Equality ignores trailing zero words, so that a set which once was larger equals one which never was
//!   (`equality_ignores_the_room`).
//!
//! # Not here
//! What the bits mean; how sets are written down (`encoding`).

use understory_format::u64_of;

use super::index_of;

/// Bits per word.
pub(super) const WORD_BITS: u64 = 64;

/// A set of integers from 0, stored as bits.
#[derive(Clone, Debug, Default)]
pub(super) struct BitSet {
    words: Vec<u64>,
}

impl BitSet {
    pub(super) fn with_capacity(bits: u64) -> Self {
        Self { words: Vec::with_capacity(index_of(bits.div_ceil(WORD_BITS))) }
    }

    pub(super) fn from_words(words: Vec<u64>) -> Self {
        Self { words }
    }

    /// The words up to the last one that is not zero.
    pub(super) fn words(&self) -> &[u64] {
        let used = self.words.iter().rposition(|&word| word != 0).map_or(0, |last| last + 1);
        self.words.split_at(used).0
    }

    /// The word at `index`; words beyond the room of the set are zero.
    pub(super) fn word(&self, index: usize) -> u64 {
        self.words.get(index).copied().unwrap_or(0)
    }

    pub(super) fn word_count(&self) -> usize {
        self.words.len()
    }

    pub(super) fn contains(&self, bit: u64) -> bool {
        self.word(index_of(bit / WORD_BITS)) & mask(bit) != 0
    }

    /// Sets the bit and says whether it was clear.
    pub(super) fn insert(&mut self, bit: u64) -> bool {
        let index = index_of(bit / WORD_BITS);
        if index >= self.words.len() {
            self.words.resize(index + 1, 0);
        }
        let word = self.words.get_mut(index).expect("the set was grown to this word");
        let was_clear = *word & mask(bit) == 0;
        *word |= mask(bit);
        was_clear
    }

    /// Clears the bit and says whether it was set.
    pub(super) fn remove(&mut self, bit: u64) -> bool {
        let Some(word) = self.words.get_mut(index_of(bit / WORD_BITS)) else { return false };
        let was_set = *word & mask(bit) != 0;
        *word &= !mask(bit);
        was_set
    }

    pub(super) fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    pub(super) fn clear(&mut self) {
        self.words.clear();
    }

    pub(super) fn last(&self) -> Option<u64> {
        let (&word, below) = self.words().split_last()?;
        Some(u64_of(below.len()) * WORD_BITS + u64::from(63 - word.leading_zeros()))
    }

    pub(super) fn insert_all(&mut self, other: &Self) {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        for (word, &more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
    }

    pub(super) fn remove_all(&mut self, other: &Self) {
        for (word, &less) in self.words.iter_mut().zip(&other.words) {
            *word &= !less;
        }
    }

    /// The lowest bit of `self` that `other` does not have.
    pub(super) fn first_outside(&self, other: &Self) -> Option<u64> {
        first(self.words.iter().enumerate().map(|(index, &word)| word & !other.word(index)))
    }

    /// The lowest bit that both have.
    pub(super) fn first_common(&self, other: &Self) -> Option<u64> {
        first(self.words.iter().zip(&other.words).map(|(&a, &b)| a & b))
    }

    /// The lowest clear bit at or above `from`.
    pub(super) fn first_clear(&self, from: u64) -> u64 {
        let mut index = from / WORD_BITS;
        let mut clear = !self.word(index_of(index)) & (u64::MAX << (from % WORD_BITS));
        while clear == 0 {
            index += 1;
            clear = !self.word(index_of(index));
        }
        index * WORD_BITS + u64::from(clear.trailing_zeros())
    }

    /// The lowest bit at or above `from`.
    pub(super) fn first_from(&self, from: u64) -> Option<u64> {
        let start = index_of(from / WORD_BITS);
        let masked = |(index, &word): (usize, &u64)| {
            if index == start { word & (u64::MAX << (from % WORD_BITS)) } else { word }
        };
        let found = first(self.words.iter().enumerate().skip(start).map(masked))?;
        Some(found + u64_of(start) * WORD_BITS)
    }

    /// The position after the `count`-th clear bit at or above `from`; `count` is not zero.
    pub(super) fn after_clear(&self, from: u64, count: u64) -> u64 {
        let mut left = count;
        let mut start = from;
        while index_of(start / WORD_BITS) < self.words.len() {
            let clear = !self.word(index_of(start / WORD_BITS)) & (u64::MAX << (start % WORD_BITS));
            let found = u64::from(clear.count_ones());
            if found >= left {
                return start - start % WORD_BITS + nth_one(clear, left) + 1;
            }
            left -= found;
            start = start - start % WORD_BITS + WORD_BITS;
        }
        start.saturating_add(left)
    }
}

impl PartialEq for BitSet {
    fn eq(&self, other: &Self) -> bool {
        self.words() == other.words()
    }
}

impl Eq for BitSet {}

fn mask(bit: u64) -> u64 {
    1 << (bit % WORD_BITS)
}

/// The position of the `n`-th set bit (from 1) of a word that has at least `n`.
fn nth_one(word: u64, n: u64) -> u64 {
    let mut word = word;
    for _ in 1..n {
        word &= word - 1;
    }
    u64::from(word.trailing_zeros())
}

fn first(words: impl Iterator<Item = u64>) -> Option<u64> {
    let (index, word) = words.enumerate().find(|&(_, word)| word != 0)?;
    Some(u64_of(index) * WORD_BITS + u64::from(word.trailing_zeros()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equality_ignores_the_room() {
        let mut a = BitSet::default();
        let b = BitSet::with_capacity(1000);
        assert!(a.insert(700));
        assert_ne!(a, b);
        assert!(a.remove(700));
        assert_eq!(a, b);
    }

    #[test]
    fn clear_bits_are_found_like_in_a_list() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let mut set = BitSet::default();
            for _ in 0..random.u64(0..400) {
                set.insert(random.u64(0..300));
            }
            let from = random.u64(0..350);
            let count = random.u64(1..200);
            let clear = (from..).filter(|&bit| !set.contains(bit));
            let wanted: Vec<u64> = clear.take(usize::try_from(count).unwrap()).collect();
            assert_eq!(set.first_clear(from), wanted[0]);
            assert_eq!(set.after_clear(from, count), wanted.last().unwrap() + 1);
            assert_eq!(set.first_from(from), (from..400).find(|&bit| set.contains(bit)));
        }
    }
}
