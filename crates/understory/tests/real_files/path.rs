//! What becomes of a file's name and its rights: removed, replaced, locked, not to be written.

use std::fs;
use std::path::Path;
use std::time::Instant;

use understory::{Database, Error, OpenError};
use understory_io::IoCause;

use crate::child::{PATIENCE, Running, command, role, say};
use crate::ledger::Ledger;
use crate::load::{self, schema, small};
use crate::poison::{check_poisoned, commit_until_failure, io_error};
use crate::volume::{Volume, inside};

fn commit(database: &Database, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        load::commit(database, 0, number).unwrap();
    }
}

fn newest(database: &Database) -> Option<u64> {
    load::check(database).unwrap().get(&0).copied()
}

/// A checkpoint of a file that has no name would be of use to nobody: it fails, and says so.
#[test]
fn a_file_that_is_removed_takes_no_more_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("forest.understory");
    let removed = Database::create(&path, &schema(), &small()).unwrap();
    commit(&removed, 1..=100);
    let mut ledger = Ledger::default();
    ledger.find_all(&load::check(&removed).unwrap());
    fs::remove_file(&path).unwrap();
    let first = io_error(&commit_until_failure(&removed, &mut ledger));
    assert_eq!(first.source, IoCause::Unlinked);
    assert!(ledger.heard < 300, "{} batches were acknowledged after that", ledger.heard);
    let missing = Database::open(&path, &schema(), &small()).unwrap_err();
    assert!(matches!(missing, Error::Open(OpenError::NotFound { .. })), "{missing}");
    // The name is free for another file, which is none of its business.
    let other = Database::create(&path, &schema(), &small()).unwrap();
    commit(&other, 1..=7);
    check_poisoned(&removed, &ledger, first);
    drop(removed);
    assert_eq!(newest(&other), Some(7));
}

#[test]
fn a_file_that_is_moved_goes_on_under_its_new_name() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    let moved = Database::create(&old, &schema(), &small()).unwrap();
    commit(&moved, 1..=100);
    fs::rename(&old, &new).unwrap();
    commit(&moved, 101..=200);
    // The lock goes with the file.
    let locked = Database::open(&new, &schema(), &small()).unwrap_err();
    assert!(matches!(locked, Error::Open(OpenError::Locked { .. })), "{locked}");
    drop(moved);
    assert_eq!(newest(&Database::open(&new, &schema(), &small()).unwrap()), Some(200));
}

/// Tries to open the file of its role, first while it is locked, then when it is not.
#[test]
#[ignore = "it is started by another test"]
fn opens_a_file() {
    let Some(path) = role() else { return };
    match Database::open(&path, &schema(), &small()) {
        Ok(database) => say(&format!("open {}", newest(&database).unwrap_or(0))),
        Err(Error::Open(OpenError::Locked { .. })) => say("locked"),
        Err(other) => say(&format!("other {other}")),
    }
    match Database::open_read_only(&path, &schema(), &small()) {
        Ok(database) => say(&format!("read {}", newest(&database).unwrap_or(0))),
        Err(other) => say(&format!("other {other}")),
    }
}

fn from_another_process(path: &Path) -> Vec<String> {
    Running::start(command(&[], "path::opens_a_file", path.to_str().unwrap())).end().succeeded()
}

#[test]
fn one_process_writes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("forest.understory");
    let database = Database::create(&path, &schema(), &small()).unwrap();
    commit(&database, 1..=100);
    database.checkpoint().unwrap();
    assert_eq!(from_another_process(&path), ["locked", "read 100"]);
    commit(&database, 101..=110);
    drop(database);
    assert_eq!(from_another_process(&path)[0], "open 110");
}

/// Holds the lock until it is killed.
#[test]
#[ignore = "it is started by another test"]
fn holds_a_file() {
    let Some(path) = role() else { return };
    let _database = Database::open(path, &schema(), &small()).unwrap();
    say("open");
    std::thread::sleep(PATIENCE);
}

#[test]
fn the_lock_ends_with_its_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("forest.understory");
    drop(Database::create(&path, &schema(), &small()).unwrap());
    for _ in 0..5 {
        let holder = Running::start(command(&[], "path::holds_a_file", path.to_str().unwrap()));
        assert_eq!(holder.line(Instant::now() + PATIENCE).as_deref(), Some("open"));
        let locked = Database::open(&path, &schema(), &small()).unwrap_err();
        assert!(matches!(locked, Error::Open(OpenError::Locked { .. })), "{locked}");
        holder.kill();
        drop(Database::open(&path, &schema(), &small()).unwrap());
    }
}

/// A file system that is mounted for reading only refuses root, too.
#[test]
fn where_nothing_may_be_written() {
    inside("path::where_nothing_may_be_written", |folder| {
        let volume = Volume::memory(folder, "volume", 16 << 20)?;
        let path = volume.path.join("forest.understory");
        let database = Database::create(&path, &schema(), &small()).unwrap();
        commit(&database, 1..=100);
        database.close().unwrap();
        volume.remount("ro")?;
        let before = fs::read(&path).unwrap();
        let other = volume.path.join("other");
        for result in [
            Database::open(&path, &schema(), &small()),
            Database::salvage(&path, &schema(), &small()),
            Database::create(&other, &schema(), &small()),
        ] {
            let error = result.unwrap_err();
            assert!(matches!(error, Error::Open(OpenError::Permission { .. })), "{error:?}");
        }
        let reader = Database::open_read_only(&path, &schema(), &small()).unwrap();
        assert_eq!(newest(&reader), Some(100));
        let refused = load::commit(&reader, 0, 101).unwrap_err();
        assert!(matches!(refused, Error::ReadOnly), "{refused}");
        assert!(fs::read(&path).unwrap() == before);
        assert!(!other.exists());
        volume.remount("rw")?;
        let database = Database::open(&path, &schema(), &small()).unwrap();
        commit(&database, 101..=110);
        assert_eq!(newest(&database), Some(110));
        Ok(())
    });
}
