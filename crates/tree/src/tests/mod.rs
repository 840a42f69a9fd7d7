//! One tree on a simulated file, with a plain map beside it. The compaction crate moves its values down.

mod beside;
mod fuzz;
mod layers;
mod opening;
mod reads;
mod reuse;
mod script;
mod views;

use std::collections::BTreeMap;
use std::sync::Arc;

use understory_compaction::{Compaction, Job, Limits, Outcome, Plan};
use understory_format::{
    Beat, Direction, Geometry, Key, KeyRange, Level, TreeDescription, TreeId, Usage, usize_of,
};
use understory_grid::{FormatState, Grid, GridOptions};
use understory_io::{Arena, Machine, Pool, SimStorage};
use understory_table::{FilterBudget, Scratch, TableLayout};
use understory_testkit::TestRecord;

use crate::Tree;

const TREE: TreeId = TreeId::new(1).unwrap();

/// A tree beside what it ought to hold: the version of each key.
struct Rig<R: TestRecord> {
    sim: Arc<SimStorage>,
    tree: Arc<Tree<R>>,
    model: BTreeMap<R::Key, u64>,
    pool: Pool,
    scratch: Scratch,
    version: u64,
    beat: Beat,
}

/// A grid on the machine, and a pool of chunks for memtables.
fn open(machine: Machine, geometry: &Geometry, chunk_count: usize) -> (Arc<Grid>, Pool) {
    // The tests run many jobs at once, each of which holds blocks.
    open_with(machine, geometry, chunk_count, 512)
}

/// As [`open`], with so many blocks in the cache.
fn open_with(
    machine: Machine,
    geometry: &Geometry,
    chunk_count: usize,
    block_count: u32,
) -> (Arc<Grid>, Pool) {
    let options = GridOptions { block_count, page_count: 16, read_only: false };
    let chunk_size = usize_of(geometry.block_size);
    let size = options.arena_size(geometry).unwrap() + Arena::needed(chunk_size, chunk_count).unwrap();
    let arena = Arena::new(size).unwrap();
    let pool = arena.pool(chunk_size, chunk_count).unwrap();
    (Arc::new(Grid::open(machine, &arena, options).unwrap()), pool)
}

impl<R: TestRecord> Rig<R> {
    fn new(geometry: Geometry) -> Self {
        Self::with_chunks(geometry, 96)
    }

    fn with_chunks(geometry: Geometry, chunk_count: usize) -> Self {
        let (machine, sim) = Machine::sim(7);
        let trees = [TreeDescription::of::<R>(TREE, Usage::General)];
        Grid::format(&machine, &FormatState { geometry, trees: &trees, size_limit: None }).unwrap();
        let (grid, pool) = open(machine, &geometry, chunk_count);
        let layout = TableLayout::new::<R>(&geometry).unwrap();
        let tree = Tree::new(grid, TREE, layout, pool.clone(), Arc::default());
        // Too few for all tables.
        let tree = Arc::new(tree.holding_filters(Arc::new(FilterBudget::new(24))));
        let (model, scratch) = (BTreeMap::new(), Scratch::default());
        Self { sim, tree, model, pool, scratch, version: 0, beat: Beat::new(1) }
    }

    fn put(&mut self, key: R::Key) {
        self.version += 1;
        self.tree.put(&R::make(key, self.version), false).unwrap();
        self.tree.publish();
        self.model.insert(key, self.version);
    }

    fn remove(&mut self, key: R::Key) {
        self.version += 1;
        // Of a tombstone's record only the key counts.
        self.tree.put(&R::make(key, self.version), true).unwrap();
        self.tree.publish();
        self.model.remove(&key);
    }

    fn close_beat(&mut self) {
        self.tree.close_beat(&mut self.scratch);
        self.beat = self.beat.next();
    }

    /// Ends a bar: what is in the mutable memtable waits to be flushed.
    fn end_bar(&mut self) {
        self.close_beat();
        self.tree.swap_memtables();
    }

    /// The compactions into a level: with the usual growth, or with none, which drains the level above.
    fn jobs(&self, target: u8, growth: u64) -> Vec<Box<dyn Job>> {
        let table_value_max = self.tree.layout().value_count_max;
        let level0_value_max = growth * table_value_max;
        let limits = Limits { table_value_max, growth, level0_value_max, settle: false };
        let target = Level::new(target).unwrap();
        let plans = Plan::of_tree(&self.tree.manifest(), self.tree.immutable().as_ref(), target, &limits);
        let job = |plan| -> Box<dyn Job> {
            let grid = Arc::clone(self.tree.grid());
            let job = Compaction::new(grid, TREE, self.tree.layout(), plan, self.beat);
            // The filters of other levels come in as lookups want them.
            let budget = self.tree.filter_budget().filter(|_| target.get().is_multiple_of(2));
            match budget {
                Some(budget) => Box::new(job.holding_filters(Arc::clone(budget), 0)),
                None => Box::new(job),
            }
        };
        plans.into_iter().map(job).collect()
    }

    /// Runs a part of a job.
    fn run(&self, job: &mut dyn Job, quota: u64) {
        let mut reservation = self.tree.grid().reserve(job.blocks_bound(quota)).unwrap();
        job.run(quota, &mut reservation).unwrap();
        self.tree.grid().forfeit(reservation);
    }

    fn apply(&mut self, job: Box<dyn Job>) -> Outcome {
        let mut outcome = job.finish().unwrap();
        let filters = std::mem::take(&mut outcome.filters);
        self.tree.apply(outcome.is_flush, &outcome.edits, filters);
        outcome
    }

    /// Drains the level above `target`, or flushes, at once.
    fn push(&mut self, target: u8) {
        for mut job in self.jobs(target, 0) {
            let quota = job.remaining();
            self.run(&mut *job, quota);
            self.apply(job);
        }
    }

    fn check_get(&self, key: R::Key) {
        match (self.tree.get(key).unwrap(), self.model.get(&key)) {
            (Some(record), Some(version)) => record.expect(key, *version),
            (None, None) => {}
            (found, expected) => panic!("{key:?}: {found:?}, expected version {expected:?}"),
        }
    }

    /// Scans a range, to its end or until so many records were given.
    fn check_scan(&self, min: R::Key, max: R::Key, direction: Direction, count: usize) {
        let mut scan = self.tree.scan(KeyRange::new(min, max).unwrap(), direction);
        let expected: Vec<_> = match direction {
            Direction::Ascending => self.model.range(min..=max).take(count).collect(),
            Direction::Descending => self.model.range(min..=max).rev().take(count).collect(),
        };
        let is_all = expected.len() < count;
        for (key, version) in expected {
            let found = scan.next().unwrap().unwrap_or_else(|| panic!("{key:?} is missing"));
            assert_eq!(found.key(), *key);
            found.expect(*key, *version);
        }
        if is_all {
            assert!(scan.next().unwrap().is_none(), "the scan ends with the range");
            assert!(scan.next().unwrap().is_none(), "and stays at its end");
        }
    }

    fn check_all(&self) {
        for direction in [Direction::Ascending, Direction::Descending] {
            self.check_scan(R::Key::MIN, R::Key::MAX, direction, usize::MAX);
        }
    }
}
