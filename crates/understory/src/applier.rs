//! The state machine: what each op of the journal does to the forest, one after another.
//!
//! Commits run through it after they are durable, and replay runs through it: the same records give the same
//! memtables, tables and addresses. An op that goes through many beats (drain, settle) is a list of steps; when space
//! runs out in the middle it stops there, with nothing half done, and goes on when it is asked to.
//!
//! # Invariants
//! - Ops come in order, without gaps (asserted).
//! - Every decision at a close (checkpoint due, plan, admission) sees the ops before it and nothing else (R3).
//! - A checkpoint counts as flushed the ops up to the end of the bar before its own (R5), or all if it ends a drain.
//!
//! # Not here
//! Durability, threads, who waits: the sequencer.

use std::collections::VecDeque;
use std::sync::Arc;

use understory_forest::{CheckpointRun, Forest, ForestError, Half, Root};
use understory_format::{Beat, Corruption, Expected, Op, RecordKind, RecordView, charge, effect_size};
use understory_journal::Mark;

use crate::clock::{Clock, Room};

/// An op, and where the journal goes on after it.
#[derive(Clone, Copy, Debug)]
struct Point {
    op: Op,
    mark: Mark,
}

/// Something that an op has still to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Closes beats up to this one.
    Until(Beat),
    /// Closes beats to the start of a bar at which no memtable takes values: all of them wait to be flushed.
    EndBar,
    /// Begins a bar of empty beats, with a checkpoint of everything at its end.
    DrainBar,
    /// Closes beats up to this one, the end of a bar, with a checkpoint of everything.
    Checkpoint(Beat),
    /// Lets plans empty level 0 too, or no longer.
    SetSettle(bool),
    /// Runs bars until no level exceeds its limit.
    SettleBars,
}

/// The forest, and what of the ops' history decides about it.
#[derive(Debug)]
pub(crate) struct Applier {
    forest: Forest,
    has_journal: bool,
    clock: Clock,
    /// The last op that was applied.
    here: Point,
    /// The last op before the end of the last bar.
    bar_end: Point,
    charge_total: u64,
    /// `charge_total` and op of the newest checkpoint that was begun.
    charge_checkpoint: u64,
    op_checkpoint: Op,
    /// The last op that the newest checkpoint counts as flushed.
    op_drained: Op,
    /// The newest checkpoint that was begun since open.
    run: Option<Arc<CheckpointRun>>,
    /// Whether a checkpoint is to be taken at the end of the bar: decided in its middle.
    due: bool,
    /// Beats closed by the replay of ops that the checkpoint counts.
    counted_beats: u64,
    steps: VecDeque<Step>,
}

impl Applier {
    /// At the checkpoint that `forest` was opened at; `mark` is where the journal has what came after `op_flushed`.
    pub(crate) fn new(forest: Forest, mark: Mark) -> Self {
        let state = forest.grid().checkpoint_state();
        let geometry = *forest.grid().geometry();
        let start = Point { op: state.op_flushed, mark };
        Self {
            clock: Clock::new(&geometry, forest.beat()),
            has_journal: geometry.has_journal(),
            forest,
            here: start,
            bar_end: start,
            charge_total: state.charge_total,
            charge_checkpoint: state.charge_total,
            op_checkpoint: state.op_checkpoint,
            op_drained: state.op_flushed,
            run: None,
            due: false,
            counted_beats: 0,
            steps: VecDeque::new(),
        }
    }

    pub(crate) fn forest(&self) -> &Forest {
        &self.forest
    }

    pub(crate) fn forest_mut(&mut self) -> &mut Forest {
        &mut self.forest
    }

    /// The last op that was applied.
    pub(crate) fn op(&self) -> Op {
        self.here.op
    }

    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    /// The last op that the newest checkpoint counts, which may be on its way still.
    pub(crate) fn op_checkpoint(&self) -> Op {
        self.op_checkpoint
    }

    /// Whether the newest checkpoint counts every op, and all of them are in tables: a drain would change nothing.
    pub(crate) fn is_drained(&self) -> bool {
        self.steps.is_empty() && self.op_drained == self.here.op
    }

    /// The newest checkpoint that was begun since open.
    pub(crate) fn run(&self) -> Option<Arc<CheckpointRun>> {
        self.run.clone()
    }

    /// Applies an op that the checkpoint counts and whose effects are in no table: into the memtables, and no more
    /// (R6).
    ///
    /// # Errors
    /// The record does not fit the schema, or there are more of them than a bar has room for.
    pub(crate) fn replay_counted(&mut self, record: &RecordView<'_>, mark: Mark) -> Result<(), ForestError> {
        match record.kind {
            RecordKind::Batch => {
                let effects = self.effects_of(record)?;
                if self.clock.room(effects) != Room::Open {
                    self.close_counted_beat(record.op)?;
                }
                self.append(record, effects)?;
            }
            RecordKind::Close | RecordKind::Drain | RecordKind::Settle => {
                self.close_counted_beat(record.op)?
            }
        }
        self.advance(record.op, mark);
        Ok(())
    }

    /// What a superblock says of op and position may fit the journal and still be wrong: memtables hold one bar.
    fn close_counted_beat(&mut self, op: Op) -> Result<(), Corruption> {
        self.counted_beats += 1;
        if self.counted_beats > self.forest.schedule().beats_per_bar() {
            let rule = Expected::Rule("an op of the bar before the checkpoint");
            return Err(Corruption::new("journal.op", rule, op.get().into()));
        }
        self.forest.close_replayed_beat();
        self.clock.close();
        Ok(())
    }

    /// Ends the replay of ops that the checkpoint counts: their bar ends.
    ///
    /// # Errors
    /// There are fewer of them than the checkpoint counts.
    pub(crate) fn end_counted(&mut self) -> Result<(), ForestError> {
        let expected = Expected::Exactly(self.op_checkpoint.get().into());
        if self.here.op != self.op_checkpoint {
            return Err(Corruption::new("journal.op", expected, self.here.op.get().into()).into());
        }
        self.forest.end_replayed_bar();
        self.forest.publish();
        self.clock = Clock::new(self.forest.grid().geometry(), self.forest.beat());
        self.bar_end = self.here;
        Ok(())
    }

    /// Applies one op. Its effects are visible when this returns, whatever else it has still to do.
    ///
    /// # Errors
    /// [`GridError::OutOfSpace`](understory_grid::GridError::OutOfSpace) if the op is applied and has steps left, to be
    /// gone on with by [`resume`](Self::resume). Any other error ends the life of the forest.
    ///
    /// # Panics
    /// If the op is not the next one, or the one before has steps left.
    pub(crate) fn apply(&mut self, record: &RecordView<'_>, mark: Mark) -> Result<(), ForestError> {
        assert_eq!(record.op, self.here.op.next(), "ops are applied in order");
        assert!(self.steps.is_empty(), "an op is applied when the one before is done");
        match record.kind {
            RecordKind::Batch => {
                let effects = self.effects_of(record)?;
                match self.clock.room(effects) {
                    Room::Open => {}
                    Room::NextBeat => self.close_beat(None)?,
                    Room::NextHalf => return Err(wrong_place(record.op).into()),
                }
                self.append(record, effects)?;
                self.forest.publish();
                self.charge_total += charge(effects);
                self.advance(record.op, mark);
                Ok(())
            }
            RecordKind::Close => self.begin_steps(record.op, mark, &[Step::Until(self.half_end())]),
            RecordKind::Drain => self.begin_steps(record.op, mark, &[Step::EndBar, Step::DrainBar]),
            RecordKind::Settle => {
                let steps = [Step::SetSettle(true), Step::EndBar, Step::SettleBars, Step::SetSettle(false)];
                self.begin_steps(record.op, mark, &steps)
            }
        }
    }

    /// Whether a batch that fits the open half-bar can be applied: nothing is left to do before, and it is admitted.
    pub(crate) fn is_ready(&self) -> bool {
        self.steps.is_empty() && self.forest.is_admitted()
    }

    /// Goes on with what the last op has left to do, and admits the open half-bar.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub(crate) fn resume(&mut self) -> Result<(), ForestError> {
        self.run_steps()?;
        self.forest.admit()
    }

    fn begin_steps(&mut self, op: Op, mark: Mark, steps: &[Step]) -> Result<(), ForestError> {
        self.charge_total += charge(0);
        self.advance(op, mark);
        self.steps.extend(steps);
        self.run_steps()
    }

    fn run_steps(&mut self) -> Result<(), ForestError> {
        while let Some(step) = self.steps.front().copied() {
            self.run_step(step)?;
            let _done = self.steps.pop_front();
            if step == Step::DrainBar {
                let end = self.forest.beat().get() + self.forest.schedule().beats_per_bar();
                self.steps.push_front(Step::Checkpoint(Beat::new(end)));
            }
        }
        Ok(())
    }

    /// A step that fails for space has done a part of what it has to do, and goes on from there.
    fn run_step(&mut self, step: Step) -> Result<(), ForestError> {
        match step {
            Step::Until(beat) => {
                while self.forest.beat() < beat {
                    let root = self.scheduled_root();
                    self.close_beat(root)?;
                }
            }
            Step::EndBar => {
                while !self.forest.begins_bar() || self.forest.has_mutable_values() {
                    self.close_beat(None)?;
                }
            }
            Step::DrainBar => {}
            Step::Checkpoint(beat) => {
                while self.forest.beat() < beat {
                    let is_last = self.forest.beat().next() == beat;
                    self.close_beat(is_last.then(|| self.root(self.here)))?;
                }
            }
            Step::SetSettle(settle) => self.forest.set_settle(settle),
            Step::SettleBars => {
                while !(self.forest.begins_bar() && self.forest.is_settled()) {
                    self.close_beat(None)?;
                }
            }
        }
        Ok(())
    }

    /// Closes the open beat. A checkpoint that falls due without a journal is a drain of its own (R8).
    fn close_beat(&mut self, root: Option<Root>) -> Result<(), ForestError> {
        let (beat, schedule) = (self.forest.beat(), *self.forest.schedule());
        let run = self.forest.close_beat(root.as_ref())?;
        self.clock.close();
        if let (Some(run), Some(root)) = (run, root) {
            self.run = Some(run);
            (self.op_checkpoint, self.op_drained) = (root.op_checkpoint, root.op_flushed);
            self.charge_checkpoint = root.charge_total;
        }
        if schedule.ends_half_bar(beat) && schedule.half(beat) == Half::First {
            self.due = self.charge_total - self.charge_checkpoint >= self.interval();
        }
        if schedule.ends_bar(beat) {
            self.bar_end = self.here;
        }
        Ok(())
    }

    /// What the checkpoint records that is taken at the close of the open beat, if that ends a bar in which one fell
    /// due. Without a journal the drain that takes it begins instead.
    fn scheduled_root(&mut self) -> Option<Root> {
        let is_due = self.due && self.forest.schedule().ends_bar(self.forest.beat());
        if is_due && !self.has_journal && !self.steps.contains(&Step::DrainBar) {
            self.steps.push_back(Step::EndBar);
            self.steps.push_back(Step::DrainBar);
        }
        (is_due && self.has_journal).then(|| self.root(self.bar_end))
    }

    fn root(&self, flushed: Point) -> Root {
        Root {
            op_checkpoint: self.here.op,
            op_flushed: flushed.op,
            charge_total: self.charge_total,
            journal: (flushed.mark.position, flushed.mark.hash),
        }
    }

    /// The charges between two scheduled checkpoints: a quarter of the live size, within the file's bounds, so that
    /// what waits to be freed stays in proportion to what is live.
    fn interval(&self) -> u64 {
        let geometry = self.forest.grid().geometry();
        (self.forest.live_size() / 4).clamp(geometry.interval_min, geometry.interval_max)
    }

    /// The first beat of the next half-bar.
    fn half_end(&self) -> Beat {
        let beat = self.forest.beat();
        Beat::new(beat.get() + self.forest.schedule().beats_left_in_half(beat))
    }

    fn advance(&mut self, op: Op, mark: Mark) {
        self.here = Point { op, mark };
    }

    /// Bytes of a batch's effects, as a beat counts them. Checks its parts against the schema.
    fn effects_of(&self, record: &RecordView<'_>) -> Result<u64, Corruption> {
        let mut effects = 0_u64;
        for part in record.parts() {
            let part = part?;
            part.check(self.forest.trees().value_size(part.tree()))?;
            effects = effects.saturating_add(effect_size(part.value_size()) * u64::from(part.count()));
        }
        let limit = u64::from(self.forest.grid().geometry().batch_size_max);
        understory_format::error::at_most("effects", limit, effects)?;
        Ok(effects)
    }

    fn append(&mut self, record: &RecordView<'_>, effects: u64) -> Result<(), ForestError> {
        for part in record.parts() {
            let part = part?;
            let appended = self.forest.append(part.tree(), part.values(), part.tombstones());
            appended.expect("the share of a beat bounds what memtables take");
        }
        self.clock.add(effects);
        Ok(())
    }
}

fn wrong_place(op: Op) -> Corruption {
    let rule = Expected::Rule("an op that fits the half-bar it is in");
    Corruption::new("journal.op", rule, op.get().into())
}
