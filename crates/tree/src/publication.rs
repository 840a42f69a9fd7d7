//! The moment at which what was written becomes visible, the same one for all trees that share it.
//!
//! A reader captures what is visible and then looks whether something was published meanwhile; if so, it captures
//! again. So readers write nothing that others read, and who publishes does not wait for them.
//!
//! # Invariants
//! - `epoch` is odd while somebody publishes, and never twice the same even number: what is captured between two
//!   looks at one even number is all before one publication and all after the one before it.
//!
//! # Not here
//! What becomes visible: each tree knows how far it is published.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use parking_lot::Mutex;

/// Orders publishing and the start of reads, for all trees that share it: of what is published together no reader
/// sees a part without the rest.
#[derive(Debug, Default)]
pub struct Publication {
    epoch: AtomicU64,
    turn: Mutex<()>,
}

/// The end of a publication, also of one that panics: readers would wait for ever.
struct Publishing<'a> {
    epoch: &'a AtomicU64,
    next: u64,
}

impl Drop for Publishing<'_> {
    fn drop(&mut self) {
        self.epoch.store(self.next, Ordering::Release);
    }
}

impl Publication {
    /// Runs `work`, which is to [publish](crate::Tree::publish) trees, while no read begins. Nothing else belongs
    /// there: all readers wait for it, and one that `work` were to begin itself would wait for ever.
    pub fn publish<T>(&self, work: impl FnOnce() -> T) -> T {
        let _turn = self.turn.lock();
        let epoch = self.epoch.load(Ordering::Relaxed);
        let _publishing = Publishing { epoch: &self.epoch, next: epoch + 2 };
        self.epoch.store(epoch + 1, Ordering::Relaxed);
        // Who sees a store of `work` sees the odd number.
        fence(Ordering::Release);
        work()
    }

    /// Runs `work`, which captures what is visible, until nothing was published while it ran.
    pub fn capture<T>(&self, mut work: impl FnMut() -> T) -> T {
        loop {
            let epoch = self.epoch.load(Ordering::Acquire);
            if epoch % 2 == 1 {
                // Until whoever publishes is done.
                drop(self.turn.lock());
                continue;
            }
            let result = work();
            fence(Ordering::Acquire);
            if self.epoch.load(Ordering::Relaxed) == epoch {
                return result;
            }
        }
    }
}
