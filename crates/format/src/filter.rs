//! Filters: what tells of a key, without a look at the table, that the table does not have it.
//!
//! A blocked Bloom filter over all keys of a table, tombstones among them: the key's hash chooses one *line* of 512
//! bits, and in it six bits, all of which are set if the table has the key. A table's lines stand in filter blocks, one
//! behind another, and the index refers to these behind its page checksums.
//!
//! ```text
//! | header | line | line | ...                       all blocks are full but the last
//! ```
//!
//! How many lines a table has follows from how many values it has. They are filled before that is known, at the size for
//! a full table; at the end the filter is *folded*: line `i` of the half is line `2 i` or line `2 i + 1` of the whole, and
//! a key has the same line and bits in it as if there had never been more.
//!
//! # Invariants
//! - The lines are a function of the keys and the layout, whatever the order of the calls (test).
//! - A key that was added is found, folded or not (test: models).
//!
//! # Not here
//! Which blocks they are in memory, and who asks them: `table`, `tree`.

use core::ops::DerefMut;

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64, U128};

use crate::block::{self, BlockHeader, BlockKind, HEADER_SIZE, Metadata, Placement, write_header};
use crate::error::{Corruption, at_least, at_most, exactly};
use crate::layout::layout;
use crate::units::{Checksum, TreeId, u32_of, u64_of, usize_of};

/// Bytes of a line.
pub const LINE_SIZE: usize = 64;
const LINE_BITS: u64 = 512;
/// Bits of a key in its line. 6 or 7 are best for 10 bits per key.
const PROBES: u32 = 6;
/// Bits that number a bit of a line.
const PROBE_BITS: u32 = LINE_BITS.trailing_zeros();
/// Filters for more lines than this are made of a multiple of it, so that they can be folded six times.
const FOLD: u64 = 64;
/// Spreads the hash over the bits of a line.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
/// Bits per key at most.
pub const FILTER_BITS_MAX: u8 = 32;

layout! {
    /// Metadata of a filter block.
    pub struct FilterMetadata: 128 = "filter-metadata" {
        /// Lines in the block; at least 1.
        0: line_count: U32,
        /// Number of the first among all lines of the table.
        4: line_start: U32,
        /// Lines of the table.
        8: table_line_count: U32,
        /// Zero.
        12: reserved: [u8; 116],
    }
}

impl Metadata for FilterMetadata {
    const KIND: BlockKind = BlockKind::Filter;
}

layout! {
    /// One filter block in an index block.
    pub struct FilterRef: 24 = "filter-ref" {
        /// Address of the filter block, from 1.
        0: address: U64,
        /// Header checksum of the filter block.
        8: checksum: U128,
    }
}

/// How many lines and blocks the filters of a tree's tables have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterLayout {
    block_size: u32,
    bits: u8,
    line_count_max: u32,
}

impl FilterLayout {
    /// That of tables of at most `value_count_max` values, with `bits` bits for each; none if that is 0.
    ///
    /// # Panics
    /// If there are more than 2^32 lines: not for tables whose values one index block names.
    #[must_use]
    pub fn new(block_size: u32, bits: u8, value_count_max: u64) -> Option<Self> {
        if bits == 0 {
            return None;
        }
        let lines = (value_count_max * u64::from(bits)).div_ceil(LINE_BITS).max(1);
        let lines = if lines <= FOLD { lines.next_power_of_two() } else { lines.next_multiple_of(FOLD) };
        Some(Self { block_size, bits, line_count_max: u32::try_from(lines).expect("a table has few lines") })
    }

    /// Lines of a full table, which the filter of any is made with.
    #[must_use]
    pub const fn line_count_max(&self) -> u32 {
        self.line_count_max
    }

    /// Lines of a table of this many values: halved as long as each value has its bits.
    #[must_use]
    pub fn line_count(&self, value_count: u64) -> u32 {
        let bits = value_count.saturating_mul(self.bits.into());
        let mut lines = self.line_count_max;
        while lines.is_multiple_of(2) && bits <= u64::from(lines / 2) * LINE_BITS {
            lines /= 2;
        }
        lines
    }

    /// Lines of a full block.
    #[must_use]
    pub const fn lines_per_block(&self) -> u32 {
        lines_per_block(self.block_size)
    }

    /// Blocks that this many lines take.
    #[must_use]
    pub const fn block_count(&self, line_count: u32) -> u32 {
        line_count.div_ceil(self.lines_per_block())
    }

    /// Blocks of the filter of a full table.
    #[must_use]
    pub const fn block_count_max(&self) -> u32 {
        self.block_count(self.line_count_max)
    }
}

/// Lines that a block of this size holds.
#[must_use]
pub const fn lines_per_block(block_size: u32) -> u32 {
    (block_size - u32_of(HEADER_SIZE)) / u32_of(LINE_SIZE)
}

/// The line that a key with this hash has among `line_count`.
#[must_use]
#[inline]
pub fn line_of(hash: u64, line_count: u32) -> u32 {
    u32_of(usize::try_from(((hash >> 32) * u64::from(line_count)) >> 32).unwrap_or(0))
}

/// The places of a key in its line: byte and bit.
#[inline]
fn places(hash: u64) -> impl Iterator<Item = (usize, u8)> {
    let mixed = hash.wrapping_mul(MIX);
    (1..=PROBES).map(move |probe| {
        let bit = (mixed >> (u64::BITS - probe * PROBE_BITS)) % LINE_BITS;
        (usize::try_from(bit / 8).unwrap_or(0), 1 << (bit % 8))
    })
}

/// Adds a key with this hash to its line.
#[inline]
fn add(line: &mut [u8; LINE_SIZE], hash: u64) {
    for (byte, bit) in places(hash) {
        if let Some(byte) = line.get_mut(byte) {
            *byte |= bit;
        }
    }
}

/// Whether a key with this hash may have been added to the line. False only if it was not.
#[must_use]
#[inline]
pub fn may_have(line: &[u8; LINE_SIZE], hash: u64) -> bool {
    // Without branches: most of the answers are no, at the first bits or the last.
    places(hash).fold(true, |all, (byte, bit)| all & line.get(byte).is_none_or(|byte| byte & bit != 0))
}

/// Where a line stands: the number of its block, and its first byte there.
#[must_use]
#[inline]
pub fn place_of(line: u32, lines_per_block: u32) -> (usize, usize) {
    let (block, in_block) = (line / lines_per_block, line % lines_per_block);
    (usize_of(block), HEADER_SIZE + usize_of(in_block) * LINE_SIZE)
}

/// A filter while it is made, in blocks that the caller has: it holds no reference to them.
///
/// Order of calls: [`add`](Self::add) for each key, [`fold`](Self::fold), then [`finish`](Self::finish) for each block that
/// is left.
#[derive(Clone, Copy, Debug)]
pub struct FilterBuilder {
    layout: FilterLayout,
    line_count: u32,
    lines_per_block: u32,
    value_count: u64,
}

impl FilterBuilder {
    /// An empty filter in `blocks`, which are [`FilterLayout::block_count_max`]. Zeroes them.
    ///
    /// # Panics
    /// If they are fewer.
    #[must_use]
    pub fn new<B: DerefMut<Target = [u8]>>(layout: &FilterLayout, blocks: &mut [B]) -> Self {
        assert!(blocks.len() == usize_of(layout.block_count_max()), "the blocks of a full filter");
        blocks.iter_mut().for_each(|block| block.fill(0));
        let (line_count, lines_per_block) = (layout.line_count_max, layout.lines_per_block());
        Self { layout: *layout, line_count, lines_per_block, value_count: 0 }
    }

    /// Adds a key by its hash.
    ///
    /// # Panics
    /// If the blocks are not those of the calls before.
    #[inline]
    pub fn add<B: DerefMut<Target = [u8]>>(&mut self, blocks: &mut [B], hash: u64) {
        add(self.line_mut(blocks, line_of(hash, self.line_count)), hash);
        self.value_count += 1;
    }

    #[inline]
    fn line_mut<'b, B: DerefMut<Target = [u8]>>(
        &self,
        blocks: &'b mut [B],
        line: u32,
    ) -> &'b mut [u8; LINE_SIZE] {
        let (block, at) = place_of(line, self.lines_per_block);
        let block = blocks.get_mut(block).expect("a block for each line");
        block.get_mut(at..).and_then(<[u8]>::first_chunk_mut).expect("room for the line")
    }

    /// Ends the adding: folds the filter to the lines that so many keys have. O(lines). How many blocks are left.
    ///
    /// # Panics
    /// As [`add`](Self::add).
    pub fn fold<B: DerefMut<Target = [u8]>>(&mut self, blocks: &mut [B]) -> u32 {
        let to = self.layout.line_count(self.value_count);
        while self.line_count > to {
            self.line_count /= 2;
            for half in 0..self.line_count {
                let mut folded = *self.line_mut(blocks, 2 * half);
                let other = self.line_mut(blocks, 2 * half + 1);
                folded.iter_mut().zip(other).for_each(|(byte, other)| *byte |= *other);
                *self.line_mut(blocks, half) = folded;
            }
        }
        self.layout.block_count(self.line_count)
    }

    /// Lines now: those of the table, after [`fold`](Self::fold).
    #[must_use]
    pub const fn line_count(&self) -> u32 {
        self.line_count
    }

    /// Writes header and metadata of block `number` and seals it. Returns its identity. O(block).
    ///
    /// # Panics
    /// If no such block is left, or `placement` is not that of a filter block.
    #[must_use]
    pub fn finish(&self, number: u32, block: &mut [u8], placement: &Placement) -> Checksum {
        let line_start = number * self.lines_per_block;
        assert!(line_start < self.line_count, "a block that has lines");
        let line_count = (self.line_count - line_start).min(self.lines_per_block);
        let metadata = FilterMetadata {
            line_count: line_count.into(),
            line_start: line_start.into(),
            table_line_count: self.line_count.into(),
            reserved: [0; 116],
        };
        write_header(block, placement, HEADER_SIZE + usize_of(line_count) * LINE_SIZE, &metadata);
        let checksum = block::seal(block);
        let view = FilterView::new(block);
        assert!(view.is_ok(), "what was written can be read: {view:?}");
        checksum
    }
}

/// A filter block that was read and verified.
#[derive(Clone, Copy, Debug)]
pub struct FilterView<'a> {
    header: &'a BlockHeader,
    metadata: &'a FilterMetadata,
    lines: &'a [u8],
    block_size: usize,
}

impl<'a> FilterView<'a> {
    /// The filter block in `block`, checked: its lines are some of the table's, as many as the block has. O(1).
    ///
    /// # Errors
    /// The first field that no filter block has.
    pub fn new(block: &'a [u8]) -> Result<Self, Corruption> {
        let (header, metadata, lines) = block::open::<FilterMetadata>(block)?;
        FilterMetadata::LAYOUT.check_reserved(metadata.as_bytes())?;
        let count = metadata.line_count.get();
        at_least("line_count", 1_u8, count)?;
        at_most("line_count", lines_per_block(u32_of(block.len())), count)?;
        exactly("size", u64_of(HEADER_SIZE + usize_of(count) * LINE_SIZE), header.size.get())?;
        let end = u64::from(metadata.line_start.get()) + u64::from(count);
        at_most("line_start", metadata.table_line_count.get(), end)?;
        Ok(Self { header, metadata, lines, block_size: block.len() })
    }

    /// Its lines, back to back.
    #[must_use]
    pub const fn lines(&self) -> &'a [u8] {
        self.lines
    }

    /// Checks that it is block `number` of a filter of `line_count` lines, of this tree.
    ///
    /// # Errors
    /// The first field that says otherwise.
    pub fn check(&self, tree: TreeId, number: u32, line_count: u32) -> Result<(), Corruption> {
        exactly("tree_id", tree.get(), self.header.tree_id.get())?;
        exactly("table_line_count", line_count, self.metadata.table_line_count.get())?;
        let per_block = lines_per_block(u32_of(self.block_size));
        let start = u64::from(number) * u64::from(per_block);
        exactly("line_start", start, self.metadata.line_start.get())?;
        let count = u64::from(line_count).saturating_sub(start).min(per_block.into());
        exactly("line_count", count, self.metadata.line_count.get())
    }
}

#[cfg(test)]
mod tests;
