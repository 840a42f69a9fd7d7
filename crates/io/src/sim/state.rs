//! Who can go on, and what is next: the bookkeeping of a simulation, without a thread or a wait of its own.
//!
//! # Invariants
//! - `running` names a thread that is in `threads`, or nobody: then code outside the simulation runs.
//! - A parked thread becomes runnable by a wake of its key, by its time, or by the end of the run; by nothing else.
//! - No job is dropped under the lock of this state: `trash` takes them (their drops may wake).
//!
//! # Not here
//! Handing the token over: `schedule`.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Condvar;

use super::trace::{SimAction, SimEvent, Trace};
use crate::Job;

/// What a panic carries.
pub(super) type Payload = Box<dyn Any + Send>;

/// The name of code that no simulated thread runs.
const OUTSIDE: &str = "outside";

/// How many waits of one unwinding thread may end without what they waited for, before the process is stopped.
const ABANDONED_MAX: u32 = 1000;

/// Steps in which the threads of a failed run have to end.
const RELEASE_STEPS_MAX: u64 = 1_000_000;

/// Who a thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Code outside the simulation, for the time of a wait.
    Guest,
    /// One of the threads that were started together with this key.
    Run(u64),
    /// A job of the executor with this number.
    Job(usize),
}

/// Whether a thread can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Runnable,
    /// Until a wake of the key it watches, or until this time.
    Parked {
        until: Option<Duration>,
    },
}

pub(super) struct Thread {
    pub(super) name: Arc<str>,
    pub(super) kind: Kind,
    pub(super) status: Status,
    /// The key it waits on or is about to.
    watch: Option<u64>,
    /// The key was woken since the condition was evaluated.
    woken: bool,
    /// It was told that the run is over, or panicked by itself.
    pub(super) unwinding: bool,
    /// Its wait can never end; it is told so once.
    abandoned: bool,
    abandoned_count: u32,
    /// A job that no thread runs yet.
    pub(super) body: Option<Job>,
    /// Signalled when the token is for it.
    pub(super) baton: Arc<Condvar>,
}

/// Jobs of one executor: so many run at a time.
struct Queue {
    limit: usize,
    active: usize,
    waiting: VecDeque<Job>,
}

/// Why a run ended before its time.
pub(super) enum Failure {
    /// A thread panicked.
    Panic(String, Payload),
    /// Nothing can go on, or nothing gets on.
    Stuck(String),
    /// Asked for: nobody is to be told.
    ShutDown,
}

/// What is next.
pub(super) enum Next {
    Task(Job),
    Thread(u64),
    /// Nothing is runnable, in flight or queued.
    Nobody,
}

/// What a thread that has the token again is to do.
pub(super) enum Turn {
    Go,
    /// Unwind: the run is over.
    Release,
    /// Return, although the condition does not hold: nothing is left that could change that.
    Abandoned,
    /// Tell the world.
    Fail(Failure),
}

pub(super) struct State {
    pub(super) rng: fastrand::Rng,
    pub(super) now: Duration,
    pub(super) steps: u64,
    pub(super) tasks: Vec<Job>,
    /// Tasks whose time has not come.
    pub(super) delayed: BTreeMap<(Duration, u64), Job>,
    pub(super) threads: BTreeMap<u64, Thread>,
    pub(super) running: Option<u64>,
    pub(super) in_task: bool,
    queues: Vec<Queue>,
    pub(super) preempt_percent: u32,
    pub(super) step_max: Option<u64>,
    /// So long, in real time, may a thread hold the token without a step.
    pub(super) patience: Duration,
    pub(super) failure: Option<Failure>,
    /// The number of steps in which a run that failed must be over.
    release_end: u64,
    /// The token is lost: whoever waits for it panics with this.
    pub(super) broken: Option<String>,
    pub(super) trash: Vec<Job>,
    pub(super) trace: Trace,
    serial: u64,
    jobs: u64,
}

impl State {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(seed),
            now: Duration::ZERO,
            steps: 0,
            tasks: Vec::new(),
            delayed: BTreeMap::new(),
            threads: BTreeMap::new(),
            running: None,
            in_task: false,
            queues: Vec::new(),
            preempt_percent: 20,
            step_max: None,
            patience: Duration::from_secs(60),
            failure: None,
            release_end: u64::MAX,
            broken: None,
            trash: Vec::new(),
            trace: Trace::new(),
            serial: 0,
            jobs: 0,
        }
    }

    /// A number that no other thread or delayed task has.
    fn serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub(super) fn register(&mut self, name: Arc<str>, kind: Kind, body: Option<Job>) -> u64 {
        let id = self.serial();
        let thread = Thread {
            name,
            kind,
            status: Status::Runnable,
            watch: None,
            woken: false,
            unwinding: false,
            abandoned: false,
            abandoned_count: 0,
            body,
            baton: Arc::new(Condvar::new()),
        };
        let _none = self.threads.insert(id, thread);
        id
    }

    pub(super) fn register_guest(&mut self) -> u64 {
        self.register(OUTSIDE.into(), Kind::Guest, None)
    }

    pub(super) fn thread(&mut self, id: u64) -> &mut Thread {
        self.threads.get_mut(&id).expect("a thread is listed until it ends")
    }

    pub(super) fn note(&mut self, id: Option<u64>, action: SimAction) {
        let thread = id.and_then(|id| self.threads.get(&id));
        let thread = thread.map_or(OUTSIDE, |thread| &thread.name);
        let event = SimEvent { step: self.steps, now: self.now, thread, action };
        self.trace.note(id.unwrap_or(0), event);
    }

    pub(super) fn add_delayed(&mut self, by: Duration, task: Job) {
        let serial = self.serial();
        let _none = self.delayed.insert((self.now.saturating_add(by), serial), task);
    }

    /// Number of tasks and jobs that have not started.
    pub(super) fn pending(&self) -> usize {
        let queued: usize = self.queues.iter().map(|queue| queue.waiting.len()).sum();
        let unstarted = self.threads.values().filter(|thread| thread.body.is_some()).count();
        self.tasks.len() + self.delayed.len() + queued + unstarted
    }

    /// A step was taken: time moves on a little.
    fn tick(&mut self) {
        self.steps += 1;
        self.now += Duration::from_micros(self.rng.u64(1..=200));
    }
}

/// Jobs.
impl State {
    /// An executor that runs at most `limit` jobs at a time.
    pub(super) fn add_queue(&mut self, limit: usize) -> usize {
        self.queues.push(Queue { limit, active: 0, waiting: VecDeque::new() });
        self.queues.len() - 1
    }

    fn queue(&mut self, queue: usize) -> &mut Queue {
        self.queues.get_mut(queue).expect("an executor keeps the number it got")
    }

    pub(super) fn submit(&mut self, queue: usize, job: Job) {
        if self.failure.is_some() {
            self.trash.push(job);
            return;
        }
        self.queue(queue).waiting.push_back(job);
        self.activate(queue);
    }

    /// Jobs become threads in the order in which they were submitted, as many as there are workers.
    fn activate(&mut self, index: usize) {
        loop {
            let queue = self.queue(index);
            if queue.active == queue.limit {
                return;
            }
            let Some(job) = queue.waiting.pop_front() else { return };
            queue.active += 1;
            self.jobs += 1;
            let name = format!("job {}", self.jobs);
            let _id = self.register(name.into(), Kind::Job(index), Some(job));
        }
    }

    /// Takes a thread off the list; its worker takes the next job.
    pub(super) fn remove(&mut self, id: u64) -> Thread {
        let thread = self.threads.remove(&id).expect("a thread ends once");
        match thread.kind {
            Kind::Job(queue) => {
                self.queue(queue).active -= 1;
                self.activate(queue);
            }
            Kind::Run(key) => {
                let _woken = self.wake(key);
            }
            Kind::Guest => {}
        }
        thread
    }
}

/// Waits.
impl State {
    /// A wake of `key` from now on is not lost on this thread.
    pub(super) fn watch(&mut self, id: u64, key: u64) {
        let thread = self.thread(id);
        thread.watch = Some(key);
        thread.woken = false;
    }

    pub(super) fn unwatch(&mut self, id: u64) {
        self.thread(id).watch = None;
    }

    /// The condition does not hold: the thread waits for the wake, which may have come meanwhile.
    pub(super) fn sleep(&mut self, id: u64, until: Option<Duration>) {
        let thread = self.thread(id);
        let key = thread.watch.expect("a thread watches a key before it waits on it");
        if !thread.woken {
            thread.status = Status::Parked { until };
            self.note(Some(id), SimAction::Park(key));
        }
    }

    /// A thread from outside lets others go first; it is not chosen itself.
    pub(super) fn rest(&mut self, id: u64) {
        self.thread(id).status = Status::Parked { until: None };
    }

    /// A thread from outside that is in a wait, preferably one that can go on.
    pub(super) fn next_guest(&self) -> Option<u64> {
        let guests = self.threads.iter().filter(|(_, thread)| thread.kind == Kind::Guest);
        guests.min_by_key(|(_, thread)| thread.status != Status::Runnable).map(|(id, _)| *id)
    }

    /// Returns how many threads it woke.
    pub(super) fn wake(&mut self, key: u64) -> usize {
        let mut count = 0;
        for thread in self.threads.values_mut().filter(|thread| thread.watch == Some(key)) {
            thread.woken = true;
            thread.status = Status::Runnable;
            count += 1;
        }
        count
    }
}

/// What is next.
impl State {
    pub(super) fn choose(&mut self) -> Next {
        if let Some(max) = self.step_max.filter(|max| self.steps >= *max && self.failure.is_none()) {
            let text = self.describe(&format!("no progress in the simulation after {max} steps"));
            self.fail(Failure::Stuck(text));
        }
        if self.steps >= self.release_end {
            return self.last_resort();
        }
        loop {
            self.ripen();
            let runnable = self.runnable();
            if !runnable.is_empty() || !self.tasks.is_empty() {
                return self.draw(&runnable);
            }
            if !self.advance() {
                return self.last_resort();
            }
        }
    }

    /// Tasks whose time has come are like others.
    fn ripen(&mut self) {
        while let Some(entry) = self.delayed.first_entry()
            && entry.key().0 <= self.now
        {
            self.tasks.push(entry.remove());
        }
    }

    /// In a run that failed, its own threads end before the world outside hears of it.
    fn runnable(&self) -> Vec<u64> {
        let can_go_on = |thread: &Thread| match thread.status {
            Status::Runnable => true,
            Status::Parked { until } => until.is_some_and(|until| until <= self.now),
        };
        let failed = self.failure.is_some();
        let wanted = |thread: &Thread| can_go_on(thread) && !(failed && thread.kind == Kind::Guest);
        self.threads.iter().filter(|(_, thread)| wanted(thread)).map(|(id, _)| *id).collect()
    }

    fn draw(&mut self, runnable: &[u64]) -> Next {
        let count = self.tasks.len() + runnable.len();
        let index = if count == 1 { 0 } else { self.rng.usize(..count) };
        self.tick();
        match index.checked_sub(self.tasks.len()).and_then(|index| runnable.get(index)) {
            Some(id) => self.grant(*id),
            None => {
                self.note(self.running, SimAction::Task);
                Next::Task(self.tasks.swap_remove(index))
            }
        }
    }

    fn grant(&mut self, id: u64) -> Next {
        self.thread(id).status = Status::Runnable;
        self.note(Some(id), SimAction::Resume);
        Next::Thread(id)
    }

    /// Nothing can be done now: time moves on to when something can. False if that is never.
    fn advance(&mut self) -> bool {
        let failed = self.failure.is_some();
        let ends = self.threads.values().filter(|thread| !(failed && thread.kind == Kind::Guest));
        let ends = ends.filter_map(|thread| match thread.status {
            Status::Runnable => None,
            Status::Parked { until } => until,
        });
        let tasks = self.delayed.keys().map(|(due, _)| *due);
        let Some(next) = ends.chain(tasks).min() else { return false };
        self.now = self.now.max(next);
        true
    }

    /// Nothing can go on. In a run that failed, first those end who wait for what never comes, then the world
    /// outside hears of it.
    fn last_resort(&mut self) -> Next {
        if self.failure.is_none() {
            return Next::Nobody;
        }
        let own = self.threads.iter_mut().find(|(_, thread)| thread.kind != Kind::Guest);
        if let Some((id, thread)) = own {
            let id = *id;
            thread.abandoned = true;
            return self.grant(id);
        }
        match self.threads.keys().next().copied() {
            Some(guest) => self.grant(guest),
            None => Next::Nobody,
        }
    }
}

/// The end of a run before its time.
impl State {
    /// From now on the threads of the simulation are told that it is over; the first cause counts, but a panic
    /// more than the standstill that it brought about.
    pub(super) fn fail(&mut self, failure: Failure) {
        let weaker = matches!(self.failure, None | Some(Failure::Stuck(_) | Failure::ShutDown));
        if self.failure.is_none() || weaker && matches!(failure, Failure::Panic(..)) {
            self.failure = Some(failure);
        }
        self.release_end = self.steps.saturating_add(RELEASE_STEPS_MAX);
        for queue in &mut self.queues {
            self.trash.extend(queue.waiting.drain(..));
        }
        let unstarted: Vec<u64> =
            self.threads.iter().filter(|(_, thread)| thread.body.is_some()).map(|(id, _)| *id).collect();
        for id in unstarted {
            let body = self.remove(id).body;
            self.trash.extend(body);
        }
        for thread in self.threads.values_mut().filter(|thread| thread.kind != Kind::Guest) {
            thread.status = Status::Runnable;
        }
    }

    /// A thread waits in a drop while it unwinds. If that is a panic of its own, the others hear of it now.
    pub(super) fn unwinds(&mut self, id: u64) {
        let thread = self.thread(id);
        if thread.kind == Kind::Guest || std::mem::replace(&mut thread.unwinding, true) {
            return;
        }
        let text = format!("{} panicked in the simulation", thread.name);
        if self.failure.is_none() {
            self.fail(Failure::Stuck(text));
        }
    }

    pub(super) fn panicked(&mut self, name: &str, payload: Payload) {
        let message = payload.downcast_ref::<String>().map(String::as_str);
        let message = message.or(payload.downcast_ref::<&str>().copied()).unwrap_or("(no message)");
        let text = format!("{name} panicked in the simulation: {message}");
        self.fail(Failure::Panic(text, payload));
    }

    /// The token went to `id`: what is it to do? `panicking` says whether it unwinds already.
    pub(super) fn turn(&mut self, id: u64, panicking: bool) -> Turn {
        if let Some(text) = &self.broken {
            return if panicking { Turn::Abandoned } else { Turn::Fail(Failure::Stuck(text.clone())) };
        }
        if self.failure.is_none() {
            return Turn::Go;
        }
        let thread = self.thread(id);
        thread.unwinding |= panicking;
        if thread.kind == Kind::Guest {
            self.release_end = u64::MAX;
            let failure = self.failure.take().expect("asked for above");
            return if panicking { Turn::Abandoned } else { Turn::Fail(failure) };
        }
        if !thread.unwinding {
            return Turn::Release;
        }
        if !std::mem::take(&mut thread.abandoned) {
            return Turn::Go;
        }
        thread.abandoned_count += 1;
        assert!(thread.abandoned_count <= ABANDONED_MAX, "a thread that unwinds waits without end in a drop");
        Turn::Abandoned
    }

    pub(super) fn deadlock(&mut self) {
        let text = self.describe("deadlock in the simulation: nothing is in flight or queued");
        self.fail(Failure::Stuck(text));
    }

    /// A message, and where each thread is.
    pub(super) fn describe(&self, what: &str) -> String {
        let mut text = what.to_owned();
        for thread in self.threads.values() {
            let name = &thread.name;
            let _ok = match (thread.status, thread.watch) {
                (Status::Parked { .. }, Some(key)) => {
                    write!(text, "; {name}: the wait on key {key} cannot end")
                }
                (Status::Parked { .. }, None) => write!(text, "; {name}: waits"),
                (Status::Runnable, Some(key)) => write!(text, "; {name}: looks at its wait on key {key}"),
                (Status::Runnable, None) if thread.body.is_some() => write!(text, "; {name}: not started"),
                (Status::Runnable, None) => write!(text, "; {name}: can go on"),
            };
        }
        text
    }
}
