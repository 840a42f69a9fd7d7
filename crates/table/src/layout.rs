//! The shape of one tree's tables: what its records and the file's geometry make of blocks, pages and index.
//!
//! # Invariants
//! - A value block holds at least one value and a table at least one value block ([`TableLayout::new`]).
//! - `value_blocks_max` value blocks and the filter over them always fit one index block, whatever their pages hold.
//!
//! # Not here
//! Where things stand inside a page: [`ValueLayout`], of the format crate.

use understory_format::{FilterLayout, Geometry, Key, Record, ValueLayout, table_capacity, u32_of, u64_of};

use crate::LayoutError;

/// The shape of the tables of one tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableLayout {
    /// Where the values of a value block stand.
    pub value: ValueLayout,
    /// Bytes of an encoded key.
    pub key_size: u32,
    /// Value blocks of a full table.
    pub value_blocks_max: u32,
    /// Values of a full table.
    pub value_count_max: u64,
    /// Lines and blocks of a table's filter; none if the geometry has no filters.
    pub filter: Option<FilterLayout>,
}

impl TableLayout {
    /// The layout of the tables that hold records of type `R`.
    ///
    /// # Errors
    /// If the geometry is not valid, or a page or index block has no room for one record or one value block.
    pub fn new<R: Record>(geometry: &Geometry) -> Result<Self, LayoutError> {
        Self::of_sizes(geometry, u32_of(size_of::<R>()), u32_of(R::Key::SIZE))
    }

    /// As [`TableLayout::new`] for who has no type: sizes of a record and of its encoded key, in bytes.
    ///
    /// # Errors
    /// As [`TableLayout::new`].
    pub fn of_sizes(geometry: &Geometry, value_size: u32, key_size: u32) -> Result<Self, LayoutError> {
        geometry.validate()?;
        let (block_size, page_size) = (geometry.block_size, geometry.page_size);
        let value = ValueLayout::new(block_size, page_size, value_size)
            .ok_or(LayoutError::ValueTooLarge { value_size, page_size })?;
        let value_blocks_max = table_capacity(&value, key_size, geometry.filter_bits, geometry.table_blocks);
        if value_blocks_max == 0 {
            return Err(LayoutError::IndexTooSmall { key_size, block_size });
        }
        let value_count_max = u64::from(value_blocks_max) * u64::from(value.value_count_max);
        let filter = FilterLayout::new(block_size, geometry.filter_bits, value_count_max);
        Ok(Self { value, key_size, value_blocks_max, value_count_max, filter })
    }

    /// Blocks that a fresh [`TableWriter`](crate::TableWriter) needs at most for `values` values and its end: value
    /// blocks, and for each table two copies of its index and its filter.
    #[must_use]
    pub fn blocks_bound(&self, values: u64) -> u64 {
        self.blocks_bound_after(0, 0, values)
    }

    /// As [`TableLayout::blocks_bound`] for a writer that carries `carried_values` in an unfinished block and
    /// `carried_blocks` blocks in an unfinished table.
    pub(crate) fn blocks_bound_after(&self, carried_values: u32, carried_blocks: u32, values: u64) -> u64 {
        let all_values = values.saturating_add(carried_values.into());
        let blocks = all_values.div_ceil(self.value.value_count_max.into());
        let tables = blocks.saturating_add(carried_blocks.into()).div_ceil(self.value_blocks_max.into());
        blocks.saturating_add(tables.saturating_mul(2 + u64::from(self.filter_blocks_max())))
    }

    /// Filter blocks of a full table.
    #[must_use]
    pub fn filter_blocks_max(&self) -> u32 {
        self.filter.map_or(0, |filter| filter.block_count_max())
    }

    /// Filter blocks of a table of so many values.
    #[must_use]
    pub fn filter_blocks(&self, value_count: u64) -> u32 {
        self.filter.map_or(0, |filter| filter.block_count(filter.line_count(value_count)))
    }

    /// Bytes of a full table on disk: its value blocks, both copies of its index, and its filter.
    #[must_use]
    pub fn table_size_max(&self) -> u64 {
        let blocks = u64::from(self.value_blocks_max) + 2 + u64::from(self.filter_blocks_max());
        blocks * u64::from(self.value.block_size)
    }

    /// Bytes of a record.
    pub(crate) const fn value_size(&self) -> u32 {
        self.value.first.value_size
    }

    /// Whether this is the layout of records of type `R`: what typed readers and writers assert once.
    pub fn is_of<R: Record>(&self) -> bool {
        u64::from(self.value_size()) == u64_of(size_of::<R>())
            && u64::from(self.key_size) == u64_of(R::Key::SIZE)
    }
}
