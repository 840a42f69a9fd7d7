//! A deterministic LSM-forest storage engine for fixed-size records.
//!
//! A [`Database`] is one file with a few *trees*, each declared by a Rust type: a fixed-size zerocopy struct
//! whose key is up to four of its fields. A [`Batch`] puts and removes records in any of them, all or
//! nothing. The same calls give the same bytes at the same addresses.
//!
//! ```
//! use understory::{Batch, Database, Options, Schema, record};
//! use zerocopy::little_endian::U64;
//! use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};
//!
//! #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
//! #[repr(C)]
//! struct Account {
//!     id: U64,
//!     cents: U64,
//! }
//! record! { Account: "accounts", key = { id: U64 } }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("bank.understory");
//! let options = Options::default().memory(400 << 20);
//! let bank = Database::create(path, &Schema::new().tree::<Account>(), &options)?;
//! let mut batch = Batch::new();
//! batch.put(&Account { id: 7.into(), cents: 250.into() });
//! bank.commit(&batch)?; // on stable storage, and visible
//! assert_eq!(bank.get::<Account>(7)?.map(|account| account.cents.get()), Some(250));
//! assert_eq!(bank.scan::<Account>(8..)?.count(), 0);
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//! None is on by default.
//! - `metrics`: `MetricsExporter` hands the figures of [`Database::stats`] to the crate `metrics`.
//! - `tracing`: spans and events for subscribers of the crate `tracing`.
//!
//! # Not here
//! Offsets and encodings on disk: `understory-format` has them.

mod applier;
mod batch;
mod clock;
mod database;
mod error;
#[cfg(feature = "metrics")]
mod exporter;
mod histogram;
mod open;
mod options;
mod recovery;
mod scan;
mod schema;
mod sequencer;
mod stats;

pub use batch::Batch;
pub use database::Database;
pub use error::{Error, Failure, SchemaDifference, SchemaError};
#[cfg(feature = "metrics")]
pub use exporter::MetricsExporter;
pub use histogram::Histogram;
pub use options::{Options, Recovery};
pub use scan::Scan;
pub use schema::Schema;
pub use sequencer::Durability;
pub use stats::{Stats, Waits, Written};
pub use understory_forest::{CompactionStats, LevelStats, PaceStats, TreeStats};
pub use understory_format::{
    BlockAddress, Checksum, Corruption, Geometry, GeometryError, Key, Level0, Op, Record, record,
};
pub use understory_grid::{GridError, GridStats, Space};
pub use understory_io::{Counters, IoCause, IoError, Machine, OpenError, Operation, Timings};
pub use understory_journal::{Evidence, Fault, Head, JournalError, JournalStats};

/// The example of the workspace's README is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
