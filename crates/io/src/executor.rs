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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::{ThreadPark, handoff};

    #[test]
    fn inline_runs_before_it_returns() {
        let count = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&count);
        InlineExecutor.submit(Box::new(move || counted.store(1, Ordering::Relaxed)));
        assert_eq!((count.load(Ordering::Relaxed), InlineExecutor.workers()), (1, 0));
    }

    #[test]
    fn drop_runs_what_was_submitted() {
        let count = Arc::new(AtomicU32::new(0));
        let threads = ThreadExecutor::new("test", 3).expect("threads");
        assert_eq!(threads.workers(), 3);
        for _ in 0..500 {
            let counted = Arc::clone(&count);
            threads.submit(Box::new(move || {
                counted.fetch_add(1, Ordering::Relaxed);
            }));
        }
        drop(threads);
        assert_eq!(count.load(Ordering::Relaxed), 500);
    }

    #[test]
    fn a_panicking_job_spares_its_worker() {
        let threads = ThreadExecutor::new("test", 1).expect("threads");
        let (broken, never) = handoff::<u32>(Arc::new(ThreadPark::new()));
        threads.submit(Box::new(move || {
            let _broken = broken;
            std::panic::resume_unwind(Box::new("on purpose"));
        }));
        assert_eq!(never.wait(), None);
        let (promise, pending) = handoff(Arc::new(ThreadPark::new()));
        threads.submit(Box::new(move || promise.fulfil(5)));
        assert_eq!(pending.wait(), Some(5));
    }

    #[test]
    fn a_job_may_hold_the_last_handle() {
        let threads = Arc::new(ThreadExecutor::new("test", 2).expect("threads"));
        let (promise, pending) = handoff(Arc::new(ThreadPark::new()));
        let (go, gone) = handoff(Arc::new(ThreadPark::new()));
        let held = Arc::clone(&threads);
        threads.submit(Box::new(move || {
            let _gone = gone.wait();
            drop(held);
            promise.fulfil(());
        }));
        drop(threads);
        go.fulfil(());
        assert_eq!(pending.wait(), Some(()));
    }
}
