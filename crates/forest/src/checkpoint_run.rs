//! A checkpoint on its way to the disk: begun at the end of a bar, finished by a worker beside later commits.
//!
//! # Invariants
//! - The outcome is set once, before who waits is woken (`OnceLock`, `Park`).
//!
//! # Not here
//! What is written, and in which order: the grid.

use std::sync::{Arc, OnceLock};

use understory_format::Checksum;
use understory_grid::{Grid, GridError, PendingCheckpoint};
use understory_io::{Machine, Park, fresh_key};

use crate::ForestError;

/// A checkpoint that has been begun.
#[derive(Debug)]
pub struct CheckpointRun {
    park: Arc<dyn Park>,
    key: u64,
    outcome: OnceLock<Result<Checksum, GridError>>,
}

impl CheckpointRun {
    /// Hands the checkpoint to the machine's executor.
    pub(crate) fn start(grid: &Arc<Grid>, pending: PendingCheckpoint) -> Arc<Self> {
        let Machine { park, executor, .. } = grid.machine();
        let run = Arc::new(Self { park: Arc::clone(park), key: fresh_key(), outcome: OnceLock::new() });
        let (grid, shared) = (Arc::clone(grid), Arc::clone(&run));
        executor.submit(Box::new(move || {
            let outcome = grid.finish_checkpoint(pending);
            // Who waits for the end of the run may close the file then.
            drop(grid);
            shared.outcome.set(outcome).expect("a checkpoint is finished once");
            shared.park.wake(shared.key);
        }));
        run
    }

    /// Whether it is durable, or has failed: then [`wait`](Self::wait) returns at once.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.outcome.get().is_some()
    }

    /// Waits until the checkpoint is durable; gives its id.
    ///
    /// # Errors
    /// Failure to write, after which the grid is poisoned.
    ///
    /// # Panics
    /// Never: a wait ends when the outcome is there.
    pub fn wait(&self) -> Result<Checksum, ForestError> {
        if !self.is_done() {
            self.park.park_until(self.key, &mut || self.is_done());
        }
        Ok(self.outcome.get().expect("the wait is for it").clone()?)
    }
}
