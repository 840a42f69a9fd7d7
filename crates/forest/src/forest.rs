//! The forest itself: closes beats, runs what is planned, applies it, and takes checkpoints.
//!
//! The close of a beat, in this order (R4): join the work of the beat; at the end of a half-bar apply the
//! outcomes in (target level, tree) order and log them, release what they replaced, and, at the end of a
//! first half-bar, free what is due; at the end of a bar swap memtables and, if asked, take the checkpoint;
//! at the start of a half-bar plan it; reserve addresses for the next beat's quotas.

use std::sync::Arc;

use understory_compaction::{Job, Outcome};
use understory_format::{
    Beat, Checksum, Corruption, Expected, Level, ManifestEdit, Op, Place, Record, TableInfo, TreeId, u64_of,
};
use understory_grid::{CheckpointUpdate, Grid, GridError, Reservation};
use understory_io::Pool;
use understory_manifest_log::ManifestLog;
use understory_table::Scratch;
use understory_tree::{LevelStats, Tree};

use crate::any_tree::{AnyTree, TreeSpec};
use crate::pace::Pace;
use crate::schedule::{Half, Schedule};
use crate::{ForestError, RollingHash};

/// Trees that share one grid, one manifest log, one schedule and one checkpoint.
#[derive(Debug)]
pub struct Forest {
    grid: Arc<Grid>,
    schedule: Schedule,
    /// By tree id.
    trees: Vec<Box<dyn AnyTree>>,
    log: ManifestLog,
    /// The beat that is open.
    beat: Beat,
    half_bar: HalfBar,
    rolling_hash: RollingHash,
    settle: bool,
    failed: bool,
    scratch: Scratch,
    totals: CompactionStats,
    /// Of the open beat's share, what is used, in bytes.
    beat_size: u64,
}

/// The compactions of the current half-bar, in (target level, tree, key) order.
#[derive(Debug, Default)]
struct HalfBar {
    jobs: Vec<Active>,
    pace: Pace,
}

#[derive(Debug)]
struct Active {
    job: Box<dyn Job>,
    /// The work of the open beat; none once it is joined, or if the job has none in this beat.
    slice: Option<(u64, Reservation)>,
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
}

/// What compaction did since open, in values of all trees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactionStats {
    /// Compactions that read and wrote.
    pub merge_count: u64,
    /// Tables that moved down unread.
    pub move_count: u64,
    /// Values read.
    pub consumed: u64,
    /// Values written.
    pub produced: u64,
    /// Values in tables that moved.
    pub moved: u64,
}

impl Forest {
    /// Takes over the state of the checkpoint that `grid` was opened at: builds the declared trees, replays
    /// the manifest log into them, and checks that every acquired block has an owner. Writes nothing. `specs`
    /// are in the order of the file's trees and fit its geometry; their memtables draw from `pool`.
    ///
    /// # Errors
    /// Damage that leaves the tables unknown or contradictory, or failure to read.
    ///
    /// # Panics
    /// If `specs` are not the file's trees or do not fit: the caller compares them first.
    pub fn open(grid: Arc<Grid>, specs: &[TreeSpec], pool: &Pool) -> Result<Self, ForestError> {
        let descriptions = grid.trees();
        assert_eq!(descriptions.len(), specs.len(), "the caller compared the schemas");
        let pairs = specs.iter().zip(descriptions);
        let trees = pairs.map(|(spec, tree)| spec.build(&grid, tree.id, pool)).collect();
        let state = grid.checkpoint_state();
        let mut forest = Self {
            schedule: Schedule::new(grid.geometry()),
            trees,
            log: ManifestLog::new(Arc::clone(&grid), grid.geometry()),
            beat: state.beat,
            half_bar: HalfBar::default(),
            rolling_hash: RollingHash::new(state.rolling_hash),
            settle: false,
            failed: false,
            scratch: Scratch::default(),
            beat_size: 0,
            totals: CompactionStats::default(),
            grid,
        };
        forest.load_tables()?;
        forest.check_accounting()?;
        Ok(forest)
    }

    /// Goes on from the checkpoint: the first thing that is written. Not for a forest that is only read.
    ///
    /// # Errors
    /// Failure to write, or lack of space.
    pub fn begin(&mut self) -> Result<(), ForestError> {
        self.grid.begin()?;
        self.begin_beat()
    }

    fn load_tables(&mut self) -> Result<(), ForestError> {
        let Self { log, trees, grid, .. } = self;
        log.open(&grid.checkpoint_state().manifest, &mut |edit: ManifestEdit| {
            let tree = trees.iter_mut().find(|tree| tree.id() == edit.table.tree);
            tree.ok_or_else(|| tree_unknown(&edit.table))?.load(edit.level, edit.table);
            Ok(())
        })?;
        trees.iter_mut().try_for_each(|tree| tree.loaded()).map_err(ForestError::Corrupt)
    }

    /// The beat that is open.
    #[must_use]
    pub fn beat(&self) -> Beat {
        self.beat
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
        self.failed
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

    /// What has been put since the last close, in bytes of the beat's share.
    #[must_use]
    pub fn beat_size(&self) -> u64 {
        self.beat_size
    }

    /// Counts what was put towards the share of the open beat, in bytes.
    pub fn add_beat_size(&mut self, size: u64) {
        self.beat_size += size;
    }

    /// Bytes of the values in all live tables.
    #[must_use]
    pub fn live_size(&self) -> u64 {
        let levels = || (0..self.grid.geometry().levels).filter_map(Level::new);
        let values =
            |tree: &dyn AnyTree| levels().map(|level| tree.level_stats(level).value_count).sum::<u64>();
        self.trees.iter().map(|tree| values(tree.as_ref()) * tree.value_size()).sum()
    }

    /// The tree of the records of type `R`, if there is one.
    #[must_use]
    pub fn tree<R: Record>(&self) -> Option<&Tree<R>> {
        self.trees.iter().find_map(|tree| tree.as_any().downcast_ref())
    }

    /// As [`tree`](Self::tree), to put into it.
    #[must_use]
    pub fn tree_mut<R: Record>(&mut self) -> Option<&mut Tree<R>> {
        self.trees.iter_mut().find_map(|tree| tree.as_any_mut().downcast_mut())
    }

    /// Closes the open beat. `root` asks for a checkpoint, which only the close that ends a bar can take;
    /// its id is given back.
    ///
    /// # Errors
    /// Failure of the storage, lack of space, or damage met by a compaction. The forest then closes no
    /// further beat; its trees can be read as they are.
    ///
    /// # Panics
    /// If `root` is given where no bar ends, or counts ops as flushed that are still in memtables.
    pub fn close_beat(&mut self, root: Option<&Root>) -> Result<Option<Checksum>, ForestError> {
        if self.failed {
            return Err(ForestError::Grid(GridError::Poisoned));
        }
        self.failed = true;
        let checkpoint = self.close(root)?;
        self.failed = false;
        Ok(checkpoint)
    }

    fn close(&mut self, root: Option<&Root>) -> Result<Option<Checksum>, ForestError> {
        self.join()?;
        for tree in &mut self.trees {
            tree.close_beat(&mut self.scratch);
        }
        if self.schedule.ends_half_bar(self.beat) {
            self.apply()?;
            if self.schedule.half(self.beat) == Half::First {
                self.grid.free_due();
            }
        }
        let ends_bar = self.schedule.ends_bar(self.beat);
        if ends_bar {
            for tree in &mut self.trees {
                tree.swap_memtables();
            }
        }
        self.beat = self.beat.next();
        self.beat_size = 0;
        assert!(root.is_none() || ends_bar, "a checkpoint is the end of a bar");
        let checkpoint = root.map(|root| self.checkpoint(root)).transpose()?;
        self.begin_beat()?;
        Ok(checkpoint)
    }

    /// Runs what the jobs have to do in the open beat.
    fn join(&mut self) -> Result<(), ForestError> {
        for active in &mut self.half_bar.jobs {
            if let Some((quota, mut reservation)) = active.slice.take() {
                let result = active.job.run(quota, &mut reservation);
                self.grid.forfeit(reservation);
                result?;
            }
        }
        Ok(())
    }

    /// Plans the half-bar if one begins, and gives every job its quota and its addresses for the open beat.
    fn begin_beat(&mut self) -> Result<(), ForestError> {
        let beats_left = self.schedule.beats_left_in_half(self.beat);
        if beats_left == self.schedule.beats_per_half() {
            self.plan();
        }
        let HalfBar { jobs, pace } = &mut self.half_bar;
        let work: Vec<_> =
            jobs.iter().map(|active| (active.job.remaining(), active.job.value_size())).collect();
        for (active, quota) in jobs.iter_mut().zip(pace.take_beat(beats_left, &work)) {
            if quota > 0 {
                let reservation = self.grid.reserve(active.job.blocks_bound(quota))?;
                active.slice = Some((quota, reservation));
            }
        }
        Ok(())
    }

    fn plan(&mut self) {
        assert!(self.half_bar.jobs.is_empty(), "a half-bar is planned when the one before is applied");
        let visible = Beat::new(self.beat.get() + self.schedule.beats_per_half());
        let targets = self.schedule.targets(self.schedule.half(self.beat));
        let mut jobs = Vec::new();
        for target in targets {
            for tree in &self.trees {
                jobs.extend(tree.plan(target, visible, self.settle));
            }
        }
        let bytes = jobs.iter().map(|job| job.remaining() * job.value_size()).sum();
        let jobs = jobs.into_iter().map(|job| Active { job, slice: None }).collect();
        self.half_bar = HalfBar { jobs, pace: Pace::new(bytes) };
    }

    /// Makes the outcomes of the half-bar visible and durable-to-be, in order.
    fn apply(&mut self) -> Result<(), ForestError> {
        let HalfBar { jobs, pace } = std::mem::take(&mut self.half_bar);
        assert!(pace.is_done(), "the last beat of a half-bar takes all that is left");
        let mut outcomes = Vec::with_capacity(jobs.len());
        for Active { job, slice } in jobs {
            assert!(slice.is_none(), "the beat was joined");
            outcomes.push((job.tree(), job.target(), job.finish()?));
        }
        let edit_count = outcomes.iter().map(|(_, _, outcome)| u64_of(outcome.edits.len())).sum();
        if edit_count == 0 {
            return Ok(());
        }
        self.log.set_beat(self.beat);
        let mut reservation = self.grid.reserve(self.log.blocks_for(edit_count))?;
        let appended = outcomes.iter().try_for_each(|(tree, target, outcome)| {
            self.apply_outcome(*tree, *target, outcome, &mut reservation)
        });
        self.grid.forfeit(reservation);
        appended?;
        self.log.flush()?;
        Ok(())
    }

    fn apply_outcome(
        &mut self,
        tree: TreeId,
        target: Level,
        outcome: &Outcome,
        reservation: &mut Reservation,
    ) -> Result<(), ForestError> {
        for edit in &outcome.edits {
            self.log.append(*edit, reservation)?;
        }
        let applied = self.trees.iter_mut().find(|candidate| candidate.id() == tree);
        applied.expect("jobs come from the forest's trees").apply(outcome);
        for address in &outcome.released {
            self.grid.release(*address);
        }
        self.rolling_hash.record(self.beat, tree, target, outcome);
        self.totals.record(outcome);
        Ok(())
    }

    /// Makes the state at the end of a bar the durable root.
    fn checkpoint(&mut self, root: &Root) -> Result<Checksum, ForestError> {
        assert!(root.op_flushed <= root.op_checkpoint, "an op is applied before it is flushed");
        let in_memory = self.trees.iter().any(|tree| tree.memtable_counts() != (0, 0));
        assert!(!in_memory || root.op_flushed < root.op_checkpoint, "flushed ops are in no memtable");
        let manifest = self.log.checkpoint()?;
        let id = self.grid.checkpoint(&CheckpointUpdate {
            beat: self.beat,
            op_checkpoint: root.op_checkpoint,
            op_flushed: root.op_flushed,
            charge_total: root.charge_total,
            rolling_hash: self.rolling_hash.get(),
            manifest,
        })?;
        debug_assert_eq!(self.check_accounting().map_err(|error| error.to_string()), Ok(()));
        Ok(id)
    }

    /// R15: every block that is acquired and not released is a block of the catalogue, of the trailers, of
    /// the manifest log or of a live table.
    fn check_accounting(&self) -> Result<(), ForestError> {
        let state = self.grid.checkpoint_state();
        let tables = self.tables().map(|(_, table)| u64::from(table.value_block_count) + 2).sum::<u64>();
        let twins = 1 + u64::from(state.free_set.block_count) + u64::from(state.manifest.block_count);
        let owned = tables + 2 * twins;
        let space = self.grid.space();
        let live = space.acquired - space.released;
        if live == owned {
            return Ok(());
        }
        let expected = Expected::Exactly(owned.into());
        Err(Corruption::new("free_set.acquired", expected, live.into()).into())
    }

    /// All live tables with their levels, by tree, level and key.
    pub fn tables(&self) -> impl Iterator<Item = (Level, TableInfo)> {
        let levels = (0..self.grid.geometry().levels).filter_map(Level::new).collect::<Vec<_>>();
        self.trees.iter().flat_map(move |tree| {
            let levels = levels.clone();
            levels
                .into_iter()
                .flat_map(move |level| tree.tables(level).into_iter().map(move |table| (level, table)))
        })
    }

    /// Whether plans from now on empty level 0 too.
    pub fn set_settle(&mut self, settle: bool) {
        self.settle = settle;
    }

    /// Whether all memtables and all levels 0 are empty and no level exceeds its limit.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.trees.iter().all(|tree| tree.is_settled())
    }

    /// What compaction did since open.
    #[must_use]
    pub fn compaction_stats(&self) -> CompactionStats {
        self.totals
    }

    /// For each tree: its name, the size of its values in bytes, the values in its mutable and immutable
    /// memtables, and its levels.
    pub fn tree_stats(&self) -> impl Iterator<Item = (&'static str, u64, (u64, u64), Vec<LevelStats>)> {
        self.trees.iter().map(|tree| {
            let levels = (0..self.grid.geometry().levels).filter_map(Level::new);
            let levels = levels.map(|level| tree.level_stats(level)).collect();
            (tree.name(), tree.value_size(), tree.memtable_counts(), levels)
        })
    }
}

impl CompactionStats {
    fn record(&mut self, outcome: &Outcome) {
        if outcome.moved > 0 {
            self.move_count += 1
        } else {
            self.merge_count += 1
        }
        self.consumed += outcome.consumed;
        self.produced += outcome.produced;
        self.moved += outcome.moved;
    }
}

fn tree_unknown(table: &TableInfo) -> Corruption {
    let expected = Expected::Rule("a tree of the catalogue");
    let found = table.tree.get().into();
    Corruption::new("table_info.tree_id", expected, found).at(Place::Block(table.index.address))
}
