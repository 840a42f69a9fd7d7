//! A tree without its record type: what the forest needs of each tree once per beat.
//!
//! Hot paths (put, get, scan) go to the typed [`Tree`] directly; only the close of a beat, a half-bar or a
//! bar meets trees behind this trait.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use understory_compaction::{Compaction, Job, Limits, Outcome, Plan};
use understory_format::{
    Beat, Corruption, Geometry, Level, Record, TableInfo, TreeDescription, TreeId, Usage, u32_of, u64_of,
    usize_of,
};
use understory_grid::Grid;
use understory_io::Pool;
use understory_table::{FilterBudget, Full, LayoutError, Memtable, Scratch, TableLayout};
use understory_tree::{Publication, Tree, VALUES_PER_BAR_MAX, filter_spare, values_per_bar};

use crate::stats::{Counts, LevelStats, TreeStats};

/// Makes an empty tree.
type Build = fn(&Arc<Grid>, TreeId, &Pool, &Arc<Publication>, &Arc<FilterBudget>) -> Arc<dyn AnyTree>;

/// How one tree is declared: by its record type alone.
#[derive(Clone, Copy)]
pub struct TreeSpec {
    name: &'static str,
    value_size: u32,
    describe: fn(TreeId) -> TreeDescription,
    build: Build,
    layout: fn(&Geometry) -> Result<TableLayout, LayoutError>,
    values_per_chunk: fn(usize) -> usize,
}

impl TreeSpec {
    /// The tree whose records are of type `R`.
    ///
    /// # Panics
    /// Never: what it keeps panics if the records do not fit the geometry of the file, which
    /// [`fits`](Self::fits) tells.
    #[must_use]
    pub fn of<R: Record>() -> Self {
        Self {
            name: R::NAME,
            value_size: u32_of(size_of::<R>()),
            describe: |id| TreeDescription::of::<R>(id, Usage::General),
            build: |grid, id, pool, publication, filters| {
                let layout =
                    TableLayout::new::<R>(grid.geometry()).expect("the caller asked whether it fits");
                let publication = Arc::clone(publication);
                let tree = Tree::<R>::new(Arc::clone(grid), id, layout, pool.clone(), publication);
                Arc::new(tree.holding_filters(Arc::clone(filters)))
            },
            layout: TableLayout::new::<R>,
            values_per_chunk: Memtable::<R>::values_per_chunk,
        }
    }

    /// The tree's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Bytes of one record.
    #[must_use]
    pub fn value_size(&self) -> u32 {
        self.value_size
    }

    /// What the catalogue says of it under this id.
    #[must_use]
    pub fn describe(&self, id: TreeId) -> TreeDescription {
        (self.describe)(id)
    }

    /// Blocks of the filter of a full table; none if the geometry has no filters, or the records do not fit it.
    #[must_use]
    pub fn filter_blocks_max(&self, geometry: &Geometry) -> u32 {
        (self.layout)(geometry).map_or(0, |layout| layout.filter_blocks_max())
    }

    /// Records that a chunk of its memtable holds; two at least in a geometry that the tree fits.
    #[must_use]
    pub fn values_per_chunk(&self, geometry: &Geometry) -> u64 {
        u64_of((self.values_per_chunk)(usize_of(geometry.block_size)))
    }

    /// The most records that a bar can put into it.
    #[must_use]
    pub fn values_per_bar(&self, geometry: &Geometry) -> u64 {
        values_per_bar(geometry, self.value_size)
    }

    /// Whether its records fit the pages of this geometry, the chunks of a memtable, which are blocks, and as
    /// many as a bar may bring a memtable.
    #[must_use]
    pub fn fits(&self, geometry: &Geometry) -> bool {
        (self.layout)(geometry).is_ok()
            && self.values_per_chunk(geometry) >= 2
            && self.values_per_bar(geometry) <= VALUES_PER_BAR_MAX
    }

    pub(crate) fn build(
        &self,
        grid: &Arc<Grid>,
        id: TreeId,
        pool: &Pool,
        publication: &Arc<Publication>,
        filters: &Arc<FilterBudget>,
    ) -> Arc<dyn AnyTree> {
        (self.build)(grid, id, pool, publication, filters)
    }
}

impl fmt::Debug for TreeSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreeSpec").field("name", &self.name).field("value_size", &self.value_size).finish()
    }
}

pub(crate) trait AnyTree: Send + Sync + fmt::Debug {
    fn as_any(&self) -> &dyn Any;
    /// Bytes of a record.
    fn value_size(&self) -> u32;
    /// What it holds, and what of `counts` is about it.
    fn stats(&self, counts: &Counts) -> TreeStats;
    /// Values in all live tables.
    fn table_value_count(&self) -> u64;
    /// Blocks of a live table: values, both copies of the index, filter.
    fn block_count(&self, table: &TableInfo) -> u64;
    /// Live tables, by level and key.
    fn tables(&self) -> Vec<(Level, TableInfo)>;
    /// Values in the mutable and in the immutable memtable.
    fn memtable_counts(&self) -> (u64, u64);
    /// Takes a live table over from the manifest log, at open.
    fn load(&self, level: Level, table: TableInfo) -> Result<(), Corruption>;
    /// Builds the manifest of the tables taken over, and checks the relations between them.
    fn loaded(&self) -> Result<(), Corruption>;
    /// Puts records, and tombstones where their bit is set.
    fn append(&self, values: &[u8], tombstones: Option<&[u8]>) -> Result<(), Full>;
    /// Makes what was put visible to readers.
    fn publish(&self);
    fn close_beat(&self, scratch: &mut Scratch);
    fn swap_memtables(&self);
    /// Freezes what is to be compacted into `target`, for outputs that are visible from `beat` on.
    fn plan(&self, target: Level, beat: Beat, settle: bool) -> Vec<Box<dyn Job>>;
    /// Makes a finished job's tables visible in place of its inputs, and takes their filters.
    fn apply(&self, outcome: &mut Outcome);
    /// Whether the memtables and level 0 are empty, no level exceeds its limit, and none holds tombstones.
    fn is_settled(&self) -> bool;
}

impl<R: Record> AnyTree for Tree<R> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn value_size(&self) -> u32 {
        u32_of(size_of::<R>())
    }

    fn stats(&self, counts: &Counts) -> TreeStats {
        let (mutable_count, immutable_count) = Self::memtable_counts(self);
        let manifest = self.manifest();
        let deepest = manifest.levels().last();
        let levels = manifest.levels().map(|level| level_stats(self, level, deepest == Some(level), counts));
        TreeStats {
            name: R::NAME,
            value_size: u64_of(size_of::<R>()),
            appended: self.appended(),
            mutable_count,
            immutable_count,
            levels: levels.collect(),
        }
    }

    fn table_value_count(&self) -> u64 {
        let manifest = self.manifest();
        manifest.levels().map(|level| manifest.value_count(level)).sum()
    }

    fn block_count(&self, table: &TableInfo) -> u64 {
        2 + u64::from(table.value_block_count) + u64::from(self.layout().filter_blocks(table.value_count))
    }

    fn tables(&self) -> Vec<(Level, TableInfo)> {
        let manifest = self.manifest();
        let live = manifest.tables().filter(|(_, table)| table.is_live());
        live.map(|(level, table)| (level, table.info)).collect()
    }

    fn memtable_counts(&self) -> (u64, u64) {
        Self::memtable_counts(self)
    }

    fn load(&self, level: Level, table: TableInfo) -> Result<(), Corruption> {
        Self::load(self, level, table)
    }

    fn loaded(&self) -> Result<(), Corruption> {
        Self::loaded(self)
    }

    fn append(&self, values: &[u8], tombstones: Option<&[u8]>) -> Result<(), Full> {
        Self::append(self, values, tombstones)
    }

    fn publish(&self) {
        Self::publish(self);
    }

    fn close_beat(&self, scratch: &mut Scratch) {
        Self::close_beat(self, scratch);
    }

    fn swap_memtables(&self) {
        Self::swap_memtables(self);
    }

    fn plan(&self, target: Level, beat: Beat, settle: bool) -> Vec<Box<dyn Job>> {
        let immutable = self.immutable();
        let plans = Plan::of_tree(&self.manifest(), immutable.as_ref(), target, &limits(self, settle));
        let start = |plan| -> Box<dyn Job> {
            let job = Compaction::new(Arc::clone(self.grid()), self.id(), self.layout(), plan, beat);
            match self.filter_budget() {
                Some(budget) => {
                    Box::new(job.holding_filters(Arc::clone(budget), filter_spare(budget, target)))
                }
                None => Box::new(job),
            }
        };
        plans.into_iter().map(start).collect()
    }

    fn apply(&self, outcome: &mut Outcome) {
        Self::apply(self, outcome.is_flush, &outcome.edits, std::mem::take(&mut outcome.filters));
    }

    fn is_settled(&self) -> bool {
        let limits = limits(self, true);
        let manifest = self.manifest();
        let within = |level: Level| {
            manifest.value_count(level) <= limits.drained_to(&manifest, level)
                && manifest.tombstone_count(level) == 0
        };
        let mut drained = manifest.levels().rev().skip(1);
        Self::memtable_counts(self) == (0, 0) && drained.all(within)
    }
}

fn level_stats<R: Record>(tree: &Tree<R>, level: Level, deepest: bool, counts: &Counts) -> LevelStats {
    let (stats, limits) = (tree.level_stats(level), limits(tree, false));
    let blocks = stats.value_block_count + stats.filter_block_count + 2 * stats.table_count;
    LevelStats {
        table_count: stats.table_count,
        value_count: stats.value_count,
        tombstone_count: stats.tombstone_count,
        value_block_count: stats.value_block_count,
        filter_block_count: stats.filter_block_count,
        size: blocks * u64::from(tree.grid().geometry().block_size),
        value_count_max: (!deepest).then(|| limits.level_value_max(level)),
        table_value_count_max: limits.table_value_max,
        compaction: counts.compaction(tree.id(), level),
    }
}

fn limits<R: Record>(tree: &Tree<R>, settle: bool) -> Limits {
    let geometry = tree.grid().geometry();
    let bar_value_max = values_per_bar(geometry, u32_of(size_of::<R>()));
    Limits::new(geometry, tree.layout().value_count_max, bar_value_max, settle)
}
