//! Damage: found wherever it is, answered from the twin where there is one, poisoning where it was a write.

use understory_format::{TwinRef, write_len};
use understory_io::{IoCause, Storage};

use super::*;

fn damage(grid: &Grid, storage: &SimStorage, address: BlockAddress) {
    storage.corrupt(offset(grid, address) + 500, 0xFF);
}

/// A grid with one block on disk, longer than the damage is far in.
fn with_block() -> (Grid, Arc<SimStorage>, TwinRef) {
    let (machine, storage) = formatted(1);
    let grid = open(&machine);
    let reference = write_one(&grid, &[9; 1000]).unwrap();
    grid.sync().unwrap();
    empty_caches(&grid);
    (grid, storage, reference)
}

#[test]
fn every_flip_of_a_byte_is_found() {
    let (grid, storage, reference) = with_block();
    let len = write_len(&grid.read(reference.first(), KIND).unwrap());
    empty_caches(&grid);
    for at in 0..u64::try_from(len).unwrap() {
        let at = offset(&grid, reference.address) + at;
        storage.corrupt(at, 1);
        let error = grid.read(reference.first(), KIND).unwrap_err();
        assert!(matches!(error, GridError::Corrupt(_)), "{error}");
        storage.corrupt(at, 1);
    }
    assert_eq!(contents(&grid.read(reference.first(), KIND).unwrap()), [9; 1000]);
}

#[test]
fn a_damaged_copy_is_answered_from_the_other() {
    let (grid, storage, reference) = with_block();
    damage(&grid, &storage, reference.address);
    for _ in 0..3 {
        assert_eq!(contents(&grid.read_twin(reference, KIND).unwrap()), [9; 1000]);
    }
    assert_eq!(grid.stats().twin_fallbacks, 1, "then it is in memory");
    empty_caches(&grid);
    assert_eq!(contents(&grid.read_twin(reference, KIND).unwrap()), [9; 1000]);
    assert_eq!((grid.stats().twin_fallbacks, grid.damaged()), (2, vec![reference.address]));
    empty_caches(&grid);
    damage(&grid, &storage, reference.twin);
    let error = grid.read_twin(reference, KIND).unwrap_err();
    let GridError::Corrupt(error) = error else { panic!("{error}") };
    assert_eq!(error.place, understory_format::Place::Block(reference.address), "the first copy is named");
}

#[test]
fn a_copy_that_cannot_be_read_is_answered_from_the_other() {
    let (grid, storage, reference) = with_block();
    storage.inject(storage.operations(), IoCause::Os(5));
    assert_eq!(contents(&grid.read_twin(reference, KIND).unwrap()), [9; 1000]);
    assert_eq!(grid.stats().twin_fallbacks, 1);
}

#[test]
fn what_cannot_be_read_names_the_block() {
    let (grid, storage, reference) = with_block();
    let unreadable = |error: GridError, address: BlockAddress| {
        let GridError::Unreadable { address: found, source } = error else { panic!("{error}") };
        assert_eq!((found, source.source), (address, IoCause::Os(5)));
        assert_eq!(source.offset, offset(&grid, address));
    };
    // Both copies.
    let next = storage.operations();
    [next, next + 1].into_iter().for_each(|operation| storage.inject(operation, IoCause::Os(5)));
    unreadable(grid.read_twin(reference, KIND).unwrap_err(), reference.address);
    // Each alone, also if it was read ahead.
    for copy in [reference.first(), reference.second()] {
        for ahead in [false, true] {
            empty_caches(&grid);
            storage.inject(storage.operations(), IoCause::Os(5));
            if ahead {
                grid.prefetch(copy);
            }
            unreadable(grid.read(copy, KIND).unwrap_err(), copy.address);
            assert_eq!(contents(&grid.read(copy, KIND).unwrap()), [9; 1000], "it is tried again");
        }
    }
    // One bad for one reason, one for the other: the first is named.
    empty_caches(&grid);
    damage(&grid, &storage, reference.twin);
    storage.inject(storage.operations(), IoCause::Os(5));
    unreadable(grid.read_twin(reference, KIND).unwrap_err(), reference.address);
    damage(&grid, &storage, reference.twin);
    damage(&grid, &storage, reference.address);
    storage.inject(storage.operations() + 1, IoCause::Os(5));
    let error = grid.read_twin(reference, KIND).unwrap_err();
    let GridError::Corrupt(error) = error else { panic!("{error}") };
    assert_eq!(error.place, understory_format::Place::Block(reference.address));
    assert_eq!(contents(&grid.read_twin(reference, KIND).unwrap()), [9; 1000]);
    assert_eq!((grid.poison(), grid.stats().twin_fallbacks), (None, 1), "reads poison nothing");
}

#[test]
fn a_reference_to_a_pair_must_name_the_pair() {
    let (grid, _, reference) = with_block();
    let other = write_one(&grid, b"other").unwrap();
    for wrong in [
        TwinRef { twin: other.twin, ..reference },
        TwinRef { address: reference.twin, twin: reference.address, ..reference },
    ] {
        let error = grid.read_twin(wrong, KIND).unwrap_err();
        assert!(matches!(error, GridError::Corrupt(_)), "{error}");
    }
    let error = grid.read_twin(reference, BlockKind::Manifest).unwrap_err();
    assert!(matches!(error, GridError::Corrupt(_)), "{error}");
    assert_eq!(grid.stats().twin_fallbacks, 0);
}

#[test]
fn a_lost_write_and_a_misdirected_one_are_found() {
    let (machine, storage) = formatted(1);
    let grid = open(&machine);
    let old = write_one(&grid, b"old").unwrap();
    grid.flush().unwrap();
    let operation = storage.operations();
    storage.lose(operation);
    let lost = write_one(&grid, b"lost").unwrap();
    grid.flush().unwrap();
    empty_caches(&grid);
    assert!(matches!(grid.read(lost.first(), KIND), Err(GridError::Corrupt(_))));
    storage.misdirect(storage.operations(), offset(&grid, old.address));
    let stray = write_one(&grid, b"stray").unwrap();
    grid.flush().unwrap();
    empty_caches(&grid);
    for address in [stray.first(), old.first()] {
        assert!(matches!(grid.read(address, KIND), Err(GridError::Corrupt(_))));
    }
    assert_eq!(contents(&grid.read_twin(old, KIND).unwrap()), b"old");
}

#[test]
fn open_goes_on_with_one_copy_of_each() {
    let (machine, storage) = formatted(1);
    let grid = open(&machine);
    grid.checkpoint(&update(1)).unwrap();
    let state = grid.checkpoint_state();
    let (catalogue, trailer) = (state.catalogue, state.free_set.last.unwrap());
    let set = grid.free_set();
    let image = storage.image();
    let check = |damaged: &[BlockAddress], good: bool| {
        let (machine, storage) = machine_of(image.clone());
        damaged.iter().for_each(|at| damage(&grid, &storage, *at));
        let before = storage.image();
        match open_with(&machine, OPTIONS) {
            Ok(again) => {
                assert!(good, "{damaged:?}");
                assert_eq!((again.free_set(), again.trees()), (set.clone(), grid.trees()));
                assert_eq!(again.damaged(), damaged);
            }
            Err(error) => {
                assert!(!good && matches!(error, GridError::Corrupt(_)), "{damaged:?}: {error}");
                assert!(storage.image() == before);
            }
        }
    };
    check(&[], true);
    check(&[catalogue.address], true);
    check(&[catalogue.address, trailer.address], true);
    check(&[catalogue.address, catalogue.twin], false);
    check(&[trailer.address, trailer.twin], false);
}

#[test]
fn a_failed_write_poisons() {
    let (grid, storage, reference) = with_block();
    let root = (grid.checkpoint_state(), grid.local_state());
    storage.inject(storage.operations(), IoCause::Os(5));
    let missing = write_one(&grid, b"missing").unwrap();
    let GridError::Io(cause) = grid.flush().unwrap_err() else { panic!("a failed write") };
    assert_eq!(grid.poison(), Some(cause));
    let poisoned = GridError::Poisoned { cause };
    assert_eq!(grid.flush().unwrap_err(), poisoned);
    assert_eq!(grid.sync().unwrap_err(), poisoned);
    assert_eq!(grid.reserve(1).unwrap_err(), poisoned);
    assert_eq!(grid.back(1).unwrap_err(), poisoned);
    assert_eq!(grid.checkpoint(&update(1)).unwrap_err(), poisoned);
    assert_eq!(grid.begin_checkpoint(&update(1), |_| ()).unwrap_err(), poisoned);
    assert_eq!(grid.update_local(|_| ()).unwrap_err(), poisoned);
    assert_eq!(grid.begin(|_| ()).unwrap_err(), poisoned);
    assert_eq!(grid.trim(0).unwrap_err(), poisoned);
    assert_eq!((grid.checkpoint_state(), grid.local_state()), root);
    // Reads go on, also of what may not have reached the disk.
    empty_caches(&grid);
    assert_eq!(contents(&grid.read_twin(reference, KIND).unwrap()), [9; 1000]);
    assert_eq!(contents(&grid.read_twin(missing, KIND).unwrap()), b"missing");
    assert_eq!(open(&machine_of(storage.image()).0).checkpoint_state(), root.0);
}

#[test]
fn a_failed_sync_poisons() {
    for superblock in [false, true] {
        let (grid, storage, _) = with_block();
        grid.flush().unwrap();
        let before = grid.local_state();
        // A checkpoint: a trailer and its twin, sync, look at the file, two copies, sync, two copies, sync.
        storage.inject(storage.operations() + if superblock { 6 } else { 2 }, IoCause::Os(5));
        let error = grid.checkpoint(&update(1)).unwrap_err();
        let GridError::Io(cause) = error else { panic!("{error}") };
        assert_eq!(cause.operation, understory_io::Operation::Sync);
        let writes = storage.counters().writes;
        let poisoned = GridError::Poisoned { cause };
        assert_eq!(grid.checkpoint(&update(1)).unwrap_err(), poisoned);
        assert_eq!(write_one(&grid, b"x").unwrap_err(), poisoned);
        assert_eq!((storage.counters().writes, grid.local_state()), (writes, before));
    }
}

/// Writers and flushers wait for one another's requests: one that fails is the end of all their waits.
#[test]
fn a_failed_write_leaves_nobody_waiting() {
    let geometry = Geometry { block_size: 64 << 10, ..Geometry::small() };
    for seed in 0..200 {
        let (machine, storage) = Machine::sim(seed);
        format_with(&machine, geometry, 200).unwrap();
        let grid = Arc::new(open_with(&machine, GridOptions { block_count: 80, ..OPTIONS }).unwrap());
        grid.back(120).unwrap();
        storage.inject(storage.operations() + seed % 12, IoCause::Os(5));
        let write_and_flush = |often: bool| {
            let (grid, mut reservation) = (Arc::clone(&grid), grid.reserve(40).unwrap());
            machine.spawn(move || {
                let step = |n: u32| {
                    write_twin(&grid, &mut reservation, &[1; 60_000])?;
                    if often && n % 2 == 1 { grid.flush() } else { Ok(()) }
                };
                let error = (0..20).map(step).find_map(Result::err);
                (error, grid.flush().err())
            })
        };
        let jobs = [write_and_flush(false), write_and_flush(true)];
        let errors: Vec<_> = jobs.into_iter().map(understory_io::Join::wait).collect();
        let cause = grid.poison().expect("one failed");
        for error in errors.into_iter().flat_map(|(first, last)| [first, Some(last.expect("poisoned"))]) {
            let expected =
                |error: &GridError| [GridError::Io(cause), GridError::Poisoned { cause }].contains(error);
            assert!(error.as_ref().is_none_or(expected), "{error:?}");
        }
    }
}

#[test]
fn no_superblock_is_written_to_a_file_that_was_cut_or_removed() {
    for removed in [false, true] {
        let (grid, storage, _) = with_block();
        let before = (grid.checkpoint_state(), grid.local_state());
        let pending = grid.begin_checkpoint(&update(1), |_| ()).unwrap();
        let size = storage.size();
        let expected = if removed { IoCause::Unlinked } else { IoCause::Truncated };
        if removed {
            storage.unlink();
        } else {
            storage.cut(size - 4096);
        }
        let GridError::Io(cause) = grid.finish_checkpoint(pending).unwrap_err() else { panic!("an error") };
        assert_eq!((cause.operation, cause.source), (understory_io::Operation::Check, expected));
        let poisoned = GridError::Poisoned { cause };
        assert_eq!(grid.update_local(|_| ()).unwrap_err(), poisoned);
        assert_eq!(grid.begin_checkpoint(&update(1), |_| ()).unwrap_err(), poisoned);
        assert_eq!((grid.checkpoint_state(), grid.local_state()), before);
        let found = Grid::peek(&machine_of(storage.image()).0);
        assert!(found.is_err() || found.unwrap().local == before.1, "the superblock was left alone");
    }
}
