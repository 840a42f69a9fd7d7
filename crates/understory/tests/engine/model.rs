//! A million random effects over three trees against `BTreeMap`s, with checkpoints, settles and reopens.
use crate::common::{
    Account, ByOwner, Event, User, create_sim, in_runs, open_sim, options, reboot, without_journal,
};
use std::ops::Bound;
use understory::{Batch, Database, Machine, Options, Stats};

/// Puts and removes in an optimised build; a debug build does a part of it.
const EFFECTS: u64 = if cfg!(debug_assertions) { 60_000 } else { 1_000_000 };

#[test]
fn a_forest_answers_as_its_model_does() {
    check(&options());
}

#[test]
fn it_does_so_without_a_journal() {
    check(&without_journal());
}

#[test]
fn and_with_level_0_in_runs() {
    check(&in_runs());
}

fn check(options: &Options) {
    let (machine, mut storage) = Machine::sim(11);
    let mut database = create_sim(&machine, options).unwrap();
    let mut user = User::new(12, 60_000);
    let mut batch = Batch::new();
    let (mut reads, mut reopens, mut checkpoints) = (0, 0, 0);
    while user.effects < EFFECTS {
        let count = if user.rng.u8(0..4) == 0 { user.rng.u64(0..4) } else { user.rng.u64(1..90) };
        user.fill(&mut batch, count);
        database.commit(&batch).unwrap();
        reads += read_some(&mut user, &database);
        match user.rng.u32(0..2_000) {
            0 => {
                database.settle().unwrap();
                user.model.check(&database).unwrap();
            }
            1..=5 => {
                database.checkpoint().unwrap();
                checkpoints += 1;
            }
            6..=8 => {
                // A journal has everything, whether the handle is closed or dropped.
                if options.geometry.is_some_and(|geometry| geometry.has_journal()) && user.rng.bool() {
                    drop(database);
                } else {
                    database.close().unwrap();
                }
                let (machine, next) = reboot(&storage, user.rng.u64(..));
                storage = next;
                database = open_sim(&machine, options).unwrap();
                user.model.check(&database).unwrap();
                reopens += 1;
            }
            _ => {}
        }
    }
    user.model.check(&database).unwrap();
    let stats = database.stats();
    report(&stats, &user, reads, reopens, checkpoints);
    assert!(reopens > 0 && checkpoints > 0, "the run reaches both");
    let populated = |level: usize| stats.trees.iter().any(|tree| tree.levels[level].table_count > 0);
    let levels = if cfg!(debug_assertions) { 0..2 } else { 0..4 };
    database.settle().unwrap();
    user.model.check(&database).unwrap();
    for level in levels {
        assert!(populated(level), "level {level} is populated");
    }
}

fn report(stats: &Stats, user: &User, reads: u64, reopens: u32, checkpoints: u32) {
    println!("{} effects, {reads} reads, {reopens} reopens, {checkpoints} checkpoints", user.effects);
    println!("{} live records, {:?}, {:?}", user.model.len(), stats.space, stats.compaction);
    for tree in &stats.trees {
        let tables: Vec<_> = tree.levels.iter().map(|level| level.table_count).collect();
        let tombstones: u64 = tree.levels.iter().map(|level| level.tombstone_count).sum();
        println!("{}: tables by level {tables:?}, {tombstones} tombstones", tree.name);
    }
}

/// A few gets and short scans, at keys that are there, were there, and lie beside those.
fn read_some(user: &mut User, database: &Database) -> u64 {
    for _ in 0..3 {
        let id = user.id();
        assert_eq!(database.get::<Account>(id).unwrap(), user.model.accounts.get(&id).copied());
        let time = user.old_time();
        assert_eq!(database.get::<Event>(time).unwrap(), user.model.events.get(&time).copied());
    }
    if user.rng.u8(0..8) == 0 {
        scan_accounts(user, database);
        scan_owner(user, database);
    }
    6
}

fn scan_accounts(user: &mut User, database: &Database) {
    let (a, b) = (user.id(), user.id());
    // Bounds at keys that are there and right beside them, included and not.
    let low = user.model.accounts.range(a.min(b)..).next().map_or(a.min(b), |(id, _)| *id);
    let high = a.max(b).max(low);
    let bound = |rng: &mut fastrand::Rng, id: u64| match rng.u8(0..4) {
        0 => Bound::Excluded(id),
        1 => Bound::Included(id.saturating_add(1)),
        2 => Bound::Included(id.saturating_sub(1)),
        _ => Bound::Included(id),
    };
    let range = (bound(&mut user.rng, low), bound(&mut user.rng, high));
    let is_valid = match range {
        (Bound::Excluded(low), Bound::Excluded(high)) => low < high,
        (Bound::Excluded(low) | Bound::Included(low), Bound::Excluded(high) | Bound::Included(high)) => {
            low <= high
        }
        _ => true,
    };
    let found = database.scan::<Account>(range).unwrap().take(50).map(Result::unwrap);
    let found_back = database.scan_rev::<Account>(range).unwrap().take(50).map(Result::unwrap);
    if is_valid {
        assert!(found.eq(user.model.accounts.range(range).take(50).map(|(_, account)| *account)));
        assert!(found_back.eq(user.model.accounts.range(range).rev().take(50).map(|(_, account)| *account)));
    } else {
        assert_eq!(found.count() + found_back.count(), 0, "an empty range has no records");
    }
}

fn scan_owner(user: &mut User, database: &Database) {
    let owner = user.rng.u16(0..17);
    let range = (owner, u64::MIN)..=(owner, u64::MAX);
    let found = database.scan::<ByOwner>(range.clone()).unwrap().take(40).map(Result::unwrap);
    assert!(found.eq(user.model.owners.range(range).take(40).map(|(_, entry)| *entry)));
}
