//! What happened, in order: a digest always, and readable lines where somebody will read them.
//!
//! A seed is run with a quiet trace. Only when it fails is it run again, with a trace that keeps its lines; the digest
//! tells that the second run was the first one.
//!
//! # Invariants
//! - Equal seeds give equal digests (the swarm runs some seeds twice).

use std::collections::VecDeque;
use std::fmt;

use parking_lot::Mutex;
use understory_testkit::records::mix;

/// Lines that are kept, the last ones: why a run failed stands at its end.
const LINE_COUNT_MAX: usize = 200_000;

/// The record of a run.
#[derive(Debug)]
pub(crate) struct Trace {
    state: Mutex<State>,
    is_verbose: bool,
    line_count_max: usize,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<String>,
    /// Lines that are not kept any more.
    forgotten: u64,
    digest: u64,
}

impl Trace {
    /// Keeps a digest only.
    pub(crate) fn quiet() -> Self {
        Self { state: Mutex::default(), is_verbose: false, line_count_max: 0 }
    }

    /// Keeps lines too.
    pub(crate) fn verbose() -> Self {
        Self::with_lines(LINE_COUNT_MAX)
    }

    fn with_lines(line_count_max: usize) -> Self {
        Self { state: Mutex::default(), is_verbose: true, line_count_max }
    }

    /// Something happened: numbers that tell it from others, and words for it.
    pub(crate) fn note(&self, numbers: &[u64], words: impl FnOnce() -> String) {
        let mut state = self.state.lock();
        state.digest = numbers.iter().fold(state.digest, |digest, number| mix(digest ^ mix(*number)));
        if self.is_verbose {
            if state.lines.len() == self.line_count_max {
                state.lines.pop_front();
                state.forgotten += 1;
            }
            state.lines.push_back(words());
        }
    }

    /// What tells this run from others.
    pub(crate) fn digest(&self) -> u64 {
        self.state.lock().digest
    }

    /// The lines that were kept; the first says if others came before them.
    pub(crate) fn lines(&self) -> Vec<String> {
        let state = self.state.lock();
        let before = (state.forgotten > 0).then(|| format!("(lines before: {})", state.forgotten));
        before.into_iter().chain(state.lines.iter().cloned()).collect()
    }
}

/// Why a run failed, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation(pub(crate) String);

impl Violation {
    /// With these words.
    pub(crate) fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Violation {}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(trace: &Trace, count: u64, expected: &[&str]) {
        (0..count).for_each(|number| trace.note(&[number], || number.to_string()));
        assert_eq!(trace.lines(), expected);
    }

    #[test]
    fn the_end_is_kept() {
        check(&Trace::with_lines(3), 0, &[]);
        check(&Trace::with_lines(3), 3, &["0", "1", "2"]);
        check(&Trace::with_lines(3), 4, &["(lines before: 1)", "1", "2", "3"]);
        check(&Trace::with_lines(3), 9, &["(lines before: 6)", "6", "7", "8"]);
        check(&Trace::quiet(), 9, &[]);
    }

    #[test]
    fn what_is_kept_does_not_count() {
        let digest = |trace: Trace, numbers: &[u64]| {
            numbers.iter().for_each(|number| trace.note(&[*number], String::new));
            trace.digest()
        };
        assert_eq!(digest(Trace::quiet(), &[1, 2, 3]), digest(Trace::with_lines(1), &[1, 2, 3]));
        assert_ne!(digest(Trace::quiet(), &[1, 2, 3]), digest(Trace::quiet(), &[1, 3, 2]));
    }
}
