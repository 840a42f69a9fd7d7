//! The durable log of what happens to the tables of all trees of a forest.
//!
//! Every [`ManifestEdit`] is appended to a chain of manifest blocks, the newest
//! of which the checkpoint's root names. At open the chain is read backwards, and of each table that is still
//! live only the newest record is given on: those are the manifests of all trees. A table is known by the
//! address of its index block, which no other live table has.
//!
//! The address of a block, and that of its twin, is taken when its first record arrives, since the position of
//! a table's newest record (its *extent*) must be known at once; the pointer to the block before and the
//! checksum are fixed when the block is full or a checkpoint closes it. A block counts the extents that point
//! into it; once no extent points into the oldest block, its records say nothing any more and it is released
//! without being read. When the log has too many blocks, it gives up its oldest ones: those of their records that an
//! extent points to are read while a half-bar runs, and appended again when it ends (`compaction`).
//!
//! # Invariants
//! - After [`ManifestLog::checkpoint`] every appended record is in a block handed to the grid (asserted there).
//! - Opening gives exactly one record per live table, its newest (tests: equals a replay forwards, in
//!   [`ManifestLog::verify`], and a model map).
//! - The newest record of a live table is never released: blocks go oldest first, and only at zero live records.
//! - The number of blocks is bounded (`pace`, asserted at the end of each half-bar). What else grows, grows with the live
//!   tables, or with the edits of the largest half-bar.
//! - A remove is released only after all older records of that table: for the same reason.
//! - Sequence numbers of the chain ascend by one; after a checkpoint of an empty log they start at 1 again, so
//!   that a log that was reopened goes on as if it had not been.
//! - Whatever the chain on disk, open ends: the root's block count bounds it, and the sequence must descend at
//!   each step (tests with damaged roots and chains).
//!
//! # Not here
//! Key order, level policy and the in-memory manifests (crate `manifest`); when a half-bar begins and ends.

mod compaction;
mod error;
mod extents;
mod history;
mod log;
mod open;
mod pace;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod verify;

pub use error::LogError;
pub use log::ManifestLog;
pub use understory_format::{ManifestEdit, ManifestRoot};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
