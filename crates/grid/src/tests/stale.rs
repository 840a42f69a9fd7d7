//! References to blocks that were freed, and whose addresses hold something else by now.

use std::sync::atomic::{AtomicBool, Ordering};

use understory_format::{BlockRef, KeyBytes, Place, ValueLayout, value};
use understory_io::Storage;

use super::*;

/// A value block of one record, and the checksum and place of its only page.
#[derive(Clone, Debug)]
pub(super) struct Written {
    reference: BlockRef,
    page: (Checksum, std::ops::Range<usize>),
    number: u64,
}

pub(super) fn write_value(grid: &Grid, reservation: &mut Reservation, number: u64) -> Written {
    let layout = ValueLayout::new(grid.geometry().block_size, grid.geometry().page_size, 16).unwrap();
    let mut buffer = grid.buffer().unwrap();
    let mut builder = value::ValueBlockBuilder::new(&mut buffer, &layout);
    let mut record = [0; 16];
    record[..8].copy_from_slice(&number.to_le_bytes());
    builder.push(&mut buffer, &record, false, number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let address = grid.acquire(reservation);
    let placement = Placement { address, twin: None, tree: TreeId::new(1), beat: Beat::new(3) };
    let mut page = None;
    let note = |_, checksum| page = Some((checksum, layout.page_bytes(0)));
    let checksum = builder.finish(&mut buffer, &placement, KeyBytes::ZERO, KeyBytes::ZERO, note);
    drop(grid.write(buffer).unwrap());
    Written { reference: BlockRef { address, checksum }, page: page.unwrap(), number }
}

/// The record's number, or an error that names the block. Nothing else may come of it.
fn read(grid: &Grid, written: &Written, whole: bool) -> Option<u64> {
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes[..8].try_into().unwrap());
    let result = if whole {
        grid.read(written.reference, BlockKind::Value).map(|block| number(&block[256..]))
    } else {
        let (checksum, range) = written.page.clone();
        grid.read_page(written.reference, 0, checksum, range).map(|page| number(&page))
    };
    match result {
        Ok(number) => {
            assert_eq!(number, written.number, "never another's bytes");
            Some(number)
        }
        Err(GridError::Corrupt(error)) => {
            let address = written.reference.address;
            assert!([Place::Block(address), Place::Page(address, 0)].contains(&error.place), "{error}");
            None
        }
        Err(GridError::NoBuffers) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Writes blocks, releases the oldest, and frees them two checkpoints later; gives all that were written.
struct Mutator {
    grid: Arc<Grid>,
    number: u64,
    live: Vec<Written>,
}

impl Mutator {
    fn new(grid: &Arc<Grid>) -> Self {
        Self { grid: Arc::clone(grid), number: 0, live: Vec::new() }
    }

    fn write(&mut self, count: u64, all: &parking_lot::Mutex<Vec<Written>>) {
        let mut reservation = self.grid.reserve(count).unwrap();
        for _ in 0..count {
            self.number += 1;
            let written = write_value(&self.grid, &mut reservation, self.number);
            self.live.push(written.clone());
            all.lock().push(written);
        }
        self.grid.forfeit(reservation);
    }

    fn bar(&mut self, beat: u64, all: &parking_lot::Mutex<Vec<Written>>) {
        self.write(4, all);
        while self.live.len() > 8 {
            self.grid.release(self.live.remove(0).reference.address);
        }
        let pending = self.grid.begin_checkpoint(&update(beat), |_| ()).unwrap();
        let finishing = Arc::clone(&self.grid);
        let job = self.grid.machine().spawn(move || finishing.finish_checkpoint(pending));
        self.write(3, all);
        job.wait().unwrap();
        self.grid.free_due();
        if beat.is_multiple_of(4) {
            self.grid.trim(0).unwrap();
        }
    }
}

/// Reads what was ever written, live or not, by any means.
fn read_some(grid: &Grid, all: &parking_lot::Mutex<Vec<Written>>, random: &mut fastrand::Rng) -> u64 {
    let written = {
        let all = all.lock();
        all.get(random.usize(..all.len().max(1))).cloned()
    };
    let Some(written) = written else { return 0 };
    if random.bool() {
        grid.prefetch(written.reference);
    }
    u64::from(read(grid, &written, random.bool()).is_some())
}

#[test]
fn an_address_that_was_used_again_never_shows_the_old_readers_another_block() {
    let (mut good, mut used_again) = (0, 0);
    for seed in 0..40 {
        let (machine, storage) = Machine::sim(seed);
        format_with(&machine, Geometry::small(), 100).unwrap();
        let options = GridOptions { block_count: if seed % 2 == 0 { 16 } else { 64 }, ..OPTIONS };
        let grid = Arc::new(open_with(&machine, options).unwrap());
        let all = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let (reading, shared) = (Arc::clone(&grid), Arc::clone(&all));
        let reads = machine.spawn(move || {
            let mut random = fastrand::Rng::with_seed(seed);
            (0..150).map(|_| read_some(&reading, &shared, &mut random)).sum::<u64>()
        });
        let mut mutator = Mutator::new(&grid);
        for beat in 1..10 {
            mutator.bar(beat, &all);
        }
        good += reads.wait();
        let live: Vec<u64> = mutator.live.iter().map(|written| written.number).collect();
        empty_caches(&grid);
        for written in all.lock().iter() {
            let whole = read(&grid, written, true);
            let page = read(&grid, written, false);
            let is_live = live.contains(&written.number);
            assert!(!is_live || whole.is_some() && page.is_some(), "what is live can be read");
            used_again += u64::from(whole.is_none());
        }
        assert!(storage.counters().reads > 0);
    }
    assert!(good > 500 && used_again > 500, "{good} {used_again}");
}

/// Tells readers that it is over, also if the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the subject is threads")]
fn stale_readers_on_threads_beside_checkpoints() {
    let path = std::env::temp_dir().join(format!("understory-grid-stale-{}", std::process::id()));
    let storage = understory_io::OsStorage::create(&path, understory_io::Options::default()).unwrap();
    let machine = Machine::os(storage, 2).unwrap();
    format_with(&machine, Geometry::small(), 100).unwrap();
    let grid = Arc::new(open_with(&machine, GridOptions { block_count: 32, ..OPTIONS }).unwrap());
    let all = parking_lot::Mutex::new(Vec::new());
    let over = AtomicBool::new(false);
    let mut mutator = Mutator::new(&grid);
    std::thread::scope(|scope| {
        for reader in 0..3 {
            let (grid, all, over) = (&grid, &all, &over);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(reader);
                while !over.load(Ordering::Acquire) {
                    read_some(grid, all, &mut random);
                }
            });
        }
        let _over = Over(&over);
        (1..60).for_each(|beat| mutator.bar(beat, &all));
    });
    assert_eq!(grid.poison(), None);
    // What was written beside the last checkpoint is in this one.
    grid.checkpoint(&update(60)).unwrap();
    let set = grid.free_set();
    drop((grid, mutator.grid));
    let again = open(&machine);
    assert_eq!(again.free_set(), set);
    for written in &mutator.live {
        assert_eq!(read(&again, written, true), Some(written.number));
    }
    drop((again, machine));
    std::fs::remove_file(&path).unwrap();
}
