//! Filters of tables in memory: whether a table can be passed over.
//!
//! A filter in memory is the blocks that it has on disk, held so that the cache does not give them up. How many blocks
//! are held so, all trees together, a [`FilterBudget`] limits; a table whose filter has no room there is looked into.
//!
//! # Invariants
//! - A filter never says that a table lacks a key that was written to it (tests: models, near misses, tombstones).
//! - Nothing about a filter makes a lookup fail: without one the table is read (tests: every flip of a byte).
//! - What is held counts in the budget until it is let go (test).
//!
//! # Not here
//! Which bits a key has: `understory_format::filter`. Who asks which table: `tree`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use understory_format::filter::{LINE_SIZE, line_of, lines_per_block, may_have, place_of};
use understory_format::{BlockKind, Corruption, FilterView, Place, TableInfo, u32_of, u64_of};
use understory_grid::{Block, Grid};
use understory_io::prefetch_line;

use crate::index::Index;
use crate::{TableError, TableLayout};

/// Blocks that filters may hold in memory, all trees together.
#[derive(Debug)]
pub struct FilterBudget {
    limit: u64,
    held: AtomicU64,
}

impl FilterBudget {
    /// Room for `limit` blocks.
    #[must_use]
    pub const fn new(limit: u64) -> Self {
        Self { limit, held: AtomicU64::new(0) }
    }

    /// Blocks that may be held.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// Blocks that are held.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// What is held with so many blocks more, if then `spare` are left.
    fn with(&self, held: u64, blocks: u64, spare: u64) -> Option<u64> {
        held.checked_add(blocks).filter(|held| *held <= self.limit.saturating_sub(spare))
    }

    /// Takes room for `blocks`. False if not so much is left beside `spare`.
    fn take(&self, blocks: u64, spare: u64) -> bool {
        let more = |held| self.with(held, blocks, spare);
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
}

/// The filter of a table, in memory.
pub struct Filter {
    line_count: u32,
    lines_per_block: u32,
    blocks: Vec<Block>,
    budget: Arc<FilterBudget>,
}

impl Filter {
    /// Holds these blocks of a filter, if there is room for them.
    pub(crate) fn hold(
        line_count: u32,
        blocks: Vec<Block>,
        budget: &Arc<FilterBudget>,
        spare: u64,
    ) -> Option<Self> {
        let lines_per_block = lines_per_block(u32_of(blocks.first()?.len()));
        budget.take(u64_of(blocks.len()), spare).then(|| Self {
            line_count,
            lines_per_block,
            blocks,
            budget: Arc::clone(budget),
        })
    }

    /// Reads the filter of a table, if there is room for it in the budget beside `spare` blocks; none if there is not,
    /// or the table has no filter.
    ///
    /// # Errors
    /// If the index or a filter block cannot be read, is damaged, or does not fit the table.
    pub fn read(
        grid: &Grid,
        layout: &TableLayout,
        info: &TableInfo,
        budget: &Arc<FilterBudget>,
        spare: u64,
    ) -> Result<Option<Self>, TableError> {
        let block_count = u64::from(layout.filter_blocks(info.value_count));
        if block_count == 0 || budget.with(budget.held(), block_count, spare).is_none() {
            return Ok(None);
        }
        let index = Index::read(grid, layout, info)?;
        let view = index.view(layout)?;
        let line_count = view.filter_line_count();
        let mut blocks = Vec::with_capacity(view.filter_blocks().len());
        for (number, reference) in (0..).zip(view.filter_blocks()) {
            let block = grid.read(reference?, BlockKind::Filter)?;
            check(&block, info, number, line_count)?;
            blocks.push(block);
        }
        Ok(Self::hold(line_count, blocks, budget, spare))
    }

    /// The line of a key with this hash.
    ///
    /// # Panics
    /// Never: the lines were counted when the filter was taken up.
    #[must_use]
    #[inline]
    pub fn line(&self, hash: u64) -> Line<'_> {
        let (block, at) = place_of(line_of(hash, self.line_count), self.lines_per_block);
        let line = self.blocks.get(block).and_then(|block| block.get(at..)?.first_chunk());
        Line(line.expect("a filter has all its lines"))
    }
}

/// That a block is the part of a table's filter that its index says.
pub(crate) fn check(block: &Block, info: &TableInfo, number: u32, line_count: u32) -> Result<(), Corruption> {
    let fits = FilterView::new(block).and_then(|view| view.check(info.tree, number, line_count));
    fits.map_err(|error| error.at(Place::Block(block.reference().address)))
}

impl Drop for Filter {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(u64_of(self.blocks.len()), Ordering::Relaxed);
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filter")
            .field("line_count", &self.line_count)
            .field("blocks", &self.blocks.len())
            .finish_non_exhaustive()
    }
}

/// The line of a filter that tells of one key.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a>(&'a [u8; LINE_SIZE]);

impl Line<'_> {
    /// Asks for it to be brought into the processor's caches.
    #[inline]
    pub fn prefetch(&self) {
        prefetch_line(self.0);
    }

    /// Whether the table may have a key with the hash that led to this line. False only if it does not.
    #[must_use]
    #[inline]
    pub fn may_have(&self, hash: u64) -> bool {
        may_have(self.0, hash)
    }
}

#[cfg(test)]
mod tests;
