use fastrand::Rng;
use understory_format::{Geometry, Key, Record};
use understory_testkit::{Item, KeyPool, KeyShape, Ordinal, Pair, Posting, Quad, TestRecord, near};

use super::*;
use crate::test_grid::{TestGrid, corruption, wide, with_tombstones};
use crate::{addresses, search, verify};

fn with_filters() -> [Geometry; 3] {
    [Geometry::small().with_filters(10), wide().with_filters(10), wide().with_filters(3)]
}

fn read(grid: &TestGrid, layout: &TableLayout, info: &TableInfo) -> Result<Option<Filter>, TableError> {
    Filter::read(&grid.grid, layout, info, &Arc::new(FilterBudget::new(64)), 0)
}

fn lines(filter: &Filter) -> Vec<Vec<u8>> {
    let lines = |block: &Block| FilterView::new(block).unwrap().lines().to_vec();
    filter.blocks.iter().map(lines).collect()
}

fn may_have<K: Key>(filter: &Filter, key: K) -> bool {
    filter.line(key.hash()).may_have(key.hash())
}

/// What the writer kept, what is read again, and what is on disk are one filter; it has all keys, values and tombstones,
/// and few of those beside them.
#[test]
fn no_key_is_missed() {
    fn check<R: TestRecord>(geometry: Geometry, shape: KeyShape, rng: &mut Rng) {
        let grid = TestGrid::new::<R>(geometry);
        let layout = grid.layout::<R>();
        let pool = KeyPool::<R::Key>::new(rng, shape, 900);
        let values: Vec<R> = pool.keys().iter().map(|&key| R::make(key, 1)).collect();
        let entries = with_tombstones(values, rng, 3);
        let budget = Arc::new(FilterBudget::new(64));
        let mut writer = grid.writer::<R>().holding_filters(Arc::clone(&budget), 0);
        let mut reservation = grid.grid.reserve(writer.blocks_bound(900)).unwrap();
        for (value, tombstone) in &entries {
            writer.push(value, *tombstone, &mut reservation).unwrap();
        }
        writer.finish(&mut reservation).unwrap();
        grid.grid.forfeit(reservation);
        let (tables, filters) = (writer.take_tables(), writer.take_filters());
        assert_eq!(filters.len(), tables.len());
        let (mut asked, mut passed) = (0, 0);
        for (info, (index, held)) in tables.iter().zip(&filters) {
            assert_eq!(*index, info.index.address);
            let again = read(&grid, &layout, info).unwrap().unwrap();
            assert_eq!(lines(&again), lines(held));
            verify(&grid.grid, &layout, &R::KEY, info).unwrap();
            for key in pool.keys().iter().flat_map(|&key| near(key)) {
                let found = search::<R>(&grid.grid, &layout, info, key).unwrap();
                if !found.is_absent() {
                    assert!(may_have(held, key), "{key:?}");
                } else {
                    asked += 1;
                    passed += u32::from(may_have(held, key));
                }
            }
        }
        // With 3 bits every third passes or so.
        let most = if geometry.filter_bits >= 10 { asked / 40 } else { asked / 2 };
        assert!(passed <= most.max(20), "{passed} of {asked}");
        assert!(shape == KeyShape::Adjacent || asked > 500, "{asked} near misses");
        assert_eq!(budget.held(), filters.iter().map(|(_, filter)| u64_of(filter.blocks.len())).sum());
        drop(filters);
        assert_eq!(budget.held(), 0);
    }
    let mut rng = Rng::with_seed(31);
    for geometry in with_filters() {
        for shape in [KeyShape::Adjacent, KeyShape::Spread, KeyShape::EqualEnds, KeyShape::Mixed] {
            check::<Item>(geometry, shape, &mut rng);
            check::<Pair>(geometry, shape, &mut rng);
            check::<Posting>(geometry, shape, &mut rng);
            check::<Quad>(geometry, shape, &mut rng);
        }
    }
}

/// Tables of the wide geometry, with filters of 10 bits.
fn written(count: u64) -> (TestGrid, TableLayout, Vec<TableInfo>) {
    let grid = TestGrid::new::<Item>(wide().with_filters(10));
    let entries: Vec<_> = (1..=count).map(|number| (Item::make(u128::spread(number, 4), 1), false)).collect();
    let tables = grid.tables(&entries);
    let layout = grid.layout::<Item>();
    (grid, layout, tables)
}

#[test]
fn a_budget_is_kept_to() {
    let (grid, layout, tables) = written(1000);
    assert!(tables.len() >= 3);
    let budget = Arc::new(FilterBudget::new(2));
    let read =
        |number: usize, spare| Filter::read(&grid.grid, &layout, &tables[number], &budget, spare).unwrap();
    assert!(read(0, 2).is_none());
    let first = read(0, 1).unwrap();
    assert!(read(1, 1).is_none());
    let second = read(1, 0).unwrap();
    assert!(read(2, 0).is_none());
    assert_eq!((budget.limit(), budget.held()), (2, 2));
    drop(first);
    assert_eq!(budget.held(), 1);
    assert!(read(2, 0).is_some());
    drop(second);
    assert_eq!(budget.held(), 0);
    // A writer without room leaves no filter in memory, and the same on disk.
    let mut writer = grid.writer::<Item>().holding_filters(Arc::new(FilterBudget::new(0)), 0);
    let mut reservation = grid.grid.reserve(writer.blocks_bound(1)).unwrap();
    writer.push(&Item::make(5, 1), false, &mut reservation).unwrap();
    writer.finish(&mut reservation).unwrap();
    grid.grid.forfeit(reservation);
    assert!(writer.take_filters().is_empty());
    verify(&grid.grid, &layout, &Item::KEY, &writer.take_tables()[0]).unwrap();
}

/// A filter that is damaged in any byte that is used is refused with its place, found by the check of the table, and no
/// matter of a lookup.
#[test]
fn every_flip_is_found_and_does_no_harm() {
    let (grid, layout, tables) = written(300);
    let info = &tables[0];
    let address = addresses(&grid.grid, &layout, info).unwrap()[2];
    let lines = layout.filter.unwrap().line_count(info.value_count);
    for offset in 0..256 + 64 * understory_format::usize_of(lines) {
        let cold = grid.cold(16, 8);
        cold.flip(address, offset);
        let error = corruption(read(&cold, &layout, info));
        assert_eq!(error.place, Place::Block(address), "byte {offset}");
        if offset % 16 == 0 {
            assert_eq!(
                corruption(verify(&cold.grid, &layout, &Item::KEY, info)).place,
                Place::Block(address)
            );
            let key = u128::spread(5, 4);
            assert!(!search::<Item>(&cold.grid, &layout, info, key).unwrap().is_absent());
        }
    }
}

/// Filters that are wrong under right checksums: other metadata is refused, other lines the check of the table finds.
#[test]
fn forged_filters_are_found() {
    let (grid, layout, tables) = written(300);
    let info = &tables[0];
    let check = |at: usize, field: &str, is_refused: bool| {
        let (forged, info) = grid.forge_filter(info, |block| block[at] ^= 1);
        assert_eq!(read(&forged, &layout, &info).is_err(), is_refused, "{field}");
        assert_eq!(corruption(verify(&forged.grid, &layout, &Item::KEY, &info)).field, field);
    };
    check(56, "tree_id", true);
    check(128, "size", true);
    check(132, "line_start", true);
    check(136, "table_line_count", true);
    check(200, "reserved", true);
    check(256, "filter", false);
    check(256 + 64 + 63, "filter", false);
    let (forged, info) = grid.forge_index(info, |block| block[128 + 36] ^= 1);
    assert_eq!(corruption(read(&forged, &layout, &info)).field, "filter_line_count");
}

/// Whatever stands in a filter under good checksums, a lookup gets an answer or an error, and reading goes on.
#[test]
fn forged_filters_do_no_harm() {
    let (grid, layout, tables) = written(300);
    let mut rng = Rng::with_seed(5);
    for _ in 0..200 {
        let (forged, info) = grid.forge_filter(&tables[0], |block| {
            for _ in 0..rng.usize(1..4) {
                let at = [56, rng.usize(128..144), rng.usize(256..512)][rng.usize(..3)];
                block[at] = rng.u8(1..);
            }
        });
        if let Ok(filter) = read(&forged, &layout, &info) {
            let filter = filter.unwrap();
            let found = (0..200).filter(|number| may_have(&filter, u128::spread(*number, 4)));
            assert!(found.count() <= 200);
        }
        let key = u128::spread(7, 4);
        assert!(!search::<Item>(&forged.grid, &layout, &info, key).unwrap().is_absent());
    }
}
