//! Value blocks: sorted fixed-size records in pages that carry their own tombstone bitmap and hash slots.
//!
//! A value block knows its tree and the range of its keys, but no table and no level: a block that overlaps nothing
//! moves to another table by reference, unread.
//!
//! Three ways to use this module: [`ValueBlockBuilder`] writes a block in place; [`ValueBlockView`] finds pages and
//! values in one that was read and verified; [`validate`] checks one from first to last byte with no type but the
//! key's descriptor.
//!
//! # Invariants
//! - Keys ascend strictly, header counts and key range are those of the values, slots and bitmap are those a rebuild
//!   gives (all: `validate`).
//!
//! # Not here
//! What a tombstone means and when it goes: `compaction`. Search by type: `table`.

use xxhash_rust::xxh3::Xxh3;
use zerocopy::little_endian::U32;

use crate::block::{self, BlockHeader, BlockKind, HEADER_SIZE, Metadata, Placement, write_header};
use crate::error::{Corruption, Place, at_least, at_most, exactly, rule};
use crate::key::{KeyBytes, KeyDescriptor};
use crate::layout::layout;
use crate::units::{Checksum, u32_of, u64_of, usize_of};

mod layout_of_pages;
mod page;

pub use layout_of_pages::{PageLayout, ValueLayout};
pub use page::{PageBuilder, PageView, Probe, page_checksum, partition_point};

layout! {
    /// Metadata of a value block.
    pub struct ValueMetadata: 128 = "value-metadata" {
        /// Values in the block, tombstones included; at least 1.
        0: value_count: U32,
        /// How many of them are tombstones.
        4: tombstone_count: U32,
        /// Bytes of a value.
        8: value_size: U32,
        /// Bytes of a page; the first has 256 fewer, as it follows the header.
        12: page_size: U32,
        /// Key of the first value, zero padded.
        16: key_min: [u8; 32],
        /// Key of the last value, zero padded.
        48: key_max: [u8; 32],
        /// Zero.
        80: reserved: [u8; 48],
    }
}

impl Metadata for ValueMetadata {
    const KIND: BlockKind = BlockKind::Value;
}

impl ValueMetadata {
    /// The layout of the block, whose length is `block_size`; counts and size checked against it.
    fn check(&self, block_size: usize, size: u32) -> Result<ValueLayout, Corruption> {
        at_most("length", 1_u32 << 20, u64_of(block_size))?;
        let layout = ValueLayout::new(u32_of(block_size), self.page_size.get(), self.value_size.get());
        let Some(layout) = layout else {
            let expected = crate::error::Expected::Rule("sizes that give a layout, with `page_size`");
            return Err(Corruption::new("value_size", expected, self.value_size.get().into()));
        };
        at_least("value_count", 1_u8, self.value_count.get())?;
        at_most("value_count", layout.value_count_max, self.value_count.get())?;
        at_most("tombstone_count", self.value_count.get(), self.tombstone_count.get())?;
        exactly("size", u64_of(layout.block_bytes(self.value_count.get())), size)?;
        Self::LAYOUT.check_reserved(zerocopy::IntoBytes::as_bytes(self))?;
        Ok(layout)
    }
}

/// Checksum of a value block's body: that of the concatenated checksums of its pages, each of which is handed out.
pub(crate) fn checksum_body(
    block: &[u8],
    mut on_page: impl FnMut(u32, Checksum),
) -> Result<Checksum, Corruption> {
    let view = ValueBlockView::new(block)?;
    let mut hasher = Xxh3::new();
    for page in 0..view.page_count() {
        let checksum = page_checksum(view.page_bytes(page));
        hasher.update(&checksum.get().to_le_bytes());
        on_page(page, checksum);
    }
    Ok(Checksum::new(hasher.digest128()))
}

/// As [`seal`](crate::seal) for a value block, handing out the checksum of each page on the way, for the index.
///
/// # Panics
/// If the block is no value block with a header and counts that fit.
pub fn seal(block: &mut [u8], on_page: impl FnMut(u32, Checksum)) -> Checksum {
    let body = checksum_body(block, on_page).expect("the builder wrote counts that fit the block");
    block::seal_header(block, body)
}

/// A value block: its header's counts and its pages. The header is checked, the pages are not looked at.
#[derive(Clone, Copy, Debug)]
pub struct ValueBlockView<'a> {
    block: &'a [u8],
    header: &'a BlockHeader,
    metadata: &'a ValueMetadata,
    layout: ValueLayout,
}

impl<'a> ValueBlockView<'a> {
    /// The value block in `block`. O(1).
    ///
    /// # Errors
    /// The first field of the header that no value block has.
    pub fn new(block: &'a [u8]) -> Result<Self, Corruption> {
        let (header, metadata, _) = block::open::<ValueMetadata>(block)?;
        let layout = metadata.check(block.len(), header.size.get())?;
        Ok(Self { block, header, metadata, layout })
    }

    /// The header.
    #[must_use]
    pub const fn header(&self) -> &'a BlockHeader {
        self.header
    }

    /// The layout of its pages.
    #[must_use]
    pub const fn layout(&self) -> &ValueLayout {
        &self.layout
    }

    /// Values, tombstones included; at least 1.
    #[must_use]
    pub fn value_count(&self) -> u32 {
        self.metadata.value_count.get()
    }

    /// How many of them are tombstones.
    #[must_use]
    pub fn tombstone_count(&self) -> u32 {
        self.metadata.tombstone_count.get()
    }

    /// The least key.
    #[must_use]
    pub fn key_min(&self) -> KeyBytes {
        KeyBytes(self.metadata.key_min)
    }

    /// The greatest key.
    #[must_use]
    pub fn key_max(&self) -> KeyBytes {
        KeyBytes(self.metadata.key_max)
    }

    /// Pages that are used; at least 1.
    #[must_use]
    pub fn page_count(&self) -> u32 {
        self.layout.pages_used(self.value_count())
    }

    /// The bytes of page `page`; of page 0 without the header.
    ///
    /// # Panics
    /// If the block has no such page.
    #[must_use]
    pub fn page_bytes(&self, page: u32) -> &'a [u8] {
        self.block.get(self.layout.page_bytes(page)).expect("a page of the block")
    }

    /// Page `page`, checked in itself. O(page).
    ///
    /// # Errors
    /// The first thing in it that no page has.
    ///
    /// # Panics
    /// If the block has no such page.
    pub fn page(&self, page: u32) -> Result<PageView<'a>, Corruption> {
        let count = self.layout.page_value_count(self.value_count(), page);
        PageView::new(self.page_bytes(page), self.layout.page(page), count)
    }

    /// Page `page`, not looked into: for blocks whose pages were checked before. O(1).
    ///
    /// # Panics
    /// If the block has no such page.
    #[must_use]
    #[inline]
    pub fn page_unchecked(&self, page: u32) -> PageView<'a> {
        let count = self.layout.page_value_count(self.value_count(), page);
        PageView::unchecked(self.page_bytes(page), self.layout.page(page), count)
            .expect("the layout's own sizes")
    }
}

/// Writes a value block in place, value by value, in ascending order of keys. It holds no reference to the block:
/// every call is given it, so that a partial block can be carried over.
#[derive(Clone, Copy, Debug)]
pub struct ValueBlockBuilder {
    layout: ValueLayout,
    page: PageBuilder,
    page_index: u32,
    page_start: usize,
    page_end: usize,
    value_count: u32,
    tombstone_count: u32,
}

impl ValueBlockBuilder {
    /// Starts a block.
    ///
    /// # Panics
    /// If `block` is not as long as the layout's.
    #[must_use]
    pub fn new(block: &mut [u8], layout: &ValueLayout) -> Self {
        assert!(block.len() == usize_of(layout.block_size), "one block");
        let range = layout.page_bytes(0);
        let (page_start, page_end) = (range.start, range.end);
        let bytes = block.get_mut(range).expect("a block has a page");
        let page = PageBuilder::new(bytes, &layout.first);
        Self {
            layout: *layout,
            page,
            page_index: 0,
            page_start,
            page_end,
            value_count: 0,
            tombstone_count: 0,
        }
    }

    /// Values so far.
    #[must_use]
    #[inline]
    pub const fn value_count(&self) -> u32 {
        self.value_count
    }

    /// Tombstones so far.
    #[must_use]
    #[inline]
    pub const fn tombstone_count(&self) -> u32 {
        self.tombstone_count
    }

    /// Whether no value fits any more.
    #[must_use]
    #[inline]
    pub const fn is_full(&self) -> bool {
        self.value_count == self.layout.value_count_max
    }

    /// Pages begun.
    #[must_use]
    #[inline]
    pub const fn page_count(&self) -> u32 {
        self.layout.pages_used(self.value_count)
    }

    /// Appends a value, whose key is greater than those before and hashes to `hash`. Returns whether it is the last
    /// of its page: its key is then the page's greatest.
    ///
    /// # Panics
    /// If the block is full, or block or value have another size than the layout's.
    #[inline]
    #[expect(
        clippy::indexing_slicing,
        reason = "per value; the block has the layout's size, asserted per page"
    )]
    pub fn push(&mut self, block: &mut [u8], value: &[u8], tombstone: bool, hash: u64) -> bool {
        if self.page.is_full() {
            self.next_page(block);
        }
        self.page.push(&mut block[self.page_start..self.page_end], value, tombstone, hash);
        self.value_count += 1;
        self.tombstone_count += u32::from(tombstone);
        self.page.is_full()
    }

    #[cold]
    fn next_page(&mut self, block: &mut [u8]) {
        assert!(block.len() == usize_of(self.layout.block_size), "the block it was started with");
        assert!(self.value_count < self.layout.value_count_max, "room for one more");
        self.finish_page(block);
        self.page_index += 1;
        let range = self.layout.page_bytes(self.page_index);
        (self.page_start, self.page_end) = (range.start, range.end);
        let bytes = block.get_mut(range).expect("a page of the block");
        self.page = PageBuilder::new(bytes, self.layout.page(self.page_index));
    }

    fn finish_page(&mut self, block: &mut [u8]) {
        let bytes = block.get_mut(self.page_start..self.page_end).expect("a page of the block");
        self.page.finish(bytes);
    }

    /// Ends the block: writes header and metadata and seals it, handing out the checksum of each page. Returns the
    /// block's identity. O(block).
    ///
    /// # Panics
    /// If there are no values, or the placement is not one of a value block.
    pub fn finish(
        mut self,
        block: &mut [u8],
        placement: &Placement,
        key_min: KeyBytes,
        key_max: KeyBytes,
        on_page: impl FnMut(u32, Checksum),
    ) -> Checksum {
        assert!(self.value_count > 0, "no block is empty");
        self.finish_page(block);
        let metadata = ValueMetadata {
            value_count: self.value_count.into(),
            tombstone_count: self.tombstone_count.into(),
            value_size: self.layout.value_size().into(),
            page_size: self.layout.page_size.into(),
            key_min: key_min.0,
            key_max: key_max.0,
            reserved: [0; 48],
        };
        write_header(block, placement, self.layout.block_bytes(self.value_count), &metadata);
        seal(block, on_page)
    }
}

/// Checks a whole value block that was verified: layout, order of the keys, counts, key range, and that bitmap and
/// slots are what its values give. For verifier, inspector and tests. O(block).
///
/// # Errors
/// The first thing that no builder writes, with the page where it is known.
pub fn validate(block: &[u8], layout: &ValueLayout, key: &KeyDescriptor) -> Result<(), Corruption> {
    let view = ValueBlockView::new(block)?;
    exactly("page_size", layout.page_size, view.layout.page_size)?;
    exactly("value_size", layout.value_size(), view.layout.value_size())?;
    exactly("length", layout.block_size, view.layout.block_size)?;
    let described = key
        .fields()
        .iter()
        .all(|field| u32::from(field.offset) + u32::from(field.size) <= layout.value_size());
    rule("value_size", "a record that holds its key", described, layout.value_size())?;
    let address = view.header.address()?;
    let mut last: Option<KeyBytes> = None;
    let mut tombstone_count = 0;
    for index in 0..view.page_count() {
        let page = view
            .page(index)
            .and_then(|page| validate_page(&page, key, &mut last).map(|()| page))
            .map_err(|error| error.at(Place::Page(address, index)))?;
        tombstone_count += page.tombstone_count();
    }
    exactly("tombstone_count", tombstone_count, view.tombstone_count())?;
    let first = view.page_unchecked(0);
    rule("key_min", "the first key", key.extract(first.value(0)) == view.key_min(), 0_u8)?;
    rule("key_max", "the last key", last == Some(view.key_max()), 0_u8)
}

fn validate_page(
    page: &PageView<'_>,
    key: &KeyDescriptor,
    last: &mut Option<KeyBytes>,
) -> Result<(), Corruption> {
    let size = key.key_size();
    for index in 0..usize_of(page.count()) {
        let found = key.extract(page.value(index));
        if let Some(before) = last.as_ref() {
            let ascends = key.compare(before.key(size), found.key(size)).is_lt();
            rule("key", "keys that ascend strictly", ascends, u64_of(index))?;
        }
        if page.is_tombstone(index) {
            rule("tombstone", "a key and zeros", is_bare(page.value(index), key), u64_of(index))?;
        }
        *last = Some(found);
    }
    let hashes = (0..usize_of(page.count())).map(|index| key.hash(key.extract(page.value(index)).key(size)));
    page.validate_slots(hashes)
}

/// Whether all bytes of a record but those of its key are zero.
fn is_bare(record: &[u8], key: &KeyDescriptor) -> bool {
    let in_key = |at: usize| {
        key.fields().iter().any(|field| {
            let start = usize::from(field.offset);
            (start..start + usize::from(field.size)).contains(&at)
        })
    };
    record.iter().enumerate().all(|(at, &byte)| byte == 0 || in_key(at))
}

const _: () = assert!(HEADER_SIZE == size_of::<BlockHeader>());

#[cfg(test)]
mod tests;
