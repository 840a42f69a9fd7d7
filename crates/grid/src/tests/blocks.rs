//! Writing and reading whole blocks; the cache; reading ahead.

use understory_format::{BlockRef, Expected, Place};
use understory_io::Storage;

use super::*;

#[test]
fn a_block_is_read_back() {
    let (machine, storage) = formatted(1);
    let grid = open(&machine);
    assert_eq!(grid.stats().block_misses, 2, "catalogue and free set");
    let reference = write_one(&grid, b"hello").unwrap();
    let reads = storage.counters().reads;
    assert_eq!(contents(&grid.read(reference.first(), KIND).unwrap()), b"hello");
    assert_eq!(storage.counters().reads, reads, "from memory");
    grid.flush().unwrap();
    empty_caches(&grid);
    assert!(grid.cached(reference.first()).is_none());
    for copy in [reference.first(), reference.second()] {
        assert_eq!(contents(&grid.read(copy, KIND).unwrap()), b"hello");
        assert!(grid.cached(copy).is_some());
    }
    assert_eq!(storage.counters().reads, reads + 2, "from disk");
    let stats = grid.stats();
    assert_eq!((stats.blocks_written, stats.block_misses, stats.twin_fallbacks), (2, 4, 0));
}

#[test]
fn a_block_in_flight_is_read_from_memory() {
    let (machine, storage) = formatted(2);
    let grid = open(&machine);
    let reference = write_one(&grid, b"on its way").unwrap();
    let before = storage.counters();
    empty_caches(&grid);
    for copy in [reference.first(), reference.second()] {
        assert_eq!(contents(&grid.read(copy, KIND).unwrap()), b"on its way");
    }
    assert_eq!(contents(&grid.read_twin(reference, KIND).unwrap()), b"on its way");
    grid.prefetch(reference.second());
    assert_eq!(storage.counters().since(&before), understory_io::Counters::default());
}

#[test]
fn a_stale_reference_is_refused_while_its_place_is_written() {
    let (machine, storage) = formatted(2);
    let grid = open(&machine);
    let reference = write_one(&grid, b"new").unwrap();
    let stale = BlockRef { address: reference.twin, checksum: Checksum::new(1) };
    let reads = storage.counters().reads;
    let error = grid.read(stale, KIND).unwrap_err();
    let GridError::Corrupt(error) = error else { panic!("{error}") };
    assert_eq!((error.place, error.field), (Place::Block(reference.twin), "checksum"));
    assert_eq!(storage.counters().reads, reads, "the storage is not asked");
}

#[test]
fn a_reference_must_fit_in_address_checksum_and_kind() {
    let (machine, _) = formatted(3);
    let grid = open(&machine);
    let (one, other) = (write_one(&grid, b"one").unwrap(), write_one(&grid, b"other").unwrap());
    grid.sync().unwrap();
    let check = |reference: BlockRef, kind: BlockKind, field: &str| {
        for _ in 0..2 {
            let error = grid.read(reference, kind).unwrap_err();
            let GridError::Corrupt(error) = error else { panic!("{error}") };
            assert_eq!(error.field, field, "{error}");
            empty_caches(&grid);
        }
    };
    check(one.first(), BlockKind::Index, "kind");
    check(BlockRef { address: one.address, checksum: other.checksum }, KIND, "checksum");
    check(BlockRef { address: other.address, checksum: one.checksum }, KIND, "checksum");
    let beyond = BlockAddress::new(10_000).unwrap();
    check(BlockRef { address: beyond, checksum: one.checksum }, KIND, "address");
    let _cached = grid.read(one.first(), KIND).unwrap();
    let error = grid.read(one.first(), BlockKind::Value).unwrap_err();
    let GridError::Corrupt(error) = error else { panic!("{error}") };
    assert_eq!((error.field, error.expected), ("kind", Expected::Exactly(2)), "from the cache too");
}

#[test]
fn what_is_used_stays() {
    let (machine, storage) = formatted(4);
    let options = GridOptions { block_count: 16, ..OPTIONS };
    let grid = open_with(&machine, options).unwrap();
    let references: Vec<_> = (0..30_u8).map(|n| write_one(&grid, &[n; 100]).unwrap()).collect();
    grid.sync().unwrap();
    let held: Vec<_> = references[..8].iter().map(|at| grid.read_twin(*at, KIND).unwrap()).collect();
    for reference in &references[8..] {
        let _passing = grid.read_twin(*reference, KIND).unwrap();
    }
    let reads = storage.counters().reads;
    for (n, (reference, block)) in (0..).zip(references.iter().zip(&held)) {
        assert_eq!(contents(block), [n; 100]);
        let _held = grid.cached(reference.first()).unwrap();
    }
    assert_eq!(storage.counters().reads, reads);
    assert!(grid.stats().blocks_cached <= 16);
}

#[test]
fn what_is_read_again_stays_longer() {
    let (machine, _) = formatted(4);
    let grid = open_with(&machine, GridOptions { block_count: 16, ..OPTIONS }).unwrap();
    let references: Vec<_> = (0..40_u8).map(|n| write_one(&grid, &[n]).unwrap()).collect();
    grid.sync().unwrap();
    empty_caches(&grid);
    let hot = &references[..4];
    for cold in references[4..].chunks(3) {
        for reference in hot.iter().chain(cold) {
            let _passing = grid.read_twin(*reference, KIND).unwrap();
        }
    }
    assert!(hot.iter().all(|reference| grid.cached(reference.first()).is_some()));
}

#[test]
fn without_buffers_there_is_an_error() {
    let (machine, _) = formatted(5);
    let grid = open_with(&machine, GridOptions { block_count: 16, ..OPTIONS }).unwrap();
    let reference = write_one(&grid, b"x").unwrap();
    grid.sync().unwrap();
    empty_caches(&grid);
    let mut held: Vec<_> = (0..16).map(|_| grid.buffer().unwrap()).collect();
    assert_eq!(grid.buffer().unwrap_err(), GridError::NoBuffers);
    assert_eq!(grid.read(reference.first(), KIND).unwrap_err(), GridError::NoBuffers);
    grid.prefetch(reference.first());
    assert_eq!(grid.stats().prefetches_skipped, 1);
    drop(held.pop());
    assert_eq!(contents(&grid.read(reference.first(), KIND).unwrap()), b"x");
}

#[test]
fn buffers_in_flight_are_waited_for() {
    let (machine, _) = formatted(6);
    let grid = open_with(&machine, GridOptions { block_count: 16, ..OPTIONS }).unwrap();
    let mut reservation = grid.reserve(80).unwrap();
    // Far more than there are buffers, handed over without a flush.
    let written: Vec<_> = (0..40_u8).map(|n| write_twin(&grid, &mut reservation, &[n]).unwrap()).collect();
    grid.forfeit(reservation);
    for (n, reference) in (0..).zip(&written) {
        assert_eq!(contents(&grid.read_twin(*reference, KIND).unwrap()), [n]);
    }
    // Blocks read ahead give their buffers back too.
    empty_caches(&grid);
    written.iter().for_each(|reference| grid.prefetch(reference.first()));
    let held: Vec<_> = (0..16).map(|_| grid.buffer().unwrap()).collect();
    assert_eq!(held.len(), 16);
}

#[test]
fn adjacent_writes_become_one() {
    let (machine, storage) = formatted(7);
    let grid = open_with(&machine, GridOptions { block_count: 2000, ..OPTIONS }).unwrap();
    let check = |sizes: &[usize], expected: u64| {
        grid.flush().unwrap();
        let before = storage.counters();
        let count = u64::try_from(sizes.len()).unwrap();
        let mut firsts = grid.reserve(count).unwrap();
        let mut twins = grid.reserve(count).unwrap();
        for &size in sizes {
            let (address, twin) = (grid.acquire(&mut firsts), grid.acquire(&mut twins));
            write_twin_at(&grid, address, twin, &vec![1; size]).unwrap();
        }
        assert_eq!(storage.counters().writes, before.writes, "they wait for neighbours");
        grid.flush().unwrap();
        assert_eq!(storage.counters().since(&before).writes, expected, "{sizes:?}");
        grid.forfeit(firsts);
        grid.forfeit(twins);
    };
    check(&[3000; 10], 2);
    // Adjacent too, but not both copies in one request.
    check(&[3000; 1], 2);
    check(&[], 0);
}

#[test]
fn long_runs_are_cut_and_bounded() {
    let (machine, storage) = Machine::sim(8);
    format_with(&machine, Geometry::small(), 1000).unwrap();
    let grid = open_with(&machine, GridOptions { block_count: 2000, ..OPTIONS }).unwrap();
    let before = storage.counters();
    let mut firsts = grid.reserve(400).unwrap();
    let mut twins = grid.reserve(400).unwrap();
    let mut in_flight = 0;
    for _ in 0..400 {
        let (address, twin) = (grid.acquire(&mut firsts), grid.acquire(&mut twins));
        write_twin_at(&grid, address, twin, &[1; 3800]).unwrap();
        in_flight = in_flight.max(storage.in_flight());
    }
    grid.forfeit(firsts);
    grid.forfeit(twins);
    grid.flush().unwrap();
    let after = storage.counters().since(&before);
    // 2 x 400 blocks of 4 KiB in requests of 512 KiB.
    assert_eq!((after.writes, after.bytes_written), (8, 800 * 4096));
    assert_eq!(in_flight, 2);
    assert!(grid.stats().write_waits > 0);
}

#[test]
fn reading_ahead_reads_once() {
    let (machine, storage) = formatted(9);
    let grid = open(&machine);
    let references: Vec<_> = (0..20_u8).map(|n| write_one(&grid, &[n; 9]).unwrap()).collect();
    grid.sync().unwrap();
    empty_caches(&grid);
    let reads = storage.counters().reads;
    for reference in &references[..10] {
        grid.prefetch(reference.first());
        grid.prefetch(reference.first());
    }
    assert_eq!(storage.in_flight(), 10);
    for (n, reference) in (0..).zip(&references) {
        let block = grid.read(reference.first(), KIND).unwrap();
        assert_eq!(contents(&block), [n; 9]);
        grid.prefetch(reference.first());
    }
    assert_eq!(storage.counters().reads - reads, 20);
    assert_eq!(grid.stats().prefetches, 10);
    // 64 buffers: a quarter of them at most is read ahead.
    empty_caches(&grid);
    references.iter().for_each(|reference| grid.prefetch(reference.second()));
    assert_eq!((storage.in_flight(), grid.stats().prefetches_skipped), (16, 4));
}

#[test]
fn what_was_read_ahead_badly_shows_at_the_read() {
    let (machine, storage) = formatted(10);
    let grid = open(&machine);
    let reference = write_one(&grid, b"good").unwrap();
    grid.sync().unwrap();
    empty_caches(&grid);
    storage.corrupt(offset(&grid, reference.address) + 300, 1);
    grid.prefetch(reference.first());
    let error = grid.read(reference.first(), KIND).unwrap_err();
    assert!(matches!(error, GridError::Corrupt(_)), "{error}");
    grid.prefetch(BlockRef { address: BlockAddress::new(9999).unwrap(), ..reference.first() });
    // Stale reads of a place do not overlap its next write.
    grid.prefetch(BlockRef { checksum: Checksum::new(3), ..reference.second() });
    assert_eq!(storage.in_flight(), 1);
    write_twin_at(&grid, reference.address, reference.twin, b"again").unwrap();
    grid.flush().unwrap();
    assert_eq!(storage.in_flight(), 0);
}

/// Blocks of the other kinds: the engine's own tests.
#[test]
fn bytes_of_trailers_and_superblocks_add_up_to_what_was_written() {
    let (machine, storage) = formatted(9);
    let before = storage.counters();
    let grid = open(&machine);
    for (blocks, size) in [(0, 0), (3, 9), (7, 3000)] {
        for _ in 0..blocks {
            write_one(&grid, &vec![1; size]).unwrap();
        }
        grid.checkpoint(&update(grid.checkpoint_state().beat.get() + 1)).unwrap();
        let (stats, written) = (grid.stats(), storage.counters().since(&before).bytes_written);
        assert_eq!(stats.superblock_bytes, stats.superblocks_written * 4 * 4096);
        assert_eq!(stats.trailer_bytes + stats.superblock_bytes, written, "{stats:?}");
    }
}
