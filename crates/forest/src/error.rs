//! What can go wrong in the forest: what its parts report.

use thiserror::Error;
use understory_format::Corruption;
use understory_grid::GridError;
use understory_manifest_log::LogError;
use understory_table::TableError;

/// A step of the forest failed. Exhaustive: a new kind is to be decided upon in every layer above.
#[derive(Clone, Debug, Error)]
pub enum ForestError {
    /// Bytes on disk are damaged or contradict each other.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// The grid could not read, write or allocate.
    #[error(transparent)]
    Grid(GridError),
}

impl From<GridError> for ForestError {
    fn from(error: GridError) -> Self {
        #[expect(clippy::wildcard_enum_match_arm, reason = "all but damage passes through")]
        match error {
            GridError::Corrupt(corruption) => Self::Corrupt(corruption),
            other => Self::Grid(other),
        }
    }
}

impl From<TableError> for ForestError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Corrupt(corruption) => Self::Corrupt(corruption),
            TableError::Grid(error) => error.into(),
            TableError::Expired => {
                unreachable!("only what is read through a view expires, and the forest has none")
            }
            TableError::OutOfOrder => unreachable!("a merge emits keys in order"),
        }
    }
}

impl From<LogError> for ForestError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Corrupt(corruption) => Self::Corrupt(corruption),
            LogError::Grid(error) => error.into(),
        }
    }
}
