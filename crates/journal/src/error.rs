//! What can go wrong in the journal, and what its caller does about it.
//!
//! # Not here
//! What is wrong with which bytes: [`Corruption`], of `format`. What the machine refused: [`IoError`], of `io`.

use understory_format::{Corruption, Op};
use understory_io::IoError;

use crate::Head;

/// An operation of the journal that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The machine failed. After a failed write or sync this is what every later write and sync gets.
    #[error(transparent)]
    Io(#[from] IoError),
    /// A ring is made only in an empty file. Nothing has changed.
    #[error("the file is not empty: it has {size} bytes")]
    NotEmpty {
        /// Bytes of the file.
        size: u64,
    },
    /// The superblock names a place that no journal has.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// Acknowledged ops are lost, because a group of the chain cannot be read. Nothing was written.
    #[error("the journal is damaged at position {position}, {first} to {last} are lost: {fault}")]
    Damaged {
        /// The first op that is lost.
        first: Op,
        /// The last op that is known to have been acknowledged. Later ones are lost, too, if there were any.
        last: Op,
        /// What is good: whoever gives up the lost ops goes on from here.
        last_good: Box<Head>,
        /// Position of the group that is damaged.
        position: u64,
        /// What is wrong with it.
        fault: Box<Fault>,
        /// How it is known that `last` was acknowledged.
        evidence: Evidence,
    },
}

/// Why the group that should come next in the chain is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The bytes are not those of that group: damaged, torn, or left over from earlier.
    #[error(transparent)]
    Wrong(#[from] Corruption),
    /// The bytes cannot be read.
    #[error("unreadable: {0}")]
    Unreadable(IoError),
    /// The ring ends: it is full.
    #[error("the ring is full")]
    RingFull,
}

/// How it is known that ops were acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Evidence {
    /// The superblock says so: they were accepted when the file was opened, or a checkpoint counts them.
    Superblock,
    /// The group at this position was written when they were durable.
    Witness {
        /// Its position.
        position: u64,
    },
}
