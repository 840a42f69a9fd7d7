//! An ordered read over the disjoint tables of one level, in either direction, with read-ahead.
//!
//! A cursor walks tables, their value blocks, the pages of a block and the values of a page. The values that it
//! offers at a time are the *window*: a slice of the page that the cursor holds, cast once. A window starts small
//! and doubles, so that a short scan touches few cache lines and a long one pays little per window; before a
//! window is offered, the order of its values is checked, so that whoever reads may rely on it.
//!
//! ```text
//! page of the block:  | passed | window: checked, offered | rest: not looked at |      ascending
//!                     | rest: not looked at | window: checked, offered | passed |      descending
//! ```
//!
//! Blocks and indexes further on are read ahead by [`ReadAhead`], also across the end of a table (`walk`). The
//! cursor holds at most [`BLOCKS_HELD_MAX`] blocks.
//!
//! # Invariants
//! - Keys that are given lie in the range and are strictly monotonic in the cursor's direction over all tables; a
//!   block that breaks this gives `Corruption` with its page (tests with forged blocks).
//! - An error changes nothing: the next call tries the same step again.
//!
//! # Not here
//! Which tables a level has: the caller gives them. Merging of levels: [`Merge`](crate::Merge).

use core::fmt;
use core::ops::Range;
use std::sync::Arc;

use understory_format::zerocopy::FromBytes;
use understory_format::{Corruption, Expected, Key, Place, Record, TableInfo, u32_of, usize_of};
use understory_grid::Grid;

use crate::{Direction, Entry, KeyRange, Source, TableError, TableLayout};

mod walk;
mod window;

use walk::{Page, Walk};
pub use window::Values;
use window::{WINDOW_MAX, WINDOW_MIN, is_set};

/// Blocks that a cursor holds at most: the index of its table and of the next, and a value block.
pub const BLOCKS_HELD_MAX: usize = 3;

/// How far a cursor reads ahead, in value blocks beyond the one it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadAhead {
    /// From the first block on; doubles with each block (from 0: to 1).
    pub first: u32,
    /// At most.
    pub max: u32,
}

impl ReadAhead {
    /// Nothing is read that was not asked for.
    pub const NONE: Self = Self { first: 0, max: 0 };
    /// For scans that may end soon.
    pub const SCAN: Self = Self { first: 0, max: 4 };
    /// For readers that will read all of it.
    pub const ALL: Self = Self { first: 4, max: 4 };
}

/// An ordered read over tables of one level.
///
/// `T` gives the tables: disjoint, in the cursor's direction, the first one first. Tables outside the range are
/// passed over without being read.
pub struct LevelCursor<R: Record, T = std::vec::IntoIter<TableInfo>> {
    walk: Walk<R, T>,
    range: KeyRange<R::Key>,
    direction: Direction,
    /// Where the values of the page are in the block that the walk holds.
    page: Page,
    /// Values of the page that were not looked at.
    rest: Range<u32>,
    /// Values of the page that are offered.
    window: Range<u32>,
    /// Length of the next window.
    window_len: u32,
    /// The key last offered.
    edge: Option<R::Key>,
    /// No value behind the window is in the range.
    ended: bool,
    passed: u64,
}

/// The next entry of a [`LevelCursor`] and its key.
pub type Head<'a, R> = (Entry<&'a R>, <R as Record>::Key);

impl<R: Record, T: Iterator<Item = TableInfo>> LevelCursor<R, T> {
    /// A cursor over the values of `tables` in `range`. Nothing is read before the first value is asked for.
    ///
    /// # Panics
    /// If the layout is not that of `R`.
    #[must_use]
    pub fn new(
        grid: Arc<Grid>,
        layout: TableLayout,
        tables: impl IntoIterator<Item = TableInfo, IntoIter = T>,
        range: KeyRange<R::Key>,
        direction: Direction,
        read_ahead: ReadAhead,
    ) -> Self {
        assert!(layout.is_of::<R>(), "the layout of this record");
        Self {
            walk: Walk::new(grid, layout, tables.into_iter(), direction, read_ahead),
            range,
            direction,
            page: Page::default(),
            rest: 0..0,
            window: 0..0,
            window_len: WINDOW_MIN,
            edge: None,
            ended: false,
            passed: 0,
        }
    }

    /// The next entry and its key, or none at the end.
    ///
    /// # Errors
    /// What reading or checking the next block gives; the cursor stays where it is.
    #[inline]
    pub fn peek(&mut self) -> Result<Option<Head<'_, R>>, TableError> {
        if self.window.is_empty() && !self.refill()? {
            return Ok(None);
        }
        let entry = self.entry();
        Ok(Some((entry, entry.value.key())))
    }

    /// The next values as a slice, at least one, or none at the end. [`consume`](Self::consume) goes past them.
    ///
    /// # Errors
    /// As [`peek`](Self::peek).
    #[inline]
    pub fn values(&mut self) -> Result<Option<Values<'_, R>>, TableError> {
        if self.window.is_empty() && !self.refill()? {
            return Ok(None);
        }
        let bitmap = self.page.bitmap.clone().and_then(|bitmap| self.walk.bytes().get(bitmap));
        let tombstones = bitmap.map(|bitmap| (bitmap, self.window.start));
        Ok(Some(Values::new(self.slice(self.window.clone()), tombstones)))
    }

    /// Goes past the next `count` values of the slice that [`values`](Self::values) gives.
    ///
    /// # Panics
    /// If the slice has fewer.
    #[inline]
    pub fn consume(&mut self, count: usize) {
        let count = u32_of(count);
        assert!(count <= u32_of(self.window.len()), "values that were offered");
        match self.direction {
            Direction::Ascending => self.window.start += count,
            Direction::Descending => self.window.end -= count,
        }
        self.passed += u64::from(count);
    }

    /// Goes past the entry that [`peek`](Self::peek) gives.
    ///
    /// # Panics
    /// If there was none, or `peek` was not called since the last step.
    #[inline]
    pub fn advance(&mut self) {
        self.consume(1);
    }

    /// Goes on, in the cursor's direction, to the first entry whose key is `key` or beyond. Does nothing if the
    /// cursor is there already. What lies between is not read; nothing is read before the next value is asked for.
    pub fn seek(&mut self, key: R::Key) {
        let range = match self.direction {
            Direction::Ascending if key <= self.range.min() => return,
            Direction::Ascending => KeyRange::new(key, self.range.max()),
            Direction::Descending if key >= self.range.max() => return,
            Direction::Descending => KeyRange::new(self.range.min(), key),
        };
        match range {
            Some(range) => self.range = range,
            None => return self.end(),
        }
        let is_before = |value: &R| match self.direction {
            Direction::Ascending => value.key() < key,
            Direction::Descending => value.key() <= key,
        };
        let (start, len) = (self.window.start, u32_of(self.window.len()));
        let at = u32_of(self.slice(self.window.clone()).partition_point(is_before));
        let is_inside = match self.direction {
            Direction::Ascending => at < len,
            Direction::Descending => at > 0,
        };
        match self.direction {
            Direction::Ascending => self.window.start = start + at,
            Direction::Descending => self.window.end = start + at,
        }
        if !is_inside {
            self.leave_window(key);
        }
    }

    /// The window holds nothing at or beyond `key`: what is left of the page is searched, or the page is left.
    fn leave_window(&mut self, key: R::Key) {
        self.window = 0..0;
        self.window_len = WINDOW_MIN;
        if self.ended {
            return;
        }
        if self.walk.page_reaches(key) {
            self.position();
        } else {
            self.rest = 0..0;
            self.walk.leave_page();
        }
    }

    /// Cuts what is left of the page to what is not before the range.
    fn position(&mut self) {
        let (start, bound) = (self.rest.start, self.range);
        let values = self.slice(self.rest.clone());
        match self.direction {
            Direction::Ascending => {
                let before = values.partition_point(|value| value.key() < bound.min());
                self.rest.start = start + u32_of(before);
            }
            Direction::Descending => {
                let upto = values.partition_point(|value| value.key() <= bound.max());
                self.rest.end = start + u32_of(upto);
            }
        }
    }

    fn end(&mut self) {
        self.ended = true;
        (self.window, self.rest) = (0..0, 0..0);
    }

    /// Entries that the cursor went past.
    #[must_use]
    pub const fn values_read(&self) -> u64 {
        self.passed
    }

    /// The range that is left to read: [`seek`](Self::seek) narrows it.
    #[must_use]
    pub const fn range(&self) -> KeyRange<R::Key> {
        self.range
    }

    /// The direction of reading.
    #[must_use]
    pub const fn direction(&self) -> Direction {
        self.direction
    }

    #[inline]
    fn slice(&self, range: Range<u32>) -> &[R] {
        let size = size_of::<R>();
        let start = self.page.values + usize_of(range.start) * size;
        let bytes = self.walk.bytes().get(start..start + range.len() * size).unwrap_or_default();
        <[R]>::ref_from_bytes(bytes).expect("a whole number of values without alignment")
    }

    /// Makes the window hold something, if anything is left.
    #[cold]
    fn refill(&mut self) -> Result<bool, TableError> {
        while self.window.is_empty() {
            if self.ended {
                return Ok(false);
            }
            if !self.rest.is_empty() {
                self.open_window()?;
            } else if let Some(page) = self.walk.next_page(&self.range)? {
                self.rest = 0..page.value_count;
                let is_first = page.is_first;
                self.page = page;
                if is_first {
                    self.position();
                }
            } else {
                self.end();
            }
        }
        Ok(true)
    }

    /// Offers the next stretch of the page, checked.
    fn open_window(&mut self) -> Result<(), Corruption> {
        let len = self.window_len.min(u32_of(self.rest.len()));
        let (next, rest) = match self.direction {
            Direction::Ascending => {
                let middle = self.rest.start + len;
                (self.rest.start..middle, middle..self.rest.end)
            }
            Direction::Descending => {
                let middle = self.rest.end - len;
                (middle..self.rest.end, self.rest.start..middle)
            }
        };
        let values = self.slice(next.clone());
        if let Some(index) = window::out_of_order(values, &self.range, self.direction, self.edge) {
            return Err(self.out_of_order(next.start + index));
        }
        let (edge, cut) = window::cut(values, &self.range, self.direction);
        let next = next.start + cut.start..next.start + cut.end;
        self.ended = cut.len() < values.len();
        (self.edge, self.window, self.rest) = (edge, next, rest);
        self.window_len = (2 * len).clamp(WINDOW_MIN, WINDOW_MAX);
        Ok(())
    }

    #[cold]
    fn out_of_order(&self, index: u32) -> Corruption {
        let reference = self.page.reference.expect("a page is held");
        let expected = Expected::Rule("keys that ascend strictly");
        Corruption::new("key", expected, index.into()).at(Place::Page(reference.address, self.page.number))
    }
}

impl<R: Record, T: Iterator<Item = TableInfo>> Source<R> for LevelCursor<R, T> {
    #[inline]
    fn load(&mut self) -> Result<Option<u64>, TableError> {
        if self.window.is_empty() && !self.refill()? {
            return Ok(None);
        }
        Ok(Some(self.entry().value.key().prefix()))
    }

    #[inline]
    fn entry(&self) -> Entry<&R> {
        let index = match self.direction {
            Direction::Ascending => self.window.start,
            Direction::Descending => self.window.end.wrapping_sub(1),
        };
        assert!(self.window.contains(&index), "an entry was loaded");
        let [value] = self.slice(index..index + 1) else { unreachable!("one value was asked for") };
        let bitmap = self.page.bitmap.clone().and_then(|bitmap| self.walk.bytes().get(bitmap));
        Entry { value, tombstone: bitmap.is_some_and(|bitmap| is_set(bitmap, usize_of(index))) }
    }

    #[inline]
    fn advance(&mut self) {
        self.consume(1);
    }

    fn stretch(&self, bound: Option<R::Key>) -> usize {
        if self.page.bitmap.is_some() {
            return 1;
        }
        let values = self.slice(self.window.clone());
        let before = bound.map_or(values.len(), |bound| match self.direction {
            Direction::Ascending => values.partition_point(|value| value.key() < bound),
            Direction::Descending => values.len() - values.partition_point(|value| value.key() <= bound),
        });
        before.max(1)
    }

    fn prefetch(&mut self) {
        if self.window.is_empty() && !self.ended {
            self.walk.prefetch(&self.range);
        }
    }
}

impl<R: Record, T> fmt::Debug for LevelCursor<R, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LevelCursor")
            .field("range", &self.range)
            .field("direction", &self.direction)
            .field("edge", &self.edge)
            .field("passed", &self.passed)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
