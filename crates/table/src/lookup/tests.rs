use std::collections::BTreeMap;

use fastrand::Rng;
use understory_format::{BlockKind, Checksum, Geometry, IndexView, Record};
use understory_io::Storage;
use understory_testkit::{Item, KeyPool, KeyShape, Ordinal, Pair, Posting, Quad, TestRecord, near};

use super::*;
use crate::test_grid::{TestGrid, corruption, geometries, items, wide, with_tombstones};

const SHAPES: [KeyShape; 5] =
    [KeyShape::Adjacent, KeyShape::Spread, KeyShape::Random, KeyShape::EqualEnds, KeyShape::Mixed];

/// All entries, and for each absent neighbour of a key that there is nothing: so each edge of each page, block and
/// table is missed closely.
#[test]
fn each_key_is_found_and_its_neighbours_are_not() {
    fn check<R: TestRecord>(geometry: Geometry, shape: KeyShape, rng: &mut Rng) {
        let grid = TestGrid::new::<R>(geometry);
        let layout = grid.layout::<R>();
        let pool = KeyPool::<R::Key>::new(rng, shape, 700);
        let values: Vec<R> = pool.keys().iter().map(|&key| R::make(key, 1)).collect();
        let entries = with_tombstones(values, rng, 3);
        let tables = grid.tables(&entries);
        let model: BTreeMap<R::Key, &(R, bool)> =
            entries.iter().map(|entry| (entry.0.key(), entry)).collect();
        for key in pool.keys().iter().flat_map(|&key| near(key)) {
            for info in &tables {
                let inside =
                    R::Key::decode(info.key_min.get()) <= key && key <= R::Key::decode(info.key_max.get());
                let expected = model.get(&key).filter(|_| inside);
                let found = search::<R>(&grid.grid, &layout, info, key).unwrap();
                let cached = search_cached::<R>(&grid.grid, &layout, info, key).unwrap();
                match expected {
                    None => {
                        assert!(found.is_absent(), "{key:?}");
                        assert!(matches!(cached, Lookup::Absent), "{key:?}");
                    }
                    Some((value, tombstone)) => {
                        let Lookup::Found(entry) = cached else { panic!("{key:?}: {cached:?}") };
                        assert_eq!((entry.value.as_bytes(), entry.tombstone), (value.as_bytes(), *tombstone));
                        let record = (!tombstone).then_some(value.as_bytes());
                        assert_eq!(found.value().as_ref().map(|value| value.as_bytes()), record);
                        assert!(!found.is_absent());
                    }
                }
            }
        }
    }
    let mut rng = Rng::with_seed(21);
    for geometry in geometries() {
        for shape in SHAPES {
            check::<Item>(geometry, shape, &mut rng);
            check::<Pair>(geometry, shape, &mut rng);
            check::<Posting>(geometry, shape, &mut rng);
            check::<Quad>(geometry, shape, &mut rng);
        }
    }
}

#[test]
fn a_cold_search_reads_one_index_and_one_page() {
    let (written, tables) = items(300);
    let grid = written.cold(32, 32);
    let layout = grid.layout::<Item>();
    let info = &tables[0];
    let reads = || {
        let counters = grid.sim.counters();
        (counters.reads, counters.bytes_read)
    };
    let start = reads();
    let since = || (reads().0 - start.0, reads().1 - start.1);
    let key = u128::spread(150, 4);
    assert_eq!(search_cached::<Item>(&grid.grid, &layout, info, key).unwrap(), Lookup::NeedsIo);
    assert_eq!(since(), (0, 0));
    let found = search::<Item>(&grid.grid, &layout, info, key).unwrap();
    assert_eq!(found, Found::Value(Item::make(key, 1)));
    assert_eq!(since(), (2, 16384 + 4096));
    // The rest of the page is in memory now, the page after it is not.
    let Lookup::Found(_) = search_cached::<Item>(&grid.grid, &layout, info, key).unwrap() else { panic!() };
    assert_eq!(search_cached::<Item>(&grid.grid, &layout, info, key + 1).unwrap(), Lookup::Absent);
    let far = u128::spread(250, 4);
    assert_eq!(search_cached::<Item>(&grid.grid, &layout, info, far).unwrap(), Lookup::NeedsIo);
    assert_eq!(since(), (2, 16384 + 4096));
    assert_eq!(search::<Item>(&grid.grid, &layout, info, far).unwrap(), Found::Value(Item::make(far, 1)));
    assert_eq!(since(), (3, 16384 + 2 * 4096));
    // Outside the table, the index alone answers.
    for key in [0, u128::spread(1, 4) - 1, u128::spread(300, 4) + 1, u128::MAX] {
        assert_eq!(search::<Item>(&grid.grid, &layout, info, key).unwrap(), Found::Absent);
    }
    assert_eq!(since(), (3, 16384 + 2 * 4096));
}

/// In the gap between two blocks nothing but the index is asked.
#[test]
fn a_gap_between_blocks_needs_no_page() {
    let (written, tables) = items(300);
    let grid = written.cold(32, 32);
    let layout = grid.layout::<Item>();
    let index = grid.grid.read_twin(tables[0].index, BlockKind::Index).unwrap();
    let view = IndexView::new(&index, 16).unwrap();
    assert!(view.value_block_count() > 1);
    let before = grid.sim.counters().reads;
    for block in 1..view.value_block_count() {
        let key = u128::decode(view.key_min_bytes(block)) - 1;
        assert_eq!(search_cached::<Item>(&grid.grid, &layout, &tables[0], key).unwrap(), Lookup::Absent);
    }
    assert_eq!(grid.sim.counters().reads, before);
    // In the gap between two pages of a block, a page is.
    let key = u128::decode(view.page_key_max_bytes(0)) + 1;
    assert_eq!(search_cached::<Item>(&grid.grid, &layout, &tables[0], key).unwrap(), Lookup::NeedsIo);
}

/// A whole block in memory serves for its pages.
#[test]
fn pages_come_from_blocks_in_memory() {
    let (written, tables) = items(300);
    let grid = written.cold(32, 32);
    let layout = grid.layout::<Item>();
    let index = grid.grid.read_twin(tables[0].index, BlockKind::Index).unwrap();
    let view = IndexView::new(&index, 16).unwrap();
    let block = grid.grid.read(view.entry(0).reference, BlockKind::Value).unwrap();
    let before = grid.sim.counters().reads;
    for number in 1..=u64::from(view.entry(0).value_count) {
        let key = u128::spread(number, 4);
        let found = search_cached::<Item>(&grid.grid, &layout, &tables[0], key).unwrap();
        assert_eq!(found, Lookup::Found(Entry::put(Item::make(key, 1))));
    }
    assert_eq!(grid.sim.counters().reads, before);
    drop(block);
}

/// Each page of a block damaged in turn: reads of it name it, reads of the others are none the worse.
#[test]
fn a_damaged_page_is_named_and_the_others_are_read() {
    let (written, tables) = items(300);
    let index = written.grid.read_twin(tables[0].index, BlockKind::Index).unwrap();
    let view = IndexView::new(&index, 16).unwrap();
    let layout = written.layout::<Item>();
    let entry = view.entry(1);
    assert_eq!(entry.page_count, 4);
    for damaged in 0..entry.page_count {
        let grid = written.cold(32, 32);
        let range = layout.value.page_bytes(damaged);
        grid.flip(entry.reference.address, (range.start + range.end) / 2);
        for page in 0..entry.page_count {
            let key = u128::decode(view.page_key_max_bytes(entry.page_start + page));
            let result = search::<Item>(&grid.grid, &layout, &tables[0], key);
            if page == damaged {
                let error = corruption(result);
                assert_eq!(error.place, Place::Page(entry.reference.address, page));
                assert_eq!(error.field, "page_checksum");
            } else {
                assert_eq!(result.unwrap(), Found::Value(Item::make(key, 1)));
            }
        }
    }
}

#[test]
fn a_damaged_index_is_read_from_its_twin_and_two_are_an_error() {
    let (written, tables) = items(300);
    let grid = written.cold(32, 32);
    let layout = grid.layout::<Item>();
    let (info, key) = (&tables[0], u128::spread(7, 4));
    grid.flip(info.index.address, 300);
    assert_eq!(search::<Item>(&grid.grid, &layout, info, key).unwrap(), Found::Value(Item::make(key, 1)));
    assert_eq!(grid.grid.stats().twin_fallbacks, 1);
    let grid = written.cold(32, 32);
    grid.flip(info.index.address, 300);
    grid.flip(info.index.twin, 301);
    let error = corruption(search::<Item>(&grid.grid, &layout, info, key));
    assert_eq!(error.place, Place::Block(info.index.address));
}

/// An info that is not the index's: each difference is found, in memory and cold.
#[test]
fn an_index_that_does_not_fit_its_table_is_damage() {
    let (written, tables) = items(300);
    let layout = written.layout::<Item>();
    let good = tables[0];
    let other = |change: &dyn Fn(&mut TableInfo)| {
        let mut info = good;
        change(&mut info);
        info
    };
    let changed = [
        (other(&|info| info.value_count += 1), "value_count"),
        (other(&|info| info.tombstone_count += 1), "tombstone_count"),
        (other(&|info| info.value_block_count += 1), "value_block_count"),
        (other(&|info| info.key_min.0[0] ^= 1), "key_min"),
        (other(&|info| info.key_max.0[0] ^= 1), "key_min"),
        (other(&|info| info.tree = understory_format::TreeId::new(9).unwrap()), "tree_id"),
    ];
    for (info, field) in changed {
        for grid in [&written, &written.cold(32, 32)] {
            let error = corruption(search::<Item>(&grid.grid, &layout, &info, 16));
            assert_eq!((error.field, error.place), (field, Place::Block(info.index.address)));
        }
        let warm = search_cached::<Item>(&written.grid, &layout, &info, 16);
        assert_eq!(corruption(warm).field, field);
    }
    let mut info = good;
    info.index.checksum = Checksum::new(info.index.checksum.get() ^ 1);
    assert_eq!(corruption(search::<Item>(&written.cold(32, 32).grid, &layout, &info, 16)).field, "checksum");
}

/// Whatever the bytes of a page that can hold the key, the search ends without a panic and gives only that key.
#[test]
fn any_page_gives_the_key_or_nothing() {
    let mut rng = Rng::with_seed(5);
    let layout = TestGrid::new::<Pair>(wide()).layout::<Pair>();
    let reference = understory_format::BlockRef {
        address: understory_format::BlockAddress::new(9).unwrap(),
        checksum: Checksum::ZERO,
    };
    for _ in 0..2000 {
        let page = rng.u32(0..4);
        let range = layout.value.page_bytes(page);
        let mut bytes = vec![0; range.len()];
        rng.fill(&mut bytes);
        if rng.bool() {
            bytes.iter_mut().for_each(|byte| *byte &= 3);
        }
        let value_count = rng.u32(0..=layout.value.page(page).value_count_max);
        let page = PageRef {
            reference,
            page,
            checksum: Checksum::ZERO,
            range,
            value_count,
            has_tombstones: rng.bool(),
        };
        for _ in 0..20 {
            let at = rng.usize(..bytes.len() / 16) * 16;
            let key = Pair::read_from_bytes(&bytes[at..at + 16]).unwrap().key();
            let found = search_page::<Pair>(&bytes, &layout, &page, key).unwrap();
            assert!(found.is_none_or(|entry| entry.value.key() == key));
        }
        let short = &bytes[..bytes.len() - 1];
        assert!(search_page::<Pair>(short, &layout, &page, 0).is_err());
    }
}
