//! Addresses and the size of the file.

use understory_io::{IoCause, Storage};

use super::*;

fn blocks_in_file(storage: &SimStorage) -> u64 {
    (storage.size() - Geometry::small().grid_offset()) / 4096
}

#[test]
fn the_file_grows_in_steps_before_addresses_are_handed_out() {
    let (machine, storage) = Machine::sim(1);
    Grid::format(&machine, &FormatState { geometry: Geometry::small(), trees: &[], size_limit: None })
        .unwrap();
    assert_eq!(blocks_in_file(&storage), 18, "the catalogue, and 16 more");
    let grid = open(&machine);
    grid.forfeit(grid.reserve(14).unwrap());
    assert_eq!(blocks_in_file(&storage), 18, "4 are in use");
    grid.forfeit(grid.reserve(15).unwrap());
    assert_eq!(blocks_in_file(&storage), 19 + 16);
    let reservation = grid.reserve(996).unwrap();
    assert_eq!(blocks_in_file(&storage), 1000 + 250);
    grid.back(250).unwrap();
    assert_eq!(blocks_in_file(&storage), 1000 + 250);
    grid.back(251).unwrap();
    assert_eq!(blocks_in_file(&storage), 1251 + 312);
    grid.back(200_000).unwrap();
    assert_eq!(blocks_in_file(&storage), 201_000 + 16_384, "64 MiB");
    assert_eq!((grid.space().acquired, grid.stats().growths), (4, 4));
    grid.forfeit(reservation);
}

#[test]
fn the_size_limit_is_kept() {
    let (machine, storage) = Machine::sim(1);
    format_with(&machine, Geometry::small(), 50).unwrap();
    let grid = open(&machine);
    let before = grid.free_set();
    assert_eq!(grid.reserve(47).unwrap_err(), GridError::OutOfSpace { needed: 47, free: 46 });
    assert_eq!(grid.free_set(), before);
    let mut reservation = grid.reserve(46).unwrap();
    assert_eq!(blocks_in_file(&storage), 50);
    assert_eq!(grid.reserve(1).unwrap_err(), GridError::OutOfSpace { needed: 1, free: 0 });
    let last = (0..46).map(|_| grid.acquire(&mut reservation)).last().unwrap();
    assert_eq!(last.get(), 50);
    grid.forfeit(reservation);
    // No room for the new trailers: nothing changes, and what leads out still works.
    let full = grid.free_set();
    let root = grid.checkpoint_state();
    assert_eq!(grid.checkpoint(&update(1)).unwrap_err(), GridError::OutOfSpace { needed: 2, free: 0 });
    assert_eq!(grid.free_set(), full);
    assert_eq!(grid.checkpoint_state(), root);
    assert_eq!(grid.poison(), None);
}

#[test]
fn a_full_disk_changes_nothing() {
    let (machine, storage) = Machine::sim(1);
    Grid::format(&machine, &FormatState { geometry: Geometry::small(), trees: &[], size_limit: None })
        .unwrap();
    let grid = open(&machine);
    let limit = storage.size() + 10 * 4096;
    storage.set_size_limit(Some(limit));
    let before = grid.free_set();
    let error = grid.reserve(25).unwrap_err();
    assert!(matches!(error, GridError::OutOfSpace { needed: 25, .. }), "{error}");
    assert_eq!((grid.free_set(), storage.size()), (before, limit - 10 * 4096));
    // What is needed fits where more does not.
    let reservation = grid.reserve(24).unwrap();
    assert_eq!(storage.size(), limit);
    grid.forfeit(reservation);
    storage.set_size_limit(None);
    storage.inject(storage.operations(), IoCause::Os(5));
    let error = grid.reserve(25).unwrap_err();
    assert!(matches!(error, GridError::Io(_)), "{error}");
    grid.forfeit(grid.reserve(25).unwrap());
}

#[test]
fn formatting_needs_room() {
    let (machine, _) = Machine::sim(1);
    assert_eq!(
        format_with(&machine, Geometry::small(), 3).unwrap_err(),
        GridError::OutOfSpace { needed: 2, free: 1 }
    );
    let nothing = FormatState { geometry: Geometry::small(), trees: &[], size_limit: Some(0) };
    let error = Grid::format(&Machine::sim(1).0, &nothing).unwrap_err();
    assert_eq!(error, GridError::OutOfSpace { needed: 2, free: 0 });
    let (machine, storage) = Machine::sim(1);
    storage.set_size_limit(Some(70_000));
    let error = format_with(&machine, Geometry::small(), 30).unwrap_err();
    assert!(matches!(error, GridError::OutOfSpace { needed: 2, .. }), "{error}");
    assert_eq!(storage.counters().writes, 0);
}

#[test]
fn the_end_of_the_file_is_cut_but_never_what_the_root_needs() {
    let (machine, storage) = formatted(1);
    let grid = open(&machine);
    let first = write_one(&grid, b"first").unwrap();
    let last = write_one(&grid, b"last").unwrap();
    grid.checkpoint(&update(1)).unwrap();
    for address in [last.address, last.twin] {
        grid.release(address);
    }
    for beat in 2..5 {
        grid.checkpoint(&update(beat)).unwrap();
        grid.free_due();
        let durable = grid.checkpoint_state().block_count_max;
        let cut = grid.trim(2).unwrap();
        let kept = grid.free_set().highest_promised().max(durable) + 2;
        assert_eq!(blocks_in_file(&storage), kept, "cut by {cut}");
        let (machine, _) = machine_of(storage.image());
        let again = open(&machine);
        assert_eq!(contents(&again.read_twin(first, KIND).unwrap()), b"first");
    }
    assert_eq!(grid.trim(50).unwrap(), 0);
    let reservation = grid.reserve(20).unwrap();
    let size = storage.size();
    assert_eq!(grid.trim(0).unwrap(), size - storage.size());
    assert!(
        blocks_in_file(&storage) >= grid.free_set().highest_promised(),
        "promised blocks keep their room"
    );
    grid.forfeit(reservation);
}

/// Many free blocks in the middle: their space goes back, and comes back before they are used. The simulated file panics
/// when it is written to where it has no space.
#[test]
fn long_stretches_of_free_blocks_give_their_space_back() {
    let (machine, storage) = Machine::sim(1);
    format_with(&machine, Geometry::small(), 1_000).unwrap();
    let grid = open(&machine);
    let written: Vec<_> = (0..100).map(|_| write_one(&grid, b"block").unwrap()).collect();
    release_all_but(&grid, &written, &[60, 99]);
    let size = storage.size();
    let given_back = grid.trim(10).unwrap();
    assert_eq!(given_back, size - storage.size() + storage.holes() * 4096);
    let free = blocks_in_file(&storage) - grid.space().acquired;
    let holes = storage.holes();
    assert!((free - 10 - 2 * 16..=free - 10).contains(&holes), "{holes} holes, {free} free blocks");
    assert_eq!(grid.trim(10).unwrap(), 0, "once");

    // Blocks that the holes do not touch, and then all.
    grid.back(10).unwrap();
    assert_eq!(storage.holes(), holes);
    storage.inject(storage.operations(), IoCause::NoSpace);
    let before = grid.free_set();
    assert!(matches!(grid.back(free), Err(GridError::OutOfSpace { .. })));
    assert_eq!((grid.free_set(), storage.holes()), (before, holes), "nothing has changed");
    for _ in 0..20 {
        write_one(&grid, b"again").unwrap();
    }
    assert!(storage.holes() < holes);
    grid.back(free - 40).unwrap();
    assert_eq!(storage.holes(), 0);
    let mut all = grid.reserve(free - 40).unwrap();
    while all.left() > 0 {
        grid.acquire(&mut all);
    }
    grid.forfeit(all);
    assert_eq!(grid.trim(0).unwrap(), 0, "there is little to give");
}

/// Who opens a file does not know of its holes.
#[test]
fn holes_are_filled_after_open_too() {
    let (machine, storage) = Machine::sim(1);
    format_with(&machine, Geometry::small(), 1_000).unwrap();
    let grid = open(&machine);
    let written: Vec<_> = (0..50).map(|_| write_one(&grid, b"block").unwrap()).collect();
    release_all_but(&grid, &written, &[49]);
    assert!(grid.trim(0).unwrap() > 0);
    let holes = storage.holes();
    assert!(holes > 50, "{holes}");
    drop(grid);
    let (machine, storage) = storage.restart(SimOptions::seeded(2));
    assert_eq!(storage.holes(), holes);
    let grid = open(&machine);
    for _ in 0..40 {
        write_one(&grid, b"again").unwrap();
    }
    assert!(storage.holes() <= holes - 60, "{} of {holes}", storage.holes());
    assert_eq!(contents(&grid.read_twin(written[49], KIND).unwrap()), b"block");
}

/// Releases all blocks but those at these places, and takes checkpoints until they are free.
fn release_all_but(grid: &Grid, written: &[TwinRef], kept: &[usize]) {
    grid.checkpoint(&update(1)).unwrap();
    for (_, block) in (0..).zip(written).filter(|(place, _)| !kept.contains(place)) {
        grid.release(block.address);
        grid.release(block.twin);
    }
    for beat in 2..6 {
        grid.checkpoint(&update(beat)).unwrap();
        grid.free_due();
    }
}

#[test]
fn addresses_do_not_depend_on_who_asks_first() {
    let draw = |order: &[usize]| {
        let (machine, _) = formatted(1);
        let grid = open(&machine);
        let mut reservations: Vec<_> = (0..3).map(|_| grid.reserve(5).unwrap()).collect();
        let mut drawn = vec![Vec::new(); 3];
        for &who in order {
            drawn[who].push(grid.acquire(&mut reservations[who]));
        }
        reservations.into_iter().for_each(|reservation| grid.forfeit(reservation));
        drawn
    };
    assert_eq!(draw(&[0, 0, 1, 1, 1, 2]), draw(&[2, 1, 0, 1, 0, 1]));
}

#[test]
fn backing_counts_what_is_free_and_not_promised() {
    let (machine, storage) = Machine::sim(1);
    format_with(&machine, Geometry::small(), 50).unwrap();
    let grid = open(&machine);
    let room = |grid: &Grid| (0..=60).take_while(|count| grid.back(*count).is_ok()).last().unwrap();
    assert_eq!(room(&grid), 46);
    let mut low = grid.reserve(10).unwrap();
    let high = grid.reserve(10).unwrap();
    assert_eq!(room(&grid), 26);
    for left in [10, 8, 3] {
        while low.left() > left {
            let _ = grid.acquire(&mut low);
        }
        assert_eq!(room(&grid), 26, "drawn is as promised");
    }
    grid.forfeit(low);
    assert_eq!(room(&grid), 29, "three are free again, below a reservation that lives");
    assert_eq!(grid.back(30).unwrap_err(), GridError::OutOfSpace { needed: 30, free: 29 });
    grid.forfeit(high);
    assert_eq!(room(&grid), 39);
    // All of it can be had at once, or in portions.
    let portions = [20, 19].map(|count| grid.reserve(count).unwrap());
    assert_eq!(room(&grid), 0);
    portions.into_iter().for_each(|portion| grid.forfeit(portion));
    assert_eq!(blocks_in_file(&storage), 50);
}

#[test]
fn backing_what_is_there_asks_nothing_of_the_storage() {
    let (machine, storage) = Machine::sim(1);
    format_with(&machine, Geometry::small(), 5000).unwrap();
    let grid = open(&machine);
    grid.back(1000).unwrap();
    let (size, operations, set) = (storage.size(), storage.operations(), grid.free_set());
    for count in [0, 1, 999, 1000] {
        grid.back(count).unwrap();
    }
    // No address is handed out for it.
    let reservation = grid.reserve(1000).unwrap();
    grid.forfeit(reservation);
    assert_eq!((storage.size(), storage.operations(), grid.stats().growths), (size, operations, 1));
    assert_eq!(grid.free_set(), set);
}

#[test]
fn backing_on_a_full_disk_leaves_nothing_behind() {
    let (machine, storage) = Machine::sim(1);
    Grid::format(&machine, &FormatState { geometry: Geometry::small(), trees: &[], size_limit: None })
        .unwrap();
    let grid = open(&machine);
    let mut reservation = grid.reserve(5).unwrap();
    let address = grid.acquire(&mut reservation);
    let limit = storage.size() + 10 * 4096;
    storage.set_size_limit(Some(limit));
    let (size, set) = (storage.size(), grid.free_set());
    for _ in 0..3 {
        let error = grid.back(30).unwrap_err();
        assert!(matches!(error, GridError::OutOfSpace { needed: 30, .. }), "{error}");
        assert_eq!((storage.size(), grid.free_set(), grid.poison()), (size, set.clone(), None));
    }
    // What is there can be worked with, and the rest when there is room.
    grid.back(19).unwrap();
    assert_eq!(storage.size(), limit);
    assert!(grid.back(20).is_err());
    let twin = grid.acquire(&mut reservation);
    let written = write_twin_at(&grid, address, twin, b"goes on").unwrap();
    grid.forfeit(reservation);
    grid.checkpoint(&update(1)).unwrap();
    storage.set_size_limit(None);
    grid.back(30).unwrap();
    let again = open(&machine_of(storage.image()).0);
    assert_eq!(contents(&again.read_twin(written, KIND).unwrap()), b"goes on");
}

#[test]
fn spared_blocks_stay_backed() {
    let (machine, storage) = Machine::sim(1);
    format_with(&machine, Geometry::small(), 5000).unwrap();
    let grid = open(&machine);
    grid.back(300).unwrap();
    assert!(grid.trim(300).unwrap() > 0);
    let (size, growths) = (storage.size(), grid.stats().growths);
    grid.back(300).unwrap();
    assert_eq!((storage.size(), grid.stats().growths), (size, growths));
}

/// Reservations are made while the file is cut, reads of what was cut off go on.
#[test]
fn cutting_the_file_beside_others() {
    let mut cuts = 0;
    for seed in 0..60 {
        let (machine, storage) = Machine::sim(seed);
        format_with(&machine, Geometry::small(), 400).unwrap();
        let grid = Arc::new(open(&machine));
        let kept = write_one(&grid, b"kept").unwrap();
        let mut far = grid.reserve(100).unwrap();
        let written: Vec<_> = (0..50_u8).map(|n| write_twin(&grid, &mut far, &[n]).unwrap()).collect();
        grid.forfeit(far);
        for reference in &written {
            grid.release(reference.address);
            grid.release(reference.twin);
        }
        // Until the trailers are where the blocks were.
        for beat in 1..8 {
            grid.checkpoint(&update(beat)).unwrap();
            grid.free_due();
        }
        empty_caches(&grid);
        let (cutting, reading, stale) = (Arc::clone(&grid), Arc::clone(&grid), written.clone());
        let cut = machine.spawn(move || {
            let step = |_| {
                cutting.back(250).unwrap();
                cutting.trim(1).unwrap()
            };
            (0..8).map(step).filter(|cut| *cut > 0).count()
        });
        let reads = machine.spawn(move || {
            for (n, reference) in (0..).zip(&stale) {
                let far = stale[stale.len() - 1 - usize::from(n)];
                [far.first(), far.second()].into_iter().for_each(|copy| reading.prefetch(copy));
                match reading.read(reference.first(), KIND) {
                    Ok(block) => assert_eq!(contents(&block), [n], "what it was"),
                    Err(GridError::Corrupt(error)) => {
                        assert_eq!(error.place, understory_format::Place::Block(reference.address));
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        });
        let mut more = Vec::new();
        for n in 0..20_u8 {
            let mut reservation = grid.reserve(10 + 7 * u64::from(n) % 60).unwrap();
            more.push(write_twin(&grid, &mut reservation, &[n, n]).unwrap());
            grid.flush().unwrap();
            assert!(
                blocks_in_file(&storage) >= grid.free_set().highest_promised(),
                "what is promised is there"
            );
            grid.forfeit(reservation);
        }
        cuts += cut.wait();
        reads.wait();
        grid.checkpoint(&update(9)).unwrap();
        let again = open(&machine_of(storage.image()).0);
        assert_eq!(contents(&again.read_twin(kept, KIND).unwrap()), b"kept");
        for (n, reference) in (0..).zip(&more) {
            assert_eq!(contents(&again.read_twin(*reference, KIND).unwrap()), [n, n]);
        }
    }
    assert!(cuts > 200, "{cuts}");
}
