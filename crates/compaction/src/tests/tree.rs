//! A tree on a simulated file whose tables the model knows by heart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fastrand::Rng;
use understory_format::{
    Beat, BlockAddress, BlockKind, Checksum, Direction, EditKind, Geometry, IndexView, Key, KeyRange, Level,
    ManifestEdit, ManifestRoot, Op, Record, TableInfo, TreeDescription, TreeId, Usage, u64_of, usize_of,
};
use understory_grid::{CheckpointUpdate, FormatState, Grid, GridOptions};
use understory_io::{Arena, Machine, Pool, SimStorage};
use understory_manifest::{Manifest, Table};
use understory_table::{
    LevelCursor, MemWriter, Memtable, ReadAhead, Scratch, Sealed, TableError, TableLayout, TableWriter,
    verify,
};
use understory_testkit::TestRecord;

use crate::{Compaction, Input, Job, Limits, Outcome, Plan};

pub(super) const TREE: TreeId = TreeId::new(5).unwrap();
/// From when on outputs are visible.
pub(super) const VISIBLE: Beat = Beat::new(24);
/// When the tables were written that a test starts with, the first ones if there are several runs.
pub(super) const WRITTEN: Beat = Beat::new(4);

/// Entries in key order: a record, and whether it is a tombstone.
pub(super) type Entries<R> = Vec<(R, bool)>;

pub(super) struct TestTree<R: Record> {
    pub(super) sim: Arc<SimStorage>,
    pub(super) grid: Arc<Grid>,
    pub(super) layout: TableLayout,
    pub(super) manifest: Manifest<R::Key>,
    pub(super) sealed: Option<Sealed<R>>,
    /// What each table holds, by the address of its index.
    pub(super) contents: BTreeMap<BlockAddress, Entries<R>>,
    /// The newest version of each key of the memtable.
    memtable: Entries<R>,
    /// When the next tables are written: of level 0 in runs, which run they belong to.
    pub(super) written: Beat,
    pool: Pool,
}

/// The slices that a job was run in.
#[derive(Clone, Debug, Default)]
pub(super) struct Slices {
    /// For each: its quota, the addresses it might have drawn and those it drew.
    pub(super) slices: Vec<(u64, u64, u64)>,
}

pub(super) fn level(level: u8) -> Level {
    Level::new(level).unwrap()
}

/// Records with these keys of version 1.
pub(super) fn values<R: TestRecord>(keys: impl IntoIterator<Item = R::Key>) -> Entries<R> {
    keys.into_iter().map(|key| (R::make(key, 1), false)).collect()
}

pub(super) fn tombstones<R: TestRecord>(keys: impl IntoIterator<Item = R::Key>) -> Entries<R> {
    keys.into_iter().map(|key| (R::tombstone(key), true)).collect()
}

fn open(machine: Machine, geometry: &Geometry) -> (Arc<Grid>, Pool) {
    let options = GridOptions { block_count: 96, page_count: 0, read_only: false };
    let (chunk_size, chunks) = (usize_of(geometry.block_size), 64);
    let size = options.arena_size(geometry).unwrap() + Arena::needed(chunk_size, chunks).unwrap();
    let arena = Arena::new(size).unwrap();
    let pool = arena.pool(chunk_size, chunks).unwrap();
    (Arc::new(Grid::open(machine, &arena, options).unwrap()), pool)
}

impl<R: TestRecord> TestTree<R> {
    pub(super) fn new(geometry: Geometry, io_seed: u64) -> Self {
        let (machine, sim) = Machine::sim(io_seed);
        let trees = [TreeDescription::of::<R>(TREE, Usage::General)];
        Grid::format(&machine, &FormatState { geometry, trees: &trees, size_limit: None }).unwrap();
        let (grid, pool) = open(machine, &geometry);
        Self {
            layout: TableLayout::new::<R>(&geometry).unwrap(),
            manifest: Manifest::new(geometry.levels, geometry.runs_max),
            sealed: None,
            contents: BTreeMap::new(),
            memtable: Vec::new(),
            written: WRITTEN,
            sim,
            grid,
            pool,
        }
    }

    /// Writes entries as tables of a level: full ones and a rest.
    pub(super) fn add(&mut self, to: u8, entries: &[(R, bool)]) -> Vec<Table<R::Key>> {
        let (grid, written) = (Arc::clone(&self.grid), self.written);
        let mut writer = TableWriter::<R>::new(grid, self.layout, TREE, written, written);
        let mut reservation = self.grid.reserve(writer.blocks_bound(u64_of(entries.len()))).unwrap();
        for (record, tombstone) in entries {
            writer.push(record, *tombstone, &mut reservation).unwrap();
        }
        writer.finish(&mut reservation).unwrap();
        self.grid.forfeit(reservation);
        let mut rest = entries;
        let mut tables = Vec::new();
        for info in writer.take_tables() {
            let (own, others) = rest.split_at(usize::try_from(info.value_count).unwrap());
            self.contents.insert(info.index.address, own.to_vec());
            let table = Table::new(info).unwrap();
            self.manifest.insert(level(to), table);
            tables.push(table);
            rest = others;
        }
        tables
    }

    /// Puts entries into the memtable in this order, a beat after each `beat` of them, and seals it.
    pub(super) fn seal(&mut self, entries: &[(R, bool)], beat: usize) {
        let mut memtable = Memtable::new(self.pool.clone(), 1 << 16);
        let mut writer = MemWriter::default();
        let mut newest = BTreeMap::new();
        for entries in entries.chunks(beat) {
            for (record, tombstone) in entries {
                writer.put(&mut memtable, record, *tombstone).unwrap();
                newest.insert(record.key(), (*record, *tombstone));
            }
            writer.close_beat(&mut memtable, &mut Scratch::default());
        }
        self.sealed = Some(memtable.seal());
        self.memtable = newest.into_values().collect();
    }

    pub(super) fn limits(&self, settle: bool) -> Limits {
        Limits::new(self.grid.geometry(), self.layout.value_count_max, self.layout.value_count_max, settle)
    }

    pub(super) fn plans(&self, target: u8, settle: bool) -> Vec<Plan<R>> {
        let limits = self.limits(settle);
        Plan::of_tree(&self.manifest, self.sealed.as_ref(), level(target), &limits)
    }

    pub(super) fn job(&self, plan: Plan<R>) -> Box<dyn Job> {
        Box::new(Compaction::new(Arc::clone(&self.grid), TREE, &self.layout, plan, VISIBLE))
    }

    /// Runs a job to its end in slices whose quotas `next` gives for what remains.
    pub(super) fn run(
        &self,
        job: &mut dyn Job,
        mut next: impl FnMut(u64) -> u64,
    ) -> Result<Slices, TableError> {
        let mut slices = Slices::default();
        while job.remaining() > 0 {
            let remaining = job.remaining();
            let quota = next(remaining).clamp(1, remaining);
            let bound = job.blocks_bound(quota);
            let mut reservation = self.grid.reserve(bound)?;
            let result = job.run(quota, &mut reservation);
            slices.slices.push((quota, bound, bound - reservation.left()));
            self.grid.forfeit(reservation);
            result?;
            assert_eq!(job.remaining(), remaining - quota);
        }
        Ok(slices)
    }

    /// Runs a plan in one slice and gives what it changes.
    pub(super) fn outcome(&self, plan: Plan<R>) -> Outcome {
        let mut job = self.job(plan);
        self.run(&mut *job, |remaining| remaining).unwrap();
        job.finish().unwrap()
    }

    /// Makes an outcome visible.
    pub(super) fn apply(&mut self, outcome: &Outcome) {
        for edit in &outcome.edits {
            self.manifest.apply_own(edit);
            match edit.kind {
                EditKind::Insert => {
                    let entries = self.read(&edit.table).unwrap();
                    self.contents.insert(edit.table.index.address, entries);
                }
                EditKind::Update => {}
                EditKind::Remove => drop(self.contents.remove(&edit.table.index.address).unwrap()),
            }
        }
        for address in &outcome.released {
            self.grid.release(*address);
        }
        if outcome.is_flush {
            self.sealed = None;
            self.memtable.clear();
        }
        self.manifest.verify().unwrap();
    }

    /// What a table holds, read from its blocks and checked whole.
    pub(super) fn read(&self, info: &TableInfo) -> Result<Entries<R>, TableError> {
        verify(&self.grid, &self.layout, &R::KEY, info)?;
        let all = KeyRange::new(R::Key::MIN, R::Key::MAX).unwrap();
        let grid = Arc::clone(&self.grid);
        let (direction, ahead) = (Direction::Ascending, ReadAhead::NONE);
        let mut cursor = LevelCursor::<R>::new(grid, self.layout, vec![*info], all, direction, ahead);
        let mut entries = Vec::new();
        while let Some((entry, _)) = cursor.peek()? {
            entries.push((*entry.value, entry.tombstone));
            cursor.advance();
        }
        Ok(entries)
    }

    /// All blocks of a table by its index block alone.
    pub(super) fn blocks(&self, info: &TableInfo) -> BTreeSet<BlockAddress> {
        let block = self.grid.read_twin(info.index, BlockKind::Index).unwrap();
        let view = IndexView::new(&block, R::Key::SIZE).unwrap();
        let values = view.entries().map(|entry| entry.reference.address);
        let filter = view.filter_blocks().map(|block| block.unwrap().address);
        values.chain(filter).chain([info.index.address, info.index.twin]).collect()
    }

    /// The records that a reader of the whole tree sees, by the model.
    pub(super) fn visible(&self) -> BTreeMap<R::Key, R> {
        let mut newest: BTreeMap<R::Key, (R, bool)> = BTreeMap::new();
        let newest_first: Vec<_> = self.manifest.sources().collect();
        for run in newest_first.into_iter().rev() {
            for table in run.iter(Beat::MAX, Direction::Ascending) {
                let entries = &self.contents[&table.info.index.address];
                newest.extend(entries.iter().map(|entry| (entry.0.key(), *entry)));
            }
        }
        newest.extend(self.memtable.iter().map(|entry| (entry.0.key(), *entry)));
        let live = newest.into_iter().filter(|(_, (_, tombstone))| !tombstone);
        live.map(|(key, (record, _))| (key, record)).collect()
    }

    /// What the plan ought to give, entry by entry, and whether tombstones are among it: the newest version of
    /// each key; tombstones only if a deeper table, or one of an older run, overlaps the hull of what the plan
    /// takes.
    pub(super) fn expected(&self, plan: &Plan<R>) -> (Entries<R>, bool) {
        let mut merged: BTreeMap<R::Key, (R, bool)> = BTreeMap::new();
        let mut take = |entries: &Entries<R>| {
            merged.extend(entries.iter().map(|entry| (entry.0.key(), *entry)));
        };
        let of = |table: &Table<R::Key>| &self.contents[&table.info.index.address];
        plan.targets.iter().rev().flatten().for_each(|table| take(of(table)));
        match &plan.input {
            Input::Memtable(_) => take(&self.memtable),
            Input::Tables(runs) => runs.iter().rev().flatten().for_each(|table| take(of(table))),
            Input::Move(table) => take(of(table)),
        }
        let (min, max) = (*merged.keys().next().unwrap(), *merged.keys().next_back().unwrap());
        let oldest = plan.targets.iter().flatten().map(|table| table.info.age).min().unwrap_or(Beat::MAX);
        let in_runs = self.manifest.runs_max() > 1 && plan.target.get() == 0;
        let is_older = |(level, table): &(Level, &Table<R::Key>)| {
            *level > plan.target || in_runs && level.get() == 0 && table.info.age < oldest
        };
        let mut older = self.manifest.tables().filter(is_older);
        let keep = older.any(|(_, table)| table.key_min <= max && min <= table.key_max);
        let kept = merged.into_values().filter(|(_, tombstone)| keep || !tombstone);
        (kept.collect(), keep)
    }

    /// The values that the plan takes in, by the model.
    pub(super) fn consumed(&self, plan: &Plan<R>) -> u64 {
        let of = |table: &Table<R::Key>| self.contents[&table.info.index.address].len();
        let newer = match &plan.input {
            Input::Memtable(sealed) => usize::try_from(sealed.len()).unwrap(),
            Input::Tables(runs) => runs.iter().flatten().map(of).sum(),
            Input::Move(_) => 0,
        };
        u64_of(newer + plan.targets.iter().flatten().map(of).sum::<usize>())
    }

    /// The same tables on the same file, with nothing of it in memory.
    pub(super) fn cold(&self, io_seed: u64) -> Self {
        self.cold_with(io_seed, |_| ())
    }

    /// As [`cold`](Self::cold), with the bytes of the file changed.
    pub(super) fn cold_with(&self, io_seed: u64, change: impl FnOnce(&mut [u8])) -> Self {
        let update = CheckpointUpdate {
            beat: Beat::new(8),
            op_checkpoint: Op::new(0),
            op_flushed: Op::new(0),
            charge_total: 0,
            rolling_hash: Checksum::ZERO,
            manifest: ManifestRoot::default(),
        };
        self.grid.checkpoint(&update).unwrap();
        let mut image = self.sim.image();
        change(&mut image);
        let (machine, sim) = Machine::sim_from(image, io_seed);
        let (grid, pool) = open(machine, self.grid.geometry());
        Self {
            sim,
            grid,
            layout: self.layout,
            manifest: self.manifest.clone(),
            sealed: self.sealed.clone(),
            contents: self.contents.clone(),
            memtable: self.memtable.clone(),
            written: self.written,
            pool,
        }
    }

    /// The manifest says this of a table of a level instead.
    pub(super) fn replace(&mut self, at: u8, old: &Table<R::Key>, new: TableInfo) {
        self.manifest.remove(level(at), old);
        self.manifest.insert(level(at), Table::new(new).unwrap());
    }

    /// The file after all that was written, without what follows the last byte that is not zero.
    pub(super) fn image(&self) -> Vec<u8> {
        self.grid.flush().unwrap();
        let mut image = self.sim.image();
        let end = image.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        image.truncate(end);
        image
    }
}

/// The inserts of an outcome.
pub(super) fn inserted(outcome: &Outcome) -> Vec<TableInfo> {
    edits(outcome, EditKind::Insert).map(|edit| edit.table).collect()
}

pub(super) fn edits(outcome: &Outcome, kind: EditKind) -> impl Iterator<Item = &ManifestEdit> {
    outcome.edits.iter().filter(move |edit| edit.kind == kind)
}

/// Quotas of every size: single values, about a block, anything.
pub(super) fn any_quota(rng: &mut Rng, remaining: u64, block: u64) -> u64 {
    match rng.u8(..6) {
        0 => 1,
        1 => block,
        2 => block - 1,
        3 => block + 1,
        4 => remaining,
        _ => rng.u64(1..=remaining),
    }
}
