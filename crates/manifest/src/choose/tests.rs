//! Plans by hand; against models in `crate::fuzz`.

use understory_format::{Beat, TableInfo, u64_of};

use super::{Choice, Flush, KeyRange, Sink};
use crate::testing::{info, level, manifest, table};
use crate::{Manifest, Table};

/// Gives sources, targets and limit; expects for each choice the first keys of sources and targets.
fn check_plan(
    sources: &[(u32, u32, u64)],
    targets: &[(u32, u32, u64)],
    limit: u64,
    expected: &[(&[u32], &[u32])],
) {
    let make = |tables: &[(u32, u32, u64)], base: u64| -> Vec<Table<u32>> {
        tables.iter().zip(0..).map(|(t, i)| table(base + 2 * i, t.0, t.1, t.2)).collect()
    };
    let manifest = manifest(&[make(sources, 1), make(targets, 1001)]);
    let plan = manifest.plan_level(level(0), limit, Sink::Nothing);
    let keys = |tables: &[Table<u32>]| tables.iter().map(|table| table.key_min).collect::<Vec<_>>();
    let found: Vec<_> =
        plan.iter().map(|choice| (keys(&choice.sources.concat()), keys(&choice.targets))).collect();
    let expected: Vec<_> = expected.iter().map(|(s, t)| (s.to_vec(), t.to_vec())).collect();
    assert_eq!(found, expected);
}

#[test]
fn drain_by_hand() {
    // At the limit: nothing. One value above it: one table.
    check_plan(&[(0, 9, 10), (10, 19, 10)], &[], 20, &[]);
    check_plan(&[(0, 9, 10), (10, 19, 10)], &[], 19, &[(&[0], &[])]);
    check_plan(&[(0, 9, 10), (10, 19, 10)], &[], 10, &[(&[0], &[])]);
    check_plan(&[(0, 9, 10), (10, 19, 10)], &[], 9, &[(&[0], &[]), (&[10], &[])]);
    // Touching is no overlap, one common key is.
    check_plan(&[(0, 9, 10)], &[(10, 19, 5)], 0, &[(&[0], &[])]);
    check_plan(&[(0, 9, 10)], &[(9, 19, 5)], 0, &[(&[0], &[9])]);
    check_plan(&[(10, 19, 10)], &[(0, 9, 5), (19, 19, 5), (20, 30, 5)], 0, &[(&[10], &[19])]);
    // Fewest overlapped values per own value first; the smaller key on a tie.
    check_plan(&[(0, 9, 10), (10, 19, 20)], &[(0, 9, 10), (10, 19, 19)], 29, &[(&[10], &[10])]);
    check_plan(&[(0, 9, 10), (10, 19, 20)], &[(0, 9, 10), (10, 19, 20)], 29, &[(&[0], &[0])]);
    // A target counts once: its second source costs nothing more.
    check_plan(&[(0, 4, 10), (5, 9, 10), (10, 19, 10)], &[(0, 9, 8), (10, 19, 9)], 10, &[(&[0, 5], &[0])]);
    // A source between two joined ones stays: it is not needed and does no harm.
    check_plan(&[(0, 4, 1), (5, 9, 1), (10, 19, 10)], &[(3, 12, 8)], 1, &[(&[0, 10], &[3])]);
    // Chains of shared targets become one choice.
    check_plan(
        &[(0, 10, 1), (20, 30, 1), (40, 50, 1)],
        &[(8, 22, 1), (28, 42, 1)],
        0,
        &[(&[0, 20, 40], &[8, 28])],
    );
}

#[test]
fn a_table_whose_tombstones_can_go_does_not_move() {
    let mut tombstones = table(1, 0, 9, 10);
    tombstones.info.tombstone_count = 1;
    let plan = manifest(&[vec![tombstones], vec![], vec![]]).plan_level(level(0), 0, Sink::Nothing);
    assert!(!plan[0].is_move);
    assert!(!plan[0].keep_tombstones);
    assert_eq!(plan[0].value_count(), 10);
    // A deeper table touches, then overlaps.
    let plan = manifest(&[vec![tombstones], vec![], vec![table(3, 10, 19, 1)]]).plan_level(
        level(0),
        0,
        Sink::Nothing,
    );
    assert!(!plan[0].is_move);
    let plan = manifest(&[vec![tombstones], vec![], vec![table(3, 9, 19, 1)]]).plan_level(
        level(0),
        0,
        Sink::Nothing,
    );
    assert!(plan[0].is_move);
    assert!(plan[0].keep_tombstones);
    assert_eq!(plan[0].value_count(), 0);
}

/// Tables by their least key, each with its tombstones; those that sink are expected.
fn check_sink(tables: &[(u32, u64)], limit: u64, sink: Sink, expected: &[u32]) {
    let with = |(number, (key_min, tombstones)): (u64, &(u32, u64))| {
        let mut table = table(2 * number + 1, *key_min, key_min + 9, 10);
        table.info.tombstone_count = *tombstones;
        table
    };
    let manifest = manifest(&[(0..).zip(tables).map(with).collect(), vec![], vec![]]);
    let plan = manifest.plan_level(level(0), limit, sink);
    let chosen: Vec<u32> =
        plan.iter().flat_map(|choice| choice.sources.concat()).map(|table| table.key_min).collect();
    assert_eq!(chosen, expected, "{tables:?}, {limit}");
}

#[test]
fn tombstones_sink_from_levels_within_their_limits() {
    let tables = [(0, 0), (10, 1), (20, 0), (30, 10)];
    check_sink(&tables, 40, Sink::Nothing, &[]);
    check_sink(&tables, 40, Sink::Tombstones, &[10, 30]);
    // They count towards what is over the limit, and no more goes than that.
    check_sink(&tables, 20, Sink::Tombstones, &[10, 30]);
    check_sink(&tables, 19, Sink::Tombstones, &[0, 10, 30]);
    check_sink(&tables[..1], 10, Sink::Tombstones, &[]);
}

fn check_flush(tables: &[(u32, u32, u64)], flush: (u32, u32, u64), expected: &[u32], range: (u32, u32)) {
    let tables: Vec<Table<u32>> =
        tables.iter().zip(0..).map(|(t, i)| table(1 + 2 * i, t.0, t.1, t.2)).collect();
    let memtable = KeyRange::new(flush.0, flush.1).unwrap();
    let flush = Flush { range: memtable, value_count: flush.2, sample: &[] };
    let choice = manifest(&[tables]).plan_flush(&flush, 100);
    let targets = choice.targets.concat();
    assert_eq!(targets.iter().map(|table| table.key_min).collect::<Vec<_>>(), expected);
    assert!(choice.cuts.is_empty());
    assert_eq!((choice.range.min(), choice.range.max()), range);
}

#[test]
fn flush_by_hand() {
    check_flush(&[], (5, 5, 1), &[], (5, 5));
    // Overlap is inclusive; full neighbours stay.
    check_flush(&[(0, 4, 100), (6, 9, 100)], (5, 5, 1), &[], (5, 5));
    check_flush(&[(0, 5, 100), (6, 9, 100)], (5, 5, 1), &[0], (0, 5));
    check_flush(&[(0, 5, 100), (6, 9, 100)], (5, 6, 1), &[0, 6], (0, 9));
    // Small neighbours join as long as all fit into one table: left first, then right.
    check_flush(&[(0, 4, 99)], (5, 5, 1), &[0], (0, 5));
    check_flush(&[(0, 4, 100)], (5, 5, 1), &[], (5, 5));
    check_flush(&[(0, 1, 60), (2, 4, 40), (7, 8, 40), (9, 9, 60)], (5, 5, 20), &[2, 7], (2, 8));
    check_flush(&[(0, 1, 60), (2, 4, 60), (7, 8, 40), (9, 9, 60)], (5, 5, 20), &[2], (2, 5));
    // More than one table: the last of the results may share with the right neighbour, none with the left.
    check_flush(&[(0, 4, 10), (7, 8, 10)], (5, 5, 190), &[7], (5, 8));
    check_flush(&[(0, 4, 10), (7, 8, 11)], (5, 5, 190), &[], (5, 5));
    check_flush(&[(0, 4, 10), (7, 8, 1)], (5, 5, 200), &[], (5, 5));
}

fn check_coalesce(tables: &[(u32, u32, u64)], busy: &[(u32, u32)], expected: &[&[u32]]) {
    let tables: Vec<Table<u32>> =
        tables.iter().zip(0..).map(|(t, i)| table(1 + 2 * i, t.0, t.1, t.2)).collect();
    let busy: Vec<_> = busy.iter().map(|(min, max)| KeyRange::new(*min, *max).unwrap()).collect();
    let plan = manifest(&[vec![], tables]).plan_coalesce(level(1), 100, &busy);
    assert!(plan.iter().all(|choice| choice.sources.is_empty()));
    let keys: Vec<Vec<u32>> =
        plan.iter().map(|choice| choice.targets.iter().map(|table| table.key_min).collect()).collect();
    assert_eq!(keys, expected);
}

#[test]
fn coalesce_by_hand() {
    check_coalesce(&[], &[], &[]);
    check_coalesce(&[(0, 0, 1)], &[], &[]);
    check_coalesce(&[(0, 0, 50), (1, 1, 50)], &[], &[&[0, 1]]);
    check_coalesce(&[(0, 0, 50), (1, 1, 51)], &[], &[]);
    check_coalesce(&[(0, 0, 50), (1, 1, 40), (2, 2, 20), (3, 3, 80)], &[], &[&[0, 1], &[2, 3]]);
    // Busy tables are left alone, and nothing reaches over a busy range even if no table is in it.
    check_coalesce(&[(0, 0, 50), (2, 2, 50)], &[(1, 1)], &[]);
    check_coalesce(&[(0, 0, 50), (2, 2, 50)], &[(2, 9)], &[]);
    check_coalesce(&[(0, 0, 9), (2, 2, 9), (4, 4, 9)], &[(0, 1)], &[&[2, 4]]);
    check_coalesce(&[(0, 0, 9), (2, 2, 9), (4, 4, 9)], &[(3, 3)], &[&[0, 2]]);
    check_coalesce(&[(0, 0, 9), (2, 2, 9), (4, 4, 9)], &[(5, 9)], &[&[0, 2, 4]]);
}

/// A level 0 of up to `runs_max` runs, oldest first, of tables with these ends and values; the age of a run is its
/// place from 1 on, and the address of table `n` of it 1000 times its age and 2 n. Below are other levels.
fn in_runs(runs_max: u8, runs: &[&[(u32, u32, u64)]], below: &[&[(u32, u32, u64)]]) -> Manifest<u32> {
    let levels = u8::try_from(1 + below.len()).unwrap();
    let mut manifest = Manifest::new(levels, runs_max);
    for (age, tables) in (1..).zip(runs) {
        for (place, (min, max, values)) in (0..).zip(*tables) {
            let info = info(1_000 * age + 2 * place, *min, *max, *values);
            let info = TableInfo { age: Beat::new(age), beat_min: Beat::new(age), ..info };
            manifest.insert(level(0), Table::new(info).unwrap());
        }
    }
    for (number, tables) in (1..).zip(below) {
        for (place, (min, max, values)) in (0..).zip(*tables) {
            manifest.insert(
                level(number),
                table(100_000 * u64::from(number) + 2 * place + 1, *min, *max, *values),
            );
        }
    }
    manifest.verify().unwrap();
    manifest
}

/// Of each choice, the ages and least keys of its sources, newest first, and the least keys of its targets.
type Inputs = (Vec<(u64, u32)>, Vec<u32>);

fn check_runs(runs: &[&[(u32, u32, u64)]], below: &[(u32, u32, u64)], limit: u64, expected: &[Inputs]) {
    let manifest = in_runs(4, runs, &[below, &[]]);
    let plan = manifest.plan_level(level(0), limit, Sink::Nothing);
    let inputs = |choice: &Choice<u32>| -> Inputs {
        let sources = choice.sources.iter().flatten().map(|table| (table.info.age.get(), table.key_min));
        (sources.collect(), choice.targets.iter().map(|table| table.key_min).collect())
    };
    assert_eq!(plan.iter().map(inputs).collect::<Vec<_>>(), expected);
    for choice in &plan {
        assert_eq!(choice.is_move, choice.sources.concat().len() == 1 && choice.targets.is_empty());
    }
}

#[test]
fn windows_by_hand() {
    // Tables of several runs leave together if they overlap, else alone; within the limit none does.
    check_runs(&[&[(0, 9, 10)], &[(9, 12, 10)]], &[], 20, &[]);
    check_runs(&[&[(0, 9, 10)], &[(9, 12, 10)]], &[], 19, &[(vec![(2, 9), (1, 0)], vec![])]);
    check_runs(&[&[(0, 9, 10)], &[(10, 12, 10)]], &[], 19, &[(vec![(1, 0)], vec![])]);
    // Runs stand newest first, whatever the keys.
    let runs: &[&[_]] = &[&[(5, 9, 1), (20, 29, 1)], &[(0, 6, 1), (25, 30, 1)], &[(6, 7, 1)]];
    check_runs(runs, &[], 0, &[(vec![(3, 6), (2, 0), (1, 5)], vec![]), (vec![(2, 25), (1, 20)], vec![])]);
    // A window costs what all of it overlaps: the one with more layers goes first.
    let runs: &[&[_]] = &[&[(0, 9, 10), (10, 19, 10)], &[(10, 19, 10)]];
    check_runs(runs, &[(0, 9, 20), (10, 19, 20)], 29, &[(vec![(2, 10), (1, 10)], vec![10])]);
    // Windows that share a target are one choice, run by run.
    let runs: &[&[_]] = &[&[(0, 9, 10), (10, 19, 10)], &[(0, 9, 10), (10, 19, 10)]];
    check_runs(runs, &[(5, 15, 1)], 0, &[(vec![(2, 0), (2, 10), (1, 0), (1, 10)], vec![5])]);
    // A newer table over two windows joins them; if it is far smaller than either, it stays, and with it what is
    // newer and overlaps it.
    let wide = |values| -> Vec<(u32, u32, u64)> { vec![(5, 15, values)] };
    let old: &[_] = &[(0, 9, 40), (10, 19, 40)];
    check_runs(&[old, &wide(10)], &[], 60, &[(vec![(2, 5), (1, 0), (1, 10)], vec![])]);
    check_runs(&[old, &wide(9)], &[], 60, &[(vec![(1, 0)], vec![])]);
    check_runs(&[old, &wide(9), &[(0, 5, 40)]], &[], 100, &[(vec![(1, 0)], vec![])]);
    check_runs(&[old, &wide(9), &[(0, 4, 40)]], &[], 100, &[(vec![(3, 0), (1, 0)], vec![])]);
    // Unless the level has to lose more than is left then.
    check_runs(&[old, &wide(9)], &[], 9, &[(vec![(1, 0)], vec![]), (vec![(1, 10)], vec![])]);
    check_runs(&[old, &wide(9)], &[], 8, &[(vec![(2, 5), (1, 0), (1, 10)], vec![])]);
}

/// R19: with no room for a run more, the oldest leaves if that rewrites no more than merging the youngest would.
#[test]
fn the_oldest_run_leaves_if_it_is_cheap() {
    let runs: &[&[_]] = &[&[(0, 9, 1), (20, 29, 1)], &[(40, 49, 9)], &[(60, 69, 9)], &[(80, 89, 10)]];
    let (left, right) = ((vec![(1, 0)], vec![0]), (vec![(1, 20)], vec![20]));
    check_runs(&runs[1..], &[], 1_000, &[]);
    check_runs(runs, &[(0, 9, 5), (20, 29, 5), (40, 49, 99)], 1_000, &[left.clone(), right.clone()]);
    check_runs(runs, &[(0, 9, 5), (20, 29, 6)], 1_000, &[]);
    // A target that two windows share counts once.
    check_runs(runs, &[(5, 25, 10)], 1_000, &[(vec![(1, 0), (1, 20)], vec![5])]);
    // What is still to go is the cheapest of the rest.
    check_runs(runs, &[(0, 9, 5), (20, 29, 5)], 26, &[left, right, (vec![(2, 40)], vec![])]);
}

#[test]
fn tombstones_of_a_flush_stay_above_older_runs() {
    let manifest = in_runs(3, &[&[(0, 9, 113)], &[(20, 29, 100)]], &[&[(40, 49, 1)]]);
    let check = |min, max, values, expected: (usize, bool)| {
        let range = KeyRange::new(min, max).unwrap();
        let choice = manifest.plan_flush(&Flush { range, value_count: values, sample: &[] }, 100);
        assert_eq!((choice.targets.len(), choice.keep_tombstones), expected, "{min}..={max}");
    };
    check(10, 19, 1, (0, false));
    check(9, 19, 1, (0, true));
    check(10, 20, 1, (0, true));
    check(30, 39, 1, (0, false));
    check(30, 40, 1, (0, true));
    // A run that is taken is older no more, but reaches further.
    check(10, 20, 800, (1, false));
    check(9, 20, 800, (1, true));
    check(0, 20, 1_600, (2, false));
    check(0, 20, 799, (0, true));
}

/// The flush of one value for each key of `keys`: where its tables are cut, of 80 values at most.
fn check_cuts(
    runs: &[&[(u32, u32, u64)]],
    below: &[(u32, u32, u64)],
    keys: core::ops::Range<u32>,
    expected: &[u32],
) {
    let sample: Vec<u32> = keys.collect();
    let range = KeyRange::new(sample[0], *sample.last().unwrap()).unwrap();
    let flush = Flush { range, value_count: u64_of(sample.len()), sample: &sample };
    let choice = in_runs(8, runs, &[below]).plan_flush(&flush, 80);
    assert_eq!(choice.cuts, expected);
    assert!(choice.targets.is_empty());
}

#[test]
fn cuts_by_hand() {
    // What overlaps nothing is cut by nothing.
    check_cuts(&[], &[], 0..400, &[]);
    check_cuts(&[&[(400, 499, 80)]], &[(500, 599, 80)], 0..400, &[]);
    // Where there is something, tables have about half of what they can, at even distances: 40 of 200 values.
    check_cuts(&[], &[(0, 999, 80)], 0..200, &[39, 79, 119, 159]);
    check_cuts(&[], &[(0, 999, 80)], 0..60, &[29]);
    check_cuts(&[], &[(0, 999, 80)], 0..59, &[]);
    // Tables end where older windows do, if that leaves an eighth of a table on either side.
    let run: &[_] = &[(0, 30, 80), (40, 70, 80), (71, 99, 80)];
    check_cuts(&[run], &[], 0..100, &[30, 70]);
    check_cuts(&[run], &[], 21..100, &[30, 70]);
    check_cuts(&[run], &[], 22..100, &[70]);
    check_cuts(&[run], &[], 0..81, &[30, 70]);
    check_cuts(&[run], &[], 0..80, &[30]);
    // A window of several runs has no end within.
    check_cuts(&[run, &[(50, 75, 60)]], &[], 0..90, &[30]);
    check_cuts(&[run, &[(50, 75, 60)]], &[], 0..91, &[30, 60]);
    // What lies between windows is split like what has none.
    check_cuts(&[&[(0, 30, 80), (200, 230, 80)]], &[(0, 199, 80)], 0..231, &[30, 70, 110, 150, 199]);
    // A table of the level below that ends near by decides where.
    check_cuts(&[], &[(0, 45, 80), (46, 999, 80)], 0..200, &[45, 79, 119, 159]);
    check_cuts(&[], &[(0, 50, 80), (51, 999, 80)], 0..200, &[39, 79, 119, 159]);
}
