//! The simulation as waits, workers and time.
//!
//! # Not here
//! The file: `storage`. What is decided: `schedule`.

use std::sync::Arc;
use std::time::Duration;

use super::schedule::{Point, SimScheduler};
use crate::{Clock, Executor, Job, Park};

/// Waits that run the simulation.
#[derive(Clone, Debug)]
pub struct SimPark {
    scheduler: Arc<SimScheduler>,
}

impl SimPark {
    /// Waits that run this simulation.
    pub fn new(scheduler: Arc<SimScheduler>) -> Self {
        Self { scheduler }
    }
}

impl Park for SimPark {
    /// # Panics
    /// If nothing is left that could end any wait: a deadlock, or a wake that is missing. Outside the simulation also
    /// if a simulated thread or job panicked.
    fn park_until(&self, key: u64, ready: &mut dyn FnMut() -> bool) {
        let _ready = self.scheduler.park(key, None, ready);
    }

    fn wake(&self, key: u64) {
        self.scheduler.wake(key);
    }

    fn now(&self) -> Duration {
        self.scheduler.now()
    }

    /// # Panics
    /// As [`park_until`](Self::park_until), but a wait with a deadline can always end.
    fn park_until_deadline(&self, key: u64, deadline: Duration, ready: &mut dyn FnMut() -> bool) -> bool {
        self.scheduler.park(key, Some(deadline), ready)
    }
}

/// Workers whose jobs are simulated threads.
#[derive(Clone, Debug)]
pub struct SimExecutor {
    scheduler: Arc<SimScheduler>,
    workers: usize,
    queue: usize,
}

impl SimExecutor {
    /// As many jobs as there are workers (at least one) are under way together; they start in the order in which they
    /// were submitted. One runs at a time, as everything does in a simulation.
    pub fn new(scheduler: Arc<SimScheduler>, workers: usize) -> Self {
        let workers = workers.max(1);
        let queue = scheduler.state.lock().add_queue(workers);
        Self { scheduler, workers, queue }
    }
}

impl Executor for SimExecutor {
    fn submit(&self, job: Job) {
        self.scheduler.submit(self.queue, job);
        self.scheduler.preempt(Point::Submit);
    }

    fn workers(&self) -> usize {
        self.workers
    }
}

/// Simulated time: steps move it, and whoever wants to.
#[derive(Clone, Debug)]
pub struct SimClock {
    scheduler: Arc<SimScheduler>,
}

impl SimClock {
    /// The time of this simulation.
    pub fn new(scheduler: Arc<SimScheduler>) -> Self {
        Self { scheduler }
    }

    /// Moves the time on.
    pub fn advance(&self, by: Duration) {
        self.scheduler.state.lock().now += by;
    }
}

impl Clock for SimClock {
    fn now(&self) -> Duration {
        self.scheduler.now()
    }
}
