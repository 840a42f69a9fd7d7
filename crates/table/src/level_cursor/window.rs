//! A stretch of a page that a cursor offers: its values, their order, and where the range ends in it.
//!
//! # Invariants
//! - Pure functions of the values and the range: nothing here is read or kept.
//!
//! # Not here
//! Which stretch comes next: the cursor.

use core::ops::Range;

use understory_format::{Record, u32_of, usize_of};

use crate::{Direction, KeyRange};

/// Values of the first window; each further one is twice as long.
pub(super) const WINDOW_MIN: u32 = 8;
/// Values of a window at most: few, so that what the check brought into the cache is there when the values are read (a
/// third of the time of a long scan, against 256).
pub(super) const WINDOW_MAX: u32 = 24;

/// The next values of a [`LevelCursor`](super::LevelCursor), in one slice.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a, R> {
    /// The values in ascending order of keys; a descending cursor gives the last one first.
    pub values: &'a [R],
    /// Bitmap of the page and index of the first value in it, if its block has tombstones.
    tombstones: Option<(&'a [u8], u32)>,
}

impl<'a, R> Values<'a, R> {
    pub(super) const fn new(values: &'a [R], tombstones: Option<(&'a [u8], u32)>) -> Self {
        Self { values, tombstones }
    }

    /// Whether none of the values can be a tombstone.
    #[must_use]
    #[inline]
    pub const fn has_no_tombstones(&self) -> bool {
        self.tombstones.is_none()
    }

    /// Whether value `index` of the slice is a tombstone.
    #[must_use]
    #[inline]
    pub fn is_tombstone(&self, index: usize) -> bool {
        self.tombstones.is_some_and(|(bitmap, first)| is_set(bitmap, usize_of(first) + index))
    }
}

/// Whether a bit of a page's tombstone bitmap is set.
#[inline]
pub(super) fn is_set(bitmap: &[u8], index: usize) -> bool {
    bitmap.get(index / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1)
}

/// The index of a value that is out of order: in the stretch itself, or against where the range begins or `edge`, the
/// key last offered.
pub(super) fn out_of_order<R: Record>(
    values: &[R],
    range: &KeyRange<R::Key>,
    direction: Direction,
    edge: Option<R::Key>,
) -> Option<u32> {
    let mut keys = values.iter().map(Record::key);
    let first = keys.next()?;
    // Without a branch per value: nearly always all of them are in order.
    let (mut before, mut falls) = (first, 0);
    for (index, key) in (1..).zip(keys) {
        if key <= before {
            falls = index;
        }
        before = key;
    }
    let last = before;
    let follows = match direction {
        Direction::Ascending => range.min() <= first && edge.is_none_or(|edge| edge < first),
        Direction::Descending => last <= range.max() && edge.is_none_or(|edge| last < edge),
    };
    (falls > 0 || !follows).then_some(falls)
}

/// The last key of a stretch in the direction of reading, and the part of the stretch that is within the range.
pub(super) fn cut<R: Record>(
    values: &[R],
    range: &KeyRange<R::Key>,
    direction: Direction,
) -> (Option<R::Key>, Range<u32>) {
    let all = u32_of(values.len());
    let (first, last) = (values.first().map(Record::key), values.last().map(Record::key));
    let (min, max) = (range.min(), range.max());
    match direction {
        Direction::Ascending if last.is_some_and(|last| last > max) => {
            (last, 0..u32_of(values.partition_point(|value| value.key() <= max)))
        }
        Direction::Ascending => (last, 0..all),
        Direction::Descending if first.is_some_and(|first| first < min) => {
            (first, u32_of(values.partition_point(|value| value.key() < min))..all)
        }
        Direction::Descending => (first, 0..all),
    }
}
