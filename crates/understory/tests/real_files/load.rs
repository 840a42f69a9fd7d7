//! The load: what batch `number` of thread `thread` puts and removes follows from these two numbers alone.
//!
//! Three trees show different things. `entries` keeps every record that was ever committed, `recent` only those of the
//! last batches of each thread (the others are removed, and its keys are scattered), `heads` has one record for each
//! thread, overwritten by each batch. So the newest batch of each thread says what all of the database must be: a
//! record that is missing, left over, torn off its batch or wrong in any byte is seen.

use std::collections::BTreeMap;

use understory::{Batch, Database, Durability, Error, Geometry, Options, Schema, record};
use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A record that stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Entry {
    thread: U16,
    number: U64,
    index: U32,
    body: [u8; 42],
    check: U64,
}
record!(Entry: "entries", key = { thread: U16, number: U64, index: U32 });

/// A record that is removed by a later batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Recent {
    check: U64,
    place: U128,
}
record!(Recent: "recent", key = { place: U128 });

/// The newest batch of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Head {
    thread: U16,
    number: U64,
    check: U64,
}
record!(Head: "heads", key = { thread: U16 });

pub(crate) fn schema() -> Schema {
    Schema::new().tree::<Entry>().tree::<Recent>().tree::<Head>()
}

/// Tiny sizes, so that a small file has journal, levels and checkpoints.
pub(crate) fn small() -> Options {
    Options::default().memory(8 << 20).geometry(Geometry::small().with_journal())
}

/// The same with the least memory that it works with, so that reads reach the file.
pub(crate) fn least() -> Options {
    let path = std::env::temp_dir().join("understory-that-is-not-made");
    match Database::create(path, &schema(), &small().memory(1)) {
        Err(Error::MemoryTooSmall { needed, .. }) => small().memory(needed),
        other => panic!("no file is made with one byte: {other:?}"),
    }
}

/// The newest batch of each thread, by thread; none if it is 0.
pub(crate) type Heads = BTreeMap<u16, u64>;

/// Records of `recent` stay for so many batches of their thread.
const RECENT_BATCHES: u64 = 8;
/// What a record of each tree takes of the batch limit at most: one put in each of two trees, and a removal.
const EFFECT_SIZE: u32 = 200;

/// Spreads the bits of three numbers over one.
fn mix(thread: u16, number: u64, index: u32) -> u64 {
    let mut x = number ^ (u64::from(thread) << 48) ^ (u64::from(index) << 24) ^ 0x9e37_79b9_7f4a_7c15;
    for multiplier in [0xbf58_476d_1ce4_e5b9_u64, 0x94d0_49bb_1331_11eb] {
        x = (x ^ (x >> 30)).wrapping_mul(multiplier);
    }
    x ^ (x >> 31)
}

fn entry(thread: u16, number: u64, index: u32) -> Entry {
    let seed = mix(thread, number, index);
    let mut body = [0; 42];
    fastrand::Rng::with_seed(seed).fill(&mut body);
    Entry { thread: thread.into(), number: number.into(), index: index.into(), body, check: seed.into() }
}

fn recent(thread: u16, number: u64, index: u32) -> Recent {
    let seed = mix(thread, number, index);
    let tag = u128::from(thread) << 64 | u128::from(number) << 24 | u128::from(index);
    let place = u128::from(seed.rotate_left(29)) << 64 ^ tag;
    Recent { check: seed.into(), place: place.into() }
}

fn head(thread: u16, number: u64) -> Head {
    Head { thread: thread.into(), number: number.into(), check: mix(thread, number, u32::MAX).into() }
}

/// Records of a batch: few in most, as many as the geometry takes in some.
fn count(geometry: &Geometry, thread: u16, number: u64) -> u32 {
    let max = geometry.batch_size_max / EFFECT_SIZE;
    let seed = mix(thread, number, u32::MAX - 1);
    let spread = u32::try_from(seed >> 40).unwrap();
    match seed % 32 {
        0 => max,
        1..=4 => 1 + spread % max,
        5..=12 => 1 + spread % (max / 16),
        _ => 1 + spread % 4,
    }
}

/// How a batch is committed: one thread only buffers, one now and then, the others never.
pub(crate) fn durability(thread: u16, number: u64) -> Durability {
    match thread % 6 {
        4 => Durability::Buffered,
        5 if !number.is_multiple_of(3) => Durability::Buffered,
        _ => Durability::Synced,
    }
}

/// Fills `batch` with batch `number` (from 1) of `thread`.
pub(crate) fn fill(batch: &mut Batch, geometry: &Geometry, thread: u16, number: u64) {
    batch.clear();
    for index in 0..count(geometry, thread, number) {
        batch.put(&entry(thread, number, index));
        batch.put(&recent(thread, number, index));
    }
    if let Some(old) = number.checked_sub(RECENT_BATCHES).filter(|old| *old > 0) {
        for index in 0..count(geometry, thread, old) {
            batch.remove::<Recent>(recent(thread, old, index).place.get());
        }
    }
    batch.put(&head(thread, number));
}

/// Commits batch `number` of `thread`.
pub(crate) fn commit(database: &Database, thread: u16, number: u64) -> Result<u64, Error> {
    let mut batch = Batch::new();
    fill(&mut batch, database.geometry(), thread, number);
    Ok(database.commit_with(&batch, durability(thread, number))?.get())
}

/// The newest batch of each thread in the database.
pub(crate) fn heads(database: &Database) -> Result<Heads, Error> {
    let mut heads = Heads::new();
    for row in database.scan::<Head>(..)? {
        let row = row?;
        let (thread, number) = (row.thread.get(), row.number.get());
        assert_eq!(row, head(thread, number), "the head of thread {thread}");
        heads.insert(thread, number);
    }
    Ok(heads)
}

/// Reads everything and compares it with what the heads say; gives these.
pub(crate) fn check(database: &Database) -> Result<Heads, Error> {
    let heads = heads(database)?;
    check_entries(database, &heads)?;
    check_recent(database, &heads)?;
    check_lookups(database, &heads)?;
    Ok(heads)
}

fn check_entries(database: &Database, heads: &Heads) -> Result<(), Error> {
    let mut rows = database.scan::<Entry>(..)?;
    for (thread, newest) in heads {
        for number in 1..=*newest {
            for index in 0..count(database.geometry(), *thread, number) {
                let expected = entry(*thread, number, index);
                let found = rows.next().transpose()?;
                assert_eq!(found, Some(expected), "record {index} of batch {number} of thread {thread}");
            }
        }
    }
    assert_eq!(rows.next().transpose()?, None, "a record of no batch");
    Ok(())
}

fn check_recent(database: &Database, heads: &Heads) -> Result<(), Error> {
    let mut expected = BTreeMap::new();
    for (thread, newest) in heads {
        for number in newest.saturating_sub(RECENT_BATCHES - 1).max(1)..=*newest {
            for index in 0..count(database.geometry(), *thread, number) {
                let row = recent(*thread, number, index);
                expected.insert(row.place.get(), row);
            }
        }
    }
    let rows = database.scan_rev::<Recent>(..)?.collect::<Result<Vec<_>, _>>()?;
    assert!(rows.iter().eq(expected.values().rev()), "recent records differ");
    Ok(())
}

/// Single lookups: a record of a batch, the place behind its last one, and one that was removed.
fn check_lookups(database: &Database, heads: &Heads) -> Result<(), Error> {
    for (thread, newest) in heads {
        for step in 0..20 {
            let number = 1 + mix(*thread, step, 0) % newest;
            let count = count(database.geometry(), *thread, number);
            let index = u32::try_from(step).unwrap() % count;
            let found = database.get::<Entry>((*thread, number, index))?;
            assert_eq!(found, Some(entry(*thread, number, index)));
            assert_eq!(database.get::<Entry>((*thread, number, count))?, None);
            let row = recent(*thread, number, index);
            let stays = number + RECENT_BATCHES > *newest;
            assert_eq!(database.get::<Recent>(row.place.get())?, stays.then_some(row));
        }
    }
    Ok(())
}
