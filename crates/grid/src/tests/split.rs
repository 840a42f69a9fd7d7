//! Checkpoints that are begun, and finished while others go on to write.

use understory_format::{CheckpointState, LocalState, TwinRef};
use understory_io::{CrashPolicy, IoCause, Join, Operation, Storage};

use super::*;
use crate::{FreeSet, PendingCheckpoint};

/// What a checkpoint must give back once it is durable.
#[derive(Clone)]
pub(super) struct Promise {
    number: u64,
    free_set: FreeSet,
    blocks: Vec<(TwinRef, u8)>,
    position: u64,
}

/// Who finishes the checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    /// The one who writes, after a part of what the next one covers.
    Later,
    /// A job beside him.
    Job,
}

/// Blocks written and released, with checkpoints that lag behind.
pub(super) struct Work {
    finish: Finish,
    pub(super) grid: Arc<Grid>,
    pub(super) live: Vec<(TwinRef, u8)>,
    fill: u8,
    /// The newest durable checkpoint.
    pub(super) durable: Promise,
    /// The one that was begun after it, if any.
    staged: Option<Promise>,
}

impl Work {
    pub(super) fn new(machine: &Machine, finish: Finish) -> Result<Self, GridError> {
        let grid = Arc::new(open_with(machine, OPTIONS)?);
        let durable = promise(&grid, &[]);
        Ok(Self { finish, grid, live: Vec::new(), fill: 0, durable, staged: None })
    }

    fn write(&mut self, count: u8) -> Result<(), GridError> {
        let mut reservation = self.grid.reserve(2 * u64::from(count))?;
        let written = (0..count).try_for_each(|_| {
            self.fill += 1;
            self.live.push((write_twin(&self.grid, &mut reservation, &[self.fill; 700])?, self.fill));
            Ok(())
        });
        self.grid.forfeit(reservation);
        written
    }

    /// The oldest go until so many are left.
    fn release(&mut self, kept: usize) {
        for (reference, _) in self.live.drain(..self.live.len() - kept) {
            self.grid.release(reference.address);
            self.grid.release(reference.twin);
        }
    }

    pub(super) fn begin(&mut self, beat: u64) -> Result<PendingCheckpoint, GridError> {
        let change = move |local: &mut LocalState| local.journal_position = 4096 * beat;
        let pending = self.grid.begin_checkpoint(&update(beat), change)?;
        assert_eq!(pending.number(), self.grid.staged_number());
        self.staged = Some(Promise { position: 4096 * beat, ..promise(&self.grid, &self.live) });
        Ok(pending)
    }

    /// What goes on while a checkpoint is on its way.
    fn go_on(&mut self) -> Result<(), GridError> {
        self.write(3)?;
        assert_eq!(self.grid.checkpoint_state().number, self.durable.number, "the newest durable one");
        self.release(3);
        self.write(2)
    }

    pub(super) fn end(&mut self) {
        self.durable = self.staged.take().expect("a checkpoint was begun");
        assert_eq!(self.grid.checkpoint_state().number, self.durable.number);
        assert_eq!(self.grid.local_state().journal_position, self.durable.position);
    }

    pub(super) fn bar(&mut self, beat: u64) -> Result<(), GridError> {
        self.write(4)?;
        self.release(4);
        let pending = self.begin(beat)?;
        match self.finish {
            Finish::Later => {
                self.go_on()?;
                let _id = self.grid.finish_checkpoint(pending)?;
            }
            Finish::Job => {
                let grid = Arc::clone(&self.grid);
                let job: Join<_> = self.grid.machine().spawn(move || grid.finish_checkpoint(pending));
                let result = self.go_on_while_pending();
                let _id = job.wait()?;
                result?;
            }
        }
        self.end();
        self.grid.free_due();
        Ok(())
    }

    /// As [`Work::go_on`], when the checkpoint may become durable at any time.
    fn go_on_while_pending(&mut self) -> Result<(), GridError> {
        // Whoever is first submits what the checkpoint refers to, and waits for it; the other waits for that.
        self.grid.flush()?;
        self.write(3)?;
        self.release(3);
        let number = self.grid.checkpoint_state().number;
        assert!([self.durable.number, self.grid.staged_number()].contains(&number));
        self.write(2)
    }

    fn run(&mut self) -> Result<(), GridError> {
        (1..6).try_for_each(|beat| self.bar(beat))
    }

    /// What was found is the durable state, or the one that was on its way, whole.
    pub(super) fn check(&self, found: &Grid) -> u64 {
        let state = found.checkpoint_state();
        let staged = self.staged.as_ref().filter(|staged| staged.number == state.number);
        let promise = staged.unwrap_or(&self.durable);
        assert_eq!(state.number, promise.number, "the durable checkpoint or the one after it");
        assert_eq!(found.free_set(), promise.free_set);
        assert_eq!(found.local_state().journal_position, promise.position, "with its checkpoint");
        for (reference, fill) in &promise.blocks {
            for copy in [reference.first(), reference.second()] {
                assert_eq!(contents(&found.read(copy, KIND).unwrap()), [*fill; 700]);
            }
        }
        let used = u64::try_from(2 * promise.blocks.len()).unwrap() + found.own_block_count();
        let space = found.space();
        assert_eq!(space.acquired - space.released, used, "R15");
        state.number
    }
}

/// What the running grid knows right after a checkpoint was begun, or opened.
pub(super) fn promise(grid: &Grid, live: &[(TwinRef, u8)]) -> Promise {
    Promise {
        number: grid.staged_number(),
        free_set: grid.free_set(),
        blocks: live.to_vec(),
        position: grid.local_state().journal_position,
    }
}

fn policies(operation: u64) -> Vec<CrashPolicy> {
    let subsets = (0..3).map(|n| CrashPolicy::KeepSubset(operation * 100 + n));
    std::iter::once(CrashPolicy::DropUnsynced).chain(subsets).collect()
}

/// A file of 80 blocks at most: not more than the work needs, so that blocks are soon used again.
pub(super) fn made(seed: u64) -> (Machine, Arc<SimStorage>) {
    let (machine, storage) = Machine::sim(seed);
    format_with(&machine, Geometry::small(), 80).unwrap();
    (machine, storage)
}

fn crash_everywhere(finish: Finish, seeds: u64) {
    let mut found = std::collections::BTreeSet::new();
    for seed in 0..seeds {
        let (machine, storage) = made(seed);
        let first = storage.operations();
        Work::new(&machine, finish).unwrap().run().unwrap();
        for operation in first + 8..storage.operations() {
            for policy in policies(operation) {
                let (machine, storage) = made(seed);
                storage.crash_at(operation, policy);
                // Another interleaving may need fewer operations.
                let Ok(mut work) = Work::new(&machine, finish) else { continue };
                let outcome = work.run();
                storage.crash(policy);
                if let Err(error) = outcome {
                    assert!(matches!(error, GridError::Io(_) | GridError::Poisoned { .. }), "{error}");
                }
                let (machine, storage) = machine_of(storage.image());
                let grid = open(&machine);
                let number = work.check(&grid);
                found.insert((work.durable.number, number));
                grid.free_due();
                let added = write_one(&grid, b"after").unwrap();
                grid.checkpoint(&update(90)).unwrap();
                let again = open(&machine_of(storage.image()).0);
                assert_eq!(again.checkpoint_state().number, number + 1);
                assert_eq!(contents(&again.read_twin(added, KIND).unwrap()), b"after");
            }
        }
    }
    for number in 0..5 {
        assert!(found.contains(&(number, number)), "the old state is found at times: {found:?}");
        assert!(found.contains(&(number, number + 1)), "and the new one: {found:?}");
    }
}

#[test]
fn a_crash_between_begin_and_finish_leaves_the_old_or_the_new_state() {
    crash_everywhere(Finish::Later, 1);
}

#[test]
fn a_crash_while_a_job_finishes_leaves_the_old_or_the_new_state() {
    crash_everywhere(Finish::Job, 3);
}

#[test]
fn what_goes_on_beside_is_in_the_next_checkpoint() {
    for finish in [Finish::Later, Finish::Job] {
        for seed in 0..10 {
            let (machine, storage) = made(seed);
            let mut work = Work::new(&machine, finish).unwrap();
            work.run().unwrap();
            work.check(&open(&machine_of(storage.image()).0));
            // Nothing but this between two checkpoints.
            for beat in 10..12 {
                let pending = work.begin(beat).unwrap();
                let id = work.grid.finish_checkpoint(pending).unwrap();
                work.end();
                assert_eq!(work.grid.checkpoint_state().id(), id);
            }
            assert_eq!((work.grid.staged_number(), work.grid.freed_number()), (7, 5));
            let again = open(&machine_of(storage.image()).0);
            assert_eq!(again.free_set(), work.grid.free_set());
            assert_eq!((again.staged_number(), again.freed_number()), (7, 6));
            work.check(&again);
        }
    }
}

#[test]
fn the_same_work_gives_the_same_checkpoints_whoever_finishes() {
    let run = |finish: Finish, seed: u64| -> (CheckpointState, FreeSet) {
        let (machine, _) = made(seed);
        let mut work = Work::new(&machine, finish).unwrap();
        work.run().unwrap();
        (work.grid.checkpoint_state(), work.grid.free_set())
    };
    let expected = run(Finish::Later, 0);
    for seed in 1..10 {
        assert_eq!(run(Finish::Job, seed), expected);
    }
}

/// Between begin and finish: a bar's work, and a checkpoint that waits.
pub(super) fn with_pending(machine: &Machine) -> (Work, PendingCheckpoint) {
    let mut work = Work::new(machine, Finish::Later).unwrap();
    work.bar(1).unwrap();
    work.write(4).unwrap();
    let pending = work.begin(2).unwrap();
    work.write(3).unwrap();
    (work, pending)
}

#[test]
fn every_failure_while_finishing_poisons() {
    let (machine, storage) = made(1);
    let (work, pending) = with_pending(&machine);
    let first = storage.operations();
    work.grid.finish_checkpoint(pending).unwrap();
    let count = storage.operations() - first;
    assert!(count >= 9, "trailers, blocks, sync, two copies, sync, two copies, sync: {count}");
    for failing in 0..count {
        let (machine, storage) = made(1);
        let (work, pending) = with_pending(&machine);
        let before = (work.grid.checkpoint_state(), work.grid.local_state());
        storage.inject(storage.operations() + failing, IoCause::Os(5));
        let error = work.grid.finish_checkpoint(pending).unwrap_err();
        let GridError::Io(cause) = error else { panic!("{error}") };
        assert!(matches!(cause.operation, Operation::Write | Operation::Sync | Operation::Check), "{cause}");
        assert_eq!(work.grid.poison(), Some(cause));
        assert_eq!((work.grid.checkpoint_state(), work.grid.local_state()), before);
        let (writes, poisoned) = (storage.counters().writes, GridError::Poisoned { cause });
        assert_eq!(work.grid.begin_checkpoint(&update(3), |_| ()).unwrap_err(), poisoned);
        assert_eq!(work.grid.update_local(|_| ()).unwrap_err(), poisoned);
        assert_eq!(work.grid.flush().unwrap_err(), poisoned);
        assert_eq!(storage.counters().writes, writes, "nothing is written any more");
        empty_caches(&work.grid);
        for (reference, fill) in &work.live {
            assert_eq!(contents(&work.grid.read_twin(*reference, KIND).unwrap()), [*fill; 700]);
        }
        storage.crash(CrashPolicy::KeepSubset(failing));
        work.check(&open(&machine_of(storage.image()).0));
    }
}

#[test]
fn a_write_that_fails_beside_stops_the_checkpoint() {
    let (machine, storage) = made(1);
    let (work, pending) = with_pending(&machine);
    // Not a block of the checkpoint: but nobody knows what else is lost.
    work.grid.flush().unwrap();
    storage.inject(storage.operations(), IoCause::Os(5));
    write_one(&work.grid, b"later").unwrap();
    let GridError::Io(cause) = work.grid.flush().unwrap_err() else { panic!("a failed write") };
    let writes = storage.counters().writes;
    assert_eq!(work.grid.finish_checkpoint(pending).unwrap_err(), GridError::Poisoned { cause });
    assert_eq!((storage.counters().writes, work.grid.poison()), (writes, Some(cause)));
    assert_eq!(work.check(&open(&machine_of(storage.image()).0)), 1);
}

#[test]
fn a_failure_elsewhere_on_the_file_stops_the_checkpoint() {
    let (machine, storage) = made(1);
    let (work, pending) = with_pending(&machine);
    let failures = [5, 28].map(|cause| understory_io::IoError::new(Operation::Sync, 0, IoCause::Os(cause)));
    failures.into_iter().for_each(|cause| work.grid.poison_by(cause));
    let before = storage.operations();
    let error = work.grid.finish_checkpoint(pending).unwrap_err();
    assert_eq!(error, GridError::Poisoned { cause: failures[0] }, "the first counts");
    assert_eq!(storage.operations(), before);
}

#[test]
fn a_failure_elsewhere_at_any_time_stops_a_superblock_that_was_not_begun() {
    let mut stopped = [0, 0];
    for seed in 0..60 {
        let (machine, storage) = made(seed);
        let (work, pending) = with_pending(&machine);
        work.grid.flush().unwrap();
        let first = storage.operations();
        let grid = Arc::clone(&work.grid);
        let job = machine.spawn(move || grid.finish_checkpoint(pending));
        // A trailer and its twin, sync, look at the file; then superblock copies.
        while storage.operations() < first + seed % 6 {
            storage.scheduler().step();
        }
        let begun = storage.operations() > first + 3;
        let cause = understory_io::IoError::new(Operation::Write, 0, IoCause::Os(5));
        work.grid.poison_by(cause);
        let result = job.wait();
        assert!(begun || result == Err(GridError::Poisoned { cause }), "{seed}: {result:?}");
        stopped[usize::from(begun)] += usize::from(result.is_err());
        assert_eq!(work.check(&open(&machine_of(storage.image()).0)), 1 + u64::from(result.is_ok()));
    }
    assert!(stopped[0] > 20, "{stopped:?}");
}
