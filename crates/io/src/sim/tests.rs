//! The simulated machine against plain models.

mod crash;
mod faults;
mod threads;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use smallvec::smallvec;

use super::*;
use crate::{
    Arena, Buffer, Counters, Executor, IoCause, Machine, Pool, SECTOR, Storage, Ticket, WritePart, handoff,
    u64_of, usize_of,
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
        storage.truncate(at(SECTORS - 1)).expect("stopped before");
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
    check_panics("does not extend", |storage, _| storage.truncate(at(SECTORS + 1)).expect("stopped"));
    check_panics("whole sectors", |storage, _| storage.grow(at(SECTORS) + 1).expect("stopped"));
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
#[should_panic(expected = "nothing is in flight or queued; outside: the wait on key 42 cannot end")]
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
    assert_eq!(
        (storage.scheduler().steps(), storage.scheduler().pending()),
        (2, 0),
        "sync, and the wait's end"
    );
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
