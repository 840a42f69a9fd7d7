//! Random beats against the model, with checkpoints at bar ends and reopens at any time.

use fastrand::Rng;
use understory_format::Geometry;

use super::{Keys, Rig, geometry};

struct Run {
    geometry: Geometry,
    bars: u64,
    keys: usize,
    /// One in so many bar ends is a checkpoint.
    checkpoints: u8,
    /// One in so many beats ends with a reopen.
    reopens: u8,
}

fn check(seed: u64, run: &Run) -> Rig {
    let mut rng = Rng::with_seed(seed);
    let keys = Keys::new(&mut rng, run.keys);
    let mut rig = Rig::new(run.geometry, seed);
    let mut removes = 2;
    for bar in 0..run.bars {
        if bar % 8 == 0 {
            removes = [0, 1, 2, 5, 14][rng.usize(..5)];
        }
        let checkpoint = rng.u8(..run.checkpoints) == 0;
        loop {
            let count = [0, 20, 200, 600][rng.usize(..4)];
            rig.put_some(&mut rng, &keys, count, removes);
            (0..20).for_each(|_| rig.get_some(&mut rng, &keys));
            rig.close(checkpoint).unwrap();
            if rng.u8(..run.reopens) == 0 {
                rig.reopen(rng.u64(..));
                rig.model.check(&rig.forest).unwrap();
            }
            if rig.forest.begins_bar() {
                break;
            }
        }
        rig.model.check(&rig.forest).unwrap();
    }
    rig
}

fn populated(rig: &Rig) -> usize {
    let counts =
        |level: usize| rig.forest.stats().trees.iter().any(|tree| tree.levels[level].table_count > 0);
    (0..7).filter(|level| counts(*level)).count()
}

#[test]
fn tables_of_one_block() {
    let run = Run { geometry: geometry(), bars: 160, keys: 4_000, checkpoints: 3, reopens: 60 };
    let rig = check(1, &run);
    assert!(populated(&rig) >= 4, "{:?}", rig.forest.stats());
}

#[test]
fn tables_of_four_blocks_and_few_checkpoints() {
    let run = Run { geometry: Geometry::small(), bars: 100, keys: 3_000, checkpoints: 9, reopens: 100 };
    check(2, &run);
}

#[test]
fn the_shortest_bars_and_the_fewest_levels() {
    let geometry = Geometry { beats_per_bar: 2, levels: 2, ..geometry() };
    check(3, &Run { geometry, bars: 120, keys: 400, checkpoints: 2, reopens: 40 });
    let geometry = Geometry { beats_per_bar: 2, levels: 1, ..geometry };
    check(4, &Run { geometry, bars: 60, keys: 200, checkpoints: 2, reopens: 40 });
}

#[test]
fn level_0_in_runs() {
    let run = |geometry: Geometry| Run { geometry, bars: 120, keys: 4_000, checkpoints: 3, reopens: 60 };
    let rig = check(11, &run(geometry().with_runs(4)));
    assert!(populated(&rig) >= 3, "{:?}", rig.forest.stats().trees);
    check(12, &run(geometry().with_runs(2)));
    check(13, &run(Geometry::small().with_runs(8)));
    for (seed, levels) in [(14, 1), (15, 2)] {
        let geometry = Geometry { beats_per_bar: 2, levels, ..geometry().with_runs(3) };
        check(seed, &Run { geometry, bars: 80, keys: 300, checkpoints: 2, reopens: 40 });
    }
}

#[test]
fn long_bars() {
    let geometry = Geometry { beats_per_bar: 14, share_size: 4096, batch_size_max: 4096, ..geometry() };
    check(5, &Run { geometry, bars: 30, keys: 1_000, checkpoints: 2, reopens: 60 });
}
