//! What can go wrong in the log.

use understory_format::Corruption;
use understory_grid::GridError;

/// An operation of the log that failed. Exhaustive: a new kind is to be decided upon in every layer above.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The chain on disk is not what it should be. The file needs repair or a backup.
    #[error(transparent)]
    Corrupt(Corruption),
    /// The grid failed.
    #[error(transparent)]
    Grid(GridError),
}

impl From<Corruption> for LogError {
    fn from(error: Corruption) -> Self {
        Self::Corrupt(error)
    }
}

impl From<GridError> for LogError {
    fn from(error: GridError) -> Self {
        if let GridError::Corrupt(corruption) = error { Self::Corrupt(corruption) } else { Self::Grid(error) }
    }
}
