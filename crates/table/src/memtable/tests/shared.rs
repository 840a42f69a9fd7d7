//! Memtables that are read while they are written: readers with limits, batches, and what a step may take.

use core::cell::{Cell, RefCell};

use super::*;
use crate::MemReader;
use crate::memtable::Access;
use crate::memtable::writer::APPEND_MAX;

/// All values in arrival order: (number, tag, tombstone); a tombstone has no tag.
type History = Vec<(u64, u32, bool)>;

/// What a reader of the first `limit` values gives.
fn seen(
    history: &History,
    limit: usize,
    (min, max): (u64, u64),
    direction: Direction,
) -> Vec<(u64, u32, bool)> {
    let mut newest = BTreeMap::new();
    newest.extend(history.iter().take(limit).map(|version| (version.0, *version)));
    let range = newest.range(min..=max).map(|(_, version)| *version);
    match direction {
        Direction::Ascending => range.collect(),
        Direction::Descending => range.rev().collect(),
    }
}

fn check_get_below<R: Row>(memtable: &Memtable<R>, history: &History, limit: usize, number: u64) {
    let newest = history.iter().take(limit).rev().find(|version| version.0 == number);
    let found = match memtable.get_below(R::key_of(number), u32::try_from(limit).unwrap()) {
        Found::Absent => None,
        Found::Tombstone => Some((number, 0, true)),
        Found::Value(row) => Some((number, row.tag(), false)),
    };
    assert_eq!(found, newest.copied(), "key {number} below {limit}");
}

/// A reader under way, with what it has still to give.
struct Reading<R: Row> {
    reader: MemReader<R>,
    expected: std::vec::IntoIter<(u64, u32, bool)>,
}

impl<R: Row> Reading<R> {
    fn begin(history: &History, limit: usize, numbers: (u64, u64), direction: Direction) -> Self {
        let reader = MemReader::new(key_range::<R>(numbers), direction, u32::try_from(limit).unwrap());
        Self { reader, expected: seen(history, limit, numbers, direction).into_iter() }
    }

    /// Reads up to `count` entries; false at the end.
    fn go_on(&mut self, memtable: impl Fn(&mut MemReader<R>), count: usize) -> bool {
        for _ in 0..count {
            while self.reader.head().is_none() && !self.reader.is_ended() {
                memtable(&mut self.reader);
            }
            let Some(Entry { value, tombstone }) = self.reader.head() else {
                assert_eq!(self.expected.next(), None, "the reader ends early");
                return false;
            };
            let found = (R::number(value.key()), value.tag(), tombstone);
            assert_eq!(Some(found), self.expected.next());
            self.reader.advance();
        }
        true
    }
}

/// Batches of random sizes beside readers that begin at random limits and go on at random times: while a beat is
/// open, when runs were folded, and when the memtable is sealed.
fn check_readers<R: Row>(seed: u64, span: u64, beats: u32, beat_max: usize) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut memtable = Open::<R>::new(pool(4096, 1024), 80_000);
    let mut scratch = Scratch::default();
    let mut history = History::new();
    let mut readings: Vec<Reading<R>> = Vec::new();
    for beat in 0..beats {
        let mut left = random.usize(0..=beat_max);
        while left > 0 {
            let count = random.usize(1..=left.min(300));
            left -= count;
            append(&mut memtable, &mut history, span, count, &mut random);
            for _ in 0..3 {
                let limit =
                    history.len() - random.usize(0..=history.len().min(if beat % 2 == 0 { 3 } else { 3000 }));
                check_get_below(&memtable, &history, limit, random.u64(0..span + 1));
                let (a, b) = (random.u64(0..span + 2), random.u64(0..span + 2));
                let direction = if random.bool() { Direction::Ascending } else { Direction::Descending };
                readings.push(Reading::begin(&history, limit, (a.min(b), a.max(b)), direction));
            }
            readings.retain_mut(|reading| {
                random.u8(..4) > 0 || reading.go_on(|reader| memtable.refill(reader), random.usize(..200))
            });
        }
        memtable.close_beat(&mut scratch);
        memtable.verify();
    }
    let all = (0, span + 2);
    for limit in [0, 1, history.len() / 2, history.len() - 1, history.len()] {
        for direction in [Direction::Ascending, Direction::Descending] {
            readings.push(Reading::begin(&history, limit, all, direction));
        }
    }
    let sealed = memtable.seal();
    for mut reading in readings {
        assert!(!reading.go_on(|reader| sealed.refill(reader), usize::MAX));
    }
}

/// Appends a batch, with or without tombstones.
fn append<R: Row>(
    memtable: &mut Open<R>,
    history: &mut History,
    span: u64,
    count: usize,
    random: &mut fastrand::Rng,
) {
    let mut bitmap = vec![0; count.div_ceil(8)];
    let has_tombstones = random.bool();
    let mut rows = Vec::new();
    for index in 0..count {
        let (number, tag) = (random.u64(0..span), u32::try_from(history.len()).unwrap() + 1);
        rows.push(R::row(number, tag));
        let tombstone = has_tombstones && random.u8(..4) == 0;
        bitmap[index / 8] |= u8::from(tombstone) << (index % 8);
        history.push(if tombstone { (number, 0, true) } else { (number, tag, false) });
    }
    memtable.append(&rows, has_tombstones.then_some(bitmap.as_slice())).unwrap();
}

#[test]
fn readers_go_on_while_values_come() {
    check_readers::<Short>(1, 500, 40, 1_200);
    check_readers::<Tied>(2, 500, 40, 1_200);
    check_readers::<Named>(3, 3_000, 14, 3_000);
}

#[test]
fn readers_of_few_keys_with_many_versions() {
    check_readers::<Tied>(4, 1, 20, 800);
    check_readers::<Short>(5, 4, 20, 2_500);
}

/// More versions of one key than a refill looks at, of which the reader sees the oldest.
#[test]
fn a_refill_is_bounded() {
    let mut memtable = Open::new(pool(4096, 1024), 100_000);
    memtable.put(&Short::row(5, 1), false).unwrap();
    for tag in 2..10_000 {
        memtable.put(&Short::row(5, tag), false).unwrap();
    }
    memtable.put(&Short::row(6, 1), false).unwrap();
    memtable.close_beat(&mut Scratch::default());
    let range = key_range::<Short>((0, 10));
    let mut reader = MemReader::new(range, Direction::Ascending, 1);
    let mut refills = 0;
    while reader.head().is_none() {
        memtable.refill(&mut reader);
        refills += 1;
    }
    assert_eq!(reader.head().unwrap().value, &Short::row(5, 1));
    // 10 000 entries, of which the first refill looks at 4 * 4, each further one at twice as many up to 4 * 256.
    assert!((10..=20).contains(&refills), "{refills} refills");
    reader.advance();
    memtable.refill(&mut reader);
    assert!(reader.is_ended() && reader.head().is_none(), "key 6 came later");
}

/// What is done after a step.
type Watch<R> = Box<dyn Fn(&Memtable<R>)>;

/// A memtable whose owner counts what a step that excludes readers does, and reads at each.
struct Watched<R: Record> {
    memtable: RefCell<Memtable<R>>,
    steps: Cell<usize>,
    grown_max: Cell<u64>,
    watch: Watch<R>,
}

impl<R: Record> Access<R> for Watched<R> {
    fn read<T>(&self, work: impl FnOnce(&Memtable<R>) -> T) -> T {
        work(&self.memtable.borrow())
    }

    fn write<T>(&mut self, work: impl FnOnce(&mut Memtable<R>) -> T) -> T {
        let before = self.memtable.borrow().len();
        let result = work(&mut self.memtable.borrow_mut());
        let memtable = self.memtable.borrow();
        self.steps.set(self.steps.get() + 1);
        self.grown_max.set(self.grown_max.get().max(memtable.len() - before));
        (self.watch)(&memtable);
        drop(memtable);
        result
    }
}

/// Between any two steps of the writer all is in order and readers see what was published.
#[test]
fn readers_may_come_between_any_two_steps() {
    let published = 5_000;
    let row = |index: u64| Tied::row(index * 7_919 % 10_007, u32::try_from(index).unwrap());
    let history: History =
        (0..20_000).map(|index| (index * 7_919 % 10_007, u32::try_from(index).unwrap(), false)).collect();
    let expected = seen(&history, published, (0, 20_000), Direction::Descending);
    let watch = move |memtable: &Memtable<Tied>| {
        if memtable.len() >= 5_000 {
            let mut reader = MemReader::new(key_range::<Tied>((9_000, 9_100)), Direction::Descending, 5_000);
            let mut given = Vec::new();
            while !reader.is_ended() {
                memtable.refill(&mut reader);
                while let Some(Entry { value, tombstone }) = reader.head() {
                    given.push((Tied::number(value.key()), value.tag(), tombstone));
                    reader.advance();
                }
            }
            let inside = expected.iter().filter(|version| (9_000..=9_100).contains(&version.0));
            assert!(given.iter().eq(inside));
            let found = memtable.get_below(Tied::key_of(expected[0].0), 5_000);
            assert!(matches!(found, Found::Value(row) if row.tag() == expected[0].1));
        }
    };
    let mut watched = Watched {
        memtable: RefCell::new(Memtable::new(pool(4096, 1024), 100_000)),
        steps: Cell::new(0),
        grown_max: Cell::new(0),
        watch: Box::new(watch),
    };
    let (mut writer, mut scratch) = (MemWriter::default(), Scratch::default());
    for beat in 0..10 {
        let rows: Vec<Tied> = (beat * 2_000..(beat + 1) * 2_000).map(row).collect();
        for rows in rows.chunks(700) {
            writer.append(&mut watched, rows, None).unwrap();
        }
        writer.close_beat(&mut watched, &mut scratch);
        watched.memtable.borrow().verify();
    }
    assert_eq!(watched.grown_max.get(), u64::try_from(APPEND_MAX).unwrap());
    assert!(watched.steps.get() > 20_000 / APPEND_MAX);
}

#[test]
fn a_batch_without_room_leaves_nothing() {
    let pool = pool(4096, 2);
    let mut memtable = Open::new(pool.clone(), 1_000);
    let rows: Vec<Short> = (0..600).map(|number| Short::row(number, 1)).collect();
    assert_eq!(memtable.append(&rows, None), Err(Full::Chunks { count: 2 }));
    assert_eq!((memtable.len(), pool.available()), (0, 2));
    let per_chunk = Memtable::<Short>::values_per_chunk(4096);
    memtable.append(&rows[..per_chunk], None).unwrap();
    assert_eq!(pool.available(), 1);
    assert_eq!(memtable.append(&rows[..per_chunk + 1], None), Err(Full::Chunks { count: 2 }));
    memtable.append(&rows[..per_chunk], None).unwrap();
    assert_eq!(pool.available(), 0);
    memtable.append(&[], None).unwrap();
    memtable.verify();
    let mut narrow = Open::new(super::pool(4096, 2), 10);
    assert_eq!(narrow.append(&rows[..11], None), Err(Full::Values { count_max: 10 }));
    narrow.append(&rows[..10], Some(&[0xff, 3])).unwrap();
    assert_eq!(narrow.tombstone_count(), 10);
    assert_eq!(narrow.get(9), Found::Tombstone);
}

#[test]
#[should_panic(expected = "a bit for each value")]
fn a_bitmap_fits_its_values() {
    let mut memtable = Open::new(pool(4096, 2), 100);
    let rows = [Short::row(1, 1); 9];
    memtable.append(&rows, Some(&[1])).unwrap();
}
