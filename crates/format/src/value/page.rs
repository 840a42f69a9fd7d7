//! One page of a value block: writing it in place, probing it, checking it.
//!
//! A hash slot is 0 if it is empty, else the value's index in the page and 1 in its low bits and a tag, taken from
//! the hash, in its high ones. Slots are filled in the order of the values with linear probing, so they are a
//! function of the values alone. A lookup starts at the hash's slot and looks at each value whose tag fits until
//! a slot is empty: one cache line of slots and one value in nearly all cases.
//!
//! # Invariants
//! - `PageView::validate` accepts exactly what [`PageBuilder`] writes (test: every flip of a byte is found).
//! - Probing never goes on for more than `slot_count` slots and never yields an index outside the page, whatever the
//!   bytes.
//!
//! # Not here
//! What the values are: the caller compares keys.

use zerocopy::FromBytes;
use zerocopy::little_endian::U16;

use crate::error::{Corruption, at_most, exactly, zero};
use crate::units::{Checksum, u32_of, u64_of, usize_of};
use crate::value::layout_of_pages::{PAGE_SIZE_MAX, PageLayout};

/// The checksum of a page, as it stands in the table's index.
#[must_use]
#[inline]
pub fn page_checksum(bytes: &[u8]) -> Checksum {
    Checksum::of(bytes)
}

/// Writes one page in place, value by value. It holds no reference to the page: every call is given the bytes, so
/// that a page can be carried over between calls of whoever owns the buffer.
#[derive(Clone, Copy, Debug)]
pub struct PageBuilder {
    layout: PageLayout,
    count: u32,
    tombstone_count: u32,
}

impl PageBuilder {
    /// Starts the page in `bytes`: zeroes what is not values.
    ///
    /// # Panics
    /// If `bytes` is not as long as the page.
    #[must_use]
    #[inline]
    pub fn new(bytes: &mut [u8], layout: &PageLayout) -> Self {
        assert!(bytes.len() == usize_of(layout.size), "the bytes of one page");
        let (_, tail) = bytes.split_at_mut(usize_of(layout.bitmap_offset));
        tail.fill(0);
        Self { layout: *layout, count: 0, tombstone_count: 0 }
    }

    /// Values so far.
    #[must_use]
    #[inline]
    pub const fn count(&self) -> u32 {
        self.count
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
        self.count == self.layout.value_count_max
    }

    /// Appends a value, whose key is greater than those before and hashes to `hash`. `bytes` is the page.
    ///
    /// # Panics
    /// If the page is full, or page or value have another size than the layout's.
    #[inline]
    #[expect(clippy::indexing_slicing, reason = "per value; bounds follow from the layout and are asserted")]
    pub fn push(&mut self, bytes: &mut [u8], value: &[u8], tombstone: bool, hash: u64) {
        assert!(value.len() == usize_of(self.layout.value_size), "a value of the layout's size");
        assert!(self.count < self.layout.value_count_max, "room for one more");
        let start = usize_of(self.count * self.layout.value_size);
        bytes[start..start + value.len()].copy_from_slice(value);
        if tombstone {
            bytes[usize_of(self.layout.bitmap_offset + self.count / 8)] |= 1 << (self.count % 8);
            self.tombstone_count += 1;
        }
        insert_slot(&self.layout, slots_mut(bytes, &self.layout), hash, self.count);
        self.count += 1;
    }

    /// Ends the page: zeroes the room of values that did not come. `bytes` is the page.
    ///
    /// # Panics
    /// If `bytes` is not the page.
    #[inline]
    pub fn finish(self, bytes: &mut [u8]) {
        let unused = usize_of(self.layout.values_size(self.count))..usize_of(self.layout.bitmap_offset);
        bytes.get_mut(unused).expect("the bytes of one page").fill(0);
    }
}

#[inline]
#[expect(clippy::indexing_slicing, reason = "per value; the page has the layout's size")]
fn slots_mut<'a>(bytes: &'a mut [u8], layout: &PageLayout) -> &'a mut [U16] {
    let start = usize_of(layout.slots_offset);
    let slots = &mut bytes[start..start + 2 * usize_of(layout.slot_count)];
    <[U16]>::mut_from_bytes(slots).expect("an even number of bytes")
}

/// Puts the value with this index into the first empty slot from its hash's on.
#[inline]
#[expect(clippy::indexing_slicing, reason = "per value; `at` is below the number of slots")]
fn insert_slot(layout: &PageLayout, slots: &mut [U16], hash: u64, index: u32) {
    let mut at = usize_of(layout.slot(hash));
    while slots[at].get() != 0 {
        at += 1;
        if at == slots.len() {
            at = 0;
        }
    }
    slots[at].set(slot_of(layout, hash, index));
}

#[inline]
const fn slot_of(layout: &PageLayout, hash: u64, index: u32) -> u16 {
    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        reason = "at most 16,384 values in a page"
    )]
    let index = (index + 1) as u16;
    layout.tag(hash) | index
}

/// One page of a value block that was read.
#[derive(Clone, Copy, Debug)]
pub struct PageView<'a> {
    bytes: &'a [u8],
    layout: PageLayout,
    count: u32,
}

impl<'a> PageView<'a> {
    /// The page in `bytes`, with `count` values, checked: each value has exactly one slot, nothing is set behind the
    /// values. O(page). That slots and values belong together is [`PageView::validate_slots`].
    ///
    /// # Errors
    /// The first thing that no page has.
    pub fn new(bytes: &'a [u8], layout: &PageLayout, count: u32) -> Result<Self, Corruption> {
        let view = Self::unchecked(bytes, layout, count)?;
        view.validate()?;
        Ok(view)
    }

    /// The page in `bytes`, with `count` values, without a look into it: for bytes that were checked when they were
    /// read. All accessors stay within the page whatever the bytes. O(1).
    ///
    /// # Errors
    /// If `bytes` is not as long as a page or the page has no room for `count` values.
    #[inline]
    pub fn unchecked(bytes: &'a [u8], layout: &PageLayout, count: u32) -> Result<Self, Corruption> {
        if bytes.len() != usize_of(layout.size) || count > layout.value_count_max {
            exactly("length", layout.size, u64_of(bytes.len()))?;
            at_most("value_count", layout.value_count_max, count)?;
        }
        Ok(Self { bytes, layout: *layout, count })
    }

    fn validate(&self) -> Result<(), Corruption> {
        let range = |start: u32, end: u32| self.bytes.get(usize_of(start)..usize_of(end)).unwrap_or_default();
        let layout = &self.layout;
        let slots_end = layout.slots_offset + 2 * layout.slot_count;
        zero("unused values", range(layout.values_size(self.count), layout.bitmap_offset))?;
        zero("page padding", range(slots_end, layout.size))?;
        let bitmap = range(layout.bitmap_offset, layout.slots_offset);
        for (index, &byte) in (0_u32..).zip(bitmap) {
            let used = self.count.saturating_sub(8 * index).min(8);
            let beyond = u32::from(byte) >> used;
            exactly("tombstone bitmap", 0_u8, beyond)?;
        }
        let mut used: u32 = 0;
        for slot in self.slots().iter().map(|slot| slot.get()).filter(|&slot| slot != 0) {
            let index = u32::from(slot & layout.index_mask());
            crate::error::at_least("hash slot", 1_u8, index)?;
            at_most("hash slot", self.count, index)?;
            used += 1;
        }
        exactly("hash slots", self.count, used)
    }

    /// Checks that the slots are what these hashes of the values, in order, give. O(page).
    ///
    /// # Errors
    /// The first slot that differs.
    ///
    /// # Panics
    /// If there are more hashes than values.
    pub fn validate_slots(&self, hashes: impl Iterator<Item = u64>) -> Result<(), Corruption> {
        const SLOTS_MAX: usize = match PageLayout::new(PAGE_SIZE_MAX, 1) {
            Some(layout) => usize_of(layout.slot_count),
            None => panic!("one-byte values fit the largest page"),
        };
        let mut expected = [U16::ZERO; SLOTS_MAX];
        let expected = expected
            .get_mut(..self.slots().len())
            .expect("no page has more slots than the largest with the smallest values");
        for (index, hash) in (0..).zip(hashes) {
            assert!(index < self.count, "one hash for each value");
            insert_slot(&self.layout, expected, hash, index);
        }
        expected
            .iter()
            .zip(self.slots())
            .try_for_each(|(expected, found)| exactly("hash slot", expected.get(), found.get()))
    }

    /// Values in the page.
    #[must_use]
    #[inline]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// The values, one after another.
    #[must_use]
    #[inline]
    #[expect(clippy::indexing_slicing, reason = "hot; the constructor checked length and count")]
    pub fn values_bytes(&self) -> &'a [u8] {
        &self.bytes[..usize_of(self.layout.values_size(self.count))]
    }

    /// The value with this index in the page.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    #[inline]
    #[expect(clippy::indexing_slicing, reason = "hot; the caller's index is below the count")]
    pub fn value(&self, index: usize) -> &'a [u8] {
        let size = usize_of(self.layout.value_size);
        &self.values_bytes()[index * size..][..size]
    }

    /// Whether the value with this index in the page is a tombstone.
    ///
    /// # Panics
    /// If there is no such value.
    #[must_use]
    #[inline]
    #[expect(clippy::indexing_slicing, reason = "hot; the caller's index is below the count")]
    pub fn is_tombstone(&self, index: usize) -> bool {
        assert!(index < usize_of(self.count), "an index in the page");
        self.bytes[usize_of(self.layout.bitmap_offset) + index / 8] >> (index % 8) & 1 == 1
    }

    /// Tombstones in the page. O(values / 8).
    #[must_use]
    pub fn tombstone_count(&self) -> u32 {
        let bitmap = usize_of(self.layout.bitmap_offset)..usize_of(self.layout.slots_offset);
        self.bytes.get(bitmap).unwrap_or_default().iter().map(|byte| byte.count_ones()).sum()
    }

    #[inline]
    #[expect(clippy::indexing_slicing, reason = "hot; the constructor checked the length")]
    fn slots(&self) -> &'a [U16] {
        let start = usize_of(self.layout.slots_offset);
        let slots = &self.bytes[start..start + 2 * usize_of(self.layout.slot_count)];
        <[U16]>::ref_from_bytes(slots).expect("an even number of bytes")
    }

    /// Indexes of the values that may have a key with this hash; nearly always one or none. The key of each is to be
    /// compared.
    #[inline]
    pub fn probe(&self, hash: u64) -> Probe<'a> {
        let slots = self.slots();
        Probe {
            slots,
            at: usize_of(self.layout.slot(hash)),
            left: slots.len(),
            tag: self.layout.tag(hash),
            mask: self.layout.index_mask(),
            count: self.count,
        }
    }
}

/// Iterator of [`PageView::probe`].
#[derive(Clone, Debug)]
pub struct Probe<'a> {
    slots: &'a [U16],
    at: usize,
    left: usize,
    tag: u16,
    mask: u16,
    count: u32,
}

impl Iterator for Probe<'_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        while self.left > 0 {
            let slot = self.slots.get(self.at)?.get();
            if slot == 0 {
                self.left = 0;
                return None;
            }
            self.left -= 1;
            self.at += 1;
            if self.at == self.slots.len() {
                self.at = 0;
            }
            let index = u32::from(slot & self.mask);
            if slot & !self.mask == self.tag && index >= 1 && index <= self.count {
                return Some(usize_of(index - 1));
            }
        }
        None
    }
}

/// Index of the first value of `values` for which `is_before` does not hold, by halving; `values` is a whole number
/// of values of `value_size` bytes. For descriptors; typed code casts the slice once and uses `partition_point`.
///
/// # Panics
/// If `value_size` is 0.
#[must_use]
pub fn partition_point(values: &[u8], value_size: usize, mut is_before: impl FnMut(&[u8]) -> bool) -> u32 {
    let (mut low, mut high) = (0, values.len() / value_size);
    while low < high {
        let middle = low + (high - low) / 2;
        let value = values.get(middle * value_size..(middle + 1) * value_size).unwrap_or_default();
        if is_before(value) { low = middle + 1 } else { high = middle }
    }
    u32_of(low)
}
