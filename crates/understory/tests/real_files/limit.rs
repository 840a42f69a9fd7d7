//! A limit on the size of files (`ulimit -f`): the same as a file system that is full.
//!
//! The system also sends a signal that ends a process which has not asked to live on. That is as if it was killed.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use understory::{Database, Error};

use crate::child::{Running, command, role, say, skip};
use crate::ledger::Ledger;
use crate::load::{self, schema, small};

/// The signal of a file that gets too large.
const SIGXFSZ: i32 = 25;

/// In units of 512 bytes.
const LIMIT: &str = "8192";

#[test]
#[ignore = "it is started by other tests"]
fn loads_until_it_is_refused() {
    let Some(path) = role() else { return };
    let database = Database::create(Path::new(&path), &schema(), &small()).unwrap();
    let error = (1..).find_map(|number| match load::commit(&database, 0, number) {
        Ok(op) => {
            say(&format!("ack 0 {number} {op}"));
            None
        }
        Err(error) => Some(error),
    });
    assert!(matches!(error, Some(Error::OutOfSpace { .. })), "{error:?}");
    load::check(&database).unwrap();
    say("refused");
}

/// Loads a file under the limit, and looks at it without.
fn check(test: &str, shell: &str, expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("forest.understory");
    let script = format!("{shell} ulimit -f {LIMIT} && exec \"$@\"");
    let wrapper = ["sh", "-c", &script, "sh"];
    let ended =
        Running::start(command(&wrapper, "limit::loads_until_it_is_refused", path.to_str().unwrap())).end();
    if ended.errors.contains("ulimit") {
        return skip(test, &ended.errors);
    }
    let mut ledger = Ledger::default();
    ended.lines.iter().for_each(|line| ledger.note(line));
    let ending = match ended.status.signal() {
        Some(SIGXFSZ) => "killed",
        _ if ended.lines.last().is_some_and(|line| line == "refused") => "refused",
        _ => panic!("{}: {}", ended.status, ended.errors),
    };
    assert_eq!(ending, expected);
    assert!(ledger.heard > 50, "{} batches went well", ledger.heard);
    let database = Database::open(&path, &schema(), &small()).unwrap();
    ledger.find(&load::check(&database).unwrap());
    let next = ledger.heard + ledger.unheard + 1;
    load::commit(&database, 0, next).unwrap();
}

#[test]
fn is_lack_of_space() {
    check("limit::is_lack_of_space", "trap '' XFSZ &&", "refused");
}

#[test]
fn kills_who_does_not_ignore_its_signal() {
    check("limit::kills_who_does_not_ignore_its_signal", "", "killed");
}
