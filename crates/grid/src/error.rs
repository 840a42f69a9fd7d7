//! What can go wrong in the grid, and what its caller does about it.
//!
//! # Not here
//! What is wrong with which bytes: [`Corruption`], of `format`. What the machine refused: [`IoError`], of `io`.

use understory_format::{BlockAddress, Corruption, GeometryError};
use understory_io::IoError;

use crate::quorum::CopyState;

/// An operation of the grid that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GridError {
    /// Bytes in the file are not what they should be, and no other copy was good.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// The machine failed. After a failed write or sync the grid is poisoned.
    #[error(transparent)]
    Io(#[from] IoError),
    /// A block could not be read. Of a metadata block, neither copy: this is the first.
    #[error("{address} cannot be read: {source}")]
    Unreadable {
        /// The block.
        address: BlockAddress,
        /// What the storage says.
        source: IoError,
    },
    /// There is no room for what was asked, because of the size limit or because the disk is full. Nothing has
    /// changed.
    #[error("no room for {needed} blocks: {free} are free below the limit")]
    OutOfSpace {
        /// Blocks asked for.
        needed: u64,
        /// Blocks free below the limit and not promised; more than `needed` if the disk was full before the limit.
        free: u64,
    },
    /// All block buffers are in use: the cache is too small for what runs at the same time.
    #[error("all block buffers are in use")]
    NoBuffers,
    /// The file has no sign of a superblock.
    #[error("not a data file of this engine")]
    NotUnderstory,
    /// The file is of a format version that this release does not know.
    #[error("the file is of format version {found}, which this release does not know")]
    Version {
        /// The version found.
        found: u16,
    },
    /// The file is shorter than what its superblock says.
    #[error("the file has {size} bytes and must have {needed}")]
    Truncated {
        /// Bytes of the file.
        size: u64,
        /// Bytes that it must have at least.
        needed: u64,
    },
    /// The superblock copies do not say which state is the newest durable one.
    #[error("no two superblock copies agree on the newest state: {copies:?}")]
    QuorumLost {
        /// What was found in the place of each copy.
        copies: Box<[CopyState; 4]>,
    },
    /// A data file cannot be made with this geometry.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// The trees do not fit into one catalogue block.
    #[error("{found} trees, and a catalogue block has room for {most}")]
    TooManyTrees {
        /// Trees asked for.
        found: usize,
        /// The most that fit.
        most: usize,
    },
    /// A data file without a journal is made only in an empty file.
    #[error("the file is not empty: it has {size} bytes")]
    NotEmpty {
        /// Bytes of the file.
        size: u64,
    },
    /// A data file with a journal is made in a file that holds the journal's ring and nothing behind it.
    #[error("the file has {size} bytes, and must end at {needed}, where the ring of its journal does")]
    NoRing {
        /// Bytes of the file.
        size: u64,
        /// Bytes that it must have.
        needed: u64,
    },
    /// A write or a sync failed before: what is durable is not known, so that nothing is written any more. Reads
    /// go on; to write again, open the file again.
    #[error("a write failed before, nothing is written any more: {cause}")]
    Poisoned {
        /// The first failure.
        cause: IoError,
    },
    /// The grid was opened read-only.
    #[error("opened read-only")]
    ReadOnly,
}
