//! Opening what is good, refusing what is not, and leaving it alone.

use understory_format::{SUPERBLOCK_STRIDE, SUPERBLOCK_ZONE_SIZE, Superblock};
use understory_io::Storage;
use zerocopy::IntoBytes;

use super::*;
use crate::CopyState;

/// Opening fails as expected, for writing and read-only, and changes nothing.
fn check(image: Vec<u8>, expected: impl Fn(&GridError) -> bool) {
    for options in [OPTIONS, READ_ONLY] {
        let (machine, storage) = machine_of(image.clone());
        let error = open_with(&machine, options).unwrap_err();
        assert!(expected(&error), "{error:?}");
        assert_eq!(storage.counters().writes, 0);
        assert!(storage.image() == image, "nothing is written");
    }
}

fn good_image() -> Vec<u8> {
    let (machine, storage) = formatted(1);
    let grid = open(&machine);
    write_one(&grid, b"some").unwrap();
    grid.checkpoint(&update(1)).unwrap();
    grid.trim(0).unwrap();
    storage.image()
}

fn copy_offset(copy: u64) -> usize {
    usize::try_from(copy * SUPERBLOCK_STRIDE).unwrap()
}

#[test]
fn a_file_is_made_and_opened() {
    let (machine, storage) = formatted(1);
    let writes = storage.counters().writes;
    let grid = open(&machine);
    assert_eq!(storage.counters().writes, writes + 4, "a superblock");
    let (state, local) = (grid.checkpoint_state(), grid.local_state());
    assert_eq!((state.number, state.parent, state.block_count_max), (0, Checksum::ZERO, 4));
    assert_eq!((local.sequence, local.incarnation), (3, 1));
    assert_eq!(local.size_limit, Geometry::small().grid_offset() + 100 * 4096);
    assert_eq!(*grid.geometry(), Geometry::small());
    assert_eq!(grid.trees(), [tree(1, "flights"), tree(4, "carriers")]);
    assert_eq!((grid.space().acquired, grid.space().released, grid.own_block_count()), (4, 0, 4));
    drop(grid);
    let again = open(&machine);
    assert_eq!((again.local_state().sequence, again.local_state().incarnation), (5, 2));
    assert_eq!(again.checkpoint_state(), state);
}

#[test]
fn only_an_empty_file_is_formatted() {
    let (machine, storage) = formatted(1);
    let (size, image) = (storage.size(), storage.image());
    let again = format_with(&machine, Geometry::small(), 100);
    assert_eq!(again, Err(GridError::NotEmpty { size }));
    assert!(storage.image() == image);
}

#[test]
fn a_geometry_that_cannot_be_is_refused() {
    let (machine, storage) = Machine::sim(1);
    let geometry = Geometry { block_size: 5000, ..Geometry::small() };
    let error = format_with(&machine, geometry, 100).unwrap_err();
    assert!(matches!(error, GridError::Geometry(_)), "{error}");
    let trees: Vec<_> = (1..=31).map(|id| tree(id, &format!("tree{id}"))).collect();
    let state = FormatState { geometry: Geometry::small(), trees: &trees, size_limit: None };
    assert_eq!(Grid::format(&machine, &state), Err(GridError::TooManyTrees { found: 31, most: 30 }));
    assert_eq!(storage.size(), 0);
}

#[test]
fn a_file_that_cannot_be_opened_is_left_alone() {
    let image = good_image();
    let not_ours = |error: &GridError| *error == GridError::NotUnderstory;
    check(Vec::new(), not_ours);
    check(vec![0; 4096], not_ours);
    check(b"a text file\n".repeat(20_000), not_ours);
    let mut other_version = image.clone();
    for copy in 0..4 {
        let at = copy_offset(copy);
        other_version[at + 48] = 9;
        let checksum = Checksum::of(&other_version[at + 32..at + 4096]).get();
        other_version[at..at + 16].copy_from_slice(&checksum.to_le_bytes());
    }
    check(other_version, |error| *error == GridError::Version { found: 9 });
    let zone = usize::try_from(SUPERBLOCK_ZONE_SIZE).unwrap();
    for len in [4096, copy_offset(1) + 4096, zone - 4096] {
        let size = u64::try_from(len).unwrap();
        let cut = image[..len].to_vec();
        check(cut, |error| matches!(error, GridError::Truncated { size: found, .. } if *found == size));
    }
    for len in [zone, image.len() - 4096, image.len() - 1] {
        let (size, needed) = (u64::try_from(len).unwrap(), u64::try_from(image.len()).unwrap());
        check(image[..len].to_vec(), |error| *error == GridError::Truncated { size, needed });
    }
    let mut no_quorum = image.clone();
    for copy in 0..3 {
        no_quorum[copy_offset(copy) + 2000] ^= 1;
    }
    let lost = [CopyState::Corrupt; 3];
    check(no_quorum, |error| matches!(error, GridError::QuorumLost { copies } if copies[..3] == lost));
}

/// A good image whose superblock says something else, under good checksums.
fn forged(change: impl Fn(&mut Superblock)) -> Vec<u8> {
    let mut image = good_image();
    for copy in 0..4 {
        let at = copy_offset(copy);
        let bytes = &mut image[at..at + 4096];
        let copy = u8::try_from(copy).unwrap();
        let (mut superblock, _) = Superblock::decode(bytes, copy).unwrap();
        change(&mut superblock);
        bytes.copy_from_slice(superblock.encode(copy).0.as_bytes());
    }
    image
}

#[test]
fn a_superblock_that_no_history_leads_to_is_refused() {
    let lost = |error: &GridError| matches!(error, GridError::QuorumLost { .. });
    check(forged(|superblock| superblock.local.sequence = u64::MAX), lost);
    check(forged(|superblock| superblock.local.incarnation = u64::MAX), lost);
    check(forged(|superblock| superblock.checkpoint.number = u64::MAX), lost);
    check(forged(|superblock| superblock.checkpoint.charge_total = u64::MAX), lost);
    check(forged(|superblock| superblock.checkpoint.op_checkpoint = Op::new(u64::MAX)), lost);
    let wrong = |field| move |error: &GridError| matches!(error, GridError::Corrupt(it) if it.field == field);
    let size = |size| move |superblock: &mut Superblock| superblock.checkpoint.free_set.size = size;
    check(forged(size(1 << 50)), wrong("free_set_size"));
    check(forged(size(24)), wrong("total_size"));
    let far = BlockAddress::new(1 << 60).unwrap();
    let last = |superblock: &mut Superblock| superblock.checkpoint.free_set.last.as_mut().unwrap().twin = far;
    check(forged(last), wrong("twin"));
}

#[test]
fn a_bad_option_is_refused() {
    let (machine, _) = formatted(1);
    let options = GridOptions { block_count: GridOptions::block_count_min() - 1, ..OPTIONS };
    assert_eq!(open_with(&machine, options).unwrap_err(), GridError::NoBuffers);
    let small = Arena::new(100_000).unwrap();
    assert!(matches!(Grid::open(machine, &small, OPTIONS), Err(GridError::Io(_))));
}

#[test]
fn read_only_writes_nothing() {
    let image = good_image();
    let (machine, storage) = machine_of(image.clone());
    let grid = open_with(&machine, READ_ONLY).unwrap();
    assert!(grid.is_read_only());
    assert_eq!(grid.checkpoint_state().number, 1);
    assert_eq!(grid.reserve(1).unwrap_err(), GridError::ReadOnly);
    assert_eq!(grid.back(1).unwrap_err(), GridError::ReadOnly);
    assert_eq!(grid.checkpoint(&update(2)).unwrap_err(), GridError::ReadOnly);
    assert_eq!(grid.update_local(|_| ()).unwrap_err(), GridError::ReadOnly);
    assert_eq!(grid.sync().unwrap_err(), GridError::ReadOnly);
    assert_eq!(grid.trim(0).unwrap_err(), GridError::ReadOnly);
    assert_eq!(storage.counters().writes, 0);
    assert!(storage.image() == image);
}

/// The bytes of a copy in the place of another, as the copy of that place.
fn put_copy(image: &mut [u8], from: &[u8], copy: u64) {
    let at = copy_offset(copy);
    let source = &from[at..at + 4096];
    image[at..at + 4096].copy_from_slice(source);
}

/// All combinations of an old, a new, a torn, a damaged and a foreign copy in the four places, as files.
#[test]
fn every_combination_of_copies_opens_old_or_new_or_not() {
    let (machine, storage) = formatted(1);
    let grid = open(&machine);
    let kept = write_one(&grid, b"kept").unwrap();
    grid.checkpoint(&update(1)).unwrap();
    grid.trim(20).unwrap();
    let old = storage.image();
    grid.checkpoint(&update(2)).unwrap();
    let new = storage.image();
    let sequence = grid.local_state().sequence;
    let mut torn = new.clone();
    let mut damaged = new.clone();
    let mut foreign = new.clone();
    for copy in 0..4 {
        let at = copy_offset(copy);
        torn[at + 1024..at + 4096].copy_from_slice(&old[at + 1024..at + 4096]);
        damaged[at + 700] ^= 8;
        foreign[at..at + 4096].fill(0x5A);
    }
    let sources = [&old, &new, &torn, &damaged, &foreign];
    for number in 0..625_usize {
        let digits = [number % 5, number / 5 % 5, number / 25 % 5, number / 125];
        let mut image = new.clone();
        for (copy, digit) in (0..).zip(digits) {
            put_copy(&mut image, sources[digit], copy);
        }
        let count = |wanted: usize| digits.iter().filter(|digit| **digit == wanted).count();
        let expected = if count(1) >= 2 {
            Some(2)
        } else if count(0) >= 2 {
            Some(1)
        } else {
            None
        };
        let (machine, storage) = machine_of(image.clone());
        let result = open_with(&machine, OPTIONS);
        let Some(expected) = expected else {
            let error = result.unwrap_err();
            let foreign = count(4) == 4;
            let typed = matches!(error, GridError::QuorumLost { .. }) && !foreign
                || error == GridError::NotUnderstory && foreign;
            assert!(typed, "{digits:?}: {error}");
            assert!(storage.image() == image);
            continue;
        };
        let grid = result.unwrap();
        assert_eq!(grid.checkpoint_state().number, expected, "{digits:?}");
        assert_eq!(contents(&grid.read_twin(kept, KIND).unwrap()), b"kept");
        let seen = if count(1) > 0 { sequence } else { sequence - 1 };
        check_all_copies(&storage.image(), seen + 2);
    }
}

fn check_all_copies(image: &[u8], sequence: u64) {
    let decode = |copy: u8| {
        let at = copy_offset(u64::from(copy));
        Superblock::decode(&image[at..at + 4096], copy).unwrap_or_else(|error| panic!("{error}"))
    };
    let first = decode(0);
    assert_eq!(first.0.local.sequence, sequence);
    assert!([1, 2, 3].into_iter().all(|copy| decode(copy) == first));
}

#[test]
fn a_copy_in_the_place_of_another_does_not_count() {
    let mut image = good_image();
    let first = image[..4096].to_vec();
    for copy in 1..4 {
        image[copy_offset(copy)..copy_offset(copy) + 4096].copy_from_slice(&first);
    }
    check(image, |error| matches!(error, GridError::QuorumLost { .. }));
}

#[test]
fn a_file_with_a_journal_is_made_behind_its_ring() {
    let geometry = Geometry::small().with_journal();
    let (needed, block) = (geometry.grid_offset(), u64::from(geometry.block_size));
    let check = |size: u64, expected: Result<(), GridError>| {
        let (machine, storage) = Machine::sim(1);
        storage.grow(size).unwrap();
        let found = format_with(&machine, geometry, 100);
        assert_eq!(found, expected);
        assert_eq!(storage.counters().writes > 0, found.is_ok());
        (machine, storage)
    };
    for size in [0, block, needed - block, needed + block] {
        check(size, Err(GridError::NoRing { size, needed }));
    }
    let (machine, storage) = check(needed, Ok(()));
    let ring = usize::try_from(geometry.journal_offset()).unwrap()..usize::try_from(needed).unwrap();
    assert!(storage.image()[ring].iter().all(|byte| *byte == 0), "the ring is left alone");
    let grid = open(&machine);
    assert_eq!((*grid.geometry(), grid.space().acquired), (geometry, 4));
    let reference = write_one(&grid, b"behind").unwrap();
    grid.checkpoint(&update(1)).unwrap();
    let again = open(&machine_of(storage.image()).0);
    assert_eq!(contents(&again.read_twin(reference, KIND).unwrap()), b"behind");
    // Without one, the file is empty.
    let (machine, storage) = Machine::sim(1);
    storage.grow(block).unwrap();
    let error = format_with(&machine, Geometry::small(), 100).unwrap_err();
    assert_eq!(error, GridError::NotEmpty { size: block });
}

#[test]
fn what_open_accepted_is_in_the_superblock_of_its_incarnation() {
    let (machine, storage) = formatted(1);
    let grid = open(&machine);
    grid.update_local(|local| (local.salvaged_op, local.salvage_count) = (Op::new(5), 2)).unwrap();
    drop(grid);
    let arena = Arena::new(OPTIONS.arena_size(&Geometry::small()).unwrap()).unwrap();
    let grid = Grid::load(machine.clone(), &arena, OPTIONS).unwrap();
    let (before, writes) = (grid.local_state(), storage.counters().writes);
    grid.begin(|local| {
        assert_eq!(local.incarnation, before.incarnation + 1, "which it has by then");
        (local.head_op, local.head_hash) = (Op::new(90), Checksum::new(91));
        // Not the caller's to say.
        (local.sequence, local.parent) = (1, Checksum::new(1));
    })
    .unwrap();
    assert_eq!(storage.counters().writes, writes + 4, "one superblock");
    let found = Grid::peek(&machine_of(storage.image()).0).unwrap().local;
    assert_eq!(found, grid.local_state());
    assert_eq!((found.incarnation, found.head_op), (before.incarnation + 1, Op::new(90)));
    assert_eq!((found.sequence, found.head_hash), (before.sequence + 2, Checksum::new(91)));
    assert_eq!((found.salvaged_op, found.salvage_count), (Op::new(5), 2), "nothing else is lost");
    assert_eq!(found.size_limit, before.size_limit);
}
