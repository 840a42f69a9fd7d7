//! The forest itself: closes beats, runs what is planned, applies it, and takes checkpoints.
//!
//! The close of a beat, in this order (R4): join the work of the beat; at the end of a half-bar log the outcomes in
//! (target level, tree) order and compact the log, apply them, release what they replaced, and, at the end of a
//! first half-bar, free what is due; at the end of a bar swap memtables and, if asked, begin the checkpoint;
//! at the start of a half-bar plan it; reserve addresses for the next beat's quotas.
//!
//! A half-bar is *admitted* when there is room for all that its plan writes, free and backed by the file. That is
//! tried when it is planned, and again whenever it is asked for; only an admitted half-bar is worked on, and then
//! nothing in it runs out of space. Compaction runs on the machine's executor: a beat closes when its work is done,
//! and the first half-bar after a checkpoint when that is durable.
//!
//! A close that fails for another reason than space has changed nothing that readers see, or has made whole outcomes
//! visible; what is on disk is the last checkpoint. The forest closes no further beat then.
//!
//! # Invariants
//! - R4: the order above is that of the statements in `Forest::close` (tests look at log and free set).
//! - A half-bar that is not admitted has changed nothing: admission can be tried again
//!   (`a_full_file_changes_nothing`).
//! - R15: what is acquired and not released has an owner, after open (`Corruption`) and before every
//!   checkpoint (asserted).
//!
//! # Not here
//! Jobs and their slices (`half_bar`), ops, and what asks for a checkpoint.

use std::fmt;
use std::sync::Arc;

use understory_format::{
    Beat, BlockAddress, Checksum, Corruption, Expected, Level, LocalState, ManifestEdit, Op, Place, Record,
    TableInfo, TreeId, u64_of,
};
use understory_grid::{CheckpointUpdate, Grid, GridError};
use understory_io::{Pool, trace_event, trace_span};
use understory_manifest_log::ManifestLog;
use understory_table::{FilterBudget, Full, Scratch};
use understory_tree::{Publication, Tree};

use crate::ForestError;
use crate::any_tree::{AnyTree, TreeSpec};
use crate::checkpoint_run::CheckpointRun;
use crate::half_bar::{Finished, HalfBar};
use crate::rolling_hash::RollingHash;
use crate::schedule::{Half, Schedule};
use crate::stats::{CompactionStats, Counts, ForestStats};

/// No history has so many beats.
const BEAT_MAX: u64 = 1 << 60;

/// Blocks of the free set's trailers that a checkpoint may take beyond twice those that the last one took.
const TRAILER_SPARE: u64 = 8;

/// Trees that share one grid, one manifest log, one schedule and one checkpoint.
pub struct Forest {
    grid: Arc<Grid>,
    schedule: Schedule,
    trees: Trees,
    pub(crate) log: ManifestLog,
    /// The beat that is open.
    beat: Beat,
    pub(crate) half_bar: HalfBar,
    rolling_hash: RollingHash,
    settle: bool,
    state: State,
    /// Why there is no further step.
    failure: Option<ForestError>,
    /// Whether the open half-bar may be worked on.
    admitted: bool,
    /// Blocks that were free and backed when it was admitted.
    promised: u64,
    /// The newest checkpoint, until the close that waits for it.
    checkpoint: Option<Arc<CheckpointRun>>,
    /// Where memtables fold their runs, one after another. It grows to the largest fold there was, within the
    /// first bar or two, and stays. To take the room of a whole memtable at open would be five times as much
    /// at 32 beats to a bar, as a fold takes in the values of six.
    scratch: Scratch,
    counts: Arc<Counts>,
}

/// What the forest can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Be read.
    Loaded,
    /// Be read and close beats.
    Running,
    /// Be read: a close has failed.
    Failed,
}

/// The trees of a forest, by id. A clone reads them beside the forest, which goes on to write.
#[derive(Clone, Debug)]
pub struct Trees {
    trees: Arc<[Arc<dyn AnyTree>]>,
    publication: Arc<Publication>,
    filters: Arc<FilterBudget>,
    counts: Arc<Counts>,
}

impl Trees {
    /// The tree of the records of type `R`, if there is one.
    #[must_use]
    pub fn tree<R: Record>(&self) -> Option<&Tree<R>> {
        self.trees.iter().find_map(|tree| tree.as_any().downcast_ref())
    }

    /// The size of the records of a tree, in bytes, if there is one with this id.
    #[must_use]
    pub fn value_size(&self, id: TreeId) -> Option<u32> {
        self.by_id(id).map(|tree| tree.value_size())
    }

    /// Figures about the forest. Waits for nothing but a reader's turn at each tree, whatever the forest does
    /// meanwhile; so the figures of different trees may be a few ops apart. O(tables).
    #[must_use]
    pub fn stats(&self) -> ForestStats {
        let counts = &*self.counts;
        let (compaction, pace) = counts.work();
        ForestStats {
            beat: counts.beat(),
            trees: self.iter().map(|tree| tree.stats(counts)).collect(),
            filter_blocks_held: self.filters.held(),
            compaction,
            pace,
            closes: counts.closes.get(),
            beat_waits: counts.beat_waits.get(),
            checkpoint_waits: counts.checkpoint_waits.get(),
            checkpoints: counts.checkpoints.get(),
        }
    }

    /// Checkpoints that were begun since open.
    #[must_use]
    pub fn checkpoints_begun(&self) -> u64 {
        self.counts.checkpoints_begun()
    }

    /// Of these, those that are durable or have failed. Whoever asks this first and then
    /// [`checkpoints_begun`](Self::checkpoints_begun) later, and gets less, has met a checkpoint in between.
    #[must_use]
    pub fn checkpoints_ended(&self) -> u64 {
        self.counts.checkpoints_ended()
    }

    fn by_id(&self, id: TreeId) -> Option<&dyn AnyTree> {
        let index = usize::from(id.get()).checked_sub(1)?;
        self.trees.get(index).map(AsRef::as_ref)
    }

    fn iter(&self) -> impl Iterator<Item = &dyn AnyTree> {
        self.trees.iter().map(AsRef::as_ref)
    }
}

/// The position that a checkpoint records beside the forest's own.
#[derive(Clone, Copy, Debug)]
pub struct Root {
    /// The last op whose effects the checkpoint counts.
    pub op_checkpoint: Op,
    /// The last op whose effects are all in tables.
    pub op_flushed: Op,
    /// The sum of the charges of all ops up to `op_checkpoint`, in bytes.
    pub charge_total: u64,
    /// Where the journal has the group with the op after `op_flushed`, and its chain hash there.
    pub journal: (u64, Checksum),
}

impl Forest {
    /// Takes over the state of the checkpoint that `grid` was opened at: builds the declared trees, replays
    /// the manifest log into them, and checks that every acquired block has an owner. Writes nothing. `specs`
    /// are in the order of the file's trees and fit its geometry; their memtables draw from `pool`, and up to
    /// `filter_blocks_max` blocks of the grid's cache hold filters.
    ///
    /// # Errors
    /// Damage that leaves the tables unknown or contradictory, or failure to read.
    ///
    /// # Panics
    /// If `specs` are not the file's trees or do not fit: the caller compares them first.
    pub fn open(
        grid: Arc<Grid>,
        specs: &[TreeSpec],
        pool: &Pool,
        filter_blocks_max: u64,
    ) -> Result<Self, ForestError> {
        let descriptions = grid.trees();
        assert_eq!(descriptions.len(), specs.len(), "the caller compared the schemas");
        let publication = Arc::new(Publication::default());
        let filters = Arc::new(FilterBudget::new(filter_blocks_max));
        let pairs = specs.iter().zip(descriptions);
        let trees =
            pairs.map(|(spec, tree)| spec.build(&grid, tree.id, pool, &publication, &filters)).collect();
        let state = grid.checkpoint_state();
        let counts = Arc::new(Counts::default());
        counts.set_beat(state.beat);
        let mut forest = Self {
            schedule: Schedule::new(grid.geometry()),
            trees: Trees { trees, publication, filters, counts: Arc::clone(&counts) },
            log: ManifestLog::new(Arc::clone(&grid), grid.geometry()),
            beat: state.beat,
            half_bar: HalfBar::default(),
            rolling_hash: RollingHash::new(state.rolling_hash),
            settle: false,
            state: State::Loaded,
            failure: None,
            admitted: false,
            promised: 0,
            checkpoint: None,
            scratch: Scratch::default(),
            counts,
            grid,
        };
        forest.check_beat()?;
        forest.load_tables()?;
        forest.check_accounting()?;
        Ok(forest)
    }

    /// Goes on from the checkpoint, and from what was put into memtables since it was opened: the first thing that is
    /// written, with `change` to the local part of the superblock. Not for a forest that is only read.
    ///
    /// # Errors
    /// Failure to write. The forest can then be read only.
    ///
    /// # Panics
    /// If it has begun already.
    pub fn begin(&mut self, change: impl FnOnce(&mut LocalState)) -> Result<(), ForestError> {
        assert_eq!(self.state, State::Loaded, "a forest begins once");
        self.attempt(|forest| {
            forest.grid.begin(change)?;
            forest.plan();
            Ok(())
        })
    }

    /// A checkpoint is the end of a bar: the beat that it names is the first of the next.
    fn check_beat(&self) -> Result<(), Corruption> {
        let beat = self.beat.get();
        let rule = Expected::Rule("the first beat of a bar that a history reaches");
        let holds = self.schedule.begins_bar(self.beat) && beat <= BEAT_MAX;
        if holds { Ok(()) } else { Err(Corruption::new("checkpoint.beat", rule, beat.into())) }
    }

    fn load_tables(&mut self) -> Result<(), ForestError> {
        let Self { log, trees, grid, beat, .. } = self;
        log.open(&grid.checkpoint_state().manifest, &mut |edit: ManifestEdit| {
            // What is flushed from now on is newer than every run there is.
            let beat_min = edit.table.beat_min.get();
            understory_format::error::at_most("table.beat_min", beat.get(), beat_min)?;
            let tree = trees.by_id(edit.table.tree);
            tree.ok_or_else(|| tree_unknown(&edit.table))?.load(edit.level, edit.table)
        })?;
        trees.iter().try_for_each(AnyTree::loaded).map_err(ForestError::Corrupt)
    }

    /// The beat that is open.
    #[must_use]
    pub fn beat(&self) -> Beat {
        self.beat
    }

    /// The hash over all that was compacted, up to the half-bar that ended last. Two forests that differ do so from the
    /// first beat on whose hashes differ.
    #[must_use]
    pub fn rolling_hash(&self) -> Checksum {
        self.rolling_hash.get()
    }

    /// How beats make bars.
    #[must_use]
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// The grid that all trees share.
    #[must_use]
    pub fn grid(&self) -> &Arc<Grid> {
        &self.grid
    }

    /// Whether a close has failed, after which there is no other.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.state == State::Failed
    }

    /// Whether any tree has values that no bar's end has made immutable yet.
    #[must_use]
    pub fn has_mutable_values(&self) -> bool {
        self.trees.iter().any(|tree| tree.memtable_counts().0 > 0)
    }

    /// Whether the open beat is the first of its bar.
    #[must_use]
    pub fn begins_bar(&self) -> bool {
        self.schedule.begins_bar(self.beat)
    }

    /// Bytes of the values in all live tables.
    #[must_use]
    pub fn live_size(&self) -> u64 {
        self.trees.iter().map(|tree| tree.table_value_count() * u64::from(tree.value_size())).sum()
    }

    /// The tree of the records of type `R`, if there is one.
    #[must_use]
    pub fn tree<R: Record>(&self) -> Option<&Tree<R>> {
        self.trees.tree()
    }

    /// All trees, to be read beside the forest.
    #[must_use]
    pub fn trees(&self) -> &Trees {
        &self.trees
    }

    /// Puts records into the memtable of a tree, over what their keys have: `values` one after another, and of those
    /// whose bit in `tombstones` is set, tombstones for their keys. Readers see them when they are
    /// [published](Self::publish).
    ///
    /// # Errors
    /// If the memtables' share of memory is used up, which a caller that keeps to the beat's share does not see.
    ///
    /// # Panics
    /// If there is no such tree, or `values` are not whole records of it.
    pub fn append(&mut self, tree: TreeId, values: &[u8], tombstones: Option<&[u8]>) -> Result<(), Full> {
        self.trees.by_id(tree).expect("the caller asked for its value size").append(values, tombstones)
    }

    /// Makes everything that was put visible, in all trees at once.
    pub fn publish(&mut self) {
        self.trees.publication.publish(|| self.trees.iter().for_each(AnyTree::publish));
    }

    /// Ends a beat of the bar before the checkpoint that was opened, or a part of it: what was put is sorted, and the
    /// clock stands. For the replay of ops that the checkpoint counts and that are in no table.
    ///
    /// # Panics
    /// If the forest has begun.
    pub fn close_replayed_beat(&mut self) {
        assert_eq!(
            self.state,
            State::Loaded,
            "ops that a checkpoint counts are replayed before anything is written"
        );
        for tree in self.trees.iter() {
            tree.close_beat(&mut self.scratch);
        }
    }

    /// Ends the bar before the checkpoint that was opened: what was put waits to be flushed.
    ///
    /// # Panics
    /// If the forest has begun.
    pub fn end_replayed_bar(&mut self) {
        self.close_replayed_beat();
        self.trees.iter().for_each(AnyTree::swap_memtables);
    }

    /// Whether the open half-bar may be worked on.
    #[must_use]
    pub fn is_admitted(&self) -> bool {
        self.admitted
    }

    /// Admits the open half-bar, if it is not yet: sees to it that there is room for all that its plan writes, and
    /// hands out the work of its first beat.
    ///
    /// # Errors
    /// [`GridError::OutOfSpace`] if there is not enough room: nothing has changed, and it can be tried again. After any
    /// other error the forest closes no further beat.
    pub fn admit(&mut self) -> Result<(), ForestError> {
        self.check_running()?;
        if self.admitted {
            return Ok(());
        }
        let (blocks, _) = self.half_bar.bounds();
        let own = 2 * self.grid.own_block_count() + TRAILER_SPARE;
        self.promised = self.log.addresses_max() + blocks + own;
        if let Err(error) = self.grid.back(self.promised) {
            let is_full = matches!(error, GridError::OutOfSpace { .. });
            trace_event!(WARN, beat = %self.beat, %error, "the half-bar is not admitted");
            self.counts.refused();
            return if is_full { Err(error.into()) } else { self.attempt(|_| Err(error.into())) };
        }
        self.attempt(|forest| {
            forest.log.start();
            forest.begin_beat()
        })?;
        self.admitted = true;
        Ok(())
    }

    /// Closes the open beat. `root` asks for a checkpoint, which only the close that ends a bar can take; it is begun
    /// then, and becomes durable beside what follows.
    ///
    /// # Errors
    /// [`GridError::OutOfSpace`] if the half-bar is not admitted and cannot be now: nothing has changed. Failure of the
    /// storage, or damage met by a compaction: the forest then closes no further beat (the same error
    /// again); its trees can be read as they are. [`GridError::ReadOnly`] if the forest has not
    /// [begun](Self::begin).
    ///
    /// # Panics
    /// If `root` is given where no bar ends, or counts ops as flushed that are still in memtables.
    pub fn close_beat(&mut self, root: Option<&Root>) -> Result<Option<Arc<CheckpointRun>>, ForestError> {
        self.admit()?;
        let _span = trace_span!(DEBUG, "close_beat", beat = %self.beat, checkpoint = root.is_some());
        let (counts, clock) = (Arc::clone(&self.counts), Arc::clone(&self.grid.machine().clock));
        let checkpoint = counts.closes.time(&*clock, || self.attempt(|forest| forest.close(root)))?;
        counts.set_beat(self.beat);
        if !self.admitted {
            match self.admit() {
                Ok(()) | Err(ForestError::Grid(GridError::OutOfSpace { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(checkpoint)
    }

    /// Gives back the space that blocks in use and what the open half-bar was promised do not need.
    ///
    /// # Errors
    /// The storage refuses.
    pub fn trim(&mut self) -> Result<(), ForestError> {
        let _bytes = self.grid.trim(self.promised)?;
        Ok(())
    }

    fn check_running(&self) -> Result<(), ForestError> {
        match self.state {
            State::Running => Ok(()),
            State::Loaded => Err(GridError::ReadOnly.into()),
            State::Failed => Err(self.failure.clone().expect("what failed is kept")),
        }
    }

    /// Takes a step that must not fail in part: after an error there is no other.
    fn attempt<T>(
        &mut self,
        step: impl FnOnce(&mut Self) -> Result<T, ForestError>,
    ) -> Result<T, ForestError> {
        let result = step(self);
        self.state = if result.is_ok() { State::Running } else { State::Failed };
        self.failure = result.as_ref().err().cloned();
        result
    }

    fn close(&mut self, root: Option<&Root>) -> Result<Option<Arc<CheckpointRun>>, ForestError> {
        let ends_bar = self.schedule.ends_bar(self.beat);
        assert!(root.is_none() || ends_bar, "a checkpoint is the end of a bar");
        self.half_bar.join(&self.grid)?;
        self.log.join()?;
        for tree in self.trees.iter() {
            tree.close_beat(&mut self.scratch);
        }
        if self.schedule.ends_half_bar(self.beat) {
            self.apply()?;
            self.wait_checkpoint()?;
            if self.schedule.half(self.beat) == Half::First {
                self.grid.free_due();
            }
        }
        if ends_bar {
            self.trees.iter().for_each(AnyTree::swap_memtables);
        }
        self.beat = self.beat.next();
        let checkpoint = root.map(|root| self.checkpoint(root)).transpose()?;
        if self.schedule.beats_left_in_half(self.beat) == self.schedule.beats_per_half() {
            // It is not admitted yet.
            self.plan();
            self.admitted = false;
        } else {
            self.begin_beat()?;
        }
        Ok(checkpoint)
    }

    /// Waits until the newest checkpoint is durable, if there is one on its way.
    ///
    /// # Errors
    /// It failed.
    fn wait_checkpoint(&mut self) -> Result<(), ForestError> {
        let Some(run) = self.checkpoint.take() else { return Ok(()) };
        run.wait_counted(&self.counts.checkpoint_waits, &*self.grid.machine().clock).map(drop)
    }

    /// Gives every job its work for the beat that opens.
    fn begin_beat(&mut self) -> Result<(), ForestError> {
        let beats_left = self.schedule.beats_left_in_half(self.beat);
        Ok(self.half_bar.begin_beat(&self.grid, beats_left)?)
    }

    /// Freezes what the half-bar that begins compacts: first the trees, then the log, which counts their edits.
    fn plan(&mut self) {
        let visible = Beat::new(self.beat.get() + self.schedule.beats_per_half());
        let mut jobs = Vec::new();
        for target in self.schedule.targets(self.schedule.half(self.beat)) {
            for tree in self.trees.iter() {
                jobs.extend(tree.plan(target, visible, self.settle));
            }
        }
        self.half_bar = HalfBar::new(jobs, Arc::clone(&self.counts));
        let (_, edits_max) = self.half_bar.bounds();
        self.log.plan(edits_max);
    }

    /// Logs the outcomes of the half-bar, in order, and makes them visible. All that has to be read for that
    /// is read before anything changes.
    fn apply(&mut self) -> Result<(), ForestError> {
        let finished = std::mem::take(&mut self.half_bar).finish()?;
        self.check_released(&finished)?;
        self.log.apply(self.beat, finished.iter().flat_map(|job| &job.outcome.edits))?;
        finished.into_iter().for_each(|job| self.apply_one(job));
        Ok(())
    }

    /// Every block that is to be released is in use and is released once. Which value blocks a table has, only
    /// its index says, so that open does not know it.
    fn check_released(&self, finished: &[Finished]) -> Result<(), Corruption> {
        let released = finished.iter().flat_map(|job| job.outcome.released.iter().copied());
        let mut released: Vec<BlockAddress> = released.collect();
        released.sort_unstable();
        let twice = released.iter().zip(released.iter().skip(1)).find(|(first, second)| first == second);
        let is_in_use = |address| self.grid.is_acquired(address) && !self.grid.is_released(address);
        let not_in_use = || released.iter().find(|address| !is_in_use(**address));
        let Some(address) = twice.map(|(first, _)| first).or_else(not_in_use) else { return Ok(()) };
        let rule = Expected::Rule("a block in use has one owner");
        Err(Corruption::new("address", rule, address.get().into()).at(Place::Block(*address)))
    }

    fn apply_one(&mut self, job: Finished) {
        let Finished { tree: id, target, mut outcome } = job;
        self.trees.by_id(id).expect("jobs come from the forest's trees").apply(&mut outcome);
        for address in &outcome.released {
            self.grid.release(*address);
        }
        self.rolling_hash.record(self.beat, id, target, &outcome);
        self.counts.applied(id, target, &outcome);
    }

    /// Begins to make the state at the end of a bar the durable root.
    fn checkpoint(&mut self, root: &Root) -> Result<Arc<CheckpointRun>, ForestError> {
        assert!(root.op_flushed <= root.op_checkpoint, "an op is applied before it is flushed");
        let in_memory = self.trees.iter().any(|tree| tree.memtable_counts() != (0, 0));
        assert!(!in_memory || root.op_flushed < root.op_checkpoint, "flushed ops are in no memtable");
        let manifest = self.log.checkpoint()?;
        let (owned, in_use) = self.accounting();
        assert_eq!(owned, in_use, "R15: every block in use has an owner");
        let update = CheckpointUpdate {
            beat: self.beat,
            op_checkpoint: root.op_checkpoint,
            op_flushed: root.op_flushed,
            charge_total: root.charge_total,
            rolling_hash: self.rolling_hash.get(),
            manifest,
        };
        let (journal_position, journal_hash) = root.journal;
        let pending = self.grid.begin_checkpoint(&update, move |local| {
            local.journal_position = journal_position;
            local.journal_hash = journal_hash;
        })?;
        let run = CheckpointRun::start(&self.grid, pending, &self.counts);
        self.checkpoint = Some(Arc::clone(&run));
        Ok(run)
    }

    /// As [`accounting`](Self::accounting), of what came from disk.
    fn check_accounting(&self) -> Result<(), Corruption> {
        let (owned, in_use) = self.accounting();
        let expected = Expected::Exactly(owned.into());
        if owned == in_use {
            Ok(())
        } else {
            Err(Corruption::new("free_set.acquired", expected, in_use.into()))
        }
    }

    /// The two sides of R15: the blocks of catalogue, trailers, manifest log and live tables, and those that
    /// are acquired and not released.
    fn accounting(&self) -> (u64, u64) {
        let of_tree = |tree: &dyn AnyTree| -> u64 {
            tree.tables().iter().map(|(_, table)| tree.block_count(table)).sum()
        };
        let tables: u64 = self.trees.iter().map(of_tree).sum();
        let owned = self.grid.own_block_count() + u64_of(self.log.addresses().count()) + tables;
        let space = self.grid.space();
        (owned, space.acquired - space.released)
    }

    /// All live tables with their levels, by tree, level and key.
    pub fn tables(&self) -> impl Iterator<Item = (Level, TableInfo)> {
        self.trees.iter().flat_map(|tree| tree.tables())
    }

    /// Whether plans from now on empty level 0 too, and let what holds tombstones leave every level.
    pub fn set_settle(&mut self, settle: bool) {
        self.settle = settle;
    }

    /// Whether all memtables and all levels 0 are empty, no level exceeds its limit, and there are no tombstones.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.trees.iter().all(AnyTree::is_settled)
    }

    /// What compaction did since open, that of compactions under way included.
    #[must_use]
    pub fn compaction_stats(&self) -> CompactionStats {
        self.counts.work().0
    }

    /// Figures about the forest: as [`Trees::stats`].
    #[must_use]
    pub fn stats(&self) -> ForestStats {
        self.trees.stats()
    }
}

/// Whoever drops a forest may close its file: nothing runs on then.
impl Drop for Forest {
    fn drop(&mut self) {
        self.half_bar.stop();
        if let Some(run) = self.checkpoint.take() {
            run.wait_end();
        }
    }
}

impl fmt::Debug for Forest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forest")
            .field("beat", &self.beat)
            .field("state", &self.state)
            .field("trees", &self.trees)
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}

fn tree_unknown(table: &TableInfo) -> Corruption {
    let expected = Expected::Rule("a tree of the catalogue");
    let found = table.tree.get().into();
    Corruption::new("table_info.tree_id", expected, found).at(Place::Block(table.index.address))
}
