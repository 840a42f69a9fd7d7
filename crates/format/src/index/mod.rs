//! The index block of a table: its value blocks, their keys and pages, in exactly one block.
//!
//! ```text
//! | header | entry of each value block | key_min of each value block | key_max of each page | checksum of each page
//!          | reference to each filter block |
//! ```
//! packed tightly by what is used. A point lookup is one binary search over the greatest keys of the pages, which
//! gives the page, its checksum and its block; a page read alone is verified against that checksum. The least keys
//! of the blocks tell where nothing can be. A table's [filter](crate::filter) is in blocks of a kind of
//! their own, which the last section refers to; where the geometry says no filters, there are none.
//!
//! # Invariants
//! - `size` is the end of the last section; page starts, page counts and totals are those of the entries
//!   (`IndexView::new`).
//! - Keys are in order: `key_min` of a block is greater than the greatest of the block before and at most the
//!   greatest of its first page (`IndexView::validate_order`).
//!
//! # Not here
//! Search by type: the caller compares the bytes given here, or uses `IndexView::page_of`.

use zerocopy::little_endian::{U16, U32, U64, U128};

use crate::block::{BlockKind, HEADER_SIZE, Metadata};
use crate::filter::{FilterLayout, FilterRef};
use crate::layout::layout;
use crate::refs::BlockRef;
use crate::units::{u32_of, usize_of};
use crate::value::ValueLayout;

mod encoder;
mod view;

pub use encoder::{IndexEncoder, TableCounts};
pub use view::IndexView;

layout! {
    /// Metadata of an index block.
    pub struct IndexMetadata: 128 = "index-metadata" {
        /// Values of the table, tombstones included; the sum of the entries'.
        0: value_count: U64,
        /// Tombstones of the table; the sum of the entries'.
        8: tombstone_count: U64,
        /// Value blocks of the table; at least 1.
        16: value_block_count: U32,
        /// Pages of all value blocks.
        20: page_count: U32,
        /// Bytes of a value.
        24: value_size: U32,
        /// Bytes of a page.
        28: page_size: U32,
        /// Bytes of a key, 1 to 32.
        32: key_size: U16,
        /// Filter blocks of the table: what the lines take; 0 for no filter.
        34: filter_block_count: U16,
        /// Lines of the table's filter; 0 for no filter.
        36: filter_line_count: U32,
        /// Zero.
        40: reserved: [u8; 88],
    }
}

impl Metadata for IndexMetadata {
    const KIND: BlockKind = BlockKind::Index;
}

layout! {
    /// One value block in an index block.
    pub struct IndexEntry: 40 = "index-entry" {
        /// Address of the value block, from 1.
        0: address: U64,
        /// Header checksum of the value block.
        8: checksum: U128,
        /// Values in it, tombstones included; at least 1.
        24: value_count: U32,
        /// How many of them are tombstones.
        28: tombstone_count: U32,
        /// Number of its first page among all pages of the table.
        32: page_start: U32,
        /// Bit 0: the block is lost, nothing is to be read from it. Other bits zero.
        36: flags: u8,
        /// Zero.
        37: reserved: [u8; 3],
    }
}

/// Flag of an entry whose block is lost. Reserved: nothing of this version sets it.
pub const FLAG_LOST: u8 = 1;

const CHECKSUM_SIZE: usize = size_of::<U128>();
const ENTRY_SIZE: usize = size_of::<IndexEntry>();

/// Value blocks that an index block can name: each costs its entry, its least key, and for every page the greatest
/// key and the checksum.
#[must_use]
pub const fn index_capacity(block_size: u32, page_size: u32, key_size: u32) -> u32 {
    let pages_per_block = block_size / page_size;
    let per_page = key_size + u32_of(CHECKSUM_SIZE);
    let per_block = u32_of(ENTRY_SIZE) + key_size + pages_per_block * per_page;
    (block_size - u32_of(HEADER_SIZE)) / per_block
}

/// Value blocks of a table whose index names them and the blocks of its filter, if there is one: as
/// [`index_capacity`], with room for a reference to each filter block.
#[must_use]
pub fn table_capacity(layout: &ValueLayout, key_size: u32, filter_bits: u8, table_blocks: u32) -> u32 {
    let without = index_capacity(layout.block_size, layout.page_size, key_size);
    let fits = |blocks: &u32| {
        let values = u64::from(*blocks) * u64::from(layout.value_count_max);
        let filter = FilterLayout::new(layout.block_size, filter_bits, values);
        let references = usize_of(filter.map_or(0, |filter| filter.block_count_max()));
        let pages = usize_of(blocks * layout.page_count);
        let sections = Sections::new(usize_of(*blocks), pages, references, usize_of(key_size));
        sections.end <= usize_of(layout.block_size) && references <= usize::from(u16::MAX)
    };
    (1..=without.min(table_blocks)).rev().find(fits).unwrap_or(0)
}

/// Where the sections of an index block are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sections {
    key_mins: usize,
    page_key_maxes: usize,
    page_checksums: usize,
    filter_refs: usize,
    end: usize,
}

impl Sections {
    /// `blocks` and `pages` are at most 2^20, `filters` 2^16: checked by the callers before.
    const fn new(blocks: usize, pages: usize, filters: usize, key_size: usize) -> Self {
        let key_mins = HEADER_SIZE + blocks * ENTRY_SIZE;
        let page_key_maxes = key_mins + blocks * key_size;
        let page_checksums = page_key_maxes + pages * key_size;
        let filter_refs = page_checksums + pages * CHECKSUM_SIZE;
        let end = filter_refs + filters * size_of::<FilterRef>();
        Self { key_mins, page_key_maxes, page_checksums, filter_refs, end }
    }
}

/// An entry of an index block, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntryHost {
    /// The value block.
    pub reference: BlockRef,
    /// Values in it, tombstones included.
    pub value_count: u32,
    /// How many of them are tombstones.
    pub tombstone_count: u32,
    /// Number of its first page among all pages of the table.
    pub page_start: u32,
    /// Its pages.
    pub page_count: u32,
    /// Whether the block is lost.
    pub is_lost: bool,
}

#[cfg(test)]
mod tests;
