//! The journal through the facade: what survives, what is refused, what is said when it fails.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::common::{Account, Model, User, create_sim, open_sim, options, reboot, schema};
use understory::{Batch, Database, Durability, Error, Failure, Machine, Recovery};
use understory_format::Superblock;
use understory_io::{CrashPolicy, IoCause, IoError, SimStorage, Storage};
use zerocopy::IntoBytes;

/// A database with some batches in it, and what it ought to hold.
struct Scene {
    storage: Arc<SimStorage>,
    database: Database,
    user: User,
}

impl Scene {
    fn new(seed: u64, batches: u32) -> Self {
        let (machine, storage) = Machine::sim(seed);
        let database = create_sim(&machine, &options()).unwrap();
        let mut scene = Self { storage, database, user: User::new(seed, 500) };
        scene.commit_all(batches);
        scene
    }

    fn commit_all(&mut self, batches: u32) {
        for _ in 0..batches {
            self.commit(Durability::Synced).unwrap();
        }
    }

    /// Commits a random batch; the model has it whatever comes of it.
    fn commit(&mut self, durability: Durability) -> Result<u64, Error> {
        let mut batch = Batch::new();
        self.user.fill(&mut batch, 40);
        self.database.commit_with(&batch, durability).map(understory::Op::get)
    }

    fn check(&self) {
        self.user.model.check(&self.database).unwrap();
    }

    /// The machine stops; what survives is opened.
    fn crash(self, policy: CrashPolicy) -> Database {
        self.storage.crash(policy);
        drop(self.database);
        let (machine, _storage) = reboot(&self.storage, 7);
        open_sim(&machine, &options()).unwrap()
    }
}

#[test]
fn what_was_committed_survives_with_nothing_else_done() {
    for batches in [0, 1, 2, 37, 300] {
        let scene = Scene::new(51, batches);
        let model = scene.user.model.clone();
        model.check(&scene.crash(CrashPolicy::DropUnsynced)).unwrap();
    }
}

/// Of buffered commits a prefix survives, with all that was synced.
#[test]
fn buffered_commits_survive_from_a_sync_on() {
    for last_synced in [0, 5, 19, 20] {
        let mut scene = Scene::new(52, 10);
        let mut models = vec![scene.user.model.clone()];
        for index in 0..20 {
            if index == last_synced {
                scene.database.sync().unwrap();
                assert_eq!(scene.database.durable_op(), scene.database.visible_op());
            }
            scene.commit(Durability::Buffered).unwrap();
            scene.check();
            models.push(scene.user.model.clone());
        }
        if last_synced == 20 {
            scene.database.sync().unwrap();
        }
        let database = scene.crash(CrashPolicy::KeepSubset(last_synced));
        let found = models.iter().position(|model| model.check_quietly(&database));
        let found = found.expect("a prefix of the commits");
        assert!(u64::try_from(found).unwrap() >= last_synced, "{found} of 20, synced at {last_synced}");
    }
}

impl Model {
    fn check_quietly(&self, database: &Database) -> bool {
        let rows = database.scan::<Account>(..).unwrap().map(Result::unwrap);
        rows.eq(self.accounts.values().copied())
    }
}

/// A crash and a replay leave the same bytes as a run that was never stopped.
#[test]
fn a_replayed_file_goes_on_as_an_uncrashed_one() {
    let mut twin = Scene::new(53, 400);
    twin.database.checkpoint().unwrap();
    for batches in [1, 60, 211, 399] {
        let mut scene = Scene::new(53, batches);
        scene.storage.crash(CrashPolicy::KeepSubset(3));
        let (machine, storage) = reboot(&scene.storage, 9);
        scene.database = open_sim(&machine, &options()).unwrap();
        scene.storage = storage;
        scene.commit_all(400 - batches);
        scene.database.checkpoint().unwrap();
        assert_eq!(scene.user.model, twin.user.model);
        assert_eq!(scene.database.visible_op(), twin.database.visible_op());
        assert_eq!(scene.database.checkpoint_id(), twin.database.checkpoint_id(), "after {batches} batches");
        scene.check();
    }
    twin.commit_all(50);
    twin.check();
}

/// Each write and sync of a few commits fails in turn: the commit says so, no other is taken, reads go on, and what
/// was acknowledged is there after the next open.
#[test]
fn a_failed_write_ends_the_handle_and_says_why() {
    let operations = {
        let mut scene = Scene::new(54, 20);
        let before = scene.storage.operations();
        scene.commit_all(3);
        before..scene.storage.operations()
    };
    let mut unknown = 0;
    for operation in operations {
        let mut scene = Scene::new(54, 20);
        scene.storage.inject(operation, IoCause::Injected);
        let mut models = vec![scene.user.model.clone()];
        let failed = (0..3).find_map(|_| {
            let failed = scene.commit(Durability::Synced).err();
            models.push(scene.user.model.clone());
            failed
        });
        let Some(error) = failed else { continue };
        // The op that fails may be the end of a half-bar, staged before the batch.
        let (Error::CommitUnknown { cause, .. } | Error::Poisoned { cause }) = &error else {
            panic!("{error}")
        };
        assert!(matches!(cause, Failure::Io(IoError { source: IoCause::Injected, .. })), "{cause}");
        unknown += u32::from(matches!(error, Error::CommitUnknown { .. }));
        let calls = [
            scene.database.commit(&Batch::new()).map(drop),
            scene.database.checkpoint(),
            scene.database.sync(),
        ];
        for again in calls {
            let Err(Error::Poisoned { cause: first }) = again else { panic!("{again:?}") };
            assert_eq!(first, *cause, "the first error is repeated");
        }
        let last = models.len() - 2;
        models[last].check(&scene.database).unwrap();
        let (machine, _storage) = reboot(&scene.storage, 1);
        let database = open_sim(&machine, &options()).unwrap();
        let whole = models[last..].iter().any(|model| model.check_quietly(&database));
        assert!(
            whole,
            "operation {operation}: what was acknowledged, and the last batch whole or not at all"
        );
    }
    assert!(unknown >= 6, "{unknown} of the writes and syncs of three commits");
}

/// Also where everything was in tables before.
#[test]
fn a_handle_that_failed_does_not_close_well() {
    let mut scene = Scene::new(61, 20);
    scene.database.checkpoint().unwrap();
    scene.storage.inject(scene.storage.operations(), IoCause::Injected);
    let error = scene.commit(Durability::Synced).unwrap_err();
    assert!(matches!(error, Error::CommitUnknown { .. }), "{error}");
    let closed = scene.database.close();
    assert!(matches!(closed, Err(Error::Poisoned { .. })), "{closed:?}");
}

/// Damage to acknowledged ops: open names them and changes nothing; salvage gives them up, and says so in the file.
#[test]
fn damage_in_the_journal_is_told_and_can_be_cut_off() {
    let mut scene = Scene::new(55, 3);
    let model = scene.user.model.clone();
    let kept = scene.database.visible_op();
    let before = scene.storage.image();
    scene.commit(Durability::Synced).unwrap();
    let damaged = first_difference(&before, &scene.storage.image());
    scene.commit_all(4);
    let last = scene.database.visible_op();
    scene.storage.corrupt(damaged + 100, 1);
    let image = scene.storage.image();
    let (machine, storage) = Machine::sim_from(image.clone(), 3);
    let error = open_sim(&machine, &options()).unwrap_err();
    let Error::JournalDamaged { source, .. } = &error else { panic!("{error}") };
    let understory::JournalError::Damaged { first, last: known, .. } = source else { panic!("{source}") };
    assert_eq!(*first, kept.next());
    // The last group has no witness yet.
    assert_eq!(known.get() + 1, last.get());
    assert!(storage.image() == image, "nothing was changed");
    let path = Path::new("simulated");
    let salvaged = Database::salvage_machine(machine, path, &schema(), &options()).unwrap();
    assert_eq!(salvaged.visible_op(), kept);
    model.check(&salvaged).unwrap();
    let mut batch = Batch::new();
    batch.put(&Account { id: 77.into(), body: [7; 40] });
    salvaged.commit(&batch).unwrap();
    drop(salvaged);
    let (machine, _storage) = reboot(&storage, 4);
    let database = open_sim(&machine, &options()).unwrap();
    assert_eq!(database.get::<Account>(77).unwrap().map(|account| account.body), Some([7; 40]));
    let local = database.with_forest(|forest| forest.grid().local_state());
    assert_eq!((local.salvaged_op, local.salvage_count), (kept, 1));
}

/// Ops that the checkpoint counts, and that no table has yet, cannot be given up: salvage says so, and tables are read still.
#[test]
fn what_a_checkpoint_counts_is_beyond_salvage() {
    let mut scene = Scene::new(61, 3);
    let mut places = Vec::new();
    let (start, counted) = loop {
        let before = scene.storage.image();
        let number = scene.database.stats().checkpoint_number;
        scene.commit(Durability::Synced).unwrap();
        if scene.database.stats().checkpoint_number == number {
            places.push((scene.database.visible_op(), first_difference(&before, &scene.storage.image())));
        }
        let state = scene.database.with_forest(|forest| forest.grid().checkpoint_state());
        let counted = places.iter().find(|(op, _)| *op > state.op_flushed && *op <= state.op_checkpoint);
        if let Some(&(_, offset)) = counted {
            break (state, offset);
        }
    };
    scene.storage.corrupt(counted + 100, 1);
    let (machine, storage) = reboot(&scene.storage, 3);
    let image = storage.image();
    assert!(matches!(open_sim(&machine, &options()), Err(Error::JournalDamaged { .. })));
    let (machine, _storage) = Machine::sim_from(image.clone(), 3);
    let path = Path::new("simulated");
    let error = Database::salvage_machine(machine, path, &schema(), &options()).unwrap_err();
    let Error::BeyondSalvage { op_checkpoint, .. } = &error else { panic!("{error}") };
    assert_eq!(*op_checkpoint, start.op_checkpoint);
    assert!(storage.image() == image, "nothing was changed");
    let (machine, _storage) = Machine::sim_from(image, 3);
    let tables = Database::open_machine(machine, path, &schema(), &options(), true).unwrap();
    assert_eq!(tables.visible_op(), start.op_flushed);
    assert!(tables.scan::<Account>(..).unwrap().all(|account| account.is_ok()));
}

/// Damage to commits is not a torn end once a call of `sync` has covered them, even if nothing came after it, and whether
/// or not it was the last of them that made them durable.
#[test]
fn what_a_sync_covered_is_damage() {
    for last in [Durability::Buffered, Durability::Synced] {
        check_damage_behind_sync(last);
    }
}

fn check_damage_behind_sync(last: Durability) {
    let mut scene = Scene::new(58, 3);
    let kept = scene.database.visible_op();
    let before = scene.storage.image();
    for _ in 0..8 {
        scene.commit(Durability::Buffered).unwrap();
    }
    scene.commit(last).unwrap();
    let damaged = first_difference(&before, &scene.storage.image());
    scene.database.sync().unwrap();
    scene.storage.corrupt(damaged + 100, 1);
    let (machine, _storage) = reboot(&scene.storage, 3);
    let error = open_sim(&machine, &options()).unwrap_err();
    let Error::JournalDamaged { source, .. } = &error else { panic!("{error}") };
    let understory::JournalError::Damaged { first, last, .. } = source else { panic!("{source}") };
    assert_eq!((*first, *last), (kept.next(), scene.database.visible_op()));
}

/// Good checksums, and a journal that fits: still memtables hold one bar.
#[test]
fn a_replay_that_would_begin_bars_too_early_is_refused() {
    let mut scene = Scene::new(59, 0);
    let mut starts = Vec::new();
    while starts.len() < 4 {
        let number = |scene: &Scene| scene.database.stats().checkpoint_number;
        let before = number(&scene);
        scene.commit(Durability::Synced).unwrap();
        scene.database.with_forest(|forest| {
            let (state, local) = (forest.grid().checkpoint_state(), forest.grid().local_state());
            if state.number > before && state.op_flushed < state.op_checkpoint {
                starts.push((state.op_flushed, local.journal_position, local.journal_hash));
            }
        });
    }
    let newest = starts.len() - 1;
    for (index, (op, position, hash)) in starts.into_iter().enumerate() {
        let mut image = scene.storage.image();
        for copy in 0..4_u8 {
            let offset = usize::from(copy) * 16384;
            let bytes = &mut image[offset..offset + 4096];
            let (mut superblock, _) = Superblock::decode(bytes, copy).unwrap();
            superblock.checkpoint.op_flushed = op;
            (superblock.local.journal_position, superblock.local.journal_hash) = (position, hash);
            bytes.copy_from_slice(superblock.encode(copy).0.as_bytes());
        }
        let (machine, storage) = Machine::sim_from(image.clone(), 1);
        let opened = open_sim(&machine, &options());
        if index == newest {
            scene.user.model.check(&opened.unwrap()).unwrap();
        } else {
            let error = opened.unwrap_err();
            assert!(matches!(error, Error::Corrupt(_) | Error::JournalDamaged { .. }), "{error}");
            assert!(storage.image() == image, "nothing was changed");
        }
    }
}

/// Whatever the size of batches, a bar that they fill ends with a checkpoint.
#[test]
fn full_bars_end_with_checkpoints() {
    let geometry = options().geometry.unwrap();
    for records in [1, 7, 40, 80, 129, 171, 200, 240] {
        let scene = Scene::new(60, 0);
        let stats = |scene: &Scene| {
            let stats = scene.database.stats();
            (stats.beat / u64::from(geometry.beats_per_bar), stats.checkpoint_number)
        };
        let (mut batch, mut id) = (Batch::new(), 0_u64);
        let before = stats(&scene);
        while stats(&scene).0 < before.0 + 8 {
            batch.clear();
            for _ in 0..records {
                batch.put(&Account { id: id.into(), body: [0; 40] });
                id += 1;
            }
            assert!(batch.size() <= geometry.batch_size_max.into(), "{} bytes", batch.size());
            scene.database.commit(&batch).unwrap();
        }
        let after = stats(&scene);
        assert!(
            after.1 - before.1 >= 7,
            "batches of {records}: {} checkpoints in 8 bars",
            after.1 - before.1
        );
    }
}

fn first_difference(before: &[u8], after: &[u8]) -> u64 {
    let index = before.iter().zip(after).position(|(before, after)| before != after);
    u64::try_from(index.expect("a commit writes")).unwrap()
}

/// Without space a commit changes nothing; with space it goes on, and the file has everything after a crash.
#[test]
fn a_full_file_goes_on_when_there_is_space() {
    let mut scene = Scene::new(56, 30);
    scene.storage.set_size_limit(Some(scene.storage.size()));
    let mut batch = Batch::new();
    let mut model = scene.user.model.clone();
    let full = (0..3_000).find_map(|_| {
        scene.user.fill(&mut batch, 40);
        let full = scene.database.commit(&batch).err();
        if full.is_none() {
            model = scene.user.model.clone();
        }
        full
    });
    assert!(matches!(full, Some(Error::OutOfSpace { .. })), "{full:?}");
    for again in
        [scene.database.commit(&batch).map(drop), scene.database.checkpoint(), scene.database.settle()]
    {
        assert!(matches!(again, Err(Error::OutOfSpace { .. })), "{again:?}");
        model.check(&scene.database).unwrap();
    }
    // A full file can be opened, and still is full.
    let (machine, storage) = reboot(&scene.storage, 5);
    storage.set_size_limit(Some(storage.size()));
    let database = open_sim(&machine, &options()).unwrap();
    model.check(&database).unwrap();
    assert!(matches!(database.commit(&batch), Err(Error::OutOfSpace { .. })));
    database.close().unwrap();
    let (machine, _storage) = reboot(&storage, 6);
    let database = open_sim(&machine, &options()).unwrap();
    model.check(&database).unwrap();
    database.commit(&batch).unwrap();
    database.settle().unwrap();
    scene.user.model.check(&database).unwrap();
    // So does the handle that met it.
    scene.storage.set_size_limit(None);
    scene.database.commit(&batch).unwrap();
    scene.check();
    scene.database.settle().unwrap();
    let model = scene.user.model.clone();
    model.check(&scene.crash(CrashPolicy::DropUnsynced)).unwrap();
}

#[test]
fn recovery_tells_how_far_it_is() {
    let scene = Scene::new(57, 50);
    let (machine, _storage) = reboot(&scene.storage, 1);
    let (checked, replayed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (seen_checked, seen_replayed) = (Arc::clone(&checked), Arc::clone(&replayed));
    let options = options().on_recovery(move |progress| match progress {
        Recovery::Checking { bytes, of } => {
            assert!(bytes <= of);
            seen_checked.store(bytes, Ordering::Relaxed);
        }
        Recovery::Replaying { ops, of } => {
            assert!(ops <= of);
            seen_replayed.store(ops, Ordering::Relaxed);
        }
        _ => unreachable!("there are two phases"),
    });
    let database = open_sim(&machine, &options).unwrap();
    assert!(checked.load(Ordering::Relaxed) > 0 && replayed.load(Ordering::Relaxed) > 0);
    scene.user.model.check(&database).unwrap();
}

/// Real threads on a real file: every commit is there, each with an op of its own.
#[test]
#[expect(clippy::disallowed_methods, reason = "the subject is threads")]
fn many_threads_commit_at_once() {
    const THREADS: u64 = 8;
    const COMMITS: u64 = 150;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let database = Database::create(&path, &schema(), &options()).unwrap();
    let commit = |thread: u64| {
        let mut batch = Batch::new();
        let mut ops = Vec::new();
        for index in 0..COMMITS {
            batch.clear();
            for id in (0..1 + index % 30).map(|id| thread * 1_000_000 + index * 1_000 + id) {
                batch.put(&Account { id: id.into(), body: [1; 40] });
            }
            let durability = if index % 3 == 0 { Durability::Buffered } else { Durability::Synced };
            ops.push(database.commit_with(&batch, durability).unwrap().get());
            let own = thread * 1_000_000..(thread + 1) * 1_000_000;
            let found = loop {
                match database.scan::<Account>(own.clone()).unwrap().try_fold(0, |n, row| row.map(|_| n + 1))
                {
                    // The others have committed a whole bar of this size meanwhile.
                    Err(Error::Expired) => {}
                    found => break found.unwrap(),
                }
            };
            let expected: u64 = (0..=index).map(|index| 1 + index % 30).sum();
            assert_eq!(found, expected, "what is acknowledged is visible");
        }
        assert!(ops.is_sorted(), "a thread's ops are in order");
        ops
    };
    let mut ops: Vec<u64> = std::thread::scope(|scope| {
        let commit = &commit;
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || commit(thread))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    ops.sort_unstable();
    ops.dedup();
    assert_eq!(u64::try_from(ops.len()).unwrap(), THREADS * COMMITS, "every op has a number of its own");
    drop(database);
    let database = Database::open(&path, &schema(), &options()).unwrap();
    let expected: u64 = (0..COMMITS).map(|index| 1 + index % 30).sum();
    let found = database.scan::<Account>(..).unwrap().map(Result::unwrap).count();
    assert_eq!(u64::try_from(found).unwrap(), THREADS * expected);
}
