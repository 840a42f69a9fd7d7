//! What [`Manifest::verify`](crate::Manifest::verify) can find wrong.

use understory_format::{BlockAddress, Corruption, Expected, Level, Place};

/// A broken invariant of a manifest, with the tables named by the address of their index block.
///
/// From tables that were just read it means damage (see the conversion to [`Corruption`]); from tables that
/// the engine made, a fault of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// A level is not sorted by (`key_max`, `beat_min`).
    #[error("{level}: table {table} is out of order")]
    Order {
        /// The level.
        level: Level,
        /// The later of the two tables.
        table: BlockAddress,
    },
    /// Two tables of a level, or of a run, share a key at a beat that sees both.
    #[error("{level}: tables {table} and {other} overlap")]
    Overlap {
        /// The level.
        level: Level,
        /// The table with the larger `key_min`.
        table: BlockAddress,
        /// The other one.
        other: BlockAddress,
    },
    /// A level 0 in runs has more of them than it may.
    #[error("{level}: with table {table} there are too many runs")]
    Runs {
        /// The level.
        level: Level,
        /// A table of a run beyond those that may be.
        table: BlockAddress,
    },
    /// The sums over a level do not fit.
    #[error("{level}: its values cannot be counted")]
    Overflow {
        /// The level.
        level: Level,
    },
    /// Two tables have the same index block.
    #[error("{level}: table {table} is there twice")]
    Duplicate {
        /// The level of the second one found.
        level: Level,
        /// The address both have.
        table: BlockAddress,
    },
    /// A counter of the level differs from a recount.
    #[error("{level}: {counter} is {found}, a recount gives {expected}")]
    Counter {
        /// The level.
        level: Level,
        /// Which counter.
        counter: &'static str,
        /// The recount.
        expected: u64,
        /// The counter.
        found: u64,
    },
    /// The decoded keys of a table differ from its description, or the description breaks a rule.
    #[error("{level}: table {table} is not what its description says")]
    Table {
        /// The level.
        level: Level,
        /// The table.
        table: BlockAddress,
    },
}

impl From<ManifestError> for Corruption {
    fn from(error: ManifestError) -> Self {
        let (table, field, rule) = match error {
            ManifestError::Order { table, .. } => {
                (Some(table), "table.key_max", "tables of a level are sorted")
            }
            ManifestError::Overlap { table, .. } => {
                (Some(table), "table.key_min", "tables of a level, or of a run, do not overlap")
            }
            ManifestError::Runs { table, .. } => {
                (Some(table), "table.age", "level 0 has no more runs than it may")
            }
            ManifestError::Overflow { .. } => {
                (None, "level.value_count", "the values of a level can be counted")
            }
            ManifestError::Duplicate { table, .. } => (Some(table), "table.index", "a table exists once"),
            ManifestError::Counter { counter, .. } => (None, counter, "counters equal a recount"),
            ManifestError::Table { table, .. } => (Some(table), "table.info", "a table is what it says"),
        };
        let place = table.map_or(Place::Unplaced, Place::Block);
        let found = table.map_or(0, |address| address.get().into());
        Self::new(field, Expected::Rule(rule), found).at(place)
    }
}
