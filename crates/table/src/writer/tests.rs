use understory_format::zerocopy::IntoBytes;
use understory_format::{
    BlockKind, Geometry, IndexView, KeyBytes, Record, TableInfo, ValueBlockView, usize_of,
};
use understory_testkit::{Item, Ordinal, Pair, Posting, Quad, TestRecord};

use super::*;
use crate::test_grid::{AGE, BEAT, TREE, TestGrid, geometries, wide};
use crate::{LayoutError, addresses};

fn values<R: TestRecord>(count: usize) -> Vec<(R, bool)> {
    (1..=count).map(|number| (R::make(R::Key::spread(u64::try_from(number).unwrap(), 4), 1), false)).collect()
}

fn counts(tables: &[TableInfo]) -> Vec<(u32, u64)> {
    tables.iter().map(|info| (info.value_block_count, info.value_count)).collect()
}

#[test]
fn fills_are_exact() {
    fn check<R: TestRecord>(geometry: Geometry) {
        let grid = TestGrid::new::<R>(geometry);
        let layout = grid.layout::<R>();
        let page = usize_of(layout.value.first.value_count_max);
        let block = usize_of(layout.value.value_count_max);
        let blocks = usize_of(layout.value_blocks_max);
        let table = block * blocks;
        let around = |count: usize| [count - 1, count, count + 1];
        let sizes = [0, 1, 2]
            .into_iter()
            .chain([page, block, 2 * block, table, 2 * table].into_iter().flat_map(around));
        for count in sizes {
            let entries = values::<R>(count);
            let tables = grid.tables(&entries);
            let expected: Vec<_> = entries
                .chunks(table)
                .map(|chunk| {
                    (u32::try_from(chunk.len().div_ceil(block)).unwrap(), u64::try_from(chunk.len()).unwrap())
                })
                .collect();
            assert_eq!(counts(&tables), expected, "{count} values");
            grid.verify::<R>(&tables).unwrap();
            for (info, chunk) in tables.iter().zip(entries.chunks(table)) {
                assert_eq!(info.key_min, chunk.first().unwrap().0.key().encode());
                assert_eq!(info.key_max, chunk.last().unwrap().0.key().encode());
                assert_eq!((info.tree, info.beat_min, info.beat_max, info.age), (TREE, BEAT, Beat::MAX, AGE));
            }
        }
    }
    for geometry in geometries() {
        check::<Item>(geometry);
        check::<Pair>(geometry);
        check::<Posting>(geometry);
        check::<Quad>(geometry);
    }
}

/// What was drawn is what the tables hold, and no more than was said before.
#[test]
fn addresses_are_accounted_for() {
    for geometry in geometries() {
        let grid = TestGrid::new::<Item>(geometry);
        let layout = grid.layout::<Item>();
        let table = usize_of(layout.value_blocks_max * layout.value.value_count_max);
        for count in [0, 1, table / 2, table, table + 1, 3 * table - 1] {
            let before = grid.grid.space().acquired;
            let tables = grid.tables(&values::<Item>(count));
            let drawn = grid.grid.space().acquired - before;
            let mut held: Vec<_> =
                tables.iter().flat_map(|info| addresses(&grid.grid, &layout, info).unwrap()).collect();
            assert_eq!(u64::try_from(held.len()).unwrap(), drawn);
            assert_eq!(drawn, layout.blocks_bound(u64::try_from(count).unwrap()));
            held.sort_unstable();
            held.dedup();
            assert_eq!(u64::try_from(held.len()).unwrap(), drawn, "no address twice");
            assert!(held.iter().all(|&address| grid.grid.is_acquired(address)));
        }
    }
}

/// A writer that is carried over many reservations makes the tables that one call makes.
#[test]
fn carried_state_makes_the_same_tables() {
    let all = {
        let grid = TestGrid::new::<Pair>(wide());
        let entries = values::<Pair>(6000);
        (grid.tables(&entries), entries)
    };
    let grid = TestGrid::new::<Pair>(wide());
    let mut writer = grid.writer::<Pair>();
    let mut rng = fastrand::Rng::with_seed(11);
    let mut rest = &all.1[..];
    let mut tables = Vec::new();
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rng.usize(..=rest.len().min(700)));
        rest = later;
        let bound = writer.blocks_bound(u64::try_from(now.len()).unwrap());
        let mut reservation = grid.grid.reserve(bound).unwrap();
        let carried = writer.carried_values();
        let plain: Vec<Pair> = now.iter().map(|(value, _)| *value).collect();
        if rng.bool() {
            writer.push_slice(&plain, &mut reservation).unwrap();
        } else {
            plain.iter().try_for_each(|value| writer.push(value, false, &mut reservation)).unwrap();
        }
        assert!(carried > 0 || writer.carried_values() > 0 || now.is_empty() || writer.carried_blocks() > 0);
        tables.extend(writer.take_tables());
        grid.grid.forfeit(reservation);
    }
    let mut reservation = grid.grid.reserve(writer.blocks_bound(0)).unwrap();
    writer.finish(&mut reservation).unwrap();
    assert_eq!(reservation.left(), 0, "the bound of the end is exact");
    assert_eq!(writer.value_count(), 6000);
    assert_eq!(writer.last_key(), all.1.last().map(|(value, _)| value.key()));
    grid.grid.forfeit(reservation);
    tables.extend(writer.take_tables());
    assert_eq!(tables, all.0, "the same blocks at the same addresses");
    grid.verify::<Pair>(&tables).unwrap();
}

#[test]
fn slices_and_single_values_give_equal_blocks() {
    for geometry in geometries() {
        let entries = values::<Item>(500);
        let single = TestGrid::new::<Item>(geometry);
        let tables = single.tables(&entries);
        let sliced = TestGrid::new::<Item>(geometry);
        let mut writer = sliced.writer::<Item>();
        let mut reservation = sliced.grid.reserve(writer.blocks_bound(500)).unwrap();
        let plain: Vec<Item> = entries.iter().map(|(value, _)| *value).collect();
        for slice in plain.chunks(77) {
            writer.push_slice(slice, &mut reservation).unwrap();
        }
        writer.push_slice(&[], &mut reservation).unwrap();
        writer.finish(&mut reservation).unwrap();
        assert_eq!(writer.take_tables(), tables);
    }
}

/// What was in the buffers before does not get into the blocks.
#[test]
fn dirty_buffers_give_equal_blocks() {
    for geometry in geometries() {
        let entries = values::<Posting>(1700);
        let clean = TestGrid::new::<Posting>(geometry);
        let dirty = TestGrid::new::<Posting>(geometry);
        let mut buffers: Vec<Buffer> = std::iter::from_fn(|| dirty.grid.buffer().ok()).collect();
        assert!(buffers.len() > 200);
        buffers.iter_mut().for_each(|buffer| buffer.fill(0xa5));
        drop(buffers);
        assert_eq!(dirty.tables(&entries), clean.tables(&entries));
        clean.grid.flush().unwrap();
        dirty.grid.flush().unwrap();
        assert!(clean.sim.image() == dirty.sim.image(), "byte for byte");
    }
}

#[test]
fn what_is_out_of_order_is_refused_and_not_taken() {
    let grid = TestGrid::new::<Pair>(wide());
    let mut writer = grid.writer::<Pair>();
    let mut reservation = grid.grid.reserve(writer.blocks_bound(100)).unwrap();
    let value = |key: u64| Pair::make(key, 1);
    let refused = |writer: &mut TableWriter<Pair>, reservation: &mut Reservation, keys: &[u64]| {
        let values: Vec<Pair> = keys.iter().map(|&key| value(key)).collect();
        let error = writer.push_slice(&values, reservation).unwrap_err();
        assert!(matches!(error, TableError::OutOfOrder), "{error}");
        if let Some(last) = values.last() {
            assert!(matches!(writer.push(last, true, reservation), Err(TableError::OutOfOrder)));
        }
    };
    refused(&mut writer, &mut reservation, &[10, 20, 20]);
    assert_eq!((writer.value_count(), writer.last_key()), (2, Some(20)));
    refused(&mut writer, &mut reservation, &[20]);
    refused(&mut writer, &mut reservation, &[0]);
    refused(&mut writer, &mut reservation, &[21, 22, 5]);
    assert_eq!((writer.value_count(), writer.last_key()), (4, Some(22)));
    writer.push(&value(u64::MAX), false, &mut reservation).unwrap();
    refused(&mut writer, &mut reservation, &[u64::MAX]);
    writer.finish(&mut reservation).unwrap();
    let tables = writer.take_tables();
    assert_eq!(counts(&tables), [(1, 5)]);
    grid.verify::<Pair>(&tables).unwrap();
}

/// Order holds over tables too.
#[test]
fn a_finished_writer_goes_on_with_greater_keys_only() {
    let grid = TestGrid::new::<Pair>(wide());
    let mut writer = grid.writer::<Pair>();
    let mut reservation = grid.grid.reserve(writer.blocks_bound(1) * 2).unwrap();
    writer.push(&Pair::make(5, 1), false, &mut reservation).unwrap();
    writer.finish(&mut reservation).unwrap();
    writer.finish(&mut reservation).unwrap();
    assert!(matches!(writer.push(&Pair::make(5, 1), false, &mut reservation), Err(TableError::OutOfOrder)));
    writer.push(&Pair::make(6, 1), false, &mut reservation).unwrap();
    writer.finish(&mut reservation).unwrap();
    assert_eq!(counts(&writer.take_tables()), [(1, 1), (1, 1)]);
    assert!(writer.take_tables().is_empty());
}

#[test]
fn a_tombstone_is_its_key_and_nothing_else() {
    let grid = TestGrid::new::<Item>(wide());
    let entries: Vec<_> =
        values::<Item>(100).into_iter().zip(0..).map(|((value, _), n)| (value, n % 3 == 0)).collect();
    let tables = grid.tables(&entries);
    assert_eq!(tables[0].tombstone_count, 34);
    grid.verify::<Item>(&tables).unwrap();
    let index = grid.grid.read_twin(tables[0].index, BlockKind::Index).unwrap();
    let entry = IndexView::new(&index, 16).unwrap().entry(0);
    let block = grid.grid.read(entry.reference, BlockKind::Value).unwrap();
    let view = ValueBlockView::new(&block).unwrap();
    for (number, (value, tombstone)) in entries.iter().take(20).enumerate() {
        let expected = if *tombstone { Item::tombstone(value.key()) } else { *value };
        let page = view.page(0).unwrap();
        assert_eq!((page.value(number), page.is_tombstone(number)), (expected.as_bytes(), *tombstone));
    }
}

#[test]
fn an_abandoned_writer_names_what_it_wrote() {
    let grid = TestGrid::new::<Item>(wide());
    let layout = grid.layout::<Item>();
    let block = usize_of(layout.value.value_count_max);
    let mut writer = grid.writer::<Item>();
    let entries = values::<Item>(5 * block + 3);
    let mut reservation = grid.grid.reserve(writer.blocks_bound(entries.len().try_into().unwrap())).unwrap();
    let before = grid.grid.space().acquired;
    for (value, _) in &entries {
        writer.push(value, false, &mut reservation).unwrap();
    }
    grid.grid.forfeit(reservation);
    let drawn = grid.grid.space().acquired - before;
    assert!(format!("{writer:?}").contains("carried_values: 3"));
    let abandoned = writer.abandon();
    assert_eq!((abandoned.tables.len(), abandoned.blocks.len()), (1, 2));
    assert_eq!(drawn, 3 + 2 + 2);
}

#[test]
fn layouts_follow_record_and_geometry() {
    let layout = TableLayout::new::<Item>(&Geometry::default()).unwrap();
    assert_eq!((layout.value_blocks_max, layout.key_size), (256, 16));
    assert_eq!(layout.value_count_max, 256 * u64::from(layout.value.value_count_max));
    assert_eq!(layout.table_size_max(), 261 * 65536);
    assert_eq!(layout, TableLayout::of_sizes(&Geometry::default(), 144, 16).unwrap());
    let check = |values, blocks| assert_eq!(layout.blocks_bound(values), blocks, "{values}");
    check(0, 0);
    check(1, 6);
    check(layout.value.value_count_max.into(), 6);
    check(u64::from(layout.value.value_count_max) + 1, 7);
    check(layout.value_count_max, 261);
    check(layout.value_count_max + 1, 267);
    assert_eq!([1, 28_672, 28_673, 57_345].map(|values| layout.filter_blocks(values)), [1, 1, 2, 3]);
    let small = Geometry::small();
    let refused = |value_size, key_size| TableLayout::of_sizes(&small, value_size, key_size).unwrap_err();
    assert_eq!(refused(4000, 16), LayoutError::ValueTooLarge { value_size: 4000, page_size: 4096 });
    let invalid = Geometry { block_size: 5000, ..small };
    assert!(matches!(TableLayout::of_sizes(&invalid, 16, 8), Err(LayoutError::Geometry(_))));
}

/// The blocks of a small table, field by field.
#[test]
fn expectation_of_a_table() {
    let grid = TestGrid::new::<Quad>(Geometry::small());
    let key = |number: u32| (*b"ab\0\xff", 7, u64::from(number) * 1000, u128::from(number));
    let entries: Vec<_> = (1..=5).map(|number| (Quad::make(key(number), 1), number == 2)).collect();
    let tables = grid.tables(&entries);
    let index = grid.grid.read_twin(tables[0].index, BlockKind::Index).unwrap();
    let entry = IndexView::new(&index, usize_of(grid.layout::<Quad>().key_size)).unwrap().entry(0);
    let block = grid.grid.read(entry.reference, BlockKind::Value).unwrap();
    assert_eq!(tables[0].key_min, KeyBytes::padded(&entries[0].0.key().encode().0));
    let mut settings = insta::Settings::clone_current();
    settings.set_omit_expression(true);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_snapshot_path("../../expectations");
    settings.bind(|| {
        insta::assert_snapshot!("v1-table-index", understory_format::dump_block(&index));
        insta::assert_snapshot!("v1-table-value", understory_format::dump_block(&block));
    });
}
