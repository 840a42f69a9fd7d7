//! All of a small world, on all processors: every item of a numbered list is visited once.
//!
//! # Not here
//! What is visited: `crashes`, `faults`, `damage`.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::handle::Tally;
use crate::report::processor_seconds;
use crate::trace::Violation;

/// How often which kind of item came to what.
pub(crate) type Outcomes = BTreeMap<(String, &'static str), u64>;

/// What a sweep came to.
#[derive(Debug)]
pub(crate) struct Swept {
    /// Items that were visited.
    pub(crate) visited: u64,
    /// Counts of everything.
    pub(crate) counts: BTreeMap<&'static str, u64>,
    /// Kinds of items, and what they came to; none if all are of one kind.
    pub(crate) outcomes: Outcomes,
    /// Items that broke a promise, with what was wrong.
    pub(crate) failures: BTreeMap<u64, String>,
    /// Real time that it took.
    pub(crate) took: Duration,
    pub(crate) processor_seconds: f64,
}

/// Which items of a list are visited: from `first` on each `stride`-th.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) first: u64,
    /// At least 1.
    pub(crate) stride: u64,
}

impl Part {
    /// How many of so many items these are.
    fn of(self, count: u64) -> u64 {
        count.saturating_sub(self.first).div_ceil(self.stride)
    }
}

/// Visits a part of the items below `count`. `progress` is told now and then how many were visited. A visit gives the
/// item's kind and outcome, or none if there is nothing to tell apart.
#[expect(clippy::disallowed_methods, reason = "items are visited on all processors, and a person waits")]
pub(crate) fn sweep(
    count: u64,
    part: Part,
    workers: usize,
    progress: &mut dyn FnMut(u64, u64),
    visit: impl Fn(u64, &Arc<Tally>) -> Result<Option<(String, &'static str)>, Violation> + Sync,
) -> Swept {
    let (start, processor) = (Instant::now(), processor_seconds());
    let (next, tally, failures) =
        (AtomicU64::new(0), Arc::new(Tally::default()), Mutex::new(BTreeMap::new()));
    let outcomes: Mutex<Outcomes> = Mutex::default();
    let total = part.of(count);
    let work = || loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= total {
            return;
        }
        let item = part.first + number * part.stride;
        match guarded(|| visit(item, &tally)) {
            Ok(Some(outcome)) => *outcomes.lock().entry(outcome).or_default() += 1,
            Ok(None) => {}
            Err(Violation(words)) => drop(failures.lock().insert(item, words)),
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        while workers.iter().any(|worker| !worker.is_finished()) {
            std::thread::sleep(Duration::from_millis(100));
            progress(next.load(Ordering::Relaxed).min(total), total);
        }
    });
    Swept {
        visited: total,
        counts: tally.counts(),
        outcomes: outcomes.into_inner(),
        failures: failures.into_inner(),
        took: start.elapsed(),
        processor_seconds: processor_seconds() - processor,
    }
}

/// Runs something; a panic is a violation.
pub(crate) fn guarded<T>(run: impl FnOnce() -> Result<T, Violation>) -> Result<T, Violation> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|payload| {
        let words = payload.downcast_ref::<String>().map(String::as_str);
        let words = words.or(payload.downcast_ref::<&str>().copied()).unwrap_or("(no message)");
        Err(Violation::new(format!("panic: {words}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The items below `count` that a part visits, and how many it says they are.
    fn check(count: u64, first: u64, stride: u64, expected: &[u64]) {
        let visited = Mutex::new(Vec::new());
        let swept = sweep(count, Part { first, stride }, 2, &mut |_, _| (), |item, _| {
            visited.lock().push(item);
            Ok(Some(("item".to_owned(), if item.is_multiple_of(2) { "even" } else { "odd" })))
        });
        let mut visited = visited.into_inner();
        visited.sort_unstable();
        assert_eq!(visited, expected);
        let even = expected.iter().filter(|item| item.is_multiple_of(2)).count();
        let outcomes = [("even", even), ("odd", expected.len() - even)];
        let outcomes = outcomes.into_iter().filter(|(_, count)| *count > 0);
        let outcomes =
            outcomes.map(|(outcome, count)| (("item".to_owned(), outcome), understory_format::u64_of(count)));
        assert_eq!(swept.outcomes, outcomes.collect());
        assert_eq!(swept.visited, understory_format::u64_of(expected.len()));
    }

    #[test]
    fn parts_are_visited_once() {
        check(0, 0, 1, &[]);
        check(3, 0, 1, &[0, 1, 2]);
        check(7, 0, 3, &[0, 3, 6]);
        check(6, 0, 3, &[0, 3]);
        check(7, 2, 3, &[2, 5]);
        check(7, 6, 3, &[6]);
        check(7, 7, 3, &[]);
        check(7, 9, 3, &[]);
    }
}
