//! The manifest log beside tables that stay for ever.

use understory_format::{BlockAddress, EditKind, Place, u64_of};
use understory_grid::GridError;
use understory_testkit::{Item, Pair};

use super::{Rig, geometry};
use crate::ForestError;

/// Tables of the cold tree at least.
const COLD: usize = 60;

/// A forest with a tree that is done with, a level or two deep.
fn with_cold_tables() -> Rig {
    let mut rig = Rig::new(geometry(), 1);
    for key in 0..2_500_u128 {
        while !rig.put::<Item>(key * 7919 % 2_503, false) {
            rig.close(false).unwrap();
        }
    }
    rig.drain();
    rig.forest.set_settle(true);
    for _ in 0..8 {
        rig.close_bar(false);
    }
    rig.forest.set_settle(false);
    rig.drain();
    assert!(cold(&rig).len() >= COLD, "{}", cold(&rig).len());
    rig
}

fn cold(rig: &Rig) -> Vec<BlockAddress> {
    let tree = rig.forest.tree::<Item>().unwrap().id();
    let tables = rig.forest.tables().filter(|(_, table)| table.tree == tree);
    tables.map(|(_, table)| table.index.address).collect()
}

/// A bar with a few puts into another tree.
fn hot_bar(rig: &mut Rig, bar: u64, checkpoint: bool) -> Result<(), ForestError> {
    for beat in 0..rig.forest.schedule().beats_per_bar() {
        for key in 0..10 {
            rig.put::<Pair>(key * 31 + bar % 7 * 3 + beat, key % 5 == 4);
        }
        rig.close(checkpoint)?;
    }
    Ok(())
}

/// The least number of blocks that hold so many records.
fn blocks_of(tables: u64) -> u64 {
    tables.div_ceil(24)
}

/// The oldest blocks of the log are full of tables that nothing touches any more. Without compaction of its own it would
/// have a block more for each bar.
#[test]
fn the_log_stays_bounded_beside_cold_tables() {
    let mut rig = with_cold_tables();
    let tables = cold(&rig);
    let before = rig.forest.log.extent(tables[0]);
    let mut most = 0;
    for bar in 0..150 {
        hot_bar(&mut rig, bar, true).unwrap();
        let log = &rig.forest.log;
        most = most.max(log.block_count());
        assert!(log.block_count() <= 3 * blocks_of(log.table_count()) + 8, "bar {bar}: {log:?}");
        assert!(log.block_count() <= log.blocks_max(), "bar {bar}: {log:?}");
        if bar % 40 == 39 {
            rig.reopen(bar);
        }
    }
    assert_eq!(cold(&rig), tables, "they are still there");
    assert_ne!(rig.forest.log.extent(tables[0]), before, "and the log has written about them again");
    assert!(
        most > 2 * blocks_of(u64::try_from(COLD).unwrap()),
        "it is not rewritten all the time: {most} blocks"
    );
    let (_, edits) = super::watch::read_log(&rig.forest);
    let updates = edits.iter().filter(|edit| tables.contains(&edit.table.index.address));
    assert!(
        updates.clone().count() == tables.len()
            && updates.into_iter().all(|edit| edit.kind == EditKind::Update)
    );
    rig.model.check(&rig.forest).unwrap();
}

/// What the log takes at the end of the half-bar.
fn addresses(rig: &Rig) -> usize {
    rig.forest.log.addresses_max().try_into().unwrap()
}

/// What the log keeps of old blocks is admitted with the rest of the half-bar (R16).
#[test]
fn a_half_bar_is_admitted_with_what_the_log_keeps() {
    let mut rig = with_cold_tables();
    let mut kept = 0;
    for bar in 0..80 {
        hot_bar(&mut rig, bar, true).unwrap();
        for _ in 0..3 {
            rig.put::<Pair>(bar % 7, false);
            rig.close(false).unwrap();
        }
        // Somebody takes all room but what the end of this half-bar needs.
        rig.sim.set_size_limit(Some(rig.forest.grid().machine().storage.size()));
        let mut taken: Vec<_> = (0..).map_while(|_| rig.forest.grid().reserve(1).ok()).collect();
        let room = taken.split_off(taken.len() - 8 - addresses(&rig));
        room.into_iter().for_each(|reservation| rig.forest.grid().forfeit(reservation));
        rig.close(false).unwrap();
        let error = rig.forest.admit().unwrap_err();
        let ForestError::Grid(GridError::OutOfSpace { needed, .. }) = error else { panic!("{error}") };
        let (blocks, edits) = rig.forest.half_bar.bounds();
        let own = 2 * rig.forest.grid().own_block_count();
        // The checkpoint may take eight more than twice what it takes now.
        assert_eq!(needed, blocks + u64_of(addresses(&rig)) + own + 8);
        kept += u32::from(u64_of(addresses(&rig)) > 2 * blocks_of(edits));
        taken.into_iter().for_each(|reservation| rig.forest.grid().forfeit(reservation));
        rig.sim.set_size_limit(None);
        rig.forest.admit().unwrap();
    }
    assert!(kept > 2, "{kept} times with records to be kept");
    rig.model.check(&rig.forest).unwrap();
}

/// Neither copy of a block of the log can be read when its turn comes: the close says which, and nothing has changed.
#[test]
fn compaction_of_the_log_meets_damage() {
    let mut rig = with_cold_tables();
    rig.watches = false;
    let oldest = rig.forest.log.block_refs().next().unwrap();
    let mut bar = 0;
    // As long as it is in memory, nobody looks at the file.
    let geometry = *rig.forest.grid().geometry();
    for address in [oldest.address, oldest.twin] {
        rig.sim.corrupt(geometry.block_offset(address) + 300, 1);
    }
    let error = loop {
        let blocks = rig.forest.log.block_refs().next();
        assert_eq!(blocks, Some(oldest), "bar {bar}: it is not given up");
        let all: Vec<_> = (0..).map_while(|_| rig.forest.grid().buffer().ok()).collect();
        drop(all);
        match hot_bar(&mut rig, bar, false) {
            Ok(()) => {
                bar += 1;
                assert!(bar < 300, "its turn comes");
            }
            Err(error) => break error,
        }
    };
    let ForestError::Corrupt(corruption) = &error else { panic!("{error}") };
    assert_eq!(corruption.place, Place::Block(oldest.address), "{corruption}");
    assert!(rig.forest.has_failed() && rig.forest.grid().poison().is_none());
    assert!(!rig.forest.grid().is_released(oldest.address));
    assert_eq!(rig.forest.close_beat(None).unwrap_err().to_string(), error.to_string());
    rig.model.check(&rig.forest).unwrap();
}
