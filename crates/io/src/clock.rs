//! Every time comes from here.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Time since some fixed moment; never goes back.
pub trait Clock: Send + Sync + Debug {
    /// The time now.
    fn now(&self) -> Duration;
}

/// The machine's monotonic clock, from 0 at its creation.
#[derive(Clone, Debug)]
pub struct MonotonicClock {
    start: Instant,
}

impl MonotonicClock {
    /// A clock that starts at 0 now.
    #[expect(clippy::disallowed_methods, reason = "this is the clock that others take")]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for MonotonicClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for MonotonicClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}
