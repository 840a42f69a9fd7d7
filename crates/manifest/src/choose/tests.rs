//! Plans against brute force, and against a tree of plain maps that executes them.

use std::collections::BTreeMap;

use fastrand::Rng;
use understory_format::{Beat, BlockAddress, Level, u64_of};

use super::{Choice, KeyRange};
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
    let mut manifest = Manifest::new(u8::try_from(levels.len()).unwrap());
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
    plan.iter().map(|choice| (choice.sources.clone(), choice.targets.clone())).collect()
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
        let plan = manifest.plan_level(level(0), limit);
        let chosen = naive_drain(&sources, &targets, limit);
        assert_eq!(inputs(&plan), naive_join(&chosen, &targets));
        joined += plan.iter().filter(|choice| choice.sources.len() > 1).count();
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
    let plan = manifest.plan_level(level(0), limit);
    let keys = |tables: &[Table<u32>]| tables.iter().map(|table| table.key_min).collect::<Vec<_>>();
    let found: Vec<_> = plan.iter().map(|choice| (keys(&choice.sources), keys(&choice.targets))).collect();
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
    let plan = manifest(&[vec![tombstones], vec![], vec![]]).plan_level(level(0), 0);
    assert!(!plan[0].is_move);
    assert!(!plan[0].keep_tombstones);
    assert_eq!(plan[0].value_count(), 10);
    // A deeper table touches, then overlaps.
    let plan = manifest(&[vec![tombstones], vec![], vec![table(3, 10, 19, 1)]]).plan_level(level(0), 0);
    assert!(!plan[0].is_move);
    let plan = manifest(&[vec![tombstones], vec![], vec![table(3, 9, 19, 1)]]).plan_level(level(0), 0);
    assert!(plan[0].is_move);
    assert!(plan[0].keep_tombstones);
    assert_eq!(plan[0].value_count(), 0);
}

fn check_flush(tables: &[(u32, u32, u64)], flush: (u32, u32, u64), expected: &[u32], range: (u32, u32)) {
    let tables: Vec<Table<u32>> =
        tables.iter().zip(0..).map(|(t, i)| table(1 + 2 * i, t.0, t.1, t.2)).collect();
    let choice = manifest(&[tables]).plan_flush(flush.0, flush.1, flush.2, 100);
    assert_eq!(choice.targets.iter().map(|table| table.key_min).collect::<Vec<_>>(), expected);
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

/// A tree whose tables are plain lists of (key, version, or none for a tombstone).
struct Model {
    manifest: Manifest<u32>,
    contents: BTreeMap<BlockAddress, Vec<(u32, Option<u64>)>>,
    expected: BTreeMap<u32, u64>,
    address: u64,
    version: u64,
}

const TABLE_VALUE_MAX: u64 = 8;
const SPACE: u32 = 400;

impl Model {
    fn read(&self, key: u32) -> Option<u64> {
        for level in self.manifest.levels() {
            let Some(table) = self.manifest.find(level, key, Beat::MAX) else { continue };
            let content = &self.contents[&table.info.index.address];
            if let Ok(found) = content.binary_search_by_key(&key, |(key, _)| *key) {
                return content[found].1;
            }
        }
        None
    }

    fn take(&mut self, level: Level, tables: &[Table<u32>], merged: &mut BTreeMap<u32, Option<u64>>) {
        for table in tables {
            self.manifest.remove(level, table);
            merged.extend(self.contents.remove(&table.info.index.address).unwrap());
        }
    }

    fn put(&mut self, level: Level, merged: BTreeMap<u32, Option<u64>>, keep_tombstones: bool) {
        let kept = |entry: &(u32, Option<u64>)| keep_tombstones || entry.1.is_some();
        let values: Vec<_> = merged.into_iter().filter(kept).collect();
        for content in values.chunks(8) {
            self.address += 2;
            let (min, max) = (content[0].0, content.last().unwrap().0);
            let mut info = info(self.address, min, max, u64_of(content.len()));
            info.tombstone_count = u64_of(content.iter().filter(|(_, value)| value.is_none()).count());
            self.contents.insert(info.index.address, content.to_vec());
            self.manifest.insert(level, Table::new(info).unwrap());
        }
    }

    fn flush(&mut self, rng: &mut Rng) {
        let mut memtable = BTreeMap::new();
        let (base, width) = (rng.u32(0..SPACE), if rng.bool() { SPACE } else { rng.u32(1..40) });
        for _ in 0..rng.u32(1..20) {
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
        let (min, max) = (*memtable.first_key_value().unwrap().0, *memtable.last_key_value().unwrap().0);
        let choice = self.manifest.plan_flush(min, max, u64_of(memtable.len()), TABLE_VALUE_MAX);
        let mut merged = BTreeMap::new();
        self.take(level(0), &choice.targets, &mut merged);
        merged.extend(memtable);
        self.put(level(0), merged, choice.keep_tombstones);
    }

    /// Executes a whole plan on the state it was made for, in any order.
    fn execute(&mut self, rng: &mut Rng, source: Level, target: Level, mut plan: Vec<Choice<u32>>) {
        rng.shuffle(&mut plan);
        for choice in plan {
            if choice.is_move {
                self.manifest.update(source, target, choice.sources[0]);
                continue;
            }
            let mut merged = BTreeMap::new();
            self.take(target, &choice.targets, &mut merged);
            self.take(source, &choice.sources, &mut merged);
            self.put(target, merged, choice.keep_tombstones);
        }
    }

    fn compact(&mut self, rng: &mut Rng, number: u8) {
        let (source, target) = (level(number), level(number + 1));
        let plan = self.manifest.plan_level(source, TABLE_VALUE_MAX << (2 * number));
        let busy: Vec<_> = plan.iter().map(|choice| choice.range).collect();
        let small = self.manifest.plan_coalesce(target, TABLE_VALUE_MAX, &busy);
        self.execute(rng, source, target, plan.into_iter().chain(small).collect());
        assert!(self.manifest.value_count(source) <= TABLE_VALUE_MAX << (2 * number));
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
    for seed in 0..6 {
        let mut rng = Rng::with_seed(seed);
        let (manifest, contents, expected) = (Manifest::new(4), BTreeMap::new(), BTreeMap::new());
        let mut model = Model { manifest, contents, expected, address: 1, version: 0 };
        let mut deepest = 0;
        for _ in 0..250 {
            model.flush(&mut rng);
            model.check();
            for source in [0, 2, 1] {
                model.compact(&mut rng, source);
                model.check();
            }
            deepest = deepest.max(model.manifest.value_count(level(3)));
        }
        for number in 1..4 {
            let busy = model.manifest.plan_coalesce(level(number), TABLE_VALUE_MAX, &[]);
            let (source, target) = (level(0), level(number));
            model.execute(&mut rng, source, target, busy);
            assert!(model.manifest.plan_coalesce(target, TABLE_VALUE_MAX, &[]).is_empty());
        }
        model.check();
        assert!(deepest > 0, "the last level was reached");
    }
}
