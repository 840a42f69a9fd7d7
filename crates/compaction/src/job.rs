//! One compaction as a job that is run in slices: merge a quota of input values, stop, go on later.
//!
//! A slice ends after exactly its quota of consumed input values, wherever that is in a block. What is
//! half done stays in memory until the next slice: the merge with the input blocks it holds, the table
//! writer with its unfinished output block and index. Nothing is read twice.
//!
//! # Invariants
//! - Consumed = produced + dropped, at the end of every slice (asserted by the merge).
//! - Output addresses come from the slice's own reservation, in the order in which blocks fill, so they
//!   depend on the plan, the quotas and the reservations alone; bytes and bounds of tables on the plan alone
//!   (tests: slices of any size give what one slice gives).
//! - Nothing is visible and nothing released before the forest applies the [`Outcome`]: a job that fails
//!   leaves its inputs as they were (tests: a failure of each operation).
//!
//! # Not here
//! Who runs the job, when, and in which order outcomes are applied: the forest.

use std::fmt;
use std::sync::Arc;

use understory_format::{
    Beat, BlockAddress, Corruption, Direction, EditKind, Expected, Key, KeyRange, Level, ManifestEdit,
    Record, TableInfo, TreeId, u64_of,
};
use understory_grid::{Grid, Reservation};
use understory_manifest::Table;
use understory_table::{
    AnySource, Counts, Entry, Filter, FilterBudget, LevelCursor, Merge, ReadAhead, TableError, TableLayout,
    TableWriter, Tombstones, addresses,
};

use crate::plan::{Input, Plan};

/// A compaction without its record type, as the forest schedules it.
pub trait Job: Send + Sync + fmt::Debug {
    /// The tree whose tables it compacts.
    fn tree(&self) -> TreeId;
    /// The level that its outputs go to.
    fn target(&self) -> Level;
    /// Bytes of one value.
    fn value_size(&self) -> u64;
    /// Input values that are not consumed yet.
    fn remaining(&self) -> u64;
    /// What became of those that are: written or dropped, as overwritten or as a tombstone that hides nothing.
    fn counts(&self) -> Counts;
    /// The most addresses that a slice of `quota` values takes from its reservation: the last slice just so
    /// many if nothing is dropped and filters are as large as they may be, others up to
    /// [`table_end_bound`](Self::table_end_bound) fewer.
    fn blocks_bound(&self, quota: u64) -> u64;
    /// How many fewer than [`blocks_bound`](Self::blocks_bound) of all that remains its slices together may reserve: what
    /// ends a table takes.
    fn table_end_bound(&self) -> u64;
    /// The most edits that its outcome has: just so many if nothing is dropped.
    fn edits_bound(&self) -> u64;
    /// Consumes exactly `quota` input values; with the last of them, finishes the last output table.
    ///
    /// # Errors
    /// Damage or failure of what is read or written, inputs that do not hold what their tables say among it.
    /// The job is then of no further use; its inputs are as they were.
    ///
    /// # Panics
    /// If `quota` exceeds [`remaining`](Self::remaining), or the reservation
    /// [`blocks_bound`](Self::blocks_bound).
    fn run(&mut self, quota: u64, reservation: &mut Reservation) -> Result<(), TableError>;
    /// What the finished job changes. Reads the index blocks of its inputs, for the addresses they release.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    ///
    /// # Panics
    /// If input values remain.
    fn finish(self: Box<Self>) -> Result<Outcome, TableError>;
}

/// What a finished compaction changes, to be applied at the end of its half-bar.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Whether it wrote the immutable memtable.
    pub is_flush: bool,
    /// Removes of the inputs, then inserts of the outputs, in key order; for a move, one update.
    pub edits: Vec<ManifestEdit>,
    /// Filters of the outputs that are held in memory, by the address of the index.
    pub filters: Vec<(BlockAddress, Filter)>,
    /// Blocks of the inputs, both copies of their index blocks and their filters included.
    pub released: Vec<BlockAddress>,
    /// Input values, overwritten ones included.
    pub consumed: u64,
    /// Output values.
    pub produced: u64,
    /// Input values that are in no output: overwritten ones, and tombstones that have nothing left to hide.
    pub dropped: u64,
    /// Values of tables that moved as they were.
    pub moved: u64,
}

/// A planned compaction of the tree of `R`.
#[derive(Debug)]
pub struct Compaction<R: Record> {
    grid: Arc<Grid>,
    tree: TreeId,
    layout: TableLayout,
    plan: Plan<R>,
    remaining: u64,
    merge: Merge<R, AnySource<R>>,
    writer: TableWriter<R>,
    counts: Counts,
    /// How many of the plan's cuts the values that were written have passed.
    cuts_passed: usize,
}

/// Addresses that the end of a table at a cut takes beyond those of tables that are full, its filter left out: a value
/// block that is not full, and two copies of an index.
const BLOCKS_PER_TABLE_END: u64 = 3;

impl<R: Record> Compaction<R> {
    /// Prepares what is planned; reads and writes nothing yet. Outputs are visible from `beat` on.
    #[must_use]
    pub fn new(grid: Arc<Grid>, tree: TreeId, layout: &TableLayout, plan: Plan<R>, beat: Beat) -> Self {
        let tombstones = if plan.keep_tombstones { Tombstones::Keep } else { Tombstones::Drop };
        let merge = Merge::new(sources(&grid, layout, &plan), Direction::Ascending, tombstones);
        let writer = TableWriter::new(Arc::clone(&grid), *layout, tree, beat, age(&plan, beat));
        Self {
            grid,
            tree,
            layout: *layout,
            remaining: plan.input_value_count(),
            plan,
            merge,
            writer,
            counts: Counts::default(),
            cuts_passed: 0,
        }
    }

    /// The same, but the filters of its outputs stay in memory where `budget` has room: see [`Outcome::filters`].
    #[must_use]
    pub fn holding_filters(self, budget: Arc<FilterBudget>, spare: u64) -> Self {
        Self { writer: self.writer.holding_filters(budget, spare), ..self }
    }

    /// The edits of a move, which has neither inputs nor outputs.
    fn moved(&self, table: &Table<R::Key>) -> Outcome {
        let edit = ManifestEdit { kind: EditKind::Update, level: self.plan.target, table: table.info };
        Outcome { edits: vec![edit], moved: table.info.value_count, ..Outcome::default() }
    }

    /// The inputs hold more or fewer values than their tables say, under good checksums.
    #[cold]
    fn miscounted(&self) -> Corruption {
        let said = self.plan.input_value_count();
        let expected = Expected::Rule("as many values as the tables of a compaction say");
        Corruption::new("table.value_count", expected, (said - self.remaining).into())
    }
}

impl<R: Record> Job for Compaction<R> {
    fn tree(&self) -> TreeId {
        self.tree
    }

    fn target(&self) -> Level {
        self.plan.target
    }

    fn value_size(&self) -> u64 {
        u64_of(size_of::<R>())
    }

    fn remaining(&self) -> u64 {
        self.remaining
    }

    fn counts(&self) -> Counts {
        self.counts
    }

    fn blocks_bound(&self, quota: u64) -> u64 {
        let cuts_left = u64_of(self.plan.cuts.len() - self.cuts_passed);
        self.writer.blocks_bound(quota) + self.table_end_bound() * cuts_left.min(quota)
    }

    fn table_end_bound(&self) -> u64 {
        BLOCKS_PER_TABLE_END + u64::from(self.layout.filter_blocks_max())
    }

    fn edits_bound(&self) -> u64 {
        if matches!(self.plan.input, Input::Move(_)) {
            return 1;
        }
        // All outputs are full but the last, and those that a cut ends.
        let full = self.plan.input_value_count().div_ceil(self.layout.value_count_max);
        let outputs = full + u64_of(self.plan.cuts.len());
        u64_of(self.plan.replaced().count()) + outputs
    }

    fn run(&mut self, quota: u64, reservation: &mut Reservation) -> Result<(), TableError> {
        assert!(quota <= self.remaining, "a slice is part of what remains");
        let Self { writer, plan, cuts_passed, .. } = self;
        let push = |entry: Entry<&R>| {
            if plan.cuts.get(*cuts_passed).is_some_and(|cut| *cut < entry.value.key()) {
                let behind = plan.cuts.partition_point(|cut| *cut < entry.value.key());
                *cuts_passed = behind;
                writer.finish(reservation)?;
            }
            writer.push(entry.value, entry.tombstone, reservation)
        };
        let Counts { consumed, emitted, dropped } = self.merge.step::<TableError>(quota, push)?.counts;
        self.remaining -= consumed;
        self.counts.consumed += consumed;
        self.counts.emitted += emitted;
        self.counts.dropped += dropped;
        if consumed < quota {
            return Err(self.miscounted().into());
        }
        if self.remaining > 0 {
            return Ok(());
        }
        if !self.merge.is_done()? {
            return Err(self.miscounted().into());
        }
        // The blocks that the cursors hold go back with them.
        self.merge = Merge::new(Vec::new(), Direction::Ascending, Tombstones::Keep);
        self.writer.finish(reservation)
    }

    fn finish(mut self: Box<Self>) -> Result<Outcome, TableError> {
        assert_eq!(self.remaining, 0, "a job is finished when all its input is consumed");
        if let Input::Move(table) = &self.plan.input {
            return Ok(self.moved(table));
        }
        let mut outcome = Outcome {
            is_flush: matches!(self.plan.input, Input::Memtable(_)),
            consumed: self.plan.input_value_count(),
            produced: self.counts.emitted,
            dropped: self.counts.dropped,
            ..Outcome::default()
        };
        for (level, table) in self.plan.replaced() {
            outcome.released.extend(addresses(&self.grid, &self.layout, &table.info)?);
            outcome.edits.push(ManifestEdit { kind: EditKind::Remove, level, table: table.info });
        }
        let inserted = self.writer.take_tables().into_iter();
        let level = self.plan.target;
        outcome.edits.extend(inserted.map(|table| ManifestEdit { kind: EditKind::Insert, level, table }));
        outcome.filters = self.writer.take_filters();
        Ok(outcome)
    }
}

/// The age of the outputs: when the youngest of their values was flushed.
fn age<R: Record>(plan: &Plan<R>, beat: Beat) -> Beat {
    match &plan.input {
        Input::Memtable(_) => beat,
        Input::Move(table) => table.info.age,
        Input::Tables(_) => {
            plan.replaced().map(|(_, table)| table.info.age).max().expect("a compaction of tables has inputs")
        }
    }
}

/// The inputs as sources of a merge, newest first.
fn sources<R: Record>(grid: &Arc<Grid>, layout: &TableLayout, plan: &Plan<R>) -> Vec<AnySource<R>> {
    let all = KeyRange::new(R::Key::MIN, R::Key::MAX).expect("the least key is not above the largest");
    let run = |tables: &Vec<Table<R::Key>>| {
        let infos: Vec<TableInfo> = tables.iter().map(|table| table.info).collect();
        let grid = Arc::clone(grid);
        let cursor = LevelCursor::new(grid, *layout, infos, all, Direction::Ascending, ReadAhead::ALL);
        AnySource::Level(cursor)
    };
    match &plan.input {
        Input::Move(_) => Vec::new(),
        Input::Memtable(sealed) => {
            let newer = AnySource::Sealed(sealed.cursor(all, Direction::Ascending));
            [newer].into_iter().chain(plan.targets.iter().map(run)).collect()
        }
        Input::Tables(sources) => sources.iter().chain(&plan.targets).map(run).collect(),
    }
}
