//! Synced commits from several threads at once: how many there are, and how long each takes.
//!
//! Each engine gets an empty store in each round, and so many records before anything is timed that logs are recycled
//! and trees are not trivial. Then each point (threads x records in a batch) goes on for a fixed time in the same
//! store, small batches first, so that all engines have a similar number of records at each. Keys are random and all
//! new.
//!
//! A commit's time goes from the records to the acknowledgement: what an engine makes of them (a batch, a transaction)
//! and waits for (its turn) is in it. Times of all rounds are in one histogram per point, so that the longest is that
//! of all rounds; rates are a value per round.
//!
//! # Invariants
//! - A number is the key of one record only, whichever thread commits it.
//! - The last record that each thread committed is found afterwards.

use crate::Failure;
use crate::engine::{Engine, Kind, MEMORY};
use crate::measure;
use crate::records::{Order, Sample, Samples};
use crate::report::{Better, Metric, Results};
use crate::suite::{BATCH, Scale, float, per_second};
use hdrhistogram::Histogram;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Records before anything is timed: enough to fill a memtable or two.
const RECORDS_BEFORE: u64 = 1_000_000;
/// Points of one record take so many times as long as others: it takes that long to fill the ring's share of a bar.
const SINGLE_FACTOR: u32 = 2;
/// Longest time that the histograms can hold; what is longer counts as this.
const TIME_MAX: Duration = Duration::from_secs(600);

/// How many threads commit, and batches of how many records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) threads: usize,
    pub(crate) records: u64,
}

impl Point {
    /// All points, in the order in which they are gone through.
    pub(crate) fn all() -> Vec<Point> {
        let of = |records| [1, 8, 64].map(|threads| Point { threads, records });
        [1, 100, BATCH].into_iter().flat_map(of).collect()
    }

    /// A point that is written as `8x100`.
    pub(crate) fn parse(text: &str) -> Result<Point, Failure> {
        let (threads, records) = text.split_once('x').ok_or("a point is THREADSxRECORDS")?;
        Ok(Point { threads: threads.parse()?, records: records.parse()? })
    }

    fn time(self, scale: &Scale) -> Duration {
        scale.commit_time * if self.records == 1 { SINGLE_FACTOR } else { 1 }
    }
}

/// Times in nanoseconds, with three digits.
pub(crate) type Times = Histogram<u64>;

pub(crate) fn times() -> Times {
    let max = u64::try_from(TIME_MAX.as_nanos()).expect("ten minutes");
    Times::new_with_max(max, 3).expect("three digits, up to ten minutes")
}

/// One point with one engine.
struct Outcome {
    point: Point,
    kind: Kind,
    /// Of all rounds.
    times: Times,
    /// Commits per second, one per round.
    rates: Vec<f64>,
    /// Of all rounds.
    checkpoints: Option<u64>,
}

/// What came out of all rounds so far.
#[derive(Default)]
pub(crate) struct Commits(Vec<Outcome>);

impl Commits {
    /// Goes through the points with one engine, in a folder that is emptied before and after.
    pub(crate) fn run(&mut self, kind: Kind, scale: &Scale, folder: &Path) -> Result<(), Failure> {
        measure::empty(folder)?;
        let engine = kind.create(folder, MEMORY)?;
        let store = Store { engine: engine.as_ref(), samples: Samples::new(Order::Random), next: 0.into() };
        store.fill(scale.records.min(RECORDS_BEFORE))?;
        for point in &scale.points {
            let before = engine.checkpoints();
            let run = store.commit(*point, point.time(scale))?;
            let checkpoints = engine.checkpoints().zip(before).map(|(after, before)| after - before);
            self.outcome(*point, kind).keep(&run, checkpoints)?;
        }
        drop(engine);
        measure::empty(folder)
    }

    fn outcome(&mut self, point: Point, kind: Kind) -> &mut Outcome {
        let known = self.0.iter().position(|outcome| (outcome.point, outcome.kind) == (point, kind));
        let index = known.unwrap_or_else(|| {
            self.0.push(Outcome { point, kind, times: times(), rates: Vec::new(), checkpoints: None });
            self.0.len() - 1
        });
        self.0.get_mut(index).expect("found or just pushed")
    }

    /// Adds everything to the results, point by point.
    pub(crate) fn report(&self, results: &mut Results) {
        for outcome in &self.0 {
            outcome.report(results);
        }
    }
}

impl Outcome {
    fn keep(&mut self, run: &Run, checkpoints: Option<u64>) -> Result<(), Failure> {
        self.times.add(&run.times)?;
        self.rates.push(per_second(run.times.len(), run.took));
        if let Some(checkpoints) = checkpoints {
            *self.checkpoints.get_or_insert(0) += checkpoints;
        }
        Ok(())
    }

    fn report(&self, results: &mut Results) {
        let Point { threads, records } = self.point;
        let mut add = |what: &str, unit, better, value| {
            let name = format!("commit {threads} x {records}{what}");
            results.add(Metric { name, unit, better }, self.kind, value);
        };
        for rate in &self.rates {
            add("", "commits/s", Better::More, *rate);
        }
        for rate in &self.rates {
            add(", records", "records/s", Better::More, *rate * float(records));
        }
        let milliseconds = |nanoseconds: u64| float(nanoseconds) / 1e6;
        for (what, quantile) in [(", p50", 0.5), (", p99", 0.99), (", p99.9", 0.999)] {
            let time = self.times.value_at_quantile(quantile);
            add(what, "ms", Better::Less, milliseconds(time));
        }
        add(", max", "ms", Better::Less, milliseconds(self.times.max()));
        add(", commits", "in all", Better::More, float(self.times.len()));
        if let Some(checkpoints) = self.checkpoints {
            add(", checkpoints", "in all", Better::More, float(checkpoints));
        }
    }
}

/// A store that records come into.
struct Store<'a> {
    engine: &'a dyn Engine,
    samples: Samples,
    /// The number of the next record.
    next: AtomicU64,
}

/// One point in one round.
struct Run {
    times: Times,
    took: Duration,
}

/// One thread's part of a point.
struct Part {
    times: Times,
    start: Instant,
    end: Instant,
}

impl Store<'_> {
    /// Commits `count` records that are not timed, and has the store catch up.
    fn fill(&self, count: u64) -> Result<(), Failure> {
        let mut session = self.engine.session();
        let mut batch = self.batch(BATCH);
        while self.next.load(Ordering::Relaxed) < count {
            let _first = self.renew(&mut batch);
            session.put(&batch)?;
        }
        self.engine.rest()
    }

    fn commit(&self, point: Point, time: Duration) -> Result<Run, Failure> {
        let together = Barrier::new(point.threads);
        let parts = measure::in_threads(point.threads, || self.commit_in_thread(point, time, &together))?;
        let start = parts.iter().map(|part| part.start).min().ok_or("no threads")?;
        let end = parts.iter().map(|part| part.end).max().ok_or("no threads")?;
        let mut all = times();
        for part in &parts {
            all.add(&part.times)?;
        }
        Ok(Run { times: all, took: end - start })
    }

    /// Commits batch after batch; what is under way when the time is over is counted whole.
    fn commit_in_thread(&self, point: Point, time: Duration, together: &Barrier) -> Result<Part, Failure> {
        let mut session = self.engine.session();
        let mut batch = self.batch(point.records);
        let mut times = times();
        let _leader = together.wait();
        let start = measure::now();
        let mut end = start;
        let mut first = 0;
        while end - start < time {
            first = self.renew(&mut batch);
            let begun = measure::now();
            session.put(&batch)?;
            end = measure::now();
            times.saturating_record(u64::try_from((end - begun).as_nanos())?);
        }
        let found = self.engine.get(self.samples.key(first))?;
        if found != Some(Samples::mark(first)) {
            return Err(format!("record {first} was committed and is {found:?}").into());
        }
        Ok(Part { times, start, end })
    }

    fn batch(&self, records: u64) -> Vec<Sample> {
        let mut batch = Vec::new();
        self.samples.fill(&mut batch, 0..records);
        batch
    }

    /// Makes a batch one of records that were in none before; gives the number of the first.
    fn renew(&self, batch: &mut [Sample]) -> u64 {
        let count = u64::try_from(batch.len()).expect("64-bit");
        let first = self.next.fetch_add(count, Ordering::Relaxed);
        self.samples.renew(batch, first);
        first
    }
}
