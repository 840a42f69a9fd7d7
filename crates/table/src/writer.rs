//! Writing tables: values in ascending order become value blocks, value blocks become tables.
//!
//! A writer holds at most two block buffers, the value block that is being filled and the index of the table that
//! it will belong to, and where tables have filters those of a full filter. A value block is written when its last
//! value is pushed, filter and index when its last value block is, so that an exact fill leaves nothing behind. What
//! is unfinished is carried from call to call, and so from beat to beat; addresses are drawn from the reservation of
//! the call that writes.
//!
//! # Invariants
//! - The bytes and their addresses are a function of the values pushed, of where [`TableWriter::finish`] was
//!   called, and of the reservations; buffers are zeroed where nothing was put (tests: two runs give equal blocks).
//! - Keys ascend strictly over all tables of a writer: a value out of order is refused.
//! - No allocation per value; one of a table's addresses at the start, one per table for its info and three for
//!   its filter's blocks.
//! - The record of a tombstone is its key and zeros, whatever the caller's record holds.
//!
//! # Not here
//! Which values to write, and what becomes of the tables: `compaction`.

use core::fmt;
use std::sync::Arc;

use understory_format::{
    Beat, BlockAddress, BlockRef, FilterBuilder, IndexEncoder, Key, Placement, Record, TableInfo, TreeId,
    TwinRef, ValueBlockBuilder, usize_of,
};
use understory_grid::{Block, Grid, Reservation};
use understory_io::Buffer;

use crate::{Filter, FilterBudget, TableError, TableLayout};

/// The value block that is being filled.
struct OpenBlock<K> {
    buffer: Buffer,
    builder: ValueBlockBuilder,
    key_min: K,
}

/// The table that is being filled.
struct OpenTable {
    buffer: Buffer,
    encoder: IndexEncoder,
    filter: Option<OpenFilter>,
}

/// The filter of the table that is being filled.
struct OpenFilter {
    buffers: Vec<Buffer>,
    builder: FilterBuilder,
}

impl OpenTable {
    fn new(grid: &Grid, layout: &TableLayout, key_size: usize) -> Result<Self, TableError> {
        let filter = match &layout.filter {
            Some(layout) => {
                let buffers = (0..layout.block_count_max()).map(|_| grid.buffer());
                let mut buffers = buffers.collect::<Result<Vec<_>, _>>()?;
                let builder = FilterBuilder::new(layout, &mut buffers);
                Some(OpenFilter { buffers, builder })
            }
            None => None,
        };
        let encoder = IndexEncoder::new(&layout.value, key_size);
        Ok(Self { buffer: grid.buffer()?, encoder, filter })
    }

    /// Notes that the table has a key with this hash.
    #[inline]
    fn add(&mut self, hash: u64) {
        if let Some(OpenFilter { buffers, builder }) = &mut self.filter {
            builder.add(buffers, hash);
        }
    }
}

/// A filter that was written.
#[derive(Default)]
struct WrittenFilter {
    line_count: u32,
    blocks: Vec<Block>,
}

/// Writes tables of one tree.
///
/// After an error other than [`TableError::OutOfOrder`] a writer is good for nothing but
/// [`abandon`](Self::abandon).
pub struct TableWriter<R: Record> {
    grid: Arc<Grid>,
    layout: TableLayout,
    tree: TreeId,
    beat: Beat,
    age: Beat,
    block: Option<OpenBlock<R::Key>>,
    table: Option<OpenTable>,
    /// Written value blocks of the unfinished table.
    written: Vec<BlockAddress>,
    last: Option<R::Key>,
    tables: Vec<TableInfo>,
    value_count: u64,
    /// Who holds filters in memory, and how many blocks of its room are to be left to others.
    budget: Option<(Arc<FilterBudget>, u64)>,
    /// Those of `tables` that are held.
    filters: Vec<(BlockAddress, Filter)>,
}

/// What an abandoned writer leaves on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abandoned {
    /// Complete tables that were not taken.
    pub tables: Vec<TableInfo>,
    /// Value and filter blocks of the table that was not finished.
    pub blocks: Vec<BlockAddress>,
}

impl<R: Record> TableWriter<R> {
    /// A writer of tables that are seen from `beat` on and whose youngest values were flushed in beat `age`.
    /// Nothing is taken from the grid before the first value.
    ///
    /// # Panics
    /// If the layout is not that of `R`.
    #[must_use]
    pub fn new(grid: Arc<Grid>, layout: TableLayout, tree: TreeId, beat: Beat, age: Beat) -> Self {
        assert!(layout.is_of::<R>(), "the layout of this record");
        Self {
            grid,
            layout,
            tree,
            beat,
            age,
            block: None,
            table: None,
            written: Vec::with_capacity(usize_of(layout.value_blocks_max + layout.filter_blocks_max())),
            last: None,
            tables: Vec::new(),
            value_count: 0,
            budget: None,
            filters: Vec::new(),
        }
    }

    /// The same, but the filters of its tables stay in memory where the budget has room beside `spare` blocks: see
    /// [`take_filters`](Self::take_filters).
    #[must_use]
    pub fn holding_filters(self, budget: Arc<FilterBudget>, spare: u64) -> Self {
        Self { budget: Some((budget, spare)), ..self }
    }

    /// Adds a value or a tombstone whose key is above all before. Of a tombstone's record only the key counts.
    ///
    /// # Errors
    /// [`TableError::OutOfOrder`], of which nothing is taken; [`TableError::Grid`] if there is no buffer or a block
    /// cannot be written.
    ///
    /// # Panics
    /// If the reservation is exhausted; [`blocks_bound`](Self::blocks_bound) says what is needed.
    #[inline]
    pub fn push(
        &mut self,
        value: &R,
        tombstone: bool,
        reservation: &mut Reservation,
    ) -> Result<(), TableError> {
        let key = value.key();
        if self.last.is_some_and(|last| key <= last) {
            return Err(TableError::OutOfOrder);
        }
        let block = match &mut self.block {
            Some(block) => block,
            None => Self::start(&self.grid, &self.layout, &mut self.block, &mut self.table, key)?,
        };
        let hash = key.hash();
        let page_is_full = if tombstone {
            let bare = R::tombstone(key);
            block.builder.push(&mut block.buffer, bare.as_bytes(), true, hash)
        } else {
            block.builder.push(&mut block.buffer, value.as_bytes(), false, hash)
        };
        self.table.as_mut().expect("a block belongs to a table").add(hash);
        self.last = Some(key);
        self.value_count += 1;
        if page_is_full { self.end_page(key, reservation) } else { Ok(()) }
    }

    /// Adds consecutive values, none a tombstone; faster than one by one.
    ///
    /// # Errors
    /// As [`push`](Self::push): the values before the one that failed are taken.
    ///
    /// # Panics
    /// As [`push`](Self::push).
    pub fn push_slice(&mut self, mut values: &[R], reservation: &mut Reservation) -> Result<(), TableError> {
        while let Some(first) = values.first() {
            // The first one opens what has to be opened and closes what is full.
            self.push(first, false, reservation)?;
            values = values.get(1..).unwrap_or_default();
            let taken = self.fill_page(values, reservation)?;
            values = values.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    /// Pushes values until the end of the page or of the values; how many.
    fn fill_page(&mut self, values: &[R], reservation: &mut Reservation) -> Result<usize, TableError> {
        let Self { block: Some(block), table: Some(table), last: Some(last), .. } = &mut *self else {
            return Ok(0);
        };
        let buffer: &mut [u8] = &mut block.buffer;
        let (mut last, mut taken, mut page_is_full, mut in_order) = (*last, 0, false, true);
        for value in values {
            let key = value.key();
            if key <= last {
                in_order = false;
                break;
            }
            let hash = key.hash();
            page_is_full = block.builder.push(buffer, value.as_bytes(), false, hash);
            table.add(hash);
            last = key;
            taken += 1;
            if page_is_full {
                break;
            }
        }
        self.last = Some(last);
        self.value_count += u64::try_from(taken).expect("usize fits into u64");
        if page_is_full {
            self.end_page(last, reservation)?;
        }
        if in_order { Ok(taken) } else { Err(TableError::OutOfOrder) }
    }

    /// Takes the buffers for the first value of a block, and of a table if need be.
    #[cold]
    fn start<'a>(
        grid: &Grid,
        layout: &TableLayout,
        block: &'a mut Option<OpenBlock<R::Key>>,
        table: &mut Option<OpenTable>,
        key_min: R::Key,
    ) -> Result<&'a mut OpenBlock<R::Key>, TableError> {
        if table.is_none() {
            *table = Some(OpenTable::new(grid, layout, R::Key::SIZE)?);
        }
        let mut buffer = grid.buffer()?;
        let builder = ValueBlockBuilder::new(&mut buffer, &layout.value);
        Ok(block.insert(OpenBlock { buffer, builder, key_min }))
    }

    /// Notes the greatest key of a page, and writes what became full with it.
    #[cold]
    fn end_page(&mut self, key_max: R::Key, reservation: &mut Reservation) -> Result<(), TableError> {
        let table = self.table.as_mut().expect("a block belongs to a table");
        table.encoder.page_key(&mut table.buffer, key_max.encode().get());
        let is_full = self.block.as_ref().is_some_and(|block| block.builder.is_full());
        if is_full {
            self.write_block(key_max, reservation)?;
        }
        if self.carried_blocks() == self.layout.value_blocks_max {
            self.write_index(reservation)?;
        }
        Ok(())
    }

    /// Writes the value block; the key of its last page is noted.
    fn write_block(&mut self, key_max: R::Key, reservation: &mut Reservation) -> Result<(), TableError> {
        let mut block = self.block.take().expect("a block was started");
        let table = self.table.as_mut().expect("a block belongs to a table");
        let address = self.grid.acquire(reservation);
        let placement = Placement { address, twin: None, tree: Some(self.tree), beat: self.beat };
        let (key_min, key_max) = (block.key_min.encode(), key_max.encode());
        let counts = (block.builder.value_count(), block.builder.tombstone_count());
        let checksum =
            block.builder.finish(&mut block.buffer, &placement, key_min, key_max, |page, checksum| {
                table.encoder.page_checksum(&mut table.buffer, page, checksum);
            });
        let reference = BlockRef { address, checksum };
        table.encoder.value_block(&mut table.buffer, reference, counts.0, counts.1, key_min.get());
        self.written.push(address);
        self.grid.write(block.buffer)?;
        Ok(())
    }

    /// Folds and writes the filter.
    fn write_filter(
        &mut self,
        filter: OpenFilter,
        reservation: &mut Reservation,
    ) -> Result<WrittenFilter, TableError> {
        let OpenFilter { mut buffers, mut builder } = filter;
        let left = builder.fold(&mut buffers);
        buffers.truncate(usize_of(left));
        let mut blocks = Vec::with_capacity(buffers.len());
        for (number, mut buffer) in (0..).zip(buffers) {
            let address = self.grid.acquire(reservation);
            let placement = Placement { address, twin: None, tree: Some(self.tree), beat: self.beat };
            let _checksum = builder.finish(number, &mut buffer, &placement);
            self.written.push(address);
            blocks.push(self.grid.write(buffer)?);
        }
        Ok(WrittenFilter { line_count: builder.line_count(), blocks })
    }

    /// Keeps the filter of the table with its index at `index` in memory, if there is room.
    fn hold(&mut self, index: BlockAddress, filter: WrittenFilter) {
        if let Some((budget, spare)) = &self.budget {
            let held = Filter::hold(filter.line_count, filter.blocks, budget, *spare);
            self.filters.extend(held.map(|filter| (index, filter)));
        }
    }

    /// Writes the index, which makes the table, and before it the filter.
    fn write_index(&mut self, reservation: &mut Reservation) -> Result<(), TableError> {
        let mut table = self.table.take().expect("a table was started");
        let filter = match table.filter.take() {
            Some(filter) => self.write_filter(filter, reservation)?,
            None => WrittenFilter::default(),
        };
        let address = self.grid.acquire(reservation);
        let twin = self.grid.acquire(reservation);
        let placement = Placement { address, twin: Some(twin), tree: Some(self.tree), beat: self.beat };
        let counts = table.encoder.counts();
        let references: Vec<_> = filter.blocks.iter().map(Block::reference).collect();
        let checksum =
            table.encoder.finish_with(&mut table.buffer, &placement, filter.line_count, &references);
        let block = self.grid.write(table.buffer)?;
        let view = understory_format::IndexView::unchecked(&block, R::Key::SIZE);
        let view = view.expect("the encoder checked what it wrote");
        self.tables.push(TableInfo {
            tree: self.tree,
            index: TwinRef { address, twin, checksum },
            key_min: view.key_min(),
            key_max: view.key_max(),
            value_count: counts.values,
            tombstone_count: counts.tombstones,
            value_block_count: counts.value_blocks,
            beat_min: self.beat,
            beat_max: Beat::MAX,
            age: self.age,
        });
        self.written.clear();
        self.hold(address, filter);
        Ok(())
    }

    /// Writes what is unfinished; the writer can go on with greater keys in a new table. Without unfinished values
    /// nothing happens.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    ///
    /// # Panics
    /// As [`push`](Self::push).
    pub fn finish(&mut self, reservation: &mut Reservation) -> Result<(), TableError> {
        if let Some(block) = &self.block {
            let key_max = self.last.expect("a block has a value");
            let table = self.table.as_mut().expect("a block belongs to a table");
            // The key of a page that is full was noted when it became so.
            if self.layout.value.locate(block.builder.value_count()).1 != 0 {
                table.encoder.page_key(&mut table.buffer, key_max.encode().get());
            }
            self.write_block(key_max, reservation)?;
        }
        if self.table.is_some() { self.write_index(reservation) } else { Ok(()) }
    }

    /// The tables that became complete since the last call, in ascending order of keys.
    #[must_use]
    pub fn take_tables(&mut self) -> Vec<TableInfo> {
        core::mem::take(&mut self.tables)
    }

    /// Those filters of the tables that became complete since the last call that are held in memory, by the address of
    /// the table's index.
    #[must_use]
    pub fn take_filters(&mut self) -> Vec<(BlockAddress, Filter)> {
        core::mem::take(&mut self.filters)
    }

    /// Gives up: what is on disk and belongs to nobody now.
    #[must_use]
    pub fn abandon(self) -> Abandoned {
        Abandoned { tables: self.tables, blocks: self.written }
    }

    /// Addresses that pushing `values` values more and then [`finish`](Self::finish) draw at most.
    #[must_use]
    pub fn blocks_bound(&self, values: u64) -> u64 {
        self.layout.blocks_bound_after(self.carried_values(), self.carried_blocks(), values)
    }

    /// Values in the block that is being filled.
    #[must_use]
    pub fn carried_values(&self) -> u32 {
        self.block.as_ref().map_or(0, |block| block.builder.value_count())
    }

    /// Written value blocks of the table that is being filled.
    #[must_use]
    pub fn carried_blocks(&self) -> u32 {
        self.table.as_ref().map_or(0, |table| table.encoder.counts().value_blocks)
    }

    /// Values pushed so far, tombstones included.
    #[must_use]
    pub const fn value_count(&self) -> u64 {
        self.value_count
    }

    /// The greatest key so far.
    #[must_use]
    pub const fn last_key(&self) -> Option<R::Key> {
        self.last
    }
}

impl<R: Record> fmt::Debug for TableWriter<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableWriter")
            .field("tree", &self.tree)
            .field("beat", &self.beat)
            .field("value_count", &self.value_count)
            .field("carried_values", &self.carried_values())
            .field("carried_blocks", &self.carried_blocks())
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
