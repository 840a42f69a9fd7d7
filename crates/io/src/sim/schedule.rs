//! Who goes next: a seed decides.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::{Clock, Executor, Job, Park};

/// Tasks that wait for their step, and the seed that chooses.
pub struct SimScheduler {
    state: Mutex<State>,
}

struct State {
    rng: fastrand::Rng,
    tasks: Vec<Job>,
    now: Duration,
    steps: u64,
}

impl SimScheduler {
    /// A scheduler without tasks, at time 0.
    pub fn new(seed: u64) -> Arc<Self> {
        let rng = fastrand::Rng::with_seed(seed);
        let state = State { rng, tasks: Vec::new(), now: Duration::ZERO, steps: 0 };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// Adds a task.
    pub fn add(&self, task: Job) {
        self.state.lock().tasks.push(task);
    }

    /// Runs one task, chosen by the seed, and moves the clock on a little. False if there is none.
    pub fn step(&self) -> bool {
        let Some(task) = self.choose() else {
            return false;
        };
        // Outside the lock: the task may add tasks, and may itself wait and so step.
        task();
        true
    }

    /// Steps until no task is left.
    pub fn run_all(&self) {
        while self.step() {}
    }

    /// Number of tasks that wait.
    pub fn pending(&self) -> usize {
        self.state.lock().tasks.len()
    }

    /// Number of steps so far.
    pub fn steps(&self) -> u64 {
        self.state.lock().steps
    }

    fn choose(&self) -> Option<Job> {
        let mut state = self.state.lock();
        if state.tasks.is_empty() {
            return None;
        }
        let count = state.tasks.len();
        let index = state.rng.usize(..count);
        let took = Duration::from_micros(state.rng.u64(1..=200));
        state.now += took;
        state.steps += 1;
        Some(state.tasks.swap_remove(index))
    }
}

impl fmt::Debug for SimScheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("SimScheduler")
            .field("pending", &state.tasks.len())
            .field("steps", &state.steps)
            .field("now", &state.now)
            .finish_non_exhaustive()
    }
}

/// Waits that step the simulation.
#[derive(Clone, Debug)]
pub struct SimPark {
    scheduler: Arc<SimScheduler>,
}

impl SimPark {
    /// Waits that step this scheduler.
    pub fn new(scheduler: Arc<SimScheduler>) -> Self {
        Self { scheduler }
    }
}

impl Park for SimPark {
    /// # Panics
    /// If the condition does not hold and no task is left that could make it hold.
    fn park_until(&self, key: u64, ready: &mut dyn FnMut() -> bool) {
        while !ready() {
            assert!(
                self.scheduler.step(),
                "deadlock in the simulation: the wait on key {key} cannot end, nothing is in flight or queued",
            );
        }
    }

    fn wake(&self, _key: u64) {
        // Waits evaluate their condition after each step.
    }
}

/// Workers whose jobs run at seeded steps.
#[derive(Clone, Debug)]
pub struct SimExecutor {
    scheduler: Arc<SimScheduler>,
    workers: usize,
}

impl SimExecutor {
    /// Claims to have `workers` workers; jobs run one at a time all the same.
    pub fn new(scheduler: Arc<SimScheduler>, workers: usize) -> Self {
        Self { scheduler, workers }
    }
}

impl Executor for SimExecutor {
    fn submit(&self, job: Job) {
        self.scheduler.add(job);
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
    /// The time of this scheduler.
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
        self.scheduler.state.lock().now
    }
}
