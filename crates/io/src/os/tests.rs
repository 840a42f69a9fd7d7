//! The operating system's file, on real files and over a scripted one.

mod late;
mod opening;

use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;
use smallvec::smallvec;
use tempfile::TempDir;

use super::scripted::{Script, ScriptedFile};
use super::*;
use crate::{Arena, Machine, Pool, SECTOR, WritePart, u64_of, usize_of};

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn pool(sectors: usize, count: usize) -> Pool {
    let size = sectors * SECTOR;
    Arena::new(size * count).expect("memory").pool(size, count).expect("room")
}

fn at(sector: u64) -> u64 {
    sector * u64_of(SECTOR)
}

fn read_only() -> Options {
    Options { read_only: true, ..Options::default() }
}

fn filled(pool: &Pool, value: u8) -> Buffer {
    let mut buffer = pool.take().expect("free");
    buffer.fill(value);
    buffer
}

fn write(storage: &OsStorage, sector: u64, buffer: Buffer) -> Ticket {
    let len = buffer.len();
    storage.write(at(sector), smallvec![WritePart { buffer: Arc::new(buffer), len }])
}

#[expect(clippy::disallowed_methods, reason = "the test looks at the file behind the storage")]
fn contents(path: &Path) -> Vec<u8> {
    std::fs::read(path).expect("the file is there")
}

#[expect(clippy::disallowed_methods, reason = "the test makes the file that the storage finds")]
fn put(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).expect("written");
}

/// All kinds of files that hold the same bytes in the end.
fn variants() -> Vec<Options> {
    let mut variants = Vec::new();
    for direct in [DirectIo::Probe, DirectIo::Off] {
        for threads in [0, 1, 4] {
            for preallocate in [false, true] {
                variants.push(Options { direct, threads, preallocate, ..Options::default() });
            }
        }
    }
    variants
}

/// Random operations, many in flight, against plain bytes.
fn run_model(path: &Path, options: Options, seed: u64) {
    let sectors = 300;
    let storage = OsStorage::create(path, options).expect("created");
    storage.grow(at(sectors)).expect("grown");
    assert_eq!(contents(path), vec![0; usize_of(at(sectors))]);
    let buffers = pool(2, 24);
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut model = vec![0; usize_of(at(sectors))];
    for _ in 0..10 {
        let mut places: Vec<u64> = (0..sectors / 6).collect();
        rng.shuffle(&mut places);
        let mut reads = Vec::new();
        let mut writes = Vec::new();
        for place in places.into_iter().take(8) {
            let start = usize_of(at(place * 6));
            if rng.bool() {
                let parts: WriteParts = (0..3).map(|_| random_part(&buffers, &mut rng)).collect();
                let mut end = start;
                for part in &parts {
                    model[end..end + part.len].copy_from_slice(part.bytes());
                    end += part.len;
                }
                writes.push(storage.write(at(place * 6), parts));
            } else {
                reads.push((start, storage.read(at(place * 6), buffers.take().expect("free"))));
            }
        }
        for (start, ticket) in reads {
            let buffer = ticket.wait().into_buffer().expect("read");
            assert!(buffer[..] == model[start..start + buffer.len()]);
        }
        for ticket in writes {
            ticket.wait().result.expect("written");
        }
        storage.sync().wait().result.expect("synced");
        let sector = rng.u64(..sectors - 2);
        let buffer = storage.read_now(at(sector), buffers.take().expect("free")).into_buffer().expect("read");
        assert!(buffer[..] == model[usize_of(at(sector))..][..buffer.len()]);
    }
    assert_eq!(buffers.available(), 24);
    let counters = storage.counters();
    assert_eq!((counters.reads + counters.writes, counters.syncs), (90, 10));
    drop(storage);
    assert!(contents(path) == model);
}

fn random_part(pool: &Pool, rng: &mut fastrand::Rng) -> WritePart {
    let mut buffer = pool.take().expect("free");
    rng.fill(&mut buffer);
    WritePart { buffer: Arc::new(buffer), len: rng.usize(1..=2) * SECTOR }
}

#[test]
fn bytes_arrive_whatever_the_options() {
    let folder = folder();
    for (seed, options) in (0..).zip(variants()) {
        run_model(&folder.path().join(seed.to_string()), options, seed);
    }
}

#[test]
fn sizes_grow_and_shrink() {
    let folder = folder();
    for (index, options) in variants().into_iter().enumerate() {
        let path = folder.path().join(index.to_string());
        let storage = OsStorage::create(&path, options.clone()).expect("created");
        assert_eq!((storage.size(), contents(&path).len()), (0, 0));
        storage.grow(at(700)).expect("grown");
        storage.grow(at(5)).expect("large enough already");
        assert_eq!(storage.size(), at(700));
        let buffers = pool(1, 1);
        write(&storage, 699, filled(&buffers, 9)).wait().result.expect("written");
        storage.truncate(at(699)).expect("cut");
        assert_eq!(storage.size(), at(699));
        let error = storage.read_now(at(699), buffers.take().expect("free")).result.expect_err("cut");
        assert_eq!(error, IoError::new(Operation::Read, at(699), IoCause::Truncated));
        storage.grow(at(701)).expect("grown again");
        storage.grow(at(701)).expect("nothing to do");
        drop(storage);
        let storage = OsStorage::open(&path, options).expect("opened");
        assert_eq!(storage.size(), at(701));
        assert!(contents(&path) == vec![0; usize_of(at(701))]);
    }
}

#[test]
fn growth_is_allocated() {
    use std::os::unix::fs::MetadataExt;
    let folder = folder();
    for preallocate in [true, false] {
        let path = folder.path().join(preallocate.to_string());
        let storage =
            OsStorage::create(&path, Options { preallocate, ..Options::default() }).expect("created");
        storage.grow(8 << 20).expect("grown");
        storage.sync().wait().result.expect("synced");
        let stat = path.metadata().expect("the file is there");
        assert!(stat.blocks() * 512 >= 8 << 20, "{} blocks of 512 bytes", stat.blocks());
    }
}

/// Files of other programs end anywhere.
#[test]
fn odd_sizes_are_read_as_far_as_they_go() {
    let folder = folder();
    let path = folder.path().join("file");
    put(&path, &[4; SECTOR + 100]);
    for direct in [DirectIo::Probe, DirectIo::Off] {
        let storage = OsStorage::open(&path, Options { direct, ..Options::default() }).expect("opened");
        assert_eq!(storage.size(), at(1) + 100);
        let buffers = pool(1, 1);
        let buffer = storage.read_now(0, buffers.take().expect("free")).into_buffer().expect("read");
        assert!(buffer.iter().all(|byte| *byte == 4));
        drop(buffer);
        for sector in [1, 2, 99] {
            let completion = storage.read(at(sector), buffers.take().expect("free")).wait();
            assert!(completion.buffer.is_some());
            let error = completion.result.expect_err("the file ends before");
            assert_eq!(error, IoError::new(Operation::Read, at(sector), IoCause::Truncated));
        }
        storage.grow(at(9)).expect("grown");
        storage.truncate(at(9)).expect("nothing to cut");
        drop(storage);
        let bytes = contents(&path);
        assert_eq!(bytes.len(), 9 * SECTOR);
        assert!(bytes[SECTOR + 100..].iter().all(|byte| *byte == 0));
        put(&path, &[4; SECTOR + 100]);
    }
}

fn scripted(script: Script) -> OsStorage {
    scripted_with(script, &Options::default())
}

fn scripted_with(script: Script, options: &Options) -> OsStorage {
    let file = ScriptedFile::new(vec![0; 8 * SECTOR], script);
    OsStorage::unstarted(Path::new("scripted"), Box::new(file), at(8), options).expect("threads")
}

#[test]
fn a_failed_sync_is_never_retried() {
    let storage = scripted(Script { sync: Some(Errno::IO), ..Script::default() });
    let eio = IoError::new(Operation::Sync, 0, IoCause::Os(Errno::IO.raw_os_error()));
    for _ in 0..3 {
        assert_eq!(storage.sync().wait().result, Err(eio));
    }
    assert_eq!(storage.counters().syncs, 0);
    let debug = format!("{storage:?}");
    assert!(debug.contains("syncs: 1"), "the file was asked once: {debug}");
}

/// A long read through a storage: its error names the sector.
#[test]
fn the_first_bad_sector_is_named() {
    let storage = scripted(Script { unreadable: vec![at(5)], ..Script::default() });
    let buffers = pool(4, 1);
    let eio = IoError::new(Operation::Read, at(5), IoCause::Os(Errno::IO.raw_os_error()));
    for sector in 2..5 {
        assert_eq!(storage.read(at(sector), buffers.take().expect("free")).wait().result, Err(eio));
        assert_eq!(storage.read_now(at(sector), buffers.take().expect("free")).result, Err(eio));
    }
    storage.read(at(1), buffers.take().expect("free")).wait().result.expect("read");
    assert_eq!(storage.counters().reads, 1);
}

#[test]
fn errors_come_with_operation_and_offset() {
    let storage = scripted(Script { bad: Some((at(2), Errno::IO)), ..Script::default() });
    let buffers = pool(1, 1);
    let eio = IoCause::Os(Errno::IO.raw_os_error());
    let completion = storage.read(at(2), buffers.take().expect("free")).wait();
    assert_eq!(completion.result, Err(IoError::new(Operation::Read, at(2), eio)));
    drop(completion);
    let completion = storage.read_now(at(2), buffers.take().expect("free"));
    assert_eq!(completion.result, Err(IoError::new(Operation::Read, at(2), eio)));
    drop(completion);
    let result = write(&storage, 2, filled(&buffers, 1)).wait().result;
    assert_eq!(result, Err(IoError::new(Operation::Write, at(2), eio)));
    assert_eq!(buffers.available(), 1);
    assert_eq!(storage.counters(), Counters::default());
}

#[test]
fn a_full_file_system_leaves_the_size() {
    let storage = scripted(Script { size_max: Some((at(20), Errno::NOSPC)), ..Script::default() });
    let error = storage.grow(at(30)).expect_err("full");
    assert!(error.is_no_space());
    assert_eq!((error.operation, error.offset, storage.size()), (Operation::Grow, at(30), at(8)));
    storage.grow(at(20)).expect("as much as there is");
    assert_eq!(storage.size(), at(20));
}

/// What was submitted is done before the storage is gone; tickets outlive it.
#[test]
fn drop_completes_what_was_submitted() {
    let folder = folder();
    let path = folder.path().join("file");
    let storage = OsStorage::create(&path, Options::default()).expect("created");
    storage.grow(at(64)).expect("grown");
    let buffers = pool(1, 64);
    let tickets: Vec<Ticket> = (0..64).map(|sector| write(&storage, sector, filled(&buffers, 8))).collect();
    drop(storage);
    assert!(tickets.iter().all(Ticket::is_done));
    assert!(contents(&path).iter().all(|byte| *byte == 8));
    for ticket in tickets {
        ticket.wait().result.expect("written");
    }
}

/// Tickets are waited for by other threads than those that submitted.
#[test]
#[expect(clippy::disallowed_methods, reason = "the test races real threads")]
fn tickets_cross_threads() {
    let folder = folder();
    let storage = OsStorage::create(folder.path().join("file"), Options::default()).expect("created");
    storage.grow(at(64)).expect("grown");
    let machine = Machine::os(storage, 1).expect("threads");
    let buffers = pool(1, 32);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (sender, receiver) = unbounded::<(u64, Ticket)>();
            let (machine, buffers) = (&machine, &buffers);
            scope.spawn(move || {
                for sector in (0..200_u64).map(|round| thread * 16 + round % 16) {
                    let buffer = buffers.take().expect("each thread has at most 8 of 32 in flight");
                    sender.send((sector, machine.storage.read(at(sector), buffer))).expect("open");
                    while sender.len() > 5 {
                        std::thread::yield_now();
                    }
                }
            });
            scope.spawn(move || {
                for (sector, ticket) in receiver {
                    let buffer = ticket.wait().into_buffer().expect("read");
                    assert!(buffer.iter().all(|byte| *byte == 0), "sector {sector}");
                }
            });
        }
    });
    assert_eq!((buffers.available(), machine.storage.counters().reads), (32, 800));
}

/// What a file system of this machine can do; one that can do nothing loses nothing.
#[test]
fn space_is_given_back_and_taken_again() {
    use std::os::unix::fs::MetadataExt;
    let folder = folder();
    for preallocate in [true, false] {
        let path = folder.path().join(preallocate.to_string());
        let options = Options { preallocate, direct: DirectIo::Off, ..Options::default() };
        let storage = OsStorage::create(&path, options).expect("created");
        let buffers = pool(256, 1);
        let whole = u64_of(256 * SECTOR);
        storage.grow(2 * whole).expect("grown");
        for offset in [0, whole] {
            let mut buffer = buffers.take().expect("free");
            buffer.fill(7);
            let part = WritePart { buffer: Arc::new(buffer), len: 256 * SECTOR };
            storage.write(offset, smallvec![part]).wait().result.expect("written");
        }
        storage.sync().wait().result.expect("synced");
        let space = || path.metadata().expect("the file is there").blocks() * 512;
        let before = space();
        assert!(storage.is_dense() && before >= 2 * whole);
        storage.discard(at(1)..whole).expect("discarded");
        assert_eq!(storage.size(), 2 * whole);
        assert_eq!(space() < before, !storage.is_dense());
        assert_eq!(storage.allocated_size(), space());
        storage.allocate(at(1)..whole).expect("allocated");
        assert!(space() >= before, "{} bytes of space, {before} before", space());
        let buffer = storage.read_now(whole, buffers.take().expect("free")).into_buffer().expect("read");
        assert!(buffer.iter().all(|byte| *byte == 7), "what is beside it stays");
    }
}

#[test]
fn what_the_system_says_to_a_discard() {
    for (errno, expected) in [(Errno::OPNOTSUPP, None), (Errno::NOSYS, None), (Errno::IO, Some(Errno::IO))] {
        let storage = scripted(Script { discard: Some(errno), ..Script::default() });
        storage.grow(at(8)).expect("grown");
        let expected =
            expected.map(|errno| IoError::new(Operation::Discard, at(2), IoCause::from_errno(errno)));
        assert_eq!(storage.discard(at(2)..at(4)).err(), expected);
    }
}
