//! Threads of the system, one for each simulated thread and each job; all but the one with the token stand still.
//!
//! # Not here
//! Who gets the token: `schedule`.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::Arc;
use std::thread;

use super::schedule::SimScheduler;
use super::state::Kind;
use crate::{Job, fresh_key};

thread_local! {
    /// The simulation that this thread of the system takes part in, and as whom.
    static SEAT: Cell<Option<(*const SimScheduler, u64)>> = const { Cell::new(None) };
}

/// A place in a simulation for code from outside; left on drop.
pub(super) struct Seat<'a> {
    scheduler: &'a SimScheduler,
    id: u64,
    before: Option<(*const SimScheduler, u64)>,
}

impl<'a> Seat<'a> {
    pub(super) fn take(scheduler: &'a SimScheduler, id: u64) -> Self {
        let before = SEAT.replace(Some((ptr::from_ref(scheduler), id)));
        Self { scheduler, id, before }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Which thread of this simulation the caller is.
    pub(super) fn current(scheduler: &SimScheduler) -> Option<u64> {
        SEAT.get().filter(|(own, _)| ptr::eq(*own, scheduler)).map(|(_, id)| id)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        SEAT.set(self.before);
        self.scheduler.leave(self.id);
    }
}

/// Simulated threads.
#[derive(Clone, Copy, Debug)]
pub struct SimThreads;

impl SimThreads {
    /// Runs the closures as simulated threads, one at a time as the seed wants it, and returns when all have ended.
    /// To be called from outside the simulation. Jobs that they submitted may still be under way.
    ///
    /// # Panics
    /// If one of them or a job panics (with its message), or if they cannot go on: see
    /// [`SimScheduler`]. Then all of them have ended.
    pub fn run<'a, N: Into<String>>(
        scheduler: &SimScheduler,
        threads: Vec<(N, Box<dyn FnOnce() + Send + 'a>)>,
    ) {
        assert!(Seat::current(scheduler).is_none(), "threads are run from outside the simulation");
        let key = fresh_key();
        let kind = Kind::Run(key);
        let named: Vec<_> = threads.into_iter().map(|(name, body)| (name.into(), body)).collect();
        let ids: Vec<u64> = {
            let mut state = scheduler.state.lock();
            named.iter().map(|(name, _)| state.register(name.as_str().into(), kind, None)).collect()
        };
        start_all(scheduler, ids.into_iter().zip(named), || {
            let _over = scheduler.park(key, None, &mut || {
                !scheduler.state.lock().threads.values().any(|thread| thread.kind == kind)
            });
        });
    }
}

/// Starts threads of the system, each of which waits for its turn, and joins them after `wait`.
#[expect(clippy::disallowed_methods, reason = "the threads of the simulation are threads of the system")]
fn start_all<'a>(
    scheduler: &SimScheduler,
    threads: impl Iterator<Item = (u64, (String, Box<dyn FnOnce() + Send + 'a>))>,
    wait: impl FnOnce(),
) {
    thread::scope(|scope| {
        for (id, (name, body)) in threads {
            let live = move || live(scheduler, id, body);
            let started = thread::Builder::new().name(name).spawn_scoped(scope, live);
            drop(started.expect("the system gives a simulated thread a thread"));
        }
        wait();
    });
}

/// Starts a thread of the system for a job, which has the token.
#[expect(clippy::disallowed_methods, reason = "the threads of the simulation are threads of the system")]
pub(super) fn start_job(scheduler: &Arc<SimScheduler>, id: u64, name: &str, body: Job) {
    let scheduler = Arc::clone(scheduler);
    let live = move || live(&scheduler, id, body);
    let started = thread::Builder::new().name(name.into()).spawn(live);
    drop(started.expect("the system gives a simulated job a thread"));
}

/// The life of a simulated thread.
fn live(scheduler: &SimScheduler, id: u64, body: impl FnOnce()) {
    SEAT.set(Some((ptr::from_ref(scheduler), id)));
    let outcome = match scheduler.begin(id) {
        true => catch_unwind(AssertUnwindSafe(body)),
        false => catch_unwind(AssertUnwindSafe(|| drop(body))),
    };
    scheduler.finish(id, outcome);
    SEAT.set(None);
}
