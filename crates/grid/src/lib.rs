//! Blocks by address: superblock, free set, cache, verified reads, writes and checkpoints.
//!
//! The grid is the part of a data file that is cut into equal blocks. It hands out addresses, takes sealed blocks
//! to them, reads them back verified, and makes the whole durable by checkpoints.
//!
//! | module | what it does |
//! |---|---|
//! | [`free_set`] | which blocks are free; reservations; three generations of releases; the canonical encoding |
//! | `cache`, `reads`, `read` | verified blocks and pages in memory; equal reads join; twins |
//! | `writes`, `write` | adjacent writes joined, bytes in flight bounded |
//! | `space` | addresses for callers, and the file behind them |
//! | `quorum`, `superblock`, `checkpoint`, `open` | the durable root: choosing, writing, making and opening it |
//!
//! # Invariants
//! - Everything read was verified against the reference that led to it: checksum, address, kind.
//! - Whatever a crash leaves, the file opens with the old or the new checkpoint, never with a mixture.
//! - After a failed write or sync nothing is written any more; reads go on.
//! - No lock is held while anybody waits or does I/O: every wait goes through `Park`.
//! - Nothing that differs between two machines, or two runs, gets into a block or an address.
//!
//! # Not here
//! Tables, trees and keys; when to release, free and take checkpoints; repairing damaged blocks.

mod block;
mod cache;
mod checkpoint;
mod error;
pub mod free_set;
mod grid;
mod open;
mod quorum;
mod read;
mod reads;
mod space;
mod stats;
mod superblock;
#[cfg(test)]
mod tests;
mod write;
mod writes;

pub use block::{Block, Page};
pub use checkpoint::{CheckpointUpdate, PendingCheckpoint};
pub use error::GridError;
pub use free_set::{FreeSet, Reservation, Space};
pub use grid::{Grid, GridOptions};
pub use open::FormatState;
pub use quorum::CopyState;
pub use stats::GridStats;

/// The example of the README is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
