//! What the forest counted.

use understory_compaction::Outcome;

/// What compaction did since open, in values of all trees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactionStats {
    /// Compactions that read and wrote.
    pub merge_count: u64,
    /// Tables that moved down unread.
    pub move_count: u64,
    /// Values read.
    pub consumed: u64,
    /// Values written.
    pub produced: u64,
    /// Values in tables that moved.
    pub moved: u64,
}

impl CompactionStats {
    pub(crate) fn record(&mut self, outcome: &Outcome) {
        match outcome.moved {
            0 => self.merge_count += 1,
            _ => self.move_count += 1,
        }
        self.consumed += outcome.consumed;
        self.produced += outcome.produced;
        self.moved += outcome.moved;
    }
}
