//! Reading single pages of value blocks.

use std::ops::Range;

use understory_format::{BlockRef, KeyBytes, Place, ValueLayout, value};
use understory_io::Storage;

use super::*;

fn paged() -> Geometry {
    Geometry { block_size: 16 << 10, ..Geometry::small() }
}

struct Written {
    reference: BlockRef,
    /// Checksum and place of each page.
    pages: Vec<(Checksum, Range<usize>)>,
}

fn write_values(grid: &Grid, count: u64) -> Written {
    let layout = ValueLayout::new(grid.geometry().block_size, grid.geometry().page_size, 16).unwrap();
    let mut buffer = grid.buffer().unwrap();
    let mut builder = value::ValueBlockBuilder::new(&mut buffer, &layout);
    for key in 0..count {
        let mut record = [7; 16];
        record[..8].copy_from_slice(&key.to_le_bytes());
        builder.push(&mut buffer, &record, false, key.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    }
    let mut reservation = grid.reserve(1).unwrap();
    let address = grid.acquire(&mut reservation);
    grid.forfeit(reservation);
    let placement = Placement { address, twin: None, tree: TreeId::new(1), beat: Beat::new(3) };
    let mut pages = Vec::new();
    let (min, max) = (KeyBytes::ZERO, KeyBytes::ZERO);
    let checksum = builder.finish(&mut buffer, &placement, min, max, |page, checksum| {
        pages.push((checksum, layout.page_bytes(page)));
    });
    drop(grid.write(buffer).unwrap());
    Written { reference: BlockRef { address, checksum }, pages }
}

fn setup(page_count: u32) -> (Grid, Arc<SimStorage>, Written) {
    let (machine, storage) = Machine::sim(1);
    format_with(&machine, paged(), 40).unwrap();
    let grid = open_with(&machine, GridOptions { page_count, ..OPTIONS }).unwrap();
    let written = write_values(&grid, 700);
    assert_eq!(written.pages.len(), 4);
    (grid, storage, written)
}

fn read_all(grid: &Grid, written: &Written) {
    let block = grid.read(written.reference, BlockKind::Value).unwrap().to_vec();
    empty_caches(grid);
    for (page, (checksum, range)) in (0..).zip(&written.pages) {
        let found = grid.read_page(written.reference, page, *checksum, range.clone()).unwrap();
        assert_eq!(*found, block[range.clone()]);
        let found = grid.cached_page(written.reference, page, *checksum, range.clone()).unwrap();
        assert_eq!(found.len(), range.len());
    }
}

#[test]
fn pages_are_read_alone() {
    let (grid, storage, written) = setup(16);
    read_all(&grid, &written);
    grid.flush().unwrap();
    empty_caches(&grid);
    let before = storage.counters();
    read_all(&grid, &written);
    let after = storage.counters().since(&before);
    // The whole block once, each page once.
    assert_eq!((after.reads, after.bytes_read), (5, (16 << 10) + 4 * 4096));
    assert_eq!(grid.stats().page_misses, 4, "the first time the block was still being written");
}

#[test]
fn a_page_of_a_cached_block_shares_its_memory() {
    let (grid, storage, written) = setup(16);
    let before = storage.counters();
    let (checksum, range) = written.pages[2].clone();
    let page = grid.cached_page(written.reference, 2, checksum, range).unwrap();
    empty_caches(&grid);
    assert_eq!(page.len(), 4096);
    assert_eq!(storage.counters().since(&before).reads, 0);
}

#[test]
fn without_a_page_cache_blocks_are_read() {
    let (grid, storage, written) = setup(0);
    grid.flush().unwrap();
    empty_caches(&grid);
    let before = storage.counters();
    for (page, (checksum, range)) in (0..).zip(&written.pages) {
        grid.read_page(written.reference, page, *checksum, range.clone()).unwrap();
    }
    assert_eq!(storage.counters().since(&before).reads, 1);
}

#[test]
fn a_damaged_page_is_named() {
    let (grid, storage, written) = setup(16);
    grid.flush().unwrap();
    empty_caches(&grid);
    let start = offset(&grid, written.reference.address);
    for (page, (checksum, range)) in (0..).zip(&written.pages) {
        for at in [range.start, range.start + 1000, range.end - 1] {
            let at = start + u64::try_from(at).unwrap();
            storage.corrupt(at, 0x40);
            let error = grid.read_page(written.reference, page, *checksum, range.clone()).unwrap_err();
            let GridError::Corrupt(error) = error else { panic!("{error}") };
            assert_eq!(error.place, Place::Page(written.reference.address, page));
            storage.corrupt(at, 0x40);
        }
        grid.read_page(written.reference, page, *checksum, range.clone()).unwrap();
    }
    assert_eq!(grid.stats().reads_corrupt, 12);
}

#[test]
fn pages_in_use_are_not_given_up() {
    let (grid, _, written) = setup(2);
    grid.flush().unwrap();
    empty_caches(&grid);
    let read = |page: u32| {
        let (checksum, range) = written.pages[usize::try_from(page).unwrap()].clone();
        grid.read_page(written.reference, page, checksum, range)
    };
    let held = (read(0).unwrap(), read(1).unwrap());
    assert_eq!(read(2).unwrap_err(), GridError::NoBuffers);
    drop(held);
    read(2).unwrap();
    read(3).unwrap();
}

#[test]
fn a_page_that_cannot_be_read_names_its_block() {
    let (grid, storage, written) = setup(16);
    grid.flush().unwrap();
    empty_caches(&grid);
    storage.inject(storage.operations(), understory_io::IoCause::Os(5));
    let (checksum, range) = written.pages[1].clone();
    let error = grid.read_page(written.reference, 1, checksum, range.clone()).unwrap_err();
    let GridError::Unreadable { address, .. } = error else { panic!("{error}") };
    assert_eq!(address, written.reference.address);
    grid.read_page(written.reference, 1, checksum, range).unwrap();
}
