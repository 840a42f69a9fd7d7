//! Random puts, removes, reads, closes, swaps and compactions against the map.

use fastrand::Rng;
use understory_compaction::Job;
use understory_format::{Direction, Geometry, Key};
use understory_testkit::{Item, KeyPool, KeyShape, Pair, Posting, Quad, TestRecord, key_range};

use super::Rig;

/// A bar in the life of a tree. Compactions run in pieces between reads and writes, and are applied at its
/// half and its end, as the forest does.
fn bar<R: TestRecord>(rig: &mut Rig<R>, rng: &mut Rng, keys: &KeyPool<R::Key>, puts: u32) {
    for half in [1, 0] {
        let growth = if rng.u8(..8) == 0 { 0 } else { 4 };
        let mut jobs: Vec<Box<dyn Job>> = Vec::new();
        for target in rig.tree.manifest().levels().map(|level| level.get()) {
            if target % 2 == half && (growth > 0 || target < 4) {
                jobs.extend(rig.jobs(target, growth));
            }
        }
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
            rig.apply(job);
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

fn check<R: TestRecord>(geometry: Geometry, seed: u64, bars: u32, puts: u32) {
    check_keys::<R>(geometry, seed, 900, bars, puts);
}

fn check_keys<R: TestRecord>(geometry: Geometry, seed: u64, key_count: usize, bars: u32, puts: u32) {
    let mut rng = Rng::with_seed(seed);
    let shapes = [KeyShape::Mixed, KeyShape::Adjacent, KeyShape::EqualEnds, KeyShape::Spread];
    let keys = KeyPool::new(&mut rng, shapes[usize::try_from(seed % 4).unwrap()], key_count);
    let mut rig = Rig::<R>::new(geometry);
    for _ in 0..bars {
        bar(&mut rig, &mut rng, &keys, puts);
    }
    let stats: Vec<_> = rig.tree.manifest().levels().map(|level| rig.tree.level_stats(level)).collect();
    let populated = stats.iter().filter(|level| level.table_count > 0).count();
    assert!(populated >= 2, "{stats:?}");
}

fn several_pages() -> Geometry {
    Geometry { block_size: 16384, page_size: 4096, table_blocks: 2, share_size: 65536, ..Geometry::small() }
}

fn one_block() -> Geometry {
    Geometry { table_blocks: 1, ..Geometry::small() }
}

#[test]
fn level_0_in_runs() {
    (30..33).for_each(|seed| check::<Item>(one_block().with_runs(4), seed, 25, 90));
    (33..36).for_each(|seed| check::<Pair>(one_block().with_runs(8), seed, 20, 400));
    (36..38).for_each(|seed| check::<Posting>(one_block().with_runs(2), seed, 20, 400));
    (38..40).for_each(|seed| check::<Quad>(one_block().with_runs(3), seed, 20, 250));
    check_keys::<Pair>(several_pages().with_runs(5), 40, 12_000, 12, 2_000);
}

#[test]
fn wide_values() {
    (0..4).for_each(|seed| check::<Item>(one_block(), seed, 25, 90));
}

#[test]
fn narrow_values() {
    (4..8).for_each(|seed| check::<Pair>(one_block(), seed, 20, 400));
}

#[test]
fn values_that_are_all_key() {
    (8..10).for_each(|seed| check::<Posting>(one_block(), seed, 20, 400));
}

#[test]
fn keys_of_four_fields() {
    (12..14).for_each(|seed| check::<Quad>(one_block(), seed, 20, 250));
}

#[test]
fn several_pages_and_blocks() {
    check_keys::<Pair>(several_pages(), 20, 12_000, 12, 2_000);
    check::<Item>(several_pages(), 21, 12, 250);
}
