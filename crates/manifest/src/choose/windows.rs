//! What leaves a level together.
//!
//! On a disjoint level, each table alone. On a level 0 in runs, the tables of all runs over some keys: going from the
//! oldest run to the newest, a table joins the window that it overlaps, or is one of its own. One that overlaps several
//! makes one of them, unless it is *slight*, far smaller than each: a few values over many keys would make the whole
//! level one window, and one compaction. A slight table stays where it is, and with it what is newer and overlaps it.
//!
//! # Invariants
//! - R20: what is in a window takes along all that is older and overlaps it (the plan asserts it).
//! - Windows are disjoint and in key order, and have no gap: each table overlaps another, or is the only one.
//!
//! # Not here
//! Which windows go: `drain`.

use understory_format::{Beat, Direction, Key, KeyRange, Level};

use super::Extent;
use crate::manifest::Manifest;
use crate::run::Run;
use crate::table::Table;

/// A table is slight beside windows each of which has more than so many times its values.
const SLIGHT: u64 = 4;

/// Tables that leave a level together.
#[derive(Clone, Debug)]
pub(super) struct Window<'a, K: Key> {
    pub(super) range: KeyRange<K>,
    pub(super) value_count: u64,
    /// Oldest first.
    pub(super) tables: Vec<&'a Table<K>>,
}

impl<'a, K: Key> Window<'a, K> {
    fn new(table: &'a Table<K>) -> Self {
        Self { range: table.range(), value_count: table.info.value_count, tables: vec![table] }
    }

    pub(super) fn extent(&self) -> Extent<K> {
        Extent { min: self.range.min(), max: self.range.max(), value_count: self.value_count }
    }

    fn join(&mut self, other: Self) {
        self.range = self.range.hull(&other.range);
        self.value_count += other.value_count;
        self.tables.extend(other.tables);
    }
}

impl<K: Key> Manifest<K> {
    /// The windows of a level, which hold `value_count` values at least, if the level does.
    pub(super) fn windows(&self, level: Level, value_count: u64) -> Vec<Window<'_, K>> {
        let usual = windows(self.runs(level), true);
        let held: u64 = usual.iter().map(|window| window.value_count).sum();
        if held < value_count { windows(self.runs(level), false) } else { usual }
    }
}

/// The windows of some runs, newest first, without the slight tables if they are to `leave` these.
pub(super) fn windows<K: Key>(runs: &[Run<K>], leave: bool) -> Vec<Window<'_, K>> {
    let mut windows: Vec<Window<'_, K>> = Vec::new();
    let mut left: Vec<&Table<K>> = Vec::new();
    for table in runs.iter().rev().flat_map(|run| run.iter(Beat::MAX, Direction::Ascending)) {
        let range = table.range();
        let start = windows.partition_point(|window| window.range.max() < range.min());
        let end = windows.partition_point(|window| window.range.min() <= range.max());
        let overlapped = windows.get(start..end).unwrap_or_default();
        let is_slight =
            |window: &Window<'_, K>| table.info.value_count.saturating_mul(SLIGHT) < window.value_count;
        let is_blocked = left.iter().any(|other| other.range().overlaps(&range));
        if leave && (is_blocked || overlapped.len() > 1 && overlapped.iter().all(is_slight)) {
            left.push(table);
            continue;
        }
        let joined = windows.drain(start..end).chain([Window::new(table)]).reduce(|mut joined, window| {
            joined.join(window);
            joined
        });
        windows.splice(start..start, joined);
    }
    windows
}
