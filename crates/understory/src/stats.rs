//! Figures about a database: plain data, taken while it works.
//!
//! Nothing waits for who asks, and who asks waits for nothing that does I/O: the counters are atomic or behind locks
//! that are held for a copy. So the groups of figures are each of one moment, and may be a few ops apart.
//!
//! # Not here
//! What to watch, and what it says: `docs/operating.md`.

use std::fmt;
use std::time::Duration;

use understory_forest::{CompactionStats, LevelStats, PaceStats, TreeStats, ratio};
use understory_grid::{GridStats, Space};
use understory_io::{Counters, Timer, Timings};
use understory_journal::JournalStats;

use crate::Histogram;
use crate::histogram::Recorder;

/// What [`Database::stats`](crate::Database::stats) gives.
///
/// Counts are since the handle was opened, and what was replayed then counts, unless it says otherwise. Its `Display`
/// is a table for people.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// One entry per tree, in the order of the schema.
    pub trees: Vec<TreeStats>,
    /// The last op that reads see: batches committed since the file was made, and calls that move the clock.
    pub op: u64,
    /// Beats closed since the file was made.
    pub beat: u64,
    /// Durable checkpoints since the file was made.
    pub checkpoint_number: u64,
    /// Commits that succeeded, by how long the call took.
    pub commits: Histogram,
    /// Of these, those during which a checkpoint was on its way to the disk.
    pub commits_beside_checkpoints: Histogram,
    /// What commits waited for beyond their own writing.
    pub waits: Waits,
    /// What compaction did in all trees; by tree and level: [`LevelStats::compaction`].
    pub compaction: CompactionStats,
    /// How far the work of the open half-bar is.
    pub pace: PaceStats,
    /// Closes of beats, each by a commit, and how long they took, waits included.
    pub closes: Timings,
    /// Checkpoints that became durable, and how long each took from when it was begun.
    pub checkpoints: Timings,
    /// Writes and syncs of the journal; zero without one.
    pub journal: JournalStats,
    /// Block cache, page cache, blocks written, and repairs.
    pub grid: GridStats,
    /// Blocks of the tables' filters that are in memory; of how many there are: [`LevelStats::filter_block_count`].
    pub filter_blocks_held: u64,
    /// Blocks of the grid now, by state.
    pub space: Space,
    /// Size of a block, in bytes.
    pub block_size: u32,
    /// Reads, writes and syncs of the file since it was opened, and made.
    pub io: Counters,
    /// Size of the file, in bytes.
    pub file_size: u64,
    /// Bytes that it takes of the file system: less than its size where `settle` has made holes.
    pub allocated_size: u64,
    /// Of these, bytes of the grid: all but superblock and journal.
    pub grid_size: u64,
}

/// The waits that push back on commits: how often there was one, and for how long.
///
/// Readers push back on nobody: see [`Error::Expired`](crate::Error::Expired).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waits {
    /// A beat was to be closed and the compaction work of the one before was not done.
    pub beat: Timings,
    /// A half-bar was to be closed and the newest checkpoint was not durable.
    pub checkpoint: Timings,
    /// The journal was full until the newest checkpoint was durable.
    pub ring: Timings,
}

/// Bytes handed over to be written to the file, by what they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// Groups of the journal.
    pub journal: u64,
    /// Value blocks and index blocks of tables.
    pub tables: u64,
    /// The manifest log.
    pub manifest: u64,
    /// Encoded free sets, written by checkpoints.
    pub trailers: u64,
    /// Copies of the superblock.
    pub superblocks: u64,
}

impl Written {
    /// The sum.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.journal + self.tables + self.manifest + self.trailers + self.superblocks
    }
}

impl Stats {
    /// Bytes of the records put and removed since open, by the sizes of whole records.
    #[must_use]
    pub fn committed_size(&self) -> u64 {
        self.trees.iter().map(|tree| tree.appended * tree.value_size).sum()
    }

    /// Bytes written to the file since open. Not the zeros that the journal of a new file is filled with.
    #[must_use]
    pub fn written(&self) -> Written {
        Written {
            journal: self.journal.bytes_written,
            tables: self.grid.value_bytes + self.grid.index_bytes,
            manifest: self.grid.manifest_bytes,
            trailers: self.grid.trailer_bytes,
            superblocks: self.grid.superblock_bytes,
        }
    }

    /// Bytes written since open for each byte of [`committed_size`](Self::committed_size); 0 if nothing was committed.
    /// Compaction follows commits: the figure settles after some bars.
    #[must_use]
    pub fn write_amplification(&self) -> f64 {
        ratio(self.written().total(), self.committed_size())
    }

    /// Bytes of the records in memtables and tables, without tombstones. Overwritten and removed versions count until
    /// a compaction meets them, so that this is what is live or more.
    #[must_use]
    pub fn record_size(&self) -> u64 {
        let values = |tree: &TreeStats| {
            let live = |level: &LevelStats| level.value_count - level.tombstone_count;
            let in_tables: u64 = tree.levels.iter().map(live).sum();
            in_tables + tree.mutable_count + tree.immutable_count
        };
        self.trees.iter().map(|tree| values(tree) * tree.value_size).sum()
    }

    /// Bytes of the grid for each byte of [`record_size`](Self::record_size); 0 if there are no records.
    #[must_use]
    pub fn space_amplification(&self) -> f64 {
        ratio(self.grid_size, self.record_size())
    }
}

/// What the facade itself counts.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) ring_waits: Timer,
    commits: Recorder,
    commits_beside_checkpoints: Recorder,
}

impl Counts {
    pub(crate) fn committed(&self, took: Duration, beside_checkpoint: bool) {
        self.commits.record(took);
        if beside_checkpoint {
            self.commits_beside_checkpoints.record(took);
        }
    }

    /// All commits, and those beside checkpoints.
    pub(crate) fn commits(&self) -> (Histogram, Histogram) {
        (self.commits.get(), self.commits_beside_checkpoints.get())
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "op {}, beat {}, checkpoint {}", self.op, self.beat, self.checkpoint_number)?;
        self.trees.iter().try_for_each(|tree| fmt_tree(f, tree))?;
        self.fmt_work(f)?;
        self.fmt_sizes(f)?;
        fmt_latencies(f, "commits", &self.commits)?;
        fmt_latencies(f, "beside checkpoints", &self.commits_beside_checkpoints)?;
        let Waits { beat, checkpoint, ring } = &self.waits;
        let timed = [
            ("waits for a beat", beat),
            ("waits for a checkpoint", checkpoint),
            ("waits for the ring", ring),
            ("closes of beats", &self.closes),
            ("checkpoints", &self.checkpoints),
            ("journal writes", &self.journal.writes),
            ("journal syncs", &self.journal.syncs),
        ];
        timed.iter().try_for_each(|(name, timings)| fmt_timings(f, name, timings))
    }
}

impl Stats {
    fn fmt_work(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CompactionStats { merge_count, move_count, consumed, produced, dropped, moved, .. } =
            self.compaction;
        writeln!(
            f,
            "compaction: {merge_count} merges of {consumed} values ({produced} written, {dropped} dropped), \
             {move_count} moves of {moved} values"
        )?;
        let PaceStats { job_count, work, done, quota, is_refused, .. } = self.pace;
        let refused = if is_refused { "; NO SPACE for it" } else { "" };
        writeln!(
            f,
            "half-bar: {job_count} jobs, {} of {} done, {} in this beat{refused}",
            mib(done),
            mib(work),
            mib(quota)
        )
    }

    fn fmt_sizes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Written { journal, tables, manifest, trailers, superblocks } = self.written();
        writeln!(
            f,
            "written: {} for {} committed, {:.2} times (journal {}, tables {}, manifest {}, trailers {}, \
             superblocks {})",
            mib(self.written().total()),
            mib(self.committed_size()),
            self.write_amplification(),
            mib(journal),
            mib(tables),
            mib(manifest),
            mib(trailers),
            mib(superblocks),
        )?;
        writeln!(
            f,
            "space: grid {} for {} of records, {:.2} times; {} blocks in use, {} released",
            mib(self.grid_size),
            mib(self.record_size()),
            self.space_amplification(),
            self.space.acquired - self.space.released,
            self.space.released,
        )
    }
}

fn fmt_tree(f: &mut fmt::Formatter<'_>, tree: &TreeStats) -> fmt::Result {
    let TreeStats { name, value_size, mutable_count, immutable_count, levels, .. } = tree;
    writeln!(f, "{name}: records of {value_size} bytes, {mutable_count} + {immutable_count} in memtables")?;
    writeln!(
        f,
        "  level   tables       values   tombstones       size   fill  tables         read      written      \
         dropped        moved"
    )?;
    let is_used =
        |level: &LevelStats| level.table_count > 0 || level.compaction != CompactionStats::default();
    let used = levels.iter().enumerate().filter(|(_, level)| is_used(level));
    for (number, level) in used {
        let fill = level.fill().map_or_else(|| "-".to_owned(), percent);
        let CompactionStats { consumed, produced, dropped, moved, .. } = level.compaction;
        writeln!(
            f,
            "  {:>5} {:>8} {:>12} {:>12} {:>10} {fill:>6} {:>7} {consumed:>12} {produced:>12} {dropped:>12} \
             {moved:>12}",
            format!("L{number}"),
            level.table_count,
            level.value_count,
            level.tombstone_count,
            mib(level.size),
            percent(level.table_fill()),
        )?;
    }
    Ok(())
}

fn fmt_latencies(f: &mut fmt::Formatter<'_>, name: &str, latencies: &Histogram) -> fmt::Result {
    writeln!(
        f,
        "{name:<24} {:>10}  p50 {:.1?}, p99 {:.1?}, p99.9 {:.1?}, max {:.1?}",
        latencies.count(),
        latencies.quantile(0.5),
        latencies.quantile(0.99),
        latencies.quantile(0.999),
        latencies.max(),
    )
}

fn fmt_timings(f: &mut fmt::Formatter<'_>, name: &str, timings: &Timings) -> fmt::Result {
    let Timings { count, total, max } = timings;
    writeln!(f, "{name:<24} {count:>10}  mean {:.1?}, max {max:.1?}, total {total:.1?}", timings.mean())
}

fn percent(part: f64) -> String {
    format!("{:.0}%", part * 100.0)
}

/// In mebibytes.
fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", ratio(bytes, 1 << 20))
}

#[cfg(test)]
mod tests;
