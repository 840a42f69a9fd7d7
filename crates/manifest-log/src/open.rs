//! Reading the chain backwards: from the checkpoint's root to the live tables.
//!
//! Everything that a good checksum does not say is checked before the log relies on it: the number of blocks,
//! that sequence numbers descend by one, that the chain ends at the root's oldest block, that each address is
//! acquired and has one owner, that the records of a table can follow each other.

use understory_format::{
    BlockAddress, BlockKind, Corruption, Expected, ManifestBlockView, ManifestEdit, ManifestRoot, Place,
    TwinRef, u32_of,
};
use understory_grid::Grid;

use crate::error::LogError;
use crate::extents::{AddressMap, Extent};
use crate::history::History;
use crate::log::{ClosedBlock, ManifestLog};

impl ManifestLog {
    /// Reads the chain of a checkpoint, newest block first, and calls `on_table` with the newest record of each
    /// live table, newest first. The order of calls says nothing of levels or keys.
    ///
    /// # Errors
    /// A block that cannot be read from either copy, a chain that cannot be, or what `on_table` returns. The log
    /// must not be used afterwards.
    ///
    /// # Panics
    /// If the log is not new.
    pub fn open(
        &mut self,
        root: &ManifestRoot,
        on_table: &mut dyn FnMut(ManifestEdit) -> Result<(), Corruption>,
    ) -> Result<(), LogError> {
        assert!(self.blocks.is_empty() && self.open.is_none() && self.extents.len() == 0, "opened once");
        let mut scan = Scan::default();
        let mut next = root.newest;
        for index in 0..root.block_count {
            let Some(reference) = next else {
                return Err(chain("manifest_block_count", root.block_count, index).into());
            };
            let place = Place::Block(reference.address);
            scan.own(&self.grid, reference).map_err(|error| error.at(place))?;
            next = self.read(reference, &mut scan, on_table)?;
        }
        self.check_end(root)?;
        self.sequence_next = self.blocks.back().map_or(1, |block| block.sequence + 1);
        self.largest.blocks_at_open = self.block_count();
        Ok(())
    }

    /// Takes one block of the chain; gives the reference to the one before.
    fn read(
        &mut self,
        reference: TwinRef,
        scan: &mut Scan,
        on_table: &mut dyn FnMut(ManifestEdit) -> Result<(), Corruption>,
    ) -> Result<Option<TwinRef>, LogError> {
        let placed = |error: Corruption| error.at(Place::Block(reference.address));
        let block = self.grid.read_twin(reference, BlockKind::Manifest)?;
        let view = ManifestBlockView::new(&block).map_err(placed)?;
        let sequence = view.sequence();
        self.check_sequence(sequence).map_err(placed)?;
        let mut live = 0;
        for entry in (0..view.entry_count()).rev() {
            let edit = view.edit(entry).map_err(placed)?;
            if !scan.history.take(&edit).map_err(placed)? {
                continue;
            }
            scan.own(&self.grid, edit.table.index).map_err(placed)?;
            self.extents.insert(edit.table.index.address, Extent { sequence, entry });
            live += 1;
            on_table(edit).map_err(placed)?;
        }
        self.blocks.push_front(ClosedBlock { reference, sequence, live });
        Ok(view.previous())
    }

    /// The sequence of the next older block.
    fn check_sequence(&self, sequence: u64) -> Result<(), Corruption> {
        if sequence == 0 || sequence == u64::MAX {
            let rule = Expected::Rule("a sequence number from 1");
            return Err(Corruption::new("sequence", rule, sequence.into()));
        }
        match self.blocks.front() {
            Some(newer) if newer.sequence - 1 != sequence => {
                let expected = Expected::Exactly((newer.sequence - 1).into());
                Err(Corruption::new("sequence", expected, sequence.into()))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The chain ends where the root says.
    fn check_end(&self, root: &ManifestRoot) -> Result<(), Corruption> {
        let (count, oldest) = (u32_of(self.blocks.len()), self.blocks.front().map(|block| block.reference));
        if (count == 0) != root.newest.is_none() {
            return Err(chain("manifest_block_count", count, 0));
        }
        if oldest != root.oldest {
            let found = oldest.map_or(0, |reference| reference.address.get());
            let rule = Expected::Rule("the chain ends at its oldest block");
            return Err(Corruption::new("manifest_oldest", rule, found.into()));
        }
        Ok(())
    }
}

fn chain(field: &'static str, expected: u32, found: u32) -> Corruption {
    Corruption::new(field, Expected::Exactly(expected.into()), found.into())
}

/// What is known while the chain is read.
#[derive(Default)]
struct Scan {
    history: History,
    /// Addresses of the log's blocks and of the live tables' index blocks.
    owned: AddressMap<()>,
}

impl Scan {
    /// Both addresses are acquired, and nobody else's so far.
    fn own(&mut self, grid: &Grid, reference: TwinRef) -> Result<(), Corruption> {
        self.own_one(grid, "address", reference.address)?;
        self.own_one(grid, "twin", reference.twin)
    }

    fn own_one(&mut self, grid: &Grid, field: &'static str, address: BlockAddress) -> Result<(), Corruption> {
        let rule = |rule| Err(Corruption::new(field, Expected::Rule(rule), address.get().into()));
        if !grid.is_acquired(address) || grid.is_released(address) {
            return rule("a block in use is acquired and not released");
        }
        if self.owned.insert(address, ()).is_some() {
            return rule("a block has one owner");
        }
        Ok(())
    }
}
