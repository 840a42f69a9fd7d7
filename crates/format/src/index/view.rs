//! Reading an index block: its entries, keys and page checksums, and the search for a key's page.
//!
//! # Invariants
//! - A view made by [`IndexView::new`] has entries whose pages and totals add up; one made by
//!   [`IndexView::unchecked`] has sections inside the block and nothing more.

use core::cmp::Ordering;
use core::ops::Range;

use zerocopy::little_endian::U128;
use zerocopy::{FromBytes, IntoBytes};

use super::{FLAG_LOST, IndexEntry, IndexEntryHost, IndexMetadata, Sections};
use crate::block::{self, BlockHeader, BlockKind, HEADER_SIZE};
use crate::error::{Corruption, Expected, at_least, at_most, exactly, rule};
use crate::filter::{FilterRef, lines_per_block};
use crate::key::{KEY_SIZE_MAX, Key, KeyBytes, KeyDescriptor};
use crate::refs::BlockRef;
use crate::units::{BlockAddress, Checksum, u32_of, u64_of, usize_of};
use crate::value::ValueLayout;

/// An index block that was read and verified.
#[derive(Clone, Copy, Debug)]
pub struct IndexView<'a> {
    header: &'a BlockHeader,
    metadata: &'a IndexMetadata,
    entries: &'a [IndexEntry],
    key_mins: &'a [u8],
    page_key_maxes: &'a [u8],
    page_checksums: &'a [U128],
    filter_refs: &'a [FilterRef],
    key_size: usize,
    block_size: usize,
}

impl<'a> IndexView<'a> {
    /// The index block in `block` of a tree whose keys have `key_size` bytes, checked: sections, entries, page starts,
    /// totals. O(value blocks).
    ///
    /// # Errors
    /// The first field that no index block has.
    pub fn new(block: &'a [u8], key_size: usize) -> Result<Self, Corruption> {
        let view = Self::unchecked(block, key_size)?;
        view.validate(block.len())?;
        Ok(view)
    }

    /// The index block in `block`, without a look at its entries: for point lookups in blocks that were verified. No
    /// accessor panics on account of the bytes but [`IndexView::entry`] and [`IndexView::entries`]; use
    /// [`IndexView::checked_entry`]. O(1).
    ///
    /// # Errors
    /// If it is no index block or the sections do not fit it.
    pub fn unchecked(block: &'a [u8], key_size: usize) -> Result<Self, Corruption> {
        let header = block::header_raw(block)?;
        exactly("kind", BlockKind::Index.tag(), header.kind)?;
        let metadata: &IndexMetadata = header.metadata();
        at_most("length", 1_u32 << 20, u64_of(block.len()))?;
        at_least("key_size", 1_u8, metadata.key_size.get())?;
        at_most("key_size", u64_of(KEY_SIZE_MAX), metadata.key_size.get())?;
        exactly("key_size", u64_of(key_size), metadata.key_size.get())?;
        let most = u64_of(block.len());
        at_least("value_block_count", 1_u8, metadata.value_block_count.get())?;
        at_most("value_block_count", most, metadata.value_block_count.get())?;
        at_least("page_count", metadata.value_block_count.get(), metadata.page_count.get())?;
        at_most("page_count", most, metadata.page_count.get())?;
        let lines = metadata.filter_line_count.get();
        let filters = lines.div_ceil(lines_per_block(u32_of(block.len())));
        exactly("filter_block_count", filters, metadata.filter_block_count.get())?;
        let blocks = usize_of(metadata.value_block_count.get());
        let pages = usize_of(metadata.page_count.get());
        let sections = Sections::new(blocks, pages, usize_of(filters), key_size);
        exactly("size", u64_of(sections.end), header.size.get())?;
        let short = || Corruption::new("size", Expected::AtMost(u64_of(block.len()).into()), 0);
        let section = |range: Range<usize>| block.get(range).ok_or_else(short);
        let entries = section(HEADER_SIZE..sections.key_mins)?;
        let checksums = section(sections.page_checksums..sections.filter_refs)?;
        let filter_refs = section(sections.filter_refs..sections.end)?;
        Ok(Self {
            header,
            metadata,
            entries: <[IndexEntry]>::ref_from_bytes(entries).map_err(|_| short())?,
            key_mins: section(sections.key_mins..sections.page_key_maxes)?,
            page_key_maxes: section(sections.page_key_maxes..sections.page_checksums)?,
            page_checksums: <[U128]>::ref_from_bytes(checksums).map_err(|_| short())?,
            filter_refs: <[FilterRef]>::ref_from_bytes(filter_refs).map_err(|_| short())?,
            key_size,
            block_size: block.len(),
        })
    }

    fn validate(&self, block_size: usize) -> Result<(), Corruption> {
        self.header.check(block_size)?;
        IndexMetadata::LAYOUT.check_reserved(self.metadata.as_bytes())?;
        let sizes = (self.metadata.page_size.get(), self.metadata.value_size.get());
        let Some(layout) = ValueLayout::new(u32_of(block_size), sizes.0, sizes.1) else {
            let expected = Expected::Rule("sizes that give a layout, with `page_size`");
            return Err(Corruption::new("value_size", expected, sizes.1.into()));
        };
        at_least("value_size", u64_of(self.key_size), sizes.1)?;
        let (mut pages, mut values, mut tombstones) = (0, 0, 0);
        for entry in self.entries {
            IndexEntry::LAYOUT.check_reserved(entry.as_bytes())?;
            check_entry(entry, &layout)?;
            exactly("page_start", pages, entry.page_start.get())?;
            pages += layout.pages_used(entry.value_count.get());
            values += u64::from(entry.value_count.get());
            tombstones += u64::from(entry.tombstone_count.get());
        }
        self.filter_blocks().try_for_each(|block| block.map(|_| ()))?;
        exactly("page_count", pages, self.metadata.page_count.get())?;
        exactly("value_count", values, self.metadata.value_count.get())?;
        exactly("tombstone_count", tombstones, self.metadata.tombstone_count.get())
    }

    /// Checks that all keys are in order. O(pages).
    ///
    /// # Errors
    /// The first key that is not.
    ///
    /// # Panics
    /// If `key` has another size than the index was opened with.
    pub fn validate_order(&self, key: &KeyDescriptor) -> Result<(), Corruption> {
        assert!(key.key_size() == self.key_size, "the descriptor of this tree's key");
        let mut before: Option<&[u8]> = None;
        for (index, entry) in (0..).zip(self.entries) {
            let key_min = self.key_min_bytes(index);
            let ascends = before.is_none_or(|before| key.compare(before, key_min).is_lt());
            rule("key_min", "a key greater than the block before", ascends, index)?;
            let mut least = Some(key_min);
            for page in entry.page_start.get()..self.page_end(index) {
                let key_max = self.page_key_max_bytes(page);
                let in_order = match (least.take(), before) {
                    (Some(key_min), _) => key.compare(key_min, key_max).is_le(),
                    (None, Some(before)) => key.compare(before, key_max).is_lt(),
                    (None, None) => true,
                };
                rule("page key_max", "a key greater than the page before", in_order, page)?;
                before = Some(key_max);
            }
        }
        Ok(())
    }

    /// The header.
    #[must_use]
    pub const fn header(&self) -> &'a BlockHeader {
        self.header
    }

    /// Value blocks of the table; at least 1.
    #[must_use]
    #[inline]
    pub fn value_block_count(&self) -> u32 {
        self.metadata.value_block_count.get()
    }

    /// Pages of the table.
    #[must_use]
    #[inline]
    pub fn page_count(&self) -> u32 {
        self.metadata.page_count.get()
    }

    /// Values of the table, tombstones included.
    #[must_use]
    pub fn value_count(&self) -> u64 {
        self.metadata.value_count.get()
    }

    /// Tombstones of the table.
    #[must_use]
    pub fn tombstone_count(&self) -> u64 {
        self.metadata.tombstone_count.get()
    }

    /// Bytes of a value.
    #[must_use]
    pub fn value_size(&self) -> u32 {
        self.metadata.value_size.get()
    }

    /// Bytes of a page.
    #[must_use]
    pub fn page_size(&self) -> u32 {
        self.metadata.page_size.get()
    }

    /// Lines of the table's filter; 0 if it has none.
    #[must_use]
    pub fn filter_line_count(&self) -> u32 {
        self.metadata.filter_line_count.get()
    }

    /// The blocks of the table's filter, in the order of its lines.
    ///
    /// # Errors
    /// Each by itself, if it has no address: only in a view made by [`IndexView::unchecked`].
    pub fn filter_blocks(&self) -> impl ExactSizeIterator<Item = Result<BlockRef, Corruption>> + use<'a> {
        self.filter_refs.iter().map(|wire| {
            let address = BlockAddress::new(wire.address.get());
            let address =
                address.ok_or_else(|| Corruption::new("filter address", Expected::AtLeast(1), 0))?;
            Ok(BlockRef { address, checksum: Checksum::new(wire.checksum.get()) })
        })
    }

    /// Value block `index` of the table, from 0, checked on its own: for views made by [`IndexView::unchecked`]. Its
    /// pages are pages of the table and those that its values take in `layout`. O(1).
    ///
    /// # Errors
    /// The first field that no entry has.
    ///
    /// # Panics
    /// If there is no such block.
    #[inline]
    pub fn checked_entry(&self, index: u32, layout: &ValueLayout) -> Result<IndexEntryHost, Corruption> {
        let entry = self.wire_entry(index);
        check_entry(entry, layout)?;
        let pages = layout.pages_used(entry.value_count.get());
        let end = u64::from(entry.page_start.get()) + u64::from(pages);
        exactly("page_start", u64::from(self.page_end(index)), end)?;
        at_most("page_start", self.page_count(), end)?;
        Ok(self.entry(index))
    }

    /// Value block `index` of the table, from 0.
    ///
    /// # Panics
    /// If there is none, or the view was made by [`IndexView::unchecked`] and the entry has no address.
    #[must_use]
    #[inline]
    pub fn entry(&self, index: u32) -> IndexEntryHost {
        let entry = self.wire_entry(index);
        let address = BlockAddress::new(entry.address.get()).expect("checked when the index was read");
        let page_start = entry.page_start.get();
        IndexEntryHost {
            reference: BlockRef { address, checksum: Checksum::new(entry.checksum.get()) },
            value_count: entry.value_count.get(),
            tombstone_count: entry.tombstone_count.get(),
            page_start,
            page_count: self.page_end(index).saturating_sub(page_start),
            is_lost: entry.flags & FLAG_LOST != 0,
        }
    }

    /// All entries in order.
    ///
    /// # Panics
    /// If the view was made by [`IndexView::unchecked`] and an entry has no address.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = IndexEntryHost> + ExactSizeIterator + '_ {
        (0..usize_of(self.value_block_count())).map(|index| self.entry(u32_of(index)))
    }

    #[inline]
    fn wire_entry(&self, index: u32) -> &'a IndexEntry {
        self.entries.get(usize_of(index)).expect("a value block of the table")
    }

    #[inline]
    fn page_end(&self, index: u32) -> u32 {
        match self.entries.get(usize_of(index) + 1) {
            Some(next) => next.page_start.get(),
            None => self.page_count(),
        }
    }

    /// The least key of value block `index`, without padding.
    ///
    /// # Panics
    /// If there is no such block.
    #[must_use]
    #[inline]
    pub fn key_min_bytes(&self, index: u32) -> &'a [u8] {
        self.key_at(self.key_mins, index)
    }

    /// The greatest key of value block `index`, without padding: that of its last page.
    ///
    /// # Panics
    /// If there is no such block.
    #[must_use]
    #[inline]
    pub fn key_max_bytes(&self, index: u32) -> &'a [u8] {
        self.page_key_max_bytes(self.page_end(index).min(self.page_count()).saturating_sub(1))
    }

    /// The greatest key of page `page`, without padding.
    ///
    /// # Panics
    /// If there is no such page.
    #[must_use]
    #[inline]
    pub fn page_key_max_bytes(&self, page: u32) -> &'a [u8] {
        self.key_at(self.page_key_maxes, page)
    }

    #[inline]
    fn key_at(&self, keys: &'a [u8], index: u32) -> &'a [u8] {
        let start = usize_of(index) * self.key_size;
        keys.get(start..start + self.key_size).expect("a block or page of the table")
    }

    /// The least key of the table, zero padded.
    #[must_use]
    pub fn key_min(&self) -> KeyBytes {
        KeyBytes::padded(self.key_min_bytes(0))
    }

    /// The greatest key of the table, zero padded.
    #[must_use]
    pub fn key_max(&self) -> KeyBytes {
        KeyBytes::padded(self.page_key_max_bytes(self.page_count() - 1))
    }

    /// The checksum of page `page`.
    ///
    /// # Panics
    /// If there is no such page.
    #[must_use]
    #[inline]
    pub fn page_checksum(&self, page: u32) -> Checksum {
        let checksum = self.page_checksums.get(usize_of(page)).expect("a page of the table");
        Checksum::new(checksum.get())
    }

    /// The value block that page `page` is in. O(1) in a table of full blocks, O(log value blocks) else.
    ///
    /// # Panics
    /// If there is no such page.
    #[must_use]
    #[inline]
    pub fn block_of_page(&self, page: u32) -> u32 {
        assert!(page < self.page_count(), "a page of the table");
        // No block has more pages than a full one: the page's block is this one or a later one.
        let full = (self.block_size / usize_of(self.page_size()).max(1)).max(1);
        let mut low = (usize_of(page) / full).min(self.entries.len() - 1);
        let starts_behind =
            |index: usize| self.entries.get(index).is_none_or(|entry| entry.page_start.get() > page);
        if starts_behind(low) {
            low = 0;
        }
        let mut step = 1;
        while !starts_behind(low + step) {
            low += step;
            step *= 2;
        }
        let mut high = low + step;
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            if starts_behind(middle) { high = middle } else { low = middle }
        }
        u32_of(low)
    }

    /// The only page that can hold `key`: the first whose greatest key is not less; `None` if `key` is greater than
    /// all. Whether it is in a gap before the page's block, [`IndexView::key_min_bytes`] tells. O(log pages).
    ///
    /// # Panics
    /// If keys of this type have another size than the index was opened with.
    #[must_use]
    #[inline]
    pub fn page_of<K: Key>(&self, key: K) -> Option<u32> {
        assert!(K::SIZE == self.key_size, "the type of this tree's key");
        let (mut low, mut high) = (0, self.page_count());
        while low < high {
            let middle = low + (high - low) / 2;
            let is_before = K::decode(self.page_key_max_bytes(middle)) < key;
            if is_before { low = middle + 1 } else { high = middle }
        }
        (low < self.page_count()).then_some(low)
    }

    /// As [`IndexView::page_of`], for a key that is only described.
    ///
    /// # Panics
    /// If the key is shorter than the descriptor says.
    #[must_use]
    pub fn page_of_bytes(&self, descriptor: &KeyDescriptor, key: &[u8]) -> Option<u32> {
        let (mut low, mut high) = (0, self.page_count());
        while low < high {
            let middle = low + (high - low) / 2;
            match descriptor.compare(self.page_key_max_bytes(middle), key) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal | Ordering::Greater => high = middle,
            }
        }
        (low < self.page_count()).then_some(low)
    }
}

/// Checks an entry without its neighbours.
#[inline]
fn check_entry(entry: &IndexEntry, layout: &ValueLayout) -> Result<(), Corruption> {
    at_least("address", 1_u8, entry.address.get())?;
    at_least("value_count", 1_u8, entry.value_count.get())?;
    at_most("value_count", layout.value_count_max, entry.value_count.get())?;
    at_most("tombstone_count", entry.value_count.get(), entry.tombstone_count.get())?;
    at_most("flags", FLAG_LOST, entry.flags)
}
