//! Figures: they add up, with each other and with what the storage saw, and asking for them waits for nothing.

use std::sync::Arc;
use std::time::Duration;

use crate::common::{User, create_sim, open_sim, options, reboot, schema, without_journal};
use understory::{Batch, Database, Machine, Stats};
use understory_io::{CrashPolicy, SimFaultPlan, SimStorage, SimThreads, Storage};

const SECOND: Duration = Duration::from_secs(1);

/// Every operation that is not done at once takes up to this much longer.
fn delay(storage: &SimStorage, delay_max: Duration) {
    storage.set_plan(Some(SimFaultPlan { delayed: 1_000_000, delay_max, ..SimFaultPlan::default() }));
}

fn commit_some(database: &Database, user: &mut User, batches: u32) -> u64 {
    let mut batch = Batch::new();
    let mut effects = 0;
    for _ in 0..batches {
        user.fill(&mut batch, 60);
        database.commit(&batch).unwrap();
        effects += batch.len();
    }
    effects
}

/// What holds at any time.
fn check_identities(stats: &Stats) {
    let compaction = stats.compaction;
    assert_eq!(compaction.consumed, compaction.produced + compaction.dropped, "{stats}");
    let by_level = stats.trees.iter().flat_map(|tree| &tree.levels);
    assert_eq!(compaction.dropped, by_level.map(|level| level.compaction.dropped).sum(), "{stats}");
    assert_eq!(stats.pace.done_total + stats.pace.quota, stats.pace.quota_total, "{stats}");
    assert!(stats.waits.beat.total + stats.waits.checkpoint.total <= stats.closes.total, "{stats}");
    assert!(stats.commits_beside_checkpoints.count() <= stats.commits.count(), "{stats}");
}

/// Of a file at rest: all that was handed over was written, and nothing else was.
fn check_written(stats: &Stats, storage: &SimStorage, before: &understory::Counters) {
    let seen = storage.counters().since(before);
    assert_eq!(stats.written().total(), seen.bytes_written, "{stats}");
    assert_eq!(stats.allocated_size, stats.file_size - storage.holes() * 4096, "{stats}");
    // Superblocks and checkpoints sync, too.
    assert!(stats.journal.syncs.count < seen.syncs, "{stats}");
    let tables = stats.trees.iter().flat_map(|tree| &tree.levels).map(|level| level.size).sum::<u64>();
    assert!(tables <= stats.space.acquired * u64::from(stats.block_size), "{stats}");
}

#[test]
fn bytes_written_are_what_the_storage_saw() {
    for options in [options(), without_journal()] {
        let (machine, storage) = Machine::sim(61);
        let geometry = options.geometry.unwrap();
        let path = std::path::Path::new("simulated");
        Database::format(&machine, path, &schema(), &geometry, &options).unwrap();
        let before = storage.counters();
        let database = open_sim(&machine, &options).unwrap();
        let mut user = User::new(62, 3_000);
        let mut effects = 0;
        for _ in 0..4 {
            effects += commit_some(&database, &mut user, 150);
            check_identities(&database.stats());
            database.settle().unwrap();
            let stats = database.stats();
            check_identities(&stats);
            check_written(&stats, &storage, &before);
            assert_eq!(stats.trees.iter().map(|tree| tree.appended).sum::<u64>(), effects);
            assert_eq!(stats.journal.bytes_written > 0, geometry.has_journal());
            let written = stats.written();
            assert!([written.tables, written.manifest, written.trailers].iter().all(|bytes| *bytes > 0));
            assert!(stats.write_amplification() > 1.0 && stats.space_amplification() > 1.0, "{stats}");
            // All are in tables, and nothing hides there: level 0 is empty, and what is deeper has been merged.
            let memtables = stats.trees.iter().map(|tree| tree.mutable_count + tree.immutable_count);
            assert_eq!(memtables.sum::<u64>(), 0);
            assert!(stats.record_size() >= live_size(&user), "{stats}");
        }
        assert_eq!(database.stats().commits.count(), 600);
        assert_eq!(database.stats().pace.quota, 0, "nothing is left to be compacted");
    }
}

fn live_size(user: &User) -> u64 {
    let model = &user.model;
    let size = model.accounts.len() * 48 + model.owners.len() * 10 + model.events.len() * 24;
    u64::try_from(size).unwrap()
}

/// What replay writes again counts, and what it applies.
#[test]
fn a_replay_is_counted() {
    let (machine, storage) = Machine::sim(63);
    let database = create_sim(&machine, &options()).unwrap();
    let mut user = User::new(64, 3_000);
    commit_some(&database, &mut user, 400);
    storage.crash(CrashPolicy::DropUnsynced);
    drop(database);
    let (machine, storage) = reboot(&storage, 65);
    let before = storage.counters();
    let database = open_sim(&machine, &options()).unwrap();
    let stats = database.stats();
    check_identities(&stats);
    let replayed: u64 = stats.trees.iter().map(|tree| tree.appended).sum();
    assert!(replayed > 0 && replayed < user.effects, "{stats}");
    assert_eq!(
        (stats.commits.count(), stats.journal.bytes_written),
        (0, 0),
        "no commit, and nothing journaled"
    );
    database.settle().unwrap();
    check_written(&database.stats(), &storage, &before);
    user.model.check(&database).unwrap();
}

#[test]
fn slow_storage_shows_in_waits_and_latencies() {
    let run = |delay_max: Duration| {
        let (machine, storage) = Machine::sim(66);
        let database = create_sim(&machine, &options()).unwrap();
        delay(&storage, delay_max);
        let mut user = User::new(67, 3_000);
        // No bar has ended, so that there was no checkpoint.
        commit_some(&database, &mut user, 2);
        let stats = database.stats();
        assert_eq!((stats.commits.count(), stats.commits_beside_checkpoints.count()), (2, 0));
        assert_eq!(stats.checkpoints.count, 0);
        commit_some(&database, &mut user, 298);
        database.stats()
    };
    let (fast, slow) = (run(Duration::ZERO), run(4 * SECOND));
    for stats in [&fast, &slow] {
        check_identities(stats);
        assert_eq!(stats.commits.count(), 300);
        let beside = stats.commits_beside_checkpoints.count();
        assert!(stats.checkpoints.count > 2 && beside >= stats.checkpoints.count && beside < 300, "{stats}");
        assert!(stats.waits.checkpoint.count > 0, "{stats}");
        assert!(stats.journal.syncs.count >= 300, "{stats}");
        // Every commit waits for a write and a sync of its own.
        assert!(stats.commits.total() >= stats.journal.writes.total + stats.journal.syncs.total, "{stats}");
        assert!(stats.commits.max() >= stats.waits.checkpoint.max, "{stats}");
        assert_eq!(stats.waits.ring.count, 0, "a ring is large enough");
    }
    let shown = [
        (fast.commits.max(), slow.commits.max()),
        (fast.commits_beside_checkpoints.max(), slow.commits_beside_checkpoints.max()),
        (fast.waits.checkpoint.max, slow.waits.checkpoint.max),
        (fast.checkpoints.max, slow.checkpoints.max),
        (fast.journal.syncs.max, slow.journal.syncs.max),
        (fast.journal.writes.max, slow.journal.writes.max),
    ];
    for (fast, slow) in shown {
        assert!(fast < SECOND / 10 && slow > SECOND, "{fast:?}, {slow:?}");
    }
}

#[test]
fn a_commit_that_fails_is_none() {
    let (machine, storage) = Machine::sim(68);
    let database = create_sim(&machine, &options()).unwrap();
    let mut user = User::new(69, 3_000);
    commit_some(&database, &mut user, 3);
    let mut batch = Batch::new();
    user.fill(&mut batch, 10_000);
    assert!(database.commit(&batch).is_err(), "it is too large");
    storage.set_plan(Some(SimFaultPlan { sync_fails: 1_000_000, ..SimFaultPlan::default() }));
    user.fill(&mut batch, 10);
    assert!(database.commit(&batch).is_err());
    assert_eq!(database.stats().commits.count(), 3);
}

type Body<'a> = Box<dyn FnOnce() + Send + 'a>;

/// In a simulation time goes on only while somebody waits. Others are in the middle of closes, syncs and checkpoints.
#[test]
fn asking_waits_for_nothing() {
    let (machine, storage) = Machine::sim(70);
    let database = create_sim(&machine, &options()).unwrap();
    delay(&storage, SECOND);
    let (database, machine) = (&database, &machine);
    let asked = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let ask = {
        let asked = Arc::clone(&asked);
        move || {
            let key = understory_io::fresh_key();
            for _ in 0..2_000 {
                let before = machine.clock.now();
                let stats = database.stats();
                assert_eq!(machine.clock.now(), before, "somebody was waited for");
                check_identities(&stats);
                asked.fetch_add(u64::from(stats.commits.count() < 200), std::sync::atomic::Ordering::Relaxed);
                let pause = machine.park.now() + SECOND / 5;
                let _over = machine.park.park_until_deadline(key, pause, &mut || false);
            }
        }
    };
    let commit = move || {
        commit_some(database, &mut User::new(71, 3_000), 200);
        database.settle().unwrap();
    };
    let (ask, commit): (Body<'_>, Body<'_>) = (Box::new(ask), Box::new(commit));
    SimThreads::run(&storage.scheduler(), vec![("ask", ask), ("commit", commit)]);
    assert!(asked.load(std::sync::atomic::Ordering::Relaxed) > 500, "it was asked beside commits");
}
