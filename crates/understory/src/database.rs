//! The database: commits from many threads, reads beside them, and what brings the file to rest.
//!
//! # Not here
//! How a commit gets durable and applied: the sequencer. What an op does: the applier.

use std::ops::RangeBounds;
use std::path::{Path, PathBuf};

use understory_forest::ForestError;
use understory_format::{Checksum, Direction, Geometry, Op, Record, RecordKind};
use understory_io::{Machine, trace_event};
use understory_table::TableError;
use understory_tree::Tree;

use crate::batch::Body;
use crate::open::is_expired;
use crate::sequencer::{Durability, Sequencer};
use crate::{Batch, Error, Scan, Stats, Waits};

/// An open database.
///
/// All calls take `&self` and may come from many threads at once. Reads go on beside commits, and commits share their
/// syncs.
#[derive(Debug)]
pub struct Database {
    path: PathBuf,
    machine: Machine,
    sequencer: Sequencer,
}

impl Database {
    pub(crate) fn new(path: &Path, machine: Machine, sequencer: Sequencer) -> Self {
        Self { path: path.into(), machine, sequencer }
    }

    /// Commits all puts and removes of `batch`, or, on an error, none; gives their op. When this returns they are
    /// visible, and on stable storage if the file has a journal (else with the next checkpoint).
    ///
    /// # Errors
    /// A batch over the limit, for trees that the database does not have, or for which there is no space: nothing has
    /// changed. [`Error::CommitUnknown`] if a write fails, and [`Error::Poisoned`] after that.
    pub fn commit(&self, batch: &Batch) -> Result<Op, Error> {
        self.commit_with(batch, Durability::Synced)
    }

    /// As [`commit`](Self::commit), with the choice of what to wait for.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub fn commit_with(&self, batch: &Batch, durability: Durability) -> Result<Op, Error> {
        self.check_writable()?;
        let (begun, trees) = (self.machine.clock.now(), self.sequencer.trees());
        let checkpoints_ended = trees.checkpoints_ended();
        let limit = u64::from(self.geometry().batch_size_max);
        if batch.size() > limit {
            return Err(Error::BatchTooLarge { size: batch.size(), limit });
        }
        let body = Body::of(batch, trees).map_err(|name| Error::UnknownTree { name })?;
        let op = self.sequencer.commit(&body, durability)?;
        let took = self.machine.clock.now().saturating_sub(begun);
        self.sequencer.counts().committed(took, trees.checkpoints_begun() > checkpoints_ended);
        Ok(op)
    }

    /// Makes durable what was committed as [`Durability::Buffered`], and notes in the journal that everything committed so
    /// far is. Costs two syncs at most, and nothing if the journal says so already; commits wait meanwhile.
    ///
    /// # Errors
    /// Failure to write, now or before: [`Error::Poisoned`]. Without a journal as [`checkpoint`](Self::checkpoint).
    pub fn sync(&self) -> Result<(), Error> {
        self.check_writable()?;
        if !self.geometry().has_journal() {
            return self.checkpoint();
        }
        self.sequencer.sync()
    }

    /// The record of `key` in the tree of `R`.
    ///
    /// # Errors
    /// Damage or failure of what has to be read.
    pub fn get<R: Record>(&self, key: R::Key) -> Result<Option<R>, Error> {
        self.tree::<R>()?.get(key).map_err(|error| self.read_error(error))
    }

    /// The records of the tree of `R` whose keys lie in `range`, smallest key first, as they are now: later commits do
    /// not show. A scan that is open while more than a bar is committed may end with [`Error::Expired`].
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

    /// Brings everything committed so far into tables and takes a checkpoint, so that the next open has nothing to
    /// replay. Costs up to two bars of compaction work; nothing if there is nothing new.
    ///
    /// # Errors
    /// Lack of space, in which case it is gone on with when there is some. Failure to write, after which the handle
    /// takes no more commits.
    pub fn checkpoint(&self) -> Result<(), Error> {
        self.check_writable()?;
        self.sequencer.check()?;
        let is_drained = self.sequencer.with_applier(|applier| applier.is_drained());
        if is_drained { self.wait_checkpoint() } else { self.drain() }
    }

    fn drain(&self) -> Result<(), Error> {
        let _op = self.sequencer.run(RecordKind::Drain)?;
        self.wait_checkpoint()
    }

    /// Waits until the newest checkpoint is durable.
    fn wait_checkpoint(&self) -> Result<(), Error> {
        if let Some(run) = self.sequencer.with_applier(|applier| applier.run()) {
            let _id = run.wait()?;
        }
        Ok(())
    }

    /// Brings the file to rest: empties level 0, brings every level within its limit, takes checkpoints until no
    /// released block waits to be freed, and cuts the file behind its last block.
    ///
    /// # Errors
    /// As [`checkpoint`](Self::checkpoint).
    pub fn settle(&self) -> Result<(), Error> {
        self.check_writable()?;
        let _op = self.sequencer.run(RecordKind::Settle)?;
        (0..3).try_for_each(|_| self.drain())?;
        Ok(self.sequencer.with_applier(|applier| applier.forest_mut().trim())?)
    }

    /// Takes a checkpoint of what is committed and closes the file. Without space for one, what is in the journal is
    /// left there.
    ///
    /// # Errors
    /// As [`checkpoint`](Self::checkpoint). The file is closed all the same.
    pub fn close(self) -> Result<(), Error> {
        if self.sequencer.grid().is_read_only() {
            return Ok(());
        }
        match self.checkpoint() {
            Err(Error::OutOfSpace { .. }) if self.geometry().has_journal() => self.sequencer.sync(),
            result => result,
        }
    }

    /// Figures about the database as it is now. Waits for no commit, checkpoint or I/O, and no commit waits for it.
    /// O(tables) and a system call: some microseconds for a few.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let (grid, counts) = (self.sequencer.grid(), self.sequencer.counts());
        let forest = self.sequencer.trees().stats();
        let (commits, commits_beside_checkpoints) = counts.commits();
        let allocated_size = self.machine.storage.allocated_size();
        Stats {
            trees: forest.trees,
            op: self.visible_op().get(),
            beat: forest.beat.get(),
            checkpoint_number: grid.checkpoint_state().number,
            commits,
            commits_beside_checkpoints,
            waits: Waits {
                beat: forest.beat_waits,
                checkpoint: forest.checkpoint_waits,
                ring: counts.ring_waits.get(),
            },
            compaction: forest.compaction,
            pace: forest.pace,
            filter_blocks_held: forest.filter_blocks_held,
            closes: forest.closes,
            checkpoints: forest.checkpoints,
            journal: self.sequencer.journal_stats(),
            grid: grid.stats(),
            space: grid.space(),
            block_size: grid.geometry().block_size,
            io: self.machine.storage.counters(),
            file_size: self.machine.storage.size(),
            allocated_size,
            grid_size: allocated_size.saturating_sub(grid.geometry().grid_offset()),
        }
    }

    /// The last op that reads see.
    #[must_use]
    pub fn visible_op(&self) -> Op {
        self.sequencer.visible()
    }

    /// The last op that survives the loss of power.
    #[must_use]
    pub fn durable_op(&self) -> Op {
        self.sequencer.durable()
    }

    /// The id of the last durable checkpoint: two files with equal ids hold equal checkpoint states.
    #[must_use]
    pub fn checkpoint_id(&self) -> Checksum {
        self.sequencer.grid().checkpoint_state().id()
    }

    /// The sizes that were fixed when the file was created.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        self.sequencer.grid().geometry()
    }

    /// The file's path, as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Uses the forest below, for tools that look deeper. No part of the promise of semver.
    #[doc(hidden)]
    pub fn with_forest<T>(&self, look: impl FnOnce(&understory_forest::Forest) -> T) -> T {
        self.sequencer.with_applier(|applier| look(applier.forest()))
    }

    /// Commits one op that moves the clock and has no effects: the end of a half-bar, a drain or a settling. For tools
    /// that repeat what another file did, op by op. No part of the promise of semver.
    ///
    /// # Errors
    /// As [`checkpoint`](Self::checkpoint).
    ///
    /// # Panics
    /// If the kind is that of a batch.
    #[doc(hidden)]
    pub fn move_clock(&self, kind: RecordKind) -> Result<Op, Error> {
        assert!(kind != RecordKind::Batch, "a batch has effects");
        self.check_writable()?;
        self.sequencer.run(kind)
    }

    fn tree<R: Record>(&self) -> Result<&Tree<R>, Error> {
        self.sequencer.trees().tree().ok_or(Error::UnknownTree { name: R::NAME })
    }

    fn check_writable(&self) -> Result<(), Error> {
        if self.sequencer.grid().is_read_only() { Err(Error::ReadOnly) } else { Ok(()) }
    }

    /// Damage that a read-only handle meets may be a writer's reuse of what the handle shows.
    pub(crate) fn read_error(&self, error: TableError) -> Error {
        if matches!(error, TableError::Expired) {
            return Error::Expired;
        }
        let error = ForestError::from(error);
        if is_expired(&error, self.sequencer.grid()) {
            return Error::Expired;
        }
        trace_event!(WARN, %error, "a read failed");
        error.into()
    }
}
