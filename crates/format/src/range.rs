//! Bounds and direction of a read: the words that cursors, levels and scans share.
//!
//! # Invariants
//! `min <= max` in every [`KeyRange`]: the only constructors check it.

use core::fmt::Debug;

/// The order in which keys are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Smallest key first.
    Ascending,
    /// Largest key first.
    Descending,
}

impl Direction {
    /// Whether smaller keys come first.
    #[must_use]
    #[inline]
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
    #[must_use]
    pub fn new(min: K, max: K) -> Option<Self> {
        (min <= max).then_some(Self { min, max })
    }

    /// The smallest key, inclusive.
    #[must_use]
    pub const fn min(&self) -> K {
        self.min
    }

    /// The largest key, inclusive.
    #[must_use]
    pub const fn max(&self) -> K {
        self.max
    }

    /// Whether `key` lies within the bounds.
    #[must_use]
    pub fn contains(&self, key: K) -> bool {
        self.min <= key && key <= self.max
    }

    /// Whether some key lies in both ranges; ranges that only touch (9 and 10) do not overlap.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.min <= other.max && other.min <= self.max
    }

    /// The smallest range that covers both.
    #[must_use]
    pub fn hull(&self, other: &Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}
