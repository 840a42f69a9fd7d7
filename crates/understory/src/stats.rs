//! Figures about a database: plain data, taken at one moment.

use understory_forest::CompactionStats;
use understory_grid::{GridStats, Space};
use understory_io::Counters;
use understory_tree::LevelStats;

/// What [`Database::stats`](crate::Database::stats) gives.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// One entry per tree, in the order of the schema.
    pub trees: Vec<TreeStats>,
    /// The last op: batches committed since the file was made, and calls that move the clock.
    pub op: u64,
    /// Beats closed since the file was made.
    pub beat: u64,
    /// Checkpoints taken since the file was made.
    pub checkpoint_number: u64,
    /// What compaction did since open.
    pub compaction: CompactionStats,
    /// Block cache, page cache and repairs since open.
    pub grid: GridStats,
    /// Blocks of the grid, by state.
    pub space: Space,
    /// Size of a block, in bytes.
    pub block_size: u32,
    /// Reads, writes and syncs of the file since open.
    pub io: Counters,
    /// Size of the file, in bytes.
    pub file_size: u64,
}

/// What one tree holds.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TreeStats {
    /// The tree's name.
    pub name: &'static str,
    /// Size of a record, in bytes.
    pub value_size: u64,
    /// Values in the memtable that takes new ones, overwritten versions and tombstones included.
    pub mutable_count: u64,
    /// Values in the memtable that waits to be flushed, likewise.
    pub immutable_count: u64,
    /// From level 0 down, empty levels included.
    pub levels: Vec<LevelStats>,
}
