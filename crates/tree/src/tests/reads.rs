//! What reads cost, and what they do when the file fails them.

use understory_format::{BlockKind, Direction, Geometry, KeyRange, Level};
use understory_grid::GridError;
use understory_io::IoCause;
use understory_table::{Full, TableError, addresses};
use understory_testkit::{Item, Pair, TestRecord};

use super::Rig;

/// Levels 0 and 1 of some tables each.
pub(super) fn two_levels() -> Rig<Pair> {
    let mut rig = Rig::<Pair>::new(Geometry { table_blocks: 2, share_size: 1 << 18, ..Geometry::small() });
    (0..3_000).for_each(|key| rig.put(2 * key));
    rig.end_bar();
    rig.push(0);
    rig.push(1);
    (0..2_000).for_each(|key| rig.put(3 * key));
    rig.end_bar();
    rig.push(0);
    rig.tree.grid().flush().unwrap();
    rig
}

#[test]
fn a_scan_reads_nothing_before_it_is_asked() {
    let rig = two_levels();
    let before = rig.sim.operations();
    let all = KeyRange::new(0, u64::MAX).unwrap();
    let scans = [Direction::Ascending, Direction::Descending].map(|direction| rig.tree.scan(all, direction));
    assert_eq!(rig.sim.operations(), before);
    drop(scans);
    assert_eq!(rig.sim.operations(), before);
}

/// Tables that lie outside the range are not touched, nor are those behind what was asked for.
#[test]
fn a_scan_that_stops_reads_no_further() {
    let rig = two_levels();
    let grid = rig.tree.grid();
    let reads = || grid.stats().block_hits + grid.stats().block_misses + grid.stats().prefetches;
    let before = reads();
    rig.check_scan(10, 1 << 40, Direction::Ascending, 3);
    let few = reads() - before;
    assert!(few <= 10, "{few} blocks were looked at for three records of two levels");
    let before = reads();
    rig.check_scan(1 << 40, 1 << 41, Direction::Ascending, usize::MAX);
    assert_eq!(reads() - before, 0, "no table reaches so far");
}

/// After an error the scan goes on where it was.
#[test]
fn a_scan_survives_an_error() {
    let rig = two_levels();
    let image = rig.sim.image();
    let mut failed = 0;
    for operation in 0..40 {
        let cold = reopened(&rig, image.clone());
        let mut scan = cold.tree.scan(KeyRange::new(0, u64::MAX).unwrap(), Direction::Ascending);
        cold.sim.inject(cold.sim.operations() + operation, IoCause::Injected);
        let mut expected = rig.model.iter();
        loop {
            match scan.next() {
                Ok(Some(pair)) => {
                    let (key, version) = expected.next().unwrap();
                    pair.expect(*key, *version);
                }
                Ok(None) => break,
                Err(TableError::Grid(GridError::Io(_) | GridError::Unreadable { .. })) => failed += 1,
                Err(error) => panic!("operation {operation}: {error}"),
            }
        }
        assert!(expected.next().is_none());
    }
    assert!(failed > 0, "some reads were waited for");
}

/// The same tables over a cold cache.
pub(super) fn reopened(rig: &Rig<Pair>, image: Vec<u8>) -> Rig<Pair> {
    let cold = super::opening::on_image::<Pair>(image, rig.tree.grid().geometry());
    for (level, table) in rig.tree.manifest().tables() {
        cold.tree.load(level, table.info).unwrap();
    }
    cold.tree.loaded().unwrap();
    cold
}

#[test]
fn a_get_fails_and_is_tried_again() {
    let rig = two_levels();
    let image = rig.sim.image();
    let mut failed = 0;
    for operation in 0..4 {
        let cold = reopened(&rig, image.clone());
        cold.sim.inject(cold.sim.operations() + operation, IoCause::Injected);
        // 1 is in no level, 4 in level 1, and both levels cover them.
        for key in [1, 4] {
            match cold.tree.get(key) {
                Ok(found) => assert_eq!(found.is_some(), key == 4),
                Err(TableError::Grid(GridError::Io(_) | GridError::Unreadable { .. })) => failed += 1,
                Err(error) => panic!("{error}"),
            }
            assert_eq!(cold.tree.get(key).unwrap().is_some(), key == 4);
        }
    }
    assert!(failed >= 2, "{failed}");
}

/// Damage is told by who meets it, and by nobody else.
#[test]
fn damage_is_met_where_it_is() {
    let rig = two_levels();
    let table =
        *rig.tree.manifest().iter(Level::new(1).unwrap(), understory_format::Beat::MAX).next().unwrap();
    let index = rig.tree.grid().read_twin(table.info.index, BlockKind::Index).unwrap();
    let first = understory_format::IndexView::new(&index, 8).unwrap().entry(0).reference.address;
    let cold = reopened(&rig, rig.sim.image());
    cold.sim.corrupt(cold.tree.grid().geometry().block_offset(first) + 300, 1);
    // 0 is in level 0, above the damage; 2 only below; 5998 in the last table.
    Pair::expect(&cold.tree.get(0).unwrap().unwrap(), 0, rig.model[&0]);
    assert!(matches!(cold.tree.get(2), Err(TableError::Corrupt(_))));
    assert!(cold.tree.get(5_998).unwrap().is_some());
    let mut scan = cold.tree.scan(KeyRange::new(0, 10).unwrap(), Direction::Ascending);
    assert!(matches!(scan.next(), Err(TableError::Corrupt(_))), "what might be hidden is not skipped");
}

#[test]
fn a_full_memtable_takes_nothing() {
    let mut rig = Rig::<Item>::with_chunks(Geometry::small(), 3);
    let per_chunk = 4096 / (144 + 16);
    (0..3 * per_chunk).for_each(|key| rig.put(key));
    let more = Item::make(1 << 100, 1);
    assert_eq!(rig.tree.put(&more, false), Err(Full::Chunks { count: 3 }));
    assert!(rig.tree.get(1 << 100).unwrap().is_none());
    rig.check_all();
    assert_eq!(rig.tree.memtable_counts().0, u64::try_from(3 * per_chunk).unwrap());
}

/// Three bars are in memory, the flushed one among them, and not a chunk more; their indexes take turns.
#[test]
fn memtables_take_turns() {
    let (bars, chunks) = (3, 4);
    let mut rig = Rig::<Pair>::with_chunks(Geometry::small(), bars * chunks);
    for bar in 0..8 {
        (0..500).for_each(|key| rig.put(key * 7 + bar));
        let held = usize::try_from(bar).unwrap().min(bars - 1);
        assert_eq!(rig.pool.available(), (bars - 1 - held) * chunks, "bar {bar}");
        rig.end_bar();
        rig.check_all();
        rig.push(0);
        rig.check_all();
    }
    // Bars without a value let go of what was flushed before them.
    rig.end_bar();
    assert_eq!(rig.pool.available(), 2 * chunks);
    rig.end_bar();
    assert_eq!(rig.pool.available(), 3 * chunks);
    rig.check_all();
}

#[test]
fn an_empty_bar_leaves_nothing_to_flush() {
    let mut rig = Rig::<Pair>::new(Geometry::small());
    (0..3).for_each(|_| rig.end_bar());
    assert!(rig.tree.immutable().is_none());
    assert!(rig.jobs(0, 4).is_empty());
    rig.check_all();
}

#[test]
#[should_panic(expected = "every memtable is flushed within the bar after its own")]
fn a_memtable_is_not_forgotten() {
    let mut rig = Rig::<Pair>::new(Geometry::small());
    for key in 0..2 {
        rig.put(key);
        rig.end_bar();
    }
}

#[test]
#[should_panic(expected = "a flush writes the immutable memtable")]
fn a_flush_of_nothing_is_refused() {
    let rig = Rig::<Pair>::new(Geometry::small());
    rig.tree.apply(true, &[], Vec::new());
}

/// Lookups of absent keys read the filter of a table once, and from then on nothing; a damaged filter is read once too,
/// and changes no answer.
#[test]
fn a_filter_is_read_when_it_is_first_of_use() {
    let geometry = Geometry { table_blocks: 2, share_size: 1 << 18, ..Geometry::small().with_filters(16) };
    let mut rig = Rig::<Pair>::new(geometry);
    (0..400).for_each(|key| rig.put(2 * key));
    rig.end_bar();
    rig.push(0);
    rig.tree.grid().flush().unwrap();
    let info = rig.tree.manifest().tables().next().unwrap().1.info;
    let blocks = addresses(rig.tree.grid(), rig.tree.layout(), &info).unwrap();
    for is_damaged in [false, true] {
        let image = rig.sim.image();
        let cold = super::opening::on_image::<Pair>(image, &geometry);
        if is_damaged {
            cold.sim.corrupt(geometry.block_offset(blocks[2]) + 300, 1);
        }
        let cold = Rig { model: rig.model.clone(), ..cold };
        for (level, table) in rig.tree.manifest().tables() {
            cold.tree.load(level, table.info).unwrap();
        }
        cold.tree.loaded().unwrap();
        let stats = || cold.tree.grid().stats();
        cold.check_get(100);
        assert_eq!(stats().reads_corrupt, 0);
        let before = stats().block_misses;
        cold.check_get(101);
        assert_eq!(stats().block_misses - before, 1, "the filter is read when a lookup was for nothing");
        let held = cold.tree.filter_budget().unwrap().held();
        assert_eq!((held, stats().reads_corrupt), if is_damaged { (0, 1) } else { (1, 0) });
        let (before, hits) = (stats().block_misses, stats().page_hits + stats().page_misses);
        (0..200).for_each(|key| cold.check_get(4 * key + 1));
        let pages = stats().page_hits + stats().page_misses - hits;
        assert_eq!(pages > 100, is_damaged, "{pages} pages were looked at");
        (0..300).for_each(|key| cold.check_get(key));
        assert!(stats().block_misses - before <= 4, "no filter is read twice");
        assert_eq!(stats().reads_corrupt, u64::from(is_damaged));
    }
}

/// Filters of deep tables leave room: those of level 2 come in up to three quarters of what there may be, those of
/// level 1 as long as there is any.
#[test]
fn deep_filters_leave_room_to_others() {
    let check = |level: u8, held: u64| {
        let geometry =
            Geometry { table_blocks: 1, share_size: 1 << 18, ..Geometry::small().with_filters(10) };
        let mut rig = Rig::<Pair>::new(geometry);
        let limit = rig.tree.filter_budget().unwrap().limit();
        (0..6_000).for_each(|key| rig.put(2 * key));
        rig.end_bar();
        (0..=level).for_each(|to| rig.push(to));
        rig.tree.grid().flush().unwrap();
        assert!(rig.tree.level_stats(Level::new(level).unwrap()).table_count > limit);
        let cold = reopened(&rig, rig.sim.image());
        let limit = cold.tree.filter_budget().unwrap().limit();
        for _ in 0..2 {
            (0..6_000).for_each(|key| assert!(cold.tree.get(2 * key + 1).unwrap().is_none()));
        }
        assert_eq!((limit, cold.tree.filter_budget().unwrap().held()), (8, held), "level {level}");
    };
    check(1, 8);
    check(2, 6);
    check(3, 6);
}
