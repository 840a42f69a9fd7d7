//! Random beats against the model, with checkpoints at bar ends and reopens at any time, from a seed:
//! `cargo xtask fuzz forest`.

use fastrand::Rng;
use understory_format::{Geometry, Level, u64_of};
use understory_testkit::{Coverage, Fuzzer, Item, Pair, Posting};

use super::{Keys, Rig, geometry};

const FUZZER: Fuzzer = Fuzzer {
    target: "forest",
    seeds: 8,
    seeds_optimised: 8,
    goals: &[
        ("bars", 600),
        ("checkpoints", 100),
        ("merges", 2_000),
        ("moves", 50),
        ("most blocks of the log, in per cent of 20 or more", 40),
        ("most jobs of a half-bar", 6),
        ("most populated levels of a tree", 4),
        ("most runs", 4),
        ("most tables", 150),
        ("reopens", 20),
        ("settled bars", 5),
        ("values dropped", 30_000),
    ],
};

#[test]
fn agrees_with_its_maps() {
    FUZZER.run(|seed, coverage| check(seed, &SHAPES[usize::try_from(seed % 8).unwrap()](), coverage));
}

struct Run {
    geometry: Geometry,
    bars: u64,
    keys: usize,
    /// One in so many bar ends is a checkpoint.
    checkpoints: u8,
    /// One in so many beats ends with a reopen.
    reopens: u8,
}

/// Tables of one block and of four, few levels, the shortest bars and long ones, level 0 merged and in runs, with
/// filters and without.
const SHAPES: [fn() -> Run; 8] = [
    || Run { geometry: geometry(), bars: 160, keys: 4_000, checkpoints: 3, reopens: 60 },
    || Run { geometry: Geometry::small(), bars: 100, keys: 3_000, checkpoints: 9, reopens: 100 },
    || Run { geometry: short_bars(2).with_filters(10), bars: 120, keys: 400, checkpoints: 2, reopens: 40 },
    || Run { geometry: short_bars(1), bars: 60, keys: 200, checkpoints: 2, reopens: 40 },
    || Run {
        geometry: geometry().with_runs(4).with_filters(10),
        bars: 120,
        keys: 4_000,
        checkpoints: 3,
        reopens: 60,
    },
    || Run { geometry: small_runs(), bars: 120, keys: 4_000, checkpoints: 3, reopens: 60 },
    || Run { geometry: short_bars(2).with_runs(3), bars: 80, keys: 300, checkpoints: 2, reopens: 40 },
    || Run { geometry: long_bars(), bars: 30, keys: 1_000, checkpoints: 2, reopens: 60 },
];

fn small_runs() -> Geometry {
    Geometry::small().with_runs(8).with_filters(32)
}

fn short_bars(levels: u8) -> Geometry {
    Geometry { beats_per_bar: 2, levels, ..geometry() }
}

fn long_bars() -> Geometry {
    Geometry { beats_per_bar: 14, share_size: 4096, batch_size_max: 4096, ..geometry() }
}

fn check(seed: u64, run: &Run, coverage: &mut Coverage) {
    let mut rng = Rng::with_seed(seed);
    let keys = Keys::new(&mut rng, run.keys);
    let mut rig = Rig::new(run.geometry, seed);
    let mut removes = 2;
    for bar in 0..run.bars {
        if bar % 8 == 0 {
            removes = [0, 1, 2, 5, 14][rng.usize(..5)];
        }
        let checkpoint = rng.u8(..run.checkpoints) == 0;
        coverage.count("checkpoints", u64::from(checkpoint));
        let settles = rng.u8(..40) == 0;
        rig.forest.set_settle(settles);
        coverage.count("settled bars", u64::from(settles));
        loop {
            let count = [0, 20, 200, 600][rng.usize(..4)];
            rig.put_some(&mut rng, &keys, count, removes);
            (0..20).for_each(|_| rig.get_some(&mut rng, &keys));
            rig.close(checkpoint).unwrap();
            note(&rig, coverage);
            if rng.u8(..run.reopens) == 0 {
                note_compactions(&rig, coverage);
                rig.reopen(rng.u64(..));
                coverage.count("reopens", 1);
                rig.model.check(&rig.forest).unwrap();
            }
            if rig.forest.begins_bar() {
                break;
            }
        }
        rig.model.check(&rig.forest).unwrap();
        coverage.count("bars", 1);
    }
    note_compactions(&rig, coverage);
}

/// How full it is, and what its log has.
fn note(rig: &Rig, coverage: &mut Coverage) {
    let (forest, stats) = (&rig.forest, rig.forest.stats());
    coverage.most("most jobs of a half-bar", stats.pace.job_count);
    let tables = stats.trees.iter().map(|tree| tree.levels.iter().map(|level| level.table_count));
    coverage.most("most tables", tables.clone().flatten().sum());
    for counts in tables {
        coverage.most("most populated levels of a tree", u64_of(counts.filter(|count| *count > 0).count()));
    }
    let level = Level::new(0).unwrap();
    let runs = [
        forest.tree::<Item>().unwrap().manifest().runs(level).len(),
        forest.tree::<Pair>().unwrap().manifest().runs(level).len(),
        forest.tree::<Posting>().unwrap().manifest().runs(level).len(),
    ];
    runs.into_iter().for_each(|count| coverage.most("most runs", u64_of(count)));
    let (log, log_max) = (forest.log.block_count(), forest.log.blocks_max());
    if log_max >= 20 {
        coverage.most("most blocks of the log, in per cent of 20 or more", 100 * log / log_max);
    }
}

/// What was compacted since the forest was opened.
fn note_compactions(rig: &Rig, coverage: &mut Coverage) {
    let done = rig.forest.stats().compaction;
    coverage.count("merges", done.merge_count);
    coverage.count("moves", done.move_count);
    coverage.count("values dropped", done.dropped);
}
