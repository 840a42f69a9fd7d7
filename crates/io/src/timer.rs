//! How often something was waited for or done, and how long that took.
//!
//! # Invariants
//! - A timer decides nothing: what is timed never looks at it.
//!
//! # Not here
//! Which times: who times takes them from a [`Clock`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::Clock;

/// What a [`Timer`] has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// How often.
    pub count: u64,
    /// How long in all.
    pub total: Duration,
    /// How long it took at most.
    pub max: Duration,
}

impl Timings {
    /// How long it took in the mean; 0 if it never happened.
    #[must_use]
    pub fn mean(&self) -> Duration {
        let nanos = nanos_of(self.total).checked_div(self.count);
        Duration::from_nanos(nanos.unwrap_or(0))
    }
}

/// Adds up durations, from any number of threads, without a lock.
#[derive(Debug, Default)]
pub struct Timer {
    count: AtomicU64,
    nanos: AtomicU64,
    nanos_max: AtomicU64,
}

impl Timer {
    /// Counts something that took so long.
    pub fn add(&self, took: Duration) {
        let nanos = nanos_of(took);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
        self.nanos_max.fetch_max(nanos, Ordering::Relaxed);
    }

    /// Counts `work`, whatever comes of it.
    pub fn time<T>(&self, clock: &dyn Clock, work: impl FnOnce() -> T) -> T {
        let start = clock.now();
        let result = work();
        self.add(clock.now().saturating_sub(start));
        result
    }

    /// What was counted so far. While others add, the three figures may be of slightly different moments.
    pub fn get(&self) -> Timings {
        Timings {
            count: self.count.load(Ordering::Relaxed),
            total: Duration::from_nanos(self.nanos.load(Ordering::Relaxed)),
            max: Duration::from_nanos(self.nanos_max.load(Ordering::Relaxed)),
        }
    }
}

/// In nanoseconds, which are enough for 584 years.
fn nanos_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SimClock, SimScheduler};

    #[test]
    fn count_sum_and_maximum() {
        fn check(nanos: &[u64], total: u64, max: u64, mean: u64) {
            let timer = Timer::default();
            nanos.iter().for_each(|nanos| timer.add(Duration::from_nanos(*nanos)));
            let [total, max, mean] = [total, max, mean].map(Duration::from_nanos);
            let count = crate::u64_of(nanos.len());
            assert_eq!(timer.get(), Timings { count, total, max });
            assert_eq!(timer.get().mean(), mean);
        }
        check(&[], 0, 0, 0);
        check(&[0], 0, 0, 0);
        check(&[7], 7, 7, 7);
        check(&[3, 9, 4], 16, 9, 5);
        check(&[9, 3], 12, 9, 6);
    }

    #[test]
    fn times_are_those_of_the_clock() {
        let clock = SimClock::new(SimScheduler::new(1));
        let timer = Timer::default();
        for seconds in [2, 5, 1] {
            let given = timer.time(&clock, || {
                clock.advance(Duration::from_secs(seconds));
                seconds
            });
            assert_eq!(given, seconds);
        }
        let [total, max] = [8, 5].map(Duration::from_secs);
        assert_eq!(timer.get(), Timings { count: 3, total, max });
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test races real threads")]
    fn threads_add_up() {
        let timer = Timer::default();
        std::thread::scope(|scope| {
            for thread in 1..=4 {
                let timer = &timer;
                scope.spawn(move || (0..10_000).for_each(|_| timer.add(Duration::from_nanos(thread))));
            }
        });
        let [total, max] = [100_000, 4].map(Duration::from_nanos);
        assert_eq!(timer.get(), Timings { count: 40_000, total, max });
    }
}
