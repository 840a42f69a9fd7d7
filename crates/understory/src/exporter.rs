//! The figures of a database through the facade of the crate `metrics`.
//!
//! Commits know nothing of it: who wants metrics exports the statistics now and then, best right before a scrape.
//! Latencies go to the recorder as histograms, by what was counted since the export before, each as the end of its
//! bucket: a 32nd too long at most.
//!
//! # Not here
//! What the figures mean: [`Stats`](crate::Stats), and `docs/operating.md`, which lists the names.

use std::time::Duration;

use metrics::{Label, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use understory_forest::ratio;

use crate::{CompactionStats, Histogram, LevelStats, Stats, Timings, TreeStats};

/// Exports the figures of one database to the recorder that the crate `metrics` has at that time.
///
/// ```no_run
/// # fn wait_for_a_scrape() {}
/// # fn main() -> Result<(), understory::Error> {
/// # let schema = understory::Schema::new();
/// let database = understory::Database::open("orders.understory", &schema, &Default::default())?;
/// let mut exporter = understory::MetricsExporter::new("orders");
/// loop {
///     exporter.export(&database.stats());
///     wait_for_a_scrape();
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct MetricsExporter {
    database: Label,
    /// What was exported of latencies.
    commits: Histogram,
    commits_beside_checkpoints: Histogram,
}

impl MetricsExporter {
    /// All metrics have the label `database` with this value. Describes them to the recorder.
    #[must_use]
    pub fn new(database: &str) -> Self {
        describe();
        Self {
            database: Label::new("database", database.to_owned()),
            commits: Histogram::default(),
            commits_beside_checkpoints: Histogram::default(),
        }
    }

    /// Exports everything; of latencies, what is new since the last call. `stats` are of one database, each taken after
    /// the one before. After the database was opened anew, counters begin at 0 again, and a new exporter is needed.
    pub fn export(&mut self, stats: &Stats) {
        self.export_latencies("understory_commit_seconds", &stats.commits.since(&self.commits));
        let beside = stats.commits_beside_checkpoints.since(&self.commits_beside_checkpoints);
        self.export_latencies("understory_commit_beside_checkpoint_seconds", &beside);
        self.commits = stats.commits.clone();
        self.commits_beside_checkpoints = stats.commits_beside_checkpoints.clone();
        self.export_clock(stats);
        self.export_timings(stats);
        self.export_sizes(stats);
        self.export_io(stats);
        stats.trees.iter().for_each(|tree| self.export_tree(tree));
    }

    fn labels(&self, own: &[(&'static str, String)]) -> Vec<Label> {
        let own = own.iter().map(|(name, value)| Label::new(*name, value.clone()));
        std::iter::once(self.database.clone()).chain(own).collect()
    }

    /// A count under a name, told apart by one label.
    fn count(&self, name: &'static str, label: &'static str, value: &str, count: u64) {
        counter!(name, self.labels(&[(label, value.to_owned())])).absolute(count);
    }

    fn gauge(&self, name: &'static str, value: f64) {
        gauge!(name, self.labels(&[])).set(value);
    }

    fn export_latencies(&self, name: &'static str, latencies: &Histogram) {
        let histogram = histogram!(name, self.labels(&[]));
        for (latency, count) in latencies.buckets() {
            histogram.record_many(latency.as_secs_f64(), usize::try_from(count).unwrap_or(usize::MAX));
        }
    }

    fn export_clock(&self, stats: &Stats) {
        let counts = [("op", stats.op), ("beat", stats.beat), ("checkpoint", stats.checkpoint_number)];
        for (unit, count) in counts {
            self.count("understory_clock_total", "unit", unit, count);
        }
        let pace = stats.pace;
        for (part, bytes) in [("work", pace.work), ("done", pace.done), ("quota", pace.quota)] {
            let labels = self.labels(&[("part", part.to_owned())]);
            gauge!("understory_half_bar_bytes", labels).set(ratio(bytes, 1));
        }
        self.gauge("understory_half_bar_admitted", f64::from(u8::from(!pace.is_refused)));
    }

    fn export_timings(&self, stats: &Stats) {
        let all = [
            ("wait for a beat", stats.waits.beat),
            ("wait for a checkpoint", stats.waits.checkpoint),
            ("wait for the ring", stats.waits.ring),
            ("close of a beat", stats.closes),
            ("checkpoint", stats.checkpoints),
            ("journal write", stats.journal.writes),
            ("journal sync", stats.journal.syncs),
        ];
        for (what, Timings { count, total, max }) in all {
            self.count("understory_timed_total", "what", what, count);
            self.count("understory_timed_nanoseconds_total", "what", what, nanos(total));
            let labels = self.labels(&[("what", what.to_owned())]);
            gauge!("understory_timed_max_seconds", labels).set(max.as_secs_f64());
        }
    }

    fn export_sizes(&self, stats: &Stats) {
        let written = stats.written();
        let kinds = [
            ("journal", written.journal),
            ("tables", written.tables),
            ("manifest", written.manifest),
            ("trailers", written.trailers),
            ("superblocks", written.superblocks),
        ];
        for (kind, bytes) in kinds {
            self.count("understory_written_bytes_total", "kind", kind, bytes);
        }
        counter!("understory_committed_bytes_total", self.labels(&[])).absolute(stats.committed_size());
        self.gauge("understory_write_amplification", stats.write_amplification());
        self.gauge("understory_space_amplification", stats.space_amplification());
        self.gauge("understory_file_bytes", ratio(stats.file_size, 1));
        self.gauge("understory_allocated_bytes", ratio(stats.allocated_size, 1));
        self.gauge("understory_grid_bytes", ratio(stats.grid_size, 1));
        self.gauge("understory_record_bytes", ratio(stats.record_size(), 1));
        let space = stats.space;
        let states = [("in use", space.acquired - space.released), ("released", space.released)];
        for (state, blocks) in states {
            let labels = self.labels(&[("state", state.to_owned())]);
            gauge!("understory_blocks", labels).set(ratio(blocks, 1));
        }
    }

    fn export_io(&self, stats: &Stats) {
        let (grid, io) = (stats.grid, stats.io);
        let cache = [
            ("block hit", grid.block_hits),
            ("block miss", grid.block_misses),
            ("page hit", grid.page_hits),
            ("page miss", grid.page_misses),
        ];
        for (outcome, count) in cache {
            self.count("understory_cache_total", "outcome", outcome, count);
        }
        self.gauge("understory_filter_blocks_held", ratio(stats.filter_blocks_held, 1));
        let damage =
            [("failed verification", grid.reads_corrupt), ("answered from a twin", grid.twin_fallbacks)];
        for (what, count) in damage {
            self.count("understory_damage_total", "what", what, count);
        }
        let operations = [("read", io.reads), ("write", io.writes), ("sync", io.syncs), ("slow", io.slow)];
        for (operation, count) in operations {
            self.count("understory_io_total", "operation", operation, count);
        }
        for (operation, bytes) in [("read", io.bytes_read), ("write", io.bytes_written)] {
            self.count("understory_io_bytes_total", "operation", operation, bytes);
        }
    }

    fn export_tree(&self, tree: &TreeStats) {
        let name = || ("tree", tree.name.to_owned());
        for (memtable, count) in [("mutable", tree.mutable_count), ("immutable", tree.immutable_count)] {
            let labels = self.labels(&[name(), ("memtable", memtable.to_owned())]);
            gauge!("understory_memtable_values", labels).set(ratio(count, 1));
        }
        for (number, level) in tree.levels.iter().enumerate() {
            self.export_level(&self.labels(&[name(), ("level", number.to_string())]), level);
        }
    }

    fn export_level(&self, labels: &[Label], level: &LevelStats) {
        let gauges = [
            ("understory_level_tables", ratio(level.table_count, 1)),
            ("understory_level_values", ratio(level.value_count, 1)),
            ("understory_level_tombstones", ratio(level.tombstone_count, 1)),
            ("understory_level_bytes", ratio(level.size, 1)),
            ("understory_level_fill", level.fill().unwrap_or(0.0)),
            ("understory_level_table_fill", level.table_fill()),
        ];
        for (name, value) in gauges {
            gauge!(name, labels.to_vec()).set(value);
        }
        let CompactionStats { merge_count, move_count, consumed, produced, dropped, moved, .. } =
            level.compaction;
        let counts = [
            ("understory_compaction_merges_total", merge_count),
            ("understory_compaction_moves_total", move_count),
            ("understory_compaction_read_values_total", consumed),
            ("understory_compaction_written_values_total", produced),
            ("understory_compaction_dropped_values_total", dropped),
            ("understory_compaction_moved_values_total", moved),
        ];
        for (name, count) in counts {
            counter!(name, labels.to_vec()).absolute(count);
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[rustfmt::skip]
fn describe() {
    let histograms = [
        ("understory_commit_seconds", "commits that succeeded, by how long the call took"),
        ("understory_commit_beside_checkpoint_seconds", "of these, those during which a checkpoint was on its way"),
    ];
    histograms.iter().for_each(|(name, text)| describe_histogram!(*name, Unit::Seconds, *text));
    let counters = [
        ("understory_clock_total", Unit::Count, "ops, beats and checkpoints since the file was made"),
        ("understory_timed_total", Unit::Count, "waits and other steps, how often"),
        ("understory_timed_nanoseconds_total", Unit::Nanoseconds, "waits and other steps, how long"),
        ("understory_written_bytes_total", Unit::Bytes, "bytes written to the file, by what they are"),
        ("understory_committed_bytes_total", Unit::Bytes, "bytes of the records put and removed"),
        ("understory_cache_total", Unit::Count, "lookups in the caches"),
        ("understory_damage_total", Unit::Count, "blocks that failed verification, and reads answered from a twin"),
        ("understory_io_total", Unit::Count, "operations of the file, and those that were slow"),
        ("understory_io_bytes_total", Unit::Bytes, "bytes read and written"),
        ("understory_compaction_merges_total", Unit::Count, "compactions into a level"),
        ("understory_compaction_moves_total", Unit::Count, "tables moved into a level as they were"),
        ("understory_compaction_read_values_total", Unit::Count, "values that compactions into a level read"),
        ("understory_compaction_written_values_total", Unit::Count, "values that compactions into a level wrote"),
        ("understory_compaction_dropped_values_total", Unit::Count, "values that compactions into a level left out"),
        ("understory_compaction_moved_values_total", Unit::Count, "values of tables moved into a level"),
    ];
    for (name, unit, text) in counters {
        describe_counter!(name, unit, text);
    }
    let gauges = [
        ("understory_half_bar_bytes", Unit::Bytes, "work of the open half-bar, done of it, and quota of the beat"),
        ("understory_half_bar_admitted", Unit::Count, "0 if there is no space for the open half-bar, else 1"),
        ("understory_timed_max_seconds", Unit::Seconds, "waits and other steps, the longest"),
        ("understory_write_amplification", Unit::Count, "bytes written for each byte committed"),
        ("understory_space_amplification", Unit::Count, "bytes of the grid for each byte of records"),
        ("understory_file_bytes", Unit::Bytes, "size of the file"),
        ("understory_allocated_bytes", Unit::Bytes, "what the file takes of the file system"),
        ("understory_grid_bytes", Unit::Bytes, "the same without superblock and journal"),
        ("understory_record_bytes", Unit::Bytes, "bytes of the records in memtables and tables"),
        ("understory_blocks", Unit::Count, "blocks by state"),
        ("understory_filter_blocks_held", Unit::Count, "blocks of filters in memory"),
        ("understory_memtable_values", Unit::Count, "values in memtables"),
        ("understory_level_tables", Unit::Count, "tables of a level"),
        ("understory_level_values", Unit::Count, "values of a level, tombstones included"),
        ("understory_level_tombstones", Unit::Count, "tombstones of a level"),
        ("understory_level_bytes", Unit::Bytes, "bytes of the file that a level takes"),
        ("understory_level_fill", Unit::Count, "values of a level over its limit; 0 for the deepest"),
        ("understory_level_table_fill", Unit::Count, "how full the tables of a level are, from 0 to 1"),
    ];
    for (name, unit, text) in gauges {
        describe_gauge!(name, unit, text);
    }
}
