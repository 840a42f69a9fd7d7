//! The half-bar of the log: what it gives up and keeps, the order of its calls, damage and lack of space.

use std::sync::Arc;

use fastrand::Rng;
use understory_format::{
    Beat, BlockAddress, BlockKind, EditKind, ManifestBlockView, ManifestEdit, Place, TwinRef,
};
use understory_grid::GridError;
use understory_io::{CrashPolicy, IoCause, Machine};

use super::damage::forge;
use super::{CAPACITY, Harness, geometry, inserting, open_grid};
use crate::{LogError, ManifestLog};

/// A harness with 120 tables in five full blocks, of which only the last 24 were ever touched again: the log is at its
/// target of 14 blocks. Checkpointed, and nothing of it is in memory.
fn cold() -> (Harness, Rng) {
    let mut rng = Rng::with_seed(5);
    let mut harness = Harness::new(5);
    let mut tables = Vec::new();
    for _ in 0..5 {
        let before: Vec<BlockAddress> = harness.live.keys().copied().collect();
        harness.append(&vec![(EditKind::Insert, None); 24], &mut rng).unwrap();
        tables = harness.live.keys().filter(|key| !before.contains(key)).copied().collect();
    }
    let updates: Vec<_> = tables.iter().map(|address| (EditKind::Update, Some(*address))).collect();
    while harness.log.block_count() < 14 {
        harness.append(&updates, &mut rng).unwrap();
        harness.check();
    }
    assert_eq!((harness.live.len(), CAPACITY), (120, 24));
    harness.checkpoint().unwrap();
    evict(&harness);
    (harness, rng)
}

fn evict(harness: &Harness) {
    harness.grid.sync().unwrap();
    let all: Vec<_> = (0..24).map(|_| harness.grid.buffer().unwrap()).collect();
    assert_eq!(harness.grid.stats().blocks_cached, 0);
    drop(all);
}

/// A half-bar of one update of a table whose record is none of the oldest.
fn half_bar(harness: &mut Harness) -> Result<(), LogError> {
    let newest = *harness.live.values().next_back().unwrap();
    let edit = harness.changed(EditKind::Update, newest, &mut Rng::with_seed(1));
    harness.log.plan(1);
    harness.log.start();
    harness.log.join()?;
    harness.log.apply(Beat::new(99), [edit].iter())?;
    harness.live.insert(edit.table.index.address, inserting(edit));
    Ok(())
}

#[test]
fn records_that_are_kept_are_updates_of_the_same_content() {
    let (mut harness, _) = cold();
    let given_up: Vec<_> = harness.log.block_refs().take(13).collect();
    half_bar(&mut harness).unwrap();
    assert_eq!(harness.log.block_count(), 15, "the target was not passed when the half-bar was planned");
    assert_eq!(harness.log.block_refs().next(), Some(given_up[0]));
    half_bar(&mut harness).unwrap();
    // One block that was full of live records, and the 98 records behind it.
    assert_eq!(harness.log.block_count(), 6);
    for reference in given_up {
        assert!(harness.log.block_refs().all(|kept| kept != reference));
        assert!(harness.grid.is_released(reference.address) && harness.grid.is_released(reference.twin));
    }
    harness.check();
    let root = harness.checkpoint().unwrap();
    harness.check_opens(&root);
    for reference in harness.log.block_refs() {
        let block = harness.grid.read_twin(reference, BlockKind::Manifest).unwrap();
        for edit in ManifestBlockView::new(&block).unwrap().edits().map(Result::unwrap) {
            assert_eq!(edit.kind, EditKind::Update);
        }
    }
}

/// Of the records that are read, some are of tables that the half-bar updates, removes, or replaces at the same address.
#[test]
fn a_half_bar_overtakes_what_was_read() {
    let (mut harness, mut rng) = cold();
    half_bar(&mut harness).unwrap();
    let open = harness.log.open.unwrap().address;
    let first = harness.log.block_refs().next().unwrap();
    let block = harness.grid.read_twin(first, BlockKind::Manifest).unwrap();
    let edits: Vec<_> = ManifestBlockView::new(&block).unwrap().edits().map(Result::unwrap).collect();
    drop(block);
    let edit = |kind, index: usize| ManifestEdit { kind, ..edits[index] };
    let (removed, reused) = (edit(EditKind::Remove, 3), edit(EditKind::Insert, 9));
    let updated = harness.changed(EditKind::Update, edits[5], &mut rng);
    let all = [removed, updated, edit(EditKind::Remove, 9), reused];
    harness.log.plan(4);
    harness.log.start();
    harness.log.join().unwrap();
    harness.log.apply(Beat::new(7), all.iter()).unwrap();
    harness.log.verify().unwrap();
    assert_ne!(harness.log.block_refs().next(), Some(first), "it was given up");
    assert_eq!(harness.log.extent(removed.table.index.address), None);
    harness.live.remove(&removed.table.index.address);
    harness.live.insert(updated.table.index.address, inserting(updated));
    harness.live.insert(reused.table.index.address, reused);
    harness.grid.release(removed.table.index.address);
    harness.grid.release(removed.table.index.twin);
    let root = harness.checkpoint().unwrap();
    harness.check_opens(&root);
    let extent = |edit: &ManifestEdit| harness.log.extent(edit.table.index.address);
    assert_eq!(extent(&reused), Some((open, 4)), "it is not kept in place of the new one");
    assert_eq!(extent(&updated), Some((open, 2)));
    assert_eq!(extent(&edits[0]), Some((open, 5)), "what is kept comes behind the edits");
}

fn flip(harness: &Harness, address: BlockAddress) {
    harness.storage.corrupt(geometry().block_offset(address) + 300, 0x10);
}

#[test]
fn a_damaged_copy_of_what_is_given_up_is_replaced_by_its_twin() {
    let (mut harness, _) = cold();
    half_bar(&mut harness).unwrap();
    evict(&harness);
    flip(&harness, harness.log.block_refs().next().unwrap().address);
    half_bar(&mut harness).unwrap();
    assert_eq!(harness.grid.stats().twin_fallbacks, 1);
    harness.check();
}

#[test]
fn damage_of_what_is_given_up_is_told_before_anything_changes() {
    let (mut harness, _) = cold();
    half_bar(&mut harness).unwrap();
    evict(&harness);
    let references: Vec<_> = harness.log.block_refs().collect();
    let damaged = references[2];
    flip(&harness, damaged.address);
    flip(&harness, damaged.twin);
    let space = harness.grid.space();
    let error = half_bar(&mut harness).unwrap_err();
    let LogError::Corrupt(corruption) = &error else { panic!("{error}") };
    assert_eq!(corruption.place, Place::Block(damaged.address), "{corruption}");
    assert!(harness.log.block_refs().eq(references));
    assert_eq!(harness.grid.space(), space);
    assert!(harness.grid.poison().is_none(), "reads go on");
}

/// A read that fails is not damage, and is told as what it is.
#[test]
fn a_failed_read_is_told() {
    let (mut harness, _) = cold();
    half_bar(&mut harness).unwrap();
    evict(&harness);
    let next = harness.storage.operations();
    harness.storage.inject(next, IoCause::Injected);
    harness.storage.inject(next + 1, IoCause::Injected);
    let error = half_bar(&mut harness).unwrap_err();
    assert!(matches!(error, LogError::Grid(GridError::Unreadable { .. })), "{error}");
}

/// Whole blocks under references that fit them, with other records than when the log was opened.
#[test]
fn other_records_than_at_open_are_damage() {
    let check = |other: fn(&Harness) -> TwinRef| {
        let (mut harness, _) = cold();
        half_bar(&mut harness).unwrap();
        let other = other(&harness);
        harness.log.blocks[0].reference = other;
        let error = half_bar(&mut harness).unwrap_err();
        let LogError::Corrupt(corruption) = &error else { panic!("{error}") };
        assert_eq!(corruption.field, "live_record_count", "{corruption}");
        assert_eq!(corruption.place, Place::Block(other.address), "{corruption}");
    };
    // Another block of the log, live or dead; one with the right number that lacks a record.
    check(|harness| harness.log.blocks[1].reference);
    check(|harness| harness.log.blocks[9].reference);
    check(|harness| {
        let first = harness.log.blocks[0];
        let block = harness.grid.read_twin(first.reference, BlockKind::Manifest).unwrap();
        let edits: Result<Vec<_>, _> = ManifestBlockView::new(&block).unwrap().edits().take(23).collect();
        forge(harness, &[(first.sequence, edits.unwrap())]).newest.unwrap()
    });
}

/// Without room for its end, a half-bar waits; with room it ends as if there had always been some.
#[test]
fn without_space_a_half_bar_does_not_end() {
    let run = |limited: bool| {
        let (mut harness, _) = cold();
        half_bar(&mut harness).unwrap();
        harness.log.plan(30);
        harness.log.start();
        harness.log.join().unwrap();
        if limited {
            harness.storage.set_size_limit(Some(harness.grid.machine().storage.size()));
            let mut others = Vec::new();
            while let Ok(reservation) = harness.grid.reserve(1) {
                others.push(reservation);
            }
            let space = harness.grid.space();
            let error = harness.log.apply(Beat::new(8), [].iter()).unwrap_err();
            assert!(matches!(error, LogError::Grid(GridError::OutOfSpace { .. })), "{error}");
            assert_eq!(harness.grid.space(), space);
            harness.check();
            others.into_iter().for_each(|reservation| harness.grid.forfeit(reservation));
            harness.storage.set_size_limit(None);
        }
        harness.log.apply(Beat::new(8), [].iter()).unwrap();
        harness.checkpoint().unwrap()
    };
    assert_eq!(run(false), run(true));
}

/// The machine stops at any operation of a half-bar that gives up blocks, and of the checkpoint behind it.
#[test]
fn a_crash_at_any_operation_leaves_the_log_before_or_after() {
    let (mut crashed, mut after) = (0, 0);
    for at in 0.. {
        let (mut harness, _) = cold();
        let (number, before) = (harness.grid.checkpoint_state().number, harness.live.clone());
        let base = harness.storage.operations();
        harness.storage.crash_at(base + at, CrashPolicy::KeepSubset(at));
        let done = half_bar(&mut harness).and_then(|()| half_bar(&mut harness));
        let done = done.and_then(|()| harness.checkpoint().map(drop));
        if !harness.storage.is_crashed() {
            break;
        }
        crashed += 1;
        let reopened = Harness::reopen(harness.storage.image(), at).unwrap();
        reopened.check();
        let is_after = reopened.grid.checkpoint_state().number > number;
        assert!(is_after || done.is_err(), "crash at {at}: an acknowledged checkpoint is there");
        let (live, blocks) = if is_after { (&harness.live, 6) } else { (&before, 14) };
        assert_eq!((&reopened.live, reopened.log.block_count()), (live, blocks), "crash at {at}");
        after += u32::from(is_after);
    }
    assert!(crashed > 15 && after > 0, "{crashed} operations, {after} behind the new root");
}

#[test]
fn a_log_that_reads_can_be_dropped() {
    let (mut harness, _) = cold();
    half_bar(&mut harness).unwrap();
    harness.log.plan(1);
    harness.log.start();
    let grid = Arc::clone(&harness.grid);
    let Harness { log, storage, .. } = harness;
    drop(log);
    assert_eq!(Arc::strong_count(&grid), 2, "the harness's and this one");
    drop(storage);
}

fn empty() -> ManifestLog {
    let harness = Harness::new(1);
    ManifestLog::new(open_grid(Machine::sim_from(harness.storage.durable_image(), 1).0).unwrap(), &geometry())
}

/// Calls in an order that is wrong with the last of them.
fn in_order(calls: &str) {
    let mut log = empty();
    for call in calls.chars() {
        match call {
            'p' => log.plan(0),
            's' => log.start(),
            'j' => log.join().unwrap(),
            'a' => log.apply(Beat::ZERO, [].iter()).unwrap(),
            'n' => assert_eq!(log.addresses_max(), 0),
            _ => drop(log.checkpoint().unwrap()),
        }
    }
}

#[test]
fn the_order_of_calls_is_asserted() {
    for calls in ["cc", "psjac", "pnsnjjnapsja", "psjapsjacc"] {
        in_order(calls);
    }
    for calls in [
        "s", "j", "a", "n", "pp", "pj", "pa", "pc", "pss", "psc", "psp", "psjp", "psjc", "psjs", "psjaa",
        "psjaj",
    ] {
        let panicked = std::panic::catch_unwind(|| in_order(calls)).is_err();
        assert!(panicked, "{calls}");
        in_order(&calls[..calls.len() - 1]);
    }
}
