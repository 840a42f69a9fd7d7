//! A deterministic LSM-forest storage engine for fixed-size records.
//!
//! A [`Database`] is one file with a few *trees*, each declared by a Rust type: a fixed-size zerocopy struct
//! whose key is up to four of its fields. A [`Batch`] puts and removes records in any of them, all or
//! nothing. The same calls give the same bytes at the same addresses.
//!
//! # Not here
//! Offsets and encodings on disk: `understory-format` has them.

mod batch;
mod database;
mod error;
mod open;
mod options;
mod scan;
mod schema;
mod stats;

pub use batch::Batch;
pub use database::Database;
pub use error::{Error, SchemaDifference, SchemaError};
pub use options::Options;
pub use scan::Scan;
pub use schema::Schema;
pub use stats::{Stats, TreeStats};
pub use understory_forest::CompactionStats;
pub use understory_format::{Corruption, Geometry, Key, Record, record};
pub use understory_grid::{GridStats, Space};
pub use understory_io::{Counters, Machine};
pub use understory_tree::LevelStats;

/// The example of the workspace's README is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
