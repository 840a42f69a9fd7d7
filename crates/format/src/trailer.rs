//! Blocks of the encoded free set: it is cut into chunks, each block names the one before.
//!
//! # Invariants
//! - All chunks but the last fill their block; the sizes add up to `total_size` (checked per block by what its
//!   number and the total say its size must be).
//!
//! # Not here
//! The encoding of the free set, and the checksum over all chunks: `grid`.

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

use crate::block::{self, BlockHeader, BlockKind, HEADER_SIZE, Metadata, Placement, write_header};
use crate::error::{Corruption, at_most, exactly, rule};
use crate::layout::layout;
use crate::refs::{TwinRef, TwinRefWire};
use crate::units::{Checksum, u32_of, u64_of, usize_of};

layout! {
    /// Metadata of a block of the encoded free set.
    pub struct TrailerMetadata: 128 = "trailer-metadata" {
        /// The block with the chunk before; zero in the first.
        0: previous: TwinRefWire,
        /// Bytes of all chunks together.
        32: total_size: U64,
        /// Number of this chunk, from 0.
        40: chunk_index: U32,
        /// Number of chunks; at least 1.
        44: chunk_count: U32,
        /// Zero.
        48: reserved: [u8; 80],
    }
}

impl Metadata for TrailerMetadata {
    const KIND: BlockKind = BlockKind::FreeSet;
}

/// Bytes of a chunk at most.
#[must_use]
pub const fn capacity(block_size: u32) -> u32 {
    block_size - u32_of(HEADER_SIZE)
}

/// Chunks that `total_size` bytes take; 0 for none.
#[must_use]
pub const fn chunk_count(block_size: u32, total_size: u64) -> u64 {
    total_size.div_ceil(u64_of(usize_of(capacity(block_size))))
}

/// Which chunk of what a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The block with the chunk before; `None` in the first.
    pub previous: Option<TwinRef>,
    /// Number of this chunk, from 0.
    pub index: u32,
    /// Number of chunks.
    pub count: u32,
    /// Bytes of all chunks together.
    pub total_size: u64,
}

impl Chunk {
    /// Bytes of this chunk, or `None` if count, index and total do not go together.
    fn size(&self, block_size: usize) -> Option<u64> {
        let capacity = u64_of(block_size.checked_sub(HEADER_SIZE)?);
        let start = u64::from(self.index).checked_mul(capacity)?;
        let count = self.total_size.div_ceil(capacity.max(1));
        let fits = u64::from(self.count) == count && self.index < self.count;
        fits.then(|| capacity.min(self.total_size - start))
    }
}

/// Writes and seals a block. Returns its identity.
///
/// # Panics
/// If `bytes` is not what chunk number and total say, a first chunk has a previous one or another has none, or the
/// placement is not one of a metadata block.
pub fn encode(block: &mut [u8], placement: &Placement, chunk: &Chunk, bytes: &[u8]) -> Checksum {
    assert!(chunk.size(block.len()) == Some(u64_of(bytes.len())), "all chunks but the last are full");
    assert!((chunk.index == 0) == chunk.previous.is_none(), "each chunk but the first names the one before");
    let metadata = TrailerMetadata {
        previous: TwinRefWire::encode(chunk.previous),
        total_size: chunk.total_size.into(),
        chunk_index: chunk.index.into(),
        chunk_count: chunk.count.into(),
        reserved: [0; 80],
    };
    let end = HEADER_SIZE + bytes.len();
    block.get_mut(HEADER_SIZE..end).expect("a chunk that fits the block").copy_from_slice(bytes);
    write_header(block, placement, end, &metadata);
    block::seal(block)
}

/// A block of the encoded free set that was read and verified.
#[derive(Clone, Copy, Debug)]
pub struct TrailerView<'a> {
    header: &'a BlockHeader,
    chunk: Chunk,
    bytes: &'a [u8],
}

impl<'a> TrailerView<'a> {
    /// The block in `block`. O(1).
    ///
    /// # Errors
    /// The first field that no such block has.
    pub fn new(block: &'a [u8]) -> Result<Self, Corruption> {
        let (header, metadata, bytes) = block::open::<TrailerMetadata>(block)?;
        TrailerMetadata::LAYOUT.check_reserved(metadata.as_bytes())?;
        let chunk = Chunk {
            previous: metadata.previous.decode()?,
            index: metadata.chunk_index.get(),
            count: metadata.chunk_count.get(),
            total_size: metadata.total_size.get(),
        };
        at_most("chunk_index", chunk.count.saturating_sub(1), chunk.index)?;
        let Some(size) = chunk.size(block.len()) else {
            return rule("chunk_count", "what `total_size` takes", false, chunk.count)
                .map(|()| unreachable!("it does not hold"));
        };
        exactly("size", u64_of(HEADER_SIZE) + size, header.size.get())?;
        let chained = (chunk.index == 0) == chunk.previous.is_none();
        rule("previous", "none exactly in the first chunk", chained, chunk.index)?;
        Ok(Self { header, chunk, bytes })
    }

    /// The header.
    #[must_use]
    pub const fn header(&self) -> &'a BlockHeader {
        self.header
    }

    /// Which chunk of what this is.
    #[must_use]
    pub const fn chunk(&self) -> &Chunk {
        &self.chunk
    }

    /// The bytes of the chunk.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

#[cfg(test)]
mod tests;
