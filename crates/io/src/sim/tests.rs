//! The simulated machine against plain models.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use smallvec::smallvec;

use super::*;
use crate::{
    Arena, Buffer, Clock, Counters, Executor, IoCause, Machine, Operation, Park, Pool, SECTOR, Storage,
    Ticket, WritePart, handoff, u64_of, usize_of,
};

const SECTORS: u64 = 32;

fn pool(sectors: usize, count: usize) -> Pool {
    let size = sectors * SECTOR;
    Arena::new(size * count).expect("memory").pool(size, count).expect("room")
}

fn at(sector: u64) -> u64 {
    sector * u64_of(SECTOR)
}

/// A buffer of whole sectors, the n-th filled with `value + n`.
fn filled(pool: &Pool, value: u8) -> Buffer {
    let mut buffer = pool.take().expect("free");
    for (sector, bytes) in (0..).zip(buffer.chunks_mut(SECTOR)) {
        bytes.fill(value.wrapping_add(sector));
    }
    buffer
}

fn write(storage: &SimStorage, sector: u64, buffer: Buffer) -> Ticket {
    let len = buffer.len();
    storage.write(at(sector), smallvec![WritePart { buffer: Arc::new(buffer), len }])
}

fn sync(storage: &SimStorage) {
    storage.sync().wait().result.expect("synced");
}

fn grown(seed: u64) -> SimStorage {
    let storage = SimStorage::new(SimOptions::seeded(seed));
    storage.grow(at(SECTORS)).expect("grown");
    storage
}

fn sector_of(image: &[u8], sector: u64) -> &[u8] {
    &image[usize_of(at(sector))..][..SECTOR]
}

/// The value that fills a sector.
fn value(image: &[u8], sector: u64) -> u8 {
    let bytes = sector_of(image, sector);
    assert!(bytes.iter().all(|byte| *byte == bytes[0]), "sector {sector} is torn inside");
    bytes[0]
}

/// Random operations, many in flight, against the bytes that completed writes leave.
fn run_model(seed: u64) -> (Vec<u8>, Counters, Vec<u64>) {
    let storage = grown(seed);
    let buffers = pool(2, 8);
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut model = vec![0; usize_of(at(SECTORS))];
    let mut order = Vec::new();
    for _ in 0..60 {
        let mut writes = Vec::new();
        let mut reads = Vec::new();
        let mut free: Vec<u64> = (0..SECTORS / 2).collect();
        rng.shuffle(&mut free);
        for pair in free.into_iter().take(8) {
            let start = usize_of(at(pair * 2));
            if rng.bool() {
                let buffer = filled(&buffers, rng.u8(..));
                model[start..start + buffer.len()].copy_from_slice(&buffer);
                writes.push(write(&storage, pair * 2, buffer));
            } else {
                reads.push((start, storage.read(at(pair * 2), buffers.take().expect("free"))));
            }
        }
        for (start, ticket) in reads {
            let done: Vec<bool> = writes.iter().map(Ticket::is_done).collect();
            order.push(u64_of(done.iter().filter(|done| **done).count()));
            let buffer = ticket.wait().into_buffer().expect("read");
            assert!(buffer[..] == model[start..start + buffer.len()]);
        }
        for ticket in writes {
            ticket.wait().result.expect("written");
        }
        storage.verify();
        assert!(storage.image() == model);
        if rng.u8(..4) == 0 {
            sync(&storage);
            assert!(storage.durable_image() == model);
        }
    }
    assert_eq!(buffers.available(), 8);
    (storage.image(), storage.counters(), order)
}

#[test]
fn reads_see_completed_writes() {
    for seed in 0..20 {
        let (_image, counters, _order) = run_model(seed);
        assert_eq!(counters.reads + counters.writes, 60 * 8);
        assert_eq!(counters.bytes_written, counters.writes * at(2));
    }
}

#[test]
fn a_seed_decides_everything() {
    assert_eq!(run_model(7), run_model(7));
    assert!((0..5).any(|seed| run_model(seed).2 != run_model(seed + 5).2));
}

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

#[test]
fn corruption_stays_until_overwritten() {
    let storage = grown(1);
    let buffers = pool(1, 2);
    write(&storage, 3, filled(&buffers, 0)).wait().result.expect("written");
    storage.corrupt(at(3) + 17, 0x40);
    storage.verify();
    let buffer = storage.read(at(3), buffers.take().expect("free")).wait().into_buffer().expect("read");
    assert_eq!((buffer[16], buffer[17], buffer[18]), (0, 0x40, 0));
    sync(&storage);
    assert_eq!(storage.durable_image()[usize_of(at(3)) + 17], 0x40);
    write(&storage, 3, filled(&buffers, 0)).wait().result.expect("written");
    assert_eq!(value(&storage.image(), 3), 0);
}

#[test]
fn injected_errors_befall_their_operation() {
    let storage = grown(1);
    let buffers = pool(1, 4);
    let eio = IoCause::Os(5);
    for offset in 0..4 {
        storage.inject(storage.operations() + offset, eio);
    }
    let read = storage.read(at(1), buffers.take().expect("free"));
    let written = write(&storage, 2, filled(&buffers, 1));
    let now = storage.read_now(at(3), buffers.take().expect("free"));
    let grow = storage.grow(at(SECTORS + 1)).expect_err("injected");
    let error = read.wait().result.expect_err("injected");
    assert_eq!((error.operation, error.offset, error.source), (Operation::Read, at(1), eio));
    let error = written.wait().result.expect_err("injected");
    assert_eq!((error.operation, error.offset, error.source), (Operation::Write, at(2), eio));
    assert!(now.buffer.is_some());
    assert_eq!(now.result.expect_err("injected").source, eio);
    assert_eq!((grow.operation, grow.source), (Operation::Grow, eio));
    assert_eq!(storage.counters(), Counters::default());
    assert_eq!(storage.size(), at(SECTORS));
    write(&storage, 2, filled(&buffers, 2)).wait().result.expect("the next one succeeds");
    storage.verify();
}

#[test]
fn a_failed_write_lands_in_part() {
    let buffers = pool(4, 1);
    let mut partly = 0;
    for seed in 0..30 {
        let storage = grown(seed);
        storage.inject(1, IoCause::Injected);
        drop(write(&storage, 0, filled(&buffers, 1)).wait().result.expect_err("injected"));
        let landed = (0..4).filter(|sector| value(&storage.image(), *sector) != 0).count();
        partly += u32::from((1..4).contains(&landed));
        storage.verify();
    }
    assert!(partly > 10, "{partly} of 30 are torn");
}

#[test]
fn a_failed_sync_is_never_believed() {
    let storage = grown(1);
    let buffers = pool(1, 1);
    sync(&storage);
    write(&storage, 0, filled(&buffers, 1)).wait().result.expect("written");
    storage.inject(storage.operations(), IoCause::Os(5));
    for _ in 0..3 {
        assert_eq!(storage.sync().wait().result.expect_err("failed").source, IoCause::Os(5));
    }
    assert_eq!(value(&storage.durable_image(), 0), 0);
    assert_eq!(storage.counters().syncs, 1);
}

#[test]
fn writes_are_lost_and_misdirected() {
    let storage = grown(1);
    let buffers = pool(2, 1);
    storage.lose(1);
    storage.misdirect(2, at(6));
    storage.misdirect(3, at(SECTORS - 1));
    storage.misdirect(4, at(SECTORS + 7));
    for sector in [0, 2, 4, 8] {
        write(&storage, sector, filled(&buffers, 1)).wait().result.expect("written, it says");
    }
    storage.verify();
    let image = storage.image();
    let values: Vec<u64> = (0..SECTORS).filter(|sector| value(&image, *sector) != 0).collect();
    assert_eq!(values, [6, 7, SECTORS - 1]);
}

#[test]
fn sizes_grow_shrink_and_are_limited() {
    let storage = SimStorage::new(SimOptions { seed: 1, size_limit: Some(at(4)) });
    let buffers = pool(1, 1);
    storage.grow(at(4)).expect("up to the limit");
    storage.grow(at(2)).expect("large enough already");
    let error = storage.grow(at(5)).expect_err("beyond");
    assert!(error.is_no_space());
    assert_eq!((error.operation, error.offset, storage.size()), (Operation::Grow, at(5), at(4)));
    storage.set_size_limit(None);
    storage.grow(at(5)).expect("no limit");
    write(&storage, 4, filled(&buffers, 1)).wait().result.expect("written");
    storage.truncate(at(4)).expect("cut");
    storage.grow(at(5)).expect("grown again");
    assert_eq!(value(&storage.image(), 4), 0);
    storage.verify();
    sync(&storage);
    assert!(storage.durable_image() == storage.image());
}

#[test]
fn a_read_past_the_end_is_truncated() {
    let storage = SimStorage::from_image(vec![1; SECTOR + 100], SimOptions::default());
    let buffers = pool(1, 1);
    for offset in [at(1), at(2), at(1 << 51)] {
        for now in [false, true] {
            let buffer = buffers.take().expect("free");
            let completion =
                if now { storage.read_now(offset, buffer) } else { storage.read(offset, buffer).wait() };
            let error = completion.result.expect_err("past the end");
            assert_eq!((error.source, error.offset), (IoCause::Truncated, offset));
        }
    }
    assert!(storage.read_now(0, buffers.take().expect("free")).result.is_ok());
}

/// What breaks the contract is stopped, not simulated.
fn check_panics(expected: &str, misuse: impl FnOnce(&SimStorage, &Pool)) {
    let storage = grown(1);
    let buffers = pool(2, 4);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| misuse(&storage, &buffers)));
    let payload = caught.expect_err("stopped");
    let message = payload.downcast_ref::<String>().cloned();
    let message = message.or(payload.downcast_ref::<&str>().map(ToString::to_string)).expect("a message");
    assert!(message.contains(expected), "{message:?} names {expected:?}");
}

#[test]
fn misuse_is_stopped() {
    check_panics("overlap operation 1 in flight", |storage, buffers| {
        let _first = write(storage, 0, filled(buffers, 1));
        let _second = write(storage, 1, filled(buffers, 1));
    });
    check_panics("overlap operation 1 in flight", |storage, buffers| {
        let _first = write(storage, 1, filled(buffers, 1));
        let _second = storage.read(0, buffers.take().expect("free"));
    });
    check_panics("overlap operation 1 in flight", |storage, buffers| {
        let _first = storage.read(at(2), buffers.take().expect("free"));
        let _second = write(storage, 2, filled(buffers, 1));
    });
    check_panics("overlap operation 1 in flight", |storage, buffers| {
        let _first = write(storage, 1, filled(buffers, 1));
        drop(storage.read_now(at(2), buffers.take().expect("free")));
    });
    check_panics("overlap operation 1 in flight", |storage, buffers| {
        let _first = storage.read(at(SECTORS - 2), buffers.take().expect("free"));
        drop(storage.truncate(at(SECTORS - 1)));
    });
    check_panics("grow first", |storage, buffers| {
        let _ticket = write(storage, SECTORS - 1, filled(buffers, 1));
    });
    check_panics("starts at a sector", |storage, buffers| {
        let _ticket = storage.read(100, buffers.take().expect("free"));
    });
    check_panics("whole sectors", |storage, buffers| {
        let part = WritePart { buffer: Arc::new(filled(buffers, 1)), len: 100 };
        let _ticket = storage.write(0, smallvec![part]);
    });
    check_panics("within its buffer", |storage, buffers| {
        let part = WritePart { buffer: Arc::new(filled(buffers, 1)), len: 3 * SECTOR };
        let _ticket = storage.write(0, smallvec![part]);
    });
    check_panics("moves something", |storage, _| {
        let _ticket = storage.write(0, smallvec![]);
    });
    check_panics("does not extend", |storage, _| drop(storage.truncate(at(SECTORS + 1))));
    check_panics("whole sectors", |storage, _| drop(storage.grow(at(SECTORS) + 1)));
    check_panics("byte 131072 lies within", |storage, _| storage.corrupt(at(SECTORS), 1));
}

#[test]
fn neighbours_and_reads_do_not_overlap() {
    let storage = grown(1);
    let buffers = pool(2, 4);
    let tickets = [
        write(&storage, 0, filled(&buffers, 1)),
        write(&storage, 2, filled(&buffers, 1)),
        storage.read(at(4), buffers.take().expect("free")),
        storage.read(at(5), buffers.take().expect("free")),
    ];
    let synced = storage.sync();
    for ticket in tickets {
        ticket.wait().result.expect("done");
    }
    synced.wait().result.expect("synced");
}

#[test]
fn parts_are_joined_on_disk() {
    let storage = grown(1);
    let buffers = pool(2, 3);
    let part = |value, len| WritePart { buffer: Arc::new(filled(&buffers, value)), len };
    let parts = smallvec![part(10, SECTOR), part(20, 2 * SECTOR), part(30, SECTOR)];
    storage.write(at(1), parts).wait().result.expect("written");
    let image = storage.image();
    let values: Vec<u8> = (0..6).map(|sector| value(&image, sector)).collect();
    assert_eq!(values, [0, 10, 20, 21, 30, 0]);
    assert_eq!((storage.counters().writes, storage.counters().bytes_written), (1, at(4)));
}

#[test]
fn a_dropped_ticket_completes_and_gives_its_buffer_back() {
    let storage = grown(1);
    let buffers = pool(1, 2);
    drop(write(&storage, 0, filled(&buffers, 1)));
    drop(storage.read(at(1), buffers.take().expect("free")));
    assert_eq!((buffers.available(), storage.in_flight()), (0, 2));
    storage.scheduler().run_all();
    assert_eq!((buffers.available(), storage.in_flight()), (2, 0));
    assert_eq!(value(&storage.image(), 0), 1);
}

#[test]
fn a_storage_that_goes_abandons_its_tickets() {
    let buffers = pool(1, 1);
    let ticket = {
        let storage = grown(1);
        storage.read(0, buffers.take().expect("free"))
    };
    assert_eq!(ticket.wait().result.expect_err("abandoned").source, IoCause::Abandoned);
    assert_eq!(buffers.available(), 1);
}

#[test]
#[should_panic(expected = "deadlock in the simulation: the wait on key 42 cannot end")]
fn a_wait_that_cannot_end_is_a_panic() {
    let (machine, _storage) = Machine::sim(1);
    machine.park.park_until(42, &mut || false);
}

#[test]
fn jobs_and_completions_interleave_by_seed() {
    let orders: Vec<Vec<u32>> = (0..8).map(interleaving).collect();
    assert_eq!(orders[3], interleaving(3));
    assert!(orders.iter().any(|order| *order != orders[0]));
}

/// Three jobs, each of which waits for a read in the middle: the order in which they start and end.
fn interleaving(seed: u64) -> Vec<u32> {
    let (machine, storage) = Machine::sim(seed);
    storage.grow(at(SECTORS)).expect("grown");
    assert_eq!(machine.executor.workers(), 2);
    let buffers = pool(1, 3);
    let turn = Arc::new(AtomicU32::new(0));
    let (joins, pending): (Vec<_>, Vec<_>) = (0..3_u32)
        .map(|job| {
            let (promise, pending) = handoff(Arc::clone(&machine.park));
            let (storage, turn) = (Arc::clone(&machine.storage), Arc::clone(&turn));
            let buffer = buffers.take().expect("free");
            let join = machine.spawn(move || {
                promise.fulfil(turn.fetch_add(1, Ordering::Relaxed));
                storage.read(at(job.into()), buffer).wait().result.expect("read");
                turn.fetch_add(1, Ordering::Relaxed)
            });
            (join, pending)
        })
        .unzip();
    let ends: Vec<u32> = joins.into_iter().map(crate::Join::wait).collect();
    let starts = pending.into_iter().map(|pending| pending.wait().expect("started"));
    starts.chain(ends).collect()
}

#[test]
fn time_moves_by_steps_and_by_hand() {
    let (machine, storage) = Machine::sim(1);
    assert_eq!(machine.clock.now(), Duration::ZERO);
    storage.sync().wait().result.expect("synced");
    let after = machine.clock.now();
    assert!(after > Duration::ZERO);
    let clock = SimClock::new(storage.scheduler());
    clock.advance(Duration::from_secs(1));
    assert_eq!(machine.clock.now(), after + Duration::from_secs(1));
    assert_eq!((storage.scheduler().steps(), storage.scheduler().pending()), (1, 0));
    let executor = SimExecutor::new(storage.scheduler(), 5);
    assert_eq!(executor.workers(), 5);
}

#[test]
fn an_image_starts_durable() {
    let image = vec![7; 3 * SECTOR];
    let (machine, storage) = Machine::sim_from(image.clone(), 9);
    assert_eq!(machine.storage.size(), at(3));
    storage.crash(CrashPolicy::DropUnsynced);
    assert!(storage.image() == image);
}
