use std::collections::BTreeMap;

use fastrand::Rng;
use understory_format::{BlockKind, Geometry, IndexView};
use understory_io::Storage;
use understory_testkit::{Item, KeyPool, KeyShape, Ordinal, Pair, Posting, Quad, TestRecord, key_range};

use super::*;
use crate::test_grid::{TestGrid, corruption, geometries, items, with_tombstones};

type Model<R> = BTreeMap<<R as Record>::Key, (R, bool)>;

/// How a test reads a cursor to its end.
#[derive(Clone, Copy, Debug)]
enum By {
    Peek,
    Load,
    Slices,
}

fn cursor<R: TestRecord>(
    grid: &TestGrid,
    tables: &[TableInfo],
    (min, max): (R::Key, R::Key),
    direction: Direction,
    read_ahead: ReadAhead,
) -> LevelCursor<R> {
    let mut tables = tables.to_vec();
    if direction == Direction::Descending {
        tables.reverse();
    }
    let range = KeyRange::new(min, max).unwrap();
    LevelCursor::new(Arc::clone(&grid.grid), grid.layout::<R>(), tables, range, direction, read_ahead)
}

/// Everything that is left of a cursor, in its order.
fn drain<R: TestRecord>(cursor: &mut LevelCursor<R>, by: By, rng: &mut Rng) -> Vec<(R, bool)> {
    let mut all = Vec::new();
    match by {
        By::Peek => {
            while let Some((entry, key)) = cursor.peek().unwrap() {
                assert_eq!(entry.value.key(), key);
                all.push((*entry.value, entry.tombstone));
                cursor.advance();
            }
        }
        By::Load => {
            while let Some(prefix) = cursor.load().unwrap() {
                assert_eq!(prefix, cursor.key().prefix());
                all.push((*cursor.entry().value, cursor.entry().tombstone));
                cursor.advance();
            }
        }
        By::Slices => {
            let direction = cursor.direction();
            while let Some(values) = cursor.values().unwrap() {
                let take = rng.usize(1..=values.values.len());
                let len = values.values.len();
                let at = |n: usize| if direction.is_ascending() { n } else { len - 1 - n };
                all.extend((0..take).map(|n| (values.values[at(n)], values.is_tombstone(at(n)))));
                assert!(!values.has_no_tombstones() || (0..len).all(|n| !values.is_tombstone(n)));
                cursor.consume(take);
            }
        }
    }
    assert!(cursor.peek().unwrap().is_none());
    assert!(cursor.load().unwrap().is_none());
    assert!(cursor.values().unwrap().is_none());
    all
}

fn expected<R: TestRecord>(
    model: &Model<R>,
    (min, max): (R::Key, R::Key),
    direction: Direction,
) -> Vec<(R, bool)> {
    let mut all: Vec<_> = model.range(min..=max).map(|(_, entry)| *entry).collect();
    if direction == Direction::Descending {
        all.reverse();
    }
    all
}

fn same<R: Record>(found: &[(R, bool)], expected: &[(R, bool)]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!((found.0.as_bytes(), found.1), (expected.0.as_bytes(), expected.1));
    }
}

/// Tables of one tree with a model of what they hold. Some keys of the pool are left out.
fn level<R: TestRecord>(
    geometry: Geometry,
    shape: KeyShape,
    count: usize,
    rng: &mut Rng,
) -> (TestGrid, Vec<TableInfo>, KeyPool<R::Key>, Model<R>) {
    let grid = TestGrid::new::<R>(geometry);
    let pool = KeyPool::<R::Key>::new(rng, shape, count);
    let values = pool.keys().iter().filter(|_| rng.u8(..8) > 0).map(|&key| R::make(key, 1)).collect();
    let share = rng.u8(..3);
    let entries = with_tombstones(values, rng, share);
    // Several writers, so that there are tables that are not full.
    let mut tables = Vec::new();
    let mut rest = &entries[..];
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rng.usize(1..=rest.len()));
        tables.extend(grid.tables(now));
        rest = later;
    }
    let model = entries.into_iter().map(|entry| (entry.0.key(), entry)).collect();
    (grid, tables, pool, model)
}

#[test]
fn any_range_in_both_directions_is_what_a_map_has() {
    fn check<R: TestRecord>(geometry: Geometry, shape: KeyShape, rng: &mut Rng) {
        let (grid, tables, pool, model) = level::<R>(geometry, shape, 900, rng);
        let small = grid.cold(16, 4);
        for round in 0..24 {
            let bounds = if round < 2 { (R::Key::MIN, R::Key::MAX) } else { key_range(rng, &pool) };
            for direction in [Direction::Ascending, Direction::Descending] {
                let by = [By::Peek, By::Load, By::Slices][rng.usize(..3)];
                let read_ahead = [ReadAhead::NONE, ReadAhead::SCAN, ReadAhead::ALL][rng.usize(..3)];
                let grid = if rng.bool() { &grid } else { &small };
                let mut cursor = cursor::<R>(grid, &tables, bounds, direction, read_ahead);
                if rng.bool() {
                    cursor.prefetch();
                }
                let found = drain(&mut cursor, by, rng);
                same(&found, &expected(&model, bounds, direction));
                assert_eq!(cursor.values_read(), u64::try_from(found.len()).unwrap());
            }
        }
    }
    let mut rng = Rng::with_seed(31);
    for geometry in geometries() {
        for shape in [KeyShape::Adjacent, KeyShape::EqualEnds, KeyShape::Mixed] {
            check::<Item>(geometry, shape, &mut rng);
            check::<Pair>(geometry, shape, &mut rng);
            check::<Posting>(geometry, shape, &mut rng);
            check::<Quad>(geometry, shape, &mut rng);
        }
    }
}

/// Steps and jumps forward, against a map.
#[test]
fn seeking_is_what_a_map_has() {
    fn check<R: TestRecord>(geometry: Geometry, rng: &mut Rng) {
        let (grid, tables, pool, model) = level::<R>(geometry, KeyShape::Mixed, 900, rng);
        for _ in 0..60 {
            let bounds = key_range(rng, &pool);
            let direction = if rng.bool() { Direction::Ascending } else { Direction::Descending };
            let mut cursor = cursor::<R>(&grid, &tables, bounds, direction, ReadAhead::SCAN);
            let mut left = expected(&model, bounds, direction);
            let step = 1 << rng.u32(..8);
            loop {
                if rng.bool() {
                    let at = rng.usize(..=left.len().min(step));
                    let key = left.get(at).map_or_else(|| pool.pick_near(rng), |entry| entry.0.key());
                    let key = if rng.bool() { key } else { key.after().unwrap_or(key) };
                    cursor.seek(key);
                    left.retain(|entry| match direction {
                        Direction::Ascending => entry.0.key() >= key,
                        Direction::Descending => entry.0.key() <= key,
                    });
                }
                let found = cursor.peek().unwrap().map(|(entry, key)| (key, entry.tombstone));
                assert_eq!(found, left.first().map(|entry| (entry.0.key(), entry.1)));
                if found.is_none() {
                    break;
                }
                for _ in 0..rng.usize(..=left.len().min(step)) {
                    assert_eq!(cursor.peek().unwrap().unwrap().1, left.remove(0).0.key());
                    cursor.advance();
                }
            }
        }
    }
    let mut rng = Rng::with_seed(32);
    for geometry in geometries() {
        check::<Item>(geometry, &mut rng);
        check::<Pair>(geometry, &mut rng);
        check::<Quad>(geometry, &mut rng);
    }
}

/// Bounds that touch, and just miss, the first and last key of each table and each block.
#[test]
fn bounds_around_every_block() {
    let (grid, tables) = items(1500);
    let mut edges = Vec::new();
    for info in &tables {
        let index = grid.grid.read_twin(info.index, BlockKind::Index).unwrap();
        let view = IndexView::new(&index, 16).unwrap();
        edges.extend((0..view.value_block_count()).map(|block| u128::decode(view.key_min_bytes(block))));
        edges.extend((0..view.page_count()).map(|page| u128::decode(view.page_key_max_bytes(page))));
    }
    let around = |edge: u128| [edge - 1, edge, edge + 1];
    for &low in &edges {
        for high in [low, low + 16, low + 17, low + 33, *edges.last().unwrap()] {
            for (min, max) in around(low).into_iter().flat_map(|min| around(high).map(|max| (min, max))) {
                let Some(range) = KeyRange::new(min, max) else { continue };
                // Keys are the multiples of 16 up to the last.
                let first = range.min().div_ceil(16);
                let last = (range.max() / 16).min(1500);
                for direction in [Direction::Ascending, Direction::Descending] {
                    let mut cursor = cursor::<Item>(&grid, &tables, (min, max), direction, ReadAhead::NONE);
                    let expected =
                        (first <= last).then_some(if direction.is_ascending() { first } else { last });
                    let head = cursor.peek().unwrap().map(|(_, key)| key / 16);
                    assert_eq!(head, expected, "{min}..={max} {direction:?}");
                }
            }
        }
    }
}

/// A cursor that stops at the range's end reads no block behind it, whatever it reads ahead.
#[test]
fn nothing_behind_the_range_is_read() {
    let (written, tables) = items(1500);
    let index = written.grid.read_twin(tables[0].index, BlockKind::Index).unwrap();
    let view = IndexView::new(&index, 16).unwrap();
    let (min, max) = (u128::decode(view.key_min_bytes(1)), u128::decode(view.key_max_bytes(1)));
    for direction in [Direction::Ascending, Direction::Descending] {
        for read_ahead in [ReadAhead::NONE, ReadAhead::SCAN, ReadAhead::ALL] {
            let grid = written.cold(32, 0);
            let before = grid.sim.counters().reads;
            let mut cursor = cursor::<Item>(&grid, &tables, (min, max), direction, read_ahead);
            let found = drain(&mut cursor, By::Peek, &mut Rng::with_seed(1));
            assert_eq!(found.len(), usize_of(view.entry(1).value_count));
            assert_eq!(grid.sim.counters().reads - before, 2, "{direction:?} {read_ahead:?}");
        }
    }
}

/// With read-ahead nearly every block is under way before it is wanted, also those of the next table.
#[test]
fn blocks_are_read_ahead_over_tables() {
    let (written, tables) = items(3000);
    let blocks: u64 = tables.iter().map(|info| u64::from(info.value_block_count)).sum();
    for direction in [Direction::Ascending, Direction::Descending] {
        let grid = written.cold(64, 0);
        let bounds = (u128::MIN, u128::MAX);
        let mut cursor = cursor::<Item>(&grid, &tables, bounds, direction, ReadAhead::ALL);
        let (before, reads) = (grid.grid.stats(), grid.sim.counters().reads);
        assert_eq!(drain(&mut cursor, By::Slices, &mut Rng::with_seed(1)).len(), 3000);
        let after = grid.grid.stats();
        let ahead = after.prefetches - before.prefetches;
        let all = blocks + u64::try_from(tables.len()).unwrap();
        assert!(ahead + 3 >= all, "{ahead} of {all} blocks were read ahead");
        assert_eq!(grid.sim.counters().reads - reads, all, "each block is read once");
        assert_eq!(after.prefetches_skipped, before.prefetches_skipped);
    }
}

#[test]
fn a_scan_starts_with_what_it_needs() {
    let (written, tables) = items(1500);
    let grid = written.cold(64, 0);
    let before = grid.sim.counters().reads;
    let mut cursor = cursor::<Item>(&grid, &tables, (800, u128::MAX), Direction::Ascending, ReadAhead::SCAN);
    assert_eq!(grid.sim.counters().reads, before, "nothing is read before it is asked for");
    for _ in 0..5 {
        assert!(cursor.peek().unwrap().is_some());
        cursor.advance();
    }
    assert_eq!(grid.sim.counters().reads - before, 2, "an index and a block");
}

#[test]
fn no_tables_and_no_values_are_an_end() {
    let (grid, tables) = items(100);
    for direction in [Direction::Ascending, Direction::Descending] {
        let mut none = cursor::<Item>(&grid, &[], (0, u128::MAX), direction, ReadAhead::ALL);
        none.prefetch();
        assert!(none.peek().unwrap().is_none());
        none.seek(5);
        assert!(none.peek().unwrap().is_none());
        for bounds in [(0, 15), (17, 31), (1601, u128::MAX)] {
            let mut empty = cursor::<Item>(&grid, &tables, bounds, direction, ReadAhead::ALL);
            empty.prefetch();
            assert!(empty.peek().unwrap().is_none(), "{bounds:?}");
        }
    }
}

/// A block that cannot be read is named; when it can be read again, the cursor goes on where it was.
#[test]
fn after_an_error_the_same_step_is_tried_again() {
    let (written, tables) = items(1500);
    let index = written.grid.read_twin(tables[1].index, BlockKind::Index).unwrap();
    let entry = IndexView::new(&index, 16).unwrap().entry(1);
    for direction in [Direction::Ascending, Direction::Descending] {
        for read_ahead in [ReadAhead::NONE, ReadAhead::ALL] {
            let grid = written.cold(64, 0);
            let mut cursor = cursor::<Item>(&grid, &tables, (0, u128::MAX), direction, read_ahead);
            grid.flip(entry.reference.address, 5000);
            let mut found = Vec::new();
            let error = loop {
                match cursor.peek() {
                    Ok(head) => found.push(head.expect("the error comes first").1),
                    Err(error) => break error,
                }
                cursor.advance();
            };
            assert_eq!(corruption::<()>(Err(error)).place, Place::Block(entry.reference.address));
            assert!(cursor.load().is_err());
            grid.flip(entry.reference.address, 5000);
            found.extend(
                drain(&mut cursor, By::Load, &mut Rng::with_seed(1)).iter().map(|(value, _)| value.key()),
            );
            let mut all: Vec<u128> = (1..=1500).map(|number| number * 16).collect();
            if direction == Direction::Descending {
                all.reverse();
            }
            assert_eq!(found, all);
        }
    }
}

/// Three tables are enough of a level to hold at most three blocks at any time.
#[test]
fn a_cursor_holds_few_blocks() {
    let (written, tables) = items(3000);
    let grid = written.cold(16, 0);
    let cursors: Vec<_> = (0..4)
        .map(|number| {
            let direction = if number % 2 == 0 { Direction::Ascending } else { Direction::Descending };
            cursor::<Item>(&grid, &tables, (0, u128::MAX), direction, ReadAhead::ALL)
        })
        .collect();
    // Sixteen buffers, of which four cursors hold twelve at most.
    let mut cursors = cursors;
    for _ in 0..3000 {
        for cursor in &mut cursors {
            assert!(cursor.peek().unwrap().is_some());
            cursor.advance();
        }
    }
    assert!(cursors.iter_mut().all(|cursor| cursor.peek().unwrap().is_none()));
    assert_eq!(BLOCKS_HELD_MAX, 3);
    drop::<Vec<LevelCursor<Item>>>(cursors);
}
