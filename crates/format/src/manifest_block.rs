//! Blocks of the manifest log: table events, the newest block first to be read, each naming the one before.
//!
//! # Invariants
//! - Sequence numbers count from 1 at the first log block ever written; the block with none before it has no
//!   previous one, whatever its number (older ones may have been compacted away).
//!
//! # Not here
//! The chain as a whole, and which events still matter: `manifest-log`.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, IntoBytes};

use crate::block::{self, BlockHeader, BlockKind, HEADER_SIZE, Metadata, Placement, write_header};
use crate::error::{Corruption, Expected, at_least, at_most, exactly};
use crate::layout::layout;
use crate::refs::{TwinRef, TwinRefWire};
use crate::table_info::{ManifestEdit, ManifestRecord};
use crate::units::{Checksum, u32_of, u64_of, usize_of};

layout! {
    /// Metadata of a block of the manifest log.
    pub struct ManifestMetadata: 128 = "manifest-metadata" {
        /// The log's block before; zero in the oldest.
        0: previous: TwinRefWire,
        /// Number of this log block, from 1.
        32: sequence: U64,
        /// Events in the block; at least 1.
        40: entry_count: U32,
        /// Zero.
        44: reserved: [u8; 84],
    }
}

impl Metadata for ManifestMetadata {
    const KIND: BlockKind = BlockKind::Manifest;
}

const RECORD_SIZE: usize = size_of::<ManifestRecord>();

/// Events that a block can hold.
#[must_use]
pub const fn capacity(block_size: u32) -> u32 {
    (block_size - u32_of(HEADER_SIZE)) / u32_of(RECORD_SIZE)
}

/// Writes event `index`, from 0, into a block that is sealed later by [`finish`].
///
/// # Panics
/// If it does not fit.
pub fn put(block: &mut [u8], index: u32, edit: &ManifestEdit) {
    let start = HEADER_SIZE + usize_of(index) * RECORD_SIZE;
    let place = block.get_mut(start..start + RECORD_SIZE).expect("an event that fits the block");
    place.copy_from_slice(ManifestRecord::encode(edit).as_bytes());
}

/// Seals a block whose first `entry_count` events were [`put`]. Returns its identity.
///
/// # Panics
/// If there are none or they do not fit, `sequence` is 0, or the placement is not one of a metadata block.
pub fn finish(
    block: &mut [u8],
    placement: &Placement,
    previous: Option<TwinRef>,
    sequence: u64,
    entry_count: u32,
) -> Checksum {
    assert!(entry_count > 0, "no block is empty");
    assert!(sequence > 0, "log blocks are counted from 1");
    let metadata = ManifestMetadata {
        previous: TwinRefWire::encode(previous),
        sequence: sequence.into(),
        entry_count: entry_count.into(),
        reserved: [0; 84],
    };
    write_header(block, placement, HEADER_SIZE + usize_of(entry_count) * RECORD_SIZE, &metadata);
    block::seal(block)
}

/// Writes and seals a whole block. Returns its identity.
///
/// # Panics
/// As [`put`] and [`finish`].
pub fn encode(
    block: &mut [u8],
    placement: &Placement,
    previous: Option<TwinRef>,
    sequence: u64,
    edits: &[ManifestEdit],
) -> Checksum {
    for (index, edit) in (0..).zip(edits) {
        put(block, index, edit);
    }
    finish(block, placement, previous, sequence, u32_of(edits.len()))
}

/// A block of the manifest log that was read and verified.
#[derive(Clone, Copy, Debug)]
pub struct ManifestBlockView<'a> {
    header: &'a BlockHeader,
    previous: Option<TwinRef>,
    sequence: u64,
    records: &'a [ManifestRecord],
}

impl<'a> ManifestBlockView<'a> {
    /// The block in `block`. Its events are decoded one by one, by [`edits`](Self::edits). O(1).
    ///
    /// # Errors
    /// The first field of the header that no such block has.
    pub fn new(block: &'a [u8]) -> Result<Self, Corruption> {
        let (header, metadata, body) = block::open::<ManifestMetadata>(block)?;
        ManifestMetadata::LAYOUT.check_reserved(metadata.as_bytes())?;
        at_least("entry_count", 1_u8, metadata.entry_count.get())?;
        let size = u64::from(metadata.entry_count.get()) * u64_of(RECORD_SIZE);
        exactly("size", u64_of(HEADER_SIZE) + size, header.size.get())?;
        at_least("sequence", 1_u8, metadata.sequence.get())?;
        let records = <[ManifestRecord]>::ref_from_bytes(body)
            .map_err(|_| Corruption::new("size", Expected::Rule("whole events"), header.size.get().into()))?;
        at_most("entry_count", u64_of(records.len()), metadata.entry_count.get())?;
        Ok(Self { header, previous: metadata.previous.decode()?, sequence: metadata.sequence.get(), records })
    }

    /// The header.
    #[must_use]
    pub const fn header(&self) -> &'a BlockHeader {
        self.header
    }

    /// The log's block before; `None` in the oldest.
    #[must_use]
    pub const fn previous(&self) -> Option<TwinRef> {
        self.previous
    }

    /// Number of this log block, from 1.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Events in the block; at least 1.
    #[must_use]
    pub fn entry_count(&self) -> u32 {
        u32_of(self.records.len())
    }

    /// Event `index`, from 0.
    ///
    /// # Errors
    /// The first field that no event has.
    ///
    /// # Panics
    /// If there is no such event.
    pub fn edit(&self, index: u32) -> Result<ManifestEdit, Corruption> {
        self.records.get(usize_of(index)).expect("an event of the block").decode()
    }

    /// All events, oldest first; reversed, newest first.
    pub fn edits(
        &self,
    ) -> impl DoubleEndedIterator<Item = Result<ManifestEdit, Corruption>> + ExactSizeIterator + use<'a> {
        self.records.iter().map(ManifestRecord::decode)
    }
}

#[cfg(test)]
mod tests;
