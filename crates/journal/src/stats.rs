//! What the journal counted.

use std::sync::atomic::{AtomicU64, Ordering};

use understory_io::{Timer, Timings};

/// What was done to the ring since it was opened for writing. Recovery is no part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalStats {
    /// Bytes of the groups written, in whole sectors, headers included.
    pub bytes_written: u64,
    /// Groups written, lone witnesses included, and how long that took.
    pub writes: Timings,
    /// Syncs, failed ones included, and how long they took.
    pub syncs: Timings,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    bytes_written: AtomicU64,
    pub(crate) writes: Timer,
    pub(crate) syncs: Timer,
}

impl Counts {
    pub(crate) fn wrote(&self, bytes: u64) {
        self.bytes_written.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> JournalStats {
        JournalStats {
            bytes_written: self.bytes_written.load(Ordering::Relaxed),
            writes: self.writes.get(),
            syncs: self.syncs.get(),
        }
    }
}
