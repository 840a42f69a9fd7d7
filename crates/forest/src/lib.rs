//! A set of trees that share one grid, one manifest log, one schedule and one checkpoint.
//!
//! The forest knows beats, not ops: [`Forest::close_beat`] is the one step of its clock. It plans what each
//! half-bar compacts, spreads that over the beats by bytes, applies the outcomes in a fixed order, and makes
//! the end of a bar the durable root when it is asked to.
//!
//! # Invariants
//! - R4, the order of a close, and R15, the block accounting: see `forest`.
//! - What is planned, and where its blocks go, depends on the manifest, the memtables and the beat alone.
//!
//! # Not here
//! What keys mean, OS files, the journal, and when a beat closes or a checkpoint falls due.

mod any_tree;
mod checkpoint_run;
mod error;
mod forest;
mod half_bar;
mod pace;
mod rolling_hash;
mod schedule;
mod stats;
#[cfg(test)]
mod tests;

pub use any_tree::TreeSpec;
pub use checkpoint_run::CheckpointRun;
pub use error::ForestError;
pub use forest::{Forest, Root, Trees};
pub use schedule::{Half, Schedule};
pub use stats::{CompactionStats, ForestStats, LevelStats, PaceStats, TreeStats, ratio};

/// The README's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
