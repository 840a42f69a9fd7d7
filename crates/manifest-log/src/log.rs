//! The log in memory: appending, closing blocks, releasing dead ones, checkpoint.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use understory_format::{
    Beat, BlockAddress, EditKind, Geometry, ManifestEdit, ManifestRoot, Placement, TwinRef, manifest_block,
    u32_of, u64_of, usize_of,
};
use understory_grid::{Grid, Reservation};

use crate::compaction::{Located, Phase};
use crate::error::LogError;
use crate::extents::{Extent, Extents};
use crate::pace::Pace;

/// Addresses of one block: it is written twice.
const COPIES: u64 = 2;

/// The durable log of table events of all trees.
///
/// The order of calls: [`ManifestLog::open`] once, if there is a log; then, for each half-bar, [`ManifestLog::plan`] and
/// [`ManifestLog::start`] when it begins, [`ManifestLog::join`] and [`ManifestLog::apply`] when it ends; between two
/// half-bars [`ManifestLog::checkpoint`], whose root goes into the grid's checkpoint.
///
/// After an error of the grid that is no damage and no lack of buffers or space, the grid is poisoned and the log with
/// it.
pub struct ManifestLog {
    pub(crate) grid: Arc<Grid>,
    pub(crate) pace: Pace,
    /// Closed blocks, oldest first, their sequence numbers ascending by one.
    pub(crate) blocks: VecDeque<ClosedBlock>,
    pub(crate) open: Option<OpenBlock>,
    /// The records of the open block, none if there is no such; room for one block.
    pub(crate) entries: Vec<ManifestEdit>,
    pub(crate) extents: Extents,
    /// Of the next block to be opened.
    pub(crate) sequence_next: u64,
    pub(crate) beat: Beat,
    pub(crate) phase: Phase,
    /// What was read of the blocks that are given up. Its room is that of the largest half-bar so far.
    pub(crate) records: Vec<Located>,
    pub(crate) largest: Largest,
}

/// What the bound of the log depends on, since it was opened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Largest {
    /// Live tables at the start of a half-bar.
    pub(crate) tables: u64,
    /// Edits that a half-bar was planned for.
    pub(crate) edits: u64,
    /// Blocks when it was opened.
    pub(crate) blocks_at_open: u64,
}

/// A block that was handed to the grid.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClosedBlock {
    pub(crate) reference: TwinRef,
    pub(crate) sequence: u64,
    /// Extents that point into it.
    pub(crate) live: u32,
}

/// The block that takes records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenBlock {
    pub(crate) address: BlockAddress,
    pub(crate) twin: BlockAddress,
    pub(crate) sequence: u64,
    pub(crate) live: u32,
}

impl ManifestLog {
    /// An empty log.
    ///
    /// # Panics
    /// Never for a geometry that was validated.
    #[must_use]
    pub fn new(grid: Arc<Grid>, geometry: &Geometry) -> Self {
        let pace = Pace::new(manifest_block::capacity(geometry.block_size).into());
        Self {
            grid,
            pace,
            blocks: VecDeque::new(),
            open: None,
            entries: Vec::with_capacity(usize_of(manifest_block::capacity(geometry.block_size))),
            extents: Extents::default(),
            sequence_next: 1,
            beat: Beat::ZERO,
            phase: Phase::Idle,
            records: Vec::new(),
            largest: Largest::default(),
        }
    }

    /// The addresses that appending so many records takes, twins included. Exact until the next append or checkpoint.
    pub(crate) fn addresses_for(&self, record_count: u64) -> u64 {
        let capacity = self.pace.capacity();
        let room = self.open.map_or(0, |_| capacity - u64_of(self.entries.len()));
        COPIES * record_count.saturating_sub(room).div_ceil(capacity)
    }

    /// Appends a record. O(1), but for closing a full block.
    ///
    /// # Errors
    /// The grid refused the block before this one. The record is not appended.
    pub(crate) fn append(
        &mut self,
        edit: &ManifestEdit,
        reservation: &mut Reservation,
    ) -> Result<(), LogError> {
        let address = edit.table.index.address;
        let is_live = self.extents.get(address).is_some();
        assert_eq!(
            is_live,
            edit.kind != EditKind::Insert,
            "a table is inserted once, then updated or removed"
        );
        self.close_full()?;
        let open = match &mut self.open {
            Some(open) => open,
            None => self.open.insert(OpenBlock {
                address: self.grid.acquire(reservation),
                twin: self.grid.acquire(reservation),
                sequence: self.sequence_next,
                live: 0,
            }),
        };
        self.sequence_next = open.sequence + 1;
        let extent = Extent { sequence: open.sequence, entry: u32_of(self.entries.len()) };
        self.entries.push(*edit);
        let replaced = match edit.kind {
            EditKind::Insert | EditKind::Update => {
                open.live += 1;
                self.extents.insert(address, extent)
            }
            EditKind::Remove => self.extents.remove(address),
        };
        if let Some(replaced) = replaced {
            *self.live_of(replaced.sequence) -= 1;
        }
        Ok(())
    }

    /// The counter of live records of a block of the log.
    pub(crate) fn live_of(&mut self, sequence: u64) -> &mut u32 {
        if let Some(open) = &mut self.open
            && open.sequence == sequence
        {
            return &mut open.live;
        }
        let oldest = self.blocks.front().expect("an extent points into a block").sequence;
        let index = usize::try_from(sequence - oldest).expect("an extent points into a block");
        &mut self.blocks.get_mut(index).expect("an extent points into a block").live
    }

    /// Closes the open block, full or not, so that nothing is left in memory alone; gives the root of the chain, for the
    /// grid's checkpoint. No address is acquired.
    ///
    /// # Errors
    /// The grid refused the block.
    ///
    /// # Panics
    /// If a half-bar is under way, a step failed before, or there are more than `u32::MAX` blocks.
    pub fn checkpoint(&mut self) -> Result<ManifestRoot, LogError> {
        assert!(matches!(self.phase, Phase::Idle), "a checkpoint is taken between two half-bars");
        self.close()?;
        self.release_dead();
        if self.blocks.is_empty() {
            assert_eq!(self.extents.len(), 0, "live tables have records in the log");
            self.sequence_next = 1;
        }
        Ok(self.root())
    }

    /// The chain of closed blocks.
    fn root(&self) -> ManifestRoot {
        assert!(self.open.is_none(), "a root is taken of closed blocks only");
        let reference = |block: &ClosedBlock| block.reference;
        let block_count = u32::try_from(self.blocks.len()).expect("fewer blocks than a u32 counts");
        let (oldest, newest) = (self.blocks.front().map(reference), self.blocks.back().map(reference));
        ManifestRoot { oldest, newest, block_count }
    }

    /// Hands the open block to the grid if it is full.
    pub(crate) fn close_full(&mut self) -> Result<(), LogError> {
        let is_full = u64_of(self.entries.len()) == self.pace.capacity();
        if is_full { self.close() } else { Ok(()) }
    }

    /// Encodes the open block and hands it to the grid.
    fn close(&mut self) -> Result<(), LogError> {
        let Some(open) = self.open else { return Ok(()) };
        let mut buffer = self.grid.buffer()?;
        let placement =
            Placement { address: open.address, twin: Some(open.twin), tree: None, beat: self.beat };
        let previous = self.blocks.back().map(|block| block.reference);
        let checksum =
            manifest_block::encode(&mut buffer, &placement, previous, open.sequence, &self.entries);
        let reference = TwinRef { address: open.address, twin: open.twin, checksum };
        let closed = ClosedBlock { reference, sequence: open.sequence, live: open.live };
        self.grid.write(buffer)?;
        self.blocks.push_back(closed);
        self.open = None;
        self.entries.clear();
        Ok(())
    }

    /// Releases the oldest closed blocks that no extent points into.
    ///
    /// Their inserts and updates are superseded, and every record that one of their removes ends is older, so
    /// it is in a block that goes before or with it.
    pub(crate) fn release_dead(&mut self) {
        while let Some(block) = self.blocks.pop_front_if(|block| block.live == 0) {
            self.grid.release(block.reference.address);
            self.grid.release(block.reference.twin);
        }
    }

    /// The closed blocks, oldest first.
    pub fn block_refs(&self) -> impl DoubleEndedIterator<Item = TwinRef> + ExactSizeIterator {
        self.blocks.iter().map(|block| block.reference)
    }

    /// All addresses that the log holds, twins and those of the open block included: for accounting.
    pub fn addresses(&self) -> impl Iterator<Item = BlockAddress> {
        let closed = self.blocks.iter().flat_map(|block| [block.reference.address, block.reference.twin]);
        closed.chain(self.open.iter().flat_map(|open| [open.address, open.twin]))
    }

    /// Where the newest record of the live table with this index block stands: block, and place in it.
    ///
    /// # Panics
    /// Never: an extent points into a block of the log.
    #[must_use]
    pub fn extent(&self, address: BlockAddress) -> Option<(BlockAddress, u32)> {
        let extent = self.extents.get(address)?;
        let open = self.open.as_ref().filter(|open| open.sequence == extent.sequence);
        let block = open.map(|open| open.address).or_else(|| self.closed(extent.sequence));
        Some((block.expect("an extent points into a block"), extent.entry))
    }

    fn closed(&self, sequence: u64) -> Option<BlockAddress> {
        let oldest = self.blocks.front()?.sequence;
        let index = usize::try_from(sequence.checked_sub(oldest)?).ok()?;
        self.blocks.get(index).map(|block| block.reference.address)
    }

    /// Its blocks, the open one included; twins count once.
    #[must_use]
    pub fn block_count(&self) -> u64 {
        u64_of(self.blocks.len()) + u64::from(self.open.is_some())
    }

    /// The most blocks that it has at the end of a half-bar, after what happened since it was opened: about two and a
    /// half times what the largest number of live tables needs, and twice what the edits of the largest half-bar need. It
    /// is never less than [`ManifestLog::block_count`] (asserted at the end of each half-bar).
    #[must_use]
    pub fn blocks_max(&self) -> u64 {
        let Largest { tables, edits, blocks_at_open } = self.largest;
        self.pace.blocks_max(tables, edits, blocks_at_open)
    }

    /// The number of live tables of all trees.
    #[must_use]
    pub fn table_count(&self) -> u64 {
        u64_of(self.extents.len())
    }
}

impl fmt::Debug for ManifestLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManifestLog")
            .field("blocks", &self.blocks.len())
            .field("open", &self.open.as_ref().map(|open| open.address))
            .field("tables", &self.extents.len())
            .field("sequence_next", &self.sequence_next)
            .finish_non_exhaustive()
    }
}
