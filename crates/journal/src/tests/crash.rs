//! Crashes at every operation: what was synced is there, and of the rest a whole prefix.

use understory_io::{CrashPolicy, IoCause};

use super::*;

fn policies(seed: u64) -> impl Iterator<Item = CrashPolicy> {
    let subsets = (0..5).map(move |n| CrashPolicy::KeepSubset(seed * 100 + n));
    std::iter::once(CrashPolicy::DropUnsynced).chain(subsets)
}

#[track_caller]
fn is_crash(error: &JournalError) -> bool {
    matches!(error, JournalError::Io(error) if error.source == IoCause::Crashed)
}

/// Four sessions on one disk: ends of programs without a crash, laps, lone witnesses, groups that were never synced.
fn history(world: &mut World, machine: &Machine) -> Result<(), JournalError> {
    let mut random = fastrand::Rng::with_seed(7);
    let session = world.session(machine, SYNCED, 6, &mut random)?;
    world.witness(&session)?;
    world.session(machine, BUFFERED, 12, &mut random)?;
    let session = world.session(machine, SYNCED, 0, &mut random)?;
    world.witness(&session)?;
    world.session(machine, BUFFERED, 12, &mut random)?;
    Ok(())
}

#[test]
fn a_crash_at_any_operation() {
    let geometry = geometry(20);
    let (machine, storage) = formatted(&geometry, 1);
    let before = storage.operations();
    history(&mut World::new(geometry), &machine).unwrap();
    let operations = storage.operations() - before;
    assert!(operations > 60, "{operations}");
    let (mut more, mut exact) = (0, 0);
    for operation in 0..operations {
        for (policy, seed) in policies(operation).zip(operation * 10..) {
            let (machine, storage) = formatted(&geometry, seed);
            storage.crash_at(storage.operations() + operation, policy);
            let mut world = World::new(geometry);
            let error = history(&mut world, &machine).unwrap_err();
            assert!(is_crash(&error), "{error}");
            let (promised, recovering, image) = (world.promised, world.recovering, storage.image());
            check_recovery_crashes(&world, &image, seed);
            let (machine, storage) = machine_of(image, seed);
            let head = world.recover(&machine).unwrap();
            if policy == CrashPolicy::DropUnsynced && !recovering {
                assert_eq!(head.op.get(), promised, "nothing else was durable");
            }
            if head.op.get() > promised {
                more += 1
            } else {
                exact += 1
            }
            goes_on(world, &machine, &storage, &head, seed);
        }
    }
    assert!(more > 20, "some that was not promised is found at times: {more}");
    assert!(exact > 100, "and at times not: {exact}");
}

/// Crashes while a crash is recovered from: the same is found.
fn check_recovery_crashes(world: &World, image: &[u8], seed: u64) {
    for operation in 0..4 {
        let (machine, storage) = machine_of(image.to_vec(), seed);
        storage.crash_at(operation, CrashPolicy::KeepSubset(seed));
        let mut world = world.clone();
        match world.recover(&machine) {
            Err(error) => assert!(is_crash(&error), "{error}"),
            Ok(_) => assert!(storage.operations() <= operation),
        }
        assert!(storage.image() == image, "recovery writes nothing");
    }
}

/// Whatever was found can be worked with.
fn goes_on(mut world: World, machine: &Machine, storage: &SimStorage, head: &Head, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let session = world.begin(machine, head);
    world.work(&session, SYNCED, 3, &mut random).unwrap();
    let last = session.journal.written_op();
    drop(session);
    storage.crash(CrashPolicy::DropUnsynced);
    let (machine, _) = machine_of(storage.image(), seed);
    let head = world.recover(&machine).unwrap();
    assert_eq!((head.op, head.torn), (last, false));
}

/// Many sessions after another, with random ends.
#[test]
fn sessions_with_random_ends() {
    let mut crashes = 0;
    for seed in 0..400 {
        let mut random = fastrand::Rng::with_seed(seed);
        let geometry = geometry(random.u64(12..40));
        let mut world = World::new(geometry);
        let (mut machine, mut storage) = formatted(&geometry, seed);
        for _ in 0..12 {
            let ends_at = storage.operations() + random.u64(0..60);
            let policy = match random.bool() {
                true => CrashPolicy::DropUnsynced,
                false => CrashPolicy::KeepSubset(random.u64(..)),
            };
            if random.u8(0..3) > 0 {
                storage.crash_at(ends_at, policy);
            }
            let habits =
                Habits { sync: random.u8(0..=8), witness: random.u8(0..4), checkpoint: random.u8(0..4) };
            let groups = random.u32(0..14);
            match world.session(&machine, habits, groups, &mut random) {
                Ok(session) => drop(session),
                Err(error) => assert!(is_crash(&error), "seed {seed}: {error}"),
            }
            if storage.is_crashed() || random.bool() {
                crashes += u32::from(storage.is_crashed());
                storage.crash(policy);
                (machine, storage) = machine_of(storage.image(), random.u64(..));
            } else {
                // A program that ends: what it wrote is there, but only a cache may have it.
                storage.crash_at(u64::MAX, policy);
            }
        }
        world.recover(&machine).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
    assert!(crashes > 600, "{crashes}");
}

/// What a program wrote and did not sync before it was killed is accepted; then the power may go.
#[test]
fn what_is_accepted_is_durable() {
    let geometry = geometry(20);
    let (machine, storage) = formatted(&geometry, 3);
    let mut world = World::new(geometry);
    let mut random = fastrand::Rng::with_seed(3);
    let never = Habits { sync: 0, witness: 0, checkpoint: 0 };
    let session = world.session(&machine, never, 3, &mut random).unwrap();
    let written = session.journal.written_op();
    assert_eq!(session.journal.synced_op(), Op::ZERO);
    drop(session);
    let head = world.recover(&machine).unwrap();
    assert_eq!(head.op, written);
    storage.crash(CrashPolicy::DropUnsynced);
    let (machine, _) = machine_of(storage.image(), 4);
    assert_eq!(world.recover(&machine).unwrap(), head);
}

/// Of several groups that no sync covers, any may be torn: the first bad one cuts, whatever is behind it.
#[test]
fn the_first_torn_group_cuts() {
    let geometry = geometry(20);
    for torn in 0..4_u64 {
        let (machine, storage) = formatted(&geometry, 3);
        let mut world = World::new(geometry);
        let head = world.recover(&machine).unwrap();
        let session = world.begin(&machine, &head);
        let mut starts = Vec::new();
        for _ in 0..4 {
            starts.push((session.journal.head().position, session.journal.written_op()));
            world.write(&session, &mut fastrand::Rng::with_seed(torn)).unwrap();
        }
        let (position, before) = starts[usize::try_from(torn).unwrap()];
        storage.corrupt(geometry.journal_offset() + position + 300, 1);
        let head = world.recover(&machine).unwrap();
        assert_eq!((head.op, head.position), (before, position));
        assert!(head.torn, "its own header is good");
        drop(session);
    }
}
