//! Damaged blocks, roots and chains, also behind good checksums.

use std::sync::Arc;

use fastrand::Rng;
use understory_format::{
    Beat, BlockAddress, Checksum, Corruption, EditKind, Expected, ManifestEdit, ManifestRoot, Place,
    Placement, TwinRef, manifest_block, seal,
};
use understory_grid::Grid;
use understory_io::{Machine, SimStorage};

use super::{Harness, geometry, open_grid, open_log};
use crate::testing::table;
use crate::{LogError, ManifestLog};

/// A harness with several full blocks and one partial one, checkpointed.
fn with_chain() -> (Harness, ManifestRoot) {
    let mut rng = Rng::with_seed(5);
    let mut harness = Harness::new(5);
    let inserts = vec![(EditKind::Insert, None); 80];
    harness.append(&inserts, &mut rng).unwrap();
    let root = harness.checkpoint().unwrap();
    assert_eq!(root.block_count, 4);
    (harness, root)
}

fn flip(storage: &SimStorage, address: BlockAddress) {
    storage.corrupt(geometry().block_offset(address) + 300, 0x10);
}

#[test]
fn a_damaged_copy_is_replaced_by_its_twin_two_are_corruption() {
    let (harness, root) = with_chain();
    let refs: Vec<TwinRef> = harness.log.block_refs().collect();
    for reference in &refs {
        for address in [reference.address, reference.twin] {
            let (machine, storage) = Machine::sim_from(harness.storage.durable_image(), 1);
            flip(&storage, address);
            let (_, tables) = open_log(&open_grid(machine).unwrap(), &root).unwrap();
            assert_eq!(tables, harness.live);
        }
        let (machine, storage) = Machine::sim_from(harness.storage.durable_image(), 1);
        flip(&storage, reference.address);
        flip(&storage, reference.twin);
        match open_log(&open_grid(machine).unwrap(), &root) {
            Err(LogError::Corrupt(error)) => assert_eq!(error.place, Place::Block(reference.address)),
            other => panic!("two bad copies: {other:?}"),
        }
    }
}

fn refused(grid: &Arc<Grid>, root: &ManifestRoot) -> &'static str {
    match open_log(grid, root) {
        Err(LogError::Corrupt(error)) => error.field,
        other => panic!("{root:?} gives {other:?}"),
    }
}

#[test]
fn damaged_roots_are_refused() {
    let (harness, root) = with_chain();
    let refs: Vec<TwinRef> = harness.log.block_refs().collect();
    let grid = &harness.grid;
    let check = |root: ManifestRoot, field: &str| assert_eq!(refused(grid, &root), field, "{root:?}");
    check(ManifestRoot { block_count: 3, ..root }, "manifest_oldest");
    check(ManifestRoot { block_count: 5, ..root }, "manifest_block_count");
    check(ManifestRoot { block_count: u32::MAX, ..root }, "manifest_block_count");
    check(ManifestRoot { block_count: 0, ..root }, "manifest_block_count");
    check(ManifestRoot { block_count: 0, newest: None, ..root }, "manifest_oldest");
    check(ManifestRoot { newest: None, ..root }, "manifest_block_count");
    check(ManifestRoot { oldest: Some(refs[1]), ..root }, "manifest_oldest");
    check(ManifestRoot { oldest: None, ..root }, "manifest_oldest");
    let newest = Some(TwinRef { checksum: Checksum::new(1), ..refs[3] });
    check(ManifestRoot { newest, ..root }, "checksum");
    let newest = Some(TwinRef { twin: refs[2].twin, ..refs[3] });
    check(ManifestRoot { newest, ..root }, "twin");
    let free = BlockAddress::new(1 << 20).unwrap();
    check(ManifestRoot { newest: Some(TwinRef { address: free, ..refs[3] }), ..root }, "address");
    // Exactly a part of the chain is a chain, as after the release of old blocks.
    let part = ManifestRoot { oldest: Some(refs[2]), newest: Some(refs[3]), block_count: 2 };
    assert_eq!(open_log(grid, &part).unwrap().1.len(), 32);
}

/// Two addresses for a hand-made block of the log, and its place.
fn pair(grid: &Grid) -> (BlockAddress, BlockAddress, Placement) {
    let mut reservation = grid.reserve(2).unwrap();
    let address = grid.acquire(&mut reservation);
    let twin = grid.acquire(&mut reservation);
    grid.forfeit(reservation);
    (address, twin, Placement { address, twin: Some(twin), tree: None, beat: Beat::ZERO })
}

/// Writes a chain of hand-made blocks, (sequence, records) from the oldest on.
pub(super) fn forge(harness: &Harness, blocks: &[(u64, Vec<ManifestEdit>)]) -> ManifestRoot {
    let mut root = ManifestRoot::default();
    for (sequence, edits) in blocks {
        let (address, twin, placement) = pair(&harness.grid);
        let mut buffer = harness.grid.buffer().unwrap();
        let checksum = manifest_block::encode(&mut buffer, &placement, root.newest, *sequence, edits);
        harness.grid.write(buffer).unwrap();
        root.newest = Some(TwinRef { address, twin, checksum });
        root.oldest = root.oldest.or(root.newest);
        root.block_count += 1;
    }
    root
}

#[test]
fn damaged_chains_with_good_checksums_are_refused() {
    let (harness, _) = with_chain();
    let mut tables = harness.live.values().copied();
    let (a, b) = (tables.next().unwrap(), tables.next().unwrap());
    let remove = |edit: ManifestEdit| ManifestEdit { kind: EditKind::Remove, ..edit };
    let update = |edit: ManifestEdit| ManifestEdit { kind: EditKind::Update, ..edit };
    let open = |blocks: &[(u64, Vec<ManifestEdit>)]| open_log(&harness.grid, &forge(&harness, blocks));
    let check = |blocks: &[(u64, Vec<ManifestEdit>)], field: &str| {
        assert_eq!(refused(&harness.grid, &forge(&harness, blocks)), field, "{blocks:?}");
    };
    // What may be, beside what may not.
    assert_eq!(open(&[(1, vec![a]), (2, vec![b])]).unwrap().1.len(), 2);
    check(&[(1, vec![a]), (3, vec![b])], "sequence");
    check(&[(2, vec![a]), (2, vec![b])], "sequence");
    check(&[(2, vec![a]), (1, vec![b])], "sequence");
    check(&[(u64::MAX, vec![a])], "sequence");
    assert_eq!(open(&[(1, vec![a, remove(a), a])]).unwrap().1.len(), 1);
    check(&[(1, vec![a, a])], "kind");
    check(&[(1, vec![a]), (2, vec![a])], "kind");
    check(&[(1, vec![a, remove(a), remove(a)])], "kind");
    check(&[(1, vec![a, remove(a), update(a)])], "kind");
    assert_eq!(open(&[(7, vec![update(a), remove(a)]), (8, vec![update(b)])]).unwrap().1.len(), 1);
    // One block, two owners; the second owner is gone; an index block that is free, or released.
    let stolen = |index: TwinRef| ManifestEdit { table: table(index), ..b };
    let twice = stolen(TwinRef { address: b.table.index.address, ..a.table.index });
    check(&[(1, vec![a, twice])], "twin");
    assert_eq!(open(&[(1, vec![twice, remove(twice), a])]).unwrap().1.len(), 1);
    let free = BlockAddress::new(1 << 20).unwrap();
    check(&[(1, vec![stolen(TwinRef { address: free, ..a.table.index })])], "address");
    let (address, twin, _) = pair(&harness.grid);
    let own = TwinRef { address, twin, checksum: Checksum::ZERO };
    assert_eq!(open(&[(1, vec![stolen(own)])]).unwrap().1.len(), 1);
    harness.grid.release(own.twin);
    check(&[(1, vec![stolen(own)])], "twin");
}

/// Flips bits of metadata and records and seals the block again: any answer, but no panic and no endless loop.
#[test]
fn forged_bytes_never_panic() {
    let (harness, _) = with_chain();
    let edits: Vec<ManifestEdit> = harness.live.values().copied().take(5).collect();
    let mut rng = Rng::with_seed(11);
    let (mut good, mut bad) = (0, 0);
    for _ in 0..1500 {
        let (address, twin, placement) = pair(&harness.grid);
        let mut buffer = harness.grid.buffer().unwrap();
        manifest_block::encode(&mut buffer, &placement, None, 1, &edits);
        for _ in 0..rng.usize(1..4) {
            buffer[rng.usize(128..256 + 160 * edits.len())] ^= 1 << rng.u8(0..8);
        }
        let checksum = seal(&mut buffer);
        harness.grid.write(buffer).unwrap();
        let reference = Some(TwinRef { address, twin, checksum });
        let root = ManifestRoot { oldest: reference, newest: reference, block_count: rng.u32(1..3) };
        match open_log(&harness.grid, &root) {
            Ok((log, _)) => {
                log.verify().unwrap();
                good += 1;
            }
            Err(LogError::Corrupt(_)) => bad += 1,
            Err(LogError::Grid(error)) => panic!("{error}"),
        }
        harness.grid.flush().unwrap();
    }
    assert!(good > 100, "{good} were accepted");
    assert!(bad > 100, "{bad} were refused");
}

#[test]
fn an_index_block_cannot_be_a_block_of_the_log() {
    let (harness, _) = with_chain();
    let a = *harness.live.values().next().unwrap();
    let older = forge(&harness, &[(1, vec![a])]);
    // A second block, linked by hand to the first, whose table is the first block.
    let stolen = ManifestEdit { table: table(older.newest.unwrap()), ..a };
    let (address, twin, placement) = pair(&harness.grid);
    let mut buffer = harness.grid.buffer().unwrap();
    let checksum = manifest_block::encode(&mut buffer, &placement, older.newest, 2, &[stolen]);
    harness.grid.write(buffer).unwrap();
    let newest = Some(TwinRef { address, twin, checksum });
    let root = ManifestRoot { newest, oldest: older.oldest, block_count: 2 };
    assert_eq!(refused(&harness.grid, &root), "address");
}

#[test]
fn what_on_table_returns_is_passed_on() {
    let (harness, root) = with_chain();
    let mut log = ManifestLog::new(Arc::clone(&harness.grid), &geometry());
    let error = Corruption::new("tree_id", Expected::Zero, 9);
    let place = Place::Block(root.newest.unwrap().address);
    let result = log.open(&root, &mut |_| Err(error.clone()));
    assert_eq!(result, Err(LogError::Corrupt(error.clone().at(place))));
}

#[test]
#[should_panic(expected = "a table is inserted once")]
fn own_duplicates_are_asserted() {
    let (mut harness, _) = with_chain();
    let edit = *harness.live.values().next().unwrap();
    harness.log.plan(1);
    harness.log.start();
    harness.log.join().unwrap();
    drop(harness.log.apply(Beat::ZERO, [ManifestEdit { kind: EditKind::Insert, ..edit }].iter()));
}
