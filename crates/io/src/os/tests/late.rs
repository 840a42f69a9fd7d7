//! Operations that are slow, or hang.

use super::super::scripted::Gate;
use super::*;

/// A storage whose file hangs until the gate is opened.
fn hanging(deadline: Option<Duration>, slow: Duration) -> (OsStorage, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let script = Script { gate: Some(Arc::clone(&gate)), ..Script::default() };
    (scripted_with(script, &Options { deadline, slow, ..Options::default() }), gate)
}

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Waits, in real time, for what other threads are about to do.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        std::thread::sleep(millis(5));
    }
    panic!("{what}, after ten seconds");
}

#[test]
fn a_late_operation_keeps_its_buffer() {
    let (storage, gate) = hanging(Some(millis(500)), SLOW);
    let buffers = pool(1, 3);
    let tickets = [
        storage.read(at(1), buffers.take().expect("free")),
        write(&storage, 2, filled(&buffers, 1)),
        storage.sync(),
    ];
    let late = |operation, offset| Err(IoError::new(operation, offset, IoCause::TimedOut));
    let expected = [late(Operation::Read, at(1)), late(Operation::Write, at(2)), late(Operation::Sync, 0)];
    for (ticket, expected) in tickets.into_iter().zip(expected) {
        let completion = ticket.wait();
        assert_eq!(completion.result, expected);
        assert!(completion.buffer.is_none());
    }
    assert_eq!(
        (buffers.available(), storage.counters().reads),
        (1, 0),
        "nothing is freed under an operation"
    );
    gate.open();
    eventually("the buffers are given back", || buffers.available() == 3);
    eventually("all are done", || storage.counters().syncs == 1);
    let buffer = storage.read(at(2), buffers.take().expect("free")).wait().into_buffer().expect("read");
    assert!(buffer.iter().all(|byte| *byte == 1), "what was late happened");
}

#[test]
fn a_storage_without_deadline_waits() {
    let (storage, gate) = hanging(None, SLOW);
    let ticket = storage.sync();
    let opener = crate::ThreadExecutor::new("opener", 1).expect("a thread");
    crate::Executor::submit(&opener, Box::new(move || gate.open()));
    ticket.wait().result.expect("synced");
}

#[test]
fn slow_operations_are_counted_and_said() {
    opening::capture_warnings();
    let (storage, gate) = hanging(None, millis(200));
    let buffers = pool(1, 2);
    let tickets = [write(&storage, 1, filled(&buffers, 1)), storage.sync()];
    assert_eq!(storage.counters().slow, 0);
    eventually("both are slow", || storage.shared.clock.now() > millis(600));
    gate.open();
    for ticket in tickets {
        ticket.wait().result.expect("done");
    }
    storage.read_now(at(1), buffers.take().expect("free")).result.expect("read");
    let before = storage.counters();
    assert_eq!((before.slow, before.since(&before).slow), (2, 0));
    gate.close();
    let opener = crate::ThreadExecutor::new("opener", 1).expect("a thread");
    let (opened, start) = (Arc::clone(&gate), storage.shared.clock.now());
    let clock = storage.shared.clock.clone();
    crate::Executor::submit(
        &opener,
        Box::new(move || {
            eventually("it is slow", || clock.now() > start + millis(400));
            opened.open();
        }),
    );
    storage.sync_now().expect("synced");
    assert_eq!(storage.counters().slow, 3);
    let said = opening::warnings(Path::new("scripted"));
    assert!(
        said.iter().any(|said| said.starts_with("scripted: slow: write of 4096 bytes at byte 4096 took "))
    );
    assert!(said.iter().any(|said| said.starts_with("scripted: slow: sync of 0 bytes at byte 0 took ")));
}

/// What hangs is left behind, with all that it needs.
#[test]
fn a_storage_does_not_wait_for_ever() {
    let (storage, gate) = hanging(Some(millis(60)), SLOW);
    let buffers = pool(1, 3);
    let _writes: Vec<Ticket> = (0..3).map(|sector| write(&storage, sector, filled(&buffers, 1))).collect();
    let shared = Arc::downgrade(&storage.shared);
    drop(storage);
    assert!(shared.upgrade().is_some(), "the threads hold the file");
    assert_eq!(buffers.available(), 0);
    gate.open();
    eventually("what was submitted is done all the same", || buffers.available() == 3);
    eventually("the file is closed", || shared.upgrade().is_none());
}

/// As long as operations end, drop waits for more than one deadline.
#[test]
fn a_storage_waits_while_it_gets_on() {
    let gate = Arc::new(Gate::default());
    let script = Script { gate: Some(Arc::clone(&gate)), delay: Some(millis(15)), ..Script::default() };
    let options = Options { deadline: Some(millis(600)), threads: 1, ..Options::default() };
    let storage = scripted_with(script, &options);
    let buffers = pool(1, 1);
    let shared = Arc::downgrade(&storage.shared);
    let tickets: Vec<Ticket> = (0..80).map(|_| storage.sync()).collect();
    let ticket = write(&storage, 0, filled(&buffers, 1));
    gate.open();
    drop(storage);
    assert!(shared.upgrade().is_none() && ticket.is_done() && tickets.iter().all(Ticket::is_done));
}
