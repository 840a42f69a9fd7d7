//! What a close does, one rule at a time.

use understory_format::{Beat, Direction, EditKind, Geometry, KeyRange, Level, Op};
use understory_grid::GridError;
use understory_io::Machine;
use understory_testkit::{Item, Pair, Posting, Quad, TestRecord};

use super::{BLOCKS, Rig, geometry, load, specs};
use crate::{ForestError, Root, TreeSpec, TreeStats};

/// Puts keys `from..to` of pairs, as many beats as it takes.
fn put_pairs(rig: &mut Rig, keys: impl IntoIterator<Item = u64>, tombstone: bool) {
    for key in keys {
        while !rig.put::<Pair>(key, tombstone) {
            rig.close(false).unwrap();
        }
    }
}

fn pairs(rig: &Rig) -> TreeStats {
    rig.forest.stats().trees.into_iter().find(|tree| tree.name == "pairs").unwrap()
}

fn levels(rig: &Rig) -> Vec<u64> {
    pairs(rig).levels.iter().map(|level| level.value_count).collect()
}

/// Nothing is below that the tombstones could hide, so the flush writes nothing and edits nothing.
#[test]
fn a_memtable_of_tombstones_is_flushed_to_nothing() {
    let mut rig = Rig::new(geometry(), 1);
    for _ in 0..3 {
        put_pairs(&mut rig, 0..40, true);
        rig.drain();
        assert_eq!(levels(&rig), [0; 7]);
    }
    let stats = rig.forest.compaction_stats();
    assert_eq!((stats.merge_count, stats.consumed, stats.produced), (3, 120, 0));
    rig.reopen(2);
    rig.model.check(&rig.forest).unwrap();
}

/// What is put in a bar becomes immutable at its end and is in tables at the end of the next.
#[test]
fn a_bar_is_flushed_within_the_next() {
    let mut rig = Rig::new(geometry(), 1);
    put_pairs(&mut rig, 0..100, false);
    let counts = |rig: &Rig| {
        let pairs = pairs(rig);
        ((pairs.mutable_count, pairs.immutable_count), pairs.levels[0].value_count)
    };
    for _ in 0..3 {
        rig.close(false).unwrap();
        assert_eq!(counts(&rig), ((100, 0), 0));
        assert!(rig.forest.has_mutable_values());
    }
    for _ in 0..4 {
        rig.close(false).unwrap();
        assert_eq!(counts(&rig), ((0, 100), 0));
        assert!(!rig.forest.has_mutable_values());
    }
    rig.close(false).unwrap();
    assert_eq!(counts(&rig), ((0, 0), 100));
    assert_eq!(rig.forest.live_size(), 1600);
}

/// Ascending keys overlap nothing below: tables go down as they are, and the log says so.
#[test]
fn tables_that_overlap_nothing_move() {
    let mut rig = Rig::new(geometry(), 1);
    put_pairs(&mut rig, 0..6_000, false);
    rig.drain();
    let stats = rig.forest.compaction_stats();
    assert!(stats.move_count > 5, "{stats:?}");
    assert_eq!(stats.produced, 6_000, "no value is written twice: {stats:?}");
    rig.reopen(2);
    rig.model.check(&rig.forest).unwrap();
}

#[test]
fn settling_empties_level_0_and_keeps_to_the_limits() {
    let mut rig = Rig::new(geometry(), 1);
    put_pairs(&mut rig, (0..9_000).map(|key| key * 7919 % 10_007), false);
    put_pairs(&mut rig, (0..300).map(|key| key * 31), true);
    rig.close_bar(false);
    assert!(!rig.forest.is_settled());
    rig.forest.set_settle(true);
    let mut bars = 0;
    while !rig.forest.is_settled() {
        rig.close_bar(false);
        bars += 1;
        assert!(bars < 10, "{:?}", levels(&rig));
    }
    assert_eq!(levels(&rig)[0], 0);
    rig.model.check(&rig.forest).unwrap();
    rig.forest.set_settle(false);
    // Two checkpoints on, what was released is free: what is left released is the checkpoints' own.
    for _ in 0..4 {
        rig.close_bar(true);
    }
    assert!(rig.forest.grid().space().released <= 8, "{:?}", rig.forest.grid().space());
}

/// After a few quiet bars no two neighbours of a level fit into one table (R19).
#[test]
fn small_neighbours_are_joined() {
    let mut rig = Rig::new(geometry(), 1);
    put_pairs(&mut rig, 0..3_000, false);
    rig.drain();
    // Leaves a few records of each table.
    put_pairs(&mut rig, (0..3_000).filter(|key| key % 60 > 2), true);
    rig.drain();
    rig.forest.set_settle(true);
    for _ in 0..12 {
        rig.close_bar(false);
    }
    rig.model.check(&rig.forest).unwrap();
    let tree = rig.forest.tree::<Pair>().unwrap();
    let table_max = tree.layout().value_count_max;
    let manifest = tree.manifest();
    for level in manifest.levels() {
        let tables: Vec<_> = manifest.iter(level, Beat::MAX).collect();
        for pair in tables.windows(2) {
            let both = pair[0].info.value_count + pair[1].info.value_count;
            assert!(both > table_max, "{level}: {both} values in two tables");
        }
    }
}

/// Each beat of a half-bar does an equal part of its work, in bytes over all trees.
#[test]
fn work_is_spread_over_the_beats() {
    let geometry = Geometry { beats_per_bar: 8, ..geometry() };
    let mut rig = Rig::new(geometry, 1);
    let mut rng = fastrand::Rng::with_seed(3);
    let keys = super::Keys::new(&mut rng, 2_000);
    for _ in 0..30 {
        let mut work = Vec::new();
        for _ in 0..4 {
            rig.put_some(&mut rng, &keys, 500, 2);
            let counters = rig.forest.half_bar.work_of_beat();
            work.push(counters);
            rig.close(false).unwrap();
        }
        let total: u64 = work.iter().sum();
        for beat in work {
            assert!(beat <= total.div_ceil(4) + 3 * 144, "{beat} of {total} in one of four beats");
        }
    }
}

#[test]
fn trees_are_found_by_their_record() {
    let rig = Rig::new(geometry(), 1);
    assert!(rig.forest.tree::<Item>().is_some() && rig.forest.tree::<Posting>().is_some());
    assert!(rig.forest.tree::<Quad>().is_none());
    let names: Vec<_> = rig.forest.stats().trees.iter().map(|tree| (tree.name, tree.value_size)).collect();
    assert_eq!(names, [("items", 144), ("pairs", 16), ("postings", 18)]);
}

#[test]
fn a_forest_that_has_not_begun_is_only_read() {
    let mut rig = Rig::new(geometry(), 1);
    put_pairs(&mut rig, 0..500, false);
    rig.drain();
    let image = rig.sim.durable_image();
    let (machine, sim) = Machine::sim_from(image.clone(), 4);
    let mut forest = load(&machine, &specs(), BLOCKS).unwrap();
    rig.model.check(&forest).unwrap();
    let error = forest.close_beat(None).unwrap_err();
    assert!(matches!(error, ForestError::Grid(GridError::ReadOnly)), "{error}");
    assert!(!forest.has_failed());
    rig.model.check(&forest).unwrap();
    assert_eq!(sim.image(), image, "nothing was written");
}

#[test]
fn records_that_do_not_fit_are_told() {
    let item = TreeSpec::of::<Item>();
    assert!(item.fits(&Geometry::small()) && item.fits(&Geometry::default()));
    assert_eq!((item.name(), item.value_size()), ("items", 144));
    let huge =
        Geometry { share_size: 1 << 30, batch_size_max: 1 << 30, beats_per_bar: 256, ..Geometry::small() };
    huge.validate().unwrap();
    assert!(item.fits(&huge), "2^38 / 160 records");
    assert!(!TreeSpec::of::<Pair>().fits(&huge), "2^38 / 32 records are more than a memtable can hold");
    assert!(TreeSpec::of::<Pair>().fits(&Geometry { share_size: 1 << 28, batch_size_max: 1, ..huge }));
    assert!(!item.fits(&Geometry { block_size: 1024, ..Geometry::small() }), "no geometry at all");
}

#[test]
#[should_panic(expected = "a checkpoint is the end of a bar")]
fn a_checkpoint_within_a_bar_is_refused() {
    let mut rig = Rig::new(geometry(), 1);
    let root = Root {
        op_checkpoint: Op::new(0),
        op_flushed: Op::new(0),
        charge_total: 0,
        journal: (0, understory_format::Checksum::ZERO),
    };
    drop(rig.forest.close_beat(Some(&root)));
}

#[test]
#[should_panic(expected = "flushed ops are in no memtable")]
fn a_checkpoint_that_forgets_a_memtable_is_refused() {
    let mut rig = Rig::new(geometry(), 1);
    rig.put::<Pair>(1, false);
    for _ in 0..3 {
        rig.close(false).unwrap();
    }
    let root = Root {
        op_checkpoint: Op::new(1),
        op_flushed: Op::new(1),
        charge_total: 0,
        journal: (0, understory_format::Checksum::ZERO),
    };
    drop(rig.forest.close_beat(Some(&root)));
}

#[test]
#[should_panic(expected = "a forest begins once")]
fn a_forest_begins_once() {
    let mut rig = Rig::new(geometry(), 1);
    drop(rig.forest.begin(|_| ()));
}

/// Values of the open beat are read in order with those that wait and those in tables.
#[test]
fn a_scan_sees_every_generation() {
    let mut rig = Rig::new(geometry(), 1);
    put_pairs(&mut rig, 0..300, false);
    rig.drain();
    put_pairs(&mut rig, 100..200, false);
    rig.close_bar(false);
    put_pairs(&mut rig, 150..160, true);
    put_pairs(&mut rig, 155..157, false);
    let tree = rig.forest.tree::<Pair>().unwrap();
    assert_eq!(tree.memtable_counts(), (12, 100));
    rig.model.check(&rig.forest).unwrap();
    let mut scan = tree.scan(KeyRange::new(149, 161).unwrap(), Direction::Descending);
    let mut keys = Vec::new();
    while let Some(pair) = scan.next().unwrap() {
        pair.expect(pair.id.get(), rig.model.pairs[&pair.id.get()]);
        keys.push(pair.id.get());
    }
    assert_eq!(keys, [161, 160, 156, 155, 149]);
}

/// The ages of the tables of pairs in level 0, with their values: the runs, oldest first.
fn runs(rig: &Rig) -> Vec<u64> {
    let tree = rig.forest.tree::<Pair>().unwrap();
    let mut runs = std::collections::BTreeMap::new();
    for table in tree.manifest().iter(Level::new(0).unwrap(), Beat::MAX) {
        *runs.entry(table.info.age).or_default() += table.info.value_count;
    }
    runs.into_values().collect()
}

/// R19: a flush writes a run of its own and reads no other, as long as there may be one more; then it takes the
/// youngest, and those that are no larger than what it has by then.
#[test]
fn a_flush_is_a_run() {
    let mut rig = Rig::new(geometry().with_runs(3), 1);
    // Level 1 holds more than any run here, so that it does not pay to drain the oldest.
    put_pairs(&mut rig, (0..150).map(|key| 10 * key), false);
    rig.forest.set_settle(true);
    rig.drain();
    rig.drain();
    rig.forest.set_settle(false);
    rig.drain();
    assert_eq!((runs(&rig).len(), levels(&rig)[1]), (0, 150));
    let mut flush = |count: u64, expected: &[u64], consumed: u64| {
        let before = rig.forest.compaction_stats().consumed;
        put_pairs(&mut rig, (0..count).map(|key| 10 * key), false);
        rig.drain();
        assert_eq!(runs(&rig), expected);
        assert_eq!(rig.forest.compaction_stats().consumed - before, consumed);
        rig.model.check(&rig.forest).unwrap();
    };
    flush(30, &[30], 30);
    flush(20, &[30, 20], 20);
    flush(10, &[30, 20, 10], 10);
    // Too many: the youngest goes with it, then 20 are no more than 5 and 10 taken together would be.
    flush(5, &[30, 20, 10], 15);
    flush(10, &[30], 10 + 10 + 20 + 30);
    flush(4, &[30, 4], 4);
    // An eighth of the flush is small beside it, a value more is not.
    flush(31, &[30, 4, 31], 31);
    flush(32, &[32], 32 + 31 + 4 + 30);
    flush(4, &[32, 4], 4);
    flush(33, &[32, 33], 33 + 4);
}

/// R20: what leaves level 0 takes along what is older and overlaps it, and a table that overlaps an older one does not
/// move alone.
#[test]
fn newer_never_goes_without_older() {
    // Level 0 takes four tables of 204 values.
    let geometry = Geometry { share_size: 4096, batch_size_max: 4096, ..geometry() };
    let mut rig = Rig::new(geometry.with_runs(4), 1);
    put_pairs(&mut rig, (0..100).map(|key| 1_000 * key + 7), false);
    rig.drain();
    rig.forest.set_settle(true);
    rig.drain();
    rig.forest.set_settle(false);
    rig.close_bar(false);
    put_pairs(&mut rig, (0..100).map(|key| 1_000 * key), false);
    rig.drain();
    put_pairs(&mut rig, 10_500..10_900, false);
    rig.drain();
    put_pairs(&mut rig, 200_000..200_350, false);
    rig.drain();
    assert_eq!((runs(&rig), levels(&rig)[1]), (vec![100, 400, 350], 100));
    // What overlaps nothing older moves.
    let before = rig.forest.compaction_stats();
    rig.close_bar(false);
    let stats = rig.forest.compaction_stats();
    assert_eq!(stats.consumed, before.consumed);
    assert!(stats.moved > before.moved, "{stats:?}");
    assert!(runs(&rig).starts_with(&[100, 400]), "{:?}", runs(&rig));
    // What overlaps the older goes with it.
    rig.forest.set_settle(true);
    rig.drain();
    assert_eq!(runs(&rig), [0; 0]);
    assert_eq!(rig.forest.compaction_stats().consumed - stats.consumed, 500 + 100);
    rig.model.check(&rig.forest).unwrap();
}

/// A tombstone in a run stays while an older run holds what it hides, and goes with it.
#[test]
fn tombstones_stay_above_older_runs() {
    let mut rig = Rig::new(geometry().with_runs(4), 1);
    put_pairs(&mut rig, 100..150, false);
    rig.drain();
    put_pairs(&mut rig, 110..140, true);
    rig.drain();
    assert_eq!(runs(&rig), [50, 30]);
    put_pairs(&mut rig, 10..60, true);
    rig.drain();
    assert_eq!(runs(&rig), [50, 30], "nothing is older where these are");
    rig.model.check(&rig.forest).unwrap();
    rig.forest.set_settle(true);
    rig.drain();
    assert_eq!((runs(&rig).len(), levels(&rig)[1]), (0, 20));
    rig.model.check(&rig.forest).unwrap();
}

/// Of a table that moved, the log's newest record is an update at its new level.
#[test]
fn a_move_is_logged_as_an_update() {
    let mut rig = Rig::new(geometry(), 1);
    put_pairs(&mut rig, 0..6_000, false);
    rig.drain();
    let (_, edits) = super::watch::read_log(&rig.forest);
    let kinds = |kind| edits.iter().filter(|edit| edit.kind == kind).count();
    assert!(kinds(EditKind::Update) > 0 && kinds(EditKind::Insert) > 0);
    assert_eq!(kinds(EditKind::Remove), 0);
    for edit in edits {
        assert_eq!(edit.level.get() > 0, edit.kind == EditKind::Update, "{edit:?}");
    }
}
