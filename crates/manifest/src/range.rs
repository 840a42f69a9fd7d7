//! Bounds and direction of a walk over the tables of a level.
//!
//! # Invariants
//! `min <= max` in every [`KeyRange`]: the only constructors check it.

use core::fmt::Debug;

/// The order in which tables are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Smallest key first.
    Ascending,
    /// Largest key first.
    Descending,
}

/// A range of keys, both bounds inclusive, never empty.
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

    /// The smallest key, inclusive.
    pub const fn min(&self) -> K {
        self.min
    }

    /// The largest key, inclusive.
    pub const fn max(&self) -> K {
        self.max
    }

    /// Whether `key` lies within the bounds.
    pub fn contains(&self, key: K) -> bool {
        self.min <= key && key <= self.max
    }

    /// Whether some key lies in both ranges; ranges that only touch (9 and 10) do not overlap.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.min <= other.max && other.min <= self.max
    }

    /// The smallest range that covers both.
    #[must_use]
    pub fn hull(&self, other: &Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}
