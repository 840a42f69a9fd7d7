//! The sequencer: gives batches their ops, makes them durable in groups, has them applied in order.
//!
//! ```text
//! commit -> stage: op number, record into the open group      (a short lock)
//!        -> lead:  write the group to the journal, sync it    (one leader at a time)
//!        -> apply: every op of the group, in order; visible   (one group at a time)
//!        -> done:  each member of the group is woken on its own
//! ```
//!
//! The first who finds nobody leading leads the group that it staged into; while that is written, others stage into
//! the next. Who leads hands over to a member of the next group: before it applies its own if that is large, so that
//! writing and applying overlap, and after it has woken the members of its own if that is small, so that groups are
//! full.
//!
//! A half-bar ends by an op of its own, staged before an op that does not fit any more. No op of the next half-bar is
//! staged before that one is applied and the half-bar admitted: a batch that it has no space for is refused here,
//! before anything is written.
//!
//! # Invariants
//! - Group `k + 1` is written only after `k` is synced, unless nobody in `k` asked for that (`Durability::Buffered`).
//! - An op is visible only after its group is durable, or handed over if it is buffered (R11).
//! - After a failure nothing more is staged; whatever was staged and not applied is unknown to who committed it. A
//!   thread that panics while others wait for it is such a failure, and so is a leader whose write or sync does not end.
//!
//! # Not here
//! What an op does: the applier. How a group looks: the journal.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use understory_forest::{ForestError, Trees};
use understory_format::{Op, RecordKind};
use understory_grid::{Grid, GridError};
use understory_io::{IoCause, IoError, Machine, Operation, Pool, Turn, fresh_key, trace_event, trace_span};
use understory_journal::{Group, GroupBuilder, Journal, JournalStats};

use crate::Error;
use crate::applier::Applier;
use crate::batch::Body;
use crate::clock::{Clock, Room};
use crate::error::Failure;
use crate::stats::Counts;

/// A group of more bytes is applied while the next is written.
const OVERLAP_SIZE_MIN: u64 = 64 << 10;
/// At most so many bytes of buffered commits are handed over and not synced.
const BUFFERED_SIZE_MAX: u64 = 1 << 20;
/// Group buffers: one that ops are staged into, one that is written, one that is applied.
pub(crate) const GROUP_BUFFERS: u32 = 3;

/// What a commit waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// It is on stable storage: it survives the loss of power.
    #[default]
    Synced,
    /// It is handed to the operating system: it survives the end of the process. Loss of power may cost it, with all
    /// that came after it, but no more than the last mebibyte of the journal.
    Buffered,
}

/// One thread that waits for its op.
#[derive(Debug)]
struct Member {
    op: Op,
    key: u64,
    /// It is to lead the group that it is in. Set with the lock of the staging held.
    appointed: AtomicBool,
    outcome: OnceLock<Result<(), Failure>>,
}

/// The group that ops are staged into.
#[derive(Debug)]
struct OpenGroup {
    builder: GroupBuilder,
    sync: bool,
    members: Vec<Arc<Member>>,
}

#[derive(Debug)]
struct Staging {
    /// The last op that was staged.
    op: Op,
    /// Where it falls.
    clock: Clock,
    open: Option<OpenGroup>,
    /// Somebody leads, or is appointed to.
    led: bool,
    /// Somebody ends a half-bar, drains, settles or asks for admission: no batch is staged.
    busy: bool,
    /// Whether the half-bar that ops are staged for is admitted, and nothing is left to do before it.
    admitted: bool,
    /// Who waits to stage a batch, by the key of the wait, in the order of arrival.
    queue: VecDeque<u64>,
    failure: Option<Failure>,
}

/// Commits, from any number of threads.
#[derive(Debug)]
pub(crate) struct Sequencer {
    machine: Machine,
    grid: Arc<Grid>,
    trees: Trees,
    /// None for a file without one.
    journal: Option<Journal>,
    buffers: Pool,
    staging: Mutex<Staging>,
    /// For who waits to make staging busy, or to stage while it is.
    staging_key: u64,
    /// Whose turn it is to use the applier; the lock is free for who has the turn.
    turn: Turn,
    applier: Mutex<Applier>,
    visible: AtomicU64,
    durable: AtomicU64,
    /// Bytes handed over since the last sync.
    unsynced: AtomicU64,
    /// When the write or sync of the journal began that is under way, in nanoseconds of the park's time, and 1 more; 0 if
    /// there is none.
    since: AtomicU64,
    counts: Counts,
}

impl Sequencer {
    /// Goes on where replay ended.
    pub(crate) fn new(machine: Machine, applier: Applier, journal: Option<Journal>, buffers: Pool) -> Self {
        let forest = applier.forest();
        let staging = Staging {
            op: applier.op(),
            clock: applier.clock(),
            open: None,
            led: false,
            busy: false,
            admitted: applier.is_ready(),
            queue: VecDeque::new(),
            failure: None,
        };
        let durable = if journal.is_some() { applier.op() } else { applier.op_checkpoint() };
        Self {
            grid: Arc::clone(forest.grid()),
            trees: forest.trees().clone(),
            journal,
            buffers,
            staging: Mutex::new(staging),
            staging_key: fresh_key(),
            turn: Turn::new(Arc::clone(&machine.park)),
            visible: AtomicU64::new(applier.op().get()),
            durable: AtomicU64::new(durable.get()),
            unsynced: AtomicU64::new(0),
            since: AtomicU64::new(0),
            counts: Counts::default(),
            applier: Mutex::new(applier),
            machine,
        }
    }

    pub(crate) fn trees(&self) -> &Trees {
        &self.trees
    }

    pub(crate) fn grid(&self) -> &Arc<Grid> {
        &self.grid
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(crate) fn journal_stats(&self) -> JournalStats {
        self.journal.as_ref().map(Journal::stats).unwrap_or_default()
    }

    /// The last op that readers see.
    pub(crate) fn visible(&self) -> Op {
        Op::new(self.visible.load(Ordering::Acquire))
    }

    /// The last op that survives the loss of power.
    pub(crate) fn durable(&self) -> Op {
        let checkpoint = self.grid.checkpoint_state().op_checkpoint;
        Op::new(self.durable.load(Ordering::Acquire)).max(checkpoint)
    }

    /// Uses the applier when it is between two groups; waits for that.
    pub(crate) fn with_applier<T>(&self, act: impl FnOnce(&mut Applier) -> T) -> T {
        let _turn = self.turn.take();
        act(&mut self.applier.lock())
    }

    /// Commits a batch: its op is applied, and as durable as asked for, when this returns.
    pub(crate) fn commit(&self, body: &Body<'_>, durability: Durability) -> Result<Op, Error> {
        self.check()?;
        let (member, leads) = self.stage(body, durability)?;
        self.finish(&member, leads)?;
        Ok(member.op)
    }

    /// Runs an op that goes through whole bars; gives it when it is done.
    pub(crate) fn run(&self, kind: RecordKind) -> Result<Op, Error> {
        self.check()?;
        self.exclusively(|| {
            self.resume()?;
            self.run_special(kind)
        })
    }

    /// Whether the handle can still write. A checkpoint that failed on its worker ends it now, not when its end is
    /// waited for.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.grid.poison().map_or(Ok(()), |cause| Err(Error::from(self.fail(Failure::Io(cause)))))?;
        self.staging.lock().check()
    }

    /// Makes all that was committed durable, and has the journal say so: damage to it is told from a torn end from now
    /// on. Nothing without a journal.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        let Some(journal) = &self.journal else { return Ok(()) };
        self.check()?;
        self.exclusively(|| {
            self.wait_staging(&mut |staging| !staging.led);
            self.staging.lock().check()?;
            let witnessed = self.watched(|| journal.witness());
            witnessed.map_err(|error| self.fail(error.into()))?;
            self.durable.fetch_max(journal.synced_op().get(), Ordering::AcqRel);
            self.unsynced.store(0, Ordering::Relaxed);
            Ok(())
        })
    }

    /// The first failure, if there was one.
    pub(crate) fn failure(&self) -> Option<Failure> {
        self.staging.lock().failure.clone()
    }

    /// Puts a batch into the open group, for the half-bar that is open and admitted. Who has to wait for room is served
    /// in the order of arrival.
    fn stage(&self, body: &Body<'_>, durability: Durability) -> Result<(Arc<Member>, bool), Error> {
        let mut place = None;
        let staged = self.stage_in_turn(body, durability, &mut place);
        if let Some(key) = place {
            self.staging.lock().queue.retain(|other| *other != key);
            self.wake_next();
        }
        staged
    }

    /// `place` is the key of the caller's place in the queue, once it has one.
    fn stage_in_turn(
        &self,
        body: &Body<'_>,
        durability: Durability,
        place: &mut Option<u64>,
    ) -> Result<(Arc<Member>, bool), Error> {
        loop {
            let mut staging = self.staging.lock();
            staging.check()?;
            let is_next = staging.queue.is_empty() || staging.queue.front() == place.as_ref();
            if is_next && !staging.busy {
                let room = staging.clock.room(body.effects);
                if !staging.admitted || room == Room::NextHalf {
                    drop(staging);
                    self.open_half_bar(body.effects)?;
                    continue;
                }
                if let Some(staged) = self.push(&mut staging, RecordKind::Batch, body, durability) {
                    if room == Room::NextBeat {
                        staging.clock.close();
                    }
                    staging.clock.add(body.effects);
                    return Ok(staged);
                }
            }
            let key = *place.get_or_insert_with(fresh_key);
            if !staging.queue.contains(&key) {
                staging.queue.push_back(key);
            }
            drop(staging);
            self.wait_or_fail(key, &mut || {
                let staging = self.staging.lock();
                let is_next = staging.queue.front() == Some(&key);
                staging.failure.is_some() || (is_next && !staging.busy && self.has_room(&staging, body.size))
            });
        }
    }

    /// Lets the first in the queue see whether it can stage.
    fn wake_next(&self) {
        let next = self.staging.lock().queue.front().copied();
        if let Some(key) = next {
            self.machine.park.wake(key);
        }
    }

    /// Something changed that stagings wait for.
    fn wake_staging(&self) {
        self.machine.park.wake(self.staging_key);
        self.wake_next();
    }

    /// Ends the half-bar that has no room for an op of this size, and has the open one admitted.
    fn open_half_bar(&self, effects: u64) -> Result<(), Error> {
        self.exclusively(|| {
            // What an op left undone comes before its successor.
            self.resume()?;
            self.refresh();
            if self.staging.lock().clock.room(effects) == Room::NextHalf {
                let _op = self.run_special(RecordKind::Close)?;
                self.resume()?;
            }
            Ok(())
        })
    }

    /// Goes on with what an op left undone for want of space, and has the open half-bar admitted.
    fn resume(&self) -> Result<(), Error> {
        let result = self.with_applier(|applier| {
            let resumed = applier.resume();
            resumed.map_err(|error| (is_full(&error, applier), error))
        });
        result.map_err(|(is_full, error)| if is_full { error.into() } else { self.fail(error.into()).into() })
    }

    /// Runs `act` while no batch is staged; before others go on, the staging clock is set to the applier's.
    fn exclusively<T>(&self, act: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        loop {
            let mut staging = self.staging.lock();
            staging.check()?;
            if !staging.busy {
                staging.busy = true;
                break;
            }
            drop(staging);
            self.wait_staging(&mut |staging| !staging.busy);
        }
        let guard = OnPanic { sequencer: self, members: &[] };
        let result = act();
        self.refresh();
        std::mem::forget(guard);
        self.staging.lock().busy = false;
        self.wake_staging();
        result
    }

    /// Sets the staging clock to the applier's; the caller has made staging busy.
    fn refresh(&self) {
        let (op, clock, is_ready) =
            self.with_applier(|applier| (applier.op(), applier.clock(), applier.is_ready()));
        let mut staging = self.staging.lock();
        // Ops from before may still be on their way: then the staging clock is ahead, in the same half-bar.
        if staging.op == op {
            staging.clock = clock;
        }
        staging.admitted = is_ready;
    }

    /// Commits an op without effects; the caller has made staging busy. Nobody minds whether it was committed if that
    /// fails.
    fn run_special(&self, kind: RecordKind) -> Result<Op, Error> {
        let (member, leads) = self.stage_special(kind)?;
        match self.finish(&member, leads) {
            Ok(()) => Ok(member.op),
            Err(Error::CommitUnknown { cause, .. }) => Err(Error::Poisoned { cause }),
            Err(error) => Err(error),
        }
    }

    /// Puts an op without effects into the open group.
    fn stage_special(&self, kind: RecordKind) -> Result<(Arc<Member>, bool), Error> {
        loop {
            let mut staging = self.staging.lock();
            staging.check()?;
            if let Some(staged) = self.push(&mut staging, kind, &Body::empty(), Durability::Synced) {
                return Ok(staged);
            }
            drop(staging);
            self.wait_staging(&mut |staging| self.has_room(staging, 0));
        }
    }

    /// Appends a record to the open group, or begins one; none if it has to wait for room. Also whether the caller
    /// leads.
    fn push(
        &self,
        staging: &mut Staging,
        kind: RecordKind,
        body: &Body<'_>,
        durability: Durability,
    ) -> Option<(Arc<Member>, bool)> {
        let op = staging.op.next();
        if staging.open.is_none() {
            let builder = GroupBuilder::new(self.buffers.take()?, op);
            staging.open = Some(OpenGroup { builder, sync: false, members: Vec::new() });
        }
        let group = staging.open.as_mut().expect("just opened");
        if !group.builder.fits(body.size) {
            return None;
        }
        group.builder.push(kind, body.part_count(), body.size, |bytes| body.encode(bytes));
        group.sync |= durability == Durability::Synced;
        let member = Arc::new(Member {
            op,
            key: fresh_key(),
            appointed: AtomicBool::new(false),
            outcome: OnceLock::new(),
        });
        group.members.push(Arc::clone(&member));
        staging.op = op;
        let leads = !std::mem::replace(&mut staging.led, true);
        Some((member, leads))
    }

    fn wait_staging(&self, ready: &mut dyn FnMut(&Staging) -> bool) {
        self.wait_or_fail(self.staging_key, &mut || {
            let staging = self.staging.lock();
            staging.failure.is_some() || ready(&staging)
        });
    }

    /// Waits for what comes after a write or sync of somebody else. If that does not end, the handle has failed.
    fn wait_or_fail(&self, key: u64, ready: &mut dyn FnMut() -> bool) {
        if let Err(failure) = self.wait(key, ready) {
            let _first = self.fail(failure);
        }
    }

    /// Waits until `ready`, or until a write or sync of the journal has been under way for too long.
    fn wait(&self, key: u64, ready: &mut dyn FnMut() -> bool) -> Result<(), Failure> {
        let park = &self.machine.park;
        let Some(patience) = self.machine.storage.patience() else {
            park.park_until(key, ready);
            return Ok(());
        };
        while !park.park_until_deadline(key, park.now().saturating_add(patience), ready) {
            let since = self.since.load(Ordering::Acquire);
            if since > 0 && park.now().saturating_sub(Duration::from_nanos(since)) >= patience {
                log::error!("a write or sync of the journal has not ended for {patience:?}");
                return Err(Failure::Io(IoError::new(Operation::Write, 0, IoCause::TimedOut)));
            }
        }
        Ok(())
    }

    /// Does what may not end, for those to see who wait for it.
    fn watched<T>(&self, act: impl FnOnce() -> T) -> T {
        let now = u64::try_from(self.machine.park.now().as_nanos()).unwrap_or(u64::MAX);
        self.since.store(now.max(1), Ordering::Release);
        let result = act();
        self.since.store(0, Ordering::Release);
        result
    }

    /// Whether the open group has room for a record, or there is a buffer to open one.
    fn has_room(&self, staging: &Staging, size: u64) -> bool {
        match &staging.open {
            Some(group) => group.builder.fits(size),
            None => self.buffers.available() > 0,
        }
    }

    /// Waits for the outcome of an op that was staged; leads its group if that falls to the caller.
    fn finish(&self, member: &Member, leads: bool) -> Result<(), Error> {
        if !leads {
            let mut ready = || member.outcome.get().is_some() || member.appointed.load(Ordering::Acquire);
            if let Err(failure) = self.wait(member.key, &mut ready)
                && self.leave(member)
            {
                return Err(Error::CommitUnknown { op: member.op, cause: self.fail(failure) });
            }
        }
        if member.outcome.get().is_none() {
            self.lead();
        }
        match member.outcome.get().expect("a group that is led has an outcome") {
            Ok(()) => Ok(()),
            Err(Failure::OutOfSpace { needed, free }) if self.failure().is_none() => {
                Err(Error::OutOfSpace { needed: *needed, free: *free })
            }
            Err(cause) => Err(Error::CommitUnknown { op: member.op, cause: cause.clone() }),
        }
    }

    /// Lets an op go its way without who committed it; false if that is to lead, or knows what became of it.
    fn leave(&self, member: &Member) -> bool {
        let mut staging = self.staging.lock();
        if member.appointed.load(Ordering::Acquire) || member.outcome.get().is_some() {
            return false;
        }
        if let Some(group) = &mut staging.open {
            group.members.retain(|other| other.op != member.op);
        }
        true
    }

    /// Writes, applies and acknowledges the open group.
    fn lead(&self) {
        let OpenGroup { builder, sync, members } =
            self.staging.lock().open.take().expect("who leads has staged into the open group");
        self.wake_staging();
        let guard = OnPanic { sequencer: self, members: &members };
        let written = self.write(builder, sync);
        let group = match written {
            Ok(group) => group,
            Err(failure) => {
                let failure = self.fail(failure);
                std::mem::forget(guard);
                self.acknowledge(&members, &Err((Op::ZERO, failure)));
                return self.hand_over();
            }
        };
        let turn = self.turn.take();
        let overlaps = group.size() > OVERLAP_SIZE_MIN;
        if overlaps {
            self.hand_over();
        }
        let applied = self.apply(&group);
        std::mem::forget(guard);
        // Its buffer is free for who waits to stage.
        drop(group);
        drop(turn);
        self.wake_staging();
        self.acknowledge(&members, &applied);
        if !overlaps {
            self.hand_over();
        }
    }

    /// Makes a group as durable as its members ask for.
    fn write(&self, builder: GroupBuilder, sync: bool) -> Result<Group, Failure> {
        let Some(journal) = &self.journal else { return Ok(builder.into_group()) };
        self.make_room(journal, builder.size())?;
        let group = self.watched(|| journal.write(builder, self.grid.checkpoint_state().id()))?;
        let unsynced = self.unsynced.load(Ordering::Relaxed) + group.size();
        let sync = sync || unsynced > BUFFERED_SIZE_MAX;
        if sync {
            self.watched(|| journal.sync())?;
            self.durable.store(group.last_op().get(), Ordering::Release);
        }
        self.unsynced.store(if sync { 0 } else { unsynced }, Ordering::Relaxed);
        Ok(group)
    }

    /// Waits for the checkpoint that lets the ring's oldest groups go, if there is no room without it. A ring is as
    /// large as what can be in it before that.
    fn make_room(&self, journal: &Journal, size: u64) -> Result<(), Failure> {
        journal.release(self.grid.local_state().journal_position);
        if journal.room() >= size {
            return Ok(());
        }
        if let Some(run) = self.with_applier(|applier| applier.run()) {
            let _span = trace_span!(DEBUG, "ring_full");
            let _id = run.wait_counted(&self.counts.ring_waits, &*self.machine.clock)?;
        }
        journal.release(self.grid.local_state().journal_position);
        assert!(
            journal.room() >= size,
            "the ring holds an interval and what comes before its checkpoint is durable"
        );
        Ok(())
    }

    /// Applies all ops of a group. After an error: the last op that is applied, and why the next is not.
    fn apply(&self, group: &Group) -> Result<(), (Op, Failure)> {
        if let Some(failure) = self.failure() {
            return Err((Op::ZERO, failure));
        }
        let mut applier = self.applier.lock();
        for (record, mark) in group.records() {
            let applied = applier.apply(&record, mark);
            self.visible.store(applier.op().get(), Ordering::Release);
            let Err(error) = applied else { continue };
            let before = Op::new(record.op.get() - 1);
            // Such an op is applied, with steps left to be gone on with. Nobody stages behind one that goes through whole
            // bars, so that it is the last of its group.
            let goes_on = is_full(&error, &applier) && applier.op() == record.op;
            let failure = Failure::from(error);
            return Err((before, if goes_on { failure } else { self.fail(failure) }));
        }
        Ok(())
    }

    /// Tells each member of a group what became of its op. Wakes just them.
    fn acknowledge(&self, members: &[Arc<Member>], applied: &Result<(), (Op, Failure)>) {
        for member in members {
            let outcome = match applied {
                Err((last, failure)) if member.op > *last => Err(failure.clone()),
                Ok(()) | Err(_) => Ok(()),
            };
            member.outcome.set(outcome).expect("a group has one outcome");
            self.machine.park.wake(member.key);
        }
    }

    /// Lets a member of the next group lead, if there is one.
    fn hand_over(&self) {
        let next = {
            let mut staging = self.staging.lock();
            let next = staging.open.as_ref().and_then(|group| group.members.first().cloned());
            staging.led = next.is_some();
            if let Some(member) = &next {
                member.appointed.store(true, Ordering::Release);
            }
            (next, staging.busy)
        };
        match next {
            (Some(member), _) => self.machine.park.wake(member.key),
            // Somebody may wait for the end of what was on its way.
            (None, true) => self.wake_staging(),
            (None, false) => {}
        }
    }

    /// Notes a failure after which nothing is staged and no superblock written (R12); gives the first one.
    fn fail(&self, failure: Failure) -> Failure {
        if let Failure::Io(cause) = failure {
            self.grid.poison_by(cause);
        }
        trace_event!(ERROR, %failure, "no more commits are taken");
        let first = self.staging.lock().failure.get_or_insert(failure).clone();
        // The first in the queue leaves it, and wakes the next.
        self.wake_staging();
        first
    }
}

/// For the time in which others wait for this thread: if it panics, they are told.
struct OnPanic<'a> {
    sequencer: &'a Sequencer,
    /// Those who wait for the outcome of a group that it leads; none if it holds the staging busy.
    members: &'a [Arc<Member>],
}

impl Drop for OnPanic<'_> {
    fn drop(&mut self) {
        let failure = self.sequencer.fail(Failure::Panicked);
        if self.members.is_empty() {
            self.sequencer.staging.lock().busy = false;
            return self.sequencer.wake_staging();
        }
        for member in self.members {
            // One that has an outcome knows it already.
            let _known = member.outcome.set(Err(failure.clone()));
            self.sequencer.machine.park.wake(member.key);
        }
        self.sequencer.hand_over();
    }
}

/// Whether there was no space for what can be gone on with when there is.
fn is_full(error: &ForestError, applier: &Applier) -> bool {
    matches!(error, ForestError::Grid(GridError::OutOfSpace { .. })) && !applier.forest().has_failed()
}

impl Staging {
    fn check(&self) -> Result<(), Error> {
        match &self.failure {
            Some(cause) => Err(Error::Poisoned { cause: cause.clone() }),
            None => Ok(()),
        }
    }
}

/// Bytes of the buffers that groups are built in.
pub(crate) fn buffer_size(geometry: &understory_format::Geometry) -> u64 {
    Journal::group_size_max(geometry)
}
