//! One tree: its memtables, its manifest, and lookups and scans over both.
//!
//! Newest first, a key is looked for in the mutable memtable, in the immutable one, and in the one table of
//! each level that covers it. Writes go to the mutable memtable alone; everything below is immutable, and
//! what compaction produces becomes visible when the forest applies it. Readers see what was published, from any number
//! of threads beside the writer's ([`Tree`]).
//!
//! # Invariants
//! - At most one memtable waits to be flushed; it is in memory until its values are visible in level 0.
//! - A read sees one moment: what was published when it began, of all trees that share a [`Publication`], or it says
//!   that it came too late (model tests beside a writer, on real and on simulated threads).
//! - A tombstone ends a search as a value does.
//! - Filters spare lookups reads and change no answer (model tests with and without).
//!
//! # Not here
//! Compaction, other trees, the clock, and what makes a beat close.

mod filters;
mod memory;
mod publication;
mod scan;
#[cfg(test)]
mod tests;
mod tree;
mod view;

pub use filters::filter_spare;
pub use publication::Publication;
pub use scan::Scan;
pub use tree::{LevelStats, Tree, VALUES_PER_BAR_MAX, values_per_bar};

/// The README's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
