//! The memtable against a map, from a seed: `cargo xtask fuzz memtable`.

use fastrand::Rng;
use understory_format::u64_of;
use understory_testkit::{Coverage, Fuzzer};

use super::*;

const FUZZER: Fuzzer = Fuzzer {
    target: "memtable",
    seeds: 24,
    seeds_optimised: 120,
    goals: &[
        ("beats closed", 500),
        ("most runs", 5),
        ("most values", 6_000),
        ("most versions of a key", 60),
        ("older versions dropped", 5_000),
        ("tombstones", 5_000),
    ],
};

#[test]
fn agrees_with_the_map() {
    FUZZER.run(run);
}

/// How many keys there are, and how they come.
#[derive(Clone, Copy)]
struct Shape {
    /// Keys are those of the numbers below this.
    span: u64,
    beats: u32,
    /// Puts and removes of a beat, at most.
    beat_max: u32,
}

const fn shape(span: u64, beats: u32, beat_max: u32) -> Shape {
    Shape { span, beats, beat_max }
}

/// Few keys with many versions, many with few, beats of one put and of thousands.
const SHAPES: [Shape; 6] = [
    shape(1, 7, 20),
    shape(3, 32, 8),
    shape(300, 32, 60),
    shape(400, 18, 60),
    shape(1 << 19, 9, 60),
    shape(10_000, 2, 6_000),
];

fn run(seed: u64, coverage: &mut Coverage) {
    let mut random = Rng::with_seed(seed);
    let shape = SHAPES[usize::try_from(seed % 6).unwrap()];
    match seed / 6 % 3 {
        0 => check::<Short>(&mut random, shape, coverage),
        1 => check::<Tied>(&mut random, shape, coverage),
        _ => check::<Named>(&mut random, shape, coverage),
    }
}

/// A number below `span`: any, or the one before or after the last.
fn near(random: &mut Rng, span: u64, last: u64) -> u64 {
    match random.u8(..8) {
        0 => last.saturating_sub(1),
        1 => (last + 1).min(span - 1),
        2 => last,
        _ => random.u64(..span),
    }
}

/// Random puts and removes in beats, with everything compared in the
/// middle and at the end of each beat; then sealed, recycled and used again.
fn check<R: Row>(random: &mut Rng, shape: Shape, coverage: &mut Coverage) {
    let Shape { span, beats, beat_max } = shape;
    let pool = pool(4096, 512);
    let mut scratch = Scratch::default();
    let mut memtable = Open::<R>::new(pool.clone(), 40_000);
    for _ in 0..2 {
        let mut model = Model::new();
        let (mut tag, mut last) = (0, 0);
        for beat in 0..beats {
            for half in 0..2 {
                for _ in 0..random.u32(0..=beat_max / 2) {
                    tag += 1;
                    let number = near(random, span, last);
                    last = number;
                    let tombstone = random.u8(..4) == 0;
                    memtable.put(&R::row(number, tag), tombstone).unwrap();
                    let version = (if tombstone { 0 } else { tag }, tombstone);
                    let versions = model.entry(number).or_default();
                    versions.insert(0, version);
                    coverage.count("tombstones", u64::from(tombstone));
                    coverage.most("most versions of a key", u64_of(versions.len()));
                }
                if half == 0 || beat % 5 == 0 {
                    check_all(&memtable, &model, span, random);
                }
            }
            memtable.close_beat(&mut scratch);
            assert!(memtable.run_count() <= 9, "{} runs", memtable.run_count());
            coverage.most("most runs", u64_of(memtable.run_count()));
            coverage.most("most values", memtable.len());
            coverage.count("beats closed", 1);
            check_all(&memtable, &model, span, random);
        }
        let sealed = memtable.seal();
        sealed.verify();
        for direction in [Direction::Ascending, Direction::Descending] {
            assert_eq!(drain(sealed.cursor(whole(), direction)), expected(&model, None, direction));
        }
        let mut merge = Merge::new(
            vec![sealed.cursor(whole(), Direction::Ascending)],
            Direction::Ascending,
            Tombstones::Keep,
        );
        while merge.next().unwrap().is_some() {}
        assert_eq!(merge.counts().consumed, sealed.len());
        assert_eq!(merge.counts().emitted, sealed.distinct());
        coverage.count("older versions dropped", merge.counts().dropped);
        drop(merge);
        memtable = Open::of(sealed.recycle().expect("no cursor is left"));
        assert_eq!(pool.available(), pool.count());
        check_all(&memtable, &Model::new(), span, random);
    }
}
