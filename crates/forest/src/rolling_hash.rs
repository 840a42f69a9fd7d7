//! A hash over everything that compaction did since the file was made, kept in the checkpoint state.
//!
//! Two files that did the same have the same hash, so that two replicas, or a run and its replay, find by
//! their checkpoints whether they differ. It takes in, for each compaction in the order of application: the
//! beat, tree and target level, the values consumed and produced, and each edit's table.

use understory_compaction::Outcome;
use understory_format::{Beat, Checksum, Level, TreeId};

/// The state of the hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RollingHash(Checksum);

impl RollingHash {
    pub(crate) fn new(state: Checksum) -> Self {
        Self(state)
    }

    pub(crate) fn get(self) -> Checksum {
        self.0
    }

    /// Takes in one applied compaction.
    pub(crate) fn record(&mut self, beat: Beat, tree: TreeId, target: Level, outcome: &Outcome) {
        let mut bytes = Vec::with_capacity(64 + 32 * outcome.edits.len());
        bytes.extend(self.0.get().to_le_bytes());
        bytes.extend(beat.get().to_le_bytes());
        bytes.extend(tree.get().to_le_bytes());
        bytes.extend(target.get().to_le_bytes());
        bytes.extend(outcome.consumed.to_le_bytes());
        bytes.extend(outcome.produced.to_le_bytes());
        for edit in &outcome.edits {
            bytes.extend(edit.table.index.address.get().to_le_bytes());
            bytes.extend(edit.table.index.checksum.get().to_le_bytes());
        }
        self.0 = Checksum::of(&bytes);
    }
}
