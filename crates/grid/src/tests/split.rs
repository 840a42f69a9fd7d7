//! Checkpoints that are begun, and finished while others go on to write.

use std::sync::atomic::{AtomicBool, Ordering};

use understory_format::{CheckpointState, LocalState, TwinRef};
use understory_io::{CrashPolicy, IoCause, Join, Operation, Storage};

use super::*;
use crate::{FreeSet, PendingCheckpoint};

/// What a checkpoint must give back once it is durable.
#[derive(Clone)]
struct Promise {
    number: u64,
    free_set: FreeSet,
    blocks: Vec<(TwinRef, u8)>,
    position: u64,
}

/// Who finishes the checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finish {
    /// The one who writes, after a part of what the next one covers.
    Later,
    /// A job beside him.
    Job,
}

/// Blocks written and released, with checkpoints that lag behind.
struct Work {
    finish: Finish,
    grid: Arc<Grid>,
    live: Vec<(TwinRef, u8)>,
    fill: u8,
    /// The newest durable checkpoint.
    durable: Promise,
    /// The one that was begun after it, if any.
    staged: Option<Promise>,
}

impl Work {
    fn new(machine: &Machine, finish: Finish) -> Result<Self, GridError> {
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

    fn begin(&mut self, beat: u64) -> Result<PendingCheckpoint, GridError> {
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

    fn end(&mut self) {
        self.durable = self.staged.take().expect("a checkpoint was begun");
        assert_eq!(self.grid.checkpoint_state().number, self.durable.number);
        assert_eq!(self.grid.local_state().journal_position, self.durable.position);
    }

    fn bar(&mut self, beat: u64) -> Result<(), GridError> {
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
    fn check(&self, found: &Grid) -> u64 {
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
fn promise(grid: &Grid, live: &[(TwinRef, u8)]) -> Promise {
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
fn made(seed: u64) -> (Machine, Arc<SimStorage>) {
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
fn with_pending(machine: &Machine) -> (Work, PendingCheckpoint) {
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
fn a_local_superblock_between_is_kept_and_says_nothing_of_the_checkpoint() {
    let (machine, storage) = made(1);
    let (mut work, pending) = with_pending(&machine);
    work.grid.update_local(|local| local.salvage_count = 7).unwrap();
    let between = open_with(&machine_of(storage.image()).0, READ_ONLY).unwrap();
    assert_eq!(between.checkpoint_state().number, 1);
    let local = between.local_state();
    assert_eq!((local.salvage_count, local.journal_position), (7, 4096), "that of checkpoint 1");
    work.grid.finish_checkpoint(pending).unwrap();
    work.end();
    assert_eq!(work.grid.local_state().salvage_count, 7);
    work.check(&open(&machine_of(storage.image()).0));
}

#[test]
fn local_superblocks_beside_are_all_kept() {
    for seed in 0..30 {
        let (machine, storage) = made(seed);
        let (work, pending) = with_pending(&machine);
        let before = work.grid.local_state().sequence;
        let (one, other) = (Arc::clone(&work.grid), Arc::clone(&work.grid));
        let finish = machine.spawn(move || one.finish_checkpoint(pending));
        let beside = machine
            .spawn(move || (0..5).try_for_each(|_| other.update_local(|local| local.salvage_count += 1)));
        beside.wait().unwrap();
        finish.wait().unwrap();
        let local = Grid::peek(&machine_of(storage.image()).0).unwrap().local;
        assert_eq!(local, work.grid.local_state());
        let found = (local.salvage_count, local.journal_position, local.sequence);
        assert_eq!(found, (5, 2 * 4096, before + 6));
    }
}

#[test]
fn without_room_nothing_is_begun() {
    let (machine, storage) = made(1);
    let mut work = Work::new(&machine, Finish::Later).unwrap();
    work.bar(1).unwrap();
    let room = work.grid.space().free;
    let mut rest = work.grid.reserve(room - 1).unwrap();
    while rest.left() > 0 {
        let _ = work.grid.acquire(&mut rest);
    }
    work.grid.forfeit(rest);
    let before = (work.grid.free_set(), work.grid.staged_number(), work.grid.own_block_count());
    let operations = storage.operations();
    let error = work.grid.begin_checkpoint(&update(2), |_| ()).unwrap_err();
    assert_eq!(error, GridError::OutOfSpace { needed: 2, free: 1 });
    let after = (work.grid.free_set(), work.grid.staged_number(), work.grid.own_block_count());
    assert_eq!(after, before);
    assert_eq!((storage.operations(), work.grid.poison()), (operations, None));
    assert_eq!(work.grid.checkpoint_state().number, 1);
}

#[test]
fn a_disk_that_is_full_stops_a_begin_and_nothing_else() {
    let (machine, storage) = made(1);
    let mut work = Work::new(&machine, Finish::Later).unwrap();
    work.bar(1).unwrap();
    // All blocks of the file are in use.
    let count = (storage.size() - Geometry::small().grid_offset()) / 4096 - work.grid.space().acquired;
    let mut rest = work.grid.reserve(count).unwrap();
    let filled: Vec<_> = (0..count).map(|_| work.grid.acquire(&mut rest)).collect();
    work.grid.forfeit(rest);
    let size = storage.size();
    storage.set_size_limit(Some(size));
    let before = (work.grid.free_set(), work.grid.staged_number());
    let error = work.grid.begin_checkpoint(&update(2), |_| ()).unwrap_err();
    assert!(matches!(error, GridError::OutOfSpace { needed: 2, .. }), "{error}");
    assert_eq!((work.grid.free_set(), work.grid.staged_number()), before);
    assert_eq!((storage.size(), work.grid.poison()), (size, None));
    storage.set_size_limit(None);
    filled.into_iter().for_each(|address| work.grid.release(address));
    let pending = work.begin(2).unwrap();
    work.grid.finish_checkpoint(pending).unwrap();
    work.end();
    work.check(&open(&machine_of(storage.image()).0));
}

#[test]
fn a_checkpoint_needs_no_block_buffers() {
    let (machine, storage) = Machine::sim(1);
    format_with(&machine, Geometry::small(), 24_000).unwrap();
    let grid = open_with(&machine, GridOptions { block_count: 16, ..OPTIONS }).unwrap();
    let mut reservation = grid.reserve(23_000).unwrap();
    let all: Vec<_> = (0..23_000).map(|_| grid.acquire(&mut reservation)).collect();
    grid.forfeit(reservation);
    let held: Vec<_> = (0..16).map(|_| grid.buffer().unwrap()).collect();
    for beat in 1..5 {
        let first = usize::try_from(beat).unwrap();
        all.iter().skip(first).step_by(5).for_each(|address| grid.release(*address));
        let pending = grid.begin_checkpoint(&update(beat), |_| ()).unwrap();
        grid.finish_checkpoint(pending).unwrap();
        grid.free_due();
    }
    let trailers = grid.checkpoint_state().free_set.block_count;
    assert!(trailers > crate::grid::TRAILER_BUFFERS, "{trailers}");
    assert_eq!(grid.buffer().unwrap_err(), GridError::NoBuffers);
    drop(held);
    let again = open(&machine_of(storage.image()).0);
    again.free_due();
    assert_eq!(again.free_set(), grid.free_set());
}

#[test]
fn a_flush_takes_no_notice_of_later_requests() {
    let mut ahead = 0;
    for seed in 0..40 {
        let (machine, storage) = Machine::sim(seed);
        format_with(&machine, Geometry::small(), 1000).unwrap();
        let grid = open_with(&machine, GridOptions { block_count: 800, ..OPTIONS }).unwrap();
        let _before = write_one(&grid, b"before").unwrap();
        let through = grid.writes.handed_over();
        let mut reservation = grid.reserve(150).unwrap();
        let _not_a_neighbour = grid.acquire(&mut reservation);
        for number in 0..130 {
            let _ = stale::write_value(&grid, &mut reservation, number);
        }
        grid.forfeit(reservation);
        assert_eq!(storage.in_flight(), 1, "a long run goes at once");
        let writes = storage.counters().writes;
        grid.flush_through(through).unwrap();
        assert!(storage.counters().writes >= writes + 2);
        ahead += storage.in_flight();
    }
    assert!(ahead > 0, "the later request is on its way at times");
}

#[test]
fn a_flush_takes_no_notice_of_later_blocks() {
    let (machine, storage) = formatted(1);
    let grid = open(&machine);
    let _before = write_one(&grid, b"before").unwrap();
    let through = grid.writes.handed_over();
    // Not beside the others: they would be written together.
    let mut far = grid.reserve(20).unwrap();
    while far.left() > 4 {
        let _ = grid.acquire(&mut far);
    }
    let after = write_twin(&grid, &mut far, b"after").unwrap();
    let writes = storage.counters().writes;
    grid.flush_through(through).unwrap();
    assert_eq!(storage.counters().writes - writes, 2);
    assert!(grid.writes.has_runs(), "what came later still waits for neighbours");
    empty_caches(&grid);
    assert_eq!(contents(&grid.read_twin(after, KIND).unwrap()), b"after");
    grid.forfeit(far);
    grid.flush().unwrap();
    assert!(!grid.writes.has_runs());
}

/// A writer that stops only when the checkpoint is durable.
#[test]
fn a_checkpoint_ends_while_others_write() {
    for seed in 0..20 {
        let (machine, storage) = Machine::sim(seed);
        format_with(&machine, Geometry::small(), 20_000).unwrap();
        let grid = Arc::new(open(&machine));
        let kept = write_one(&grid, b"kept").unwrap();
        let pending = grid.begin_checkpoint(&update(1), |_| ()).unwrap();
        let done = Arc::new(AtomicBool::new(false));
        let (finishing, told) = (Arc::clone(&grid), Arc::clone(&done));
        let job = machine.spawn(move || {
            let result = finishing.finish_checkpoint(pending);
            told.store(true, Ordering::Release);
            result
        });
        let mut written = 0;
        while !done.load(Ordering::Acquire) {
            write_one(&grid, &[1; 3800]).unwrap();
            if written % 40 == 39 {
                grid.flush().unwrap();
            }
            written += 1;
            assert!(written < 5_000, "the checkpoint has starved");
        }
        job.wait().unwrap();
        let again = open(&machine_of(storage.image()).0);
        assert_eq!(again.checkpoint_state().number, 1);
        assert_eq!(contents(&again.read_twin(kept, KIND).unwrap()), b"kept");
    }
}

#[test]
#[should_panic(expected = "begun when the one before is durable")]
fn two_checkpoints_at_once_are_our_mistake() {
    let (machine, _) = formatted(1);
    let grid = open(&machine);
    let _pending = grid.begin_checkpoint(&update(1), |_| ()).unwrap();
    drop(grid.begin_checkpoint(&update(2), |_| ()));
}

#[test]
#[should_panic(expected = "become free when the newest checkpoint is durable")]
fn freeing_before_a_checkpoint_is_durable_is_our_mistake() {
    let (machine, _) = formatted(1);
    let grid = open(&machine);
    let _pending = grid.begin_checkpoint(&update(1), |_| ()).unwrap();
    grid.free_due();
}

const fn assert_sent<T: Send + 'static>() {}
const _: () = assert_sent::<PendingCheckpoint>();
