//! What a crash keeps.

use super::*;

#[test]
fn a_crash_drops_what_was_not_synced() {
    let storage = grown(1);
    let buffers = pool(1, 4);
    write(&storage, 0, filled(&buffers, 1)).wait().result.expect("written");
    write(&storage, 1, filled(&buffers, 1)).wait().result.expect("written");
    sync(&storage);
    write(&storage, 1, filled(&buffers, 2)).wait().result.expect("written");
    storage.grow(at(SECTORS + 1)).expect("grown");
    let in_flight = write(&storage, 2, filled(&buffers, 2));
    storage.crash(CrashPolicy::DropUnsynced);
    assert!(storage.is_crashed());
    assert!(in_flight.is_done());
    assert_eq!(in_flight.wait().result.expect_err("crashed").source, IoCause::Crashed);
    let image = storage.image();
    assert_eq!(u64_of(image.len()), at(SECTORS));
    assert_eq!([value(&image, 0), value(&image, 1), value(&image, 2)], [1, 1, 0]);
    assert_eq!(buffers.available(), 4);
}

#[test]
fn everything_fails_after_a_crash() {
    let storage = grown(1);
    let buffers = pool(1, 4);
    let read = storage.read(0, buffers.take().expect("free"));
    storage.crash(CrashPolicy::DropUnsynced);
    let operations = storage.operations();
    let completions = [
        read.wait(),
        storage.read(0, buffers.take().expect("free")).wait(),
        storage.read_now(0, buffers.take().expect("free")),
        write(&storage, SECTORS - 1, filled(&buffers, 1)).wait(),
        storage.sync().wait(),
    ];
    for completion in completions {
        assert_eq!(completion.result.expect_err("crashed").source, IoCause::Crashed);
    }
    assert_eq!(storage.grow(at(99)).expect_err("crashed").source, IoCause::Crashed);
    assert_eq!(storage.truncate(0).expect_err("crashed").source, IoCause::Crashed);
    assert_eq!(storage.operations(), operations);
    assert_eq!(buffers.available(), 4);
}

/// Writes of four sectors, two generations over each other: a crash keeps any sector of either or neither, never
/// what was there before the last sync was lost.
#[test]
fn a_crash_keeps_any_subset_of_sectors() {
    let buffers = pool(4, 8);
    let (mut torn, mut old, mut new, mut beyond) = (0, 0, 0, 0);
    for seed in 0..200 {
        let storage = grown(1);
        write(&storage, 0, filled(&buffers, 10)).wait().result.expect("written");
        sync(&storage);
        write(&storage, 0, filled(&buffers, 20)).wait().result.expect("written");
        storage.grow(at(SECTORS + 4)).expect("grown");
        write(&storage, SECTORS, filled(&buffers, 50)).wait().result.expect("written");
        let in_flight = [write(&storage, 0, filled(&buffers, 30)), write(&storage, 8, filled(&buffers, 40))];
        storage.crash(CrashPolicy::KeepSubset(seed));
        assert!(in_flight.iter().all(Ticket::is_done));
        let image = storage.image();
        assert!(image == storage.durable_image());
        let kept: Vec<u8> = (0..4).map(|sector| value(&image, sector)).collect();
        for (sector, kept) in (0..).zip(&kept) {
            assert!([10 + sector, 20 + sector, 30 + sector].contains(kept), "sector {sector} holds {kept}");
        }
        let first_kept = (0..).zip(&kept).filter(|(sector, kept)| **kept == 30 + sector).count();
        torn += u32::from((1..4).contains(&first_kept));
        old += u32::from(kept == [10, 11, 12, 13]);
        new += u32::from(kept == [30, 31, 32, 33]);
        assert!([at(SECTORS), at(SECTORS + 4)].contains(&u64_of(image.len())));
        beyond += u32::from(u64_of(image.len()) > at(SECTORS) && value(&image, SECTORS) == 50);
    }
    assert!(
        torn > 20 && old > 0 && new > 0 && beyond > 5,
        "torn {torn}, old {old}, new {new}, beyond {beyond}"
    );
}

/// Only what had completed before the sync was submitted is durable by it.
#[test]
fn a_sync_covers_what_completed_before_it() {
    let mut late_completions = 0;
    for seed in 0..20 {
        let storage = grown(seed);
        let buffers = pool(1, 2);
        write(&storage, 0, filled(&buffers, 1)).wait().result.expect("written");
        let ticket = storage.sync();
        let late = write(&storage, 1, filled(&buffers, 1));
        ticket.wait().result.expect("synced");
        late_completions += u32::from(late.is_done());
        storage.crash(CrashPolicy::DropUnsynced);
        let image = storage.image();
        assert_eq!([value(&image, 0), value(&image, 1)], [1, 0]);
    }
    assert!((1..20).contains(&late_completions));
}

#[test]
fn a_crash_comes_at_its_operation() {
    let total = {
        let storage = grown(3);
        workload(&storage);
        storage.operations()
    };
    assert_eq!(total, 1 + 6);
    for operation in 1..total {
        let storage = grown(3);
        storage.crash_at(operation, CrashPolicy::DropUnsynced);
        workload(&storage);
        assert!(storage.is_crashed());
        let expected = if operation <= 3 { [0, 0] } else { [1, 0] };
        let expected = if operation == 1 + 5 { [1, 2] } else { expected };
        let image = storage.image();
        // The growth itself was synced together with the first write.
        let found = if image.is_empty() { [0, 0] } else { [value(&image, 0), value(&image, 1)] };
        assert_eq!(found, expected, "crash at operation {operation}");
    }
}

/// Six operations: write, read, sync, write, sync, read now. Errors are left to the caller's look at the image.
fn workload(storage: &SimStorage) {
    let buffers = pool(1, 2);
    drop(write(storage, 0, filled(&buffers, 1)).wait());
    drop(storage.read(0, buffers.take().expect("free")).wait());
    drop(storage.sync().wait());
    drop(write(storage, 1, filled(&buffers, 2)).wait());
    drop(storage.sync().wait());
    drop(storage.read_now(0, buffers.take().expect("free")));
}

/// Writes before a crash: synced at 0, completed at 0..2 and at 2..6, in flight at 6..10 and at 10; then what the
/// policy leaves, `.` for nothing, `s` for what was synced, `a` to `d` for the writes.
fn check_class(policy: CrashPolicy, expected: &str) {
    let storage = grown(4);
    let (one, two, four) = (pool(1, 2), pool(2, 2), pool(4, 2));
    let full = |pool: &Pool, letter: u8| {
        let mut buffer = pool.take().expect("free");
        buffer.fill(letter);
        buffer
    };
    write(&storage, 0, full(&one, b's')).wait().result.expect("written");
    sync(&storage);
    write(&storage, 0, full(&two, b'a')).wait().result.expect("written");
    write(&storage, 2, full(&four, b'b')).wait().result.expect("written");
    storage.grow(at(SECTORS + 1)).expect("grown");
    let _in_flight = [write(&storage, 6, full(&four, b'c')), write(&storage, 10, full(&one, b'd'))];
    storage.crash(policy);
    let image = storage.image();
    let found: String = (0..11).map(|sector| char::from(value(&image, sector).max(1))).collect();
    assert_eq!(found.replace('\u{1}', "."), expected, "{policy:?}");
    let kept = if policy == CrashPolicy::DropUnsynced { at(SECTORS) } else { at(SECTORS + 1) };
    assert_eq!(u64_of(image.len()), kept, "{policy:?}");
    assert_eq!(storage.size(), at(SECTORS + 1), "the program knows what it knew");
}

#[test]
fn each_class_keeps_what_it_says() {
    let classes = [
        (CrashPolicy::DropUnsynced, "s.........."),
        (CrashPolicy::KeepAll, "aabbbbccccd"),
        (CrashPolicy::KeepCompleted, "aabbbb....."),
        (CrashPolicy::KeepInFlight, "s.....ccccd"),
        (CrashPolicy::KeepFirst, "aa........."),
        (CrashPolicy::KeepLast, "s.........d"),
        (CrashPolicy::DropFirst, "s.bbbbccccd"),
        (CrashPolicy::TornHead, "aabbbbcc..."),
        (CrashPolicy::TornTail, "aabbbb..ccd"),
        (CrashPolicy::Alternate, "a.b.b.c.c.d"),
    ];
    for (policy, expected) in classes {
        check_class(policy, expected);
    }
    assert_eq!(classes.map(|(policy, _)| policy), CrashPolicy::CLASSES);
}

/// A write that was in flight may have landed whole, although nobody was told.
#[test]
fn a_write_may_land_untold() {
    let lands = |seed: &u64| {
        let storage = grown(1);
        sync(&storage);
        let ticket = write(&storage, 0, filled(&pool(4, 1), 10));
        storage.crash(CrashPolicy::KeepSubset(*seed));
        assert!(ticket.wait().result.is_err());
        let image = storage.image();
        (0..4).all(|sector| u64::from(value(&image, sector)) == 10 + sector)
    };
    let landed = (0..100).filter(lands).count();
    assert!((5..60).contains(&landed), "{landed} of 100");
}

#[test]
fn a_machine_is_started_again() {
    for crashed in [false, true] {
        let storage = Arc::new(grown(1));
        let buffers = pool(1, 3);
        write(&storage, 0, filled(&buffers, 1)).wait().result.expect("written");
        sync(&storage);
        write(&storage, 1, filled(&buffers, 2)).wait().result.expect("written");
        let in_flight = write(&storage, 2, filled(&buffers, 3));
        let park = Arc::clone(&storage.machine().park);
        let job = storage.machine().spawn(move || park.park_until(1, &mut || false));
        storage.scheduler().add_after(Duration::from_secs(1), Box::new(|| {}));
        if crashed {
            storage.crash(CrashPolicy::KeepCompleted);
        }
        let (machine, again) = storage.restart(SimOptions::seeded(9));
        assert!(storage.is_crashed() && job.is_done() && in_flight.wait().result.is_err());
        assert_eq!(machine.storage.size(), at(SECTORS));
        let image = again.image();
        let expected = if crashed { [1, 2, 0] } else { [1, 0, 0] };
        assert_eq!([value(&image, 0), value(&image, 1), value(&image, 2)], expected);
    }
}
