//! Many seeds, on all processors: each worker takes the next one.
//!
//! Seeds that once failed come first. One seed in so many is run twice: a run that differs from itself is a failure too.
//!
//! # Invariants
//! - Which seeds are run does not depend on how many workers there are.
//!
//! # Not here
//! One seed: `story`. What is kept over many runs: `log`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::handle::Tally;
use crate::story::{self, Outcome};
use crate::sweep;
use crate::trace::{Trace, Violation};

/// One in so many seeds is run twice.
const TWICE: u64 = 32;

/// A seed that takes longer in real time hangs.
const PATIENCE: Duration = Duration::from_secs(300);

/// What a swarm came to.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Seeds that were run, those that once failed included.
    pub(crate) seeds: u64,
    /// The first seed that was not run.
    pub(crate) next: u64,
    /// Steps of the simulations.
    pub(crate) steps: u64,
    /// Counts of everything.
    pub(crate) counts: BTreeMap<&'static str, u64>,
    /// Seeds that failed, with what was wrong.
    pub(crate) failures: BTreeMap<u64, String>,
    /// What tells the runs of those seeds from others.
    pub(crate) digests: BTreeMap<u64, u64>,
    /// Real time that it took.
    pub(crate) took: Duration,
}

impl Findings {
    /// Adds what the next seeds came to.
    pub(crate) fn add(&mut self, later: Self) {
        self.seeds += later.seeds;
        self.next = later.next;
        self.steps += later.steps;
        for (what, times) in later.counts {
            *self.counts.entry(what).or_default() += times;
        }
        self.failures.extend(later.failures);
        self.digests.extend(later.digests);
        self.took += later.took;
    }
}

/// How long a swarm goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// The first seed.
    pub(crate) first: u64,
    /// Seeds to run.
    pub(crate) count: u64,
    /// No seed is begun after so long.
    pub(crate) time: Option<Duration>,
    /// Failures after which it ends.
    pub(crate) failures_max: usize,
    pub(crate) workers: usize,
}

struct Swarm<'a> {
    extent: Extent,
    /// Seeds that are run before the others.
    before: &'a [u64],
    next: AtomicU64,
    done: AtomicU64,
    steps: AtomicU64,
    is_over: AtomicBool,
    tally: Arc<Tally>,
    failures: Mutex<BTreeMap<u64, String>>,
    digests: Mutex<BTreeMap<u64, u64>>,
    /// What each worker is at, and since when.
    at: Vec<Mutex<Option<(u64, Instant)>>>,
    start: Instant,
}

/// Runs the seeds `before`, then those of the extent. `progress` is told now and then how many are done.
#[expect(clippy::disallowed_methods, reason = "seeds are run on all processors, and a person waits")]
pub(crate) fn run(extent: Extent, before: &[u64], progress: &mut dyn FnMut(u64, usize)) -> Findings {
    let swarm = Swarm {
        extent,
        before,
        next: AtomicU64::new(0),
        done: AtomicU64::new(0),
        steps: AtomicU64::new(0),
        is_over: AtomicBool::new(false),
        tally: Arc::default(),
        failures: Mutex::default(),
        digests: Mutex::default(),
        at: (0..extent.workers).map(|_| Mutex::new(None)).collect(),
        start: Instant::now(),
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = swarm.at.iter().map(|at| scope.spawn(|| swarm.work(at))).collect();
        while workers.iter().any(|worker| !worker.is_finished()) {
            std::thread::sleep(Duration::from_millis(100));
            swarm.watch();
            progress(swarm.done.load(Ordering::Relaxed), swarm.failures.lock().len());
        }
    });
    let taken = swarm.next.load(Ordering::Relaxed).saturating_sub(understory_format::u64_of(before.len()));
    Findings {
        seeds: swarm.done.load(Ordering::Relaxed),
        next: extent.first + taken.min(extent.count),
        steps: swarm.steps.load(Ordering::Relaxed),
        counts: swarm.tally.counts(),
        failures: swarm.failures.into_inner(),
        digests: swarm.digests.into_inner(),
        took: swarm.start.elapsed(),
    }
}

impl Swarm<'_> {
    #[expect(clippy::disallowed_methods, reason = "the watch over seeds that hang")]
    fn work(&self, at: &Mutex<Option<(u64, Instant)>>) {
        while let Some(seed) = self.take() {
            *at.lock() = Some((seed, Instant::now()));
            let trace = Arc::new(Trace::quiet());
            match one(seed, &trace, &self.tally) {
                Ok(outcome) => drop(self.steps.fetch_add(outcome.steps, Ordering::Relaxed)),
                Err(Violation(words)) => {
                    let _none = self.digests.lock().insert(seed, trace.digest());
                    let mut failures = self.failures.lock();
                    failures.insert(seed, words);
                    if failures.len() >= self.extent.failures_max {
                        self.is_over.store(true, Ordering::Relaxed);
                    }
                }
            }
            *at.lock() = None;
            self.done.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The next seed, if there is one.
    fn take(&self) -> Option<u64> {
        let is_late = self.extent.time.is_some_and(|time| self.start.elapsed() >= time);
        if is_late || self.is_over.load(Ordering::Relaxed) {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let before = understory_format::u64_of(self.before.len());
        match number.checked_sub(before) {
            None => self.before.get(usize::try_from(number).ok()?).copied(),
            Some(number) if number < self.extent.count => Some(self.extent.first + number),
            Some(_) => {
                self.next.fetch_sub(1, Ordering::Relaxed);
                None
            }
        }
    }

    /// Stops the process if a seed hangs in a way that the simulation does not notice.
    fn watch(&self) {
        for at in &self.at {
            if let Some((seed, since)) = *at.lock()
                && since.elapsed() > PATIENCE
            {
                eprintln!("seed {seed} hangs: {} s without an end", PATIENCE.as_secs());
                std::process::exit(3);
            }
        }
    }
}

/// Runs one seed, some of them twice.
fn one(seed: u64, trace: &Arc<Trace>, tally: &Arc<Tally>) -> Result<Outcome, Violation> {
    let outcome = guarded(seed, trace, tally)?;
    if seed.is_multiple_of(TWICE) {
        let again = guarded(seed, &Arc::new(Trace::quiet()), &Arc::default())?;
        if again != outcome {
            return Err(Violation::new(format!("the same seed gives two runs: {outcome:?} and {again:?}")));
        }
        tally.count("seeds, run twice");
    }
    Ok(outcome)
}

/// Runs a seed; a panic is a violation.
pub(crate) fn guarded(seed: u64, trace: &Arc<Trace>, tally: &Arc<Tally>) -> Result<Outcome, Violation> {
    sweep::guarded(|| story::run(seed, trace, tally))
}
