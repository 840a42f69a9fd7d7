//! The log against a replay of its blocks from the oldest to the newest: slower, simpler, and the other way round.

use std::collections::BTreeMap;

use understory_format::{
    BlockAddress, BlockKind, Corruption, EditKind, Expected, ManifestBlockView, ManifestEdit, Place,
};

use crate::error::LogError;
use crate::extents::Extent;
use crate::log::{ClosedBlock, ManifestLog};

impl ManifestLog {
    /// Replays all blocks forwards, reading the closed ones through the grid, and compares the result with the
    /// extents and the counters of live records. For tests, fuzzers and the simulator.
    ///
    /// # Errors
    /// A block that cannot be read or decoded.
    ///
    /// # Panics
    /// If the log in memory differs from what its blocks say.
    pub fn verify(&self) -> Result<(), LogError> {
        let mut replay = BTreeMap::new();
        for block in &self.blocks {
            for (entry, edit) in (0..).zip(self.edits_of(block)?) {
                step(&mut replay, &edit, Extent { sequence: block.sequence, entry });
            }
        }
        if let Some(open) = &self.open {
            for (entry, edit) in (0..).zip(&self.entries) {
                step(&mut replay, edit, Extent { sequence: open.sequence, entry });
            }
        }
        let mut extents: Vec<_> = self.extents.iter().collect();
        extents.sort_unstable_by_key(|(address, _)| *address);
        assert!(
            extents.into_iter().eq(replay.iter().map(|(a, e)| (*a, *e))),
            "extents equal a replay forwards"
        );
        let mut live: BTreeMap<u64, u32> = BTreeMap::new();
        for extent in replay.values() {
            *live.entry(extent.sequence).or_default() += 1;
        }
        let closed = self.blocks.iter().map(|block| (block.sequence, block.live));
        let open = self.open.iter().map(|open| (open.sequence, open.live));
        for (sequence, counted) in closed.chain(open) {
            let recount = live.remove(&sequence).unwrap_or_default();
            assert_eq!(counted, recount, "live records of block {sequence} equal a recount");
        }
        self.verify_sequences();
        Ok(())
    }

    fn verify_sequences(&self) {
        for (older, newer) in self.blocks.iter().zip(self.blocks.iter().skip(1)) {
            assert_eq!(older.sequence + 1, newer.sequence, "sequence numbers ascend by one");
        }
        let newest = self.open.as_ref().map(|open| open.sequence);
        let newest = newest.or_else(|| self.blocks.back().map(|block| block.sequence));
        if let Some(newest) = newest {
            assert_eq!(newest + 1, self.sequence_next, "the next sequence number follows");
        }
    }

    /// The records of a closed block, oldest first.
    fn edits_of(&self, block: &ClosedBlock) -> Result<Vec<ManifestEdit>, LogError> {
        let placed = |error: Corruption| error.at(Place::Block(block.reference.address));
        let bytes = self.grid.read_twin(block.reference, BlockKind::Manifest)?;
        let view = ManifestBlockView::new(&bytes).map_err(placed)?;
        if view.sequence() != block.sequence {
            let expected = Expected::Exactly(block.sequence.into());
            return Err(placed(Corruption::new("sequence", expected, view.sequence().into())).into());
        }
        let edits = (0..view.entry_count()).map(|entry| view.edit(entry).map_err(placed));
        Ok(edits.collect::<Result<_, _>>()?)
    }
}

/// The extents after one more record. Records of a life whose beginning was released may come first.
fn step(replay: &mut BTreeMap<BlockAddress, Extent>, edit: &ManifestEdit, extent: Extent) {
    let address = edit.table.index.address;
    match edit.kind {
        EditKind::Insert => {
            assert_eq!(replay.insert(address, extent), None, "a table is inserted once");
        }
        EditKind::Update => {
            replay.insert(address, extent);
        }
        EditKind::Remove => {
            replay.remove(&address);
        }
    }
}
