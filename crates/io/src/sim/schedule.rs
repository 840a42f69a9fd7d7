//! Who goes next: a seed decides, and one goes at a time.
//!
//! Whatever runs in a simulation holds its one *token*: a simulated thread (see [`SimThreads`](super::SimThreads)), a
//! job of a [`SimExecutor`](super::SimExecutor), or code outside the simulation, such as a test, for the time of its
//! waits. Each is a thread of the system, and all but one of them stand still. Who waits through a
//! [`SimPark`](super::SimPark) gives the token away: the seed chooses a task, which runs at once on the stack of who
//! waits, or a thread that can go on, which gets the token. A simulated thread may also lose it when it wakes others
//! or submits something: then it was interrupted and goes on later.
//!
//! A thread that waits can go on after a wake of its key only, so that a wake that is missing is found.
//!
//! # Invariants
//! - The same seed and the same calls give the same order: [`SimScheduler::trace_hash`] tells (test
//!   `one_seed_one_interleaving`).
//! - If nothing can go on, or nothing gets on in as many steps as were allowed, that is a panic with a list of all
//!   threads and their waits. A panic in one thread ends the others: their waits unwind. The first panic is repeated
//!   outside, in the wait that ran the simulation.
//! - A thread that is stopped by something else than a wait is found by the clock of the real world, after a minute
//!   (test `a_lock_across_an_interruption_is_found`).
//!
//! # Not here
//! The choice: `state`. Threads of the system: `threads`.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Weak};
use std::thread::panicking;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::state::{Failure, Kind, Next, Payload, State, Turn};
use super::threads::{Seat, start_job};
use super::trace::{SimAction, SimEvent};
use crate::Job;

/// What unwinds threads whose run is over.
struct Released;

/// Where a thread may be interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Point {
    /// It woke others, perhaps in a drop: nothing ends here.
    Wake,
    /// It submitted something or is about to: if the run is over, it ends here.
    Submit,
}

/// The simulation: tasks, threads, time, and the seed that chooses.
pub struct SimScheduler {
    pub(super) state: Mutex<State>,
    own: Weak<Self>,
}

impl SimScheduler {
    /// A scheduler without tasks, at time 0.
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new_cyclic(|own| Self { state: Mutex::new(State::new(seed)), own: Weak::clone(own) })
    }

    /// Adds a task. It runs on the stack of whoever waits and must not wait itself.
    pub fn add(&self, task: Job) {
        self.state.lock().tasks.push(task);
    }

    /// Adds a task that does not run before `by` has passed.
    pub fn add_after(&self, by: Duration, task: Job) {
        self.state.lock().add_delayed(by, task);
    }

    /// Runs one task, or lets a job or thread go on, chosen by the seed. False if there is none. To be called from
    /// outside the simulation.
    ///
    /// # Panics
    /// If what ran panicked.
    pub fn step(&self) -> bool {
        let seat = self.enter();
        let mut state = self.state.lock();
        state.rest(seat.id());
        let next = state.choose();
        state.thread(seat.id()).status = super::state::Status::Runnable;
        match next {
            Next::Nobody => return false,
            Next::Task(task) => Self::run_task(&mut state, task),
            Next::Thread(id) => {
                self.pass(&mut state, id);
                let turn = self.regain(&mut state, seat.id());
                drop(state);
                if let Turn::Fail(failure) = turn {
                    raise(failure);
                }
            }
        }
        true
    }

    /// Steps until no task is left and all threads are done or wait.
    ///
    /// # Panics
    /// If what ran panicked.
    pub fn run_all(&self) {
        while self.step() {}
    }

    /// Lets the seed decide whether others go on first; for code of a simulated thread that neither waits nor
    /// submits. Nothing outside the simulation.
    pub fn pause(&self) {
        self.preempt(Point::Submit);
    }

    /// Number of tasks and jobs that have not started.
    pub fn pending(&self) -> usize {
        self.state.lock().pending()
    }

    /// Number of steps so far: tasks, and threads that got the token.
    pub fn steps(&self) -> u64 {
        self.state.lock().steps
    }

    /// A hash of all that happened so far: equal for two runs that did the same.
    pub fn trace_hash(&self) -> u64 {
        self.state.lock().trace.hash
    }

    /// Shows every event to `hook` from now on. It must not call the simulation.
    pub fn set_trace(&self, hook: impl FnMut(SimEvent<'_>) + Send + 'static) {
        self.state.lock().trace.hook = Some(Box::new(hook));
    }

    /// How likely a simulated thread or job is interrupted when it wakes others or submits something, in percent
    /// (20 at first). Threads always change at waits.
    pub fn set_preempt_percent(&self, percent: u32) {
        self.state.lock().preempt_percent = percent;
    }

    /// After this many steps in all, the simulation panics because nothing gets on (`None`, as at first: never).
    pub fn set_step_max(&self, max: Option<u64>) {
        self.state.lock().step_max = max;
    }

    /// After so long a time of the real world (a minute at first) without a step, all threads that stand still panic:
    /// the one that runs waits outside [`Park`](crate::Park), or for a lock that one of them holds.
    pub fn set_patience(&self, patience: Duration) {
        self.state.lock().patience = patience;
    }

    /// Ends all jobs and simulated threads: their waits unwind, jobs that have not started are dropped. Threads of
    /// the system are left behind by a simulation that is forgotten while jobs wait in it, so a test that makes many
    /// calls this. To be called from outside the simulation.
    ///
    /// # Panics
    /// If one of them panics of its own.
    pub fn shut_down(&self) {
        let seat = self.enter();
        let mut state = self.state.lock();
        state.fail(Failure::ShutDown);
        match self.switch(state, seat.id()) {
            Turn::Fail(Failure::ShutDown) | Turn::Go | Turn::Abandoned | Turn::Release => {}
            Turn::Fail(failure) => raise(failure),
        }
    }

    /// A handle for a thread of the system.
    pub(super) fn own(&self) -> Arc<Self> {
        self.own.upgrade().expect("a scheduler is only made within an Arc")
    }

    pub(super) fn now(&self) -> Duration {
        self.state.lock().now
    }

    /// A job for the executor with this number.
    pub(super) fn submit(&self, queue: usize, job: Job) {
        let mut state = self.state.lock();
        state.submit(queue, job);
        Self::empty_trash(&mut state);
    }

    pub(super) fn note(&self, action: SimAction) {
        let mut state = self.state.lock();
        let id = state.running;
        state.note(id, action);
    }

    /// Waits on `key` until `ready` gives true, at the latest until `until`. Returns what it gave.
    pub(super) fn park(&self, key: u64, until: Option<Duration>, ready: &mut dyn FnMut() -> bool) -> bool {
        if let Some(me) = Seat::current(self) {
            return self.wait(me, key, until, ready);
        }
        if ready() {
            return true;
        }
        let seat = self.enter();
        self.wait(seat.id(), key, until, ready)
    }

    fn wait(&self, me: u64, key: u64, until: Option<Duration>, ready: &mut dyn FnMut() -> bool) -> bool {
        loop {
            {
                let mut state = self.state.lock();
                assert!(!state.in_task, "a task of the simulation does not wait");
                if panicking() {
                    state.unwinds(me);
                }
                state.watch(me, key);
            }
            let is_ready = ready();
            let mut state = self.state.lock();
            if is_ready || until.is_some_and(|until| until <= state.now) {
                state.unwatch(me);
                drop(state);
                self.preempt(Point::Wake);
                return is_ready;
            }
            state.sleep(me, until);
            match self.switch(state, me) {
                Turn::Go => {}
                Turn::Abandoned => return false,
                Turn::Release => self.release(me),
                Turn::Fail(failure) => raise(failure),
            }
        }
    }

    /// Makes the threads that wait on `key` look again.
    pub(super) fn wake(&self, key: u64) {
        {
            let mut state = self.state.lock();
            let count = state.wake(key);
            if count > 0 {
                let id = state.running;
                state.note(id, SimAction::Wake(count));
            }
            Self::grant_guest(&mut state);
        }
        self.preempt(Point::Wake);
    }

    /// A point at which a simulated thread may be interrupted.
    pub(super) fn preempt(&self, point: Point) {
        let Some(me) = Seat::current(self) else { return };
        // Nobody sees what a panic leaves before it is known that there was one.
        if panicking() {
            return;
        }
        let mut state = self.state.lock();
        let percent = state.preempt_percent;
        if state.in_task || state.thread(me).kind == Kind::Guest || state.rng.u32(0..100) >= percent {
            return;
        }
        state.note(Some(me), SimAction::Preempt);
        match self.switch(state, me) {
            Turn::Release if point == Point::Submit => self.release(me),
            Turn::Fail(failure) => raise(failure),
            Turn::Go | Turn::Abandoned | Turn::Release => {}
        }
    }

    fn release(&self, me: u64) -> ! {
        {
            let mut state = self.state.lock();
            state.unwatch(me);
            state.thread(me).unwinding = true;
        }
        resume_unwind(Box::new(Released));
    }
}

/// The token.
impl SimScheduler {
    /// Gives the token away until it comes back.
    fn switch(&self, mut state: MutexGuard<'_, State>, me: u64) -> Turn {
        loop {
            Self::empty_trash(&mut state);
            if state.broken.is_some() {
                return state.turn(me, panicking());
            }
            match state.choose() {
                Next::Task(task) => Self::run_task(&mut state, task),
                Next::Thread(id) if id == me => return state.turn(me, panicking()),
                Next::Thread(id) => {
                    self.pass(&mut state, id);
                    return self.regain(&mut state, me);
                }
                Next::Nobody => state.deadlock(),
            }
        }
    }

    /// A task runs here and now. Its panic ends the run like that of a thread.
    fn run_task(state: &mut MutexGuard<'_, State>, task: Job) {
        state.in_task = true;
        let outcome = MutexGuard::unlocked(state, || catch_unwind(AssertUnwindSafe(task)));
        state.in_task = false;
        if let Err(payload) = outcome {
            state.panicked("a task", payload);
        }
    }

    /// Drops what the end of the run left, without the lock: drops may wake.
    fn empty_trash(state: &mut MutexGuard<'_, State>) {
        if !state.trash.is_empty() {
            let trash = std::mem::take(&mut state.trash);
            state.in_task = true;
            MutexGuard::unlocked(state, || drop(trash));
            state.in_task = false;
        }
    }

    /// Hands the token to a thread.
    fn pass(&self, state: &mut MutexGuard<'_, State>, id: u64) {
        state.running = Some(id);
        let thread = state.thread(id);
        match thread.body.take() {
            Some(body) => start_job(&self.own(), id, &thread.name, body),
            None => drop(thread.baton.notify_one()),
        }
    }

    /// Waits for the token.
    fn regain(&self, state: &mut MutexGuard<'_, State>, me: u64) -> Turn {
        let baton = Arc::clone(&state.thread(me).baton);
        while state.running != Some(me) && state.broken.is_none() {
            let (steps, patience) = (state.steps, state.patience);
            let late = baton.wait_for(state, patience).timed_out();
            if late && state.steps == steps && state.running.is_some_and(|id| id != me) {
                Self::break_down(state);
            }
        }
        state.turn(me, panicking())
    }

    /// The thread with the token is stopped by something that is not a wait of the simulation: all others give up.
    fn break_down(state: &mut State) {
        let name =
            state.running.and_then(|id| state.threads.get(&id)).map_or("nobody", |thread| &thread.name);
        let patience = state.patience;
        let text = format!(
            "the simulation stands still: {name} holds the token and made no step in {patience:?}. Does it wait \
             outside Park, or for a lock of a thread that was interrupted"
        );
        state.broken = Some(state.describe(&text));
        for thread in state.threads.values() {
            let _woken = thread.baton.notify_one();
        }
    }

    /// Waits for the first turn of a new thread. False if it is not to run at all.
    pub(super) fn begin(&self, me: u64) -> bool {
        let mut state = self.state.lock();
        matches!(self.regain(&mut state, me), Turn::Go)
    }

    /// A thread has ended: the token goes on.
    pub(super) fn finish(&self, me: u64, outcome: Result<(), Payload>) {
        let mut state = self.state.lock();
        state.note(Some(me), SimAction::End);
        let thread = state.remove(me);
        if let Err(payload) = outcome
            && !payload.is::<Released>()
        {
            state.panicked(&thread.name, payload);
        }
        if state.broken.is_some() {
            return;
        }
        loop {
            Self::empty_trash(&mut state);
            match state.choose() {
                Next::Task(task) => Self::run_task(&mut state, task),
                Next::Thread(id) => return self.pass(&mut state, id),
                Next::Nobody if state.threads.is_empty() => break,
                Next::Nobody => state.deadlock(),
            }
        }
        state.running = None;
    }

    /// Takes part from outside, until the seat is dropped.
    fn enter(&self) -> Seat<'_> {
        let mut state = self.state.lock();
        let id = state.register_guest();
        let seat = Seat::take(self, id);
        match state.running {
            None => state.running = Some(id),
            // Another thread of the real world is in a wait.
            Some(_) => {
                let baton = Arc::clone(&state.thread(id).baton);
                while state.running != Some(id) && state.broken.is_none() {
                    baton.wait(&mut state);
                }
            }
        }
        drop(state);
        seat
    }

    /// Ends what `enter` began.
    pub(super) fn leave(&self, id: u64) {
        let mut state = self.state.lock();
        let _guest = state.remove(id);
        if state.running == Some(id) {
            state.running = None;
        }
        Self::grant_guest(&mut state);
    }

    /// Threads of the real world do not wait for one another: if one leaves the simulation, another that is in a
    /// wait runs it on.
    fn grant_guest(state: &mut State) {
        if state.running.is_none()
            && let Some(id) = state.next_guest()
        {
            state.running = Some(id);
            let _woken = state.thread(id).baton.notify_one();
        }
    }
}

/// Repeats outside what ended the run.
fn raise(failure: Failure) -> ! {
    match failure {
        Failure::Panic(text, payload) if payload.is::<String>() || payload.is::<&str>() => panic!("{text}"),
        Failure::Panic(_, payload) => resume_unwind(payload),
        Failure::Stuck(text) => panic!("{text}"),
        Failure::ShutDown => resume_unwind(Box::new(Released)),
    }
}

impl fmt::Debug for SimScheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("SimScheduler")
            .field("pending", &state.pending())
            .field("threads", &state.threads.len())
            .field("steps", &state.steps)
            .field("now", &state.now)
            .finish_non_exhaustive()
    }
}
