//! What is chosen at open, and how one memory budget is divided.
//!
//! Three generations of memtables and the journal's group buffers come first, because their sizes follow from the
//! file's geometry; what is left is for blocks and pages: most of it for whole blocks (index blocks, inputs and
//! outputs of compactions, scans, filters that stay), a part for single pages that lookups read.

use std::fmt;
use std::sync::Arc;

use understory_forest::TreeSpec;
use understory_format::{Geometry, u64_of, usize_of};
use understory_grid::GridOptions;
use understory_io::Arena;
use understory_journal::Journal;

use crate::Error;
use crate::sequencer::{GROUP_BUFFERS, buffer_size};

/// Memtables of a tree: one takes values, one is flushed, one is kept for scans that were begun before its flush.
const GENERATIONS: u64 = 3;
/// Memory that a memtable takes for each value outside its chunks: slots of the hash index.
const INDEX_SIZE_PER_VALUE: u64 = 20;
/// Of the memory that is not for memtables, the part for single pages, as a divisor.
const PAGE_SHARE: u64 = 4;
/// Blocks that compaction and a few scans hold at once, with level 0 merged: four jobs of two sources, which read four
/// blocks ahead, and a writer, take 56 of them.
const BLOCKS_IN_USE: u32 = 96;
/// What they hold more for each run of level 0 beyond one: a source of each compaction, read ahead, and of each scan.
const BLOCKS_PER_RUN: u32 = 32;
/// Tables that compaction writes at once, each with a filter.
const WRITERS: u32 = 4;
/// Of the blocks beyond what compaction and scans need, the part that filters may take, as a divisor: where memory is
/// short, a block of filters saves more reads than one of records, and the indexes need less than half as much.
const FILTER_SHARE: u32 = 2;
/// The fewest pages that are worth a cache.
const PAGE_COUNT_MIN: u32 = 16;

/// No machine maps more, in bytes.
const MEMORY_MAX: u64 = 1 << 47;

/// How to open or create a [`Database`](crate::Database).
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// Memory for memtables and caches, in bytes.
    pub memory: u64,
    /// Sizes that are fixed when the file is created. At open, a geometry that is given is compared with the
    /// file's.
    pub geometry: Option<Geometry>,
    /// Threads that read and write the file beside the calling one; at least one, else [`Error::OptionTooSmall`].
    pub io_threads: usize,
    /// Threads that compact and take checkpoints beside those that commit. With none, commits do that themselves. What
    /// is written does not depend on it.
    pub workers: usize,
    /// The size that the file may grow to, in bytes. For a new file, none is no limit but the file system's; an old one
    /// keeps the limit that it has, unless one is given here: it is kept in the file from then on, and may be above the
    /// old one (`u64::MAX` for none) or below, but not below the size of the file ([`Error::OptionTooSmall`]).
    pub size_limit: Option<u64>,
    /// Told now and then how far the recovery at open has got.
    pub on_recovery: Option<Arc<dyn Fn(Recovery) + Send + Sync>>,
}

/// How far the recovery of a file at open has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recovery {
    /// The journal is read and checked.
    Checking {
        /// Bytes read.
        bytes: u64,
        /// Bytes to read at most.
        of: u64,
    },
    /// Its ops are applied.
    Replaying {
        /// Ops applied.
        ops: u64,
        /// Ops to apply.
        of: u64,
    },
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("memory", &self.memory)
            .field("geometry", &self.geometry)
            .field("io_threads", &self.io_threads)
            .field("workers", &self.workers)
            .field("size_limit", &self.size_limit)
            .finish_non_exhaustive()
    }
}

impl Default for Options {
    /// 512 MiB, the default geometry, two threads for I/O and two workers, no size limit.
    fn default() -> Self {
        Self {
            memory: 512 << 20,
            geometry: None,
            io_threads: 2,
            workers: 2,
            size_limit: None,
            on_recovery: None,
        }
    }
}

impl Options {
    /// Sets the memory budget, in bytes.
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = bytes;
        self
    }

    /// Sets the geometry of a new file, or the one expected of an old one.
    #[must_use]
    pub fn geometry(mut self, geometry: Geometry) -> Self {
        self.geometry = Some(geometry);
        self
    }

    /// Sets the number of threads that read and write the file.
    #[must_use]
    pub fn io_threads(mut self, threads: usize) -> Self {
        self.io_threads = threads;
        self
    }

    /// Sets the number of threads that compact and take checkpoints.
    #[must_use]
    pub fn workers(mut self, threads: usize) -> Self {
        self.workers = threads;
        self
    }

    /// Sets who is told how far the recovery at open has got.
    #[must_use]
    pub fn on_recovery(mut self, tell: impl Fn(Recovery) + Send + Sync + 'static) -> Self {
        self.on_recovery = Some(Arc::new(tell));
        self
    }

    /// Sets the size that the file may grow to, in bytes.
    #[must_use]
    pub fn size_limit(mut self, bytes: u64) -> Self {
        self.size_limit = Some(bytes);
        self
    }
}

/// The division of a memory budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Chunks that the memtables of all trees draw from; each of the size of a block.
    pub(crate) chunk_count: u32,
    /// Buffers that the journal's groups are built in.
    pub(crate) group_count: u32,
    /// Bytes that the journal takes beside them.
    pub(crate) journal: u64,
    pub(crate) grid: GridOptions,
    /// Of the grid's blocks those that may hold filters of tables.
    pub(crate) filters: u64,
}

impl Budget {
    /// Divides `memory` for trees of these record sizes.
    pub(crate) fn divide(
        memory: u64,
        geometry: &Geometry,
        trees: &[TreeSpec],
        read_only: bool,
    ) -> Result<Self, Error> {
        if memory > MEMORY_MAX {
            return Err(Error::MemoryTooLarge { given: memory });
        }
        let generations = if read_only { 0 } else { GENERATIONS };
        let chunk_count = generations * chunks_per_generation(geometry, trees);
        let index = generations * INDEX_SIZE_PER_VALUE * values_per_generation(geometry, trees);
        let group_count = if read_only { 0 } else { GROUP_BUFFERS };
        let journal = if read_only { 0 } else { journal_size(geometry) };
        let groups = u64::from(group_count) * buffer_size(geometry) + journal;
        let memtables = chunk_count * u64::from(geometry.block_size) + index + groups;
        let filter = trees.iter().map(|tree| tree.filter_blocks_max(geometry)).max().unwrap_or(0);
        let blocks_in_use =
            BLOCKS_IN_USE + BLOCKS_PER_RUN * (u32::from(geometry.runs_max) - 1) + WRITERS * filter;
        let block_count_min = GridOptions::block_count_min().max(blocks_in_use);
        let page_count_min = PAGE_COUNT_MIN;
        let needed = memtables
            + u64::from(block_count_min) * u64::from(geometry.block_size)
            + u64::from(page_count_min) * u64::from(geometry.page_size);
        if memory < needed {
            return Err(Error::MemoryTooSmall { needed, given: memory });
        }
        let rest = memory - memtables;
        let pages = count(rest / PAGE_SHARE, geometry.page_size).max(page_count_min);
        let page_memory = u64::from(pages) * u64::from(geometry.page_size);
        let blocks = count(rest - page_memory.min(rest), geometry.block_size).max(block_count_min);
        let grid = GridOptions { block_count: blocks, page_count: pages, read_only };
        let chunk_count = u32::try_from(chunk_count).unwrap_or(u32::MAX);
        let filters = u64::from((blocks - block_count_min) / FILTER_SHARE);
        Ok(Self { chunk_count, group_count, journal, grid, filters })
    }

    /// Bytes of the arena that holds chunks, blocks and pages; none if no machine has so many.
    pub(crate) fn arena_size(&self, geometry: &Geometry) -> Option<usize> {
        let chunks = Arena::needed(usize_of(geometry.block_size), usize_of(self.chunk_count))?;
        let group_size = usize::try_from(buffer_size(geometry)).ok()?;
        let groups = Arena::needed(group_size, usize_of(self.group_count))?;
        self.grid
            .arena_size(geometry)?
            .checked_add(chunks)?
            .checked_add(groups)?
            .checked_add(usize::try_from(self.journal).ok()?)
    }
}

/// Bytes that the journal takes of the arena; none without one.
fn journal_size(geometry: &Geometry) -> u64 {
    if !geometry.has_journal() {
        return 0;
    }
    Journal::arena_size(geometry).map_or(u64::MAX / 4, u64_of)
}

fn count(memory: u64, size: u32) -> u32 {
    u32::try_from(memory / u64::from(size)).unwrap_or(u32::MAX)
}

/// The most values that one bar puts into memtables: all into the tree of the smallest records.
fn values_per_generation(geometry: &Geometry, trees: &[TreeSpec]) -> u64 {
    trees.iter().map(|tree| tree.values_per_bar(geometry)).max().unwrap_or(0)
}

/// The most chunks that one bar's values fill: those of the tree that fills them fastest, and a partly
/// filled one for each tree.
fn chunks_per_generation(geometry: &Geometry, trees: &[TreeSpec]) -> u64 {
    let fill = |tree: &TreeSpec| tree.values_per_bar(geometry).div_ceil(tree.values_per_chunk(geometry));
    trees.iter().map(fill).max().unwrap_or(0) + u64::try_from(trees.len()).unwrap_or(u64::MAX)
}
