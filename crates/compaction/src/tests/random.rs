//! Random trees: every plan of every target gives what the model says, in whatever slices it is run.

use fastrand::Rng;
use understory_format::{BlockAddress, EditKind, Geometry, Key, KeyBytes, ManifestEdit, u64_of};
use understory_table::TableLayout;
use understory_testkit::{Item, KeyPool, KeyShape, Pair, Posting, TestRecord};

use super::tree::{Entries, Slices, TREE, TestTree, VISIBLE, any_quota, edits, inserted, level};
use super::{narrow, wide};
use crate::{Input, Outcome, Plan};

/// A tree with a few levels and a memtable, the same for the same seed, whatever the I/O does.
fn grown<R: TestRecord>(geometry: Geometry, seed: u64, io_seed: u64) -> TestTree<R> {
    let mut rng = Rng::with_seed(seed);
    let mut tree = TestTree::<R>::new(geometry, io_seed);
    let keys = KeyPool::<R::Key>::new(&mut rng, KeyShape::Mixed, 700);
    let runs = [1, 1, 1, if geometry.runs_max > 1 { rng.u8(1..=geometry.runs_max) } else { 1 }];
    for to in (0..4).rev().zip(runs).flat_map(|(to, runs)| (0..runs).map(move |_| to)) {
        let part = rng.u32(1..9);
        // Tombstones in every level, as if something deeper had been there or still was.
        let dead = [0, 2, 12][rng.usize(..3)];
        let picked = keys.keys().iter().filter(|_| rng.u32(..9) < part).copied().collect::<Vec<_>>();
        let entries: Entries<R> = picked
            .into_iter()
            .map(|key| match rng.u8(..16) < dead {
                true => (R::tombstone(key), true),
                false => (R::make(key, 10 + u64::from(to)), false),
            })
            .collect();
        let mut rest = entries.as_slice();
        // Tables of all sizes, some small enough to be joined, with gaps between them.
        while !rest.is_empty() {
            let (own, others) = rest.split_at(rng.usize(1..=rest.len().min(120)));
            tree.add(to, own);
            rest = others.get(rng.usize(..30)..).unwrap_or_default();
        }
        tree.written = tree.written.next();
    }
    let (first, count) = (rng.usize(..500), rng.usize(1..400));
    let entries: Entries<R> = (0..count)
        .map(|version| {
            let key = keys.keys()[first + rng.usize(..keys.keys().len() - first)];
            match rng.u8(..4) {
                0 => (R::tombstone(key), true),
                _ => (R::make(key, 100 + u64_of(version)), false),
            }
        })
        .collect();
    tree.seal(&entries, rng.usize(1..100));
    tree
}

/// Runs one plan and compares all there is to its outcome with the model.
fn check_plan<R: TestRecord>(tree: &TestTree<R>, plan: Plan<R>, quota: impl FnMut(u64) -> u64) -> Outcome {
    let (expected, keep) = tree.expected(&plan);
    assert_eq!(plan.keep_tombstones, keep, "tombstones stay exactly if something deeper may be hidden");
    let consumed = tree.consumed(&plan);
    assert_eq!(plan.input_value_count(), consumed);
    let is_flush = matches!(plan.input, Input::Memtable(_));
    let cuts = plan.cuts.clone();
    let (target, moves) = (plan.target, matches!(plan.input, Input::Move(_)));
    let before = tree.grid.space();
    let mut job = tree.job(plan);
    let edits_bound = job.edits_bound();
    assert_eq!((job.tree(), job.target(), job.remaining()), (TREE, target, consumed));
    assert_eq!(job.value_size(), u64_of(size_of::<R>()));
    let slices = tree.run(&mut *job, quota).unwrap();
    let outcome = job.finish().unwrap();
    let after = tree.grid.space();
    assert_eq!(after.released, before.released, "nothing is released before it is applied");
    assert_eq!(outcome.is_flush, is_flush);
    let edits = u64_of(outcome.edits.len());
    assert!(edits <= edits_bound, "{edits} edits of at most {edits_bound}");
    assert!(edits == edits_bound || outcome.produced < outcome.consumed, "{edits} of {edits_bound}");
    if moves {
        assert_eq!((outcome.consumed, outcome.produced, outcome.moved), (0, 0, u64_of(expected.len())));
        assert_eq!((outcome.edits.len(), outcome.released.len()), (1, 0));
        assert_eq!((outcome.edits[0].kind, outcome.edits[0].level), (EditKind::Update, target));
        return outcome;
    }
    assert_eq!((outcome.consumed, outcome.produced), (consumed, u64_of(expected.len())));
    check_tables(tree, &outcome, &expected, &cuts);
    check_released(tree, &outcome);
    let written: usize = inserted(&outcome).iter().map(|table| tree.blocks(table).len()).sum();
    assert_eq!(after.acquired - before.acquired, u64_of(written), "no block is lost");
    check_bounds(tree, &slices, &outcome, cuts.len());
    outcome
}

/// The outputs hold what is expected; none goes over a cut, and all but the last that do not end at one are full.
fn check_tables<R: TestRecord>(
    tree: &TestTree<R>,
    outcome: &Outcome,
    expected: &Entries<R>,
    cuts: &[R::Key],
) {
    let tables = inserted(outcome);
    let piece = |key: &KeyBytes| cuts.partition_point(|cut| *cut < R::Key::decode(&key.0));
    let mut found = Vec::new();
    for (index, table) in tables.iter().enumerate() {
        let is_last = index + 1 == tables.len();
        assert_eq!(piece(&table.key_min), piece(&table.key_max), "a table ends at a cut");
        let is_cut = tables.get(index + 1).is_some_and(|next| piece(&next.key_min) > piece(&table.key_max));
        let is_full = table.value_count == tree.layout.value_count_max;
        assert!(is_last || is_full || is_cut, "{index} of {}", tables.len());
        assert_eq!((table.beat_min, table.tree), (VISIBLE, TREE));
        found.extend(tree.read(table).unwrap());
    }
    assert_eq!(found.len(), expected.len());
    for ((record, tombstone), expected) in found.iter().zip(expected) {
        assert_eq!(*tombstone, expected.1);
        assert!(record.as_bytes() == expected.0.as_bytes(), "{record:?}, expected {expected:?}");
    }
    let removes = edits(outcome, EditKind::Remove).count();
    let kinds: Vec<_> = outcome.edits.iter().map(|edit| edit.kind == EditKind::Insert).collect();
    assert!(kinds.is_sorted() && removes + tables.len() == kinds.len(), "removes, then inserts");
}

/// Released are just the blocks of what is replaced.
fn check_released<R: TestRecord>(tree: &TestTree<R>, outcome: &Outcome) {
    let mut released = outcome.released.clone();
    released.sort_unstable();
    let removed = edits(outcome, EditKind::Remove).flat_map(|edit| tree.blocks(&edit.table));
    let mut expected: Vec<_> = removed.collect();
    expected.sort_unstable();
    assert_eq!(released, expected);
}

/// A slice reserves at most what ends a table, also at each cut, beyond what it draws, and what dropped values would
/// have taken.
fn check_bounds<R: TestRecord>(tree: &TestTree<R>, slices: &Slices, outcome: &Outcome, cut_count: usize) {
    let spare: u64 = slices.slices.iter().map(|(_, bound, drawn)| bound - drawn).sum();
    let dropped = outcome.consumed - outcome.produced;
    // A block, two copies of an index and a filter for the end of a table, and as much for a part of what is dropped.
    let table_end = 3 + u64::from(tree.layout.filter_blocks_max());
    let per_slice = table_end * (2 + u64_of(cut_count)) * u64_of(slices.slices.len());
    let for_dropped = table_end * dropped / u64::from(tree.layout.value.value_count_max);
    assert!(spare <= per_slice + for_dropped, "{spare} spare in {slices:?}, {dropped} dropped");
}

fn targets<R: TestRecord>(tree: &TestTree<R>, half: u8) -> Vec<u8> {
    tree.manifest.levels().map(|level| level.get()).filter(|level| level % 2 == half).take(3).collect()
}

/// All plans of a half-bar one after another, then all their outcomes: what readers see stays the same.
fn check<R: TestRecord + PartialEq>(geometry: Geometry, seed: u64) -> (usize, usize) {
    let mut rng = Rng::with_seed(seed);
    let mut tree = grown::<R>(geometry, seed, seed);
    let visible = tree.visible();
    let (mut plans, mut moves) = (0, 0);
    for bar in 0..3 {
        for half in [1, 0] {
            let settle = bar == 2;
            let mut outcomes = Vec::new();
            for target in targets(&tree, half) {
                for plan in tree.plans(target, settle) {
                    let block = u64::from(tree.layout.value.value_count_max);
                    let outcome = check_plan(&tree, plan, |left| any_quota(&mut rng, left, block));
                    plans += 1;
                    moves += usize::from(outcome.moved > 0);
                    outcomes.push(outcome);
                }
            }
            outcomes.iter().for_each(|outcome| tree.apply(outcome));
            assert!(tree.visible() == visible, "a compaction changes nothing that is seen");
        }
    }
    assert!(tree.sealed.is_none());
    let (limits, value_count) = (tree.limits(true), |of| tree.manifest.value_count(level(of)));
    assert_eq!(value_count(0), 0, "level 0 was to be emptied");
    assert!(value_count(2) <= limits.level_value_max(level(2)));
    (plans, moves)
}

/// Records are compared by their bytes.
#[test]
fn every_plan_does_what_it_says() {
    let (mut plans, mut moves) = (0, 0);
    let mut add = |(some, moved): (usize, usize)| {
        plans += some;
        moves += moved;
    };
    for seed in 0..24 {
        add(check::<Pair>(narrow(), seed));
        add(check::<Pair>(wide(), 100 + seed));
        add(check::<Item>(narrow(), 200 + seed));
        add(check::<Posting>(narrow(), 300 + seed));
        let runs_max = u8::try_from(2 + seed % 7).unwrap();
        add(check::<Pair>(narrow().with_runs(runs_max), 400 + seed));
        add(check::<Pair>(wide().with_runs(runs_max), 500 + seed));
        add(check::<Item>(narrow().with_runs(runs_max), 600 + seed));
        add(check::<Posting>(narrow().with_runs(runs_max), 700 + seed));
        let filters = narrow().with_runs(runs_max).with_filters(10);
        add(check::<Item>(filters, 800 + seed));
        add(check::<Pair>(several_filter_blocks(), 900 + seed));
    }
    assert!(plans > 1_000 && moves > 40, "{plans} plans, {moves} moves");
}

/// Where the filter of a full table of pairs takes three blocks.
fn several_filter_blocks() -> Geometry {
    Geometry { table_blocks: 6, ..narrow() }.with_filters(32)
}

#[test]
fn filters_of_one_block_and_of_several() {
    let layout = TableLayout::new::<Pair>(&several_filter_blocks()).unwrap();
    let blocks =
        [1, layout.value_count_max / 2, layout.value_count_max].map(|count| layout.filter_blocks(count));
    assert_eq!(blocks, [1, 2, 3]);
}

/// Edits, released blocks and counts.
type Said = (Vec<ManifestEdit>, Vec<BlockAddress>, [u64; 3]);

/// What the outcomes of all plans into a level say, run with the quotas that `quota` gives, and the file after that.
fn run_all<R: TestRecord>(
    geometry: Geometry,
    (seed, io_seed): (u64, u64),
    target: u8,
    mut quota: impl FnMut(u64) -> u64,
) -> (Vec<Said>, Vec<u8>) {
    let tree = grown::<R>(geometry, seed, io_seed);
    let run = |plan| {
        let mut job = tree.job(plan);
        tree.run(&mut *job, &mut quota).unwrap();
        let Outcome { edits, released, consumed, produced, moved, .. } = job.finish().unwrap();
        (edits, released, [consumed, produced, moved])
    };
    let outcomes = tree.plans(target, true).into_iter().map(run).collect();
    (outcomes, tree.image())
}

fn check_slices<R: TestRecord>(geometry: Geometry, seed: u64, target: u8) -> usize {
    let (outcomes, image) = run_all::<R>(geometry, (seed, 1), target, |remaining| remaining);
    let block = 50;
    let mut rng = Rng::with_seed(seed);
    let check = |name: &str, io_seed, quota: &mut dyn FnMut(u64) -> u64| {
        let (found, bytes) = run_all::<R>(geometry, (seed, io_seed), target, quota);
        assert_eq!(found, outcomes, "{name}: outcomes");
        assert!(bytes == image, "{name}: bytes");
    };
    check("one value at a time", 2, &mut |_| 1);
    check("two values at a time", 3, &mut |_| 2);
    check("about a block", 4, &mut |_| 203);
    check("all but one", 5, &mut |remaining| remaining - 1);
    for io_seed in 6..9 {
        check("any", io_seed, &mut |remaining| any_quota(&mut rng, remaining, block));
    }
    outcomes.len()
}

#[test]
fn slices_of_any_size_give_the_same_bytes() {
    let mut plans = 0;
    for seed in 0..3 {
        for target in 0..4 {
            plans += check_slices::<Pair>(narrow(), seed, target);
        }
        plans += check_slices::<Item>(narrow(), seed, 1);
        plans += check_slices::<Posting>(wide(), seed, 0);
        plans += check_slices::<Pair>(wide(), seed, 2);
        plans += check_slices::<Pair>(narrow().with_runs(2), seed, 0);
        plans += check_slices::<Item>(narrow().with_runs(4), seed, 0);
        plans += check_slices::<Pair>(narrow().with_runs(8), seed, 1);
        plans += check_slices::<Item>(narrow().with_runs(4).with_filters(10), seed, 0);
        plans += check_slices::<Pair>(several_filter_blocks(), seed, 1);
    }
    assert!(plans > 40, "{plans} plans");
}
