//! The write-ahead log: groups of ops in a ring, written, synced, witnessed, scanned and replayed.
//!
//! An op is durable before anybody is told so, because its record is in the journal and synced. Records that are
//! waiting go together as one *group*: a header and the records, in whole sectors. Groups form a chain by the checksum
//! of the header before, and stand one behind another in a ring of fixed size, at *positions* that only grow.
//!
//! | module | what it does |
//! |---|---|
//! | `group` | fills a group, and goes through its records |
//! | `journal` | writes groups, syncs, writes lone witnesses; what of the ring is in use |
//! | `walk`, `reader` | follows the chain; large reads, what can be saved of failing ones |
//! | `scan` | pass 1 of recovery: where the chain ends, and whether acknowledged ops are lost there |
//! | `replay` | pass 2: the groups that count |
//! | `make` | the ring of a new file |
//!
//! # Invariants
//! - Whatever a crash leaves, what is accepted is all that was synced and a whole prefix of the rest.
//! - Damage to acknowledged ops is an error that names them; the last group before an unclean stop is the exception,
//!   as nothing written later says that it had been synced.
//! - Bytes from disk never panic, whatever they are.
//! - No lock is held while anybody waits or does I/O: every wait goes through `Park`.
//!
//! # Not here
//! Trees and values; who commits when; what replay does with the ops; the superblock.

mod error;
mod group;
mod journal;
mod make;
mod reader;
mod replay;
mod ring;
mod scan;
mod stats;
#[cfg(test)]
mod tests;
mod walk;

pub use error::{Evidence, Fault, JournalError};
pub use group::{Group, GroupBuilder, Mark};
pub use journal::Journal;
pub use make::format;
pub use replay::Replay;
pub use scan::{Head, Progress, Start, scan, scan_size};
pub use stats::JournalStats;

/// The example of the README is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
