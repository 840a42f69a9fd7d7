//! Bounds and direction of a read: the words that cursors over memtables, runs and levels share.
//!
//! # Invariants
//! `min <= max` in every [`KeyRange`]: the only constructor checks it.

use core::fmt::Debug;

/// The order in which a cursor yields keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Smallest key first.
    Ascending,
    /// Largest key first.
    Descending,
}

impl Direction {
    /// Whether smaller keys come first.
    pub const fn is_ascending(self) -> bool {
        matches!(self, Self::Ascending)
    }
}

/// A range of keys, both bounds inclusive, never empty by its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRange<K> {
    min: K,
    max: K,
}

impl<K: Copy + Ord + Debug> KeyRange<K> {
    /// The range `min..=max`; none if `min > max`.
    pub fn new(min: K, max: K) -> Option<Self> {
        (min <= max).then_some(Self { min, max })
    }

    /// The smallest key of the range, inclusive.
    pub const fn min(&self) -> K {
        self.min
    }

    /// The largest key of the range, inclusive.
    pub const fn max(&self) -> K {
        self.max
    }

    /// Whether `key` lies within the bounds.
    pub fn contains(&self, key: K) -> bool {
        self.min <= key && key <= self.max
    }

    /// Whether the range and `min..=max` have a key in common.
    pub fn overlaps(&self, min: K, max: K) -> bool {
        self.min <= max && min <= self.max
    }
}
