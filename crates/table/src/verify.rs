//! The check of a whole table: everything that its blocks say against each other and against its info.
//!
//! It works from descriptors alone, so that who has no type (verifier, repair, inspector) can use it too. What it
//! accepts is what a [`TableWriter`](crate::TableWriter) writes:
//!
//! - the index: sections and sums, keys in order, and the counts, key range and tree that the info says;
//! - each value block: identity, tree and counts as its index entry says, values in strict order, bitmap and hash
//!   slots as a rebuild gives them, nothing behind the values;
//! - the filter: the lines that a rebuild from the keys gives, in the blocks that the index says;
//! - each page: the checksum and the greatest key that the index says;
//! - across blocks: the least key of a block is the one that the index says, above the greatest of the block before.
//!
//! # Not here
//! The second copies of index blocks: scrubbing reads each copy for itself. Relations between tables: `manifest`.

use understory_format::error::{exactly, rule};
use understory_format::value::validate;
use understory_format::{
    BlockKind, Corruption, FilterBuilder, FilterView, HEADER_SIZE, IndexEntryHost, IndexView, KeyBytes,
    KeyDescriptor, Place, TableCounts, TableInfo, ValueBlockView, page_checksum, usize_of,
};
use understory_grid::{Block, Grid};

use crate::index::{Index, View};
use crate::{TableError, TableLayout, filter};

/// Checks a whole table, and gives its totals. Reads all its blocks, one at a time; O(table).
///
/// # Errors
/// The first thing that is wrong, with its block and page.
///
/// # Panics
/// If layout and descriptor are not of the same tree.
pub fn verify(
    grid: &Grid,
    layout: &TableLayout,
    key: &KeyDescriptor,
    info: &TableInfo,
) -> Result<TableCounts, TableError> {
    assert!(key.key_size() == usize_of(layout.key_size), "layout and descriptor of one tree");
    let block = grid.read_twin(info.index, BlockKind::Index)?;
    let place = Place::Block(info.index.address);
    let index = IndexView::new(&block, usize_of(layout.key_size)).map_err(|error| error.at(place))?;
    index.validate_order(key).map_err(|error| error.at(place))?;
    let held = Index::read(grid, layout, info)?;
    let view = held.view(layout)?;
    let mut filter = FilterCheck::new(layout);
    for number in 0..view.block_count() {
        let entry = view.entry(number)?;
        let block = grid.read(entry.reference, BlockKind::Value)?;
        let check = BlockCheck { layout, key, info, index: &index, number, entry };
        check.block(&block).map_err(|error| error.at(Place::Block(entry.reference.address)))?;
        filter.add(&block, key)?;
    }
    filter.finish(grid, &view, info)?;
    Ok(TableCounts {
        value_blocks: view.block_count(),
        pages: index.page_count(),
        values: info.value_count,
        tombstones: info.tombstone_count,
    })
}

/// The filter of a table as its keys give it.
struct FilterCheck {
    blocks: Vec<Vec<u8>>,
    builder: Option<FilterBuilder>,
}

impl FilterCheck {
    fn new(layout: &TableLayout) -> Self {
        let block_size = usize_of(layout.value.block_size);
        let mut blocks = vec![vec![0; block_size]; usize_of(layout.filter_blocks_max())];
        let builder = layout.filter.map(|layout| FilterBuilder::new(&layout, &mut blocks));
        Self { blocks, builder }
    }

    fn add(&mut self, block: &Block, key: &KeyDescriptor) -> Result<(), Corruption> {
        let Some(builder) = &mut self.builder else { return Ok(()) };
        let view = ValueBlockView::new(block)?;
        for page in 0..view.page_count() {
            let page = view.page_unchecked(page);
            for index in 0..usize_of(page.count()) {
                builder.add(&mut self.blocks, key.hash(key.extract(page.value(index)).get()));
            }
        }
        Ok(())
    }

    /// Compares with what is on disk.
    fn finish(mut self, grid: &Grid, view: &View<'_>, info: &TableInfo) -> Result<(), TableError> {
        let Some(mut builder) = self.builder else { return Ok(()) };
        let count = usize_of(builder.fold(&mut self.blocks));
        let line_count = builder.line_count();
        for ((number, reference), expected) in
            (0..).zip(view.filter_blocks()).zip(self.blocks.iter().take(count))
        {
            let reference = reference?;
            let block = grid.read(reference, BlockKind::Filter)?;
            filter::check(&block, info, number, line_count)?;
            let lines = FilterView::new(&block)?.lines();
            let same = expected.get(HEADER_SIZE..).is_some_and(|expected| expected.starts_with(lines));
            rule("filter", "the lines that the keys of the table have", same, number)
                .map_err(|error| error.at(Place::Block(reference.address)))?;
        }
        Ok(())
    }
}

/// One value block of a table, beside what the table's index says of it.
struct BlockCheck<'a> {
    layout: &'a TableLayout,
    key: &'a KeyDescriptor,
    info: &'a TableInfo,
    index: &'a IndexView<'a>,
    number: u32,
    entry: IndexEntryHost,
}

impl BlockCheck<'_> {
    fn block(&self, block: &Block) -> Result<(), Corruption> {
        validate(block, &self.layout.value, self.key)?;
        let view = ValueBlockView::new(block)?;
        exactly("tree_id", self.info.tree.get(), view.header().tree_id.get())?;
        exactly("value_count", self.entry.value_count, view.value_count())?;
        exactly("tombstone_count", self.entry.tombstone_count, view.tombstone_count())?;
        let key_min = KeyBytes::padded(self.index.key_min_bytes(self.number));
        rule("key_min", "the least key that the index says", view.key_min() == key_min, 0_u8)?;
        (0..view.page_count()).try_for_each(|page| {
            self.page(&view, page).map_err(|error| error.at(Place::Page(self.entry.reference.address, page)))
        })
    }

    fn page(&self, view: &ValueBlockView<'_>, page: u32) -> Result<(), Corruption> {
        let in_table = self.entry.page_start + page;
        let checksum = page_checksum(view.page_bytes(page));
        exactly("page_checksum", self.index.page_checksum(in_table).get(), checksum.get())?;
        let values = view.page_unchecked(page);
        let last = usize_of(values.count()).checked_sub(1).expect("pages that are used have values");
        let key_max = self.key.extract(values.value(last));
        let expected = KeyBytes::padded(self.index.page_key_max_bytes(in_table));
        rule("page key_max", "the greatest key that the index says", key_max == expected, 0_u8)
    }
}

#[cfg(test)]
mod tests;
