//! Faults that a test asks for.

use super::*;
use crate::Operation;

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
        let error = write(&storage, 0, filled(&buffers, 1)).wait().result.expect_err("injected");
        assert_eq!(error.source, IoCause::Injected);
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
