//! The 256-byte header that every block starts with; sealing a block and verifying one.
//!
//! A block is header and body. The header checksum covers the header, the header holds the checksum of the body,
//! so the header checksum alone names the contents: it is the identity in every [`BlockRef`]. For all kinds but
//! [`BlockKind::Value`] the body checksum is that of bytes 256 to `size`; for value blocks it is that of the
//! concatenated checksums of the pages, so that one page read alone is verified from the table's index and a
//! whole block from its own header, with one pass over the data in both cases.
//!
//! Only [`write_len`] bytes of a block are written: `size` rounded up to the sector, the rest of the last sector
//! zero. What stands in the block's place behind that is stale and never looked at.
//!
//! # Invariants
//! - `seal` asserts what `verify` checks.
//! - A kind, version or checksum kind of 0 is never valid.
//!
//! # Not here
//! What metadata and body of each kind mean: the module of the kind.

use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::{Corruption, Expected, Place, at_least, at_most, exactly, rule, zero};
use crate::geometry::SECTOR_SIZE;
use crate::layout::layout;
use crate::refs::BlockRef;
use crate::units::{Beat, BlockAddress, Checksum, TreeId, u32_of, u64_of, usize_of};
use crate::value;

/// Bytes of the header.
pub const HEADER_SIZE: usize = 256;

/// The version of all block formats.
pub const VERSION: u16 = 1;

/// XXH3-128, the only checksum kind of this version.
pub const CHECKSUM_KIND: u8 = 1;

/// What is in a block. 0 is never valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum BlockKind {
    /// The index of a table.
    Index = 1,
    /// Values of a table.
    Value = 2,
    /// Table events of all trees.
    Manifest = 3,
    /// A chunk of the encoded free set.
    FreeSet = 4,
    /// The tree catalogue.
    Catalogue = 5,
    /// A part of the filter of a table.
    Filter = 6,
}

impl BlockKind {
    /// All kinds.
    pub const ALL: [Self; 6] =
        [Self::Index, Self::Value, Self::Manifest, Self::FreeSet, Self::Catalogue, Self::Filter];

    /// The tag on disk.
    #[must_use]
    #[inline]
    pub const fn tag(self) -> u8 {
        match self {
            Self::Index => 1,
            Self::Value => 2,
            Self::Manifest => 3,
            Self::FreeSet => 4,
            Self::Catalogue => 5,
            Self::Filter => 6,
        }
    }

    /// The kind with this tag.
    #[must_use]
    #[inline]
    pub const fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            1 => Some(Self::Index),
            2 => Some(Self::Value),
            3 => Some(Self::Manifest),
            4 => Some(Self::FreeSet),
            5 => Some(Self::Catalogue),
            6 => Some(Self::Filter),
            _ => None,
        }
    }

    /// Whether blocks of this kind are written at two addresses: not values, which are too many, nor filters, which can
    /// be done without.
    #[must_use]
    #[inline]
    pub const fn is_twin(self) -> bool {
        !matches!(self, Self::Value | Self::Filter)
    }

    /// Whether blocks of this kind belong to one tree.
    #[must_use]
    #[inline]
    pub const fn has_tree(self) -> bool {
        matches!(self, Self::Index | Self::Value | Self::Filter)
    }
}

impl core::fmt::Display for BlockKind {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Index => "index",
            Self::Value => "value",
            Self::Manifest => "manifest",
            Self::FreeSet => "free set",
            Self::Catalogue => "catalogue",
            Self::Filter => "filter",
        })
    }
}

layout! {
    /// Header of every block.
    pub struct BlockHeader: 256 = "block-header" {
        /// XXH3-128 of bytes 16 to 256 of the header: the identity of the block.
        0: checksum: U128,
        /// XXH3-128 of bytes 256 to `size`; of a value block that of its page checksums, one after another.
        16: checksum_body: U128,
        /// Address of the block, of a twin that of its first copy; from 1.
        32: address: U64,
        /// Address of the second copy of a metadata block; 0 in a value or filter block.
        40: twin: U64,
        /// Bytes of header and used body.
        48: size: U32,
        /// Version of the format, 1.
        52: version: U16,
        /// What is in the block: 1 index, 2 value, 3 manifest, 4 free set, 5 catalogue, 6 filter.
        54: kind: u8,
        /// How checksums are computed: 1 XXH3-128.
        55: checksum_kind: u8,
        /// The tree of an index, value or filter block, from 1; 0 in all others.
        56: tree_id: U16,
        /// Zero.
        58: reserved_ids: [u8; 6],
        /// Beat that the block was written for: of a table the first that sees it.
        64: beat: U64,
        /// Zero.
        72: reserved: [u8; 56],
        /// A struct of its own for each kind.
        128: metadata: [u8; 128],
    }
}

const CHECKSUM_END: usize = 16;

/// Where and when a block is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Its address.
    pub address: BlockAddress,
    /// The address of its second copy; of metadata blocks only.
    pub twin: Option<BlockAddress>,
    /// Its tree; of index, value and filter blocks only.
    pub tree: Option<TreeId>,
    /// The beat it is written for: of a table's blocks the first that sees the table, else the one at hand.
    pub beat: Beat,
}

/// Metadata of one kind: a 128-byte wire struct.
pub(crate) trait Metadata: FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned + Copy {
    const KIND: BlockKind;
}

/// Writes the header of a block that is about to be sealed: everything but the checksums.
///
/// # Panics
/// If the placement does not fit the kind, or `size` the block.
pub(crate) fn write_header<M: Metadata>(block: &mut [u8], placement: &Placement, size: usize, metadata: &M) {
    const { assert!(size_of::<M>() == 128) };
    let kind = M::KIND;
    assert!(
        kind.is_twin() == placement.twin.is_some(),
        "metadata blocks are written twice, value and filter blocks once"
    );
    assert!(placement.twin != Some(placement.address), "two copies stand in two places");
    assert!(kind.has_tree() == placement.tree.is_some(), "index, value and filter blocks belong to a tree");
    assert!(size >= HEADER_SIZE);
    assert!(size <= block.len());
    let header = BlockHeader {
        checksum: U128::new(0),
        checksum_body: U128::new(0),
        address: placement.address.get().into(),
        twin: placement.twin.map_or(0, BlockAddress::get).into(),
        size: u32_of(size).into(),
        version: VERSION.into(),
        kind: kind.tag(),
        checksum_kind: CHECKSUM_KIND,
        tree_id: placement.tree.map_or(0, TreeId::get).into(),
        reserved_ids: [0; 6],
        beat: placement.beat.get().into(),
        reserved: [0; 56],
        metadata: *metadata_bytes(metadata),
    };
    header.write_to_prefix(block).expect("a block has room for its header");
}

fn metadata_bytes<M: Metadata>(metadata: &M) -> &[u8; 128] {
    metadata.as_bytes().first_chunk().expect("metadata has 128 bytes")
}

impl BlockHeader {
    /// What is in the block.
    ///
    /// # Errors
    /// A tag that is none of this version's.
    pub fn kind(&self) -> Result<BlockKind, Corruption> {
        BlockKind::from_tag(self.kind).ok_or_else(|| {
            Corruption::new("kind", Expected::Rule("a block kind of this version, 1 to 6"), self.kind.into())
        })
    }

    /// The address of the first copy.
    ///
    /// # Errors
    /// If it is 0.
    pub fn address(&self) -> Result<BlockAddress, Corruption> {
        BlockAddress::new(self.address.get())
            .ok_or_else(|| Corruption::new("address", Expected::AtLeast(1), 0))
    }

    /// The address of the second copy of a metadata block.
    #[must_use]
    pub fn twin(&self) -> Option<BlockAddress> {
        BlockAddress::new(self.twin.get())
    }

    /// The tree of an index, value or filter block.
    #[must_use]
    pub fn tree(&self) -> Option<TreeId> {
        TreeId::new(self.tree_id.get())
    }

    /// The beat that the block was written for: of a table's blocks the first that sees the table.
    #[must_use]
    pub fn beat(&self) -> Beat {
        Beat::new(self.beat.get())
    }

    /// The checksum of the header: the identity of the block.
    #[must_use]
    #[inline]
    pub fn checksum(&self) -> Checksum {
        Checksum::new(self.checksum.get())
    }

    /// Where and when the block was written.
    ///
    /// # Errors
    /// As [`BlockHeader::address`].
    pub fn placement(&self) -> Result<Placement, Corruption> {
        Ok(Placement { address: self.address()?, twin: self.twin(), tree: self.tree(), beat: self.beat() })
    }

    /// The metadata of kind `M`; the caller has checked the kind.
    pub(crate) fn metadata<M: Metadata>(&self) -> &M {
        M::ref_from_bytes(&self.metadata).expect("all metadata has 128 bytes and no alignment")
    }

    /// Checks all but checksums: version, kind, sizes, what goes with the kind, reserved bytes. `block_size` is the
    /// length of the block.
    pub(crate) fn check(&self, block_size: usize) -> Result<(), Corruption> {
        exactly("version", VERSION, self.version.get())?;
        exactly("checksum_kind", CHECKSUM_KIND, self.checksum_kind)?;
        let kind = self.kind()?;
        at_least("size", u64_of(HEADER_SIZE), self.size.get())?;
        at_most("size", u64_of(block_size), self.size.get())?;
        at_least("address", 1_u8, self.address.get())?;
        if kind.is_twin() {
            at_least("twin", 1_u8, self.twin.get())?;
            rule("twin", "another address than the first", self.twin != self.address, self.twin.get())?;
        } else {
            zero("twin", &self.twin.to_bytes())?;
        }
        if kind.has_tree() {
            at_least("tree_id", 1_u8, self.tree_id.get())?;
        } else {
            zero("tree_id", &self.tree_id.to_bytes())?;
        }
        Self::LAYOUT.check_reserved(self.as_bytes())
    }

    fn compute_checksum(&self) -> Checksum {
        let (_, covered) = self.as_bytes().split_at(CHECKSUM_END);
        Checksum::of(covered)
    }
}

/// The header of a block, without any check but that it is there.
pub(crate) fn header_raw(block: &[u8]) -> Result<&BlockHeader, Corruption> {
    match BlockHeader::ref_from_prefix(block) {
        Ok((header, _)) => Ok(header),
        Err(_) => Err(Corruption::new("length", Expected::AtLeast(256), u64_of(block.len()).into())),
    }
}

/// The header of a block: checked in itself (version, kind, size within the block, reserved bytes), but not against
/// its checksums or any reference; that is [`verify`].
///
/// # Errors
/// The first field that no block can have.
pub fn header(block: &[u8]) -> Result<&BlockHeader, Corruption> {
    let header = header_raw(block)?;
    header.check(block.len())?;
    Ok(header)
}

/// Header of kind `M` and its metadata; the body up to `size`.
pub(crate) fn open<M: Metadata>(block: &[u8]) -> Result<(&BlockHeader, &M, &[u8]), Corruption> {
    let header = header(block)?;
    exactly("kind", M::KIND.tag(), header.kind)?;
    let body = block.get(HEADER_SIZE..usize_of(header.size.get())).unwrap_or_default();
    Ok((header, header.metadata(), body))
}

/// What a block read from disk must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expect {
    /// The reference that led to it: one of its addresses, and its checksum.
    pub reference: BlockRef,
    /// What must be in it.
    pub kind: BlockKind,
}

/// Bytes of a block that are written: `size` rounded up to the sector.
///
/// # Panics
/// If `block` has no header or its size is no size of a block: only for blocks that were sealed or verified.
#[must_use]
pub fn write_len(block: &[u8]) -> usize {
    let size = header_raw(block).expect("a block has room for its header").size.get();
    let len = usize_of(size.next_multiple_of(SECTOR_SIZE));
    assert!(len <= block.len(), "a sealed block fits its place");
    len
}

/// Completes a block whose header fields, metadata and body are written: zeroes the rest of the last sector, computes
/// the body's and the header's checksum. Returns the header checksum, the identity of the block. O(size).
///
/// # Panics
/// If the header is not that of a block.
pub fn seal(block: &mut [u8]) -> Checksum {
    let kind = checked_kind(block);
    let body = if kind == BlockKind::Value {
        value::checksum_body(block, |_, _| ()).expect("the encoder wrote counts that fit the block")
    } else {
        pad(block);
        plain_checksum_body(block)
    };
    seal_header(block, body)
}

fn checked_kind(block: &[u8]) -> BlockKind {
    header(block).and_then(BlockHeader::kind).expect("the encoder wrote a header")
}

fn plain_checksum_body(block: &[u8]) -> Checksum {
    let size = usize_of(header_raw(block).map_or(0, |header| header.size.get()));
    Checksum::of(block.get(HEADER_SIZE..size).unwrap_or_default())
}

fn pad(block: &mut [u8]) {
    let (size, len) = (header_raw(block).map_or(0, |header| usize_of(header.size.get())), write_len(block));
    block.get_mut(size..len).expect("the size is within the block").fill(0);
}

/// Stores the body's checksum, then computes and stores the header's.
pub(crate) fn seal_header(block: &mut [u8], body: Checksum) -> Checksum {
    let (header, _) = BlockHeader::mut_from_prefix(block).expect("a block has room for its header");
    header.checksum_body.set(body.get());
    let checksum = header.compute_checksum();
    header.checksum.set(checksum.get());
    checksum
}

/// Checks a block read from disk against the reference that led to it: identity, address, kind, version, sizes,
/// reserved bytes, body checksum, and zeros up to the end of the sector. `block` is the whole block; what is behind
/// [`write_len`] is not looked at. O(size).
///
/// # Errors
/// The first field that is wrong, with the place.
pub fn verify(block: &[u8], expect: &Expect) -> Result<(), Corruption> {
    verify_unplaced(block, expect).map_err(|error| error.at(Place::Block(expect.reference.address)))
}

fn verify_unplaced(block: &[u8], expect: &Expect) -> Result<(), Corruption> {
    let header = header_raw(block)?;
    exactly("checksum", expect.reference.checksum.get(), header.checksum.get())?;
    exactly("checksum", header.compute_checksum().get(), header.checksum.get())?;
    header.check(block.len())?;
    exactly("kind", expect.kind.tag(), header.kind)?;
    let address = expect.reference.address.get();
    if header.twin.get() != address {
        exactly("address", address, header.address.get())?;
    }
    let body = if expect.kind == BlockKind::Value {
        value::checksum_body(block, |_, _| ())?
    } else {
        let size = usize_of(header.size.get());
        let end = size.next_multiple_of(usize_of(SECTOR_SIZE)).min(block.len());
        zero("padding", block.get(size..end).unwrap_or_default())?;
        plain_checksum_body(block)
    };
    exactly("checksum_body", body.get(), header.checksum_body.get())
}

/// The reference to a block that was sealed or verified, by its first address.
///
/// # Errors
/// If there is no header or the address is 0.
pub fn reference(block: &[u8]) -> Result<BlockRef, Corruption> {
    let header = header_raw(block)?;
    Ok(BlockRef { address: header.address()?, checksum: header.checksum() })
}

#[cfg(test)]
mod tests;
