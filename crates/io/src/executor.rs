//! Every worker comes from here: real threads, the caller itself, or (in `sim`) seeded steps.
//!
//! # Invariants
//! - A job that panics takes no worker with it; whoever waits for it learns through its
//!   [`Promise`](crate::Promise) (test `a_panicking_job_spares_its_worker`).
//! - Dropping a [`ThreadExecutor`] runs what was submitted, then joins its threads.
//!
//! # Not here
//! Waiting for a job: [`Machine::spawn`](crate::Machine::spawn).

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::{IoCause, IoError, Operation};

/// A piece of work.
pub type Job = Box<dyn FnOnce() + Send>;

/// Runs jobs, somewhere, some time.
pub trait Executor: Send + Sync + Debug {
    /// Hands a job over; does not wait for it (but [`InlineExecutor`] runs it before it returns).
    fn submit(&self, job: Job);

    /// How many jobs can run beside the caller; 0 means that `submit` runs them.
    fn workers(&self) -> usize;
}

/// Runs each job at once, in the calling thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct InlineExecutor;

impl Executor for InlineExecutor {
    fn submit(&self, job: Job) {
        job();
    }

    fn workers(&self) -> usize {
        0
    }
}

/// A fixed number of threads that take jobs from one queue, first in, first out.
#[derive(Debug)]
pub struct ThreadExecutor {
    queue: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl ThreadExecutor {
    /// Starts `threads` threads (at least one) named after `name`.
    ///
    /// # Errors
    /// The operating system refuses a thread.
    pub fn new(name: &str, threads: usize) -> Result<Self, IoError> {
        let (queue, jobs) = unbounded::<Job>();
        let threads = spawn_workers(name, threads.max(1), &jobs, |job| {
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                log::error!("a job panicked; its worker goes on");
            }
        })?;
        Ok(Self { queue: Some(queue), threads })
    }
}

impl Executor for ThreadExecutor {
    fn submit(&self, job: Job) {
        let queue = self.queue.as_ref().expect("the queue is open until drop");
        queue.send(job).expect("workers take jobs until the queue is closed");
    }

    fn workers(&self) -> usize {
        self.threads.len()
    }
}

impl Drop for ThreadExecutor {
    fn drop(&mut self) {
        drop(self.queue.take());
        join_workers(&mut self.threads);
    }
}

/// Starts threads that call `work` with everything that comes through `jobs`, until the channel is closed and
/// empty.
pub(crate) fn spawn_workers<J, W>(
    name: &str,
    count: usize,
    jobs: &Receiver<J>,
    work: W,
) -> Result<Vec<JoinHandle<()>>, IoError>
where
    J: Send + 'static,
    W: Fn(J) + Clone + Send + 'static,
{
    (0..count).map(|index| spawn_worker(format!("{name}-{index}"), jobs.clone(), work.clone())).collect()
}

#[expect(clippy::disallowed_methods, reason = "these are the workers that others take")]
fn spawn_worker<J, W>(name: String, jobs: Receiver<J>, work: W) -> Result<JoinHandle<()>, IoError>
where
    J: Send + 'static,
    W: Fn(J) + Send + 'static,
{
    let body = move || jobs.iter().for_each(work);
    thread::Builder::new().name(name).spawn(body).map_err(|error| {
        let cause = error.raw_os_error().map_or(IoCause::Abandoned, IoCause::Os);
        IoError::new(Operation::Spawn, 0, cause)
    })
}

/// Joins all but the calling thread, which may be one of them if a job held the last handle.
pub(crate) fn join_workers(threads: &mut Vec<JoinHandle<()>>) {
    let own = thread::current().id();
    for thread in threads.drain(..).filter(|thread| thread.thread().id() != own) {
        if thread.join().is_err() {
            log::error!("a worker thread panicked");
        }
    }
}
