//! A reader beside a writer: it sees the checkpoint that it was opened at, or is told that it has expired.

use crate::common::{Account, User, create_sim, options, schema, without_journal};
use std::path::Path;
use understory::{Batch, Database, Error, Geometry, Machine, Options};
use understory_io::IoCause;

/// So little memory that most reads of a reader go to the file.
fn reader_options() -> Options {
    options().memory(600 << 10)
}

#[test]
fn it_shows_its_checkpoint_until_that_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("forest.understory");
    let writer = Database::create(&path, &schema(), &options()).unwrap();
    let mut user = User::new(42, 4_000);
    let mut batch = Batch::new();
    let mut commit = |writer: &Database, user: &mut User, batches: u32| {
        for _ in 0..batches {
            user.fill(&mut batch, 60);
            writer.commit(&batch).unwrap();
        }
        writer.checkpoint().unwrap();
    };
    commit(&writer, &mut user, 300);
    let mut expired = 0;
    for round in 0..20 {
        let reader = Database::open_read_only(&path, &schema(), &reader_options()).unwrap();
        let expected = user.model.clone();
        expected.check(&reader).unwrap();
        // A reader does not see what is newer, committed or checkpointed.
        commit(&writer, &mut user, 5);
        expected.check(&reader).unwrap();
        assert_ne!(user.model, expected);
        for _ in 0..round {
            commit(&writer, &mut user, 20);
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
    let writer = create_sim(&machine, &options()).unwrap();
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

/// The writer cuts the file between a reader's look at its size and the read.
#[test]
fn a_file_that_is_cut_under_a_reader_is_not_broken() {
    let (machine, storage) = Machine::sim(45);
    let writer = create_sim(&machine, &without_journal()).unwrap();
    let mut user = User::new(46, 500);
    let mut batch = Batch::new();
    let mut go_on = |writer: &Database| {
        for _ in 0..20 {
            user.fill(&mut batch, 60);
            writer.commit(&batch).unwrap();
        }
        writer.checkpoint().unwrap();
    };
    go_on(&writer);
    let path = Path::new("simulated");
    let reader =
        Database::open_machine(machine, path, &schema(), &reader_options().geometry(Geometry::small()), true)
            .unwrap();
    let read = || {
        // The writer's compaction reads, too.
        storage.scheduler().run_all();
        // Both copies of an index block.
        let next = storage.operations();
        (next..next + 2).for_each(|operation| storage.inject(operation, IoCause::Truncated));
        reader.get::<Account>(250).unwrap_err()
    };
    assert!(matches!(read(), Error::Unreadable { .. }));
    go_on(&writer);
    assert!(
        matches!(read(), Error::Unreadable { .. }),
        "one checkpoint overwrites nothing that the reader needs"
    );
    go_on(&writer);
    assert!(matches!(read(), Error::Expired));
}
