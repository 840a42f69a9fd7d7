//! Blocks that are wrong under right checksums: no reader panics, readers in order stay in order, a point read gives
//! the key that was asked for or nothing, and the check of the whole table finds it.

use std::sync::Arc;

use fastrand::Rng;
use understory_format::zerocopy::{FromBytes, IntoBytes};
use understory_format::{BlockAddress, BlockKind, IndexView, Place, Record, TableInfo, usize_of};
use understory_testkit::{Item, Ordinal, Pair, TestRecord};

use crate::test_grid::{TestGrid, corruption, wide, with_tombstones};
use crate::{
    Direction, KeyRange, LevelCursor, Lookup, ReadAhead, TableError, addresses, search, search_cached, verify,
};

const DIRECTIONS: [Direction; 2] = [Direction::Ascending, Direction::Descending];

fn written<R: TestRecord>(count: u64) -> (TestGrid, Vec<TableInfo>) {
    let grid = TestGrid::new::<R>(wide());
    let mut rng = Rng::with_seed(count);
    let values = (1..=count).map(|number| R::make(R::Key::spread(number, 4), 1)).collect();
    let tables = grid.tables(&with_tombstones(values, &mut rng, 2));
    (grid, tables)
}

/// Reads a table in both directions and by points; the cursors' errors.
fn read_everything<R: TestRecord>(grid: &TestGrid, info: &TableInfo, rng: &mut Rng) -> Vec<TableError> {
    let layout = grid.layout::<R>();
    let (min, max) = (R::Key::spread(rng.u64(..40), 4), R::Key::spread(300 + rng.u64(..400), 4));
    let range = KeyRange::new(min, max).unwrap();
    let mut errors = Vec::new();
    for direction in DIRECTIONS {
        let tables = vec![*info];
        let read_ahead = [ReadAhead::NONE, ReadAhead::ALL][rng.usize(..2)];
        let mut cursor =
            LevelCursor::<R>::new(Arc::clone(&grid.grid), layout, tables, range, direction, read_ahead);
        let mut before: Option<R::Key> = None;
        loop {
            match cursor.peek() {
                Ok(None) => break,
                Ok(Some((_, key))) => {
                    assert!(range.contains(key), "{key:?}");
                    let follows = before.is_none_or(|before| (before < key) == direction.is_ascending());
                    assert!(follows && before != Some(key), "{before:?} {key:?} {direction:?}");
                    before = Some(key);
                }
                Err(error) => {
                    errors.push(error);
                    break;
                }
            }
            cursor.advance();
            if rng.u8(..16) == 0 {
                cursor.seek(R::Key::spread(rng.u64(..700), 4));
            }
        }
    }
    for _ in 0..40 {
        let key = R::Key::spread(rng.u64(..700), 4);
        let lookup = search_cached::<R>(&grid.grid, &layout, info, key);
        if let Ok(Lookup::Found(entry)) = &lookup {
            assert_eq!(entry.value.key(), key);
        }
        match search::<R>(&grid.grid, &layout, info, key) {
            Ok(found) => assert!(found.value().is_none_or(|value| value.key() == key)),
            Err(error) => {
                let _ = corruption::<()>(Err(error));
            }
        }
    }
    drop(addresses(&grid.grid, &layout, info));
    errors
}

#[test]
fn values_out_of_order_are_found_where_they_are() {
    let (good, tables) = written::<Item>(600);
    let layout = good.layout::<Item>();
    let first = usize_of(layout.value.first.value_count_max);
    let cases: [(usize, usize, &str); 4] = [
        (3, 4, "neighbours in the first page"),
        (0, first - 1, "ends of the first page"),
        (first + 1, first + 9, "in the second page"),
        (first - 1, first, "over the pages' edge"),
    ];
    for (a, b, what) in cases {
        for equal in [false, true] {
            let (grid, info) = good.forge_value(&tables[0], 1, |block| {
                let at = |index: usize| layout.value.value_offset(u32::try_from(index).unwrap());
                let (one, other) = (block[at(a)..at(a) + 144].to_vec(), block[at(b)..at(b) + 144].to_vec());
                block[at(b)..at(b) + 144].copy_from_slice(&one);
                if !equal {
                    block[at(a)..at(a) + 144].copy_from_slice(&other);
                }
            });
            let index = grid.grid.read_twin(info.index, BlockKind::Index).unwrap();
            let address = IndexView::new(&index, 16).unwrap().entry(1).reference.address;
            let is_named = |place: Place| {
                [0, 1].map(|page| Place::Page(address, page)).contains(&place)
                    || place == Place::Block(address)
            };
            let all = KeyRange::new(0, u128::MAX).unwrap();
            for direction in DIRECTIONS {
                let tables = vec![info];
                let grid = Arc::clone(&grid.grid);
                let mut cursor =
                    LevelCursor::<Item>::new(grid, layout, tables, all, direction, ReadAhead::SCAN);
                let mut read = 0;
                let error = loop {
                    match cursor.peek() {
                        Ok(head) => assert!(head.is_some(), "{what}: all of it was read"),
                        Err(error) => break corruption::<()>(Err(error)),
                    }
                    cursor.advance();
                    read += 1;
                };
                assert!(is_named(error.place), "{what}: {error}");
                assert_eq!(error.field, "key");
                assert!(read >= layout.value.value_count_max, "{what}: the block before was read, {read}");
            }
            let error = corruption(verify(&grid.grid, &layout, &Item::KEY, &info));
            assert!(is_named(error.place), "{what}: {error}");
            drop(read_everything::<Item>(&grid, &info, &mut Rng::with_seed(1)));
        }
    }
}

/// Bytes of a value block changed at random. Where keys, slots or bitmap are hit, the whole check finds it.
#[test]
fn forged_value_blocks_do_no_harm() {
    let mut rng = Rng::with_seed(77);
    let (mut found_by_cursor, mut found_by_check) = (0, 0);
    let (good, tables) = written::<Pair>(1000);
    let layout = good.layout::<Pair>();
    for _ in 0..250 {
        let (grid, info) = good.forge_value(&tables[0], 0, |block| {
            for _ in 0..rng.usize(1..4) {
                let page = layout.value.page_bytes(rng.u32(0..4));
                let start = rng.usize(page);
                let end = block.len().min(start + rng.usize(1..40));
                rng.fill(&mut block[start..end]);
            }
        });
        let errors = read_everything::<Pair>(&grid, &info, &mut rng);
        found_by_cursor += usize::from(!errors.is_empty());
        for error in errors {
            let _ = corruption::<()>(Err(error));
        }
        let checked = verify(&grid.grid, &layout, &Pair::KEY, &info);
        found_by_check += usize::from(checked.is_err());
        if let Err(error) = checked {
            let _ = corruption::<()>(Err(error));
        }
    }
    assert!(found_by_cursor > 50, "{found_by_cursor}");
    assert!(found_by_check > 200, "{found_by_check}");
}

/// Bytes of an index block changed at random, checked whole when it is read, or in memory already and not checked.
#[test]
fn forged_indexes_do_no_harm() {
    let (mut rng, mut reader) = (Rng::with_seed(78), Rng::with_seed(79));
    let (good, tables) = written::<Pair>(1500);
    let layout = good.layout::<Pair>();
    let index = good.grid.read_twin(tables[0].index, BlockKind::Index).unwrap();
    let size = usize_of(IndexView::new(&index, 8).unwrap().header().size.get());
    let mut found_by_check = 0;
    for round in 0..500 {
        let (grid, info) = good.forge_index(&tables[0], |block| {
            let start = if round % 4 == 0 { rng.usize(128..256) } else { rng.usize(256..size) };
            let end = size.min(start + rng.usize(1..12));
            match rng.u8(..3) {
                0 => block[start..end].fill(0),
                1 => block[start] ^= 1 << rng.u8(..8),
                _ => rng.fill(&mut block[start..end]),
            }
        });
        if rng.bool() {
            // Into memory without a check of its contents, as reading ahead does.
            drop(grid.grid.read_twin(info.index, BlockKind::Index));
        }
        for error in read_everything::<Pair>(&grid, &info, &mut reader) {
            let _ = corruption::<()>(Err(error));
        }
        let checked = verify(&grid.grid, &layout, &Pair::KEY, &info);
        found_by_check += usize::from(checked.is_err());
    }
    // The rest put back what was there.
    assert!(found_by_check > 450, "{found_by_check}");
}

/// An entry that leads outside the file, or to another block.
#[test]
fn entries_that_lead_elsewhere_are_damage() {
    let (good, tables) = written::<Pair>(2500);
    let layout = good.layout::<Pair>();
    let to = |address: u64| {
        let (grid, info) =
            good.forge_index(&tables[0], |block| block[256..264].copy_from_slice(&address.to_le_bytes()));
        let key = Pair::make(16, 1).key();
        let range = KeyRange::new(0, u64::MAX).unwrap();
        let mut cursor = LevelCursor::<Pair>::new(
            Arc::clone(&grid.grid),
            layout,
            vec![info],
            range,
            Direction::Ascending,
            ReadAhead::ALL,
        );
        let by_cursor = corruption(cursor.peek().map(|_| ()));
        let by_search = corruption(search::<Pair>(&grid.grid, &layout, &info, key));
        let by_check = corruption(verify(&grid.grid, &layout, &Pair::KEY, &info));
        [by_cursor, by_search, by_check].map(|error| error.place)
    };
    let index = Place::Block(tables[0].index.address);
    assert_eq!(to(0), [index; 3]);
    for far in [1 << 20, 1 << 50, u64::MAX] {
        let place = Place::Block(BlockAddress::new(far).unwrap());
        assert_eq!(to(far), [place; 3]);
    }
    let other = tables[0].index.address;
    assert_eq!(to(other.get()), [Place::Block(other), Place::Page(other, 0), Place::Block(other)]);
}

/// Ascending values whose first or last key is not that of the index: what is built from them could overlap the
/// neighbours of their table.
#[test]
fn keys_outside_their_page() {
    let (good, tables) = written::<Pair>(1000);
    let layout = good.layout::<Pair>();
    let (size, last) = (size_of::<Pair>(), layout.value.first.value_count_max - 1);
    for (index, is_low) in [(0, true), (0, false), (last, false)] {
        let (grid, info) = good.forge_value(&tables[0], 0, |block| {
            let at = layout.value.value_offset(index);
            let value = &mut block[at..at + size];
            let key = Pair::read_from_bytes(value).unwrap().key();
            value.copy_from_slice(Pair::make(if is_low { 1 } else { key + 1 }, 1).as_bytes());
        });
        let all = KeyRange::new(0, u64::MAX).unwrap();
        for direction in DIRECTIONS {
            let (grid, tables) = (Arc::clone(&grid.grid), vec![info]);
            let mut cursor = LevelCursor::<Pair>::new(grid, layout, tables, all, direction, ReadAhead::SCAN);
            let error = loop {
                match cursor.peek() {
                    Ok(head) => assert!(head.is_some(), "value {index}: all of it was read"),
                    Err(error) => break corruption::<()>(Err(error)),
                }
                cursor.advance();
            };
            assert_eq!(error.field, "key", "value {index} {direction:?}");
            assert!(matches!(error.place, Place::Page(_, 0)), "value {index}: {error}");
        }
    }
}
