//! One at a time, for work that does I/O: a lock that waits through [`Park`].
//!
//! # Invariants
//! - At most one [`Taken`] of a turn exists.
//!
//! # Not here
//! Fairness: who waits is woken together with the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Park, fresh_key};

/// The right to do something that must not be done twice at the same time.
#[derive(Debug)]
pub struct Turn {
    park: Arc<dyn Park>,
    key: u64,
    taken: AtomicBool,
}

/// The turn is taken until this is dropped.
#[derive(Debug)]
#[must_use = "the turn is given back when this is dropped"]
pub struct Taken<'a>(&'a Turn);

impl Turn {
    /// A turn that nobody has.
    pub fn new(park: Arc<dyn Park>) -> Self {
        Self { park, key: fresh_key(), taken: AtomicBool::new(false) }
    }

    /// Waits until nobody else has the turn.
    pub fn take(&self) -> Taken<'_> {
        let mut try_take = || !self.taken.swap(true, Ordering::Acquire);
        if !try_take() {
            self.park.park_until(self.key, &mut try_take);
        }
        Taken(self)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.taken.store(false, Ordering::Release);
        self.0.park.wake(self.0.key);
    }
}
