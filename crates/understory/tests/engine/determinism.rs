//! The same operations give equal files (architecture, "What determinism means"), whatever the cache, the order of I/O,
//! the number of threads for it and for compaction, and what a commit waits for. From a seed: `cargo xtask fuzz determinism`.
//!
//! Compared are: after each op the beat and the rolling hash over all that was compacted; at each checkpoint its id, and
//! with it catalogue, free set and log, whose checksums it holds, and the bytes and addresses of all tables; at the end
//! the tables as a file that is opened again has them, and what readers see.

use std::path::Path;

use crate::common::{User, create_sim, in_runs, open_sim, options, reboot, schema, without_journal};
use understory::{Batch, Checksum, Database, Durability, Machine, Options};
use understory_forest::Forest;
use understory_format::{BlockKind, BlockRef, IndexView, TwinRef};
use understory_testkit::{Coverage, Fuzzer};

/// A debug build does a small part of the work.
const IS_LARGE: bool = !cfg!(debug_assertions);

const FUZZER: Fuzzer = Fuzzer {
    target: "determinism",
    seeds: 3,
    seeds_optimised: 3,
    goals: &[
        ("checkpoints compared", 50),
        ("most jobs of a half-bar", if IS_LARGE { 3 } else { 2 }),
        ("most merges of a run", if IS_LARGE { 300 } else { 150 }),
        ("most moves of a run", if IS_LARGE { 8 } else { 4 }),
        ("most populated levels of a tree", 2),
        ("most tables", if IS_LARGE { 45 } else { 30 }),
        ("ops compared", 10_000),
        ("runs on a real file", 12),
        ("runs on a simulated one", 15),
    ],
};

/// Threads for I/O, workers, and bytes of memory: from the least to plenty.
const REAL: [(usize, usize, u64); 4] = [(1, 1, 3 << 20), (2, 0, 8 << 20), (4, 2, 64 << 20), (2, 4, 3 << 20)];

#[test]
fn files_are_equal() {
    FUZZER.run(check);
}

/// What is compared of one run.
#[derive(Debug, Default, PartialEq)]
struct Trace {
    /// After each op: beat and rolling hash.
    beats: Vec<(u64, Checksum)>,
    /// After each checkpoint: its id and a digest of all tables.
    checkpoints: Vec<(Checksum, u128)>,
    /// The digest after opening the file again.
    reopened: u128,
}

/// What is done, from a seed.
struct Work {
    seed: u64,
    ops: u64,
    /// Ids are below this.
    id_max: u64,
    /// Effects of a batch, at most.
    effects_max: u64,
}

impl Work {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (ops, id_max) = if IS_LARGE { (1_200..3_000, 5_000..40_000) } else { (600..700, 300..4_000) };
        Self { seed, ops: rng.u64(ops), id_max: rng.u64(id_max), effects_max: [50, 90][rng.usize(..2)] }
    }

    /// Every op is synced, or one of 16.
    fn run(&self, database: &Database, syncs_all: bool, coverage: &mut Coverage) -> Trace {
        let mut user = User::new(self.seed, self.id_max);
        let (mut batch, mut trace) = (Batch::new(), Trace::default());
        for op in 0..self.ops {
            let count = user.rng.u64(1..=self.effects_max);
            user.fill(&mut batch, count);
            let is_synced = syncs_all || op % 16 == 0;
            let durability = if is_synced { Durability::Synced } else { Durability::Buffered };
            database.commit_with(&batch, durability).unwrap();
            let is_last = op + 1 == self.ops;
            match user.rng.u32(0..400) {
                0 | 1 => database.checkpoint().unwrap(),
                2 => database.settle().unwrap(),
                _ if is_last => database.settle().unwrap(),
                _ => {
                    trace
                        .beats
                        .push(database.with_forest(|forest| (forest.beat().get(), forest.rolling_hash())));
                    continue;
                }
            }
            trace.checkpoints.push((database.checkpoint_id(), digest(database)));
            note(database, coverage);
        }
        user.model.check(database).unwrap();
        coverage.count("ops compared", self.ops);
        coverage.count("checkpoints compared", u64::try_from(trace.checkpoints.len()).unwrap());
        trace
    }

    fn on_simulated_storage(&self, io_seed: u64, options: &Options, coverage: &mut Coverage) -> Trace {
        let (machine, storage) = Machine::sim(io_seed);
        let database = create_sim(&machine, options).unwrap();
        let trace = self.run(&database, true, coverage);
        database.close().unwrap();
        coverage.count("runs on a simulated one", 1);
        let (machine, _storage) = reboot(&storage, io_seed);
        Trace { reopened: digest(&open_sim(&machine, options).unwrap()), ..trace }
    }

    fn on_a_file(&self, options: &Options, coverage: &mut Coverage) -> Trace {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("forest.understory");
        let database = Database::create(Path::new(&path), &schema(), options).unwrap();
        let trace = self.run(&database, false, coverage);
        database.close().unwrap();
        coverage.count("runs on a real file", 1);
        let database = Database::open(Path::new(&path), &schema(), options).unwrap();
        Trace { reopened: digest(&database), ..trace }
    }
}

fn check(seed: u64, coverage: &mut Coverage) {
    let work = Work::new(seed);
    let options = [options(), without_journal(), in_runs()][usize::try_from(seed % 3).unwrap()].clone();
    let expected = work.on_simulated_storage(seed, &options, coverage);
    let same = |found: &Trace, what: &str| {
        let at = found.beats.iter().zip(&expected.beats).position(|(one, other)| one != other);
        assert_eq!(at, None, "{what}: the first op after which beat or rolling hash differ");
        assert!(found.checkpoints == expected.checkpoints, "{what}: checkpoints differ, beats do not");
        assert_eq!(found.reopened, expected.reopened, "{what}: the file opened again");
    };
    for io_seed in 1..3 {
        let found = work.on_simulated_storage(seed + io_seed, &options, coverage);
        same(&found, "another order of I/O");
    }
    for memory in [3 << 20, 64 << 20] {
        let found = work.on_simulated_storage(seed, &options.clone().memory(memory), coverage);
        same(&found, &format!("{memory} bytes of memory"));
    }
    for (io_threads, workers, memory) in REAL {
        let options = options.clone().memory(memory).io_threads(io_threads).workers(workers);
        let found = work.on_a_file(&options, coverage);
        same(&found, &format!("{io_threads} threads for I/O, {workers} workers, {memory} bytes"));
    }
}

/// How full it is, and what was compacted.
fn note(database: &Database, coverage: &mut Coverage) {
    let stats = database.stats();
    coverage.most("most merges of a run", stats.compaction.merge_count);
    coverage.most("most moves of a run", stats.compaction.move_count);
    coverage.most("most jobs of a half-bar", stats.pace.job_count);
    let tables = stats.trees.iter().map(|tree| tree.levels.iter().map(|level| level.table_count));
    coverage.most("most tables", tables.clone().flatten().sum());
    for counts in tables {
        let populated = counts.filter(|count| *count > 0).count();
        coverage.most("most populated levels of a tree", u64::try_from(populated).unwrap());
    }
}

/// A hash over the addresses and bytes of all table blocks in (tree, level, key) order, both copies of each index.
fn digest(database: &Database) -> u128 {
    database.with_forest(digest_of)
}

fn digest_of(forest: &Forest) -> u128 {
    let grid = forest.grid();
    let mut hash = 0_u128;
    let mut take = |bytes: &[u8]| {
        let mut input = hash.to_le_bytes().to_vec();
        input.extend_from_slice(bytes);
        hash = Checksum::of(&input).get();
    };
    for (level, table) in forest.tables() {
        let TwinRef { address, twin, checksum } = table.index;
        let [index, copy] = [address, twin]
            .map(|address| grid.read(BlockRef { address, checksum }, BlockKind::Index).unwrap());
        assert!(*index == *copy, "both copies are equal");
        take(&[level.get()]);
        take(&address.get().to_le_bytes());
        take(&index);
        let tree = grid.trees().iter().find(|tree| tree.id == table.tree).unwrap();
        let view = IndexView::new(&index, tree.key.key_size()).unwrap();
        for entry in view.entries() {
            take(&grid.read(entry.reference, BlockKind::Value).unwrap());
        }
        for block in view.filter_blocks() {
            take(&grid.read(block.unwrap(), BlockKind::Filter).unwrap());
        }
    }
    hash
}
