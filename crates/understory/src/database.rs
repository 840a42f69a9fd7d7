//! The database: a forest on a file, and the ops that move its clock.
//!
//! Every batch is an op, and so is every call that moves the clock without a batch. An op belongs to the beat
//! that is open when it is applied; a beat closes before an op that would exceed its share. Checkpoints are
//! drains here: empty beats to the end of the bar and one bar more, so that nothing is left in a memtable.
//! They are taken when asked for, and at the end of a bar when the ops since the last one have been charged
//! enough.
//!
//! # Not here
//! The journal, which will make each commit durable by itself; until then the last checkpoint is what a
//! reopened file shows.

use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use understory_forest::{Forest, ForestError, Root};
use understory_format::{Checksum, Direction, Geometry, Key, KeyRange, Op, Record, charge};
use understory_grid::{FormatState, Grid, GridError};
use understory_io::{Arena, Machine, OsStorage};
use understory_table::TableError;
use understory_tree::Tree;

use crate::options::Budget;
use crate::stats::TreeStats;
use crate::{Batch, Error, Options, Schema, Stats};

/// An open database.
///
/// Reads take `&self` and may come from many threads at once; commits take `&mut self`.
#[derive(Debug)]
pub struct Database {
    path: PathBuf,
    machine: Machine,
    grid: Arc<Grid>,
    forest: Forest,
    op: Op,
    charge_total: u64,
    /// `charge_total` of the last checkpoint.
    charge_checkpoint: u64,
    /// The op of the last checkpoint.
    op_checkpoint: Op,
}

impl Database {
    /// Creates a file at `path` and opens it.
    ///
    /// # Errors
    /// A schema, geometry or memory budget that cannot work, in which case nothing is created; a file that
    /// exists, or cannot be created or written.
    pub fn create(path: impl AsRef<Path>, schema: &Schema, options: &Options) -> Result<Self, Error> {
        let path = path.as_ref();
        let geometry = options.geometry.unwrap_or_default();
        check(schema, &geometry, options)?;
        let storage = OsStorage::create(path, storage_options(options, false));
        let storage = Arc::new(storage.map_err(Error::Open)?);
        let made = Self::create_on(&storage, path, schema, options);
        if made.is_err()
            && let Some(storage) = Arc::into_inner(storage)
        {
            storage.remove().map_err(Error::Io)?;
        }
        made
    }

    fn create_on(
        storage: &Arc<OsStorage>,
        path: &Path,
        schema: &Schema,
        options: &Options,
    ) -> Result<Self, Error> {
        let machine = Machine::os(Arc::clone(storage), 0).map_err(Error::Io)?;
        let geometry = options.geometry.unwrap_or_default();
        Self::format(&machine, schema, &geometry, options)?;
        Self::open_machine(machine, path, schema, options, false)
    }

    /// Opens the file at `path` for reading and writing, at its last checkpoint.
    ///
    /// # Errors
    /// A file that is missing, locked, not one of ours, damaged, or that differs from what the schema and
    /// options say. Nothing on it is changed then.
    pub fn open(path: impl AsRef<Path>, schema: &Schema, options: &Options) -> Result<Self, Error> {
        Self::open_path(path.as_ref(), schema, options, false)
    }

    /// Opens the file at `path` for reading only, at its last checkpoint. A writer may be at work on it: when
    /// that has reused blocks which this handle needs, reads give [`Error::Expired`].
    ///
    /// # Errors
    /// As [`open`](Self::open), but for the lock.
    pub fn open_read_only(path: impl AsRef<Path>, schema: &Schema, options: &Options) -> Result<Self, Error> {
        Self::open_path(path.as_ref(), schema, options, true)
    }

    fn open_path(path: &Path, schema: &Schema, options: &Options, read_only: bool) -> Result<Self, Error> {
        let storage = OsStorage::open(path, storage_options(options, read_only));
        let storage = storage.map_err(Error::Open)?;
        let machine = Machine::os(storage, 0).map_err(Error::Io)?;
        Self::open_machine(machine, path, schema, options, read_only)
    }

    /// Makes an empty database on the storage of `machine`, which is what [`create`](Self::create) does with
    /// a file.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn format(
        machine: &Machine,
        schema: &Schema,
        geometry: &Geometry,
        options: &Options,
    ) -> Result<(), Error> {
        check(schema, geometry, options)?;
        let trees = schema.describe();
        let state = FormatState { geometry: *geometry, trees: &trees, size_limit: options.size_limit };
        Ok(Grid::format(machine, &state)?)
    }

    /// Opens the database on the storage of `machine`, real or simulated. `path` is for messages only.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_machine(
        machine: Machine,
        path: &Path,
        schema: &Schema,
        options: &Options,
        read_only: bool,
    ) -> Result<Self, Error> {
        let unusable = |error| unusable(path, error);
        let found = Grid::peek(&machine).map_err(unusable)?;
        let geometry = found.checkpoint.geometry;
        if let Some(difference) = options.geometry.as_ref().and_then(|asked| asked.differs(&geometry)) {
            let (field, file, asked) = (difference.field, difference.theirs, difference.ours);
            return Err(Error::GeometryDiffers { path: path.into(), field, file, asked });
        }
        schema.check(&geometry)?;
        let budget = Budget::divide(options.memory, &geometry, schema.trees(), read_only)?;
        let arena_size =
            budget.arena_size(&geometry).ok_or(Error::MemoryTooLarge { given: options.memory })?;
        let arena = Arena::new(arena_size).map_err(Error::Io)?;
        let chunk_size = understory_format::usize_of(geometry.block_size);
        let pool =
            arena.pool(chunk_size, understory_format::usize_of(budget.chunk_count)).map_err(Error::Io)?;
        let grid = Grid::load(machine.clone(), &arena, budget.grid).map_err(unusable)?;
        if let Some(difference) = schema.differs(grid.trees()) {
            return Err(Error::SchemaDiffers { path: path.into(), difference });
        }
        let grid = Arc::new(grid);
        let forest = Forest::open(Arc::clone(&grid), schema.trees(), &pool);
        let mut forest = forest.map_err(|error| expired_or(error, &grid))?;
        if !read_only {
            forest.begin()?;
        }
        let state = grid.checkpoint_state();
        Ok(Self {
            path: path.into(),
            machine,
            forest,
            op: state.op_checkpoint,
            charge_total: state.charge_total,
            charge_checkpoint: state.charge_total,
            op_checkpoint: state.op_checkpoint,
            grid,
        })
    }

    /// Applies all puts and removes of `batch`, or, on an error, none. What is committed is durable with the
    /// next checkpoint.
    ///
    /// # Errors
    /// A batch over the limit or for trees that the database does not have, which changes nothing; failure
    /// of the compaction work that the commit paces, after which the handle takes no more writes.
    ///
    /// # Panics
    /// Never: the share of a beat bounds what memtables take.
    pub fn commit(&mut self, batch: &Batch) -> Result<(), Error> {
        self.check_writable()?;
        if let Some(part) = batch.parts().find(|part| !part.is_known(&self.forest)) {
            return Err(Error::UnknownTree { name: part.tree_name() });
        }
        let limit = u64::from(self.grid.geometry().batch_size_max);
        if batch.size() > limit {
            return Err(Error::BatchTooLarge { size: batch.size(), limit });
        }
        if self.forest.beat_size() + batch.size() > u64::from(self.grid.geometry().share_size) {
            self.close_beat()?;
        }
        for part in batch.parts() {
            part.apply(&mut self.forest).expect("the share of a beat bounds what memtables take");
        }
        self.forest.add_beat_size(batch.size());
        self.count_op(batch.size());
        Ok(())
    }

    /// The record of `key` in the tree of `R`.
    ///
    /// # Errors
    /// Damage or failure of what has to be read.
    pub fn get<R: Record>(&self, key: R::Key) -> Result<Option<R>, Error> {
        self.tree::<R>()?.get(key).map_err(|error| self.read_error(error))
    }

    /// The records of the tree of `R` whose keys lie in `range`, smallest key first.
    ///
    /// # Errors
    /// If there is no such tree. Damage and failures come with the records.
    pub fn scan<R: Record>(&self, range: impl RangeBounds<R::Key>) -> Result<Scan<'_, R>, Error> {
        self.scan_in(range, Direction::Ascending)
    }

    /// As [`scan`](Self::scan), largest key first.
    ///
    /// # Errors
    /// As [`scan`](Self::scan).
    pub fn scan_rev<R: Record>(&self, range: impl RangeBounds<R::Key>) -> Result<Scan<'_, R>, Error> {
        self.scan_in(range, Direction::Descending)
    }

    fn scan_in<R: Record>(
        &self,
        range: impl RangeBounds<R::Key>,
        direction: Direction,
    ) -> Result<Scan<'_, R>, Error> {
        let tree = self.tree::<R>()?;
        let keys = bounds(&range);
        let scan = keys.map(|keys| tree.scan(keys, direction));
        let excluded = [excluded(range.start_bound()), excluded(range.end_bound())];
        Ok(Scan { database: self, scan, excluded })
    }

    /// Makes everything committed so far durable. Costs up to two bars of compaction work; nothing if there
    /// is nothing new.
    ///
    /// # Errors
    /// Failure to write, or lack of space, after which the handle takes no more writes.
    pub fn checkpoint(&mut self) -> Result<(), Error> {
        self.check_writable()?;
        if self.op == self.op_checkpoint {
            return Ok(());
        }
        self.drain()
    }

    /// Brings the file to rest: empties level 0, brings every level within its limit, takes checkpoints until no
    /// released block waits to be freed, and cuts the file behind its last block.
    ///
    /// # Errors
    /// As [`checkpoint`](Self::checkpoint).
    ///
    /// # Panics
    /// Never: a bar drains every level once, from the top.
    pub fn settle(&mut self) -> Result<(), Error> {
        self.check_writable()?;
        self.count_op(0);
        self.forest.set_settle(true);
        self.end_bar()?;
        let mut bars = 0;
        while !self.forest.is_settled() {
            assert!(bars <= self.grid.geometry().levels + 2, "a bar drains every level once, from the top");
            self.bar(None)?;
            bars += 1;
        }
        self.forest.set_settle(false);
        (0..3).try_for_each(|_| self.drain())?;
        self.grid.trim(0)?;
        Ok(())
    }

    /// Takes a checkpoint of what is committed and closes the file.
    ///
    /// # Errors
    /// As [`checkpoint`](Self::checkpoint). The file is closed all the same.
    pub fn close(mut self) -> Result<(), Error> {
        if self.grid.is_read_only() { Ok(()) } else { self.checkpoint() }
    }

    /// Figures about the database as it is now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let trees =
            self.forest.tree_stats().map(|(name, value_size, (mutable_count, immutable_count), levels)| {
                TreeStats { name, value_size, mutable_count, immutable_count, levels }
            });
        Stats {
            trees: trees.collect(),
            op: self.op.get(),
            beat: self.forest.beat().get(),
            checkpoint_number: self.grid.checkpoint_state().number,
            compaction: self.forest.compaction_stats(),
            grid: self.grid.stats(),
            space: self.grid.space(),
            block_size: self.grid.geometry().block_size,
            io: self.machine.storage.counters(),
            file_size: self.machine.storage.size(),
        }
    }

    /// The id of the last checkpoint: two files with equal ids hold equal checkpoint states.
    #[must_use]
    pub fn checkpoint_id(&self) -> Checksum {
        self.grid.checkpoint_state().id()
    }

    /// The sizes that were fixed when the file was created.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        self.grid.geometry()
    }

    /// The file's path, as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The forest below, for tools that look deeper.
    #[must_use]
    pub fn forest(&self) -> &Forest {
        &self.forest
    }

    fn tree<R: Record>(&self) -> Result<&Tree<R>, Error> {
        self.forest.tree().ok_or(Error::UnknownTree { name: R::NAME })
    }

    fn check_writable(&self) -> Result<(), Error> {
        match () {
            () if self.grid.is_read_only() => Err(Error::ReadOnly),
            () if self.forest.has_failed() => Err(Error::Poisoned),
            () => Ok(()),
        }
    }

    fn count_op(&mut self, size: u64) {
        self.op = Op::new(self.op.get() + 1);
        self.charge_total += charge(size);
    }

    /// Closes the open beat, and takes the checkpoint that falls due with the bar that ends.
    fn close_beat(&mut self) -> Result<(), Error> {
        self.forest.close_beat(None)?;
        let is_due = self.charge_total - self.charge_checkpoint >= self.interval();
        if is_due && self.forest.begins_bar() { self.bar_to_checkpoint() } else { Ok(()) }
    }

    /// The charges between two scheduled checkpoints: half the live size, within the file's bounds, so that
    /// what waits to be freed stays in proportion to what is live.
    fn interval(&self) -> u64 {
        let geometry = self.grid.geometry();
        (self.forest.live_size() / 2).clamp(geometry.interval_min, geometry.interval_max)
    }

    /// A drain op with its checkpoint.
    fn drain(&mut self) -> Result<(), Error> {
        self.count_op(0);
        self.end_bar()?;
        self.bar_to_checkpoint()
    }

    /// Closes beats up to the start of a bar at which no memtable takes values any more: all of them wait to be
    /// flushed.
    fn end_bar(&mut self) -> Result<(), Error> {
        while !self.forest.begins_bar() || self.forest.has_mutable_values() {
            self.forest.close_beat(None)?;
        }
        Ok(())
    }

    fn bar_to_checkpoint(&mut self) -> Result<(), Error> {
        let (op, charge_total) = (self.op, self.charge_total);
        self.bar(Some(&Root { op_checkpoint: op, op_flushed: op, charge_total }))?;
        (self.op_checkpoint, self.charge_checkpoint) = (op, charge_total);
        Ok(())
    }

    /// A bar of empty beats.
    fn bar(&mut self, root: Option<&Root>) -> Result<(), Error> {
        for _ in 1..self.forest.schedule().beats_per_bar() {
            self.forest.close_beat(None)?;
        }
        self.forest.close_beat(root)?;
        Ok(())
    }

    fn read_error(&self, error: TableError) -> Error {
        expired_or(error.into(), &self.grid)
    }
}

/// The records of a scan, in its order.
///
/// After an error it ends.
#[derive(Debug)]
pub struct Scan<'a, R: Record> {
    database: &'a Database,
    scan: Option<understory_tree::Scan<'a, R>>,
    /// Keys that bound the range and are not in it.
    excluded: [Option<R::Key>; 2],
}

impl<R: Record> Iterator for Scan<'_, R> {
    type Item = Result<R, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.scan.as_mut()?.next() {
                Ok(Some(record)) if self.excluded.contains(&Some(record.key())) => {}
                Ok(record) => return record.copied().map(Ok),
                Err(error) => {
                    self.scan = None;
                    return Some(Err(self.database.read_error(error)));
                }
            }
        }
    }
}

/// Damage that a read-only handle meets may be a writer's reuse of what the handle shows.
fn expired_or(error: ForestError, grid: &Grid) -> Error {
    let is_damage = matches!(error, ForestError::Corrupt(_));
    if is_damage && grid.is_read_only() && grid.is_overtaken() { Error::Expired } else { error.into() }
}

/// The least inclusive range with all keys of `range`; none if there is no key in it.
fn bounds<K: Key>(range: &impl RangeBounds<K>) -> Option<KeyRange<K>> {
    let min = match range.start_bound() {
        Bound::Unbounded => K::MIN,
        Bound::Included(key) | Bound::Excluded(key) => *key,
    };
    let max = match range.end_bound() {
        Bound::Unbounded => K::MAX,
        Bound::Included(key) | Bound::Excluded(key) => *key,
    };
    KeyRange::new(min, max)
}

fn excluded<K: Key>(bound: Bound<&K>) -> Option<K> {
    match bound {
        Bound::Excluded(key) => Some(*key),
        Bound::Included(_) | Bound::Unbounded => None,
    }
}

fn check(schema: &Schema, geometry: &Geometry, options: &Options) -> Result<(), Error> {
    geometry.validate()?;
    schema.check(geometry)?;
    Budget::divide(options.memory, geometry, schema.trees(), false).map(|_| ())
}

fn storage_options(options: &Options, read_only: bool) -> understory_io::Options {
    let threads = options.io_threads.max(1);
    understory_io::Options { read_only, threads, ..understory_io::Options::default() }
}

fn unusable(path: &Path, source: GridError) -> Error {
    Error::Unusable { path: path.into(), source }
}
