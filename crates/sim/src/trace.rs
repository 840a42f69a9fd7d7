//! What happened, in order: a digest always, and readable lines where somebody will read them.
//!
//! A seed is run with a quiet trace. Only when it fails is it run again, with a trace that keeps its lines; the digest
//! tells that the second run was the first one.
//!
//! # Invariants
//! - Equal seeds give equal digests (the swarm runs some seeds twice).

use std::fmt;

use parking_lot::Mutex;
use understory_testkit::records::mix;

/// Lines that are kept; what came before them is counted.
const LINE_COUNT_MAX: usize = 200_000;

/// The record of a run.
#[derive(Debug)]
pub(crate) struct Trace {
    state: Mutex<State>,
    is_verbose: bool,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<String>,
    count: u64,
    digest: u64,
}

impl Trace {
    /// Keeps a digest only.
    pub(crate) fn quiet() -> Self {
        Self { state: Mutex::default(), is_verbose: false }
    }

    /// Keeps lines too.
    pub(crate) fn verbose() -> Self {
        Self { state: Mutex::default(), is_verbose: true }
    }

    /// Something happened: numbers that tell it from others, and words for it.
    pub(crate) fn note(&self, numbers: &[u64], words: impl FnOnce() -> String) {
        let mut state = self.state.lock();
        state.count += 1;
        state.digest = numbers.iter().fold(state.digest, |digest, number| mix(digest ^ mix(*number)));
        if self.is_verbose && state.lines.len() < LINE_COUNT_MAX {
            let line = words();
            state.lines.push(line);
        }
    }

    /// What tells this run from others.
    pub(crate) fn digest(&self) -> u64 {
        self.state.lock().digest
    }

    /// The lines that were kept.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.state.lock().lines.clone()
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
