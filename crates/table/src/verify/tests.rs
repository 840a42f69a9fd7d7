use understory_format::{BlockAddress, Key, Record};
use understory_testkit::{Item, Ordinal, Posting, Quad, TestRecord};

use super::*;
use crate::test_grid::{TestGrid, corruption, geometries, wide, with_tombstones};

fn written<R: TestRecord>(geometry: understory_format::Geometry, count: u64) -> (TestGrid, Vec<TableInfo>) {
    let grid = TestGrid::new::<R>(geometry);
    let values = (1..=count).map(|number| R::make(R::Key::spread(number, 4), 1)).collect();
    let tables = grid.tables(&with_tombstones(values, &mut fastrand::Rng::with_seed(count), 4));
    (grid, tables)
}

#[test]
fn what_was_written_is_good_and_counted() {
    fn check<R: TestRecord>() {
        for geometry in geometries() {
            let (written, tables) = written::<R>(geometry, 800);
            let layout = written.layout::<R>();
            for grid in [&written, &written.cold(16, 0)] {
                let counts: Vec<_> =
                    tables.iter().map(|info| verify(&grid.grid, &layout, &R::KEY, info).unwrap()).collect();
                assert_eq!(counts.iter().map(|counts| counts.values).sum::<u64>(), 800);
                for (counts, info) in counts.iter().zip(&tables) {
                    assert_eq!(counts.value_blocks, info.value_block_count);
                    assert_eq!(counts.tombstones, info.tombstone_count);
                    assert!(counts.pages >= counts.value_blocks);
                }
            }
        }
    }
    check::<Item>();
    check::<Posting>();
    check::<Quad>();
}

/// A flip in any sector of any block of a table is found and named, but for one index copy, whose twin serves.
#[test]
fn every_flip_is_found() {
    let (written, tables) = written::<Item>(wide().with_filters(10), 120);
    let info = &tables[0];
    let layout = written.layout::<Item>();
    let blocks = crate::addresses(&written.grid, &layout, info).unwrap();
    assert_eq!(blocks.len(), 2 + 1 + 2);
    for &address in &blocks {
        let used = {
            let image = written.cold(16, 0);
            used_bytes(&image, address)
        };
        for offset in (0..used).step_by(509) {
            let grid = written.cold(16, 0);
            grid.flip(address, offset);
            let result = verify(&grid.grid, &layout, &Item::KEY, info);
            if address == info.index.address {
                result.unwrap();
                assert_eq!(grid.grid.stats().twin_fallbacks, 1);
            } else if address == info.index.twin {
                result.unwrap();
            } else {
                assert_eq!(corruption(result).place, Place::Block(address), "byte {offset}");
            }
        }
    }
}

fn used_bytes(grid: &TestGrid, address: BlockAddress) -> usize {
    let start = usize::try_from(grid.geometry.block_offset(address)).unwrap();
    let image = grid.sim.image();
    usize_of(understory_format::header(&image[start..start + 16384]).unwrap().size.get())
}

/// Facts that only fit together across blocks.
#[test]
fn relations_between_index_and_blocks_are_checked() {
    let (written, tables) = written::<Item>(wide(), 600);
    let layout = written.layout::<Item>();
    let index = written.grid.read_twin(tables[0].index, BlockKind::Index).unwrap();
    let view = IndexView::new(&index, 16).unwrap();
    let blocks = usize_of(view.value_block_count());
    let pages = usize_of(view.page_count());
    let entry = |block: usize, field: usize| 256 + block * 40 + field;
    let key_min = |block: usize| 256 + blocks * 40 + block * 16;
    let key_max = |page: usize| key_min(blocks) + page * 16;
    let checksum = |page: usize| key_max(pages) + page * 16;
    let addresses: Vec<_> = view.entries().map(|entry| entry.reference.address).collect();
    let check = |at: usize, expected: Place, field: &str| {
        let (grid, info) = written.forge_index(&tables[0], |block| block[at] ^= 1);
        let error = corruption(verify(&grid.grid, &layout, &Item::KEY, &info));
        assert_eq!((error.place, error.field), (expected, field), "byte {at}");
    };
    let index = Place::Block(tables[0].index.address);
    check(entry(1, 8), Place::Block(addresses[1]), "checksum");
    check(entry(1, 24), index, "value_count");
    check(entry(1, 28), index, "tombstone_count");
    check(entry(1, 36), index, "flags");
    check(entry(1, 37), index, "reserved");
    check(key_min(1), Place::Block(addresses[1]), "key_min");
    check(key_max(0), Place::Page(addresses[0], 0), "page key_max");
    check(key_max(5), Place::Page(addresses[1], 1), "page key_max");
    check(checksum(6), Place::Page(addresses[1], 2), "page_checksum");
    // The least key of the table stands in the info too.
    check(key_min(0), index, "key_min");
    assert_eq!(u128::decode(tables[0].key_min.get()), Item::make(16, 1).key());
}

/// Header and slots of a value block that a reader does not need, or trusts.
#[test]
fn value_blocks_are_checked_to_the_last_byte() {
    let (written, tables) = written::<Item>(wide(), 600);
    let layout = written.layout::<Item>();
    let address = crate::addresses(&written.grid, &layout, &tables[0]).unwrap()[2];
    let check = |what: &str, at: usize, flip: u8| {
        let (grid, info) = written.forge_value(&tables[0], 0, |block| block[at] ^= flip);
        let error = corruption(verify(&grid.grid, &layout, &Item::KEY, &info));
        let named = matches!(error.place, Place::Block(found) | Place::Page(found, _) if found == address);
        assert!(named, "{what}: {error}");
    };
    let page = layout.value.page_bytes(1).start;
    check("least key", 128 + 16, 1);
    check("greatest key", 128 + 48, 1);
    check("count of tombstones", 128 + 4, 1);
    check("a slot", page + usize_of(layout.value.rest.slots_offset) + 4, 0x40);
    check("a tombstone", page + usize_of(layout.value.rest.bitmap_offset), 1);
    check("the last byte", page + usize_of(layout.value.rest.size) - 1, 1);
}
