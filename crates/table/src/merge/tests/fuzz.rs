//! The merge of many sources against a plain sort, from a seed: `cargo xtask fuzz merge`.

use fastrand::Rng;
use understory_format::u64_of;
use understory_testkit::{Coverage, Fuzzer};

use super::*;

const FUZZER: Fuzzer = Fuzzer {
    target: "merge",
    seeds: 60,
    seeds_optimised: 150,
    goals: &[
        ("keys in all sources", 20),
        ("longest stretch of one source", 500),
        ("merges whose sources fail", 40),
        ("most sources", 18),
        ("older versions dropped", 5_000),
        ("sources without a value", 30),
        ("tombstones dropped", 2_000),
    ],
};

#[test]
fn agrees_with_a_sort() {
    FUZZER.run(run);
}

fn run(seed: u64, coverage: &mut Coverage) {
    let mut random = Rng::with_seed(seed);
    let span = [3, 30, 300, 30_000][usize::try_from(seed % 4).unwrap()];
    let sources = match seed % 8 {
        3 => shared(&mut random),
        7 => stretches(&mut random),
        _ => scattered(&mut random, span),
    };
    note(&sources, coverage);
    let budgets = [1, random.u64(2..50), u64::MAX];
    for failures in [0, 7] {
        coverage.count("merges whose sources fail", u64::from(failures > 0));
        match seed / 8 % 3 {
            0 => check::<Short>(&sources, &budgets, failures),
            1 => check::<Tied>(&sources, &budgets, failures),
            _ => check::<Named>(&sources, &budgets, failures),
        }
    }
}

/// What the sort says that these sources come to.
fn note(sources: &[Vec<Item>], coverage: &mut Coverage) {
    coverage.most("most sources", u64_of(sources.len()));
    coverage
        .count("sources without a value", u64_of(sources.iter().filter(|source| source.is_empty()).count()));
    let all = oracle(sources, Direction::Ascending, Tombstones::Drop);
    let mut last = None;
    for ((number, _, tombstone), is_emitted) in all {
        let is_newest = last.replace(number) != Some(number);
        let what = if is_newest { "tombstones dropped" } else { "older versions dropped" };
        assert!(is_emitted || tombstone || !is_newest);
        coverage.count(what, u64::from(!is_emitted));
        let holds = |source: &&Vec<Item>| source.binary_search_by_key(&number, |item| item.0).is_ok();
        let is_in_all =
            is_newest && sources.len() > 2 && sources.iter().filter(holds).count() == sources.len();
        coverage.count("keys in all sources", u64::from(is_in_all));
    }
    for source in sources {
        let others = sources.iter().filter(|other| !core::ptr::eq(*other, source));
        let mut heads: Vec<u64> = others.flatten().map(|item| item.0).collect();
        heads.sort_unstable();
        let stretches = source.chunk_by(|one, next| {
            heads.partition_point(|head| *head < one.0) == heads.partition_point(|head| *head <= next.0)
        });
        coverage.most("longest stretch of one source", u64_of(stretches.map(<[_]>::len).max().unwrap_or(0)));
    }
}

/// Up to 19 sources over numbers below `span`; in some, keys come twice in a source.
fn scattered(random: &mut Rng, span: u64) -> Vec<Vec<Item>> {
    let versions = random.bool();
    let source = |random: &mut Rng| {
        let count = [0, 5, 200][random.usize(..3)];
        random_items(random, count, span, versions)
    };
    (0..random.usize(1..20)).map(|_| source(random)).collect()
}

/// Sources that have all keys in common but for a few.
fn shared(random: &mut Rng) -> Vec<Vec<Item>> {
    let numbers: Vec<u64> = (0..random.u64(1..100)).map(|number| 7 + 3 * number).collect();
    let mut sources = vec![Vec::new(); random.usize(1..20)];
    for (tag, source) in (0..).zip(&mut sources) {
        for number in numbers.iter().filter(|_| random.u8(..40) > 0).collect::<Vec<_>>() {
            source.push((*number, tag, random.u8(..3) == 0));
        }
    }
    sources
}

/// Sources that take turns with up to 800 neighbouring keys.
fn stretches(random: &mut Rng) -> Vec<Vec<Item>> {
    let mut sources = vec![Vec::new(); random.usize(2..10)];
    let mut number = 0;
    while number < 6_000 {
        let source = random.usize(..sources.len());
        for _ in 0..random.usize(1..800) {
            number += random.u64(1..3);
            sources[source].push((number, 0, random.u8(..16) == 0));
        }
    }
    sources
}

/// Up to `count` items over numbers below `span`, ascending; with `versions`, keys may come twice in a source.
fn random_items(random: &mut Rng, count: usize, span: u64, versions: bool) -> Vec<Item> {
    let mut numbers: Vec<u64> = (0..random.usize(0..=count)).map(|_| random.u64(0..span)).collect();
    numbers.sort_unstable();
    if !versions {
        numbers.dedup();
    }
    numbers.into_iter().map(|number| (number, random.u32(..), random.u8(..3) == 0)).collect()
}
