//! Times the kernels of the memtable and of the merge: `cargo run --release -p understory-table --example kernels`.
//!
//! A million values with random 16-byte keys in 32 beats. Prints nanoseconds a value; one run, no statistics.

mod timing;

use std::hint::black_box;
use std::time::Duration;

use understory_format::{Key, Record, record};
use understory_io::{Arena, Clock, MonotonicClock};
use understory_table::{
    Direction, Entry, KeyRange, MemReader, MemWriter, Memtable, Merge, Scratch, Source, TableError,
    Tombstones,
};
use zerocopy::little_endian::{U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use timing::{show, time};

const COUNT: u32 = 1 << 20;
const BEATS: u32 = 32;
const BATCH: usize = 100;
const CHUNK_SIZE: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Large {
    id: U128,
    rest: [u8; 112],
}
record! { Large: "large", key = { id: U128 } }

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Small {
    carrier: [u8; 2],
    number: U64,
    time: U32,
    id: U64,
}
record! { Small: "small", key = { carrier: [u8; 2], number: U64, id: U64 } }

fn large(random: u64) -> Large {
    let id = u128::from(random) << 64 | u128::from(random);
    Large { id: id.into(), rest: [1; 112] }
}

/// All keys of one carrier share a prefix.
fn small(random: u64) -> Small {
    let [carrier, ..] = random.to_le_bytes();
    Small { carrier: [carrier % 16, 0], number: (random >> 50).into(), time: 0.into(), id: random.into() }
}

fn whole<K: Key>() -> KeyRange<K> {
    KeyRange::new(K::MIN, K::MAX).expect("the least key is not above the greatest")
}

fn memtable<R: Record>(name: &str, row: impl Fn(u64) -> R) {
    println!("{name}: {} bytes a value", size_of::<R>());
    let chunks = usize::try_from(COUNT).expect("small") * (size_of::<R>() + 20) / CHUNK_SIZE + 1;
    let arena = Arena::new(chunks * CHUNK_SIZE).expect("memory");
    let pool = arena.pool(CHUNK_SIZE, chunks).expect("memory");
    let mut memtable = Memtable::<R>::new(pool, COUNT);
    let (mut writer, mut scratch) = (MemWriter::default(), Scratch::new(1 << 20));
    let clock = MonotonicClock::default();
    for warm in [false, true] {
        memtable.reset();
        let mut random = fastrand::Rng::with_seed(1);
        let (mut put, mut close, mut worst) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        for beat in 0..BEATS {
            let rows: Vec<R> = (0..COUNT / BEATS).map(|_| row(random.u64(..))).collect();
            let start = clock.now();
            for rows in rows.chunks(BATCH) {
                writer.append(&mut memtable, rows, None).expect("there is room");
            }
            let middle = clock.now();
            if warm && beat == BEATS - 1 {
                open_scans(&memtable, &rows);
            }
            let sorted = clock.now();
            writer.close_beat(&mut memtable, &mut scratch);
            let end = clock.now();
            put += middle - start;
            close += end - sorted;
            worst = worst.max(end - sorted);
        }
        if warm {
            show("put", COUNT, put);
            show("close_beat", COUNT, close);
            show("close_beat, worst, a value of one beat", COUNT / BEATS, worst);
        }
    }
    reads(&memtable, row);
}

fn open_scans<R: Record>(memtable: &Memtable<R>, rows: &[R]) {
    time("scan of 100 with an open beat", 100, || {
        for row in rows.iter().take(100) {
            scan(memtable, row.key());
        }
    });
}

fn scan<R: Record>(memtable: &Memtable<R>, from: R::Key) {
    let range = KeyRange::new(from, R::Key::MAX).expect("nothing is above the greatest key");
    let mut reader = MemReader::new(range, Direction::Ascending, COUNT);
    for _ in 0..100 {
        if reader.head().is_none() {
            memtable.refill(&mut reader);
        }
        black_box(reader.head());
        reader.advance();
    }
}

fn reads<R: Record>(memtable: &Memtable<R>, row: impl Fn(u64) -> R) {
    let mut random = fastrand::Rng::with_seed(1);
    let hits: Vec<R::Key> = (0..COUNT).map(|_| row(random.u64(..)).key()).collect();
    let misses: Vec<R::Key> = (0..COUNT).map(|_| row(random.u64(..)).key()).collect();
    time("get, there", COUNT, || hits.iter().for_each(|&key| _ = black_box(memtable.get(key))));
    time("get, absent", COUNT, || misses.iter().for_each(|&key| _ = black_box(memtable.get(key))));
    time("scan of 100 with closed beats", 1000, || {
        hits.iter().take(1000).for_each(|&key| scan(memtable, key));
    });
    let mut out: Vec<R> = Vec::with_capacity(hits.len());
    for _ in 0..2 {
        out.clear();
        let cursor = memtable.cursor(whole(), Direction::Ascending);
        drain(&format!("merge of {} runs, copied", memtable.run_count()), vec![cursor], &mut out);
    }
    for count in [2, 4, 8] {
        let mut lists: Vec<Vec<R>> = vec![Vec::new(); count];
        for row in &out {
            if let Some(list) = lists.get_mut(random.usize(..count)) {
                list.push(*row);
            }
        }
        let sources = || lists.iter().map(|rows| Slice { rows }).collect::<Vec<_>>();
        let mut merged: Vec<R> = Vec::with_capacity(hits.len());
        drain("", sources(), &mut merged);
        merged.clear();
        drain(&format!("merge of {} lists, interleaved", lists.len()), sources(), &mut merged);
        for (number, list) in lists.iter_mut().enumerate() {
            list.clear();
            list.extend(out.chunks(1000).skip(number).step_by(count).flatten());
        }
        let sources = || lists.iter().map(|rows| Slice { rows }).collect::<Vec<_>>();
        merged.clear();
        drain(&format!("merge of {} lists, 1000 at a time", lists.len()), sources(), &mut merged);
    }
}

fn drain<R: Record, S: Source<R>>(what: &str, sources: Vec<S>, out: &mut Vec<R>) {
    let mut merge = Merge::new(sources, Direction::Ascending, Tombstones::Keep);
    time(what, COUNT, || {
        let sink = |entry: Entry<&R>| {
            out.push(*entry.value);
            Ok::<_, TableError>(())
        };
        merge.step(u64::MAX, sink).expect("memory does not fail")
    });
}

struct Slice<'a, R> {
    rows: &'a [R],
}

impl<R: Record> Source<R> for Slice<'_, R> {
    fn load(&mut self) -> Result<Option<u64>, TableError> {
        Ok(self.rows.first().map(|row| row.key().prefix()))
    }

    fn entry(&self) -> Entry<&R> {
        Entry { value: self.rows.first().expect("loaded"), tombstone: false }
    }

    fn advance(&mut self) {
        self.rows = self.rows.get(1..).expect("loaded");
    }
}

fn main() {
    memtable("large", large);
    memtable("small", small);
}
