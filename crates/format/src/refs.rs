//! References to blocks: an address and the checksum of what must be found there.
//!
//! A reference stands outside the block it names, so that stale and misdirected blocks are found as surely as
//! rotten ones. Metadata blocks are written twice; a [`TwinRef`] names both places.
//!
//! # Invariants
//! - The two addresses of a [`TwinRef`] differ (held by its constructor and by the decoder).

use zerocopy::little_endian::{U64, U128};

use crate::error::{Corruption, rule, zero};
use crate::layout::layout;
use crate::units::{BlockAddress, Checksum};

/// A block: where it is and the checksum of its header, which covers its body's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockRef {
    /// Where it is.
    pub address: BlockAddress,
    /// Identity of its contents.
    pub checksum: Checksum,
}

/// A metadata block: two byte-identical copies whose header names both addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TwinRef {
    /// The first copy.
    pub address: BlockAddress,
    /// The second copy, somewhere else.
    pub twin: BlockAddress,
    /// Identity of the contents of both.
    pub checksum: Checksum,
}

impl TwinRef {
    /// The first copy.
    #[must_use]
    pub const fn first(&self) -> BlockRef {
        BlockRef { address: self.address, checksum: self.checksum }
    }

    /// The second copy.
    #[must_use]
    pub const fn second(&self) -> BlockRef {
        BlockRef { address: self.twin, checksum: self.checksum }
    }
}

layout! {
    /// Reference to a metadata block, which is written at two addresses. All zero means none.
    pub struct TwinRefWire: 32 = "twin-ref" {
        /// Header checksum of the block.
        0: checksum: U128,
        /// Address of the first copy, from 1.
        16: address: U64,
        /// Address of the second copy; not that of the first.
        24: twin: U64,
    }
}

impl TwinRefWire {
    /// No reference.
    pub const NONE: Self = Self { checksum: U128::new(0), address: U64::new(0), twin: U64::new(0) };

    /// The wire form.
    #[must_use]
    pub fn encode(reference: Option<TwinRef>) -> Self {
        reference.map_or(Self::NONE, Self::from)
    }

    /// The reference, or `None` if all bytes are zero.
    ///
    /// # Errors
    /// One address without the other, twice the same address, or a checksum without an address.
    pub fn decode(&self) -> Result<Option<TwinRef>, Corruption> {
        let addresses = (BlockAddress::new(self.address.get()), BlockAddress::new(self.twin.get()));
        let (Some(address), Some(twin)) = addresses else {
            zero("address", &self.address.to_bytes())?;
            zero("twin", &self.twin.to_bytes())?;
            zero("checksum", &self.checksum.to_bytes())?;
            return Ok(None);
        };
        rule("twin", "another address than the first", address != twin, twin.get())?;
        Ok(Some(TwinRef { address, twin, checksum: Checksum::new(self.checksum.get()) }))
    }

    /// The reference.
    ///
    /// # Errors
    /// As [`TwinRefWire::decode`], and if there is none.
    pub fn decode_some(&self) -> Result<TwinRef, Corruption> {
        self.decode()?
            .ok_or_else(|| Corruption::new("address", crate::error::Expected::Rule("an address, from 1"), 0))
    }
}

impl From<TwinRef> for TwinRefWire {
    fn from(reference: TwinRef) -> Self {
        Self {
            checksum: U128::new(reference.checksum.get()),
            address: U64::new(reference.address.get()),
            twin: U64::new(reference.twin.get()),
        }
    }
}
