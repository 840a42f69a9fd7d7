//! The log in memory: appending, closing blocks, releasing dead ones, checkpoint.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use understory_format::{
    Beat, BlockAddress, EditKind, Geometry, ManifestEdit, ManifestRoot, Placement, TwinRef, manifest_block,
    u32_of, u64_of, usize_of,
};
use understory_grid::{Grid, Reservation};

use crate::error::LogError;
use crate::extents::{Extent, Extents};

/// Addresses of one block: it is written twice.
const COPIES: u64 = 2;

/// The durable log of table events of all trees.
///
/// The order of calls: [`ManifestLog::open`] once; then appends, with a reservation of at least
/// [`ManifestLog::blocks_for`] addresses; a [`ManifestLog::flush`] when a half-bar ends; at a checkpoint
/// [`ManifestLog::checkpoint`], whose root goes into the grid's checkpoint.
///
/// After an error of the grid that is no damage and no lack of buffers, the grid is poisoned and the log with it.
pub struct ManifestLog {
    pub(crate) grid: Arc<Grid>,
    /// Records that a block holds.
    capacity: usize,
    /// Closed blocks, oldest first, their sequence numbers ascending by one.
    pub(crate) blocks: VecDeque<ClosedBlock>,
    pub(crate) open: Option<OpenBlock>,
    pub(crate) extents: Extents,
    /// Of the next block to be opened.
    pub(crate) sequence_next: u64,
    beat: Beat,
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
#[derive(Clone, Debug)]
pub(crate) struct OpenBlock {
    pub(crate) address: BlockAddress,
    pub(crate) twin: BlockAddress,
    pub(crate) sequence: u64,
    pub(crate) live: u32,
    pub(crate) entries: Vec<ManifestEdit>,
}

impl ManifestLog {
    /// An empty log.
    ///
    /// # Panics
    /// Never for a geometry that was validated.
    #[must_use]
    pub fn new(grid: Arc<Grid>, geometry: &Geometry) -> Self {
        let capacity = usize_of(manifest_block::capacity(geometry.block_size));
        assert!(capacity > 0, "a block has room for records");
        let (blocks, extents) = (VecDeque::new(), Extents::default());
        Self { grid, capacity, blocks, open: None, extents, sequence_next: 1, beat: Beat::ZERO }
    }

    /// Sets the beat that blocks written from now on carry in their header.
    pub fn set_beat(&mut self, beat: Beat) {
        self.beat = beat;
    }

    /// The addresses that appending `edit_count` records takes from a reservation, twins included. Exact until
    /// the next append or checkpoint.
    #[must_use]
    pub fn blocks_for(&self, edit_count: u64) -> u64 {
        let capacity = u64_of(self.capacity);
        let room = self.open.as_ref().map_or(0, |open| capacity - u64_of(open.entries.len()));
        COPIES * edit_count.saturating_sub(room).div_ceil(capacity)
    }

    /// Appends a record. O(1), but for closing a full block.
    ///
    /// # Errors
    /// The grid refused the block before this one. The record is not appended.
    ///
    /// # Panics
    /// If a table is inserted that is live, another edit is of a table that is not, or the reservation is
    /// too small.
    pub fn append(&mut self, edit: ManifestEdit, reservation: &mut Reservation) -> Result<(), LogError> {
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
                entries: Vec::with_capacity(self.capacity),
            }),
        };
        self.sequence_next = open.sequence + 1;
        let extent = Extent { sequence: open.sequence, entry: u32_of(open.entries.len()) };
        open.entries.push(edit);
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

    /// Hands a full block to the grid and releases the oldest blocks as long as they have no live record.
    ///
    /// # Errors
    /// The grid refused the block.
    pub fn flush(&mut self) -> Result<(), LogError> {
        self.close_full()?;
        self.release_dead();
        Ok(())
    }

    /// Closes the open block, full or not, as after [`ManifestLog::flush`] nothing is left in memory alone;
    /// gives the root of the chain, for the grid's checkpoint. No address is acquired.
    ///
    /// # Errors
    /// The grid refused the block.
    ///
    /// # Panics
    /// If there are more than `u32::MAX` blocks.
    pub fn checkpoint(&mut self) -> Result<ManifestRoot, LogError> {
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

    fn close_full(&mut self) -> Result<(), LogError> {
        let is_full = self.open.as_ref().is_some_and(|open| open.entries.len() == self.capacity);
        if is_full { self.close() } else { Ok(()) }
    }

    /// Encodes the open block and hands it to the grid.
    fn close(&mut self) -> Result<(), LogError> {
        let Some(open) = &self.open else { return Ok(()) };
        let mut buffer = self.grid.buffer()?;
        let placement =
            Placement { address: open.address, twin: Some(open.twin), tree: None, beat: self.beat };
        let previous = self.blocks.back().map(|block| block.reference);
        let checksum =
            manifest_block::encode(&mut buffer, &placement, previous, open.sequence, &open.entries);
        let reference = TwinRef { address: open.address, twin: open.twin, checksum };
        let closed = ClosedBlock { reference, sequence: open.sequence, live: open.live };
        self.grid.write(buffer)?;
        self.blocks.push_back(closed);
        self.open = None;
        Ok(())
    }

    /// Releases the oldest closed blocks that no extent points into.
    ///
    /// Their inserts and updates are superseded, and every record that one of their removes ends is older, so
    /// it is in a block that goes before or with it.
    fn release_dead(&mut self) {
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
