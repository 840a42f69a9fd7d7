//! What can go wrong in this crate, told apart by whose fault it is.
//!
//! Damaged bytes are [`TableError::Corrupt`] whether the grid found them (checksum, address, kind) or this crate
//! did (relations between a table's info, its index and its pages).
//!
//! # Not here
//! Faults of this engine itself: those are assertions.

use understory_format::{Corruption, GeometryError};
use understory_grid::GridError;

/// An operation on a table failed. Exhaustive: a new kind is to be decided upon in every layer above.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// Bytes on disk are not what was written, or do not fit the table that they belong to.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// The grid could not read, write or allocate.
    #[error(transparent)]
    Grid(GridError),
    /// A value was pushed whose key is not above that of the value before it. Nothing of it was taken.
    #[error("values must be pushed in strictly ascending order of their keys")]
    OutOfOrder,
    /// What a reader refers to was given up since it began: memory that is used again, or blocks. It has to begin
    /// anew.
    #[error("the reader was open for too long: what it refers to is used again")]
    Expired,
}

impl TableError {
    /// The damage, if that is what it is.
    pub const fn corruption(&self) -> Option<&Corruption> {
        match self {
            Self::Corrupt(corruption) => Some(corruption),
            Self::Grid(_) | Self::OutOfOrder | Self::Expired => None,
        }
    }
}

impl From<GridError> for TableError {
    fn from(error: GridError) -> Self {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the grid may add kinds; all others pass through")]
        match error {
            GridError::Corrupt(corruption) => Self::Corrupt(corruption),
            other => Self::Grid(other),
        }
    }
}

/// A tree's records and the file's geometry do not go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// The geometry itself is not valid.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// A page has no room for one value with its tombstone bit and hash slots.
    #[error("a value of {value_size} bytes does not fit a page of {page_size} bytes")]
    ValueTooLarge {
        /// Size of a value, in bytes.
        value_size: u32,
        /// Size of a page, in bytes.
        page_size: u32,
    },
    /// An index block has no room for one value block.
    #[error("a block of {block_size} bytes cannot index a value block with keys of {key_size} bytes")]
    IndexTooSmall {
        /// Size of a key, in bytes.
        key_size: u32,
        /// Size of a block, in bytes.
        block_size: u32,
    },
}
