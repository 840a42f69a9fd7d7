//! A handle whose write has failed: it takes no more commits and repeats its first error, what it shows stays right,
//! and a reopen finds every acknowledged commit.

use std::path::Path;

use understory::{Database, Error, Failure, IoError};

use crate::ledger::Ledger;
use crate::load::{self, schema, small};

/// Commits as thread 0 until that fails, and says with what.
pub(crate) fn commit_until_failure(database: &Database, ledger: &mut Ledger) -> Error {
    let first = ledger.next(0);
    for number in first..first + 100_000 {
        match load::commit(database, 0, number) {
            Ok(op) => ledger.acknowledge(0, number, op),
            Err(error) => return error,
        }
    }
    panic!("something fails before that");
}

/// The system's error in one that ended the life of a handle.
pub(crate) fn io_error(error: &Error) -> IoError {
    match error {
        Error::Io(source)
        | Error::CommitUnknown { cause: Failure::Io(source), .. }
        | Error::Poisoned { cause: Failure::Io(source) } => *source,
        other => panic!("a write that fails gives its error, not {other:?}"),
    }
}

/// What a handle does whose writes have failed with `first`, where reads do not fail.
pub(crate) fn check_poisoned(database: &Database, ledger: &Ledger, first: IoError) {
    check_refusals(database, ledger, first);
    ledger.clone().find(&load::check(database).unwrap());
}

/// Whatever is asked for but reads is refused with the first error.
pub(crate) fn check_refusals(database: &Database, ledger: &Ledger, first: IoError) {
    let commit = || load::commit(database, 0, ledger.next(0)).unwrap_err();
    let errors = [
        commit(),
        database.checkpoint().unwrap_err(),
        commit(),
        database.settle().unwrap_err(),
        database.sync().err().unwrap_or_else(commit),
    ];
    for error in errors {
        assert!(matches!(error, Error::Poisoned { .. }), "{error:?}");
        assert_eq!(io_error(&error), first, "the first error is repeated");
    }
}

/// Opens the file where nothing fails any more: everything acknowledged is there, and commits go on.
pub(crate) fn check_reopened(path: &Path, ledger: &mut Ledger) {
    let database = Database::open(path, &schema(), &small()).unwrap();
    ledger.find(&load::check(&database).unwrap());
    let next = ledger.next(0);
    for number in next..next + 10 {
        ledger.acknowledge(0, number, load::commit(&database, 0, number).unwrap());
    }
    database.checkpoint().unwrap();
    ledger.find(&load::check(&database).unwrap());
    database.close().unwrap();
}
