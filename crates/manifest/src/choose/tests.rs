//! Plans against brute force, and against a tree of plain maps that executes them.

use std::collections::BTreeMap;

use fastrand::Rng;
use understory_format::{Beat, BlockAddress, Direction, Level, TableInfo, u64_of};

use super::{Choice, Flush, FlushChoice, KeyRange, Sink};
use crate::testing::{info, level, table};
use crate::{Manifest, Table};

/// Sources and targets of a choice.
type Group = (Vec<Table<u32>>, Vec<Table<u32>>);

/// A level of random disjoint tables over `0..space`; many are adjacent, many hold a single key.
fn random_level(rng: &mut Rng, count: usize, space: u32, address: &mut u64) -> Vec<Table<u32>> {
    let mut tables = Vec::new();
    let mut key = rng.u32(0..8);
    while tables.len() < count && key < space {
        let size = if rng.bool() { 0 } else { rng.u32(0..24) };
        *address += 2;
        tables.push(table(*address, key, key + size, rng.u64(1..40)));
        key += size + if rng.bool() { 1 } else { rng.u32(1..16) };
    }
    tables
}

fn manifest(levels: &[Vec<Table<u32>>]) -> Manifest<u32> {
    let mut manifest = Manifest::new(u8::try_from(levels.len()).unwrap(), 1);
    for (number, tables) in levels.iter().enumerate() {
        for table in tables {
            manifest.insert(level(u8::try_from(number).unwrap()), *table);
        }
    }
    manifest.verify().unwrap();
    manifest
}

fn overlapping(table: &Table<u32>, others: &[Table<u32>]) -> Vec<Table<u32>> {
    others.iter().filter(|other| other.range().overlaps(&table.range())).copied().collect()
}

/// The same choice by trying everything: quadratic, and in its own words.
fn naive_drain(sources: &[Table<u32>], targets: &[Table<u32>], limit: u64) -> Vec<Table<u32>> {
    let mut rest = sources.to_vec();
    let mut chosen: Vec<Table<u32>> = Vec::new();
    while rest.iter().map(|table| table.info.value_count).sum::<u64>() > limit {
        let counted = |target: &Table<u32>| chosen.iter().any(|c| c.range().overlaps(&target.range()));
        let cost = |table: &Table<u32>| -> u64 {
            let new = overlapping(table, targets).into_iter().filter(|target| !counted(target));
            new.map(|target| target.info.value_count).sum()
        };
        let best = (0..rest.len())
            .reduce(|best, next| {
                let (a, b) = (&rest[best], &rest[next]);
                if cost(b) * a.info.value_count < cost(a) * b.info.value_count { next } else { best }
            })
            .unwrap();
        chosen.push(rest.remove(best));
    }
    chosen.sort_by_key(|table| table.key_min);
    chosen
}

/// Joins what overlaps until nothing does.
fn naive_join(chosen: &[Table<u32>], targets: &[Table<u32>]) -> Vec<Group> {
    let hull = |group: &Group| -> KeyRange<u32> {
        group.0.iter().chain(&group.1).map(Table::range).reduce(|a, b| a.hull(&b)).unwrap()
    };
    let mut groups: Vec<Group> = chosen.iter().map(|c| (vec![*c], overlapping(c, targets))).collect();
    'again: loop {
        for i in 0..groups.len() {
            for j in i + 1..groups.len() {
                if hull(&groups[i]).overlaps(&hull(&groups[j])) {
                    let (sources, shared) = groups.remove(j);
                    groups[i].0.extend(sources);
                    groups[i].1.extend(shared);
                    continue 'again;
                }
            }
        }
        break;
    }
    for group in &mut groups {
        group.0.sort_by_key(|table| table.key_min);
        group.1.sort_by_key(|table| table.key_min);
        group.1.dedup();
    }
    groups.sort_by_key(|group| hull(group).min());
    groups
}

fn inputs(plan: &[Choice<u32>]) -> Vec<Group> {
    plan.iter().map(|choice| (choice.sources.concat(), choice.targets.clone())).collect()
}

#[test]
fn drain_equals_brute_force() {
    let mut rng = Rng::with_seed(1);
    let mut joined = 0;
    for _ in 0..1500 {
        let mut address = 0;
        let counts = (rng.usize(1..14), rng.usize(0..30));
        let sources = random_level(&mut rng, counts.0, 300, &mut address);
        let targets = random_level(&mut rng, counts.1, 300, &mut address);
        let total: u64 = sources.iter().map(|table| table.info.value_count).sum();
        let limit = rng.u64(0..=total + 1);
        let manifest = manifest(&[sources.clone(), targets.clone()]);
        let plan = manifest.plan_level(level(0), limit, Sink::Nothing);
        let chosen = naive_drain(&sources, &targets, limit);
        assert_eq!(inputs(&plan), naive_join(&chosen, &targets));
        joined += plan.iter().filter(|choice| choice.sources.concat().len() > 1).count();
        let kept: u64 = total - chosen.iter().map(|table| table.info.value_count).sum::<u64>();
        assert!(kept <= limit);
        for choice in &plan {
            assert_eq!(choice.is_move, choice.targets.is_empty());
            assert!(!choice.keep_tombstones);
        }
    }
    assert!(joined > 300, "joins were covered: {joined}");
}

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

/// A tree whose tables are plain lists of (key, version, or none for a tombstone).
struct Model {
    manifest: Manifest<u32>,
    contents: BTreeMap<BlockAddress, Vec<(u32, Option<u64>)>>,
    expected: BTreeMap<u32, u64>,
    address: u64,
    version: u64,
    /// Flushes so far.
    age: u64,
}

const TABLE_VALUE_MAX: u64 = 8;
const SPACE: u32 = 400;

/// What is put into a level: values, and where tables end.
struct Output<'a> {
    merged: BTreeMap<u32, Option<u64>>,
    cuts: &'a [u32],
    keep_tombstones: bool,
    age: Beat,
}

impl Model {
    fn new(levels: u8, runs_max: u8) -> Self {
        let (contents, expected) = (BTreeMap::new(), BTreeMap::new());
        Self { manifest: Manifest::new(levels, runs_max), contents, expected, address: 1, version: 0, age: 0 }
    }

    fn read(&self, key: u32) -> Option<u64> {
        for run in self.manifest.sources() {
            let Some(table) = run.find(key, Beat::MAX) else { continue };
            let content = &self.contents[&table.info.index.address];
            if let Ok(found) = content.binary_search_by_key(&key, |(key, _)| *key) {
                return content[found].1;
            }
        }
        None
    }

    /// Takes tables out, run by run, the newest first, and puts what they hold over what was merged.
    fn take(&mut self, level: Level, runs: &[Vec<Table<u32>>], merged: &mut BTreeMap<u32, Option<u64>>) {
        for table in runs.iter().rev().flatten() {
            self.manifest.remove(level, table);
            merged.extend(self.contents.remove(&table.info.index.address).unwrap());
        }
    }

    fn put(&mut self, level: Level, output: Output<'_>) {
        let Output { merged, cuts, keep_tombstones, age } = output;
        let kept = |entry: &(u32, Option<u64>)| keep_tombstones || entry.1.is_some();
        let values: Vec<_> = merged.into_iter().filter(kept).collect();
        let piece = |key: u32| cuts.iter().filter(|cut| **cut < key).count();
        let pieces = values.chunk_by(|one, next| piece(one.0) == piece(next.0));
        for content in pieces.flat_map(|piece| piece.chunks(8)) {
            self.address += 2;
            let (min, max) = (content[0].0, content.last().unwrap().0);
            let info = info(self.address, min, max, u64_of(content.len()));
            let tombstone_count = u64_of(content.iter().filter(|(_, value)| value.is_none()).count());
            let info = TableInfo { tombstone_count, age, beat_min: Beat::new(self.age), ..info };
            self.contents.insert(info.index.address, content.to_vec());
            self.manifest.insert(level, Table::new(info).unwrap());
        }
    }

    fn flush(&mut self, rng: &mut Rng) {
        let mut memtable = BTreeMap::new();
        let (base, width) = (rng.u32(0..SPACE), if rng.bool() { SPACE } else { rng.u32(1..40) });
        let count = if rng.u8(0..4) == 0 { rng.u32(1..80) } else { rng.u32(1..20) };
        for _ in 0..count {
            let key = (base + rng.u32(0..width)) % SPACE;
            self.version += 1;
            if rng.u8(0..4) == 0 {
                memtable.insert(key, None);
                self.expected.remove(&key);
            } else {
                memtable.insert(key, Some(self.version));
                self.expected.insert(key, self.version);
            }
        }
        self.age += 1;
        let (min, max) = (*memtable.first_key_value().unwrap().0, *memtable.last_key_value().unwrap().0);
        let range = KeyRange::new(min, max).unwrap();
        let sample: Vec<u32> = memtable.keys().copied().step_by(rng.usize(1..4)).collect();
        let flush = Flush { range, value_count: u64_of(memtable.len()), sample: &sample };
        let choice = self.manifest.plan_flush(&flush, TABLE_VALUE_MAX);
        self.check_flush(&choice, u64_of(memtable.len()));
        let youngest = choice.targets.len();
        let joined = match self.manifest.runs_max() {
            1 => Vec::new(),
            _ => self.manifest.plan_coalesce_runs(TABLE_VALUE_MAX, youngest),
        };
        let mut merged = BTreeMap::new();
        self.take(level(0), &choice.targets, &mut merged);
        merged.extend(memtable);
        let (keep_tombstones, age) = (choice.keep_tombstones, Beat::new(self.age));
        self.put(level(0), Output { merged, cuts: &choice.cuts, keep_tombstones, age });
        self.execute(rng, level(0), level(0), joined);
        self.check_runs();
    }

    /// R19: a flush takes whole runs, the youngest, and only if they are too many or small beside it.
    fn check_flush(&self, choice: &FlushChoice<u32>, value_count: u64) {
        assert!(choice.cuts.is_sorted_by(|one, next| one < next), "{:?}", choice.cuts);
        let runs = self.manifest.runs(level(0));
        if self.manifest.runs_max() == 1 {
            return;
        }
        let too_many = runs.len() == usize::from(self.manifest.runs_max());
        assert!(!too_many || !choice.targets.is_empty(), "there is room for a run more");
        let mut gathered = value_count;
        for (place, (run, taken)) in runs.iter().zip(&choice.targets).enumerate() {
            assert!(run.iter(Beat::MAX, Direction::Ascending).eq(taken), "a run is taken whole");
            let values: u64 = taken.iter().map(|table| table.info.value_count).sum();
            let is_small = if too_many { values <= gathered } else { 8 * values <= gathered };
            assert!(is_small || too_many && place == 0, "{values} values beside {gathered}");
            gathered += values;
        }
    }

    /// R19: level 0 has no more runs than it may, and of a run no two neighbours fit into an eighth of a table.
    fn check_runs(&self) {
        let runs = self.manifest.runs(level(0));
        assert!(runs.len() <= usize::from(self.manifest.runs_max()));
    }

    /// Executes a whole plan on the state it was made for, in any order.
    fn execute(&mut self, rng: &mut Rng, source: Level, target: Level, mut plan: Vec<Choice<u32>>) {
        rng.shuffle(&mut plan);
        for choice in plan {
            if choice.is_move {
                self.manifest.update(source, target, choice.sources[0][0]);
                continue;
            }
            let inputs = choice.sources.iter().flatten().chain(&choice.targets);
            let age = inputs.map(|table| table.info.age).max().unwrap();
            let mut merged = BTreeMap::new();
            self.take(target, &[choice.targets], &mut merged);
            self.take(source, &choice.sources, &mut merged);
            self.put(target, Output { merged, cuts: &[], keep_tombstones: choice.keep_tombstones, age });
        }
    }

    fn compact(&mut self, rng: &mut Rng, number: u8) {
        let (source, target) = (level(number), level(number + 1));
        let limit = if rng.u8(0..16) == 0 { 0 } else { TABLE_VALUE_MAX << (2 * number) };
        let sink = if rng.u8(0..8) == 0 { Sink::Tombstones } else { Sink::Nothing };
        let plan = self.manifest.plan_level(source, limit, sink);
        self.check_older(&plan);
        let busy: Vec<_> = plan.iter().map(|choice| choice.range).collect();
        let small = self.manifest.plan_coalesce(target, TABLE_VALUE_MAX, &busy);
        self.execute(rng, source, target, plan.into_iter().chain(small).collect());
        assert!(self.manifest.value_count(source) <= limit);
        // On a level 0 in runs, slight tables stay.
        let is_disjoint = number > 0 || self.manifest.runs_max() == 1;
        assert!(sink == Sink::Nothing || !is_disjoint || self.manifest.tombstone_count(source) == 0);
    }

    /// R20: of level 0 in runs, what is older than an input and overlaps it is an input of the same choice, and newer
    /// inputs stand first.
    fn check_older(&self, plan: &[Choice<u32>]) {
        if self.manifest.runs_max() == 1 {
            return;
        }
        for choice in plan {
            let sources = choice.sources.concat();
            assert!(
                choice.sources.iter().is_sorted_by(|a, b| a[0].info.age > b[0].info.age)
                    || sources[0].info.age == sources.last().unwrap().info.age
                    || self.manifest.get(level(0), &sources[0]).is_none()
            );
            for source in sources.iter().filter(|source| self.manifest.get(level(0), source).is_some()) {
                for other in self.manifest.iter(level(0), Beat::MAX) {
                    let is_below =
                        other.info.age < source.info.age && other.range().overlaps(&source.range());
                    assert!(!is_below || sources.contains(other), "{other:?} stays below {source:?}");
                }
            }
        }
    }

    fn check(&self) {
        self.manifest.verify().unwrap();
        for key in 0..SPACE {
            assert_eq!(self.read(key), self.expected.get(&key).copied(), "key {key}");
        }
    }
}

#[test]
fn executed_plans_keep_readers_right() {
    for (seed, runs_max) in
        (0..4).map(|seed| (seed, 1)).chain((4..16).map(|seed| (seed, [2, 3, 4, 8][seed % 4])))
    {
        let mut rng = Rng::with_seed(u64_of(seed));
        let mut model = Model::new(4, runs_max);
        let (mut deepest, mut runs) = (0, 0);
        for _ in 0..250 {
            model.flush(&mut rng);
            model.check();
            for source in [0, 2, 1] {
                model.compact(&mut rng, source);
                model.check();
            }
            deepest = deepest.max(model.manifest.value_count(level(3)));
            runs = runs.max(model.manifest.runs(level(0)).len());
        }
        for number in 1..4 {
            let busy = model.manifest.plan_coalesce(level(number), TABLE_VALUE_MAX, &[]);
            let (source, target) = (level(0), level(number));
            model.execute(&mut rng, source, target, busy);
            assert!(model.manifest.plan_coalesce(target, TABLE_VALUE_MAX, &[]).is_empty());
        }
        model.check();
        assert!(deepest > 0, "the last level was reached");
        assert!(
            runs >= usize::from(runs_max.min(4)) - usize::from(runs_max > 1),
            "{runs} of {runs_max} runs were there"
        );
    }
}
