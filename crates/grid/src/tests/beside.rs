//! What goes on beside a checkpoint that was begun: superblocks, space, buffers, flushes.

use std::sync::atomic::{AtomicBool, Ordering};

use understory_io::Storage;

use super::split::{Finish, Work, made, with_pending};
use super::*;
use crate::PendingCheckpoint;

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
