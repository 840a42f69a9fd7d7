//! Blocks and pages in memory: immutable, shared, verified.
//!
//! # Invariants
//! - The bytes of a [`Block`] or [`Page`] were verified when they came from disk, or were sealed here; they never
//!   change afterwards. The buffer goes back to its pool when the last owner lets go.
//!
//! # Not here
//! What the bytes mean: decoders of `format`, called by who asked for the block.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use understory_format::{
    BlockAddress, BlockKind, BlockRef, Checksum, Corruption, Expected, Place, TwinRef, block,
};
use understory_io::Buffer;

use crate::cache::Shared;

/// A verified block. Cheap to clone.
#[derive(Clone)]
pub struct Block {
    buffer: Arc<Buffer>,
    reference: BlockRef,
    identity: Identity,
}

/// What the header says, kept where it costs no look into the block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) kind: BlockKind,
    pub(crate) address: BlockAddress,
    pub(crate) twin: Option<BlockAddress>,
    pub(crate) checksum: Checksum,
}

impl Identity {
    /// That of a block whose header is good.
    pub(crate) fn of(block: &[u8]) -> Result<Self, Corruption> {
        let header = block::header(block)?;
        Ok(Self {
            kind: header.kind()?,
            address: header.address()?,
            twin: header.twin(),
            checksum: header.checksum(),
        })
    }
}

impl Block {
    pub(crate) fn new(buffer: Arc<Buffer>, reference: BlockRef, identity: Identity) -> Self {
        Self { buffer, reference, identity }
    }

    /// The reference that this block was written or read by.
    #[must_use]
    pub fn reference(&self) -> BlockRef {
        self.reference
    }

    /// What kind of block it is.
    #[must_use]
    pub fn kind(&self) -> BlockKind {
        self.identity.kind
    }

    pub(crate) fn buffer(&self) -> &Arc<Buffer> {
        &self.buffer
    }

    /// A part of the block that shares its memory.
    pub(crate) fn page(&self, range: Range<usize>) -> Page {
        Page::new(Arc::clone(&self.buffer), range)
    }

    /// A reference may lead to a good block of another kind than the one it is used for.
    pub(crate) fn expect_kind(self, kind: BlockKind) -> Result<Self, Corruption> {
        if self.identity.kind == kind {
            return Ok(self);
        }
        let error = Corruption::new("kind", Expected::Exactly(tag(kind)), tag(self.identity.kind));
        Err(error.at(Place::Block(self.reference.address)))
    }

    /// Both copies of a metadata block name both addresses, in one order.
    pub(crate) fn expect_twins(self, reference: TwinRef) -> Result<Self, Corruption> {
        let Identity { address, twin, .. } = self.identity;
        let addresses = [
            ("address", reference.address.get(), address.get()),
            ("twin", reference.twin.get(), twin.map_or(0, BlockAddress::get)),
        ];
        for (field, expected, found) in addresses {
            if expected != found {
                let error =
                    Corruption::new(field, Expected::Exactly(u128::from(expected)), u128::from(found));
                return Err(error.at(Place::Block(reference.address)));
            }
        }
        Ok(self)
    }
}

fn tag(kind: BlockKind) -> u128 {
    u128::from(kind.tag())
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block")
            .field("reference", &self.reference)
            .field("kind", &self.identity.kind)
            .finish_non_exhaustive()
    }
}

impl Shared for Block {
    fn in_use(&self) -> bool {
        Arc::strong_count(&self.buffer) > 1
    }
}

/// A verified page of a value block. Cheap to clone; it may share the memory of a whole block.
#[derive(Clone)]
pub struct Page {
    buffer: Arc<Buffer>,
    range: Range<usize>,
}

impl Page {
    /// # Panics
    /// If the range is not within the buffer.
    pub(crate) fn new(buffer: Arc<Buffer>, range: Range<usize>) -> Self {
        assert!(buffer.get(range.clone()).is_some(), "a page lies within its block");
        Self { buffer, range }
    }

    pub(crate) fn verify(&self, checksum: Checksum, place: Place) -> Result<(), Corruption> {
        let found = Checksum::of(self);
        if found == checksum {
            return Ok(());
        }
        Err(Corruption::new("page_checksum", Expected::Exactly(checksum.get()), found.get()).at(place))
    }
}

impl Deref for Page {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.buffer.get(self.range.clone()).expect("the range was checked when the page was made")
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page").field("range", &self.range).finish_non_exhaustive()
    }
}

impl Shared for Page {
    fn in_use(&self) -> bool {
        Arc::strong_count(&self.buffer) > 1
    }
}
