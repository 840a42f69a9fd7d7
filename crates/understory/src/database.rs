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

use std::ops::RangeBounds;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use understory_forest::{Forest, ForestError, Root};
use understory_format::{Checksum, Direction, Geometry, Op, Record, charge};
use understory_grid::Grid;
use understory_io::Machine;
use understory_table::TableError;
use understory_tree::Tree;

use crate::open::is_expired;
use crate::stats::TreeStats;
use crate::{Batch, Error, Scan, Stats};

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
    /// A database at the checkpoint that `forest` was opened at.
    pub(crate) fn at_checkpoint(path: &Path, machine: Machine, forest: Forest) -> Self {
        let grid = Arc::clone(forest.grid());
        let state = grid.checkpoint_state();
        Self {
            path: path.into(),
            machine,
            grid,
            forest,
            op: state.op_checkpoint,
            charge_total: state.charge_total,
            charge_checkpoint: state.charge_total,
            op_checkpoint: state.op_checkpoint,
        }
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
        Ok(Scan::new(self, self.tree::<R>()?, &range, direction))
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

    /// The forest below, for tools that look deeper. No part of the promise of semver.
    #[doc(hidden)]
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
        if self.forest.begins_bar() && self.is_checkpoint_due() { self.bar_to_checkpoint() } else { Ok(()) }
    }

    fn is_checkpoint_due(&self) -> bool {
        self.charge_total - self.charge_checkpoint >= self.interval()
    }

    /// The charges between two scheduled checkpoints: a quarter of the live size, within the file's bounds, so that
    /// what waits to be freed stays in proportion to what is live.
    fn interval(&self) -> u64 {
        let geometry = self.grid.geometry();
        (self.forest.live_size() / 4).clamp(geometry.interval_min, geometry.interval_max)
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

    /// Damage that a read-only handle meets may be a writer's reuse of what the handle shows.
    pub(crate) fn read_error(&self, error: TableError) -> Error {
        let error = ForestError::from(error);
        if is_expired(&error, &self.grid) { Error::Expired } else { error.into() }
    }
}
