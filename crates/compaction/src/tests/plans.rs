//! Which plans a tree has, and the limits that they keep to.

use understory_format::{Beat, BlockAddress, Checksum, Geometry, Key, Level, TableInfo, TreeId, TwinRef};
use understory_manifest::{Manifest, Table};
use understory_testkit::Pair;

use super::narrow;
use super::tree::{TestTree, level, tombstones, values};
use crate::{Input, Limits};

#[test]
fn limits_grow_by_level() {
    let limits = |growth, settle| {
        let geometry = Geometry { growth, ..narrow() };
        Limits::new(&geometry, 100, 1_000, settle)
    };
    let check = |growth, settle, of: u8, expected| {
        let found = limits(growth, settle).level_value_max(level(of));
        assert_eq!(found, expected, "growth {growth}, {of}");
    };
    check(4, false, 0, 400);
    check(4, false, 1, 1_600);
    check(4, false, 6, 1_638_400);
    check(16, false, 2, 409_600);
    check(4, true, 0, 0);
    check(4, true, 1, 1_600);
    let deepest = Level::new(63).unwrap();
    assert_eq!(limits(4, false).level_value_max(deepest), u64::MAX);
}

/// A table of so many values, whose index block is at this address.
fn table(address: u64, value_count: u64) -> Table<u64> {
    let [address, twin] = [address, address + 1].map(|address| BlockAddress::new(address).unwrap());
    let info = TableInfo {
        tree: TreeId::new(1).unwrap(),
        index: TwinRef { address, twin, checksum: Checksum::ZERO },
        key_min: 0_u64.encode(),
        key_max: u64::MAX.encode(),
        value_count,
        tombstone_count: 0,
        value_block_count: 1,
        beat_min: Beat::new(1),
        beat_max: Beat::MAX,
        age: Beat::new(1),
    };
    Table::new(info).unwrap()
}

/// What a level is drained to depends on what is below it, but only to bring the tree to rest.
#[test]
fn limits_of_a_tree_at_rest() {
    let check = |settle, values: [u64; 3], of: u8, expected| {
        let mut manifest = Manifest::<u64>::new(3, 1);
        for (number, value_count) in (0..).zip(values).filter(|(_, count)| *count > 0) {
            manifest.insert(level(number), table(1 + 2 * u64::from(number), value_count));
        }
        let geometry = Geometry { growth: 4, ..narrow() };
        let limits = Limits::new(&geometry, 100, 1_000, settle);
        assert_eq!(limits.drained_to(&manifest, level(of)), expected, "{values:?}, {of}");
    };
    check(false, [400, 1_600, 4_000], 0, 400);
    check(false, [400, 1_600, 4_000], 1, 1_600);
    check(true, [400, 1_600, 4_000], 0, 0);
    check(true, [400, 1_600, 4_000], 1, 1_000);
    check(true, [0, 10, 6_403], 1, 1_600);
    check(true, [0, 10, 6_399], 1, 1_599);
    check(true, [0, 10, 3], 1, 0);
    // With nothing below there is nothing to meet.
    check(true, [400, 1_600, 0], 1, 1_600);
}

/// Level 0 in runs has room for what bars bring, but not less than a merged one; other levels are the same.
#[test]
fn limits_of_runs() {
    let check = |runs_max, bar_value_max, settle, expected| {
        let limits = Limits::new(&narrow().with_runs(runs_max), 100, bar_value_max, settle);
        let found = [0, 1].map(|of| limits.level_value_max(level(of)));
        assert_eq!(found, expected, "{runs_max} runs, {bar_value_max} a bar");
    };
    check(2, 100, false, [400, 1_600]);
    check(8, 100, false, [400, 1_600]);
    check(8, 114, false, [400, 1_600]);
    check(8, 115, false, [402, 1_600]);
    check(3, 1_000, false, [1_000, 1_600]);
    check(8, 1_000, false, [3_500, 1_600]);
    check(8, 1_000, true, [0, 1_600]);
}

/// What each plan is, as a word: flush, move, merge or join.
fn words(tree: &TestTree<Pair>, target: u8, settle: bool) -> Vec<(&'static str, u64)> {
    let word = |plan: crate::Plan<Pair>| {
        let word = match &plan.input {
            Input::Memtable(_) => "flush",
            Input::Move(_) => "move",
            Input::Tables(sources) if sources.is_empty() => "join",
            Input::Tables(_) => "merge",
        };
        assert_eq!(plan.target, level(target));
        (word, plan.input_value_count())
    };
    tree.plans(target, settle).into_iter().map(word).collect()
}

/// Level 0 takes 4 tables of 408 values.
#[test]
fn a_level_is_drained_to_its_limit_and_no_further() {
    let check = |tables: u64, rest: u64, settle: bool, expected: usize| {
        let mut tree = TestTree::<Pair>::new(narrow(), 1);
        tree.add(0, &values((0..408 * tables + rest).map(|key| 10 * key)));
        let plans = words(&tree, 1, settle);
        assert_eq!(plans.len(), expected, "{tables} tables and {rest} values, settle: {settle}");
        assert!(plans.iter().all(|(word, _)| *word == "move"));
        for plan in tree.plans(1, settle) {
            let outcome = tree.outcome(plan);
            tree.apply(&outcome);
        }
        let limit = tree.limits(settle).level_value_max(level(0));
        assert!(tree.manifest.value_count(level(0)) <= limit);
        assert!(words(&tree, 1, settle).is_empty(), "drained");
    };
    check(1, 0, false, 0);
    check(4, 0, false, 0);
    check(4, 1, false, 1);
    check(5, 0, false, 1);
    check(6, 7, false, 3);
    check(1, 0, true, 1);
    check(3, 9, true, 4);
    check(0, 1, true, 1);
}

#[test]
fn into_level_0_goes_the_memtable() {
    let mut tree = TestTree::<Pair>::new(narrow(), 1);
    assert!(words(&tree, 0, false).is_empty());
    tree.seal(&values([5, 5, 6]), 10);
    assert_eq!(words(&tree, 0, false), [("flush", 3)]);
    assert_eq!(words(&tree, 0, true), [("flush", 3)]);
    assert!(words(&tree, 1, false).is_empty(), "it is no source of level 1");
    // What it overlaps, and neighbours with which it fits into one table.
    tree.add(0, &values(0..100));
    tree.add(0, &values(200..300));
    tree.add(0, &values(400..808));
    assert_eq!(words(&tree, 0, false), [("flush", 203)]);
}

/// A list has the drains in key order, then what is joined beside them; nothing is in two plans.
#[test]
fn a_list_of_plans_is_disjoint() {
    let mut tree = TestTree::<Pair>::new(narrow(), 1);
    for start in [0, 1_000, 2_000, 3_000, 4_000] {
        tree.add(0, &values(start..start + 408));
    }
    tree.add(1, &values([5, 50]));
    tree.add(1, &values([500, 501]));
    tree.add(1, &values([510, 511]));
    tree.add(1, &values([2_001]));
    tree.add(1, &values([5_000]));
    tree.add(1, &values([5_001]));
    let expected =
        [("merge", 410), ("move", 0), ("merge", 409), ("move", 0), ("move", 0), ("join", 4), ("join", 2)];
    assert_eq!(words(&tree, 1, true), expected);
    assert_eq!(words(&tree, 1, false).len(), 3, "one over the limit goes, the cheapest, and the joins stay");
    let (before, plans) = (tree.visible(), tree.plans(1, true));
    let outcomes: Vec<_> = plans.into_iter().map(|plan| tree.outcome(plan)).collect();
    outcomes.iter().for_each(|outcome| tree.apply(outcome));
    assert_eq!(tree.visible(), before);
    assert_eq!(tree.manifest.value_count(level(0)), 0);
}

/// The flush of tombstones joins what is left of their targets in the same half-bar or a later one.
#[test]
fn the_deepest_level_is_joined_and_never_drained() {
    let mut tree = TestTree::<Pair>::new(narrow(), 1);
    tree.add(6, &values((0..3_000).map(|key| 2 * key)));
    tree.add(6, &values([9_000]));
    tree.add(6, &tombstones([9_001]));
    // The last full table is not small; its neighbours of 144, 1 and 1 values are.
    assert_eq!(words(&tree, 6, true), [("join", 146)]);
    let outcome = tree.outcome(tree.plans(6, true).remove(0));
    assert_eq!((outcome.consumed, outcome.produced), (146, 145), "nothing is below");
}

#[test]
#[should_panic(expected = "the level above a target")]
fn a_level_that_the_tree_does_not_have() {
    let tree = TestTree::<Pair>::new(narrow(), 1);
    tree.plans(9, false);
}
