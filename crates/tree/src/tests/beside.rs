//! Readers on threads of their own beside one writer, who closes bars, compacts and takes checkpoints: real threads, and
//! simulated ones that change places where they wait.
//!
//! What every op does is decided before anything runs, so that a reader knows what each op would have shown. What it
//! finds has to be what one op showed between the one visible before it asked and the one visible after.

use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use understory_io::{OsStorage, SimOptions, SimThreads};
use understory_table::TableError;

use super::reuse::update;
use super::script::{History, KEY_COUNT, Mark, Script, next, version};
use super::*;
use crate::{Publication, Scan};

const OPS_PER_BEAT: u64 = 15;
const BEATS_PER_BAR: u64 = 4;
/// Scans that a reader has open at a time.
const SCANS_MAX: usize = 3;
/// Scans whose moment is less certain than that are not followed.
const CANDIDATES_MAX: u64 = 50;

/// Two trees, who reads them and who writes them.
struct World {
    script: Script,
    trees: [Tree<Mark>; 2],
    publication: Arc<Publication>,
    /// The last op that was published.
    visible: AtomicU64,
    /// Swaps that were begun.
    swaps: AtomicU64,
    is_over: AtomicBool,
    gets: AtomicU64,
    ended: AtomicU64,
    expired: AtomicU64,
}

impl World {
    fn new(machine: Machine, seed: u64, op_count: u64) -> Self {
        let geometry = Geometry { table_blocks: 4, ..Geometry::small() };
        let ids = [TREE, TreeId::new(2).unwrap()];
        // The grid knows trees by id alone, so one name will do.
        let trees = [TreeDescription::of::<Mark>(TREE, Usage::General)];
        Grid::format(&machine, &FormatState { geometry, trees: &trees, size_limit: None }).unwrap();
        let (grid, pool) = open_with(machine, &geometry, 100, 192);
        let layout = TableLayout::new::<Mark>(&geometry).unwrap();
        let publication = Arc::<Publication>::default();
        let tree = |id| Tree::new(Arc::clone(&grid), id, layout, pool.clone(), Arc::clone(&publication));
        Self {
            script: Script::new(seed, op_count),
            trees: ids.map(tree),
            publication,
            visible: AtomicU64::new(0),
            swaps: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            gets: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            expired: AtomicU64::new(0),
        }
    }

    fn visible(&self) -> u64 {
        self.visible.load(Ordering::Acquire)
    }

    /// Does all ops; `dawdle` is called between the trees of some that are published, `pause` after each op.
    fn write(&self, dawdle: impl Fn(), pause: impl Fn(u64)) {
        let _over = Over(&self.is_over);
        let mut scratch = Scratch::default();
        for (op, batches) in (1..).zip(&self.script.ops) {
            for (tree, batch) in self.trees.iter().zip(batches) {
                tree.append(&batch.values, Some(&batch.tombstones)).unwrap();
            }
            self.publication.publish(|| {
                let [first, second] = &self.trees;
                first.publish();
                if op % 8 == 0 {
                    dawdle();
                }
                second.publish();
                self.visible.store(op, Ordering::Release);
            });
            if op % OPS_PER_BEAT == 0 {
                self.trees.iter().for_each(|tree| tree.close_beat(&mut scratch));
                self.close_beat(op / OPS_PER_BEAT);
            }
            pause(op);
        }
    }

    /// Odd targets are compacted at the middle of a bar, even ones at its end, as the forest does it.
    fn close_beat(&self, beat: u64) {
        let grid = self.trees[0].grid();
        if beat % BEATS_PER_BAR == BEATS_PER_BAR / 2 {
            self.compact(&[1, 3]);
            grid.free_due();
        }
        if beat.is_multiple_of(BEATS_PER_BAR) {
            self.compact(&[0, 2]);
            self.swaps.fetch_add(1, Ordering::AcqRel);
            self.trees.iter().for_each(Tree::swap_memtables);
            grid.checkpoint(&update()).unwrap();
            if beat.is_multiple_of(4 * BEATS_PER_BAR) {
                grid.trim(0).unwrap();
            }
        }
    }

    fn compact(&self, targets: &[u8]) {
        for target in targets {
            for tree in &self.trees {
                let table_value_max = tree.layout().value_count_max;
                let limits =
                    Limits { table_value_max, growth: 1, level0_value_max: table_value_max, settle: false };
                let target = Level::new(*target).unwrap();
                let plans = Plan::of_tree(&tree.manifest(), tree.immutable().as_ref(), target, &limits);
                for plan in plans {
                    self.run(tree, plan);
                }
            }
        }
    }

    fn run(&self, tree: &Tree<Mark>, plan: Plan<Mark>) {
        let grid = tree.grid();
        let mut job: Box<dyn Job> =
            Box::new(Compaction::new(Arc::clone(grid), tree.id(), tree.layout(), plan, Beat::new(1)));
        let quota = job.remaining();
        let mut reservation = grid.reserve(job.blocks_bound(quota)).unwrap();
        job.run(quota, &mut reservation).unwrap();
        grid.forfeit(reservation);
        let outcome = job.finish().unwrap();
        tree.apply(outcome.is_flush, &outcome.edits, outcome.filters);
        outcome.released.iter().for_each(|address| grid.release(*address));
    }

    /// Reads this and that until the writer is done.
    fn read(&self, seed: u64, pause: impl Fn()) {
        let _over = Over(&self.is_over);
        let mut rng = Rng::with_seed(seed);
        let mut readings = Vec::new();
        while !self.is_over.load(Ordering::Acquire) {
            let key = match rng.u8(..4) {
                0 => rng.u64(..40),
                _ => rng.u64(..2 * KEY_COUNT + 4),
            };
            self.check_get(rng.usize(..2), key);
            if rng.u8(..4) == 0 {
                self.check_both(rng.bool());
            }
            if readings.len() < SCANS_MAX && rng.u8(..8) == 0 {
                readings.extend(Reading::begin(self, &mut rng));
            }
            readings.retain_mut(|reading| !reading.is_due(&mut rng) || reading.go_on(rng.usize(..100)));
            pause();
        }
        readings.retain_mut(|reading| reading.go_on(usize::MAX));
        assert!(readings.is_empty());
    }

    fn check_get(&self, tree: usize, key: u64) {
        let before = self.visible();
        let found = self.trees[tree].get(key).unwrap();
        let after = self.visible();
        if let Some(mark) = &found {
            assert_eq!(mark.id.get(), key);
            assert!(mark.rest.iter().all(|word| word.get() == key ^ mark.op.get()));
        }
        let found = found.map(|mark| mark.op.get());
        let mut possible = (before..=after).map(|op| version(&self.script.history[tree], key, op));
        assert!(possible.any(|version| version == found), "{key} between {before} and {after}: {found:?}");
        self.gets.fetch_add(1, Ordering::Relaxed);
    }

    /// What is read second is not older than what is read first, whichever tree comes first.
    fn check_both(&self, is_first: bool) {
        let [first, second] = [usize::from(!is_first), usize::from(is_first)];
        let op = |tree: usize| self.trees[tree].get(0).unwrap().map_or(0, |mark| mark.op.get());
        let (earlier, later) = (op(first), op(second));
        assert!(earlier <= later, "tree {first} at {earlier}, then tree {second} at {later}");
        let newest = |tree: usize| loop {
            let mut scan = self.trees[tree].scan(KeyRange::new(0, 1).unwrap(), Direction::Descending);
            match scan.next() {
                Ok(mark) => break mark.map_or(0, |mark| mark.op.get()),
                // The thread stood still for two bars.
                Err(TableError::Expired) => {}
                Err(error) => panic!("{error}"),
            }
        };
        let (later, latest) = (newest(second), newest(first));
        assert!(earlier <= later && later <= latest, "{earlier}, {later}, {latest}");
    }
}

/// Tells the others that it is over, also if a thread panics.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A scan under way, and the ops of which all that it gave so far may be.
struct Reading<'a> {
    world: &'a World,
    history: &'a History,
    scan: Scan<'a, Mark>,
    /// What of the range was not given yet.
    rest: (Bound<u64>, Bound<u64>),
    direction: Direction,
    candidates: Vec<u64>,
    /// Swaps before it began.
    swaps: u64,
    /// Whether it goes on once in a bar only, and how many swaps there were when it did.
    slow: Option<u64>,
}

impl<'a> Reading<'a> {
    fn begin(world: &'a World, rng: &mut Rng) -> Option<Self> {
        let tree = rng.usize(..2);
        let (a, b) = (rng.u64(..2 * KEY_COUNT), rng.u64(..2 * KEY_COUNT));
        let (min, max) = if rng.bool() { (0, u64::MAX) } else { (a.min(b), a.max(b)) };
        let direction = if rng.bool() { Direction::Ascending } else { Direction::Descending };
        let (swaps, before) = (world.swaps.load(Ordering::Acquire), world.visible());
        let scan = world.trees[tree].scan(KeyRange::new(min, max).unwrap(), direction);
        let after = world.visible();
        let history = &world.script.history[tree];
        let rest = (Bound::Included(min), Bound::Included(max));
        let candidates = (before..=after).collect();
        let slow = rng.bool().then_some(swaps);
        let reading = Self { world, history, scan, rest, direction, candidates, swaps, slow };
        (after - before < CANDIDATES_MAX).then_some(reading)
    }

    fn is_due(&mut self, rng: &mut Rng) -> bool {
        let swaps = self.world.swaps.load(Ordering::Acquire);
        match &mut self.slow {
            Some(before) => std::mem::replace(before, swaps) < swaps,
            None => rng.u8(..3) == 0,
        }
    }

    /// Reads up to `count` records; false at the end, or if it has expired.
    fn go_on(&mut self, count: usize) -> bool {
        for _ in 0..count {
            let found = match self.scan.next() {
                Ok(mark) => mark.map(|mark| (mark.id.get(), mark.op.get())),
                Err(TableError::Expired) => {
                    let swaps = self.world.swaps.load(Ordering::Acquire) - self.swaps;
                    assert!(swaps >= 2, "no scan expires before the second swap");
                    self.world.expired.fetch_add(1, Ordering::Relaxed);
                    return false;
                }
                Err(error) => panic!("{error}"),
            };
            let Self { history, rest, direction, candidates, .. } = self;
            candidates.retain(|op| next(history, *rest, *direction, *op) == found);
            assert!(!candidates.is_empty(), "{found:?} is not what comes next in {rest:?} at any op");
            let Some((key, _)) = found else {
                self.world.ended.fetch_add(1, Ordering::Relaxed);
                return false;
            };
            match direction {
                Direction::Ascending => rest.0 = Bound::Excluded(key),
                Direction::Descending => rest.1 = Bound::Excluded(key),
            }
        }
        true
    }
}

/// Real threads over a file: they meet anywhere, in the middle of a publication too.
#[test]
#[expect(clippy::disallowed_methods, reason = "the subject is threads")]
fn real_threads() {
    let path = std::env::temp_dir().join(format!("understory-tree-{}", std::process::id()));
    let storage = OsStorage::create(&path, understory_io::Options::default()).unwrap();
    let world = World::new(Machine::os(storage, 0).unwrap(), 1, 30 * OPS_PER_BEAT * BEATS_PER_BAR);
    std::thread::scope(|scope| {
        for reader in 0..3 {
            let world = &world;
            scope.spawn(move || world.read(reader, || ()));
        }
        // The writer does not run away from readers that get no turn.
        let is_ahead =
            |op| world.gets.load(Ordering::Relaxed) < 10 * op && !world.is_over.load(Ordering::Acquire);
        let pause = |op| {
            while is_ahead(op) {
                std::thread::yield_now();
            }
        };
        world.write(|| std::thread::sleep(Duration::from_micros(50)), pause);
    });
    check_counts(&world);
    drop(world);
    std::fs::remove_file(&path).unwrap();
}

/// Simulated threads: one at a time, but others come where one waits for the file, and as the seed wants it.
#[test]
fn simulated_threads() {
    for seed in 0..6 {
        let options = SimOptions { allow_overlap: true, ..SimOptions::seeded(seed) };
        let (machine, sim) = Machine::sim_with(Vec::new(), options);
        let world = World::new(machine, seed, 12 * OPS_PER_BEAT * BEATS_PER_BAR);
        let scheduler = sim.scheduler();
        let pause = || scheduler.pause();
        let (world, pause) = (&world, &pause);
        let reader = |seed| -> Box<dyn FnOnce() + Send + '_> { Box::new(move || world.read(seed, pause)) };
        let writer: Box<dyn FnOnce() + Send + '_> = Box::new(|| world.write(|| (), |_| pause()));
        SimThreads::run(
            &scheduler,
            vec![("writer", writer), ("reader 1", reader(seed)), ("reader 2", reader(seed + 1_000))],
        );
        check_counts(world);
    }
}

/// The readers saw something of everything.
fn check_counts(world: &World) {
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let [gets, ended, expired] = [&world.gets, &world.ended, &world.expired].map(count);
    assert!(gets > 500 && ended > 10 && expired > 10, "{gets} {ended} {expired}");
    assert!(world.trees[0].grid().stats().block_misses > 0);
    for (tree, history) in world.trees.iter().zip(&world.script.history) {
        let op = world.visible();
        let mut rest = (Bound::Included(0), Bound::Unbounded);
        let mut scan = tree.scan(KeyRange::new(0, u64::MAX).unwrap(), Direction::Ascending);
        while let Some(mark) = scan.next().unwrap() {
            assert_eq!(next(history, rest, Direction::Ascending, op), Some((mark.id.get(), mark.op.get())));
            rest.0 = Bound::Excluded(mark.id.get());
        }
        assert_eq!(next(history, rest, Direction::Ascending, op), None);
    }
}
