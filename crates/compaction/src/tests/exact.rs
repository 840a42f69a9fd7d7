//! Compactions whose result is known to the block.

use understory_format::{EditKind, Record, u64_of};
use understory_testkit::{Pair, TestRecord};

use super::tree::{Entries, TestTree, edits, inserted, level, tombstones, values};
use super::{narrow, wide};
use crate::{Input, Outcome, Plan};

/// The table and block counts of a flush of `count` values, and what its only slice had to spare.
fn flush_of(count: u64) -> (Vec<(u64, u32)>, u64) {
    let mut tree = TestTree::<Pair>::new(narrow(), 1);
    tree.seal(&values(0..count), 100);
    let plan = tree.plans(0, false).remove(0);
    let mut job = tree.job(plan);
    let slices = tree.run(&mut *job, |remaining| remaining).unwrap();
    let outcome = job.finish().unwrap();
    tree.apply(&outcome);
    assert_eq!(u64_of(tree.visible().len()), count);
    let tables =
        inserted(&outcome).iter().map(|table| (table.value_count, table.value_block_count)).collect();
    let spare = slices.slices.iter().map(|(_, bound, drawn)| bound - drawn).sum();
    (tables, spare)
}

/// Blocks of 204 pairs, two to a table.
#[test]
fn a_table_ends_where_it_is_full() {
    let check = |count: u64, tables: &[(u64, u32)]| {
        assert_eq!(flush_of(count), (tables.to_vec(), 0), "{count} values");
    };
    check(1, &[(1, 1)]);
    check(203, &[(203, 1)]);
    check(204, &[(204, 1)]);
    check(205, &[(205, 2)]);
    check(407, &[(407, 2)]);
    check(408, &[(408, 2)]);
    check(409, &[(408, 2), (1, 1)]);
    check(612, &[(408, 2), (204, 1)]);
    check(816, &[(408, 2), (408, 2)]);
    check(817, &[(408, 2), (408, 2), (1, 1)]);
}

/// If nothing is dropped, the last slice draws all that it reserved, and another all but what ends a table.
#[test]
fn reservations_are_no_larger_than_they_need_to_be() {
    for geometry in [narrow(), wide()] {
        for quota in [1, 7, 203, 204, 205, 408, 409, 1_000] {
            let mut tree = TestTree::<Pair>::new(geometry, 1);
            tree.add(1, &values((0..1_500).map(|key| 2 * key)));
            tree.seal(&values((100..900).map(|key| 2 * key + 1)), 100);
            for plan in tree.plans(0, false) {
                let mut job = tree.job(plan);
                let slices = tree.run(&mut *job, |_| quota).unwrap().slices;
                let (last, others) = slices.split_last().unwrap();
                assert_eq!(last.1, last.2, "{slices:?}");
                assert!(others.iter().all(|(_, bound, drawn)| bound - drawn <= 3), "{slices:?}");
                tree.apply(&job.finish().unwrap());
            }
        }
    }
}

#[test]
fn of_a_memtable_the_newest_versions_are_written() {
    let mut tree = TestTree::<Pair>::new(narrow(), 1);
    tree.add(1, &values([5, 7]));
    let put = |key, version| (Pair::make(key, version), false);
    let gone = |key| (Pair::tombstone(key), true);
    let entries =
        [put(3, 2), put(5, 3), gone(3), put(9, 4), gone(7), put(9, 5), gone(11), put(3, 6), gone(5)];
    tree.seal(&entries, 4);
    let outcome = tree.outcome(tree.plans(0, false).remove(0));
    assert_eq!((outcome.consumed, outcome.produced, outcome.is_flush), (9, 5, true));
    let written = tree.read(&inserted(&outcome)[0]).unwrap();
    assert_eq!(written, [put(3, 6), gone(5), gone(7), put(9, 5), gone(11)]);
    tree.apply(&outcome);
    assert_eq!(tree.visible().into_keys().collect::<Vec<_>>(), [3, 9]);
}

/// A tree with `deep` at level 2, `target` at level 1, `source` at level 0, settled into level 1.
fn settled(source: &Entries<Pair>, target: &Entries<Pair>, deep: &Entries<Pair>) -> (Outcome, Entries<Pair>) {
    let mut tree = TestTree::<Pair>::new(narrow(), 1);
    for (to, entries) in [(0, source), (1, target), (2, deep)] {
        tree.add(to, entries);
    }
    let visible = tree.visible();
    let outcome = tree.outcome(tree.plans(1, true).remove(0));
    let written = inserted(&outcome).iter().flat_map(|table| tree.read(table).unwrap()).collect();
    tree.apply(&outcome);
    assert_eq!(tree.visible(), visible);
    (outcome, written)
}

/// The hull of what is merged decides: 10 to 40 here, whatever the tombstone's own key.
#[test]
fn tombstones_are_dropped_when_nothing_deeper_overlaps() {
    let source = [tombstones([20]), values([40])].concat();
    let target = values([10, 20]);
    let check = |deep: &[u64], expected: &[(u64, bool)]| {
        let (outcome, written) = settled(&source, &target, &values(deep.iter().copied()));
        let found: Vec<_> = written.iter().map(|(pair, tombstone)| (pair.id.get(), *tombstone)).collect();
        assert_eq!(found, expected, "deeper: {deep:?}");
        assert_eq!((outcome.consumed, outcome.produced), (4, u64_of(expected.len())));
    };
    let (dropped, kept) = ([(10, false), (40, false)], [(10, false), (20, true), (40, false)]);
    check(&[], &dropped);
    check(&[9], &dropped);
    check(&[41], &dropped);
    check(&[1, 9], &dropped);
    check(&[9, 10], &kept);
    check(&[40], &kept);
    check(&[20], &kept);
    check(&[9, 41], &kept);
}

#[test]
fn nothing_is_left() {
    let (outcome, written) = settled(&tombstones(0..300), &values(0..300), &values([]));
    assert!(written.is_empty());
    assert_eq!((outcome.consumed, outcome.produced), (600, 0));
    assert_eq!(inserted(&outcome).len(), 0);
    // Two tables, each with two value blocks and two copies of its index.
    assert_eq!((edits(&outcome, EditKind::Remove).count(), outcome.released.len()), (2, 8));
}

#[test]
fn a_table_moves_where_it_overlaps_nothing() {
    let move_of = |source: &Entries<Pair>, target: &Entries<Pair>| {
        let mut tree = TestTree::<Pair>::new(narrow(), 1);
        let tables = tree.add(0, source);
        tree.add(1, target);
        let plan = tree.plans(1, true).remove(0);
        let moves = matches!(plan.input, Input::Move(table) if table == tables[0]);
        let mut job = tree.job(plan);
        assert_eq!(job.remaining() == 0, moves);
        tree.run(&mut *job, |_| 9).unwrap();
        let outcome = job.finish().unwrap();
        assert_eq!(outcome.moved, if moves { tables[0].info.value_count } else { 0 });
        tree.apply(&outcome);
        moves
    };
    assert!(move_of(&values(10..20), &values([9, 9 << 32])[..1].to_vec()));
    assert!(move_of(&values(10..20), &values(20..30)));
    assert!(!move_of(&values(10..20), &values(19..30)));
    assert!(!move_of(&values(10..20), &values([1, 30])));
    let dead = [values(10..19), tombstones([19])].concat();
    assert!(!move_of(&dead, &values(20..30)), "its tombstone goes instead");
    assert!(!move_of(&dead, &values(0..19)));
}

#[test]
fn a_move_needs_no_blocks() {
    let mut tree = TestTree::<Pair>::new(narrow(), 1);
    tree.add(0, &values(0..10));
    let mut job = tree.job(tree.plans(1, true).remove(0));
    let mut reservation = tree.grid.reserve(0).unwrap();
    job.run(0, &mut reservation).unwrap();
    tree.grid.forfeit(reservation);
    tree.apply(&job.finish().unwrap());
    assert_eq!((tree.manifest.table_count(level(0)), tree.manifest.table_count(level(1))), (0, 1));
}

#[test]
fn neighbours_become_one_table() {
    let mut tree = TestTree::<Pair>::new(narrow(), 1);
    for start in [0, 100, 300, 700] {
        tree.add(3, &values(start..start + 100));
    }
    tree.add(3, &[values(800..1_180), tombstones(1_180..1_200)].concat());
    let plans = tree.plans(3, false);
    assert_eq!(plans.len(), 1);
    assert!(matches!(&plans[0].input, Input::Tables(sources) if sources.is_empty()));
    let outcome = tree.outcome(plans.into_iter().next().unwrap());
    assert_eq!((outcome.consumed, outcome.produced), (400, 400));
    assert_eq!(inserted(&outcome).len(), 1);
    tree.apply(&outcome);
    assert_eq!(tree.manifest.table_count(level(3)), 2);
    let ages: Vec<_> = inserted(&outcome).iter().map(|table| table.age.get()).collect();
    assert_eq!(ages, [4], "no younger than its inputs");
}

fn job(tree: &TestTree<Pair>) -> Box<dyn crate::Job> {
    let plan: Plan<Pair> = tree.plans(1, true).remove(0);
    tree.job(plan)
}

fn overlapping() -> TestTree<Pair> {
    let mut tree = TestTree::<Pair>::new(narrow(), 1);
    tree.add(0, &values(0..10));
    tree.add(1, &values(5..15));
    tree
}

#[test]
#[should_panic(expected = "a slice is part of what remains")]
fn a_quota_beyond_the_end_is_refused() {
    let tree = overlapping();
    let mut reservation = tree.grid.reserve(9).unwrap();
    drop(job(&tree).run(21, &mut reservation));
}

#[test]
#[should_panic(expected = "a job is finished when all its input is consumed")]
fn a_job_is_not_finished_early() {
    let tree = overlapping();
    let (mut job, mut reservation) = (job(&tree), tree.grid.reserve(9).unwrap());
    job.run(19, &mut reservation).unwrap();
    drop(job.finish());
}

#[test]
#[should_panic(expected = "a reservation is sized for all that is drawn from it")]
fn a_reservation_that_is_too_small_is_noticed() {
    let tree = overlapping();
    let mut job = job(&tree);
    let mut reservation = tree.grid.reserve(job.blocks_bound(20) - 1).unwrap();
    drop(job.run(20, &mut reservation));
}
