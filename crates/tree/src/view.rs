//! What a read refers to, and whether that can still be read.
//!
//! # Invariants
//! - A block of the view's tables was not handed out again while the view is not expired: its release comes after the
//!   tables were exchanged, so after `opened_at` was read, and it is free with the second checkpoint after (R25;
//!   [`Grid::freed_number`]).

use std::sync::Arc;

use understory_format::Key;
use understory_grid::{Grid, GridError};
use understory_io::IoCause;
use understory_manifest::Manifest;
use understory_table::TableError;

use crate::memory::Seen;

/// Checkpoints with whose freeing a block that is released now may be used again.
const CHECKPOINTS: u64 = 2;

/// The tables of a tree at some moment.
#[derive(Clone, Debug)]
pub(crate) struct Tables<K: Key> {
    pub(crate) manifest: Arc<Manifest<K>>,
    /// The number of the newest checkpoint when they were live.
    opened_at: u64,
}

impl<K: Key> Tables<K> {
    /// The tables that are live now: the caller keeps the manifest from being exchanged.
    pub(crate) fn new(grid: &Grid, manifest: &Arc<Manifest<K>>) -> Self {
        Self { manifest: Arc::clone(manifest), opened_at: grid.staged_number() }
    }

    /// Whether an error of reading the tables may be because their blocks were used again. To be asked after the error.
    #[cold]
    pub(crate) fn may_explain(&self, error: &TableError, grid: &Grid) -> bool {
        is_of_bytes(error) && grid.freed_number() >= self.opened_at + CHECKPOINTS
    }
}

/// Whether an error is about bytes that are not what they should be, or not there.
#[cold]
pub(crate) fn is_of_bytes(error: &TableError) -> bool {
    match error {
        TableError::Corrupt(_) => true,
        // The file was cut behind its last block in use.
        TableError::Grid(GridError::Io(source) | GridError::Unreadable { source, .. }) => {
            source.source == IoCause::Truncated
        }
        TableError::Grid(_) | TableError::OutOfOrder | TableError::Expired => false,
    }
}

/// What a scan sees: the values of a tree up to a position.
#[derive(Clone, Debug)]
pub(crate) struct View<K: Key> {
    /// Newest first.
    pub(crate) memtables: Vec<Seen>,
    pub(crate) tables: Tables<K>,
}
