//! What the forest counted: kept while it works, read beside it.
//!
//! Counters that change once per beat stand behind a lock of their own, which is held for as long as it takes to copy
//! them; the others are atomic. Who reads them waits for nothing that the forest waits for.
//!
//! # Invariants
//! - Of the values that compactions took in, each was written or dropped: asserted at every join of a beat, and of
//!   every compaction that is applied.
//! - Nothing here is ever read by what plans, paces or writes: figures decide nothing.
//!
//! # Not here
//! Blocks, caches and bytes written: the grid counts them. Ops and their latency: the facade.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use understory_compaction::Outcome;
use understory_format::{Beat, Level, TreeId};
use understory_io::{Timer, Timings};
use understory_table::Counts as Values;

/// What compaction did since open, in values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactionStats {
    /// Compactions that read and wrote, and have been applied.
    pub merge_count: u64,
    /// Tables that moved down unread.
    pub move_count: u64,
    /// Values read, those of compactions under way included; always `produced + dropped`.
    pub consumed: u64,
    /// Of these, values written.
    pub produced: u64,
    /// Of these, values left out: overwritten ones, and tombstones with nothing left to hide.
    pub dropped: u64,
    /// Values in tables that moved.
    pub moved: u64,
}

impl CompactionStats {
    fn work(&mut self, values: Values) {
        self.consumed += values.consumed;
        self.produced += values.emitted;
        self.dropped += values.dropped;
    }

    /// The values of `outcome` were counted beat by beat.
    fn apply(&mut self, outcome: &Outcome) {
        assert_eq!(outcome.consumed, outcome.produced + outcome.dropped, "each value is written or dropped");
        match outcome.moved {
            0 => self.merge_count += 1,
            _ => self.move_count += 1,
        }
        self.moved += outcome.moved;
    }
}

impl AddAssign for CompactionStats {
    fn add_assign(&mut self, other: Self) {
        self.merge_count += other.merge_count;
        self.move_count += other.move_count;
        self.consumed += other.consumed;
        self.produced += other.produced;
        self.dropped += other.dropped;
        self.moved += other.moved;
    }
}

/// How far the work of the open half-bar is, and of all since open. All in bytes of values that compactions read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PaceStats {
    /// Compactions and moves that the open half-bar has.
    pub job_count: u64,
    /// What they have to read.
    pub work: u64,
    /// Of that, what was done when the last beat closed.
    pub done: u64,
    /// What is to be done in the open beat: `work - done` spread evenly over the beats left, so that the last leaves
    /// nothing. 0 while the half-bar is not admitted.
    pub quota: u64,
    /// Whether space was asked for, for all that the half-bar may write, and there was none: commits get `OutOfSpace`
    /// until there is.
    pub is_refused: bool,
    /// The sum of the quotas of all beats since open, the open one included.
    pub quota_total: u64,
    /// What was done of them when the last beat closed.
    pub done_total: u64,
}

/// What one tree holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TreeStats {
    /// The tree's name.
    pub name: &'static str,
    /// Size of a record, in bytes.
    pub value_size: u64,
    /// Records put and removed since open, those that were replayed included.
    pub appended: u64,
    /// Values in the memtable that takes new ones, overwritten versions and tombstones included.
    pub mutable_count: u64,
    /// Values in the memtable that waits to be flushed, likewise.
    pub immutable_count: u64,
    /// From level 0 down, empty levels included.
    pub levels: Vec<LevelStats>,
}

/// What one level of one tree holds, and what was compacted into it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LevelStats {
    /// Live tables.
    pub table_count: u64,
    /// Values in them, tombstones included.
    pub value_count: u64,
    /// Tombstones in them.
    pub tombstone_count: u64,
    /// Value blocks in them.
    pub value_block_count: u64,
    /// Blocks of their filters.
    pub filter_block_count: u64,
    /// Bytes that they take of the file: value blocks, filters, and both copies of index blocks.
    pub size: u64,
    /// What the level is drained to in each bar, in values. None for the deepest, which takes what comes.
    pub value_count_max: Option<u64>,
    /// What one table holds at most, in values.
    pub table_value_count_max: u64,
    /// The compactions and moves into this level since open; for level 0 those are the flushes.
    pub compaction: CompactionStats,
}

impl LevelStats {
    /// Values over what the level is drained to: above 1 where more has come since, up to one bar's worth. None for
    /// the deepest level.
    #[must_use]
    pub fn fill(&self) -> Option<f64> {
        self.value_count_max.map(|max| ratio(self.value_count, max))
    }

    /// How full its tables are in the mean, from 0 to 1; 0 if there are none.
    #[must_use]
    pub fn table_fill(&self) -> f64 {
        ratio(self.value_count, self.table_count * self.table_value_count_max)
    }
}

/// What [`Trees::stats`](crate::Trees::stats) gives.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ForestStats {
    /// The beat that is open.
    pub beat: Beat,
    /// By tree id.
    pub trees: Vec<TreeStats>,
    /// Blocks of filters in memory.
    pub filter_blocks_held: u64,
    /// What compaction did in all trees.
    pub compaction: CompactionStats,
    /// How far the work is.
    pub pace: PaceStats,
    /// Closes of beats, and how long they took, waits included.
    pub closes: Timings,
    /// Closes that had to wait until the work of their beat was done.
    pub beat_waits: Timings,
    /// Closes of a half-bar that had to wait until the newest checkpoint was durable.
    pub checkpoint_waits: Timings,
    /// Checkpoints that became durable, and how long each took from when it was begun.
    pub checkpoints: Timings,
}

/// `part / whole`, and 0 of nothing. For people: to 53 bits.
#[must_use]
pub fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { float(part) / float(whole) }
}

#[expect(clippy::as_conversions, reason = "a figure for people: 53 bits are plenty")]
fn float(count: u64) -> f64 {
    count as f64
}

/// The counters, shared by the forest, its workers and who reads them.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    beat: AtomicU64,
    work: Mutex<Work>,
    pub(crate) closes: Timer,
    pub(crate) beat_waits: Timer,
    pub(crate) checkpoint_waits: Timer,
    pub(crate) checkpoints: Timer,
    checkpoints_begun: AtomicU64,
    checkpoints_ended: AtomicU64,
}

#[derive(Debug, Default)]
struct Work {
    pace: PaceStats,
    /// By tree and target level.
    compactions: BTreeMap<(TreeId, Level), CompactionStats>,
}

impl Counts {
    pub(crate) fn set_beat(&self, beat: Beat) {
        self.beat.store(beat.get(), Ordering::Relaxed);
    }

    pub(crate) fn beat(&self) -> Beat {
        Beat::new(self.beat.load(Ordering::Relaxed))
    }

    /// A half-bar was planned.
    pub(crate) fn planned(&self, job_count: u64, work: u64) {
        let pace = &mut self.work.lock().pace;
        let PaceStats { quota_total, done_total, .. } = *pace;
        *pace = PaceStats { job_count, work, quota_total, done_total, ..PaceStats::default() };
    }

    /// There is no space for the half-bar that was planned.
    pub(crate) fn refused(&self) {
        self.work.lock().pace.is_refused = true;
    }

    /// A beat was given its work, of a half-bar that is admitted.
    pub(crate) fn given(&self, quota: u64) {
        let pace = &mut self.work.lock().pace;
        pace.is_refused = false;
        pace.quota = quota;
        pace.quota_total += quota;
    }

    /// A job did its work of a beat.
    pub(crate) fn worked(&self, tree: TreeId, target: Level, value_size: u64, values: Values) {
        assert_eq!(values.consumed, values.emitted + values.dropped, "each value is written or dropped");
        let mut work = self.work.lock();
        work.pace.done += values.consumed * value_size;
        work.pace.done_total += values.consumed * value_size;
        work.compactions.entry((tree, target)).or_default().work(values);
    }

    pub(crate) fn applied(&self, tree: TreeId, target: Level, outcome: &Outcome) {
        self.work.lock().compactions.entry((tree, target)).or_default().apply(outcome);
    }

    pub(crate) fn checkpoint_begun(&self) {
        self.checkpoints_begun.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn checkpoint_ended(&self) {
        self.checkpoints_ended.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn checkpoints_begun(&self) -> u64 {
        self.checkpoints_begun.load(Ordering::Acquire)
    }

    pub(crate) fn checkpoints_ended(&self) -> u64 {
        self.checkpoints_ended.load(Ordering::Acquire)
    }

    /// What was compacted into a level.
    pub(crate) fn compaction(&self, tree: TreeId, target: Level) -> CompactionStats {
        self.work.lock().compactions.get(&(tree, target)).copied().unwrap_or_default()
    }

    /// What was compacted in all, and how far it is.
    pub(crate) fn work(&self) -> (CompactionStats, PaceStats) {
        let work = self.work.lock();
        let mut sum = CompactionStats::default();
        work.compactions.values().for_each(|stats| sum += *stats);
        (sum, work.pace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_of_levels() {
        fn check(values: u64, tables: u64, max: Option<u64>, fill: Option<f64>, table_fill: f64) {
            let level = LevelStats {
                table_count: tables,
                value_count: values,
                tombstone_count: 0,
                value_block_count: tables,
                filter_block_count: 0,
                size: 0,
                value_count_max: max,
                table_value_count_max: 100,
                compaction: CompactionStats::default(),
            };
            assert_eq!((level.fill(), level.table_fill()), (fill, table_fill));
        }
        check(0, 0, Some(800), Some(0.0), 0.0);
        check(200, 4, Some(800), Some(0.25), 0.5);
        check(1600, 16, Some(800), Some(2.0), 1.0);
        check(50, 1, None, None, 0.5);
    }

    #[test]
    fn a_new_half_bar_starts_its_own_figures_and_keeps_the_sums() {
        let counts = Counts::default();
        let (tree, level) = (TreeId::new(1).unwrap(), Level::new(2).unwrap());
        for round in 1..=2 {
            counts.planned(3, 1000);
            let expected = PaceStats { job_count: 3, work: 1000, ..PaceStats::default() };
            let sums =
                PaceStats { quota_total: 600 * (round - 1), done_total: 400 * (round - 1), ..expected };
            assert_eq!(counts.work().1, sums);
            counts.refused();
            assert!(counts.work().1.is_refused);
            counts.given(600);
            counts.worked(tree, level, 4, Values { consumed: 100, emitted: 70, dropped: 30 });
            let (compaction, pace) = counts.work();
            assert_eq!((pace.work, pace.quota, pace.done, pace.is_refused), (1000, 600, 400, false));
            assert_eq!((pace.quota_total, pace.done_total), (600 * round, 400 * round));
            assert_eq!(compaction, counts.compaction(tree, level));
            let CompactionStats { consumed, produced, dropped, .. } = compaction;
            assert_eq!((consumed, produced, dropped), (100 * round, 70 * round, 30 * round));
        }
    }

    #[test]
    #[should_panic(expected = "each value is written or dropped")]
    fn a_value_that_is_neither_written_nor_dropped() {
        let values = Values { consumed: 9, emitted: 4, dropped: 4 };
        Counts::default().worked(TreeId::new(1).unwrap(), Level::new(0).unwrap(), 8, values);
    }
}
