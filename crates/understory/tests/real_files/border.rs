//! Errors at the border of the system's calls, put there by a tracer (`strace -e inject`) into a process that loads a
//! file: the calls of the engine as they are, and the errors that a kernel would give.
//!
//! A tracer counts the calls of each thread for itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use understory::{Database, Error};

use crate::child::{Running, command, role, say, skip};
use crate::ledger::Ledger;
use crate::load::{self, schema, small};
use crate::poison::{check_poisoned, check_reopened, io_error};

/// Opens the file of its role, commits a while, with checkpoints, and looks at itself when that fails.
#[test]
#[ignore = "it is started by other tests"]
fn loads_under_a_tracer() {
    let Some(path) = role() else { return };
    let mut ledger = Ledger::default();
    let database = match Database::open(&path, &schema(), &small()) {
        Ok(database) => database,
        Err(error) => return say(&format!("not opened: {error}")),
    };
    let heads = load::heads(&database).unwrap();
    ledger.find_all(&heads);
    say(&format!("start 0 {}", heads[&0]));
    for round in 0..400 {
        let number = ledger.next(0);
        let committed = load::commit(&database, 0, number);
        let result = committed.map(|op| {
            ledger.acknowledge(0, number, op);
            say(&format!("ack 0 {number} {op}"));
        });
        let result = if round % 150 == 149 { result.and_then(|()| database.checkpoint()) } else { result };
        match result {
            Ok(()) => {}
            Err(Error::OutOfSpace { .. }) => return say("no space"),
            Err(error) => {
                let first = io_error(&error);
                check_poisoned(&database, &ledger, first);
                return say(&format!("failed: {}: {}", first.operation, first.source));
            }
        }
    }
    ledger.find(&load::check(&database).unwrap());
    match database.close() {
        Ok(()) => say("well"),
        Err(error) => say(&format!("not closed: {error}")),
    }
}

fn is_there(tool: &str) -> bool {
    Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Runs the loader with `calls` failing as `error` says; gives how it ended.
fn run(path: &Path, ledger: &mut Ledger, calls: &str, error: &str) -> String {
    let inject = format!("inject={calls}:error={error}");
    let trace = format!("trace={calls}");
    let path = path.to_str().unwrap();
    let wrapper = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", path, "-e", &trace, "-e", &inject];
    let ended = Running::start(command(&wrapper, "border::loads_under_a_tracer", path)).end();
    let lines = ended.succeeded();
    lines.iter().for_each(|line| ledger.note(line));
    lines.last().cloned().unwrap_or_default()
}

/// Each of these errors in turn, at the so-many-th of these calls.
fn check(test: &str, calls: &str, errors: &[&str], whens: &[&str], allowed: &[&str]) {
    if !is_there("strace") {
        return skip(test, "there is no strace");
    }
    let folder = tempfile::tempdir().unwrap();
    let original = folder.path().join("original");
    let database = Database::create(&original, &schema(), &small()).unwrap();
    let mut before = Ledger::default();
    for number in 1..=100 {
        before.acknowledge(0, number, load::commit(&database, 0, number).unwrap());
    }
    drop(database);
    let mut counts = BTreeMap::<String, u32>::new();
    let path = folder.path().join("forest.understory");
    for error in errors {
        for when in whens {
            fs::copy(&original, &path).unwrap();
            let mut ledger = before.clone();
            let ending = run(&path, &mut ledger, calls, &format!("{error}:when={when}"));
            let fine = allowed.iter().any(|allowed| ending.starts_with(allowed));
            assert!(fine, "{calls} {error} {when}: {ending}");
            *counts.entry(ending).or_default() += 1;
            check_reopened(&path, &mut ledger);
        }
    }
    println!("{calls}: {counts:#?}");
}

const WRITES: &str = "pwrite64,pwritev";

#[test]
fn writes() {
    let allowed = ["failed: write", "not opened", "not closed", "well"];
    check("border::writes", WRITES, &["EIO", "EROFS"], &["1", "2", "5", "17", "60", "150"], &allowed);
}

#[test]
fn syncs() {
    let allowed = ["failed: sync", "not opened", "not closed", "well"];
    check("border::syncs", "fdatasync", &["EIO", "ENOSPC"], &["1", "2", "3", "9", "40", "120"], &allowed);
}

#[test]
fn growth() {
    let allowed = ["no space", "not opened", "well"];
    check("border::growth", "fallocate", &["ENOSPC", "EDQUOT", "EFBIG"], &["1", "2+", "5+"], &allowed);
}

/// A signal may interrupt any call; that is no error.
#[test]
fn interruptions() {
    let calls = "pread64,pwrite64,pwritev,fallocate";
    check("border::interruptions", calls, &["EINTR"], &["1", "2+2", "3+5"], &["well"]);
}

/// A file system that cannot reserve space is written with zeroes instead.
#[test]
fn growth_by_zeroes() {
    check("border::growth_by_zeroes", "fallocate", &["EOPNOTSUPP"], &["1+"], &["well"]);
}
