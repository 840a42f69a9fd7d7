//! One flipped bit in every byte of a small image, one at a time: opening and reading everything gives the right
//! data or a typed error, never a panic and never wrong data.
//!
//! A test run takes every so-many-th byte; `UNDERSTORY_FLIP_STRIDE=1` takes all.
use std::collections::BTreeMap;

use crate::common::{Account, ByOwner, Event, Model, User, create_sim, in_runs, open_sim};
use understory::{Batch, Database, Error, Machine, Options};
use understory_grid::GridError;

fn image() -> (Vec<u8>, Model) {
    let (machine, storage) = Machine::sim(31);
    let database = create_sim(&machine, &in_runs().size_limit(1 << 20)).unwrap();
    let mut user = User::new(32, 600);
    let mut batch = Batch::new();
    for round in 0..60 {
        user.fill(&mut batch, 40);
        database.commit(&batch).unwrap();
        if round % 25 == 24 {
            database.checkpoint().unwrap();
        }
    }
    database.checkpoint().unwrap();
    let model = user.model.clone();
    drop(database);
    (storage.image(), model)
}

/// What opening and reading everything came to.
fn outcome(image: &[u8], model: &Model, options: &Options) -> &'static str {
    let (machine, _storage) = Machine::sim_from(image.to_vec(), 1);
    let database = match open_sim(&machine, options) {
        Ok(database) => database,
        Err(error) => return kind(&error, true),
    };
    match model.check(&database).and_then(|()| check_gets(&database, model)) {
        Err(error) => kind(&error, false),
        Ok(()) if database.stats().grid.twin_fallbacks > 0 => "right, from the other copy",
        Ok(()) if database.stats().grid.reads_corrupt > 0 => "right, without a filter",
        Ok(()) => "right",
    }
}

/// Looks for records and for what is not there, one key at a time, twice: the first lookups bring filters into memory,
/// which decide those that follow.
fn check_gets(database: &Database, model: &Model) -> Result<(), Error> {
    for _ in 0..2 {
        for id in (0..600).step_by(7) {
            assert_eq!(database.get::<Account>(id)?.as_ref(), model.accounts.get(&id), "account {id}");
        }
        for key in model.owners.keys().step_by(23) {
            assert!(database.get::<ByOwner>(*key)?.is_some(), "{key:?}");
            assert!(database.get::<ByOwner>((key.0, key.1 | 1 << 40))?.is_none(), "beside {key:?}");
        }
        for key in model.events.keys().step_by(5) {
            assert_eq!(database.get::<Event>(*key)?.as_ref(), model.events.get(key), "event {key}");
        }
    }
    Ok(())
}

fn kind(error: &Error, at_open: bool) -> &'static str {
    match error {
        Error::Corrupt(_) if !at_open => "read: corrupt",
        Error::Unusable { source: GridError::Corrupt(_), .. } => "open: corrupt",
        Error::Unusable { source: GridError::QuorumLost { .. }, .. } => "open: quorum lost",
        Error::Unusable { source: GridError::NotUnderstory, .. } => "open: not ours",
        Error::Unusable { .. } => "open: unusable",
        other => panic!("a flipped bit gives a named error, not {other}"),
    }
}

#[test]
fn every_byte() {
    let (mut image, model) = image();
    assert!(image.len() <= 1 << 20, "the image has {} bytes", image.len());
    let options = in_runs().memory(4 << 20);
    let stride = std::env::var("UNDERSTORY_FLIP_STRIDE").ok().and_then(|stride| stride.parse().ok());
    let stride = stride.unwrap_or(if cfg!(debug_assertions) { 4_093 } else { 31 });
    assert_eq!(outcome(&image, &model, &options), "right");
    let (machine, _storage) = Machine::sim_from(image.clone(), 1);
    let database = open_sim(&machine, &options).unwrap();
    check_gets(&database, &model).unwrap();
    assert!(database.stats().filter_blocks_held > 3, "there is memory for filters");
    drop(database);
    let mut counts = BTreeMap::<_, u64>::new();
    for offset in (0..image.len()).step_by(stride) {
        let mask = 1 << (offset % 8);
        image[offset] ^= mask;
        *counts.entry(outcome(&image, &model, &options)).or_default() += 1;
        image[offset] ^= mask;
    }
    println!("image of {} bytes, every {stride}th flipped: {counts:?}", image.len());
    for what in ["right", "right, from the other copy", "right, without a filter", "read: corrupt"] {
        assert!(counts.contains_key(what), "no flip came to \"{what}\": {counts:?}");
    }
}
