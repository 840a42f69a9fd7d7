//! The loop around a model fuzzer: seeds one after another, what they reached, and how to run one of them again.
//!
//! A model fuzzer is a test that runs one seed at a time: as a test of its crate for a fixed share of seeds, and by
//! `cargo xtask fuzz` for as long as it is given. That command says by two environment variables what it wants; a test
//! cannot be told in another way.
//!
//! | `UNDERSTORY_FUZZ_SEED` | `UNDERSTORY_FUZZ_SECONDS` | seeds |
//! |---|---|---|
//! | - | - | the fixed share, from 0 on |
//! | S | - | S alone |
//! | S, or - for 0 | N | from S on, until N seconds are over; the last one is not cut off |
//!
//! # Invariants
//! - A run of at least the fixed share fails if it has not reached each of the fuzzer's goals.
//! - Whatever seed panics, the last line says the command that runs it alone.
//!
//! # Not here
//! Models, and what a seed means.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What the seeds of a run reached, by name.
#[derive(Debug, Default)]
pub struct Coverage {
    counts: BTreeMap<&'static str, u64>,
}

impl Coverage {
    /// Something happened so many times more.
    ///
    /// # Panics
    /// If the sum does not fit into 64 bits.
    pub fn count(&mut self, what: &'static str, times: u64) {
        let count = self.counts.entry(what).or_default();
        *count = count.checked_add(times).expect("no run lasts that long");
    }

    /// Something was as large as this; the largest counts.
    pub fn most(&mut self, what: &'static str, value: u64) {
        let most = self.counts.entry(what).or_default();
        *most = value.max(*most);
    }

    /// The sum or the largest; 0 for what never came.
    #[must_use]
    pub fn get(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }
}

/// A model fuzzer: its name, its share, and what that must reach.
#[derive(Clone, Copy, Debug)]
pub struct Fuzzer {
    /// What `cargo xtask fuzz` calls it.
    pub target: &'static str,
    /// How many seeds reach the goals, from any seed on. A debug build's test runs so many.
    pub seeds: u64,
    /// How many an optimised build's test runs; at least `seeds`.
    pub seeds_optimised: u64,
    /// What a run of `seeds` must come to at least, by the names of its [`Coverage`].
    pub goals: &'static [(&'static str, u64)],
}

impl Fuzzer {
    /// Runs `check` for each seed, as the environment asks, and prints what they reached.
    ///
    /// # Panics
    /// If `check` does, if a goal was not reached, or if a variable of the environment is no number.
    #[expect(clippy::disallowed_methods, reason = "a tool that stops when a person's time is over")]
    pub fn run(&self, mut check: impl FnMut(u64, &mut Coverage)) {
        assert!(self.seeds > 0 && self.seeds_optimised >= self.seeds, "a share that reaches the goals");
        let (first, seconds) = (number("UNDERSTORY_FUZZ_SEED"), number("UNDERSTORY_FUZZ_SECONDS"));
        let count = match (first, seconds) {
            (_, Some(_)) => u64::MAX,
            (Some(_), None) => 1,
            (None, None) if cfg!(debug_assertions) => self.seeds,
            (None, None) => self.seeds_optimised,
        };
        let (first, limit) = (first.unwrap_or(0), seconds.map(Duration::from_secs));
        let (start, mut coverage, mut done) = (Instant::now(), Coverage::default(), 0);
        while done < count && limit.is_none_or(|limit| start.elapsed() < limit) {
            let seed = first.wrapping_add(done);
            let replay = Replay { target: self.target, seed };
            check(seed, &mut coverage);
            drop(replay);
            done += 1;
        }
        // `cargo xtask fuzz` looks for this line.
        println!("fuzz {}: {done} seeds from {first} in {:.1} s", self.target, start.elapsed().as_secs_f64());
        self.report(&coverage, done);
    }

    /// Prints the counters and compares them with the goals, if so many seeds have to reach them.
    fn report(&self, coverage: &Coverage, done: u64) {
        let goal = |what: &str| self.goals.iter().find(|goal| goal.0 == what).map_or(0, |goal| goal.1);
        for (what, count) in &coverage.counts {
            println!("{count:>12}  {what} (goal: {})", goal(what));
        }
        if done < self.seeds {
            println!("              {} seeds have to reach the goals, these need not", self.seeds);
            return;
        }
        for (what, least) in self.goals {
            let count = coverage.get(what);
            assert!(count >= *least, "{}: {what}: {count}, not {least}", self.target);
        }
    }
}

/// Says how a seed is run again, if it panics.
struct Replay {
    target: &'static str,
    seed: u64,
}

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to replay: cargo xtask fuzz {} --seed {}", self.target, self.seed);
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::{Coverage, Fuzzer};

    fn fuzzer(goals: &'static [(&'static str, u64)]) -> Fuzzer {
        Fuzzer { target: "nothing", seeds: 3, seeds_optimised: 3, goals }
    }

    #[test]
    fn sums_add_up_and_the_largest_stays() {
        let mut coverage = Coverage::default();
        for value in [2, 5, 3] {
            coverage.count("sum", value);
            coverage.most("most", value);
        }
        assert_eq!([coverage.get("sum"), coverage.get("most"), coverage.get("other")], [10, 5, 0]);
    }

    #[test]
    fn goals_that_are_just_reached() {
        let mut seeds = Vec::new();
        fuzzer(&[("seeds", 3), ("last", 2)]).run(|seed, coverage| {
            coverage.count("seeds", 1);
            coverage.most("last", seed);
            seeds.push(seed);
        });
        assert_eq!(seeds, [0, 1, 2]);
    }

    #[test]
    #[should_panic(expected = "nothing: seeds: 3, not 4")]
    fn a_goal_that_is_missed() {
        fuzzer(&[("seeds", 4)]).run(|_, coverage| coverage.count("seeds", 1));
    }

    #[test]
    #[should_panic(expected = "nothing: other: 0, not 1")]
    fn a_goal_that_never_came() {
        fuzzer(&[("other", 1)]).run(|_, coverage| coverage.count("seeds", 1));
    }
}
