//! The running ring: what it refuses, what it says of itself, what failures do to it.

use std::time::Duration;

use understory_format::GroupHeader;
use understory_io::{IoCause, IoError, Operation, SimFault};

use super::*;

fn begun(sectors: u64) -> (World, Session, Machine, Arc<SimStorage>) {
    let geometry = geometry(sectors);
    let (machine, storage) = formatted(&geometry, 1);
    let mut world = World::new(geometry);
    let head = world.recover(&machine).unwrap();
    let session = world.begin(&machine, &head);
    (world, session, machine, storage)
}

/// A group of one op that is so many sectors.
fn group(session: &Session, op: u64, sectors: u64) -> GroupBuilder {
    let mut builder = GroupBuilder::new(session.groups.take().unwrap(), Op::new(op));
    let size = u32::try_from(sectors * SECTOR - 256 - 12).unwrap();
    let header =
        PartHeader { tree: TreeId::new(7).unwrap(), value_size: 1, count: size, has_tombstones: false };
    builder.push(RecordKind::Batch, 1, u64::from(size) + 12, |body| {
        let (mut slots, _) = header.start(body);
        slots.values().fill(3);
    });
    assert_eq!(builder.size(), sectors * SECTOR);
    builder
}

#[test]
fn a_new_ring_is_zero_and_empty() {
    let geometry = geometry(20);
    let (machine, storage) = formatted(&geometry, 1);
    assert_eq!(machine.storage.size(), geometry.grid_offset());
    assert!(storage.durable_image().iter().all(|byte| *byte == 0));
    assert_eq!(machine.storage.counters().bytes_written, geometry.journal_size);
    let head = scan_quietly(&machine, &geometry, &fresh()).unwrap();
    assert_eq!(head, Head { op: Op::ZERO, hash: Checksum::ZERO, position: 0, torn: false });
    assert!(Replay::new(&machine, &geometry, &fresh(), &head).unwrap().next_group().unwrap().is_none());
}

#[test]
fn a_ring_of_several_pieces_is_made_and_read() {
    let geometry = Geometry { journal_size: (5 << 19) + 4096, ..geometry(20) };
    let (machine, storage) = formatted(&geometry, 1);
    assert_eq!(machine.storage.counters().bytes_written, geometry.journal_size);
    let mut world = World::new(geometry);
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..8 {
        drop(world.session(&machine, BUFFERED, 90, &mut random).unwrap());
    }
    assert!(world.superblock.position > geometry.journal_size, "past the first lap");
    for piece in 1..4 {
        storage.inject(storage.operations() + piece, IoCause::Os(61));
        world.recover(&machine).unwrap();
    }
}

/// Whoever stops in the middle leaves no read behind that the next write could meet.
#[test]
fn a_replay_that_is_dropped_leaves_nothing_in_flight() {
    let geometry = Geometry { journal_size: 5 << 19, ..geometry(20) };
    let (machine, storage) = formatted(&geometry, 1);
    let mut world = World::new(geometry);
    let never = Habits { sync: 0, witness: 0, checkpoint: 0 };
    drop(world.session(&machine, never, 300, &mut fastrand::Rng::with_seed(1)).unwrap());
    let head = world.recover(&machine).unwrap();
    assert!(head.position > 1 << 20, "more than a piece");
    let mut replay = Replay::new(&machine, &geometry, &world.superblock, &head).unwrap();
    drop(replay.next_group().unwrap());
    assert_eq!(storage.in_flight(), 1, "the next piece is on its way");
    drop(replay);
    assert_eq!(storage.in_flight(), 0);
}

#[test]
fn without_a_journal_nothing_is_made() {
    let (machine, storage) = Machine::sim(1);
    format(&machine, &geometry(0)).unwrap();
    assert_eq!((machine.storage.size(), storage.operations()), (0, 0));
}

#[test]
fn failures_of_making_are_errors() {
    let geometry = geometry(20);
    let (machine, storage) = machine_of(vec![7; 4096], 1);
    assert_eq!(format(&machine, &geometry), Err(JournalError::NotEmpty { size: 4096 }));
    assert_eq!(storage.image(), [7; 4096]);
    let (machine, storage) = Machine::sim(1);
    storage.set_size_limit(Some(geometry.grid_offset() - 1));
    let error = format(&machine, &geometry).unwrap_err();
    assert!(matches!(error, JournalError::Io(error) if error.is_no_space()));
    for operation in 0..3 {
        let (machine, storage) = Machine::sim(1);
        storage.inject(operation, IoCause::Injected);
        assert!(format(&machine, &geometry).is_err());
        assert_eq!(storage.in_flight(), 0);
    }
}

#[test]
fn room_is_what_is_not_in_use_but_for_a_lone_witness() {
    let (_, session, _, _) = begun(20);
    let journal = &session.journal;
    assert_eq!(journal.room(), 19 * SECTOR);
    let first = journal.write(group(&session, 1, 4), Checksum::ZERO).unwrap();
    assert_eq!((journal.room(), journal.head()), (15 * SECTOR, first.end()));
    journal.witness().unwrap();
    assert_eq!(journal.room(), 14 * SECTOR);
    for op in 2..5 {
        drop(journal.write(group(&session, op, 4), Checksum::ZERO).unwrap());
    }
    drop(journal.write(group(&session, 5, 2), Checksum::ZERO).unwrap());
    assert_eq!(journal.room(), 0);
    journal.witness().unwrap();
    assert_eq!(journal.room(), 0);
    journal.release(first.end().position);
    assert_eq!(journal.room(), 3 * SECTOR);
    journal.release(first.start().position);
    assert_eq!(journal.room(), 3 * SECTOR, "nothing is taken back");
    drop(journal.write(group(&session, 6, 3), Checksum::ZERO).unwrap());
    assert_eq!(journal.room(), 0);
}

/// A full ring is read as one: the group after its end would be the first.
#[test]
fn a_full_ring_is_recovered() {
    let (mut world, session, machine, _) = begun(20);
    for (op, sectors) in (1..).zip([4, 4, 4, 4, 3]) {
        let body = group(&session, op, sectors);
        let written = session.journal.write(body, Checksum::ZERO).unwrap();
        world.ops.push(written.records().next().unwrap().0.body.to_vec());
    }
    session.journal.witness().unwrap();
    drop(session);
    world.promised = 5;
    let head = world.recover(&machine).unwrap();
    assert_eq!((head.op.get(), head.position), (5, 19 * SECTOR));
}

#[test]
fn marks_lead_to_the_op_after() {
    let (mut world, session, machine, _) = begun(30);
    world
        .work(&session, Habits { sync: 8, witness: 4, checkpoint: 0 }, 7, &mut fastrand::Rng::with_seed(2))
        .unwrap();
    drop(session);
    let marks = world.marks.clone();
    for flushed in 0..=world.promised {
        let mut world = world.clone();
        world.superblock.position = marks[&flushed].position;
        world.superblock.hash = marks[&flushed].hash;
        world.superblock.op_flushed = Op::new(flushed);
        world.superblock.op_checkpoint = Op::new(flushed);
        let head = world.recover(&machine).unwrap();
        assert_eq!(head.op.get(), world.promised);
    }
}

#[test]
fn headers_name_what_was_synced_before() {
    let (_, session, _, _) = begun(20);
    let journal = &session.journal;
    let write = |op: u64| *journal.write(group(&session, op, 1), Checksum::of(b"c")).unwrap().header();
    let witness = |header: GroupHeader| header.witness_op.get();
    let first = write(1);
    assert_eq!((witness(first), first.position, first.incarnation), (0, 0, 1));
    assert_eq!((first.parent, first.checkpoint), (Checksum::ZERO, Checksum::of(b"c")));
    assert_eq!(witness(write(2)), 0, "the first is not synced");
    journal.sync().unwrap();
    assert_eq!(journal.synced_op(), Op::new(2));
    let hash = journal.head().hash;
    let third = write(3);
    assert_eq!((witness(third), third.witness_hash, third.parent), (2, hash, hash));
    assert_eq!(witness(write(4)), 2);
    let hash = journal.head().hash;
    journal.witness().unwrap();
    let fifth = write(5);
    assert_eq!((witness(fifth), fifth.witness_hash, fifth.position), (4, hash, 5 * SECTOR));
    assert_ne!(fifth.parent, hash, "the lone witness is a link of the chain");
}

#[test]
fn what_is_known_is_not_written_again() {
    let (_, session, machine, _) = begun(20);
    let journal = &session.journal;
    let before = machine.storage.counters();
    journal.witness().unwrap();
    journal.sync().unwrap();
    assert_eq!(machine.storage.counters(), before, "the superblock has the head");
    drop(journal.write(group(&session, 1, 1), Checksum::ZERO).unwrap());
    journal.witness().unwrap();
    let after = machine.storage.counters();
    assert_eq!((after.since(&before).writes, after.since(&before).syncs), (2, 2));
    journal.witness().unwrap();
    journal.sync().unwrap();
    assert_eq!(machine.storage.counters(), after);
}

/// After each failure of a write or sync the same error is given for ever, and nothing is submitted.
#[test]
fn the_first_failure_is_repeated() {
    for (failing, operation) in
        [(0, Operation::Write), (1, Operation::Sync), (2, Operation::Write), (3, Operation::Sync)]
    {
        let (_, session, _, storage) = begun(20);
        let journal = &session.journal;
        storage.inject(storage.operations() + failing, IoCause::Os(5));
        let run = || {
            drop(journal.write(group(&session, 1, 1), Checksum::ZERO)?);
            journal.sync()?;
            journal.witness()
        };
        let error: JournalError = run().unwrap_err();
        let JournalError::Io(IoError { operation: found, source, .. }) = error else { panic!("{error}") };
        assert_eq!((found, source), (operation, IoCause::Os(5)));
        let operations = storage.operations();
        let op = journal.written_op().next().get();
        assert_eq!(journal.write(group(&session, op, 1), Checksum::ZERO).map(|_| ()), Err(error.clone()));
        assert_eq!(journal.sync(), Err(error.clone()));
        assert_eq!(journal.witness(), Err(error));
        assert_eq!(storage.operations(), operations);
    }
}

/// The second half of a group that wraps fails; both writes are over when the error is there.
#[test]
fn a_failed_half_is_a_failed_write() {
    for failing in 0..2 {
        let (_, session, _, storage) = begun(10);
        let journal = &session.journal;
        for op in 1..3 {
            drop(journal.write(group(&session, op, 4), Checksum::ZERO).unwrap());
        }
        journal.release(journal.head().position);
        storage.inject(storage.operations() + failing, IoCause::Injected);
        let before = storage.operations();
        assert!(journal.write(group(&session, 3, 4), Checksum::ZERO).is_err());
        assert_eq!((storage.operations() - before, storage.in_flight()), (2, 0));
        assert_eq!(journal.written_op(), Op::new(2));
    }
}

/// A sync that fails while a group is written: that the group was taken is not believed either.
#[test]
fn a_sync_fails_beside_a_write() {
    let (mut overlapped, mut apart) = (0, 0);
    for seed in 0..30 {
        let (machine, storage) = formatted(&geometry(10), seed);
        let mut world = World::new(geometry(10));
        let head = world.recover(&machine).unwrap();
        let session = Arc::new(world.begin(&machine, &head));
        for op in 1..3 {
            drop(session.journal.write(group(&session, op, 4), Checksum::ZERO).unwrap());
        }
        session.journal.release(session.journal.head().position);
        storage.inject(storage.operations() + 2, IoCause::Os(5));
        let synced = machine.spawn({
            let session = Arc::clone(&session);
            move || session.journal.sync()
        });
        let before = storage.operations();
        let written = session.journal.write(group(&session, 3, 4), Checksum::ZERO).map(|_| ());
        let is_beside = storage.operations() > before + 2;
        let synced = synced.wait();
        if let Err(error) = &written {
            assert!(is_beside);
            assert_eq!(synced, Err(error.clone()));
            assert_eq!(session.journal.written_op(), Op::new(2));
            overlapped += 1;
        } else {
            apart += 1;
        }
    }
    assert!(overlapped > 3 && apart > 3, "{overlapped} {apart}");
}

#[test]
fn groups_without_a_journal_have_their_records() {
    let (_, session, _, _) = begun(20);
    let mut builder = GroupBuilder::new(session.groups.take().unwrap(), Op::new(9));
    assert_eq!(builder.push(RecordKind::Drain, 0, 0, |_| ()), Op::new(9));
    assert_eq!(builder.push(RecordKind::Settle, 0, 0, |_| ()), Op::new(10));
    assert_eq!((builder.op_first(), builder.op_count()), (Op::new(9), 2));
    let group = builder.into_group();
    let kinds: Vec<(Op, RecordKind)> = group.records().map(|(record, _)| (record.op, record.kind)).collect();
    assert_eq!(kinds, [(Op::new(9), RecordKind::Drain), (Op::new(10), RecordKind::Settle)]);
    assert_eq!((group.first_op(), group.last_op()), (Op::new(9), Op::new(10)));
}

#[test]
fn a_group_takes_what_fits() {
    let (_, session, _, _) = begun(20);
    let mut builder = GroupBuilder::new(session.groups.take().unwrap(), Op::new(1));
    let largest = 4 * SECTOR - 256;
    assert!(builder.fits(largest));
    for size in [largest + 1, u64::from(u32::MAX), u64::MAX] {
        assert!(!builder.fits(size));
    }
    builder.push(RecordKind::Close, 0, 0, |_| ());
    assert!(builder.fits(largest - 64));
    assert!(!builder.fits(largest - 63));
}

#[test]
#[should_panic(expected = "the ring has room")]
fn a_full_ring_is_not_written_over() {
    let (_, session, _, _) = begun(10);
    for op in 1..4 {
        drop(session.journal.write(group(&session, op, 4), Checksum::ZERO));
    }
}

#[test]
#[should_panic(expected = "ops follow one another")]
fn ops_are_written_in_order() {
    let (_, session, _, _) = begun(10);
    drop(session.journal.write(group(&session, 2, 1), Checksum::ZERO));
}

#[test]
#[should_panic(expected = "a group has records")]
fn an_empty_group_is_not_written() {
    let (_, session, _, _) = begun(10);
    let builder = GroupBuilder::new(session.groups.take().unwrap(), Op::new(1));
    drop(session.journal.write(builder, Checksum::ZERO));
}

#[test]
#[should_panic(expected = "records that nobody could read back")]
fn a_body_that_is_no_parts_is_not_written() {
    let (_, session, _, _) = begun(10);
    let mut builder = GroupBuilder::new(session.groups.take().unwrap(), Op::new(1));
    builder.push(RecordKind::Batch, 1, 40, |body| body.fill(0));
    drop(session.journal.write(builder, Checksum::ZERO));
}

#[test]
#[should_panic(expected = "what is given up was written")]
fn nothing_is_given_up_before_it_is_written() {
    begun(10).1.journal.release(SECTOR);
}

/// On a real file: groups are written and synced side by side, and read back.
#[test]
#[expect(clippy::disallowed_methods, reason = "the test races real threads")]
fn writes_beside_syncs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    let storage = understory_io::OsStorage::create(&path, understory_io::Options::default()).unwrap();
    let machine = Machine::os(storage, 2).unwrap();
    let geometry = geometry(60);
    format(&machine, &geometry).unwrap();
    let mut world = World::new(geometry);
    let head = world.recover(&machine).unwrap();
    let session = world.begin(&machine, &head);
    let journal = &session.journal;
    std::thread::scope(|scope| {
        let syncs = scope.spawn(|| {
            let mut seen = 0;
            while journal.synced_op().get() < 200 {
                journal.sync().unwrap();
                let synced = journal.synced_op().get();
                assert!(synced >= seen, "what is synced stays so");
                seen = synced;
                std::thread::yield_now();
            }
        });
        for op in 1..=200 {
            let group = group(&session, op, 1);
            if journal.room() < group.size() {
                journal.sync().unwrap();
                journal.release(journal.head().position - 20 * SECTOR);
            }
            let group = journal.write(group, Checksum::ZERO).unwrap();
            assert!(group.header().witness_op < group.first_op());
        }
        syncs.join().unwrap();
    });
    journal.witness().unwrap();
    world.superblock.position = journal.head().position - 21 * SECTOR;
    world.superblock.op_flushed = Op::new(180);
    world.superblock.op_checkpoint = Op::new(180);
    world.superblock.hash = header_before(&machine, &geometry, world.superblock.position);
    let head = scan_quietly(&machine, &geometry, &world.superblock).unwrap();
    assert_eq!((head.op, head.torn), (Op::new(200), false));
}

/// The chain hash before the group at a position.
fn header_before(machine: &Machine, geometry: &Geometry, position: u64) -> Checksum {
    let pool = Arena::new(4096).unwrap().pool(4096, 1).unwrap();
    let offset = geometry.journal_offset() + position % geometry.journal_size;
    let sector = machine.storage.read(offset, pool.take().unwrap()).wait().into_buffer().unwrap();
    GroupHeader::decode(&sector).unwrap().0.parent
}

#[test]
fn what_is_counted_is_what_the_storage_saw() {
    let (mut world, session, machine, _storage) = begun(40);
    let before = machine.storage.counters();
    world.work(&session, BUFFERED, 200, &mut fastrand::Rng::with_seed(3)).unwrap();
    let done = machine.storage.counters().since(&before);
    let stats = session.journal.stats();
    assert_eq!((stats.bytes_written, stats.syncs.count), (done.bytes_written, done.syncs));
    // A group that goes round the end of the ring is two writes.
    assert!(stats.writes.count > 200, "{stats:?}: groups and lone witnesses");
    assert!((stats.writes.count + 1..2 * stats.writes.count).contains(&done.writes), "{stats:?}, {done:?}");
}

#[test]
fn slow_writes_and_syncs_are_timed_apart() {
    for (slow, is_write) in [(0, true), (1, false)] {
        let (mut world, session, _machine, storage) = begun(40);
        let delay = Duration::from_secs(3);
        storage.befall(storage.operations() + slow, SimFault::Delay(delay));
        world.write(&session, &mut fastrand::Rng::with_seed(3)).unwrap();
        world.sync(&session).unwrap();
        let stats = session.journal.stats();
        let (long, short) = if is_write { (stats.writes, stats.syncs) } else { (stats.syncs, stats.writes) };
        assert_eq!((long.count, short.count), (1, 1));
        assert!(long.max >= delay && long.total == long.max, "{stats:?}");
        assert!(short.total < delay, "{stats:?}");
    }
}
