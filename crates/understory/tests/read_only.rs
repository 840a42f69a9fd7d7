//! A reader beside a writer: it sees the checkpoint that it was opened at, or is told that it has expired.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test that fails says where"
)]

mod common;

use common::{Account, User, create_sim, options, schema};
use std::path::Path;
use understory::{Batch, Database, Error, Machine, Options};

/// So little memory that most reads of a reader go to the file.
fn reader_options() -> Options {
    options().memory(600 << 10)
}

#[test]
fn it_shows_its_checkpoint_until_that_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("forest.understory");
    let mut writer = Database::create(&path, &schema(), &options()).unwrap();
    let mut user = User::new(42, 4_000);
    let mut batch = Batch::new();
    let mut commit = |writer: &mut Database, user: &mut User, batches: u32| {
        for _ in 0..batches {
            user.fill(&mut batch, 60);
            writer.commit(&batch).unwrap();
        }
        writer.checkpoint().unwrap();
    };
    commit(&mut writer, &mut user, 300);
    let mut expired = 0;
    for round in 0..20 {
        let reader = Database::open_read_only(&path, &schema(), &reader_options()).unwrap();
        let expected = user.model.clone();
        expected.check(&reader).unwrap();
        // A reader does not see what is newer, committed or checkpointed.
        commit(&mut writer, &mut user, 5);
        expected.check(&reader).unwrap();
        assert_ne!(user.model, expected);
        for _ in 0..round {
            commit(&mut writer, &mut user, 20);
            match expected.check(&reader) {
                Ok(()) => {}
                Err(Error::Expired) => expired += 1,
                Err(other) => panic!("round {round}: {other}"),
            }
        }
        user.model.check(&writer).unwrap();
    }
    assert!(expired > 0, "some readers were overtaken");
}

#[test]
fn it_writes_nothing() {
    let (machine, storage) = Machine::sim(43);
    let mut writer = create_sim(&machine, &options()).unwrap();
    let mut user = User::new(44, 500);
    let mut batch = Batch::new();
    for _ in 0..50 {
        user.fill(&mut batch, 60);
        writer.commit(&batch).unwrap();
    }
    writer.close().unwrap();
    let before = storage.image();
    let reader = Path::new("simulated");
    let reader = Database::open_machine(machine, reader, &schema(), &reader_options(), true).unwrap();
    user.model.check(&reader).unwrap();
    assert_eq!(reader.get::<Account>(u64::MAX / 2).unwrap(), None);
    reader.close().unwrap();
    assert!(storage.image() == before, "the file is as it was");
}
