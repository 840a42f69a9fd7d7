//! Readers and writers on real threads.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use understory_io::{
    Buffer, Completion, Counters, InlineExecutor, IoError, MonotonicClock, Storage, ThreadPark, Ticket,
    WriteParts,
};

use super::*;

const READERS: usize = 8;

/// A storage whose reads wait until all readers are on their way, so that they meet.
#[derive(Debug)]
struct Slow {
    inner: Arc<SimStorage>,
    waiting: AtomicUsize,
}

impl Storage for Slow {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read(&self, offset: u64, buffer: Buffer) -> Ticket {
        self.inner.read(offset, buffer)
    }

    fn write(&self, offset: u64, parts: WriteParts) -> Ticket {
        self.inner.write(offset, parts)
    }

    fn sync(&self) -> Ticket {
        self.inner.sync()
    }

    fn read_now(&self, offset: u64, buffer: Buffer) -> Completion {
        while !self.waiting.load(Ordering::Acquire).is_multiple_of(READERS) {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(5));
        self.inner.read_now(offset, buffer)
    }

    fn grow(&self, size: u64) -> Result<(), IoError> {
        self.inner.grow(size)
    }

    fn truncate(&self, size: u64) -> Result<(), IoError> {
        self.inner.truncate(size)
    }

    fn discard(&self, range: Range<u64>) -> Result<(), IoError> {
        self.inner.discard(range)
    }

    fn is_dense(&self) -> bool {
        self.inner.is_dense()
    }

    fn allocate(&self, range: Range<u64>) -> Result<(), IoError> {
        self.inner.allocate(range)
    }

    fn counters(&self) -> Counters {
        self.inner.counters()
    }
}

fn threaded(inner: Arc<SimStorage>) -> (Machine, Arc<Slow>) {
    let slow = Arc::new(Slow { inner, waiting: AtomicUsize::new(0) });
    let storage: Arc<dyn Storage> = Arc::<Slow>::clone(&slow);
    let machine = Machine {
        storage,
        park: Arc::new(ThreadPark::new()),
        executor: Arc::new(InlineExecutor),
        clock: Arc::new(MonotonicClock::new()),
    };
    (machine, slow)
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the subject is threads")]
fn equal_reads_go_to_the_storage_once() {
    let (machine, storage) = formatted(1);
    let writer = open(&machine);
    let references: Vec<_> = (0..10_u8).map(|n| write_one(&writer, &[n; 50]).unwrap()).collect();
    writer.checkpoint(&update(1)).unwrap();
    drop(writer);
    let (machine, slow) = threaded(Arc::clone(&storage));
    let grid = open_with(&machine, READ_ONLY).unwrap();
    let before = storage.counters();
    for (n, reference) in (0..).zip(&references) {
        std::thread::scope(|scope| {
            for _ in 0..READERS {
                scope.spawn(|| {
                    slow.waiting.fetch_add(1, Ordering::AcqRel);
                    let block = grid.read(reference.first(), KIND).unwrap();
                    assert_eq!(contents(&block), [n; 50]);
                });
            }
        });
    }
    assert_eq!(storage.counters().since(&before).reads, 10, "one for each block");
    assert!(grid.stats().reads_joined > 0);
}

/// Jobs of the simulation run inside one another's waits: none may wait for one that is below it.
#[test]
fn jobs_inside_the_waits_of_others_come_to_an_end() {
    for seed in 0..60 {
        let (machine, _) = Machine::sim(seed);
        format_with(&machine, Geometry::small(), 2000).unwrap();
        let block_count = if seed % 2 == 0 { 24 } else { 400 };
        let grid = Arc::new(open_with(&machine, GridOptions { block_count, ..OPTIONS }).unwrap());
        let shared: Vec<_> = (0..30_u8).map(|n| write_one(&grid, &[n]).unwrap()).collect();
        grid.sync().unwrap();
        empty_caches(&grid);
        let jobs: Vec<_> = (0..4)
            .map(|job| {
                let (grid, shared) = (Arc::clone(&grid), shared.clone());
                let mut reservation = grid.reserve(160).unwrap();
                machine.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed * 10 + job);
                    for _ in 0..80 {
                        write_twin(&grid, &mut reservation, &[1; 3800]).unwrap();
                        let n = random.usize(..shared.len());
                        grid.prefetch(shared[random.usize(..shared.len())].first());
                        let block = grid.read_twin(shared[n], KIND).unwrap();
                        assert_eq!(usize::from(contents(&block)[0]), n);
                    }
                    reservation
                })
            })
            .collect();
        for reference in &shared {
            grid.read_twin(*reference, KIND).unwrap();
            grid.prefetch(reference.second());
        }
        jobs.into_iter().for_each(|job| grid.forfeit(job.wait()));
        grid.checkpoint(&update(1)).unwrap();
    }
}

const fn assert_shared<T: Send + Sync>() {}
const _: () = assert_shared::<Grid>();
const _: () = assert_shared::<Block>();
const _: () = assert_shared::<crate::Page>();

#[test]
#[expect(clippy::disallowed_methods, reason = "the subject is threads")]
fn readers_and_writers_at_the_same_time() {
    let path = std::env::temp_dir().join(format!("understory-grid-{}", std::process::id()));
    let storage = understory_io::OsStorage::create(&path, understory_io::Options::default()).unwrap();
    let machine = Machine::os(storage, 0).unwrap();
    format_with(&machine, Geometry::small(), 4000).unwrap();
    let grid = open_with(&machine, GridOptions { block_count: 64, ..OPTIONS }).unwrap();
    let mut reservations: Vec<_> = (0..3).map(|_| grid.reserve(1000).unwrap()).collect();
    std::thread::scope(|scope| {
        for (writer, reservation) in (0..3_u8).zip(&mut reservations) {
            let grid = &grid;
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(writer.into());
                let mut written = Vec::new();
                for n in 0..200_u8 {
                    written.push((write_twin(grid, reservation, &[n, writer]).unwrap(), n));
                    for _ in 0..3 {
                        let (reference, n) = written[random.usize(..written.len())];
                        if random.bool() {
                            grid.prefetch(reference.second());
                        }
                        let copy = if random.bool() { reference.first() } else { reference.second() };
                        assert_eq!(contents(&grid.read(copy, KIND).unwrap()), [n, writer]);
                    }
                }
            });
        }
    });
    reservations.into_iter().for_each(|reservation| grid.forfeit(reservation));
    grid.checkpoint(&update(1)).unwrap();
    let set = grid.free_set();
    drop(grid);
    assert_eq!(open(&machine).free_set(), set);
    drop(machine);
    std::fs::remove_file(&path).unwrap();
}
