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

#[cfg(test)]
mod tests {
    use understory_format::{BlockAddress, EditKind, KeyBytes, ManifestEdit, TableInfo, TwinRef};

    use super::*;

    fn edit(address: u64, checksum: u128) -> ManifestEdit {
        let index = TwinRef {
            address: BlockAddress::new(address).unwrap(),
            twin: BlockAddress::new(address + 1).unwrap(),
            checksum: Checksum::new(checksum),
        };
        let table = TableInfo {
            tree: TreeId::new(1).unwrap(),
            index,
            key_min: KeyBytes([0; 32]),
            key_max: KeyBytes([0; 32]),
            value_count: 1,
            tombstone_count: 0,
            value_block_count: 1,
            beat_min: Beat::new(1),
            beat_max: Beat::MAX,
            age: Beat::new(1),
        };
        ManifestEdit { kind: EditKind::Insert, level: Level::new(0).unwrap(), table }
    }

    /// The hash of one compaction after a state.
    fn hash(
        state: u128,
        beat: u64,
        (tree, target): (u16, u8),
        counts: (u64, u64),
        edits: &[(u64, u128)],
    ) -> u128 {
        let mut hash = RollingHash::new(Checksum::new(state));
        let edits = edits.iter().map(|(address, checksum)| edit(*address, *checksum)).collect();
        let outcome = Outcome { edits, consumed: counts.0, produced: counts.1, ..Outcome::default() };
        hash.record(Beat::new(beat), TreeId::new(tree).unwrap(), Level::new(target).unwrap(), &outcome);
        hash.get().get()
    }

    #[test]
    fn all_that_was_done_is_in_the_hash() {
        let hashes = [
            hash(7, 8, (1, 2), (30, 20), &[(5, 55), (9, 99)]),
            hash(6, 8, (1, 2), (30, 20), &[(5, 55), (9, 99)]),
            hash(7, 9, (1, 2), (30, 20), &[(5, 55), (9, 99)]),
            hash(7, 8, (2, 2), (30, 20), &[(5, 55), (9, 99)]),
            hash(7, 8, (1, 1), (30, 20), &[(5, 55), (9, 99)]),
            hash(7, 8, (1, 2), (31, 20), &[(5, 55), (9, 99)]),
            hash(7, 8, (1, 2), (30, 21), &[(5, 55), (9, 99)]),
            hash(7, 8, (1, 2), (30, 20), &[(4, 55), (9, 99)]),
            hash(7, 8, (1, 2), (30, 20), &[(5, 55), (9, 98)]),
            hash(7, 8, (1, 2), (30, 20), &[(9, 99), (5, 55)]),
            hash(7, 8, (1, 2), (30, 20), &[(5, 55)]),
            hash(7, 8, (1, 2), (30, 20), &[]),
        ];
        for (index, hash) in hashes.iter().enumerate() {
            assert_eq!(hashes.iter().position(|other| other == hash), Some(index));
        }
        assert_eq!(hashes[0], hash(7, 8, (1, 2), (30, 20), &[(5, 55), (9, 99)]));
    }
}
