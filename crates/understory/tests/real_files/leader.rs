//! Who leads a group does not come back, or panics: the others are told, and the file has what was acknowledged.

use std::path::Path;

use understory::{Database, Error, Failure, IoError};
use understory_io::IoCause;

use crate::faulty::{FaultyStorage, Trap};
use crate::ledger::Ledger;
use crate::load::{self, schema, small};
use crate::poison::check_reopened;

const THREADS: u16 = 4;

/// Sets the trap under a database with a few batches, lets a thread fall into it and others wait for that; gives what
/// these got. They end while the first is still in the trap, if that holds it. The first gets what `first` checks.
fn check(trap: Trap, expected: fn(&Failure) -> bool, first: fn(std::thread::Result<Result<u64, Error>>)) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let mut ledger = Ledger::default();
    drop(Database::create(&path, &schema(), &small()).unwrap());
    let (machine, storage) = FaultyStorage::open(&path, small().geometry.unwrap());
    let database = Database::open_machine(machine, Path::new(&path), &schema(), &small(), false).unwrap();
    for thread in 0..THREADS {
        let number = ledger.next(thread);
        ledger.acknowledge(thread, number, load::commit(&database, thread, number).unwrap());
    }
    storage.set_trap(trap);
    let commit = |thread| load::commit(&database, thread, ledger.next(thread));
    std::thread::scope(|scope| {
        let caught = scope.spawn(|| commit(0));
        storage.wait_for_trap();
        let others: Vec<_> = (1..THREADS).map(|thread| scope.spawn(move || commit(thread))).collect();
        for other in others {
            let error = other.join().unwrap().unwrap_err();
            let (Error::CommitUnknown { cause, .. } | Error::Poisoned { cause }) = &error else {
                panic!("{error:?}")
            };
            assert!(expected(cause), "{error}");
        }
        for late in [commit(1).map(drop), database.checkpoint(), database.settle(), database.sync()] {
            let Err(Error::Poisoned { cause }) = late else { panic!("{late:?}") };
            assert!(expected(&cause), "{cause}");
        }
        let found = load::check(&database).unwrap();
        assert_eq!(found.len(), usize::from(THREADS), "reads go on");
        storage.release();
        first(caught.join());
    });
    drop((database, storage));
    check_reopened(&path, &mut ledger);
}

#[test]
fn a_sync_that_does_not_end_ends_the_handle() {
    let timed_out = |cause: &Failure| matches!(cause, Failure::Io(IoError { source: IoCause::TimedOut, .. }));
    // What went through too late is there after the next open.
    check(Trap::Hang, timed_out, |first| {
        assert!(matches!(first.unwrap(), Err(Error::CommitUnknown { .. })));
    });
}

#[test]
fn a_panic_ends_the_handle() {
    let panicked = |cause: &Failure| matches!(cause, Failure::Panicked);
    check(Trap::Panic, panicked, |first| drop(first.unwrap_err()));
}
