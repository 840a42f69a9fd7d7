//! A checkpoint on its way to the disk: begun at the end of a bar, finished by a worker beside later commits.
//!
//! # Invariants
//! - The outcome is set once, before who waits is woken (`OnceLock`, `End`).
//!
//! # Not here
//! What is written, and in which order: the grid.

use std::sync::atomic::{AtomicBool, Ordering};
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
    ended: AtomicBool,
}

/// Wakes who waits for the run, also if it panics.
struct End(Arc<CheckpointRun>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
        self.0.park.wake(self.0.key);
    }
}

impl CheckpointRun {
    /// Hands the checkpoint to the machine's executor.
    pub(crate) fn start(grid: &Arc<Grid>, pending: PendingCheckpoint) -> Arc<Self> {
        let Machine { park, executor, .. } = grid.machine();
        let (park, ended) = (Arc::clone(park), AtomicBool::new(false));
        let run = Arc::new(Self { park, key: fresh_key(), outcome: OnceLock::new(), ended });
        let (grid, end) = (Arc::clone(grid), End(Arc::clone(&run)));
        executor.submit(Box::new(move || {
            let outcome = grid.finish_checkpoint(pending);
            // Who waits for the end of the run may close the file then.
            drop(grid);
            end.0.outcome.set(outcome).expect("a checkpoint is finished once");
        }));
        run
    }

    /// Whether it is durable, or has failed: then [`wait`](Self::wait) returns at once.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Waits until the checkpoint is durable; gives its id.
    ///
    /// # Errors
    /// Failure to write, after which the grid is poisoned.
    ///
    /// # Panics
    /// If the worker panicked.
    pub fn wait(&self) -> Result<Checksum, ForestError> {
        self.wait_end();
        Ok(self.outcome.get().expect("a worker does not panic").clone()?)
    }

    /// Waits until it has ended, whatever came of it.
    pub(crate) fn wait_end(&self) {
        if !self.is_done() {
            self.park.park_until(self.key, &mut || self.is_done());
        }
    }
}
