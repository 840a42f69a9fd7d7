//! What a read sees while others write: what was published when it began, or, if it takes too long, an error.

use fastrand::Rng;
use parking_lot::Mutex;
use understory_compaction::Outcome;
use understory_format::{
    Beat, Checksum, Direction, EditKind, Geometry, Key, KeyRange, ManifestRoot, Op, TableInfo,
};
use understory_grid::{CheckpointUpdate, GridError};
use understory_io::{Buffer, Completion, Counters, IoCause, IoError, Storage, Ticket, WriteParts};
use understory_table::{TableError, addresses};
use understory_testkit::{KeyPool, KeyShape, Pair, Quad, TestRecord, key_range};

use super::*;
use crate::Scan;

const DIRECTIONS: [Direction; 2] = [Direction::Ascending, Direction::Descending];

fn all<K: Key>() -> KeyRange<K> {
    KeyRange::new(K::MIN, K::MAX).unwrap()
}

/// A scan under way, with what it has still to give.
struct Reading<'a, R: TestRecord> {
    scan: Scan<'a, R>,
    expected: std::vec::IntoIter<(R::Key, u64)>,
    /// Swaps of memtables before it began.
    swaps: u64,
}

impl<'a, R: TestRecord> Reading<'a, R> {
    fn begin(
        tree: &'a Tree<R>,
        model: &BTreeMap<R::Key, u64>,
        (min, max): (R::Key, R::Key),
        direction: Direction,
        swaps: u64,
    ) -> Self {
        let mut expected: Vec<_> = model.range(min..=max).map(|(key, version)| (*key, *version)).collect();
        if !direction.is_ascending() {
            expected.reverse();
        }
        let scan = tree.scan(KeyRange::new(min, max).unwrap(), direction);
        Self { scan, expected: expected.into_iter(), swaps }
    }

    /// Reads up to `count` records; whether it can go on, or why not.
    fn go_on(&mut self, count: usize) -> Result<bool, TableError> {
        for _ in 0..count {
            match (self.scan.next()?, self.expected.next()) {
                (Some(record), Some((key, version))) => {
                    assert_eq!(record.key(), key);
                    record.expect(key, version);
                }
                (None, None) => return Ok(false),
                (found, expected) => panic!("{found:?}, expected {expected:?}"),
            }
        }
        Ok(true)
    }

    /// Reads to the end.
    fn finish(mut self) {
        assert!(!self.go_on(usize::MAX).unwrap());
    }

    /// Reads until it has expired, and after.
    fn expire(mut self) {
        for _ in 0..3 {
            assert!(matches!(self.go_on(usize::MAX), Err(TableError::Expired)));
        }
    }
}

/// A reading of all.
fn whole<'a, R: TestRecord>(
    tree: &'a Tree<R>,
    model: &BTreeMap<R::Key, u64>,
    direction: Direction,
) -> Reading<'a, R> {
    Reading::begin(tree, model, (R::Key::MIN, R::Key::MAX), direction, 0)
}

/// Puts without publishing; the model is told.
fn put_unseen(rig: &mut Rig<Pair>, key: u64, tombstone: bool) {
    rig.version += 1;
    rig.tree.put(&Pair::make(key, rig.version), tombstone).unwrap();
    if tombstone {
        rig.model.remove(&key);
    } else {
        rig.model.insert(key, rig.version);
    }
}

fn publish(rig: &Rig<Pair>) {
    rig.tree.publish();
}

/// What was published is what the model was then; afterwards, what it is now.
fn check_published(rig: &Rig<Pair>, published: &BTreeMap<u64, u64>) {
    for key in 0..40 {
        let found = rig.tree.get(key).unwrap();
        assert_eq!(found.is_some(), published.contains_key(&key), "key {key}");
        if let Some(record) = found {
            record.expect(key, published[&key]);
        }
    }
    DIRECTIONS.into_iter().for_each(|direction| whole(&rig.tree, published, direction).finish());
}

/// Values that were not published yet are not there, wherever they are: in the open beat, in a run, in the memtable that
/// waits to be flushed; on top of nothing, of values and of tombstones, once or many times.
#[test]
fn what_is_not_published_is_not_seen() {
    let mut rig = Rig::<Pair>::new(Geometry::small());
    (0..40).step_by(3).for_each(|key| put_unseen(&mut rig, key, false));
    check_published(&rig, &BTreeMap::new());
    (0..40).step_by(6).for_each(|key| put_unseen(&mut rig, key, true));
    publish(&rig);
    let published = rig.model.clone();
    check_published(&rig, &published);
    for round in 0..50 {
        put_unseen(&mut rig, 6, round % 3 == 0);
        put_unseen(&mut rig, 7, round % 2 == 0);
        put_unseen(&mut rig, 9, false);
        put_unseen(&mut rig, 12, true);
    }
    (30..40).for_each(|key| put_unseen(&mut rig, key, key % 2 == 0));
    check_published(&rig, &published);
    rig.close_beat();
    check_published(&rig, &published);
    rig.end_bar();
    check_published(&rig, &published);
    // Also in the next memtable nothing is seen before its time.
    put_unseen(&mut rig, 0, true);
    put_unseen(&mut rig, 1, false);
    check_published(&rig, &published);
    publish(&rig);
    let published = rig.model.clone();
    check_published(&rig, &published);
    put_unseen(&mut rig, 1, true);
    check_published(&rig, &published);
    rig.push(0);
    check_published(&rig, &published);
}

#[test]
#[should_panic(expected = "what is flushed was published")]
fn what_is_not_published_is_not_flushed() {
    let mut rig = Rig::<Pair>::new(Geometry::small());
    put_unseen(&mut rig, 1, false);
    rig.end_bar();
    rig.push(0);
}

/// To the bar, how long a scan may take whose values are all in memory.
#[test]
fn a_scan_may_go_on_for_two_swaps() {
    for direction in DIRECTIONS {
        let mut rig = Rig::<Pair>::new(Geometry::small());
        let tree = Arc::clone(&rig.tree);
        // More than is gathered at once.
        (0..400).for_each(|key| rig.put(2 * key));
        rig.end_bar();
        (0..400).for_each(|key| rig.put(2 * key + 1));
        let begin = |rig: &Rig<Pair>| {
            let mut reading = whole(&tree, &rig.model, direction);
            assert!(reading.go_on(3).unwrap());
            reading
        };
        // Two in a row sees both memtables; the other asks for nothing before it is late.
        let (mut slow, idle) = (begin(&rig), whole(&tree, &rig.model, direction));
        let (in_time, too_late, done) = (begin(&rig), begin(&rig), begin(&rig));
        (300..500).for_each(|key| rig.put(key));
        assert!(slow.go_on(50).unwrap());
        rig.push(0);
        assert!(slow.go_on(50).unwrap());
        done.finish();
        rig.end_bar();
        assert!(slow.go_on(50).unwrap());
        (100..700).for_each(|key| rig.remove(key));
        rig.push(0);
        assert!(slow.go_on(50).unwrap());
        in_time.finish();
        rig.end_bar();
        // The older memtable is used again.
        (0..800).for_each(|key| rig.put(key));
        slow.expire();
        too_late.expire();
        idle.expire();
        whole(&tree, &rig.model, direction).finish();
    }
}

/// A scan that has all it needs is not disturbed, nor is one of tables alone.
#[test]
fn a_scan_expires_only_if_it_must() {
    let mut rig = Rig::<Pair>::new(Geometry { share_size: 1 << 18, ..Geometry::small() });
    let tree = Arc::clone(&rig.tree);
    (0..3_000).for_each(|key| rig.put(3 * key));
    rig.end_bar();
    rig.push(0);
    rig.push(1);
    // The memtable holds nothing that is seen, or so little that it is gathered at once.
    let tables_only = whole(&tree, &rig.model, Direction::Ascending);
    rig.put(50);
    rig.remove(9_000 - 3);
    let mut gathered = whole(&tree, &rig.model, Direction::Descending);
    assert!(gathered.go_on(10).unwrap());
    for bar in 0..4 {
        (0..500).for_each(|key| rig.put(3 * key + bar));
        rig.end_bar();
        rig.push(0);
    }
    tables_only.finish();
    gathered.finish();
}

fn write_some<R: TestRecord>(rig: &mut Rig<R>, rng: &mut Rng, keys: &KeyPool<R::Key>, puts: u32) {
    for _ in 0..rng.u32(..=puts) {
        let key = if rng.bool() { keys.pick_hot(rng) } else { keys.pick(rng) };
        if rng.u8(..4) == 0 { rig.remove(key) } else { rig.put(key) }
    }
}

/// Random histories with scans of any age beside them; how many came to their end, and how many expired.
fn check_history<R: TestRecord>(geometry: Geometry, seed: u64, bars: u32, puts: u32) -> [u64; 2] {
    let mut rng = Rng::with_seed(seed);
    let keys = KeyPool::<R::Key>::new(&mut rng, KeyShape::Mixed, 700);
    let mut rig = Rig::<R>::new(geometry);
    let tree = Arc::clone(&rig.tree);
    let mut readings: Vec<Reading<'_, R>> = Vec::new();
    let (mut swaps, mut ended, mut expired) = (0, 0, 0);
    for half in 0..2 * bars {
        let targets: &[u8] = if half % 2 == 0 { &[1] } else { &[0, 2] };
        let jobs: Vec<_> = targets.iter().flat_map(|target| rig.jobs(*target, 1)).collect();
        for _ in 0..8 {
            write_some(&mut rig, &mut rng, &keys, puts);
            if readings.len() < 30 {
                let direction = DIRECTIONS[rng.usize(..2)];
                let range = if rng.bool() { (R::Key::MIN, R::Key::MAX) } else { key_range(&mut rng, &keys) };
                readings.push(Reading::begin(&tree, &rig.model, range, direction, swaps));
            }
            readings.retain_mut(|reading| match reading.go_on(rng.usize(..20)) {
                Ok(is_left) => {
                    ended += u64::from(!is_left);
                    is_left
                }
                Err(TableError::Expired) => {
                    assert!(swaps - reading.swaps >= 2, "no scan expires in its own bar or the next");
                    expired += 1;
                    false
                }
                Err(error) => panic!("{error}"),
            });
        }
        rig.close_beat();
        for mut job in jobs {
            let quota = job.remaining();
            rig.run(&mut *job, quota);
            rig.apply(job);
        }
        if half % 2 == 1 {
            swaps += 1;
            rig.tree.swap_memtables();
        }
        rig.check_all();
    }
    [ended, expired]
}

#[test]
fn scans_of_any_age_see_their_moment() {
    let geometry = Geometry { table_blocks: 1, ..Geometry::small() };
    let mut counts = [0, 0];
    for seed in 0..4 {
        let [ended, expired] = check_history::<Pair>(geometry, seed, 14, 100);
        counts = [counts[0] + ended, counts[1] + expired];
    }
    let [ended, expired] = check_history::<Quad>(geometry, 9, 14, 60);
    assert!(ended + counts[0] > 200 && expired + counts[1] > 100, "{ended} {expired} {counts:?}");
}

pub(super) fn update() -> CheckpointUpdate {
    CheckpointUpdate {
        beat: Beat::new(8),
        op_checkpoint: Op::new(0),
        op_flushed: Op::new(0),
        charge_total: 0,
        rolling_hash: Checksum::ZERO,
        manifest: ManifestRoot::default(),
    }
}

/// Some thousand values in level 1, on disk; the cache has none of it.
fn on_disk() -> Rig<Pair> {
    let mut rig = Rig::<Pair>::new(Geometry { table_blocks: 2, share_size: 1 << 18, ..Geometry::small() });
    (0..3_000).for_each(|key| rig.put(2 * key));
    rig.end_bar();
    rig.push(0);
    rig.push(1);
    rig.tree.grid().checkpoint(&update()).unwrap();
    reads::reopened(&rig, rig.sim.image())
}

/// Changes a byte of each value block of a table.
fn spoil(rig: &Rig<Pair>, table: &TableInfo) {
    let blocks = addresses(rig.tree.grid(), rig.tree.layout(), table).unwrap();
    let index = [table.index.address, table.index.twin];
    for address in blocks.into_iter().filter(|address| !index.contains(address)) {
        rig.sim.corrupt(rig.tree.grid().geometry().block_offset(address) + 300, 1);
    }
}

/// The bytes of a scan's tables change under it. Whether that is damage depends on whether their blocks may have been
/// used again: to the checkpoint.
#[test]
fn a_block_that_may_have_been_used_again_is_no_damage() {
    for checkpoints in 0..4 {
        for direction in DIRECTIONS {
            let rig = on_disk();
            let mut scan = rig.tree.scan(all(), direction);
            for _ in 0..checkpoints {
                rig.tree.grid().checkpoint(&update()).unwrap();
                rig.tree.grid().free_due();
            }
            let tables: Vec<_> = rig.tree.manifest().tables().map(|(_, table)| table.info).collect();
            tables.iter().for_each(|table| spoil(&rig, table));
            let result = loop {
                match scan.next() {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("the values are not there"),
                    Err(error) => break error,
                }
            };
            match checkpoints {
                0 | 1 => assert!(matches!(result, TableError::Corrupt(_)), "{checkpoints}: {result}"),
                _ => {
                    assert!(matches!(result, TableError::Expired), "{checkpoints}: {result}");
                    assert!(matches!(scan.next(), Err(TableError::Expired)));
                }
            }
            // A read that begins now refers to what is there now, and that is damaged.
            assert!(matches!(rig.tree.get(2_000), Err(TableError::Corrupt(_))));
            assert!(matches!(rig.tree.scan(all(), direction).next(), Err(TableError::Corrupt(_))));
        }
    }
}

/// As above, with a file that ends before the block; another failure of the storage is just that.
#[test]
fn a_block_that_is_not_there_any_more_may_be_no_damage() {
    for (cause, checkpoints, is_expired) in
        [(IoCause::Truncated, 2, true), (IoCause::Truncated, 1, false), (IoCause::Injected, 2, false)]
    {
        let rig = on_disk();
        let mut scan = rig.tree.scan(all(), Direction::Ascending);
        for _ in 0..checkpoints {
            rig.tree.grid().checkpoint(&update()).unwrap();
            rig.tree.grid().free_due();
        }
        let now = rig.sim.operations();
        (now..now + 8).for_each(|operation| rig.sim.inject(operation, cause));
        let error = scan.next().unwrap_err();
        assert_eq!(matches!(error, TableError::Expired), is_expired, "{cause:?}, {checkpoints}: {error}");
        if !is_expired {
            let io = matches!(error, TableError::Grid(GridError::Io(_) | GridError::Unreadable { .. }));
            assert!(io, "{error}");
        }
    }
}

/// A storage that lets something happen right before a read.
#[derive(Debug)]
struct Meddler {
    inner: Arc<SimStorage>,
    meddling: Meddling,
}

type Work = Box<dyn FnOnce() + Send>;

/// What is to happen, once.
#[derive(Default)]
struct Meddling(Mutex<Option<Work>>);

impl std::fmt::Debug for Meddling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meddling")
    }
}

impl Meddler {
    fn meddle(&self) {
        let work = self.meddling.0.lock().take();
        if let Some(work) = work {
            work();
        }
    }
}

impl Storage for Meddler {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read(&self, offset: u64, buffer: Buffer) -> Ticket {
        self.meddle();
        self.inner.read(offset, buffer)
    }

    fn write(&self, offset: u64, parts: WriteParts) -> Ticket {
        self.inner.write(offset, parts)
    }

    fn sync(&self) -> Ticket {
        self.inner.sync()
    }

    fn read_now(&self, offset: u64, buffer: Buffer) -> Completion {
        self.meddle();
        self.inner.read_now(offset, buffer)
    }

    fn grow(&self, size: u64) -> Result<(), IoError> {
        self.inner.grow(size)
    }

    fn truncate(&self, size: u64) -> Result<(), IoError> {
        self.inner.truncate(size)
    }

    fn counters(&self) -> Counters {
        self.inner.counters()
    }
}

/// While a `get` reads, the tables that it refers to are replaced (or not) and their blocks used again.
#[test]
fn a_get_looks_again_where_its_tables_are_now() {
    for (is_replaced, is_new_good) in [(true, true), (true, false), (false, true)] {
        let rig = reads::two_levels();
        let outcomes: Vec<Outcome> = rig
            .jobs(1, 0)
            .into_iter()
            .map(|mut job| {
                let quota = job.remaining();
                rig.run(&mut *job, quota);
                job.finish().unwrap()
            })
            .collect();
        assert!(!outcomes.is_empty());
        rig.tree.grid().checkpoint(&update()).unwrap();
        let (mut machine, sim) = Machine::sim_from(rig.sim.image(), 5);
        let meddler = Arc::new(Meddler { inner: Arc::clone(&sim), meddling: Meddling::default() });
        machine.storage = Arc::<Meddler>::clone(&meddler);
        let (grid, pool) = open(machine, rig.tree.grid().geometry(), 8);
        let tree = Arc::new(Tree::<Pair>::new(grid, TREE, *rig.tree.layout(), pool, Arc::default()));
        for (level, table) in rig.tree.manifest().tables() {
            tree.load(level, table.info).unwrap();
        }
        tree.loaded().unwrap();
        let (changed, geometry) = (Arc::clone(&tree), *rig.tree.grid().geometry());
        let written: Vec<_> = outcomes
            .iter()
            .flat_map(|outcome| &outcome.edits)
            .filter(|edit| edit.kind == EditKind::Insert)
            .flat_map(|edit| addresses(rig.tree.grid(), rig.tree.layout(), &edit.table).unwrap())
            .collect();
        let spoil = move |address| sim.corrupt(geometry.block_offset(address) + 300, 1);
        *meddler.meddling.0.lock() = Some(Box::new(move || {
            for outcome in &outcomes {
                outcome.released.iter().for_each(|address| spoil(*address));
                if is_replaced {
                    changed.apply(false, &outcome.edits);
                }
            }
            if !is_new_good {
                written.iter().for_each(|address| spoil(*address));
            }
        }));
        // In both levels; in the deeper one alone; in none.
        for key in [6, 4, 5] {
            match tree.get(key) {
                Ok(found) => {
                    assert!(is_replaced && is_new_good, "{key}: {found:?}");
                    assert_eq!(found.is_some(), key != 5);
                }
                Err(TableError::Corrupt(_)) => assert!(!is_replaced || !is_new_good, "{key}"),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Of several trees that are published together none is ahead of another: see also `beside`.
#[test]
fn a_reader_waits_for_a_publication() {
    let rig = on_disk();
    let publication = crate::Publication::default();
    let order = Mutex::new(Vec::new());
    let is_in = std::sync::atomic::AtomicBool::new(false);
    #[expect(clippy::disallowed_methods, reason = "the subject is threads")]
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !is_in.load(std::sync::atomic::Ordering::Acquire) {
                std::thread::yield_now();
            }
            publication.capture(|| ());
            order.lock().push("captured");
        });
        publication.publish(|| {
            is_in.store(true, std::sync::atomic::Ordering::Release);
            std::thread::sleep(std::time::Duration::from_millis(30));
            order.lock().push("published");
        });
        reader.join().unwrap();
    });
    assert_eq!(*order.lock(), ["published", "captured"]);
    // And one that was interrupted captures again.
    let mut captures = 0;
    publication.capture(|| {
        captures += 1;
        if captures < 3 {
            publication.publish(|| rig.tree.publish());
        }
    });
    assert_eq!(captures, 3);
}
