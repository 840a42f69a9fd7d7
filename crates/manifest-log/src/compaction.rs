//! A half-bar of the log: what it gives up, the reading of that beside commits, and the append at its end.
//!
//! ```text
//!           plan            start             join            apply
//!   Idle ----------> Planned ------> Reading ------> Ready ----------> Idle
//!    |  ^
//!    +--+ checkpoint
//! ```
//!
//! When a half-bar is planned, no record is appended before its end. So it is settled then which of the oldest blocks
//! are given up ([`Pace`](crate::pace::Pace)), and their live records can be read while the half-bar runs. At its end
//! the edits of the half-bar are appended; then those of the records read that still are the newest of their table. Now
//! the blocks are dead and are released like all dead blocks.
//!
//! A record that is kept is appended as an *update* with the same content, whatever it was: so the records of a table
//! stay an insert, updates, a remove also while its old record is still in the log.
//!
//! # Invariants
//! - Calls in another order are assertions (`the_order_of_calls_is_asserted`).
//! - A record is kept exactly if it is where the extent of its table points to, block and entry: an address that was used
//!   again has an extent of its own (model fuzzer).
//! - After `apply` all blocks that were to be given up are released, and the log is within its bound (asserted there).
//! - Whatever fails before `apply` has changed nothing.
//!
//! # Not here
//! How many blocks are given up: `pace`.

use std::mem;

use understory_format::{
    Beat, BlockKind, Corruption, EditKind, Expected, ManifestBlockView, ManifestEdit, Place, u64_of,
};
use understory_grid::{Grid, Reservation};
use understory_io::Join;

use crate::error::LogError;
use crate::extents::Extent;
use crate::log::{ClosedBlock, ManifestLog};

/// Where in its half-bar the log is.
#[derive(Debug, Default)]
pub(crate) enum Phase {
    /// Between two half-bars.
    #[default]
    Idle,
    /// It is settled what is given up.
    Planned(Plan),
    /// That is being read.
    Reading(Join<Read>),
    /// That is in memory; what is missing are the edits of the half-bar.
    Ready(Plan),
    /// A step failed: the log says nothing of what is on disk any more.
    Failed,
}

/// What a half-bar gives up.
#[derive(Debug)]
pub(crate) struct Plan {
    edits_max: u64,
    /// Blocks that are read, oldest first: those with live records.
    blocks: Vec<ClosedBlock>,
    /// Of the oldest block that stays, if one does.
    sequence_kept: u64,
    /// Live records of those that go.
    records: u64,
}

/// A record and where it was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Located {
    extent: Extent,
    edit: ManifestEdit,
}

/// What the reading of a plan's blocks gives.
#[derive(Debug)]
pub(crate) struct Read {
    plan: Plan,
    records: Vec<Located>,
    result: Result<(), LogError>,
}

impl ManifestLog {
    /// Begins a half-bar that will append at most `edits_max` edits: settles which of the oldest blocks are given up at
    /// its end. That depends on the log alone, and is the same when the log was opened at the last checkpoint.
    ///
    /// # Panics
    /// If a half-bar has begun and not ended, or a step failed before.
    pub fn plan(&mut self, edits_max: u64) {
        assert!(matches!(self.phase, Phase::Idle), "a half-bar is planned when the one before has ended");
        self.largest.tables = self.largest.tables.max(self.table_count());
        self.largest.edits = self.largest.edits.max(edits_max);
        let live = self.blocks.iter().map(|block| block.live);
        let choice = self.pace.choose(live, self.block_count(), self.table_count(), edits_max);
        let sequence_kept = self.blocks.front().map_or(0, |oldest| oldest.sequence + u64_of(choice.blocks));
        let given_up = self.blocks.iter().take(choice.blocks);
        let blocks = given_up.filter(|block| block.live > 0).copied().collect();
        self.phase = Phase::Planned(Plan { edits_max, blocks, sequence_kept, records: choice.records });
    }

    /// The most addresses that the end of the planned half-bar takes, twins included.
    ///
    /// # Panics
    /// If no half-bar is planned, or its blocks are being read.
    #[must_use]
    pub fn addresses_max(&self) -> u64 {
        let (Phase::Planned(plan) | Phase::Ready(plan)) = &self.phase else {
            unreachable!("what a half-bar takes is asked for when it is planned")
        };
        self.addresses_for(plan.edits_max + plan.records)
    }

    /// Starts to read the blocks that are given up, on the machine's executor.
    ///
    /// # Panics
    /// If no half-bar is planned, or it was started.
    pub fn start(&mut self) {
        let Phase::Planned(plan) = mem::replace(&mut self.phase, Phase::Failed) else {
            unreachable!("a half-bar is started once, when it is planned")
        };
        if plan.blocks.is_empty() {
            self.phase = Phase::Ready(plan);
            return;
        }
        let (grid, mut records) = (self.grid.clone(), mem::take(&mut self.records));
        self.phase = Phase::Reading(self.grid.machine().spawn(move || {
            let result = plan.blocks.iter().try_for_each(|block| read(&grid, block, &mut records));
            Read { plan, records, result }
        }));
    }

    /// Waits until they are read; at once if they were joined before.
    ///
    /// # Errors
    /// A block that cannot be read from either copy, or is not what it was when the log was opened. Nothing has changed,
    /// but the half-bar cannot end: every later call but [`ManifestLog::verify`] and the questions panics.
    ///
    /// # Panics
    /// If the half-bar was not started.
    pub fn join(&mut self) -> Result<(), LogError> {
        match mem::replace(&mut self.phase, Phase::Failed) {
            Phase::Reading(join) => {
                let Read { plan, records, result } = join.wait();
                self.records = records;
                result?;
                self.keep_live(&plan)?;
                self.phase = Phase::Ready(plan);
            }
            Phase::Ready(plan) => self.phase = Phase::Ready(plan),
            phase @ (Phase::Idle | Phase::Planned(_) | Phase::Failed) => {
                unreachable!("a half-bar is joined after it was started: {phase:?}")
            }
        }
        Ok(())
    }

    /// Of the records read, keeps those that an extent points to: as many as each block was known to have.
    fn keep_live(&mut self, plan: &Plan) -> Result<(), Corruption> {
        let Self { records, extents, .. } = self;
        records.retain(|record| extents.get(record.edit.table.index.address) == Some(record.extent));
        let mut found = records.chunk_by(|a, b| a.extent.sequence == b.extent.sequence);
        for block in &plan.blocks {
            let count =
                found.next().filter(|of| of.iter().all(|record| block.holds(record))).map_or(0, <[_]>::len);
            if u64_of(count) != u64::from(block.live) {
                let expected = Expected::Exactly(block.live.into());
                let error = Corruption::new("live_record_count", expected, u64_of(count).into());
                return Err(error.at(Place::Block(block.reference.address)));
            }
        }
        Ok(())
    }

    /// Ends the half-bar: appends its edits, and the records that are kept of the blocks which are given up; hands full
    /// blocks to the grid; releases the oldest blocks as long as they have no live record. Blocks carry `beat` in their
    /// header.
    ///
    /// # Errors
    /// If there is no room for [`ManifestLog::addresses_max`]: nothing has changed, and it can be tried again. The grid
    /// refuses a block: then every later call but the questions panics.
    ///
    /// # Panics
    /// If the half-bar was not joined, has more edits than it was planned for, a table is inserted that is live, or
    /// another edit is of a table that is not.
    pub fn apply<'a>(
        &mut self,
        beat: Beat,
        edits: impl Iterator<Item = &'a ManifestEdit> + Clone,
    ) -> Result<(), LogError> {
        let Phase::Ready(plan) = &self.phase else {
            unreachable!("a half-bar ends when what it gives up was read: {:?}", self.phase)
        };
        let edit_count = u64_of(edits.clone().count());
        assert!(edit_count <= plan.edits_max, "{edit_count} edits of at most {}", plan.edits_max);
        let sequence_kept = plan.sequence_kept;
        let count = self.addresses_for(edit_count + u64_of(self.records.len()));
        let mut reservation = self.grid.reserve(count)?;
        self.phase = Phase::Failed;
        self.beat = beat;
        let appended = self.append_all(edits, &mut reservation);
        self.grid.forfeit(reservation);
        appended?;
        self.release_dead();
        let stays = |block: &ClosedBlock| block.sequence >= sequence_kept;
        assert!(self.blocks.front().is_none_or(stays), "what was to be given up is released");
        let (count, count_max) = (self.block_count(), self.blocks_max());
        assert!(count <= count_max, "the log has {count} blocks, at most {count_max} by its pace");
        self.phase = Phase::Idle;
        Ok(())
    }

    fn append_all<'a>(
        &mut self,
        edits: impl Iterator<Item = &'a ManifestEdit>,
        reservation: &mut Reservation,
    ) -> Result<(), LogError> {
        for edit in edits {
            self.append(edit, reservation)?;
        }
        let mut records = mem::take(&mut self.records);
        for Located { extent, edit } in &records {
            if self.extents.get(edit.table.index.address) == Some(*extent) {
                self.append(&ManifestEdit { kind: EditKind::Update, ..*edit }, reservation)?;
            }
        }
        // The room stays.
        records.clear();
        self.records = records;
        self.close_full()
    }
}

/// Nothing reads for a log that is no more.
impl Drop for ManifestLog {
    fn drop(&mut self) {
        if let Phase::Reading(join) = mem::take(&mut self.phase) {
            drop(join.outcome());
        }
    }
}

impl ClosedBlock {
    fn holds(&self, record: &Located) -> bool {
        record.extent.sequence == self.sequence
    }
}

/// Appends the inserts and updates of a block to `records`.
fn read(grid: &Grid, block: &ClosedBlock, records: &mut Vec<Located>) -> Result<(), LogError> {
    let placed = |error: Corruption| error.at(Place::Block(block.reference.address));
    let bytes = grid.read_twin(block.reference, BlockKind::Manifest)?;
    let view = ManifestBlockView::new(&bytes).map_err(placed)?;
    for entry in 0..view.entry_count() {
        let edit = view.edit(entry).map_err(placed)?;
        if edit.kind != EditKind::Remove {
            records.push(Located { extent: Extent { sequence: view.sequence(), entry }, edit });
        }
    }
    Ok(())
}
