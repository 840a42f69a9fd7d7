//! The four traits together, and jobs that are waited for.

use std::sync::Arc;

use crate::handoff::{Pending, handoff};
use crate::sim::{SimOptions, SimStorage};
use crate::{
    Clock, Executor, InlineExecutor, IoError, MonotonicClock, OsStorage, Park, Storage, ThreadExecutor,
};

/// Everything outside the engine: one file, waits, workers, time.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The data file.
    pub storage: Arc<dyn Storage>,
    /// Every wait.
    pub park: Arc<dyn Park>,
    /// Every worker.
    pub executor: Arc<dyn Executor>,
    /// Every time.
    pub clock: Arc<dyn Clock>,
}

impl Machine {
    /// A simulated machine with an empty file; `seed` decides every order.
    pub fn sim(seed: u64) -> (Self, Arc<SimStorage>) {
        Self::sim_from(Vec::new(), seed)
    }

    /// A simulated machine whose file has these bytes, all durable.
    pub fn sim_from(image: Vec<u8>, seed: u64) -> (Self, Arc<SimStorage>) {
        Self::sim_with(image, SimOptions::seeded(seed))
    }

    /// A simulated machine whose file has these bytes, all durable, and behaves as `options` say.
    pub fn sim_with(image: Vec<u8>, options: SimOptions) -> (Self, Arc<SimStorage>) {
        let storage = Arc::new(SimStorage::from_image(image, options));
        (storage.machine(), storage)
    }

    /// The real machine: a file, and `threads` workers beside the caller (0: the caller does all work itself).
    ///
    /// # Errors
    /// The operating system refuses a thread.
    pub fn os(storage: impl Into<Arc<OsStorage>>, threads: usize) -> Result<Self, IoError> {
        let storage: Arc<OsStorage> = storage.into();
        let executor: Arc<dyn Executor> = match threads {
            0 => Arc::new(InlineExecutor),
            _ => Arc::new(ThreadExecutor::new("understory-work", threads)?),
        };
        let park = storage.park();
        Ok(Self { storage, park, executor, clock: Arc::new(MonotonicClock::new()) })
    }

    /// Starts a job on the executor; [`Join::wait`] gives what it returns.
    pub fn spawn<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Join<T> {
        let (promise, pending) = handoff(Arc::clone(&self.park));
        self.executor.submit(Box::new(move || promise.fulfil(job())));
        Join { pending }
    }
}

/// The claim on what a job returns. May be dropped: the job still runs.
#[derive(Debug)]
#[must_use = "what a job returns is known only from its join"]
pub struct Join<T> {
    pending: Pending<T>,
}

impl<T> Join<T> {
    /// Whether the job has ended: then [`wait`](Self::wait) returns at once.
    pub fn is_done(&self) -> bool {
        self.pending.is_done()
    }

    /// Waits until the job has ended, through the machine's [`Park`].
    ///
    /// # Panics
    /// If the job panicked.
    pub fn wait(self) -> T {
        self.outcome().expect("a job that is joined does not panic")
    }

    /// Waits until the job has ended; `None` if it panicked. For drops, which must not panic.
    pub fn outcome(self) -> Option<T> {
        self.pending.wait()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DirectIo, Options};

    /// The same calls on any machine.
    fn check(machine: &Machine) {
        let joins: Vec<_> = (0..10_u32).map(|job| machine.spawn(move || job * job)).collect();
        let squares: Vec<u32> = joins.into_iter().map(Join::wait).collect();
        assert_eq!(squares, (0..10).map(|job| job * job).collect::<Vec<_>>());
        let before = machine.clock.now();
        machine.storage.sync().wait().result.expect("synced");
        assert!(machine.clock.now() >= before);
    }

    #[test]
    fn jobs_are_joined_on_every_machine() {
        let (sim, _storage) = Machine::sim(1);
        check(&sim);
        let folder = tempfile::tempdir().expect("a folder");
        for threads in [0, 1, 3] {
            let path = folder.path().join(format!("file{threads}"));
            let options = Options { direct: DirectIo::Off, ..Options::default() };
            let storage = OsStorage::create(path, options).expect("created");
            check(&Machine::os(storage, threads).expect("threads"));
        }
    }

    #[test]
    fn a_panic_can_be_asked_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let storage = OsStorage::create(folder.path().join("file"), Options::default()).expect("created");
        let machine = Machine::os(storage, 1).expect("threads");
        assert_eq!(machine.spawn(|| std::panic::resume_unwind(Box::new("on purpose"))).outcome(), None::<()>);
        assert_eq!(machine.spawn(|| 4).outcome(), Some(4));
    }

    #[test]
    #[should_panic(expected = "a job that is joined does not panic")]
    fn a_panic_reaches_who_joins() {
        let folder = tempfile::tempdir().expect("a folder");
        let storage = OsStorage::create(folder.path().join("file"), Options::default()).expect("created");
        let machine = Machine::os(storage, 1).expect("threads");
        machine.spawn(|| std::panic::resume_unwind(Box::new("on purpose"))).wait()
    }
}
