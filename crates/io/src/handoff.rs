//! Hands one value from one thread to another, once.
//!
//! # Invariants
//! - A [`Promise`] that is dropped unfulfilled wakes its waiter, which gets `None` (test
//!   `a_dropped_promise_wakes`): a worker that dies leaves nobody waiting.
//!
//! # Not here
//! What the value means; tickets are in [`ticket`](crate::Ticket), joins of jobs in [`Machine`](crate::Machine).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::Park;

static KEYS: AtomicU64 = AtomicU64::new(1);

/// A key for [`Park`] that no other call in this process got.
pub fn fresh_key() -> u64 {
    KEYS.fetch_add(1, Ordering::Relaxed)
}

struct Slot<T> {
    key: u64,
    done: AtomicBool,
    value: Mutex<Option<T>>,
}

/// The giving end: fulfil it once, from any thread.
pub struct Promise<T> {
    slot: Arc<Slot<T>>,
    park: Arc<dyn Park>,
}

/// The receiving end.
pub struct Pending<T> {
    slot: Arc<Slot<T>>,
    park: Arc<dyn Park>,
}

/// A connected pair whose receiver waits through `park`.
pub fn handoff<T: Send>(park: Arc<dyn Park>) -> (Promise<T>, Pending<T>) {
    let slot = Arc::new(Slot { key: fresh_key(), done: AtomicBool::new(false), value: Mutex::new(None) });
    (Promise { slot: Arc::clone(&slot), park: Arc::clone(&park) }, Pending { slot, park })
}

impl<T> Promise<T> {
    /// Hands the value over and wakes the receiver.
    pub fn fulfil(self, value: T) {
        *self.slot.value.lock() = Some(value);
        // Drop marks it done and wakes.
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        self.slot.done.store(true, Ordering::Release);
        self.park.wake(self.slot.key);
    }
}

impl<T> Pending<T> {
    /// Whether the value is there (or never will be): then [`wait`](Self::wait) returns at once.
    pub fn is_done(&self) -> bool {
        self.slot.done.load(Ordering::Acquire)
    }

    /// Waits for the value until the park's time has reached `deadline`. Whether [`wait`](Self::wait) returns at once.
    pub fn wait_until(&self, deadline: Duration) -> bool {
        let mut done = || self.slot.done.load(Ordering::Acquire);
        done() || self.park.park_until_deadline(self.slot.key, deadline, &mut done)
    }

    /// What it waits through.
    pub(crate) fn park(&self) -> &dyn Park {
        self.park.as_ref()
    }

    /// Waits for the value. `None` if the promise was dropped without one.
    pub fn wait(self) -> Option<T> {
        if !self.is_done() {
            self.park.park_until(self.slot.key, &mut || self.slot.done.load(Ordering::Acquire));
        }
        self.slot.value.lock().take()
    }
}

impl<T> fmt::Debug for Promise<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Promise").field("key", &self.slot.key).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending")
            .field("key", &self.slot.key)
            .field("done", &self.is_done())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Executor, ThreadExecutor, ThreadPark};

    fn park() -> Arc<dyn Park> {
        Arc::new(ThreadPark::new())
    }

    #[test]
    fn a_value_crosses_threads() {
        let park = park();
        let threads = ThreadExecutor::new("test", 2).expect("threads");
        for round in 0..2000_u32 {
            let (promise, pending) = handoff(Arc::clone(&park));
            threads.submit(Box::new(move || promise.fulfil(round)));
            assert_eq!(pending.wait(), Some(round));
        }
    }

    #[test]
    fn a_dropped_promise_wakes() {
        let (promise, pending) = handoff::<u32>(park());
        assert!(!pending.is_done());
        let threads = ThreadExecutor::new("test", 1).expect("threads");
        threads.submit(Box::new(move || drop(promise)));
        assert_eq!(pending.wait(), None);
    }

    #[test]
    fn a_fulfilled_promise_is_done_at_once() {
        let (promise, pending) = handoff(park());
        promise.fulfil("value");
        assert!(pending.is_done());
        assert_eq!(pending.wait(), Some("value"));
    }

    #[test]
    fn keys_differ() {
        assert_ne!(fresh_key(), fresh_key());
    }
}
