//! The memtable against a map from key to all its versions; from seeds in `fuzz`.

mod fuzz;
mod shared;

use core::ops::Deref;
use std::collections::BTreeMap;

use understory_format::{Key, Record};
use understory_io::{Arena, Pool};

use super::{Full, MemWriter, Memtable, Sealed};
use crate::test_rows::{Named, Row, Short, Tied};
use crate::{Direction, Entry, Found, KeyRange, Merge, Scratch, Source, Tombstones};

fn pool(buffer_size: usize, count: usize) -> Pool {
    let arena = Arena::new(buffer_size * count).unwrap();
    arena.pool(buffer_size, count).unwrap()
}

/// A memtable with who writes it.
struct Open<R: Record> {
    memtable: Memtable<R>,
    writer: MemWriter,
}

impl<R: Record> Deref for Open<R> {
    type Target = Memtable<R>;

    fn deref(&self) -> &Memtable<R> {
        &self.memtable
    }
}

impl<R: Record> Open<R> {
    fn new(pool: Pool, value_count_max: u32) -> Self {
        Self::of(Memtable::new(pool, value_count_max))
    }

    fn of(memtable: Memtable<R>) -> Self {
        Self { memtable, writer: MemWriter::default() }
    }

    fn put(&mut self, value: &R, tombstone: bool) -> Result<(), Full> {
        self.writer.put(&mut self.memtable, value, tombstone)
    }

    fn append(&mut self, values: &[R], tombstones: Option<&[u8]>) -> Result<(), Full> {
        self.writer.append(&mut self.memtable, values, tombstones)
    }

    fn close_beat(&mut self, scratch: &mut Scratch) {
        self.writer.close_beat(&mut self.memtable, scratch);
    }

    fn seal(self) -> Sealed<R> {
        self.memtable.seal()
    }
}

/// Versions of each number, the newest first, as (tag, tombstone).
type Model = BTreeMap<u64, Vec<(u32, bool)>>;

/// What a cursor over `numbers` gives: (number, tag, tombstone).
fn expected(model: &Model, numbers: Option<(u64, u64)>, direction: Direction) -> Vec<(u64, u32, bool)> {
    let (min, max) = numbers.unwrap_or((0, u64::MAX));
    let versions = |(number, versions): (&u64, &Vec<(u32, bool)>)| {
        let number = *number;
        versions.iter().map(move |&(tag, tombstone)| (number, tag, tombstone)).collect::<Vec<_>>()
    };
    let range = model.range(min..=max);
    match direction {
        Direction::Ascending => range.flat_map(versions).collect(),
        Direction::Descending => range.rev().flat_map(versions).collect(),
    }
}

fn drain<R: Row>(mut cursor: impl Source<R>) -> Vec<(u64, u32, bool)> {
    let mut given = Vec::new();
    while let Some(prefix) = cursor.load().unwrap() {
        let Entry { value, tombstone } = cursor.entry();
        assert_eq!(prefix, value.key().prefix());
        assert_eq!(cursor.key(), value.key());
        given.push((R::number(value.key()), value.tag(), tombstone));
        cursor.advance();
    }
    given
}

fn whole<K: Key>() -> KeyRange<K> {
    KeyRange::new(K::MIN, K::MAX).unwrap()
}

fn key_range<R: Row>((min, max): (u64, u64)) -> KeyRange<R::Key> {
    KeyRange::new(R::key_of(min), R::key_of(max)).unwrap()
}

fn check_range<R: Row>(memtable: &Memtable<R>, model: &Model, numbers: Option<(u64, u64)>) {
    for direction in [Direction::Ascending, Direction::Descending] {
        let all = expected(model, numbers, direction);
        let cursor = || memtable.cursor(numbers.map_or_else(whole, key_range::<R>), direction);
        assert_eq!(drain(cursor()), all, "{numbers:?} {direction:?}");
        let mut newest = all;
        newest.dedup_by_key(|version| version.0);
        let mut merge = Merge::new(vec![cursor()], direction, Tombstones::Keep);
        for version in newest {
            let entry = merge.next().unwrap().unwrap();
            assert_eq!((R::number(entry.value.key()), entry.value.tag(), entry.tombstone), version);
        }
        assert!(merge.next().unwrap().is_none());
    }
}

fn check_all<R: Row>(memtable: &Memtable<R>, model: &Model, span: u64, random: &mut fastrand::Rng) {
    memtable.verify();
    let len: usize = model.values().map(Vec::len).sum();
    assert_eq!(usize::try_from(memtable.len()), Ok(len));
    assert_eq!(usize::try_from(memtable.distinct()), Ok(model.len()));
    let tombstones = model.values().flatten().filter(|version| version.1).count();
    assert_eq!(usize::try_from(memtable.tombstone_count()), Ok(tombstones));
    let ends = model.keys().next().zip(model.keys().next_back());
    assert_eq!(memtable.key_range(), ends.map(|(min, max)| key_range::<R>((*min, *max))));
    for number in (0..40).map(|_| random.u64(0..span + 2)).chain([0, span, span + 1]) {
        let found = match model.get(&number).and_then(|versions| versions.first()) {
            None => None,
            Some((_, true)) => Some(None),
            Some((tag, false)) => Some(Some(*tag)),
        };
        let given = match memtable.get(R::key_of(number)) {
            Found::Absent => None,
            Found::Tombstone => Some(None),
            Found::Value(row) => Some(Some(row.tag())),
        };
        assert_eq!(given, found, "key {number}");
    }
    check_range(memtable, model, None);
    for _ in 0..4 {
        let (a, b) = (random.u64(0..span + 2), random.u64(0..span + 2));
        check_range(memtable, model, Some((a.min(b), a.max(b))));
        check_range(memtable, model, Some((a, a)));
    }
}

#[test]
fn ends_of_the_key_space() {
    let mut memtable = Open::<Short>::new(pool(4096, 1), 10);
    for number in [u64::MAX, 0, u64::MAX] {
        memtable.put(&Short::row(number, 1), false).unwrap();
    }
    let check = |memtable: &Memtable<Short>| {
        let all = [(0, 1, false), (u64::MAX, 1, false), (u64::MAX, 1, false)];
        assert_eq!(drain(memtable.cursor(whole(), Direction::Ascending)), all);
        assert_eq!(drain(memtable.cursor(whole(), Direction::Descending)), [all[1], all[1], all[0]]);
    };
    check(&memtable);
    memtable.close_beat(&mut Scratch::default());
    check(&memtable);
}

#[test]
fn full_of_values() {
    let mut memtable = Open::new(pool(4096, 4), 3);
    for number in [5, 5, 6] {
        memtable.put(&Short::row(number, 1), false).unwrap();
    }
    assert_eq!(memtable.put(&Short::row(5, 2), false), Err(Full::Values { count_max: 3 }));
    assert_eq!(memtable.put(&Short::row(7, 0), true), Err(Full::Values { count_max: 3 }));
    assert_eq!((memtable.len(), memtable.distinct(), memtable.tombstone_count()), (3, 2, 0));
    assert_eq!(memtable.get(5), Found::Value(Short::row(5, 1)));
    memtable.memtable.reset();
    assert!(memtable.is_empty());
    assert_eq!(memtable.get(5), Found::Absent);
    memtable.put(&Short::row(7, 0), true).unwrap();
    assert_eq!(memtable.get(7), Found::Tombstone);
}

#[test]
fn full_of_chunks() {
    let pool = pool(4096, 2);
    let mut first = Open::new(pool.clone(), 10_000);
    let mut second = Open::new(pool.clone(), 10_000);
    second.put(&Short::row(0, 0), false).unwrap();
    let mut number = 0;
    let full = loop {
        match first.put(&Short::row(number, 0), false) {
            Ok(()) => number += 1,
            Err(full) => break full,
        }
    };
    assert_eq!(full, Full::Chunks { count: 2 });
    assert_eq!(first.len(), number);
    assert_eq!(first.get(number), Found::Absent);
    assert_eq!(first.memory(), 4096);
    first.verify();
    second.memtable.reset();
    assert_eq!(pool.available(), 1);
    first.put(&Short::row(number, 0), false).unwrap();
    first.close_beat(&mut Scratch::default());
    first.verify();
    assert_eq!(first.bytes(), 12 * first.len());
}

#[test]
fn a_tombstone_keeps_its_key_only() {
    let mut memtable = Open::new(pool(4096, 1), 10);
    memtable.put(&Short::row(3, 77), true).unwrap();
    let mut cursor = memtable.cursor(whole(), Direction::Ascending);
    assert!(cursor.load().unwrap().is_some());
    assert_eq!(cursor.entry(), Entry { value: &Short::tombstone(3), tombstone: true });
}

#[test]
fn a_cursor_keeps_a_sealed_memtable() {
    let mut memtable = Open::new(pool(4096, 1), 10);
    memtable.put(&Short::row(3, 1), false).unwrap();
    memtable.close_beat(&mut Scratch::default());
    let sealed = memtable.seal();
    let cursor = sealed.clone().cursor(whole(), Direction::Ascending);
    let sealed = sealed.recycle().expect_err("a cursor is left");
    assert_eq!(drain(cursor), [(3, 1, false)]);
    assert!(sealed.recycle().is_ok());
}

#[test]
#[should_panic(expected = "only a closed memtable can be sealed")]
fn an_open_beat_cannot_be_sealed() {
    let mut memtable = Open::new(pool(4096, 1), 10);
    memtable.put(&Short::row(3, 1), false).unwrap();
    drop(memtable.seal());
}

#[test]
fn scratch_that_is_large_enough_does_not_grow() {
    let mut memtable = Open::new(pool(4096, 64), 5_000);
    let mut scratch = Scratch::new(5_000);
    let size = scratch.size();
    for beat in 0..10 {
        for value in 0..500 {
            memtable.put(&Named::row(value * 7 % 100, beat), false).unwrap();
        }
        memtable.close_beat(&mut scratch);
    }
    memtable.verify();
    assert_eq!(scratch.size(), size);
}
