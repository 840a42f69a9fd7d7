//! Bulk ingest, and reads: what is done to each engine in each round, and what of it is timed.

use crate::Failure;
use crate::commits::Point;
use crate::engine::{Direction, Engine, Kind, MEMORY};
use crate::measure::{self, timed};
use crate::records::{Order, RECORD_SIZE, Samples, Skewed};
use crate::report::{Better, Metric, Results};
use std::path::Path;
use std::time::Duration;

/// Records in a batch.
pub(crate) const BATCH: u64 = 8_190;
/// Records that a short scan reads.
const SHORT_SCAN: u64 = 100;

/// Records of a commit, and gets before it, of the mixed load.
const MIXED: u64 = 100;
/// Memory for reads that go to the disk.
const COLD_MEMORY: u64 = 128 << 20;
/// Reads that go to the disk.
const COLD_LOOKUPS: u64 = 20_000;
/// Commits between two looks at the size of the files.
const LOOK: usize = 64;

/// Whether the keys that are looked up are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Yes,
    No,
}

/// How much is done.
#[derive(Clone, Debug)]
pub(crate) struct Scale {
    pub(crate) records: u64,
    pub(crate) rounds: u64,
    /// The time of a point of the commits; see there.
    pub(crate) commit_time: Duration,
    pub(crate) points: Vec<Point>,
}

impl Scale {
    pub(crate) fn full() -> Scale {
        Scale { records: 10_000_000, rounds: 3, commit_time: Duration::from_secs(2), points: Point::all() }
    }

    pub(crate) fn quick() -> Scale {
        Scale { records: 1_000_000, rounds: 1, commit_time: Duration::from_millis(400), points: Point::all() }
    }

    /// Records of the set that is read: few enough that they and what leads to them fit every cache.
    pub(crate) fn read_set(&self) -> u64 {
        (self.records / 5).max(1)
    }

    /// Records that memory does not hold: of 2.5 GiB, at full scale.
    fn cold_set(&self) -> u64 {
        (self.records * 15 / 8).max(1)
    }
}

/// Ingests into one engine, in a folder that is emptied before each order.
pub(crate) fn ingest(kind: Kind, scale: &Scale, folder: &Path, results: &mut Results) -> Result<(), Failure> {
    for (order, name) in [(Order::Random, "random"), (Order::Sequential, "sequential")] {
        let mut part = Part { kind, name, folder, results: &mut *results };
        part.ingest(&Samples::new(order), scale.records)?;
    }
    measure::empty(folder)
}

/// Reads from one engine what it was given before, and what is in its cache.
pub(crate) fn reads(kind: Kind, scale: &Scale, folder: &Path, results: &mut Results) -> Result<(), Failure> {
    let samples = Samples::new(Order::Random);
    measure::empty(folder)?;
    let engine = kind.create(folder, MEMORY)?;
    load(engine.as_ref(), &samples, scale.read_set(), &mut || Ok(()))?;
    engine.settle()?;
    let mut reads = Reads {
        kind,
        samples,
        count: scale.read_set(),
        random: fastrand::Rng::with_seed(2),
        engine: engine.as_ref(),
        results: &mut *results,
    };
    reads.cached()?;
    drop(engine);
    measure::empty(folder)
}

/// Reads from one engine, with little memory, what is mostly on the disk; engines that read through the page cache are
/// left out.
pub(crate) fn cold(kind: Kind, scale: &Scale, folder: &Path, results: &mut Results) -> Result<(), Failure> {
    if !kind.reads_directly() {
        return Ok(());
    }
    let samples = Samples::new(Order::Random);
    measure::empty(folder)?;
    let engine = kind.create(folder, COLD_MEMORY)?;
    let count = scale.cold_set();
    load(engine.as_ref(), &samples, count, &mut || Ok(()))?;
    engine.settle()?;
    let mut reads = Reads {
        kind,
        samples,
        count,
        random: fastrand::Rng::with_seed(2),
        engine: engine.as_ref(),
        results: &mut *results,
    };
    reads.cold(&folder.join("raw"))?;
    drop(engine);
    measure::empty(folder)
}

/// Commits the first `count` records; gives back the time of each commit. `now_and_then` is called so.
fn load(
    engine: &dyn Engine,
    samples: &Samples,
    count: u64,
    now_and_then: &mut dyn FnMut() -> Result<(), Failure>,
) -> Result<Vec<Duration>, Failure> {
    let mut session = engine.session();
    let mut commits = Vec::new();
    let mut batch = Vec::new();
    let mut start = 0;
    while start < count {
        let end = count.min(start + BATCH);
        samples.fill(&mut batch, start..end);
        commits.push(timed(|| session.put(&batch))?.1);
        start = end;
        if commits.len().is_multiple_of(LOOK) {
            now_and_then()?;
        }
    }
    Ok(commits)
}

/// Ingest in one order.
struct Part<'a> {
    kind: Kind,
    name: &'static str,
    folder: &'a Path,
    results: &'a mut Results,
}

impl Part<'_> {
    fn ingest(&mut self, samples: &Samples, count: u64) -> Result<(), Failure> {
        measure::empty(self.folder)?;
        let before = measure::bytes_written();
        let engine = self.kind.create(self.folder, MEMORY)?;
        let fixed = engine.journal_size();
        let mut peak = 0;
        let mut commits = load(engine.as_ref(), samples, count, &mut || {
            peak = peak.max(measure::allocated(self.folder)?);
            Ok(())
        })?;
        self.add("ingest", "records/s", Better::More, per_second(count, commits.iter().sum()));
        commits.sort_unstable();
        let last = commits.len().saturating_sub(1);
        for (name, position) in [
            ("commit, p50", last / 2),
            ("commit, p99", last * 99 / 100),
            ("commit, p99.9", last * 999 / 1000),
            ("commit, max", last),
        ] {
            let took = commits.get(position).copied().unwrap_or_default();
            self.add(name, "ms", Better::Less, took.as_secs_f64() * 1e3);
        }
        let bytes = count * RECORD_SIZE;
        let ((), rest) = timed(|| engine.rest())?;
        self.add("rest", "s", Better::Less, rest.as_secs_f64());
        let file = |folder: &Path| Ok::<u64, Failure>(measure::allocated(folder)?.saturating_sub(fixed));
        for (state, peak) in [("", peak.saturating_sub(fixed)), (", settled", 0)] {
            if !state.is_empty() {
                engine.settle()?;
            }
            if let (Some(before), Some(after)) = (before, measure::bytes_written()) {
                let written = ratio(after - before - fixed, bytes);
                self.add(&format!("written / records{state}"), "bytes/byte", Better::Less, written);
            }
            let file = file(self.folder)?;
            if peak > 0 {
                self.add("peak / records", "bytes/byte", Better::Less, ratio(peak.max(file), bytes));
            }
            self.add(&format!("file / records{state}"), "bytes/byte", Better::Less, ratio(file, bytes));
        }
        Ok(())
    }

    fn add(&mut self, what: &str, unit: &'static str, better: Better, value: f64) {
        let name = format!("{} {what}", self.name);
        self.results.add(Metric { name, unit, better }, self.kind, value);
    }
}

/// Reads of a set of records.
struct Reads<'a> {
    kind: Kind,
    samples: Samples,
    /// Records of the set.
    count: u64,
    /// Which are looked up: in each pass others.
    random: fastrand::Rng,
    engine: &'a dyn Engine,
    results: &'a mut Results,
}

impl Reads<'_> {
    /// Of a set that is in the cache.
    fn cached(&mut self) -> Result<(), Failure> {
        // The pass that warms the cache: everything once by scan, and once by key.
        self.full_scan(Direction::Forwards)?;
        self.lookups(self.count, Found::Yes)?;

        let count = self.count / 2;
        for (name, found) in [("cached lookup", Found::Yes), ("miss", Found::No)] {
            let took = self.lookups(count, found)?;
            self.add(name, "ns", Better::Less, took.as_secs_f64() * 1e9 / float(count));
        }
        for direction in [Direction::Forwards, Direction::Backwards] {
            let took = self.full_scan(direction)?;
            let rate = per_second(self.count, took);
            self.add(named("full scan", direction), "records/s", Better::More, rate);
        }
        for direction in [Direction::Forwards, Direction::Backwards] {
            let count = (self.count / 100).max(1);
            let took = self.short_scans(count, direction)?;
            let each = took.as_secs_f64() * 1e6 / float(count);
            self.add(named("100-record scan", direction), "us", Better::Less, each);
        }
        let rounds = (self.count / 1000).max(1);
        let took = self.mixed(rounds)?;
        let rate = per_second(2 * MIXED * rounds, took);
        self.add("half gets, half overwrites", "records/s", Better::More, rate);
        Ok(())
    }

    /// Of a set that is on the disk. A file of the same size is made at `path`, to compare with.
    fn cold(&mut self, path: &Path) -> Result<(), Failure> {
        self.lookups(COLD_LOOKUPS, Found::Yes)?;
        let each = |took: Duration| took.as_secs_f64() * 1e6 / float(COLD_LOOKUPS);
        let before = measure::bytes_read();
        let took = self.lookups(COLD_LOOKUPS, Found::Yes)?;
        self.add("cold lookup", "us", Better::Less, each(took));
        if let (Some(before), Some(after)) = (before, measure::bytes_read()) {
            self.add("cold lookup, read", "bytes", Better::Less, ratio(after - before, COLD_LOOKUPS));
        }
        let took = self.lookups(COLD_LOOKUPS, Found::No)?;
        self.add("cold miss", "us", Better::Less, each(took));
        let took = measure::raw_reads(path, self.count * RECORD_SIZE, COLD_LOOKUPS)?;
        self.add("raw read of 16 KiB", "us", Better::Less, each(took));
        Ok(())
    }

    /// Looks up `count` keys in an order that has nothing to do with theirs. Those that are not there lie between
    /// those that are.
    fn lookups(&mut self, count: u64, found: Found) -> Result<Duration, Failure> {
        let random = &mut self.random;
        let beyond = if found == Found::Yes { 0 } else { self.count };
        let order: Vec<u64> = (0..count).map(|_| beyond + random.u64(..self.count)).collect();
        let ((), took) = timed(|| {
            for n in &order {
                let value = self.engine.get(self.samples.key(*n))?;
                if value != (found == Found::Yes).then(|| Samples::mark(*n)) {
                    return Err(format!("{}: record {n} is {value:?}", self.kind.name()).into());
                }
            }
            Ok(())
        })?;
        Ok(took)
    }

    /// Gets records, then commits new values for as many, again and again; some of them much more often than others.
    fn mixed(&self, rounds: u64) -> Result<Duration, Failure> {
        let mut skewed = Skewed::new(self.count);
        let mut session = self.engine.session();
        let mut batch = Vec::new();
        let mut total = Duration::ZERO;
        for _ in 0..rounds {
            let gets: Vec<u64> = (0..MIXED).map(|_| skewed.next()).collect();
            batch.clear();
            batch.extend((0..MIXED).map(|_| self.samples.sample(skewed.next())));
            total += timed(|| {
                for n in &gets {
                    if self.engine.get(self.samples.key(*n))? != Some(Samples::mark(*n)) {
                        return Err(format!("{}: record {n} is not there", self.kind.name()).into());
                    }
                }
                session.put(&batch)
            })?
            .1;
        }
        Ok(total)
    }

    fn full_scan(&self, direction: Direction) -> Result<Duration, Failure> {
        let from = match direction {
            Direction::Forwards => u128::MIN,
            Direction::Backwards => u128::MAX,
        };
        let (scanned, took) = timed(|| self.engine.scan(from, u64::MAX, direction))?;
        if scanned.count != self.count {
            return Err(format!("{}: a full scan found {} records", self.kind.name(), scanned.count).into());
        }
        std::hint::black_box(scanned.fold);
        Ok(took)
    }

    fn short_scans(&mut self, count: u64, direction: Direction) -> Result<Duration, Failure> {
        let random = &mut self.random;
        let from: Vec<u128> = (0..count).map(|_| self.samples.key(random.u64(..self.count))).collect();
        let ((), took) = timed(|| {
            for key in &from {
                std::hint::black_box(self.engine.scan(*key, SHORT_SCAN, direction)?);
            }
            Ok(())
        })?;
        Ok(took)
    }

    fn add(&mut self, name: impl Into<String>, unit: &'static str, better: Better, value: f64) {
        self.results.add(Metric { name: name.into(), unit, better }, self.kind, value);
    }
}

fn named(what: &str, direction: Direction) -> String {
    match direction {
        Direction::Forwards => format!("{what}, ascending"),
        Direction::Backwards => format!("{what}, descending"),
    }
}

pub(crate) fn per_second(count: u64, took: Duration) -> f64 {
    float(count) / took.as_secs_f64()
}

fn ratio(bytes: u64, of: u64) -> f64 {
    float(bytes) / float(of)
}

#[expect(clippy::as_conversions, reason = "a figure for a person: 53 bits are plenty")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}
