//! The choice of what leaves a level, against one that tries everything.

use fastrand::Rng;
use understory_format::{KeyRange, u64_of};
use understory_testkit::Coverage;

use crate::testing::{level, manifest, table};
use crate::{Choice, Sink, Table};

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

/// So many random pairs of levels, each drained to a random limit.
pub(super) fn run(seed: u64, coverage: &mut Coverage) {
    let mut rng = Rng::with_seed(seed);
    for _ in 0..100 {
        let mut address = 0;
        let counts = (rng.usize(1..14), rng.usize(0..30));
        let sources = random_level(&mut rng, counts.0, 300, &mut address);
        let targets = random_level(&mut rng, counts.1, 300, &mut address);
        let total: u64 = sources.iter().map(|table| table.info.value_count).sum();
        let limit = rng.u64(0..=total + 1);
        let manifest = manifest(&[sources.clone(), targets.clone()]);
        let plan = manifest.plan_level(level(0), limit, Sink::Nothing);
        let chosen = naive_drain(&sources, &targets, limit);
        assert_eq!(inputs(&plan), naive_join(&chosen, &targets), "seed {seed}");
        let joined = plan.iter().filter(|choice| choice.sources.concat().len() > 1).count();
        coverage.count("choices of several windows", u64_of(joined));
        let kept: u64 = total - chosen.iter().map(|table| table.info.value_count).sum::<u64>();
        assert!(kept <= limit);
        coverage.count("levels drained to just their limit", u64::from(kept == limit && !chosen.is_empty()));
        for choice in &plan {
            assert_eq!(choice.is_move, choice.targets.is_empty());
            assert!(!choice.keep_tombstones);
        }
    }
}
