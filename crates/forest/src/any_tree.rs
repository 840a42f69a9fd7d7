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
use understory_table::{LayoutError, Memtable, Scratch, TableLayout};
use understory_tree::{LevelStats, Tree, VALUES_PER_BAR_MAX, values_per_bar};

/// How one tree is declared: by its record type alone.
#[derive(Clone, Copy)]
pub struct TreeSpec {
    name: &'static str,
    value_size: u32,
    describe: fn(TreeId) -> TreeDescription,
    build: fn(&Arc<Grid>, TreeId, &Pool) -> Box<dyn AnyTree>,
    layout: fn(&Geometry) -> Result<(), LayoutError>,
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
            build: |grid, id, pool| {
                let layout =
                    TableLayout::new::<R>(grid.geometry()).expect("the caller asked whether it fits");
                Box::new(Tree::<R>::new(Arc::clone(grid), id, layout, pool.clone()))
            },
            layout: |geometry| TableLayout::new::<R>(geometry).map(|_| ()),
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

    pub(crate) fn build(&self, grid: &Arc<Grid>, id: TreeId, pool: &Pool) -> Box<dyn AnyTree> {
        (self.build)(grid, id, pool)
    }
}

impl fmt::Debug for TreeSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreeSpec").field("name", &self.name).field("value_size", &self.value_size).finish()
    }
}

pub(crate) trait AnyTree: Send + Sync + fmt::Debug {
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
    fn id(&self) -> TreeId;
    fn name(&self) -> &'static str;
    fn value_size(&self) -> u64;
    fn level_stats(&self, level: Level) -> LevelStats;
    /// Values in all live tables.
    fn table_value_count(&self) -> u64;
    /// Live tables, by level and key.
    fn tables(&self) -> Box<dyn Iterator<Item = (Level, TableInfo)> + '_>;
    /// Values in the mutable and in the immutable memtable.
    fn memtable_counts(&self) -> (u64, u64);
    /// Takes a live table over from the manifest log, at open.
    fn load(&mut self, level: Level, table: TableInfo) -> Result<(), Corruption>;
    /// Builds the manifest of the tables taken over, and checks the relations between them.
    fn loaded(&mut self) -> Result<(), Corruption>;
    fn close_beat(&mut self, scratch: &mut Scratch);
    fn swap_memtables(&mut self);
    /// Freezes what is to be compacted into `target`, for outputs that are visible from `beat` on.
    fn plan(&self, target: Level, beat: Beat, settle: bool) -> Vec<Box<dyn Job>>;
    /// Makes a finished job's tables visible in place of its inputs.
    fn apply(&mut self, outcome: &Outcome);
    /// Whether the memtables and level 0 are empty and no level exceeds its limit.
    fn is_settled(&self) -> bool;
}

impl<R: Record> AnyTree for Tree<R> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn id(&self) -> TreeId {
        Self::id(self)
    }

    fn name(&self) -> &'static str {
        R::NAME
    }

    fn value_size(&self) -> u64 {
        u64_of(size_of::<R>())
    }

    fn level_stats(&self, level: Level) -> LevelStats {
        Self::level_stats(self, level)
    }

    fn table_value_count(&self) -> u64 {
        self.manifest().levels().map(|level| self.manifest().value_count(level)).sum()
    }

    fn tables(&self) -> Box<dyn Iterator<Item = (Level, TableInfo)> + '_> {
        let live = self.manifest().tables().filter(|(_, table)| table.is_live());
        Box::new(live.map(|(level, table)| (level, table.info)))
    }

    fn memtable_counts(&self) -> (u64, u64) {
        Self::memtable_counts(self)
    }

    fn load(&mut self, level: Level, table: TableInfo) -> Result<(), Corruption> {
        Self::load(self, level, table)
    }

    fn loaded(&mut self) -> Result<(), Corruption> {
        Self::loaded(self)
    }

    fn close_beat(&mut self, scratch: &mut Scratch) {
        Self::close_beat(self, scratch);
    }

    fn swap_memtables(&mut self) {
        Self::swap_memtables(self);
    }

    fn plan(&self, target: Level, beat: Beat, settle: bool) -> Vec<Box<dyn Job>> {
        let plans = Plan::of_tree(self.manifest(), self.immutable(), target, &limits(self, settle));
        let start = |plan| -> Box<dyn Job> {
            Box::new(Compaction::new(Arc::clone(self.grid()), self.id(), self.layout(), plan, beat))
        };
        plans.into_iter().map(start).collect()
    }

    fn apply(&mut self, outcome: &Outcome) {
        Self::apply(self, outcome.is_flush, &outcome.edits);
    }

    fn is_settled(&self) -> bool {
        let limits = limits(self, true);
        let within = |level: Level| self.manifest().value_count(level) <= limits.level_value_max(level);
        let mut drained = self.manifest().levels().rev().skip(1);
        Self::memtable_counts(self) == (0, 0) && drained.all(within)
    }
}

fn limits<R: Record>(tree: &Tree<R>, settle: bool) -> Limits {
    let growth = u64::from(tree.grid().geometry().growth);
    Limits { table_value_max: tree.layout().value_count_max, growth, settle }
}
