//! Space: what removes and overwrites leave behind goes away, and with it what scans read.

use understory::{Batch, Database, Geometry, Machine, Options, Stats};

use understory::Error;
use understory_io::{SimStorage, Storage};

use crate::common::{Account, create_sim, in_runs, open_sim, options, reboot, without_journal};

/// Accounts that a tree is filled with and emptied of.
const IDS: u64 = 20_000;
/// Accounts of a file that is far larger than a bar and its upper levels.
const MANY: u64 = 150_000;

fn small_cache(options: Options) -> Options {
    options.memory(32 << 20)
}

/// Spreads ids over all keys: neighbours in time are none in the tree.
fn scattered(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
}

/// Puts or removes these accounts, as many to a batch as fit.
fn change(database: &Database, numbers: impl Iterator<Item = u64>, round: Option<u8>) {
    let limit = u64::from(database.geometry().batch_size_max);
    let mut batch = Batch::new();
    for number in numbers {
        match round {
            Some(round) => batch.put(&Account { id: scattered(number).into(), body: [round; 40] }),
            None => batch.remove::<Account>(scattered(number)),
        }
        if batch.size() + 64 > limit {
            database.commit(&batch).unwrap();
            batch.clear();
        }
    }
    database.commit(&batch).unwrap();
}

fn tombstones(stats: &Stats) -> u64 {
    stats.trees.iter().flat_map(|tree| &tree.levels).map(|level| level.tombstone_count).sum()
}

/// Blocks and pages that a scan over all keys asks for, in cache or not.
fn scan_cost(database: &Database, expected: usize) -> u64 {
    let asked = |stats: Stats| {
        let grid = stats.grid;
        grid.block_hits + grid.block_misses + grid.page_hits + grid.page_misses
    };
    let before = asked(database.stats());
    assert_eq!(database.scan::<Account>(..).unwrap().map(Result::unwrap).count(), expected);
    asked(database.stats()) - before
}

/// Fills and empties a tree ten times; `removed` are the numbers in the order in which they go.
fn check_emptied(options: &Options, removed: impl Fn() -> Box<dyn Iterator<Item = u64>>) {
    let (machine, _storage) = Machine::sim(71);
    let database = create_sim(&machine, options).unwrap();
    database.settle().unwrap();
    let empty = database.stats();
    let never_filled = scan_cost(&database, 0);
    for round in 0..10 {
        change(&database, 0..IDS, Some(round));
        change(&database, removed(), None);
        database.settle().unwrap();
        let stats = database.stats();
        assert_eq!(tombstones(&stats), 0, "round {round}: {stats}");
        assert_eq!(stats.trees[0].levels.iter().map(|level| level.table_count).sum::<u64>(), 0, "{stats}");
        assert!(
            stats.grid_size * 10 <= empty.grid_size * 11,
            "round {round}: {} bytes, empty it has {}",
            stats.grid_size,
            empty.grid_size
        );
        assert!(scan_cost(&database, 0) <= 2 * never_filled, "round {round}");
    }
}

#[test]
fn a_tree_that_is_filled_and_emptied_is_empty() {
    for options in [options(), in_runs(), without_journal()] {
        check_emptied(&small_cache(options), || Box::new(0..IDS));
    }
    check_emptied(&small_cache(options()), || Box::new((0..IDS).rev()));
}

/// What is removed lies deep, and the tombstones are too few to leave level 1 by themselves.
#[test]
fn tombstones_that_fit_a_level_meet_what_they_hide() {
    let (machine, _storage) = Machine::sim(77);
    let database = create_sim(&machine, &small_cache(options())).unwrap();
    change(&database, 0..IDS, Some(1));
    database.settle().unwrap();
    change(&database, (0..IDS).step_by(20), None);
    database.settle().unwrap();
    let stats = database.stats();
    let values: u64 = stats.trees[0].levels.iter().map(|level| level.value_count).sum();
    assert_eq!((tombstones(&stats), values), (0, 19_000), "{stats}");
    assert_eq!(database.scan::<Account>(..).unwrap().count(), 19_000);
}

/// Bytes of the live records of the tree.
fn live(count: u64) -> u64 {
    count * 48
}

/// After random ingest, after overwriting all of it twice, and after most of it was removed.
fn check_space(options: &Options) {
    let (machine, storage) = Machine::sim(72);
    let database = create_sim(&machine, options).unwrap();
    let mut peak = 0;
    let mut load = |round, stage: &str, tenths: u64| {
        for first in (0..MANY).step_by(1000) {
            change(&database, first..first + 1000, Some(round));
            peak = peak.max(database.stats().grid_size);
        }
        println!("{stage}: {peak} bytes at most for {} live", live(MANY));
        assert!(peak * 10 <= live(MANY) * tenths, "{stage}: {peak} bytes at most for {} live", live(MANY));
    };
    let check_settled = |stage: &str| {
        database.settle().unwrap();
        let (size, space) = (database.stats().grid_size, database.stats().space);
        assert!(size * 2 <= live(MANY) * 3, "{stage}: {size} bytes for {} live, {space:?}", live(MANY));
        size
    };
    load(0, "loaded", 25);
    let whole = check_settled("loaded");
    // All that is in the upper levels, a large part of so small a tree, is further down a second time: more than the two
    // and a half times that are the goal.
    load(1, "overwritten", 38);
    load(2, "overwritten twice", 38);
    check_settled("overwritten");
    // What stays is scattered over all tables.
    change(&database, (0..MANY).filter(|number| number % 10 > 0), None);
    let shrunk = check_settled("mostly removed");
    assert!(shrunk * 5 < whole, "{shrunk} bytes of {whole}");
    assert_eq!(database.scan::<Account>(..).unwrap().count(), 15_000);
    drop(database);
    let (machine, _storage) = reboot(&storage, 73);
    let database = open_sim(&machine, options).unwrap();
    assert_eq!(database.scan::<Account>(..).unwrap().count(), 15_000);
}

#[test]
fn what_the_file_takes_is_in_proportion_to_what_is_live() {
    // Two index blocks are a small part of a table, as they are by default.
    let geometry = Geometry { block_size: 8 << 10, table_blocks: 16, growth: 8, ..Geometry::small() };
    check_space(&small_cache(options()).geometry(geometry.with_journal()));
    check_space(&small_cache(options()).geometry(geometry.with_runs(3).with_journal()));
    // Without a journal, checkpoints at each bar too: what is released waits for two of them.
    let geometry = Geometry { interval_min: 64 << 10, interval_max: 64 << 10, ..geometry };
    check_space(&small_cache(without_journal()).geometry(geometry));
}

/// Commits new accounts until there is no space; gives their number.
fn fill(database: &Database, from: u64) -> u64 {
    let mut batch = Batch::new();
    for number in from.. {
        batch.clear();
        (0..100).for_each(|n| {
            batch.put(&Account { id: (number * 100 + n).into(), body: [1; 40] });
        });
        let op = database.stats().op;
        match database.commit(&batch) {
            Ok(_) => {}
            Err(Error::OutOfSpace { .. }) => {
                // The end of a half-bar is an op; the batch is none.
                assert_eq!(database.get::<Account>(number * 100).unwrap(), None, "after op {op}");
                assert_eq!(
                    database.scan::<Account>(..).unwrap().count(),
                    usize::try_from(number * 100).unwrap()
                );
                return number;
            }
            Err(other) => panic!("a full file gives OutOfSpace, not {other}"),
        }
    }
    unreachable!("a limit is met")
}

fn reopen(storage: &SimStorage, limit: Option<u64>) -> (Result<Database, Error>, std::sync::Arc<SimStorage>) {
    let (machine, storage) = reboot(storage, 75);
    let options = limit.into_iter().fold(options(), Options::size_limit);
    (open_sim(&machine, &options), storage)
}

#[track_caller]
fn too_small(result: Result<Database, Error>, asked: u64) -> u64 {
    match result {
        Err(Error::OptionTooSmall { option: "size_limit", needed, given }) if given == asked => needed,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_at_its_limit_is_opened_with_a_larger_one() {
    let geometry = options().geometry.unwrap();
    let limit = geometry.grid_offset() + 150 * 4096;
    let (machine, storage) = Machine::sim(74);
    let database = create_sim(&machine, &options().size_limit(limit)).unwrap();
    assert!(!database.stats().pace.is_refused, "nobody has asked for space yet");
    let first = fill(&database, 0);
    assert!(database.stats().pace.is_refused);
    assert!(first > 0 && storage.size() <= limit);
    drop(database);

    // The limit is the file's: without one the file keeps it, and it stays full.
    let (database, storage) = reopen(&storage, None);
    let database = database.unwrap();
    assert_eq!(fill(&database, first), first);
    drop(database);

    // Below what the file has there is none, to the byte.
    let size = storage.size();
    let (refused, storage) = reopen(&storage, Some(size - 1));
    assert_eq!(too_small(refused, size - 1), size);
    let (database, storage) = reopen(&storage, Some(size));
    assert_eq!(fill(&database.unwrap(), first), first);

    // A larger one lets it go on, and stays.
    let (database, storage) = reopen(&storage, Some(limit + 200 * 4096));
    let second = fill(&database.unwrap(), first);
    assert!(second > first + 10, "{first}, then {second}");
    let (database, storage) = reopen(&storage, None);
    assert_eq!(fill(&database.unwrap(), second), second);
    assert!(storage.size() > limit && storage.size() <= limit + 200 * 4096);

    // With no limit at all what was half done ends; and what was removed leaves room under the one before.
    let (database, storage) = reopen(&storage, Some(u64::MAX));
    let database = database.unwrap();
    for number in 1..second {
        let mut batch = Batch::new();
        (0..100).for_each(|n| batch.remove::<Account>(number * 100 + n));
        database.commit(&batch).unwrap();
    }
    database.settle().unwrap();
    assert_eq!(database.scan::<Account>(..).unwrap().count(), 100);
    let acquired = database.stats().space.acquired;
    assert!(acquired < 50, "{acquired} blocks");
    drop(database);
    let limit = storage.size();
    let (database, _storage) = reopen(&storage, Some(limit));
    let third = fill(&database.unwrap(), 1);
    assert!(third * 2 > second, "{second} at first, {third} again");
}

#[test]
fn a_limit_without_room_for_a_file_is_told() {
    let geometry = options().geometry.unwrap();
    let (machine, storage) = Machine::sim(76);
    let needed = too_small(create_sim(&machine, &options().size_limit(0)), 0);
    assert_eq!(needed, geometry.grid_offset() + 4 * 4096);
    assert_eq!(too_small(create_sim(&machine, &options().size_limit(needed - 1)), needed - 1), needed);
    assert_eq!(storage.size(), 0, "nothing was made");
    let database = create_sim(&machine, &options().size_limit(needed)).unwrap();
    assert_eq!(fill(&database, 0), 0);
}
