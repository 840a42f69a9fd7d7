//! The moment at which what was written becomes visible, the same one for all trees that share it.
//!
//! # Not here
//! What becomes visible: each tree knows how far it is published.

use parking_lot::RwLock;

/// Orders publishing and the start of reads, for all trees that share it.
///
/// A read begins with a capture of what is visible, for which it holds this shared for some nanoseconds. Who
/// publishes several trees at once holds it exclusively meanwhile, so that no reader sees one without the others.
#[derive(Debug, Default)]
pub struct Publication(RwLock<()>);

impl Publication {
    /// Runs `work`, which is to [publish](crate::Tree::publish) trees, while no read begins. Nothing else belongs
    /// there: all readers wait for it.
    pub fn publish<T>(&self, work: impl FnOnce() -> T) -> T {
        let _alone = self.0.write();
        work()
    }

    /// Runs `work`, which captures what is visible, while nothing is published.
    pub fn capture<T>(&self, work: impl FnOnce() -> T) -> T {
        let _shared = self.0.read();
        work()
    }
}
