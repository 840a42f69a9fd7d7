//! One fault at a time, of each kind in each part of the file, while several threads commit and others checkpoint:
//! what the handle does then, and what a reopen finds.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use understory::{Database, Error, Failure};
use understory_io::{IoCause, Operation};

use crate::faulty::{Fault, FaultyStorage, Zone};
use crate::ledger::Ledger;
use crate::load::{self, least, schema, small};
use crate::poison::{check_poisoned, check_reopened, io_error};

const THREADS: u16 = 4;
/// What the kernel says of a device that fails.
const EIO: IoCause = IoCause::Os(5);

/// A file with some batches, half of them in the journal only.
struct Prepared {
    _folder: tempfile::TempDir,
    path: PathBuf,
    ledger: Ledger,
}

/// Makes the file once, and then copies of it.
fn prepare() -> Prepared {
    static MADE: OnceLock<(Vec<u8>, Ledger)> = OnceLock::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("forest.understory");
    let (image, ledger) = MADE.get_or_init(|| make(&path));
    fs::write(&path, image).unwrap();
    Prepared { _folder: folder, path, ledger: ledger.clone() }
}

fn make(path: &Path) -> (Vec<u8>, Ledger) {
    let mut ledger = Ledger::default();
    let database = Database::create(path, &schema(), &small()).unwrap();
    for number in 1..=60 {
        for thread in 0..THREADS {
            ledger.acknowledge(thread, number, load::commit(&database, thread, number).unwrap());
        }
    }
    drop(database);
    (fs::read(path).unwrap(), ledger)
}

fn open(path: &Path) -> (Result<Database, Error>, std::sync::Arc<FaultyStorage>) {
    open_armed(path, None)
}

fn open_armed(path: &Path, fault: Option<Fault>) -> (Result<Database, Error>, std::sync::Arc<FaultyStorage>) {
    let (machine, storage) = FaultyStorage::open(path, small().geometry.unwrap());
    if let Some(fault) = fault {
        storage.arm(fault);
    }
    // Little memory, so that most reads reach the file.
    (Database::open_machine(machine, path, &schema(), &least(), false), storage)
}

/// Commits from several threads, with checkpoints in between, until something fails or all is done; gives the errors.
fn commit_all(database: &Database, ledger: &mut Ledger, batches: u64) -> Vec<Error> {
    let (shared, errors) = (Mutex::new(std::mem::take(ledger)), Mutex::new(Vec::new()));
    let failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (shared, errors, failed) = (&shared, &errors, &failed);
            scope.spawn(move || {
                for round in 0..batches {
                    let number = shared.lock().next(thread);
                    let committed = load::commit(database, thread, number)
                        .map(|op| shared.lock().acknowledge(thread, number, op));
                    let result = match thread {
                        0 if round % 40 == 39 => committed.and_then(|()| database.checkpoint()),
                        _ => committed,
                    };
                    if let Err(error) = result {
                        errors.lock().push(error);
                        failed.store(true, Ordering::Relaxed);
                    }
                    if failed.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
        }
    });
    *ledger = shared.into_inner();
    errors.into_inner()
}

/// A write or a sync fails: the handle is done with, and the file is not.
fn check_write(operation: Operation, zone: Option<Zone>, after: u64, torn: bool) -> u64 {
    let Prepared { path, mut ledger, _folder } = prepare();
    let before = ledger.heard;
    let (database, storage) = open(&path);
    let database = database.unwrap();
    let fault = Fault { operation, zone, after, times: 1, cause: EIO, torn };
    storage.arm(fault);
    let errors = commit_all(&database, &mut ledger, 100_000);
    assert!(storage.was_met(), "{fault:?}: {errors:?}");
    let first = io_error(&errors[0]);
    assert_eq!((first.operation, first.source), (operation, EIO), "{fault:?}");
    for error in &errors {
        // Who waits for a checkpoint that fails gets the error as it is.
        let is_final = matches!(error, Error::CommitUnknown { .. } | Error::Poisoned { .. } | Error::Io(_));
        assert!(is_final, "{error:?}");
        assert_eq!(io_error(error), first, "{fault:?}");
    }
    check_poisoned(&database, &ledger, first);
    let acknowledged = ledger.heard - before;
    drop((database, storage));
    check_reopened(&path, &mut ledger);
    acknowledged
}

/// Faults that come at once, and later ones.
const AFTER: &[u64] = if cfg!(debug_assertions) { &[0, 7] } else { &[0, 1, 2, 3, 7, 20, 61, 150] };
/// A debug build takes every so-many-th fault of a sweep.
const STRIDE: usize = if cfg!(debug_assertions) { 7 } else { 1 };

fn check_writes(operation: Operation, zone: Option<Zone>) {
    for torn in [false, true] {
        let acknowledged: Vec<u64> =
            AFTER.iter().map(|after| check_write(operation, zone, *after, torn)).collect();
        println!("{operation} {zone:?}, torn {torn}: batches before it {acknowledged:?}");
    }
}

#[test]
fn writes_of_the_journal() {
    check_writes(Operation::Write, Some(Zone::Journal));
}

#[test]
fn writes_of_blocks() {
    check_writes(Operation::Write, Some(Zone::Grid));
}

#[test]
fn writes_of_the_superblock() {
    check_writes(Operation::Write, Some(Zone::Superblock));
}

#[test]
fn syncs() {
    check_writes(Operation::Sync, None);
}

/// What was answered, shortly.
fn kind(error: &Error) -> &'static str {
    match error {
        Error::Unreadable { .. } => "unreadable",
        Error::Io(_) => "io",
        Error::CommitUnknown { cause: Failure::Unreadable { .. }, .. } => "commit unknown: unreadable",
        Error::CommitUnknown { cause: Failure::Io(_), .. } => "commit unknown: io",
        Error::Poisoned { cause: Failure::Unreadable { .. } } => "poisoned: unreadable",
        Error::Poisoned { cause: Failure::Io(_) } => "poisoned: io",
        Error::JournalDamaged { .. } => "journal damaged",
        Error::Unusable { .. } => "unusable",
        other => panic!("a fault gives an error that says so, not {other:?}"),
    }
}

/// Reads everything when nothing fails any more. What failed while it was read ahead is told to who wants it, once.
fn check_again(database: &Database) -> load::Heads {
    (0..4).find_map(|_| load::check(database).ok()).expect("a failure that is over is not repeated")
}

/// Reads of blocks fail now and then, in lookups and scans: these fail or take the twin, and all goes well after it.
#[test]
fn reads_of_blocks() {
    let mut counts = BTreeMap::<&str, u32>::new();
    for after in (0..40).step_by(STRIDE) {
        let Prepared { path, mut ledger, _folder } = prepare();
        let (database, storage) = open(&path);
        let database = database.unwrap();
        let zone = Some(Zone::Grid);
        storage.arm(Fault { operation: Operation::Read, zone, after, times: 1, cause: EIO, torn: false });
        match load::check(&database) {
            Ok(heads) => {
                ledger.find(&heads);
                *counts
                    .entry(if storage.was_met() { "right, from the twin" } else { "not met" })
                    .or_default() += 1;
            }
            Err(error) => *counts.entry(kind(&error)).or_default() += 1,
        }
        if storage.was_met() {
            ledger.find(&check_again(&database));
            // It may have been compaction that met it.
            let errors = commit_all(&database, &mut ledger, 50);
            let kinds: Vec<_> = errors.iter().map(kind).collect();
            assert!(kinds.iter().all(|kind| kind.ends_with("unreadable")), "{errors:?}");
        }
        drop((database, storage));
        check_reopened(&path, &mut ledger);
    }
    println!("{counts:?}");
}

/// Reads of blocks fail while compaction is at work.
#[test]
fn reads_of_compaction() {
    let mut counts = BTreeMap::<&str, u32>::new();
    for after in (0..200).step_by(5 * STRIDE) {
        let Prepared { path, mut ledger, _folder } = prepare();
        let (database, storage) = open(&path);
        let database = database.unwrap();
        let zone = Some(Zone::Grid);
        storage.arm(Fault { operation: Operation::Read, zone, after, times: 3, cause: EIO, torn: false });
        let errors = commit_all(&database, &mut ledger, 400);
        *counts.entry(errors.first().map_or("right", kind)).or_default() += 1;
        if let Some(first) = errors.first().filter(|_| storage.was_met()) {
            // Reads go on; commits do not.
            ledger.clone().find(&check_again(&database));
            let again = load::commit(&database, 0, ledger.next(0)).unwrap_err();
            let cause = |error: &Error| match error {
                Error::CommitUnknown { cause, .. } | Error::Poisoned { cause } => cause.clone(),
                other => panic!("{other}"),
            };
            assert_eq!(cause(&again), cause(first), "the first error is repeated");
        }
        drop((database, storage));
        check_reopened(&path, &mut ledger);
    }
    println!("{counts:?}");
}

/// Whatever fails while a file is opened, once or for good: open succeeds, or says so and the next one does.
#[test]
fn while_opening() {
    let mut counts = BTreeMap::<String, u32>::new();
    let zones = [Zone::Superblock, Zone::Journal, Zone::Grid].map(Some);
    let reads_and_writes =
        [Operation::Read, Operation::Write].map(|operation| zones.map(|zone| (operation, zone)));
    let kinds =
        reads_and_writes.into_iter().flatten().chain([(Operation::Sync, None), (Operation::Grow, None)]);
    for (operation, zone) in kinds {
        for (after, times) in (0..12).step_by(STRIDE).flat_map(|after| [(after, 1), (after, u64::MAX)]) {
            let Prepared { path, mut ledger, _folder } = prepare();
            let fault = Fault { operation, zone, after, times, cause: EIO, torn: true };
            let (opened, storage) = open_armed(&path, Some(fault));
            if times == 1 {
                // An opening may have fewer operations of the kind.
                storage.disarm();
            }
            let outcome = match &opened {
                Ok(database) => {
                    if times == 1 {
                        ledger.find(&load::check(database).unwrap());
                    }
                    "open"
                }
                Err(error) => kind(error),
            };
            // What cannot be read is read again, in smaller parts, or taken from its twin.
            assert!(operation != Operation::Read || times > 1 || outcome == "open", "{fault:?}: {outcome}");
            let zone = zone.map_or(String::new(), |zone| format!(" {zone:?}"));
            let times = if times == 1 { "once" } else { "for good" };
            *counts.entry(format!("{operation}{zone} {times}: {outcome}")).or_default() += 1;
            drop((opened, storage));
            check_reopened(&path, &mut ledger);
        }
    }
    println!("{counts:#?}");
}

/// No space in the file system, said when the file is to grow: nothing has changed, and nothing is broken.
#[test]
fn growth() {
    for after in [0, 1, 2, 5] {
        let Prepared { path, mut ledger, _folder } = prepare();
        let (database, storage) = open(&path);
        let database = database.unwrap();
        let fault = Fault {
            operation: Operation::Grow,
            zone: None,
            after,
            times: 20,
            cause: IoCause::NoSpace,
            torn: false,
        };
        storage.arm(fault);
        let mut refused = 0;
        while !storage.was_met() {
            for error in commit_all(&database, &mut ledger, 1_000) {
                assert!(matches!(error, Error::OutOfSpace { .. }), "{error:?}");
                refused += 1;
            }
            ledger.find(&load::check(&database).unwrap());
        }
        println!("{refused} commits refused");
        assert!(commit_all(&database, &mut ledger, 300).is_empty());
        ledger.find(&load::check(&database).unwrap());
        drop((database, storage));
        check_reopened(&path, &mut ledger);
    }
}
