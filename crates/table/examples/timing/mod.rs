//! Timing a piece of work for a person to read: what both examples print.

use std::time::Duration;

use understory_io::{Clock, MonotonicClock};

/// Does the work and prints what each of its `count` parts took.
pub(crate) fn time<T>(what: &str, count: u32, run: impl FnOnce() -> T) -> T {
    let clock = MonotonicClock::default();
    let start = clock.now();
    let result = run();
    show(what, count, clock.now() - start);
    result
}

/// Prints what each of `count` parts took.
pub(crate) fn show(what: &str, count: u32, took: Duration) {
    println!("{what:<44} {:>9.1} ns", took.as_secs_f64() * 1e9 / f64::from(count));
}
