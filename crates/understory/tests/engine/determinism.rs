//! The same operations give equal files (architecture, "What determinism means"): equal checkpoint states and
//! equal blocks reachable from them, whatever the cache, the order of I/O, and the number of threads for it and for
//! compaction.
use std::path::Path;

use crate::common::{User, create_sim, in_runs, options, schema, without_journal};
use understory::{Batch, Database, Machine, Options};
use understory_forest::Forest;
use understory_format::{BlockKind, IndexView};

/// The checkpoint's id and a digest of every block reachable from it, at a few points of a workload.
type Trace = Vec<(u128, u128)>;

fn workload(database: &Database) -> Trace {
    let mut user = User::new(21, 3_000);
    let mut batch = Batch::new();
    let mut trace = Vec::new();
    for round in 0..600 {
        user.fill(&mut batch, 50);
        database.commit(&batch).unwrap();
        if round % 200 == 150 {
            database.checkpoint().unwrap();
            trace.push((database.checkpoint_id().get(), digest(database)));
        }
    }
    database.settle().unwrap();
    trace.push((database.checkpoint_id().get(), digest(database)));
    user.model.check(database).unwrap();
    trace
}

/// A hash over the bytes of all table blocks in (tree, level, key) order, and over the tables themselves.
fn digest(database: &Database) -> u128 {
    database.with_forest(digest_of)
}

fn digest_of(forest: &Forest) -> u128 {
    let grid = forest.grid();
    let mut hash = 0_u128;
    let mut take = |bytes: &[u8]| {
        let mut input = hash.to_le_bytes().to_vec();
        input.extend_from_slice(bytes);
        hash = understory_format::Checksum::of(&input).get();
    };
    for (level, table) in forest.tables() {
        let index = grid.read_twin(table.index, BlockKind::Index).unwrap();
        take(&[level.get()]);
        take(&index);
        let tree = grid.trees().iter().find(|tree| tree.id == table.tree).unwrap();
        let view = IndexView::new(&index, tree.key.key_size()).unwrap();
        for entry in view.entries() {
            take(&grid.read(entry.reference, BlockKind::Value).unwrap());
        }
    }
    hash
}

fn simulated(seed: u64, options: &Options) -> Trace {
    let (machine, _storage) = Machine::sim(seed);
    workload(&create_sim(&machine, options).unwrap())
}

fn on_a_file(options: Options, (io_threads, workers): (usize, usize), memory: u64) -> Trace {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("forest.understory");
    let options = options.memory(memory).io_threads(io_threads).workers(workers);
    let database = Database::create(Path::new(&path), &schema(), &options).unwrap();
    workload(&database)
}

#[test]
fn caches_orders_of_io_and_threads_do_not_show() {
    check(&options());
}

#[test]
fn nor_without_a_journal() {
    check(&without_journal());
}

#[test]
fn nor_with_level_0_in_runs() {
    check(&in_runs());
}

fn check(options: &Options) {
    let options = || options.clone();
    let expected = simulated(1, &options());
    assert_eq!(expected.len(), 4);
    for seed in 2..6 {
        assert_eq!(simulated(seed, &options()), expected, "I/O order {seed}");
    }
    for memory in [3 << 20, 64 << 20] {
        assert_eq!(simulated(1, &options().memory(memory)), expected, "memory {memory}");
    }
    for (threads, memory) in [((1, 1), 3 << 20), ((2, 0), 8 << 20), ((4, 2), 64 << 20), ((2, 4), 3 << 20)] {
        let trace = on_a_file(options(), threads, memory);
        assert_eq!(trace, expected, "threads for I/O and workers: {threads:?}, on a real file");
    }
}
