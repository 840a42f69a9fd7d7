//! Files whose blocks are good one by one and contradict each other: a typed error at open, never a panic.

use std::mem::swap;
use std::sync::Arc;

use understory_format::zerocopy::IntoBytes;
use understory_format::{
    Beat, BlockKind, Checksum, EditKind, Geometry, Level, ManifestEdit, Op, TableInfo, TreeId, TwinRef, seal,
};
use understory_grid::{CheckpointUpdate, FormatState, Grid, GridOptions, Reservation};
use understory_io::{Arena, Machine};
use understory_manifest_log::ManifestLog;
use understory_table::{TableLayout, TableWriter};
use understory_testkit::{Pair, TestRecord};

use super::watch::check_owners;
use super::{BLOCKS, describe, geometry, load, specs};
use crate::{Forest, ForestError};

/// The tree of pairs among the specs of these tests.
const PAIRS: TreeId = TreeId::new(2).unwrap();

/// A file under construction, below the forest.
struct Forge {
    grid: Arc<Grid>,
    /// What is logged.
    edits: Vec<ManifestEdit>,
    reservation: Reservation,
    beat: Beat,
}

impl Forge {
    /// Writes a table of `tree` with these keys, flushed in beat 4.
    fn table(&mut self, tree: TreeId, keys: std::ops::Range<u64>) -> TableInfo {
        self.versions(tree, keys, 1)
    }

    /// The same with values of this version.
    fn versions(&mut self, tree: TreeId, keys: std::ops::Range<u64>, version: u64) -> TableInfo {
        let layout = TableLayout::new::<Pair>(self.grid.geometry()).unwrap();
        let beat = Beat::new(4);
        let mut writer = TableWriter::new(Arc::clone(&self.grid), layout, tree, beat, beat);
        for key in keys {
            writer.push(&Pair::make(key, version), false, &mut self.reservation).unwrap();
        }
        writer.finish(&mut self.reservation).unwrap();
        writer.take_tables().remove(0)
    }

    /// A second table of the value blocks of this one.
    fn copy_index(&mut self, table: &TableInfo) -> TableInfo {
        let (address, twin) =
            (self.grid.acquire(&mut self.reservation), self.grid.acquire(&mut self.reservation));
        let mut buffer = self.grid.buffer().unwrap();
        buffer.copy_from_slice(&self.grid.read_twin(table.index, BlockKind::Index).unwrap());
        buffer[32..40].copy_from_slice(&address.get().to_le_bytes());
        buffer[40..48].copy_from_slice(&twin.get().to_le_bytes());
        let checksum = seal(&mut buffer);
        drop(self.grid.write(buffer).unwrap());
        TableInfo { index: TwinRef { address, twin, checksum }, ..*table }
    }

    fn insert(&mut self, level: u8, table: TableInfo) {
        let level = Level::new(level).unwrap();
        self.edits.push(ManifestEdit { kind: EditKind::Insert, level, table });
    }
}

/// Opens the file that `make` makes; the field that is wrong is as expected, or there is none.
fn check(expected: Option<&str>, make: impl FnOnce(&mut Forge)) {
    drop(opened(expected, make));
}

fn opened(expected: Option<&str>, make: impl FnOnce(&mut Forge)) -> Option<Forest> {
    opened_with(geometry(), expected, make)
}

fn opened_with(geometry: Geometry, expected: Option<&str>, make: impl FnOnce(&mut Forge)) -> Option<Forest> {
    let (machine, _sim) = Machine::sim(1);
    let trees = describe(&specs());
    Grid::format(&machine, &FormatState { geometry, trees: &trees, size_limit: None }).unwrap();
    let options = GridOptions { block_count: 64, page_count: 16, read_only: false };
    let arena = Arena::new(options.arena_size(&geometry).unwrap()).unwrap();
    let grid = Arc::new(Grid::open(machine.clone(), &arena, options).unwrap());
    let reservation = grid.reserve(60).unwrap();
    let mut forge = Forge { edits: Vec::new(), reservation, beat: Beat::new(8), grid };
    make(&mut forge);
    let Forge { grid, edits, reservation, beat } = forge;
    grid.forfeit(reservation);
    let mut log = ManifestLog::new(Arc::clone(&grid), grid.geometry());
    log.plan(edits.len().try_into().unwrap());
    log.start();
    log.join().unwrap();
    log.apply(beat, edits.iter()).unwrap();
    let update = CheckpointUpdate {
        beat,
        op_checkpoint: Op::new(1),
        op_flushed: Op::new(1),
        charge_total: 4096,
        rolling_hash: Checksum::ZERO,
        manifest: log.checkpoint().unwrap(),
    };
    grid.checkpoint(&update).unwrap();
    let opened: Result<Forest, _> = load(&machine, &specs(), BLOCKS);
    match (opened, expected) {
        (Ok(forest), None) => Some(forest),
        (Err(ForestError::Corrupt(corruption)), Some(field)) => {
            assert_eq!(corruption.field, field, "{corruption}");
            None
        }
        (opened, expected) => panic!("{:?}, expected {expected:?}", opened.err()),
    }
}

#[test]
fn a_good_file_opens() {
    check_owners(&opened(None, |_| ()).unwrap());
    let forest = opened(None, |forge| {
        let table = forge.table(PAIRS, 0..50);
        forge.insert(6, table);
        let table = forge.table(PAIRS, 50..51);
        forge.insert(6, table);
        let table = forge.table(PAIRS, 10..60);
        forge.insert(0, table);
    });
    check_owners(&forest.unwrap());
}

#[test]
fn tables_that_no_tree_can_have() {
    let changed = |change: fn(&mut TableInfo)| {
        move |forge: &mut Forge| {
            let mut table = forge.table(PAIRS, 0..50);
            change(&mut table);
            forge.insert(0, table);
        }
    };
    check(None, changed(|_| ()));
    check(Some("table_info.tree_id"), changed(|table| table.tree = TreeId::new(9).unwrap()));
    check(Some("table_info.tree_id"), changed(|table| table.tree = TreeId::new(4).unwrap()));
    check(Some("table.value_block_count"), changed(|table| table.value_block_count = 2));
    check(Some("table.value_count"), changed(|table| table.value_count = 1_000));
    check(Some("value_count"), changed(|table| table.value_count = 0));
    check(Some("table.key_max"), changed(|table| swap(&mut table.key_min, &mut table.key_max)));
    check(Some("table.age"), changed(|table| table.age = table.beat_min.next()));
    // The checkpoint is that of beat 8: nothing younger is in it.
    check(None, changed(|table| table.beat_min = Beat::new(8)));
    check(Some("table.beat_min"), changed(|table| table.beat_min = Beat::new(9)));
    // What only the index block tells shows when the table is read.
    check(None, changed(|table| table.value_count = 51));
    check(None, changed(|table| table.tree = TreeId::new(3).unwrap()));
    check(Some("table.value_count"), changed(|table| table.tree = TreeId::new(1).unwrap()));
}

#[test]
fn a_level_that_is_not_there() {
    check(Some("edit.level"), |forge| {
        let table = forge.table(PAIRS, 0..50);
        forge.insert(7, table);
    });
}

#[test]
fn tables_of_a_level_that_overlap() {
    let on_levels = |first: u8, second: u8, start: u64| {
        move |forge: &mut Forge| {
            let table = forge.table(PAIRS, 0..50);
            forge.insert(first, table);
            let table = forge.table(PAIRS, start..start + 9);
            forge.insert(second, table);
        }
    };
    check(Some("table.key_min"), on_levels(3, 3, 49));
    check(None, on_levels(3, 3, 50));
    check(None, on_levels(3, 4, 49));
}

/// With level 0 in runs, tables of one age are disjoint, and there are only so many ages; other levels are as ever.
#[test]
fn runs_that_cannot_be() {
    let tables = |ages: &'static [u64], level: u8| {
        move |forge: &mut Forge| {
            for age in ages {
                let table = forge.table(PAIRS, 10..60);
                forge.insert(level, TableInfo { age: Beat::new(*age), beat_min: Beat::new(8), ..table });
            }
        }
    };
    let check = |expected, ages, level| {
        opened_with(geometry().with_runs(3), expected, tables(ages, level))
            .map(|forest| check_owners(&forest))
    };
    check(None, &[4], 0);
    check(None, &[4, 5, 8], 0);
    check(None, &[8, 1, 3], 0);
    check(Some("table.key_min"), &[4, 4], 0);
    check(Some("table.key_min"), &[4, 5, 4], 0);
    check(Some("table.age"), &[4, 5, 6, 7], 0);
    check(Some("table.age"), &[9], 0);
    check(Some("table.key_min"), &[4, 5], 1);
}

/// Of three runs the newest is read, and what is flushed is newer than all of them.
#[test]
fn runs_are_read_newest_first() {
    let forest = opened_with(geometry().with_runs(4), None, |forge| {
        for (age, version) in [(6, 2), (8, 3), (4, 1)] {
            let table = forge.versions(PAIRS, 10..60, version);
            forge.insert(0, TableInfo { age: Beat::new(age), beat_min: Beat::new(8), ..table });
        }
    });
    let mut forest = forest.unwrap();
    forest.begin(|_| ()).unwrap();
    let read = |forest: &Forest, key| forest.tree::<Pair>().unwrap().get(key).unwrap().unwrap();
    read(&forest, 10).expect(10, 3);
    forest.append(PAIRS, Pair::make(10, 4).as_bytes(), None).unwrap();
    forest.publish();
    for _ in 0..8 {
        forest.close_beat(None).unwrap();
        read(&forest, 10).expect(10, 4);
        read(&forest, 59).expect(59, 3);
    }
    let tree = forest.tree::<Pair>().unwrap();
    assert_eq!(tree.memtable_counts(), (0, 0));
    let manifest = tree.manifest();
    let ages = manifest.sources().filter(|run| run.find(10, Beat::MAX).is_some()).map(|run| run.age().get());
    assert_eq!(ages.collect::<Vec<_>>(), [16, 8, 6, 4]);
}

#[test]
fn blocks_without_an_owner_and_owners_without_a_block() {
    check(Some("free_set.acquired"), |forge| {
        let _leaked = forge.grid.acquire(&mut forge.reservation);
    });
    check(Some("free_set.acquired"), |forge| {
        let _leaked = forge.table(PAIRS, 0..50);
    });
    check(Some("free_set.acquired"), |forge| {
        let mut table = forge.table(PAIRS, 0..50);
        forge.insert(0, table);
        table = forge.table(PAIRS, 60..70);
        forge.grid.release(table.index.address);
        forge.grid.release(table.index.twin);
    });
}

/// Two tables name the same value block, and a block without an owner makes up for it in the count. It shows when
/// both are compacted.
#[test]
fn a_block_with_two_owners() {
    let forest = opened(None, |forge| {
        let table = forge.table(PAIRS, 0..50);
        forge.insert(0, table);
        let twice = forge.copy_index(&table);
        forge.insert(1, twice);
        let _leaked = forge.grid.acquire(&mut forge.reservation);
    });
    let mut forest = forest.unwrap();
    forest.begin(|_| ()).unwrap();
    forest.set_settle(true);
    let error = (0..16).find_map(|_| forest.close_beat(None).err()).unwrap();
    let ForestError::Corrupt(corruption) = &error else { panic!("{error}") };
    assert_eq!(corruption.field, "address", "{corruption}");
    assert!(forest.has_failed());
    assert!(forest.tree::<Pair>().unwrap().get(7).unwrap().is_some());
}

#[test]
fn a_beat_that_begins_no_bar() {
    for (beat, expected) in [
        (0, None),
        (4, None),
        (5, Some("checkpoint.beat")),
        (7, Some("checkpoint.beat")),
        (1 << 60, None),
        ((1 << 60) + 4, Some("checkpoint.beat")),
        (u64::MAX - 3, Some("checkpoint.beat")),
    ] {
        check(expected, |forge| forge.beat = Beat::new(beat));
    }
}
