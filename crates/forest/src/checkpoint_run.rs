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
use understory_io::{Clock, Machine, Park, Timer, fresh_key, trace_event, trace_span};

use crate::ForestError;
use crate::stats::Counts;

/// A checkpoint that has been begun.
#[derive(Debug)]
pub struct CheckpointRun {
    park: Arc<dyn Park>,
    key: u64,
    outcome: OnceLock<Result<Checksum, GridError>>,
    ended: AtomicBool,
}

/// Wakes who waits for the run, also if it panics.
struct End(Arc<CheckpointRun>, Arc<Counts>);

impl Drop for End {
    fn drop(&mut self) {
        self.1.checkpoint_ended();
        self.0.ended.store(true, Ordering::Release);
        self.0.park.wake(self.0.key);
    }
}

impl CheckpointRun {
    /// Hands the checkpoint to the machine's executor.
    pub(crate) fn start(grid: &Arc<Grid>, pending: PendingCheckpoint, counts: &Arc<Counts>) -> Arc<Self> {
        let Machine { park, executor, clock, .. } = grid.machine();
        let (park, ended) = (Arc::clone(park), AtomicBool::new(false));
        let run = Arc::new(Self { park, key: fresh_key(), outcome: OnceLock::new(), ended });
        let (grid, end) = (Arc::clone(grid), End(Arc::clone(&run), Arc::clone(counts)));
        let (clock, begun) = (Arc::clone(clock), clock.now());
        counts.checkpoint_begun();
        trace_event!(DEBUG, number = pending.number(), "checkpoint begun");
        executor.submit(Box::new(move || {
            let _span = trace_span!(DEBUG, "checkpoint", number = pending.number());
            let outcome = grid.finish_checkpoint(pending);
            if outcome.is_ok() {
                end.1.checkpoints.add(clock.now().saturating_sub(begun));
            }
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

    /// As [`wait`](Self::wait); if there is anything to wait for, `waits` counts it.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    ///
    /// # Panics
    /// As [`wait`](Self::wait).
    pub fn wait_counted(&self, waits: &Timer, clock: &dyn Clock) -> Result<Checksum, ForestError> {
        if self.is_done() {
            return self.wait();
        }
        let _span = trace_span!(DEBUG, "wait", cause = "a checkpoint on its way");
        waits.time(clock, || self.wait())
    }

    /// Waits until it has ended, whatever came of it.
    pub(crate) fn wait_end(&self) {
        if !self.is_done() {
            self.park.park_until(self.key, &mut || self.is_done());
        }
    }
}
