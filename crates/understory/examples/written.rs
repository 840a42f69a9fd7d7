//! What is written for each byte of records, and what reads cost, by the geometry: `--help` says what can be set.
//!
//! One file with one tree of 144-byte records, without a journal. The values that compaction reads and writes are
//! counted while the records come in, before anything is settled; so are the bytes that are written to the file.

#![expect(clippy::disallowed_methods, reason = "it times things, for people only")]

use std::error::Error;
use std::time::Instant;

use lexopt::{Arg, Parser, ValueExt};
use understory::{Batch, Database, Geometry, Level0, Options, Schema, record};
use zerocopy::little_endian::U128;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const USAGE: &str = "\
usage: written [--records N] [--order random|sequential|skewed|prefixes] [--runs N] [--share KIB] [--beats N]
               [--filters N] [--table BLOCKS] [--block KIB] [--growth N] [--rounds N] [--memory MIB] [--path FOLDER]
               [--overwrite N] [--journal]

  --records N   records to put (2,000,000)
  --order       random keys, each once; sequential ones; of N / 4 keys the more often the smaller; or sequential ones
                behind 16 prefixes that take turns, as in an index of few values by time (random)
  --runs N      runs of level 0, 2 to 8; 1 if it is merged (1)
  --filters N   bits of filter per key (10)
  --overwrite N times that all records are put again after they were loaded (0), each time followed by `settle`; then
                nine in ten of them are removed
  --journal     with a journal, whose bytes count as written
  --rounds N    lookups and scans of each kind at the end (20,000)
";

const RECORD_SIZE: u64 = 144;
const BATCH: u64 = 1000;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Row {
    key: U128,
    value: [u8; 128],
}

record! { Row: "rows", key = { key: U128 } }

#[derive(Clone, Copy)]
enum Order {
    Random,
    Sequential,
    Skewed,
    Prefixes,
}

impl Order {
    /// The key of put `n` of `count`.
    fn key(self, n: u64, count: u64) -> u128 {
        match self {
            Self::Random => u128::from(mix(n)) << 64 | u128::from(n),
            Self::Sequential => u128::from(n),
            Self::Prefixes => u128::from(mix(n) % 16) << 64 | u128::from(n),
            Self::Skewed => {
                // The fifth power of an evenly spread number: half of the puts go to a thirtieth of the keys.
                let keys = u128::from(count / 4);
                let even = u128::from(mix(n) >> 40);
                let skewed = (0..4).fold(even, |product, _| (product * even) >> 24);
                (skewed * keys) >> 24
            }
        }
    }
}

fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

struct Asked {
    records: u64,
    order: Order,
    rounds: u64,
    memory: u64,
    overwrite: u64,
    geometry: Geometry,
    path: Option<String>,
}

fn asked() -> Result<Option<Asked>, Box<dyn Error>> {
    let mut geometry = Geometry { level0: Level0::Merged, runs_max: 1, ..Geometry::default() };
    let (mut records, mut order, mut rounds, mut memory) = (2_000_000, Order::Random, 20_000, 1024);
    let (mut path, mut overwrite, mut journal) = (None, 0, false);
    let mut parser = Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("records") => records = parser.value()?.parse()?,
            Arg::Long("order") => {
                order = match parser.value()?.string()?.as_str() {
                    "random" => Order::Random,
                    "sequential" => Order::Sequential,
                    "skewed" => Order::Skewed,
                    "prefixes" => Order::Prefixes,
                    other => return Err(format!("no order {other}").into()),
                }
            }
            Arg::Long("runs") => {
                let runs_max = parser.value()?.parse()?;
                geometry.runs_max = runs_max;
                geometry.level0 = if runs_max == 1 { Level0::Merged } else { Level0::Runs };
            }
            Arg::Long("filters") => geometry.filter_bits = parser.value()?.parse()?,
            Arg::Long("share") => geometry.share_size = parser.value()?.parse::<u32>()? << 10,
            Arg::Long("beats") => geometry.beats_per_bar = parser.value()?.parse()?,
            Arg::Long("table") => geometry.table_blocks = parser.value()?.parse()?,
            Arg::Long("block") => geometry.block_size = parser.value()?.parse::<u32>()? << 10,
            Arg::Long("growth") => geometry.growth = parser.value()?.parse()?,
            Arg::Long("overwrite") => overwrite = parser.value()?.parse()?,
            Arg::Long("journal") => journal = true,
            Arg::Long("rounds") => rounds = parser.value()?.parse()?,
            Arg::Long("memory") => memory = parser.value()?.parse()?,
            Arg::Long("path") => path = Some(parser.value()?.string()?),
            Arg::Short(_) | Arg::Long(_) | Arg::Value(_) => {
                eprint!("{USAGE}");
                return Ok(None);
            }
        }
    }
    geometry.page_size = geometry.page_size.min(geometry.block_size);
    geometry.batch_size_max = geometry.share_size;
    let geometry = if journal { geometry.with_journal() } else { geometry.without_journal() };
    Ok(Some(Asked { records, order, rounds, memory: memory << 20, overwrite, geometry, path }))
}

fn main() -> Result<(), Box<dyn Error>> {
    let Some(asked) = asked()? else { return Ok(()) };
    let Asked { records, order, rounds, memory, overwrite, geometry, path } = asked;
    let folder = match &path {
        Some(path) => tempfile::tempdir_in(path)?,
        None => tempfile::tempdir()?,
    };
    let options = Options::default().memory(memory).geometry(geometry);
    let database = Database::create(folder.path().join("rows"), &Schema::new().tree::<Row>(), &options)?;
    load(&database, order, records)?;
    let stats = database.stats();
    let per_record = |count: u64| ratio(count, records);
    let written = ratio(stats.io.bytes_written, records * RECORD_SIZE);
    println!(
        "{} merged, {} moved tables; per record: {:.2} read, {:.2} written, {:.2} moved; bytes: {written:.2}",
        stats.compaction.merge_count,
        stats.compaction.move_count,
        per_record(stats.compaction.consumed),
        per_record(stats.compaction.produced),
        per_record(stats.compaction.moved),
    );
    for (number, level) in (0..).zip(stats.trees.iter().flat_map(|tree| &tree.levels)) {
        if level.table_count > 0 {
            println!("  level {number}: {} tables, {} values", level.table_count, level.value_count);
        }
    }
    reads(&database, order, records, rounds)?;
    database.settle()?;
    let stats = database.stats();
    let written = ratio(stats.io.bytes_written, records * RECORD_SIZE);
    println!("settled: bytes {written:.2}, file {:.2}", ratio(stats.file_size, records * RECORD_SIZE));
    space("settled", stats.grid_size, records);
    reads(&database, order, records, rounds)?;
    for _ in 0..overwrite {
        load(&database, order, records)?;
        database.settle()?;
        space("overwritten and settled", database.stats().grid_size, records);
    }
    if overwrite > 0 {
        remove_most(&database, order, records)?;
        database.settle()?;
        space("nine in ten removed and settled", database.stats().grid_size, records);
    }
    Ok(())
}

/// What the grid takes of the file system, for each byte of the records.
fn space(what: &str, size: u64, records: u64) {
    println!("{what}: {:.2} bytes taken for each byte of the records", ratio(size, records * RECORD_SIZE));
}

fn remove_most(database: &Database, order: Order, records: u64) -> Result<(), Box<dyn Error>> {
    let mut batch = Batch::new();
    for first in (0..records).step_by(usize::try_from(BATCH)?) {
        batch.clear();
        for n in (first..records.min(first + BATCH)).filter(|n| n % 10 > 0) {
            batch.remove::<Row>(order.key(n, records));
        }
        database.commit(&batch)?;
    }
    Ok(())
}

fn load(database: &Database, order: Order, records: u64) -> Result<(), Box<dyn Error>> {
    let mut batch = Batch::new();
    let (start, mut longest) = (Instant::now(), 0.0_f64);
    let (mut consumed, mut largest, mut peak) = (0, 0, 0);
    for first in (0..records).step_by(usize::try_from(BATCH)?) {
        batch.clear();
        for n in first..records.min(first + BATCH) {
            let value = [u8::try_from(n % 251)?; 128];
            batch.put(&Row { key: U128::new(order.key(n, records)), value });
        }
        let begun = Instant::now();
        database.commit(&batch)?;
        longest = longest.max(begun.elapsed().as_secs_f64());
        // What a half-bar read is counted at its end, and a commit ends one at most.
        let stats = database.stats();
        peak = peak.max(stats.grid_size);
        let now = stats.compaction.consumed;
        largest = largest.max(now - consumed);
        consumed = now;
    }
    let took = start.elapsed().as_secs_f64();
    println!("{records} records in {took:.1} s, a commit in {:.0} ms at most", longest * 1e3);
    println!("in a half-bar {largest} values read at most");
    space("at most, while they came in", peak, records);
    Ok(())
}

fn reads(database: &Database, order: Order, records: u64, rounds: u64) -> Result<(), Box<dyn Error>> {
    let keys: Vec<u128> = (0..rounds).map(|n| order.key(mix(n) % records, records)).collect();
    for what in ["warming", "hit"] {
        let start = Instant::now();
        for key in &keys {
            database.get::<Row>(*key)?.ok_or("a record is missing")?;
        }
        println!("  {what}: {:.0} ns", start.elapsed().as_secs_f64() * 1e9 / ratio(rounds, 1));
    }
    let start = Instant::now();
    for key in &keys {
        database.get::<Row>(*key ^ 1 << 40)?;
    }
    println!("  other keys: {:.0} ns", start.elapsed().as_secs_f64() * 1e9 / ratio(rounds, 1));
    for what in ["warming", "100 records"] {
        let start = Instant::now();
        for key in keys.iter().step_by(20) {
            for row in database.scan::<Row>(*key..)?.take(100) {
                std::hint::black_box(row?);
            }
        }
        println!("  {what}: {:.1} us", start.elapsed().as_secs_f64() * 1e6 * 20.0 / ratio(rounds, 1));
    }
    Ok(())
}

#[expect(clippy::as_conversions, reason = "a figure for a person: 53 bits are plenty")]
fn ratio(count: u64, of: u64) -> f64 {
    count as f64 / of as f64
}
