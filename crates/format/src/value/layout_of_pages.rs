//! Where values, tombstone bitmap and hash slots stand in the pages of a value block.
//!
//! ```text
//! page:  | values, sorted, from 0 | zeros | tombstone bitmap | hash slots u16 | zeros |
//! ```
//! All offsets are functions of block size, page size and value size alone, so that a page can be found, read and
//! searched without its neighbours. The first page of a block follows the header and is 256 bytes shorter.
//!
//! # Invariants
//! - Room for a tombstone bit and 4/3 slots is kept for every value, whether it is needed or not: a page never
//!   overflows because of what a value carries.

use core::ops::Range;

use crate::block::HEADER_SIZE;
use crate::geometry::SECTOR_SIZE;
use crate::units::usize_of;

/// Where things stand in one page. Offsets and sizes in bytes, from the page's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLayout {
    /// Bytes of a value.
    pub value_size: u32,
    /// Values at most.
    pub value_count_max: u32,
    /// One bit per value, 1 for a tombstone; lowest bit of the lowest byte first; a multiple of 8 bytes.
    pub bitmap_offset: u32,
    /// Hash slots, a u16 each.
    pub slots_offset: u32,
    /// Number of hash slots: at least 4/3 of `value_count_max`.
    pub slot_count: u32,
    /// Bytes of the page.
    pub size: u32,
}

/// Bytes of a page at most.
pub(super) const PAGE_SIZE_MAX: u32 = 16 * 1024;

/// Bytes of the bitmap for `count` values: whole words.
const fn bitmap_size(count: u32) -> u32 {
    count.div_ceil(64) * 8
}

/// Slots for `count` values: a load of at most 0.75.
const fn slot_count(count: u32) -> u32 {
    (count * 4).div_ceil(3)
}

impl PageLayout {
    /// The layout of a page of `size` bytes, or `None` if not one value of `value_size` fits, or `value_size` is 0.
    #[must_use]
    pub const fn new(size: u32, value_size: u32) -> Option<Self> {
        if value_size == 0 || value_size > size || size > PAGE_SIZE_MAX {
            return None;
        }
        // In 24ths of a byte a value costs 24 per byte, 3 for its bit and 64 for 4/3 slots of 2 bytes. That is the
        // most that can fit; the roundings of bitmap and slots take a few steps down from there.
        let mut count = size * 24 / (value_size * 24 + 67);
        while count > 0 {
            let values_end = (count * value_size).next_multiple_of(8);
            let slots_offset = values_end + bitmap_size(count);
            if slots_offset + 2 * slot_count(count) <= size {
                return Some(Self {
                    value_size,
                    value_count_max: count,
                    bitmap_offset: values_end,
                    slots_offset,
                    slot_count: slot_count(count),
                    size,
                });
            }
            count -= 1;
        }
        None
    }

    /// Bytes of the values of a page that has `count`.
    #[must_use]
    #[inline]
    pub const fn values_size(&self, count: u32) -> u32 {
        count * self.value_size
    }

    /// Lowest bits of a hash slot, which hold the value's index and 1; the others hold the tag.
    #[must_use]
    #[inline]
    pub const fn index_bits(&self) -> u32 {
        u32::BITS - self.value_count_max.leading_zeros()
    }

    /// The slot where the search for a hash starts.
    #[must_use]
    #[inline]
    pub const fn slot(&self, hash: u64) -> u32 {
        #[expect(clippy::as_conversions, reason = "widening; From is not const")]
        let (low, count) = (hash & 0xffff_ffff, self.slot_count as u64);
        #[expect(clippy::as_conversions, reason = "below slot_count, a u32")]
        {
            ((low * count) >> 32) as u32
        }
    }

    /// The tag of a hash, in place above the index: taken from the bits that the slot does not use.
    #[must_use]
    #[inline]
    pub const fn tag(&self, hash: u64) -> u16 {
        #[expect(clippy::as_conversions, reason = "16 bits are left")]
        let high = (hash >> 48) as u16;
        high & !self.index_mask()
    }

    /// Mask of the index in a hash slot.
    #[must_use]
    #[inline]
    pub const fn index_mask(&self) -> u16 {
        #[expect(
            clippy::as_conversions,
            clippy::cast_possible_truncation,
            reason = "at most 15 bits: asserted"
        )]
        {
            ((1_u32 << self.index_bits()) - 1) as u16
        }
    }
}

/// Where the values of a value block stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueLayout {
    /// Bytes of the block.
    pub block_size: u32,
    /// Bytes of a page; the first has 256 fewer, as it follows the header.
    pub page_size: u32,
    /// Pages of a full block.
    pub page_count: u32,
    /// The first page.
    pub first: PageLayout,
    /// All others.
    pub rest: PageLayout,
    /// Values of a full block.
    pub value_count_max: u32,
}

impl ValueLayout {
    /// The layout for these sizes, or `None` if block or page size are none, or not one value fits the first page.
    #[must_use]
    pub const fn new(block_size: u32, page_size: u32, value_size: u32) -> Option<Self> {
        let pages_fit = block_size.is_power_of_two()
            && page_size.is_power_of_two()
            && page_size >= SECTOR_SIZE
            && page_size <= PAGE_SIZE_MAX
            && page_size <= block_size
            && block_size <= 1024 * 1024;
        if !pages_fit {
            return None;
        }
        #[expect(clippy::as_conversions, clippy::cast_possible_truncation, reason = "256")]
        let header_size = HEADER_SIZE as u32;
        let page_count = block_size / page_size;
        let first = PageLayout::new(page_size - header_size, value_size);
        let rest = PageLayout::new(page_size, value_size);
        let (Some(first), Some(rest)) = (first, rest) else { return None };
        let value_count_max = first.value_count_max + (page_count - 1) * rest.value_count_max;
        Some(Self { block_size, page_size, page_count, first, rest, value_count_max })
    }

    /// Bytes of a value.
    #[must_use]
    #[inline]
    pub const fn value_size(&self) -> u32 {
        self.first.value_size
    }

    /// The layout of page `page`, from 0.
    #[must_use]
    #[inline]
    pub const fn page(&self, page: u32) -> &PageLayout {
        if page == 0 { &self.first } else { &self.rest }
    }

    /// Where page `page` stands in the block; page 0 starts at 256.
    #[must_use]
    #[inline]
    pub const fn page_bytes(&self, page: u32) -> Range<usize> {
        let start = if page == 0 { HEADER_SIZE } else { usize_of(page * self.page_size) };
        start..usize_of((page + 1) * self.page_size)
    }

    /// Page of the value with this index in the block, and its index in the page.
    #[must_use]
    #[inline]
    pub const fn locate(&self, value_index: u32) -> (u32, u32) {
        if value_index < self.first.value_count_max {
            (0, value_index)
        } else {
            let behind = value_index - self.first.value_count_max;
            (1 + behind / self.rest.value_count_max, behind % self.rest.value_count_max)
        }
    }

    /// Index in the block of the first value of page `page`.
    #[must_use]
    #[inline]
    pub const fn page_value_start(&self, page: u32) -> u32 {
        if page == 0 { 0 } else { self.first.value_count_max + (page - 1) * self.rest.value_count_max }
    }

    /// Pages of a block that has `value_count` values.
    #[must_use]
    #[inline]
    pub const fn pages_used(&self, value_count: u32) -> u32 {
        if value_count == 0 { 0 } else { self.locate(value_count - 1).0 + 1 }
    }

    /// Values in page `page` of a block that has `value_count` values.
    #[must_use]
    #[inline]
    pub const fn page_value_count(&self, value_count: u32, page: u32) -> u32 {
        let behind = value_count.saturating_sub(self.page_value_start(page));
        let most = self.page(page).value_count_max;
        if behind < most { behind } else { most }
    }

    /// Bytes of header and used pages of a block that has `value_count` values; the `size` of its header.
    #[must_use]
    #[inline]
    pub const fn block_bytes(&self, value_count: u32) -> usize {
        let pages = self.pages_used(value_count);
        if pages == 0 { HEADER_SIZE } else { usize_of(pages * self.page_size) }
    }

    /// Offset in the block of the value with this index.
    #[must_use]
    #[inline]
    pub const fn value_offset(&self, value_index: u32) -> usize {
        let (page, slot) = self.locate(value_index);
        self.page_bytes(page).start + usize_of(slot * self.value_size())
    }
}
