//! What the flush of a memtable takes from level 0, and where its tables end.
//!
//! **Runs.** A flush takes the youngest runs in that are small beside it, as they cost little and would stand in the
//! way of windows; if there would be more runs than there may be, it takes the youngest in any case, and goes on while
//! the next is no larger than what it has: so each value is merged a number of times that grows with the logarithm of
//! the level.
//!
//! **Cuts.** What leaves a level 0 in runs is windows, and they are the smaller the fewer tables lie over two of them.
//! So the tables of a flush end where the windows of older runs do, if that leaves no table too small, and where none
//! are, at even distances, unless they overlap nothing and may so move as they are. How many values lie where, a sample of the memtable tells. Of keys that are as good as any
//! other, those are taken at which a table of level 1 ends: the window then overlaps no part of another's tables.
//!
//! # Invariants
//! - Cuts ascend. By the sample, between two of them are an eighth of a table's values at least.
//!
//! # Not here
//! The merge, and how the tables are ended: `compaction`.

use core::ops::Range;

use understory_format::{Beat, Direction, Key, KeyRange};

use super::windows::windows;
use super::{RUN_SHARE, owned, slice};
use crate::manifest::Manifest;
use crate::run::Run;
use crate::table::Table;

/// Without being too many, a run is merged into a flush of so many times its values.
const SMALL: u64 = 8;

/// Of a table's capacity, what a table of a run has where nothing else decides, as a divisor.
const PIECES: u64 = 2;

/// A memtable that is to be flushed.
#[derive(Clone, Copy, Debug)]
pub struct Flush<'a, K: Key> {
    /// Its least and greatest key.
    pub range: KeyRange<K>,
    /// Its values, all versions counted.
    pub value_count: u64,
    /// Keys of some of its values, evenly spread over them, ascending.
    pub sample: &'a [K],
}

/// What the flush of a memtable takes from level 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlushChoice<K: Key> {
    /// Tables of level 0, run by run, the newest first, each in key order. Of a merged level 0: all that overlap
    /// `range`. Else: all of the youngest runs, or none.
    pub targets: Vec<Vec<Table<K>>>,
    /// The hull of the memtable and the targets.
    pub range: KeyRange<K>,
    /// Keys behind which a table ends, ascending.
    pub cuts: Vec<K>,
    /// Whether tombstones must be written out, because something older may hold what they hide.
    pub keep_tombstones: bool,
}

impl<K: Key> Manifest<K> {
    /// Plans the flush of a memtable into level 0 with tables of at most `table_value_max` values.
    ///
    /// # Panics
    /// If the tree has no levels.
    pub fn plan_flush(&self, flush: &Flush<'_, K>, table_value_max: u64) -> FlushChoice<K> {
        if self.runs_max() > 1 {
            self.flush_run(flush, table_value_max)
        } else {
            self.flush_merged(flush, table_value_max)
        }
    }

    /// The tables that the memtable overlaps, and neighbours small enough to share a table with the result.
    fn flush_merged(&self, flush: &Flush<'_, K>, table_value_max: u64) -> FlushChoice<K> {
        let level = self.top();
        let tables: Vec<&Table<K>> = self.iter(level, Beat::MAX).collect();
        let start = tables.partition_point(|table| table.key_max < flush.range.min());
        let end = tables.partition_point(|table| table.key_min <= flush.range.max());
        let inputs = slice(&tables, widen(&tables, start..end, flush.value_count, table_value_max));
        let range = inputs.iter().fold(flush.range, |hull, table| hull.hull(&table.range()));
        let keep_tombstones = self.must_keep_tombstones(level, range.min(), range.max());
        let targets = if inputs.is_empty() { Vec::new() } else { vec![owned(inputs)] };
        FlushChoice { targets, range, cuts: Vec::new(), keep_tombstones }
    }

    /// The runs that the memtable becomes one with, and the cuts of that.
    fn flush_run(&self, flush: &Flush<'_, K>, table_value_max: u64) -> FlushChoice<K> {
        let runs = self.runs(self.top());
        let (youngest, older) = runs.split_at(merged_runs(runs, self.runs_max(), flush.value_count));
        let targets: Vec<Vec<&Table<K>>> = youngest.iter().map(|run| run.live_tables().collect()).collect();
        let merged = targets.iter().flatten().copied();
        let range = merged.clone().fold(flush.range, |hull, table| hull.hull(&table.range()));
        let oldest = youngest.last().map_or(Beat::MAX, Run::age);
        let keep_tombstones = self.must_keep_in_run(oldest, range.min(), range.max());
        let weights = Weights::new(flush, merged);
        let below = self.levels().nth(1).map_or(&[][..], |level| self.runs(level));
        let cuts = weights.cuts(older, below, table_value_max);
        let targets = targets.iter().map(|tables| owned(tables)).collect();
        FlushChoice { targets, range, cuts, keep_tombstones }
    }
}

/// How many of the runs, newest first, a flush takes in.
fn merged_runs<K: Key>(runs: &[Run<K>], runs_max: u8, value_count: u64) -> usize {
    let live: Vec<u64> = runs.iter().map(|run| run.live().value_count).collect();
    let too_many = live.len() >= usize::from(runs_max);
    let (mut count, mut gathered) = (0, value_count);
    for value_count in live {
        let is_small = value_count.saturating_mul(if too_many { 1 } else { SMALL }) <= gathered;
        if !(is_small || too_many && count == 0) {
            break;
        }
        count += 1;
        gathered = gathered.saturating_add(value_count);
    }
    count
}

/// How many values lie below which key, roughly.
struct Weights<K> {
    /// In the order of keys, with the values up to and with each.
    points: Vec<(K, u64)>,
    total: u64,
}

impl<K: Key> Weights<K> {
    /// Of a memtable, by its sample, and of tables, as if half of their values had the least and half the greatest key.
    fn new<'a>(flush: &Flush<'_, K>, tables: impl Iterator<Item = &'a Table<K>>) -> Self {
        let count = u64::try_from(flush.sample.len()).expect("usize fits into u64").max(1);
        let up_to = |number: u64| u128::from(flush.value_count) * u128::from(number) / u128::from(count);
        let share = |number| u64::try_from(up_to(number + 1) - up_to(number)).expect("a part of a u64");
        let mut points: Vec<(K, u64)> =
            flush.sample.iter().zip(0..).map(|(key, number)| (*key, share(number))).collect();
        for table in tables {
            let half = table.info.value_count / 2;
            points.extend([(table.key_min, half), (table.key_max, table.info.value_count - half)]);
        }
        points.sort_unstable();
        let mut total = 0;
        for (_, weight) in &mut points {
            total += *weight;
            *weight = total;
        }
        Self { points, total }
    }

    /// The values up to and with `key`.
    fn up_to(&self, key: K) -> u64 {
        let count = self.points.partition_point(|(other, _)| *other <= key);
        count.checked_sub(1).and_then(|last| self.points.get(last)).map_or(0, |(_, weight)| *weight)
    }

    /// The first key up to which there are so many values.
    fn key_at(&self, weight: u64) -> Option<K> {
        let index = self.points.partition_point(|(_, other)| *other < weight);
        self.points.get(index).map(|(key, _)| *key)
    }

    /// Whether the values of a part lie where these runs have tables.
    fn overlaps(&self, part: Range<u64>, older: &[Run<K>], below: &[Run<K>]) -> bool {
        let ends = self.key_at(part.start + 1).zip(self.key_at(part.end));
        let Some(range) = ends.and_then(|(min, max)| KeyRange::new(min, max)) else { return false };
        let mut runs = older.iter().chain(below);
        runs.any(|run| run.range(range, Beat::MAX, Direction::Ascending).next().is_some())
    }

    /// Where the tables of a run end, beside these older runs and the level below.
    fn cuts(&self, older: &[Run<K>], below: &[Run<K>], table_value_max: u64) -> Vec<K> {
        let (least, piece) = ((table_value_max / RUN_SHARE).max(1), (table_value_max / PIECES).max(1));
        let below_tables = below.iter().flat_map(Run::live_tables);
        let ends: Vec<(u64, K)> =
            below_tables.map(|table| (self.up_to(table.key_max), table.key_max)).collect();
        let mut cuts = Vec::new();
        let mut last = 0;
        let boundaries = windows(older, true).into_iter().map(|window| Some(window.range.max()));
        for boundary in boundaries.chain([None]) {
            let weight = boundary.map_or(self.total, |key| self.up_to(key));
            let is_cut = weight - last >= least && self.total - weight >= least;
            if boundary.is_some() && !is_cut {
                continue;
            }
            if self.overlaps(last..weight, older, below) {
                self.split(last..weight, piece, &ends, &mut cuts);
            }
            cuts.extend(boundary);
            last = weight;
        }
        cuts
    }

    /// Cuts the values of a piece without windows into parts of about `piece` values.
    fn split(&self, part: Range<u64>, piece: u64, ends: &[(u64, K)], cuts: &mut Vec<K>) {
        let values = part.end - part.start;
        let count = (values + piece / 2) / piece;
        for number in 1..count {
            let ideal = part.start + values / count * number;
            let near = values / count / 4;
            let at = ends.partition_point(|(weight, _)| *weight < ideal);
            let candidates = ends.get(at.saturating_sub(1)..).unwrap_or_default().iter().take(2);
            let end = candidates.min_by_key(|(weight, _)| weight.abs_diff(ideal));
            let end = end.filter(|(weight, _)| weight.abs_diff(ideal) <= near).map(|(_, key)| *key);
            let key = end.or_else(|| self.key_at(ideal));
            let is_next = |key: &K| cuts.last().is_none_or(|last| last < key) && self.up_to(*key) < part.end;
            cuts.extend(key.filter(is_next));
        }
    }
}

/// Adds neighbours to the tables that a flush of `value_count` values meets, as long as result and neighbour
/// fit into one table. A result of several tables can only share its last one, and only roughly: how many
/// values are overwritten is not known before the merge.
fn widen<K: Key>(
    tables: &[&Table<K>],
    inputs: Range<usize>,
    value_count: u64,
    table_value_max: u64,
) -> Range<usize> {
    let Range { mut start, mut end } = inputs;
    let values = |index: usize| tables.get(index).map(|table| table.info.value_count);
    let met: u64 = slice(tables, start..end).iter().map(|table| table.info.value_count).sum();
    let mut total = value_count.saturating_add(met);
    while let Some(left) = start.checked_sub(1).and_then(values)
        && total.saturating_add(left) <= table_value_max
    {
        total += left;
        start -= 1;
    }
    let mut last = match total % table_value_max.max(1) {
        0 if total > 0 => table_value_max,
        rest => rest,
    };
    while let Some(right) = values(end)
        && last.saturating_add(right) <= table_value_max
    {
        last += right;
        end += 1;
    }
    start..end
}
