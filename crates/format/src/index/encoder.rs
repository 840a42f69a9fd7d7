//! Writing an index block: value blocks are added as they are sealed, the block is packed at the end.
//!
//! The sections are packed by what is used, which is known only at the end. Until then each section stands where it
//! would if the block were full (`index_capacity`), in the index block's own buffer; `finish` moves them together.
//! So a builder needs no memory but the block.
//!
//! # Invariants
//! - What `finish` writes, `IndexView::new` accepts (asserted there, in full).

use zerocopy::IntoBytes;
use zerocopy::little_endian::U128;

use super::{CHECKSUM_SIZE, ENTRY_SIZE, IndexEntry, IndexMetadata, IndexView, Sections, index_capacity};
use crate::block::{self, HEADER_SIZE, Placement, write_header};
use crate::filter::FilterRef;
use crate::key::KEY_SIZE_MAX;
use crate::refs::BlockRef;
use crate::units::{Checksum, u32_of, usize_of};
use crate::value::ValueLayout;

/// Totals of a table so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TableCounts {
    /// Value blocks.
    pub value_blocks: u32,
    /// Their pages.
    pub pages: u32,
    /// Their values, tombstones included.
    pub values: u64,
    /// Their tombstones.
    pub tombstones: u64,
}

/// Writes the index block of one table. It holds no reference to the block: every call is given it, so that a
/// partial table can be carried over.
///
/// Order of calls: for each value block [`page`](Self::page) once per page, then [`value_block`](Self::value_block);
/// at last [`finish`](Self::finish).
#[derive(Clone, Copy, Debug)]
pub struct IndexEncoder {
    layout: ValueLayout,
    key_size: usize,
    capacity: u32,
    full: Sections,
    counts: TableCounts,
    pages_begun: u32,
}

impl IndexEncoder {
    /// Starts an index for value blocks of `layout` with keys of `key_size` bytes. Nothing is written yet.
    ///
    /// # Panics
    /// If the key is empty or larger than the value.
    #[must_use]
    pub fn new(layout: &ValueLayout, key_size: usize) -> Self {
        assert!((1..=KEY_SIZE_MAX).contains(&key_size), "a key has 1 to 32 bytes");
        assert!(key_size <= usize_of(layout.value_size()), "a key is part of the value");
        let capacity = index_capacity(layout.block_size, layout.page_size, u32_of(key_size));
        let full = Sections::new(usize_of(capacity), usize_of(capacity * layout.page_count), 0, key_size);
        Self { layout: *layout, key_size, capacity, full, counts: TableCounts::default(), pages_begun: 0 }
    }

    /// Value blocks it can name.
    #[must_use]
    pub const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Totals so far.
    #[must_use]
    pub const fn counts(&self) -> TableCounts {
        self.counts
    }

    /// Whether no value block fits any more.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.counts.value_blocks == self.capacity
    }

    /// Adds the next page of the value block that is being made: its greatest key, without padding or with, and its
    /// checksum. The two may come at different times: see [`page_key`](Self::page_key) and
    /// [`page_checksum`](Self::page_checksum).
    ///
    /// # Panics
    /// If the block has no such page.
    pub fn page(&mut self, block: &mut [u8], key_max: &[u8], checksum: Checksum) {
        let page = self.pages_begun - self.counts.pages;
        self.page_key(block, key_max);
        self.page_checksum(block, page, checksum);
    }

    /// Adds the greatest key of the next page of the value block that is being made, as soon as the page is full.
    ///
    /// # Panics
    /// If the block has no such page.
    pub fn page_key(&mut self, block: &mut [u8], key_max: &[u8]) {
        assert!(!self.is_full(), "room for one more value block");
        assert!(self.pages_begun - self.counts.pages < self.layout.page_count, "a page of the block");
        self.put_key(block, self.full.page_key_maxes, self.pages_begun, key_max);
        self.pages_begun += 1;
    }

    /// Sets the checksum of page `page`, from 0, of the value block that is being made, when the block is sealed.
    ///
    /// # Panics
    /// If the block has no such page.
    pub fn page_checksum(&mut self, block: &mut [u8], page: u32, checksum: Checksum) {
        assert!(!self.is_full(), "room for one more value block");
        assert!(page < self.layout.page_count, "a page of the block");
        let start = self.full.page_checksums + usize_of(self.counts.pages + page) * CHECKSUM_SIZE;
        put(block, start, U128::new(checksum.get()).as_bytes());
    }

    /// Adds the value block whose pages were given: its identity, counts and least key.
    ///
    /// # Panics
    /// If its pages are not those of `value_count` values.
    pub fn value_block(
        &mut self,
        block: &mut [u8],
        reference: BlockRef,
        value_count: u32,
        tombstone_count: u32,
        key_min: &[u8],
    ) {
        assert!(!self.is_full(), "room for one more value block");
        assert!(value_count > 0, "no block is empty");
        assert!(tombstone_count <= value_count, "tombstones are values");
        let pages = self.layout.pages_used(value_count);
        assert!(self.pages_begun == self.counts.pages + pages, "a key for each page");
        let entry = IndexEntry {
            address: reference.address.get().into(),
            checksum: reference.checksum.get().into(),
            value_count: value_count.into(),
            tombstone_count: tombstone_count.into(),
            page_start: self.counts.pages.into(),
            flags: 0,
            reserved: [0; 3],
        };
        let index = self.counts.value_blocks;
        put(block, HEADER_SIZE + usize_of(index) * ENTRY_SIZE, entry.as_bytes());
        self.put_key(block, self.full.key_mins, index, key_min);
        self.counts.value_blocks += 1;
        self.counts.pages += pages;
        self.counts.values += u64::from(value_count);
        self.counts.tombstones += u64::from(tombstone_count);
    }

    fn put_key(&self, block: &mut [u8], section: usize, index: u32, key: &[u8]) {
        let key = key.get(..self.key_size).expect("a key of this tree");
        put(block, section + usize_of(index) * self.key_size, key);
    }

    /// Ends the index of a table without a filter: as [`finish_with`](Self::finish_with).
    ///
    /// # Panics
    /// As [`finish_with`](Self::finish_with).
    #[must_use]
    pub fn finish(self, block: &mut [u8], placement: &Placement) -> Checksum {
        self.finish_with(block, placement, 0, &[])
    }

    /// Ends the index of a table whose filter has so many lines, in these blocks: packs the sections, writes header and
    /// metadata, seals. Returns the block's identity. O(block).
    ///
    /// # Panics
    /// If there is no value block, pages were given without one, or `block` is not the block of the calls before. If
    /// there are more value blocks than leave room for the filter ([`table_capacity`](super::table_capacity)), or its
    /// lines do not take these blocks.
    #[must_use]
    pub fn finish_with(
        self,
        block: &mut [u8],
        placement: &Placement,
        filter_line_count: u32,
        filter_blocks: &[BlockRef],
    ) -> Checksum {
        assert!(block.len() == usize_of(self.layout.block_size), "one block");
        assert!(self.counts.value_blocks > 0, "no table is empty");
        assert!(self.pages_begun == self.counts.pages, "every page belongs to a value block");
        let (blocks, pages) = (usize_of(self.counts.value_blocks), usize_of(self.counts.pages));
        let packed = Sections::new(blocks, pages, filter_blocks.len(), self.key_size);
        assert!(packed.end <= block.len(), "room for the sections and the filter's references");
        let full = &self.full;
        block.copy_within(full.key_mins..full.key_mins + blocks * self.key_size, packed.key_mins);
        let maxes = full.page_key_maxes..full.page_key_maxes + pages * self.key_size;
        block.copy_within(maxes, packed.page_key_maxes);
        let checksums = full.page_checksums..full.page_checksums + pages * CHECKSUM_SIZE;
        block.copy_within(checksums, packed.page_checksums);
        for (index, reference) in filter_blocks.iter().enumerate() {
            let wire = FilterRef {
                address: reference.address.get().into(),
                checksum: reference.checksum.get().into(),
            };
            put(block, packed.filter_refs + index * size_of::<FilterRef>(), wire.as_bytes());
        }
        let metadata = IndexMetadata {
            value_count: self.counts.values.into(),
            tombstone_count: self.counts.tombstones.into(),
            value_block_count: self.counts.value_blocks.into(),
            page_count: self.counts.pages.into(),
            value_size: self.layout.value_size().into(),
            page_size: self.layout.page_size.into(),
            key_size: u16::try_from(self.key_size).expect("at most 32").into(),
            filter_block_count: u16::try_from(filter_blocks.len()).expect("at most 2^16").into(),
            filter_line_count: filter_line_count.into(),
            reserved: [0; 88],
        };
        write_header(block, placement, packed.end, &metadata);
        let checksum = block::seal(block);
        let view = IndexView::new(block, self.key_size);
        assert!(view.is_ok(), "what was written can be read: {view:?}");
        checksum
    }
}

fn put(block: &mut [u8], start: usize, bytes: &[u8]) {
    block.get_mut(start..start + bytes.len()).expect("a place in the block").copy_from_slice(bytes);
}
