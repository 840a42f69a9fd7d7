//! Bulk ingest, and reads: what is done to each engine in each round, and what of it is timed.

use crate::Failure;
use crate::commits::Point;
use crate::engine::{Direction, Engine, Kind, Purpose};
use crate::measure::{self, timed};
use crate::records::{Order, RECORD_SIZE, Samples};
use crate::report::{Better, Metric, Results};
use std::path::Path;
use std::time::Duration;

/// Records in a batch.
pub(crate) const BATCH: u64 = 8_190;
/// Records that a short scan reads.
const SHORT_SCAN: u64 = 100;

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

    fn lookups(&self) -> u64 {
        self.read_set() / 2
    }

    fn short_scans(&self) -> u64 {
        self.read_set() / 100
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

/// Reads from one engine what it was given before.
pub(crate) fn reads(kind: Kind, scale: &Scale, folder: &Path, results: &mut Results) -> Result<(), Failure> {
    let samples = Samples::new(Order::Random);
    measure::empty(folder)?;
    let engine = kind.create(folder, Purpose::Ingest)?;
    load(engine.as_ref(), &samples, scale.read_set())?;
    engine.settle()?;
    Reads { kind, samples, scale, engine: engine.as_ref(), results }.run()?;
    drop(engine);
    measure::empty(folder)
}

/// Puts the first `count` records and syncs; gives back the time of each commit, and that of the sync.
fn load(engine: &dyn Engine, samples: &Samples, count: u64) -> Result<(Vec<Duration>, Duration), Failure> {
    let mut session = engine.session();
    let mut commits = Vec::new();
    let mut batch = Vec::new();
    let mut start = 0;
    while start < count {
        let end = count.min(start + BATCH);
        samples.fill(&mut batch, start..end);
        commits.push(timed(|| session.put(&batch))?.1);
        start = end;
    }
    let ((), sync) = timed(|| engine.sync())?;
    Ok((commits, sync))
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
        let engine = self.kind.create(self.folder, Purpose::Ingest)?;
        let (mut commits, sync) = load(engine.as_ref(), samples, count)?;
        let total = commits.iter().sum::<Duration>() + sync;
        self.add("ingest", "records/s", Better::More, per_second(count, total));
        commits.sort_unstable();
        let last = commits.len().saturating_sub(1);
        for (name, position) in
            [("commit, p50", last / 2), ("commit, p99", last * 99 / 100), ("commit, max", last)]
        {
            let took = commits.get(position).copied().unwrap_or_default();
            self.add(name, "ms", Better::Less, took.as_secs_f64() * 1e3);
        }
        engine.settle()?;
        drop(engine);
        if let (Some(before), Some(after)) = (before, measure::bytes_written()) {
            self.add(
                "written / records",
                "bytes/byte",
                Better::Less,
                ratio(after - before, count * RECORD_SIZE),
            );
        }
        let allocated = measure::allocated(self.folder)?;
        self.add("file / records", "bytes/byte", Better::Less, ratio(allocated, count * RECORD_SIZE));
        Ok(())
    }

    fn add(&mut self, what: &str, unit: &'static str, better: Better, value: f64) {
        let name = format!("{} {what}", self.name);
        self.results.add(Metric { name, unit, better }, self.kind, value);
    }
}

/// Reads of a set that is in the cache.
struct Reads<'a> {
    kind: Kind,
    samples: Samples,
    scale: &'a Scale,
    engine: &'a dyn Engine,
    results: &'a mut Results,
}

impl Reads<'_> {
    fn run(&mut self) -> Result<(), Failure> {
        // The pass that warms the cache: everything once by scan, and once by key.
        self.full_scan(Direction::Forwards)?;
        self.lookups(self.scale.read_set())?;

        let count = self.scale.lookups();
        let took = self.lookups(count)?;
        self.add("cached lookup", "ns", Better::Less, took.as_secs_f64() * 1e9 / float(count));
        for direction in [Direction::Forwards, Direction::Backwards] {
            let took = self.full_scan(direction)?;
            let rate = per_second(self.scale.read_set(), took);
            self.add(named("full scan", direction), "records/s", Better::More, rate);
        }
        for direction in [Direction::Forwards, Direction::Backwards] {
            let count = self.scale.short_scans();
            let took = self.short_scans(count, direction)?;
            let each = took.as_secs_f64() * 1e6 / float(count);
            self.add(named("100-record scan", direction), "us", Better::Less, each);
        }
        Ok(())
    }

    /// Looks up `count` keys in an order that has nothing to do with theirs.
    fn lookups(&self, count: u64) -> Result<Duration, Failure> {
        let mut random = fastrand::Rng::with_seed(2);
        let order: Vec<u64> = (0..count).map(|_| random.u64(..self.scale.read_set())).collect();
        let ((), took) = timed(|| {
            for n in &order {
                let found = self.engine.get(self.samples.key(*n))?;
                if found != Some(Samples::mark(*n)) {
                    return Err(format!("{}: record {n} is {found:?}", self.kind.name()).into());
                }
            }
            Ok(())
        })?;
        Ok(took)
    }

    fn full_scan(&self, direction: Direction) -> Result<Duration, Failure> {
        let from = match direction {
            Direction::Forwards => u128::MIN,
            Direction::Backwards => u128::MAX,
        };
        let (scanned, took) = timed(|| self.engine.scan(from, u64::MAX, direction))?;
        if scanned.count != self.scale.read_set() {
            return Err(format!("{}: a full scan found {} records", self.kind.name(), scanned.count).into());
        }
        std::hint::black_box(scanned.fold);
        Ok(took)
    }

    fn short_scans(&self, count: u64, direction: Direction) -> Result<Duration, Failure> {
        let mut random = fastrand::Rng::with_seed(3);
        let from: Vec<u128> =
            (0..count).map(|_| self.samples.key(random.u64(..self.scale.read_set()))).collect();
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
