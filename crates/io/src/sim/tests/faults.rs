//! Faults that a test asks for.

use super::*;
use crate::{IoError, Operation};

fn read(storage: &SimStorage, sector: u64, pool: &Pool) -> Ticket {
    storage.read(at(sector), pool.take().expect("free"))
}

/// What a read gives, one value for each sector.
fn values(ticket: Ticket) -> Vec<u8> {
    let buffer = ticket.wait().into_buffer().expect("read");
    let sectors = u64_of(buffer.len() / SECTOR);
    (0..sectors).map(|sector| value(&buffer, sector)).collect()
}

/// A file whose n-th sector is filled with n, all durable.
fn numbered(seed: u64) -> SimStorage {
    let image = (0..SECTORS).flat_map(|sector| [u8::try_from(sector).expect("few"); SECTOR]).collect();
    SimStorage::from_image(image, SimOptions::seeded(seed))
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
    let storage = SimStorage::new(SimOptions { size_limit: Some(at(4)), ..SimOptions::seeded(1) });
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

#[test]
fn reads_are_misdirected() {
    let storage = numbered(1);
    let buffers = pool(2, 2);
    storage.misdirect(0, at(9));
    storage.misdirect(1, at(SECTORS - 1));
    storage.misdirect(2, at(SECTORS + 3));
    assert_eq!(values(read(&storage, 3, &buffers)), [9, 10]);
    assert_eq!(values(read(&storage, 3, &buffers)), [31, 0]);
    let buffer = storage.read_now(at(3), buffers.take().expect("free")).into_buffer().expect("read");
    assert!(buffer.iter().all(|byte| *byte == 0));
    drop(buffer);
    assert_eq!(values(read(&storage, 3, &buffers)), [3, 4]);
    let befallen: Vec<_> = storage.befallen().iter().map(|one| (one.number, one.offset, one.len)).collect();
    assert_eq!(befallen, [(0, at(3), 2 * SECTOR), (1, at(3), 2 * SECTOR), (2, at(3), 2 * SECTOR)]);
}

#[test]
fn bits_flip_once_or_for_good() {
    let storage = grown(1);
    let buffers = pool(2, 2);
    let ones = |bytes: &[u8]| bytes.iter().map(|byte| byte.count_ones()).sum::<u32>();
    storage.befall(1, SimFault::Flip);
    storage.befall(2, SimFault::Flip);
    let buffer = read(&storage, 3, &buffers).wait().into_buffer().expect("read");
    assert_eq!((ones(&buffer), ones(&storage.image())), (1, 0));
    drop(buffer);
    let mut zeroes = buffers.take().expect("free");
    zeroes.zero();
    write(&storage, 3, zeroes).wait().result.expect("written, it says");
    sync(&storage);
    assert_eq!((ones(&storage.image()), ones(&storage.durable_image())), (1, 1));
    storage.verify();
}

#[test]
fn delayed_operations_are_overtaken() {
    let (machine, storage) = Machine::sim_with(vec![0; SECTOR], SimOptions::seeded(1));
    let buffers = pool(1, 1);
    storage.befall(0, SimFault::Delay(Duration::from_secs(1)));
    storage.befall(0, SimFault::Delay(Duration::from_secs(2)));
    let late = read(&storage, 0, &buffers);
    for _ in 0..100 {
        sync(&storage);
    }
    assert!(!late.is_done() && machine.clock.now() < Duration::from_secs(1));
    late.wait().result.expect("read");
    assert!(machine.clock.now() >= Duration::from_secs(3));
    let befallen = storage.befallen();
    assert_eq!((befallen.len(), befallen[0].fault), (1, SimFault::Delay(Duration::from_secs(3))));
}

#[test]
fn hung_operations_end_when_released() {
    let storage = grown(1);
    let buffers = pool(1, 2);
    storage.befall(1, SimFault::Hang);
    storage.befall(2, SimFault::Hang);
    let hung = [write(&storage, 0, filled(&buffers, 1)), read(&storage, 1, &buffers)];
    sync(&storage);
    storage.scheduler().run_all();
    assert!(!hung[0].is_done() && !hung[1].is_done());
    assert_eq!((value(&storage.image(), 0), storage.in_flight(), buffers.available()), (0, 2, 0));
    storage.release_hung();
    storage.release_hung();
    for ticket in hung {
        ticket.wait().result.expect("done");
    }
    assert_eq!((value(&storage.image(), 0), buffers.available()), (1, 2));
    assert_eq!(storage.befallen().len(), 2);
}

/// Time moves on to the deadline when nothing else can be done.
#[test]
fn a_late_operation_keeps_its_buffer() {
    let (machine, storage) = Machine::sim_with(vec![7; 2 * SECTOR], SimOptions::seeded(1));
    let buffers = pool(1, 2);
    storage.befall(0, SimFault::Hang);
    storage.befall(1, SimFault::Delay(Duration::from_secs(40)));
    storage.befall(3, SimFault::Delay(Duration::from_secs(20)));
    let tickets = [read(&storage, 0, &buffers), write(&storage, 1, filled(&buffers, 1)), storage.sync()];
    let slow = storage.sync();
    let [hung, late, synced] = tickets;
    synced.wait().result.expect("synced");
    assert!(machine.clock.now() < Duration::from_secs(1));
    let completion = hung.wait();
    assert_eq!(completion.result, Err(IoError::new(Operation::Read, 0, IoCause::TimedOut)));
    assert!((30..31).contains(&machine.clock.now().as_secs()) && completion.buffer.is_none());
    assert_eq!(late.wait().result.expect_err("late").source, IoCause::TimedOut);
    slow.wait().result.expect("slow, but in time");
    assert_eq!((buffers.available(), storage.in_flight(), storage.counters().slow), (0, 2, 1));
    storage.release_hung();
    storage.scheduler().run_all();
    assert_eq!((buffers.available(), storage.in_flight(), storage.counters().slow), (2, 0, 3));
    assert_eq!(value(&storage.image(), 1), 1, "what was late happened");
}

#[test]
#[should_panic(expected = "deadlock in the simulation")]
fn without_a_deadline_what_hangs_is_a_deadlock() {
    let (_machine, storage) =
        Machine::sim_with(Vec::new(), SimOptions { deadline: None, ..SimOptions::seeded(1) });
    storage.befall(0, SimFault::Hang);
    drop(storage.sync().wait());
}

#[test]
fn unreadable_sectors_stay_so() {
    let storage = numbered(1);
    let buffers = pool(4, 1);
    let eio = |offset| IoError::new(Operation::Read, offset, IoCause::Os(5));
    storage.add_unreadable(at(6) + 100..at(6) + 101);
    storage.add_unreadable(at(9)..at(11));
    for (sector, bad) in [(2, None), (3, Some(6)), (6, Some(6)), (7, Some(9)), (10, Some(10)), (11, None)] {
        for now in [false, true] {
            let completion = match now {
                false => read(&storage, sector, &buffers).wait(),
                true => storage.read_now(at(sector), buffers.take().expect("free")),
            };
            assert!(completion.buffer.is_some());
            assert_eq!(completion.result.err(), bad.map(|bad| eio(at(bad))), "read at {sector}");
        }
    }
    write(&storage, 6, filled(&buffers, 1)).wait().result.expect("written");
    assert_eq!(read(&storage, 6, &buffers).wait().result, Err(eio(at(6))));
    storage.clear_unreadable();
    assert_eq!(values(read(&storage, 6, &buffers)), [1, 2, 3, 4]);
}

/// A read beside a write of three of its four sectors: which versions it gives.
fn overlapping(seed: u64, first_read: bool) -> (Vec<u8>, u8) {
    let storage = numbered(seed);
    storage.set_allow_overlap(true);
    let (three, four) = (pool(3, 1), pool(4, 2));
    let (written, found) = if first_read {
        let found = read(&storage, 8, &four);
        (write(&storage, 9, filled(&three, 109)), found)
    } else {
        (write(&storage, 9, filled(&three, 109)), read(&storage, 8, &four))
    };
    let now = storage.read_now(at(8), four.take().expect("free")).into_buffer().expect("read");
    let now = value(&now, 1);
    assert!([9, 109].contains(&now));
    let found = values(found);
    written.wait().result.expect("written");
    let image = storage.image();
    assert_eq!([value(&image, 8), value(&image, 9), value(&image, 12)], [8, 109, 12]);
    (found, now)
}

#[test]
fn a_read_beside_a_write_gives_either() {
    for first_read in [false, true] {
        let (mut old, mut new, mut torn, mut new_at_once) = (0, 0, 0, 0);
        for seed in 0..100 {
            let (found, now) = overlapping(seed, first_read);
            assert_eq!((found.clone(), now), overlapping(seed, first_read));
            new_at_once += u32::from(now == 109);
            assert_eq!(found[0], 8);
            let news = (1..4_u8).filter(|sector| found[usize::from(*sector)] == 108 + sector).count();
            let olds = (1..4_u8).filter(|sector| found[usize::from(*sector)] == 8 + sector).count();
            assert_eq!(news + olds, 3, "{found:?}");
            old += u32::from(olds == 3);
            new += u32::from(news == 3);
            torn += u32::from(olds > 0 && news > 0);
        }
        assert!(old > 5 && new > 5 && torn > 30, "old {old}, new {new}, torn {torn}");
        assert!((20..80).contains(&new_at_once), "the write is in flight, and seen {new_at_once} times");
    }
    check_panics("overlap operation 1 in flight", |storage, buffers| {
        storage.set_allow_overlap(true);
        let _first = write(storage, 0, filled(buffers, 1));
        let _second = write(storage, 1, filled(buffers, 1));
    });
    check_panics("overlap operation 1 in flight", |storage, buffers| {
        storage.set_allow_overlap(true);
        let _first = write(storage, SECTORS - 2, filled(buffers, 1));
        storage.truncate(at(SECTORS - 1)).expect("stopped before");
    });
}

/// A file that is cut beside a reader.
#[test]
fn a_read_beside_a_truncation_is_truncated() {
    let storage = numbered(1);
    storage.set_allow_overlap(true);
    let ticket = read(&storage, SECTORS - 1, &pool(1, 1));
    storage.truncate(at(SECTORS - 1)).expect("cut");
    assert_eq!(ticket.wait().result.expect_err("cut").source, IoCause::Truncated);
}

/// What a plan does to so many reads, writes and syncs.
fn planned(seed: u64, plan: SimFaultPlan) -> Vec<SimBefallen> {
    let storage = grown(seed);
    storage.set_plan(Some(plan));
    let buffers = pool(1, 3);
    for round in 0..500 {
        let sector = round % SECTORS;
        let tickets =
            [write(&storage, sector, filled(&buffers, 1)), read(&storage, (sector + 1) % SECTORS, &buffers)];
        let synced = storage.sync();
        storage.release_hung();
        tickets.into_iter().for_each(|ticket| drop(ticket.wait()));
        drop(synced.wait());
    }
    storage.set_plan(None);
    let befallen = storage.befallen();
    drop(read(&storage, 0, &buffers).wait());
    assert_eq!(storage.befallen().len(), befallen.len());
    storage.verify();
    befallen
}

#[test]
fn plans_draw_what_they_say() {
    assert_eq!(planned(1, SimFaultPlan::default()), []);
    let plan = SimFaultPlan {
        range: at(4)..at(20),
        read_fails: 50_000,
        write_fails: 100_000,
        write_lost: 100_000,
        write_misdirected: 100_000,
        read_misdirected: 50_000,
        write_flipped: 100_000,
        read_flipped: 50_000,
        delayed: 200_000,
        hung: 20_000,
        ..SimFaultPlan::default()
    };
    let befallen = planned(1, plan.clone());
    assert_eq!(befallen, planned(1, plan.clone()));
    assert_ne!(befallen, planned(2, plan));
    let count = |operation, wanted: fn(&SimFault) -> bool| {
        befallen.iter().filter(|one| one.operation == operation && wanted(&one.fault)).count()
    };
    // 500 operations of each kind, half of the reads and writes within the range.
    for (found, expected) in [
        (count(Operation::Read, |fault| matches!(fault, SimFault::Fail(IoCause::Injected))), 12),
        (count(Operation::Write, |fault| matches!(fault, SimFault::Fail(IoCause::Injected))), 25),
        (count(Operation::Write, |fault| *fault == SimFault::Lose), 25),
        (count(Operation::Write, |fault| matches!(fault, SimFault::Misdirect(_))), 25),
        (count(Operation::Read, |fault| matches!(fault, SimFault::Misdirect(_))), 12),
        (count(Operation::Write, |fault| *fault == SimFault::Flip), 25),
        (count(Operation::Read, |fault| *fault == SimFault::Flip), 12),
        (count(Operation::Read, |fault| matches!(fault, SimFault::Delay(_))), 50),
        (count(Operation::Sync, |fault| matches!(fault, SimFault::Delay(_))), 100),
        (count(Operation::Sync, |fault| *fault == SimFault::Hang), 10),
        (count(Operation::Sync, |fault| matches!(fault, SimFault::Fail(_))), 0),
    ] {
        assert!((expected / 3..=expected * 2).contains(&found), "{found} found, {expected} expected");
    }
    for one in befallen.iter().filter(|one| one.operation != Operation::Sync) {
        assert!((4..20).contains(&(one.offset / u64_of(SECTOR))), "{one:?}");
        assert!(!matches!(one.fault, SimFault::Misdirect(to) if !(at(4)..at(20)).contains(&to)), "{one:?}");
    }
    let syncs = planned(1, SimFaultPlan { sync_fails: 10_000, ..SimFaultPlan::default() });
    assert!(!syncs.is_empty() && syncs.iter().all(|one| one.operation == Operation::Sync));
}

#[test]
fn a_file_that_others_cut_or_remove() {
    let storage = numbered(1);
    let buffers = pool(1, 2);
    storage.check().expect("as it was");
    storage.cut(at(SECTORS + 1));
    storage.check().expect("nothing was cut");
    storage.cut(at(20));
    let cut = IoError::new(Operation::Check, at(20), IoCause::Truncated);
    assert_eq!((storage.check(), storage.size()), (Err(cut), at(SECTORS)));
    assert_eq!(u64_of(storage.durable_image().len()), at(20));
    assert_eq!(read(&storage, 20, &buffers).wait().result.expect_err("cut").source, IoCause::Truncated);
    assert_eq!(values(read(&storage, 19, &buffers)), [19]);
    write(&storage, 30, filled(&buffers, 9)).wait().result.expect("the file is longer again");
    storage.verify();
    assert_eq!(values(read(&storage, 25, &buffers)), [0]);
    storage.truncate(at(31)).expect("known size");
    storage.check().expect("as long as the program thinks");
    storage.unlink();
    assert_eq!(storage.check(), Err(IoError::new(Operation::Check, 0, IoCause::Unlinked)));
    assert_eq!(values(read(&storage, 30, &buffers)), [9]);
}
