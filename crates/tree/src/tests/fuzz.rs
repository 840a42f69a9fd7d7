//! Random puts, removes, reads, closes, swaps and compactions against the map, from a seed: `cargo xtask fuzz tree`.

use fastrand::Rng;
use understory_compaction::Job;
use understory_format::{Direction, Geometry, Key, Level, u64_of};
use understory_testkit::{
    Coverage, Fuzzer, Item, KeyPool, KeyShape, Pair, Posting, Quad, TestRecord, key_range,
};

use super::Rig;

const FUZZER: Fuzzer = Fuzzer {
    target: "tree",
    seeds: 24,
    seeds_optimised: 44,
    goals: &[
        ("flushes", 200),
        ("merges", 500),
        ("moves", 20),
        ("most blocks of filters in memory", 24),
        ("most jobs of a half-bar", 4),
        ("most populated levels", 4),
        ("most runs", 5),
        ("most tables", 60),
        ("most tombstones in tables", 100),
        ("values dropped", 10_000),
    ],
};

#[test]
fn agrees_with_the_map() {
    FUZZER.run(run);
}

/// A life of some bars: of which record, geometry and keys, the seed says. Filters come into memory when their table is
/// written or later, or find no room.
fn run(seed: u64, coverage: &mut Coverage) {
    let runs = [1, 4, 1, 2, 8, 3][usize::try_from(seed % 6).unwrap()];
    let with_runs = |geometry: Geometry| if runs == 1 { geometry } else { geometry.with_runs(runs) };
    let filter_bits = [10, 0, 2, 10, 32][usize::try_from(seed % 5).unwrap()];
    let shaped = |geometry| with_runs(geometry).with_filters(filter_bits);
    let (one_block, several_pages) = (shaped(one_block()), shaped(several_pages()));
    let life = |geometry, keys, bars, puts| Life { seed, geometry, keys, bars, puts };
    match seed % 11 {
        0 | 5 => check::<Item>(life(one_block, 900, 25, 90), coverage),
        1 | 6 => check::<Pair>(life(one_block, 900, 20, 400), coverage),
        2 | 7 => check::<Posting>(life(one_block, 900, 20, 400), coverage),
        3 | 8 => check::<Quad>(life(one_block, 900, 20, 250), coverage),
        4 => check::<Item>(life(one_block, 3_000, 60, 90), coverage),
        9 => check::<Pair>(life(several_pages, 12_000, 12, 2_000), coverage),
        _ => check::<Item>(life(several_pages, 900, 12, 250), coverage),
    }
}

/// A bar in the life of a tree. Compactions run in pieces between reads and writes, and are applied at its
/// half and its end, as the forest does.
fn bar<R: TestRecord>(
    rig: &mut Rig<R>,
    rng: &mut Rng,
    keys: &KeyPool<R::Key>,
    puts: u32,
    coverage: &mut Coverage,
) {
    for half in [1, 0] {
        let growth = if rng.u8(..8) == 0 { 0 } else { 4 };
        let mut jobs: Vec<Box<dyn Job>> = Vec::new();
        for target in rig.tree.manifest().levels().map(|level| level.get()) {
            if target % 2 == half && (growth > 0 || target < 4) {
                jobs.extend(rig.jobs(target, growth));
            }
        }
        coverage.most("most jobs of a half-bar", u64_of(jobs.len()));
        for _ in 0..2 {
            for job in &mut jobs {
                let quota = rng.u64(0..=job.remaining());
                rig.run(&mut **job, quota);
            }
            write_some(rig, rng, keys, puts);
            read_some(rig, rng, keys);
            rig.close_beat();
        }
        for mut job in jobs {
            let quota = job.remaining();
            rig.run(&mut *job, quota);
            let outcome = rig.apply(job);
            let what = match (outcome.is_flush, outcome.moved) {
                (true, _) => "flushes",
                (false, 0) => "merges",
                (false, _) => "moves",
            };
            coverage.count(what, 1);
            coverage.count("values dropped", outcome.consumed - outcome.produced);
        }
        rig.tree.manifest().verify().unwrap();
        rig.check_all();
    }
    rig.end_bar();
    rig.check_all();
}

fn write_some<R: TestRecord>(rig: &mut Rig<R>, rng: &mut Rng, keys: &KeyPool<R::Key>, puts: u32) {
    for _ in 0..rng.u32(..=puts) {
        let key = if rng.bool() { keys.pick_hot(rng) } else { keys.pick_near(rng) };
        match rng.u8(..16) {
            0..=3 => rig.remove(key),
            // Several versions in one beat, tombstones between them.
            4 => {
                rig.put(key);
                rig.remove(key);
                rig.put(key);
            }
            5 => {
                rig.put(key);
                rig.remove(key);
            }
            _ => rig.put(key),
        }
        if rng.u8(..8) == 0 {
            rig.check_get(key);
        }
    }
}

fn read_some<R: TestRecord>(rig: &Rig<R>, rng: &mut Rng, keys: &KeyPool<R::Key>) {
    for _ in 0..20 {
        rig.check_get(keys.pick_near(rng));
    }
    for key in [R::Key::MIN, R::Key::MAX] {
        rig.check_get(key);
    }
    for _ in 0..6 {
        let (min, max) = key_range(rng, keys);
        let count = if rng.bool() { usize::MAX } else { rng.usize(..30) };
        for direction in [Direction::Ascending, Direction::Descending] {
            rig.check_scan(min, max, direction, count);
        }
    }
}

/// How long it lasts, and with what.
struct Life {
    seed: u64,
    geometry: Geometry,
    keys: usize,
    bars: u32,
    /// Four times in a bar, so many at most.
    puts: u32,
}

fn check<R: TestRecord>(life: Life, coverage: &mut Coverage) {
    let mut rng = Rng::with_seed(life.seed);
    let shapes = [KeyShape::Mixed, KeyShape::Adjacent, KeyShape::EqualEnds, KeyShape::Spread];
    let shape = shapes[usize::try_from(life.seed % 4).unwrap()];
    let keys = KeyPool::new(&mut rng, shape, life.keys);
    let mut rig = Rig::<R>::new(life.geometry);
    for _ in 0..life.bars {
        bar(&mut rig, &mut rng, &keys, life.puts, coverage);
        note(&rig, coverage);
    }
}

/// How full it is.
fn note<R: TestRecord>(rig: &Rig<R>, coverage: &mut Coverage) {
    let manifest = rig.tree.manifest();
    let stats: Vec<_> = manifest.levels().map(|level| rig.tree.level_stats(level)).collect();
    let populated = stats.iter().filter(|level| level.table_count > 0).count();
    coverage.most("most populated levels", u64_of(populated));
    coverage.most("most runs", u64_of(manifest.runs(Level::new(0).unwrap()).len()));
    coverage.most("most tables", stats.iter().map(|level| level.table_count).sum());
    let filters = rig.tree.filter_budget().unwrap();
    assert!(filters.held() <= filters.limit());
    coverage.most("most blocks of filters in memory", filters.held());
    coverage.most("most tombstones in tables", stats.iter().map(|level| level.tombstone_count).sum());
}

fn several_pages() -> Geometry {
    Geometry { block_size: 16384, page_size: 4096, table_blocks: 2, share_size: 65536, ..Geometry::small() }
}

fn one_block() -> Geometry {
    Geometry { table_blocks: 1, ..Geometry::small() }
}
