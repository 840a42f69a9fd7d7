//! The index of one table as its readers use it: found in memory or read, related to what the manifest says.
//!
//! An index block that comes from the storage is checked whole. One that is in memory already may have come there
//! by read-ahead, which checks no more than its checksum; so every step here checks the few numbers that it is
//! about to use, which costs nothing beside the search.
//!
//! # Invariants
//! - An [`Index`] exists only if the block agrees with its [`TableInfo`] in counts, key range and tree
//!   (`View::check`).
//! - An entry and a [`PageRef`] never lead outside their block, whatever the bytes.
//!
//! # Not here
//! The order of the keys in an index: readers find it out by what they read, [`verify`](crate::verify()) in full.

use core::ops::Range;

use understory_format::error::{exactly, rule};
use understory_format::index::FLAG_LOST;
use understory_format::{
    BlockAddress, BlockKind, BlockRef, Checksum, Corruption, IndexEntryHost, IndexView, Key, Place,
    TableInfo, usize_of,
};
use understory_grid::{Block, Grid};

use crate::{TableError, TableLayout};

/// The index block of a table, held in memory; it agrees with the table's info.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    block: Block,
}

impl Index {
    /// The index, if it is in memory.
    #[inline]
    pub(crate) fn cached(
        grid: &Grid,
        layout: &TableLayout,
        info: &TableInfo,
    ) -> Result<Option<Self>, Corruption> {
        let block = grid.cached(info.index.first()).or_else(|| grid.cached(info.index.second()));
        block.map(|block| Self::checked(block, layout, info)).transpose()
    }

    /// The index, read if need be.
    pub(crate) fn read(grid: &Grid, layout: &TableLayout, info: &TableInfo) -> Result<Self, TableError> {
        if let Some(index) = Self::cached(grid, layout, info)? {
            return Ok(index);
        }
        let block = grid.read_twin(info.index, BlockKind::Index)?;
        IndexView::new(&block, usize_of(layout.key_size))
            .map_err(|error| error.at(Place::Block(info.index.address)))?;
        Ok(Self::checked(block, layout, info)?)
    }

    #[inline]
    fn checked(block: Block, layout: &TableLayout, info: &TableInfo) -> Result<Self, Corruption> {
        let index = Self { block };
        index
            .view(layout)
            .and_then(|view| view.check(info))
            .map_err(|error| error.at(Place::Block(info.index.address)))?;
        Ok(index)
    }

    /// A look into the index.
    #[inline]
    pub(crate) fn view<'a>(&'a self, layout: &'a TableLayout) -> Result<View<'a>, Corruption> {
        let address = self.block.reference().address;
        let index = IndexView::unchecked(&self.block, usize_of(layout.key_size))
            .map_err(|error| error.at(Place::Block(address)))?;
        Ok(View { index, layout, address })
    }
}

/// An index block and what is needed to make sense of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    index: IndexView<'a>,
    layout: &'a TableLayout,
    address: BlockAddress,
}

/// Whether page `page` of the table is in this block.
pub(crate) const fn has_page(entry: &IndexEntryHost, page: u32) -> bool {
    page >= entry.page_start && page - entry.page_start < entry.page_count
}

/// Where one page is and what must be found there.
#[derive(Clone, Debug)]
pub(crate) struct PageRef {
    pub(crate) reference: BlockRef,
    /// Number of the page in its block.
    pub(crate) page: u32,
    pub(crate) checksum: Checksum,
    /// Its bytes in the block.
    pub(crate) range: Range<usize>,
    pub(crate) value_count: u32,
    pub(crate) has_tombstones: bool,
}

impl<'a> View<'a> {
    /// What the index says of the whole table is what the manifest says.
    fn check(&self, info: &TableInfo) -> Result<(), Corruption> {
        let index = &self.index;
        exactly("tree_id", info.tree.get(), index.header().tree_id.get())?;
        exactly("value_size", self.layout.value_size(), index.value_size())?;
        exactly("page_size", self.layout.value.page_size, index.page_size())?;
        exactly("value_block_count", info.value_block_count, index.value_block_count())?;
        exactly("value_count", info.value_count, index.value_count())?;
        exactly("tombstone_count", info.tombstone_count, index.tombstone_count())?;
        let lines = self.layout.filter.map_or(0, |filter| filter.line_count(info.value_count));
        exactly("filter_line_count", lines, index.filter_line_count())?;
        let same_range = index.key_min() == info.key_min && index.key_max() == info.key_max;
        rule("key_min", "the key range that the manifest says", same_range, 0_u8)
    }

    /// Value blocks of the table.
    pub(crate) fn block_count(&self) -> u32 {
        self.index.value_block_count()
    }

    /// Lines of the table's filter; 0 if it has none.
    pub(crate) fn filter_line_count(&self) -> u32 {
        self.index.filter_line_count()
    }

    /// The blocks of the table's filter.
    pub(crate) fn filter_blocks(
        &self,
    ) -> impl ExactSizeIterator<Item = Result<BlockRef, Corruption>> + use<'a> {
        let place = Place::Block(self.address);
        self.index.filter_blocks().map(move |block| block.map_err(|error| error.at(place)))
    }

    /// Pages of the table.
    pub(crate) fn page_count(&self) -> u32 {
        self.index.page_count()
    }

    /// The only page of the table that can hold `key`; none if `key` is greater than all.
    pub(crate) fn page_of<K: Key>(&self, key: K) -> Option<u32> {
        self.index.page_of(key)
    }

    /// The number of the value block that page `page` of the table is in.
    pub(crate) fn block_of_page(&self, page: u32) -> u32 {
        self.index.block_of_page(page)
    }

    /// The least key of a value block.
    pub(crate) fn key_min<K: Key>(&self, block: u32) -> K {
        K::decode(self.index.key_min_bytes(block))
    }

    /// The greatest key of page `page` of the table.
    pub(crate) fn page_key_max<K: Key>(&self, page: u32) -> K {
        K::decode(self.index.page_key_max_bytes(page))
    }

    /// The value block with this number, which must be below [`View::block_count`].
    pub(crate) fn entry(&self, block: u32) -> Result<IndexEntryHost, Corruption> {
        self.entry_unplaced(block).map_err(|error| error.at(Place::Block(self.address)))
    }

    /// As [`View::entry`], for the block that page `page` was found in.
    pub(crate) fn entry_with_page(&self, block: u32, page: u32) -> Result<IndexEntryHost, Corruption> {
        let entry = self.entry(block)?;
        rule("page_start", "page starts that ascend", has_page(&entry, page), entry.page_start)
            .map_err(|error| error.at(Place::Block(self.address)))?;
        Ok(entry)
    }

    fn entry_unplaced(&self, block: u32) -> Result<IndexEntryHost, Corruption> {
        let entry = self.index.checked_entry(block, &self.layout.value)?;
        rule("flags", "a block that is not lost", !entry.is_lost, FLAG_LOST)?;
        Ok(entry)
    }

    /// Page `page` of the table, which must be one of the entry's.
    pub(crate) fn page(&self, entry: &IndexEntryHost, page: u32) -> PageRef {
        assert!(has_page(entry, page), "a page of the block");
        let in_block = page - entry.page_start;
        PageRef {
            reference: entry.reference,
            page: in_block,
            checksum: self.index.page_checksum(page),
            range: self.layout.value.page_bytes(in_block),
            value_count: self.layout.value.page_value_count(entry.value_count, in_block),
            has_tombstones: entry.tombstone_count > 0,
        }
    }

    /// The page of the table that can hold `key`; none if no page can: `key` is beyond the last or in the gap before
    /// a block.
    pub(crate) fn page_for<K: Key>(&self, key: K) -> Result<Option<PageRef>, Corruption> {
        let Some(page) = self.page_of(key) else { return Ok(None) };
        let block = self.block_of_page(page);
        if key < self.key_min::<K>(block) {
            return Ok(None);
        }
        let entry = self.entry_with_page(block, page)?;
        Ok(Some(self.page(&entry, page)))
    }
}

/// All blocks of a table: both copies of its index, its filter, then its value blocks in order. What is released when
/// it ends.
///
/// # Errors
/// If the index cannot be read, or is not one of this table.
pub fn addresses(
    grid: &Grid,
    layout: &TableLayout,
    info: &TableInfo,
) -> Result<Vec<BlockAddress>, TableError> {
    let index = Index::read(grid, layout, info)?;
    let view = index.view(layout)?;
    let blocks = (0..view.block_count()).map(|block| view.entry(block).map(|entry| entry.reference.address));
    let filter = view.filter_blocks().map(|block| block.map(|reference| reference.address));
    [Ok(info.index.address), Ok(info.index.twin)]
        .into_iter()
        .chain(filter)
        .chain(blocks)
        .collect::<Result<_, Corruption>>()
        .map_err(TableError::from)
}
