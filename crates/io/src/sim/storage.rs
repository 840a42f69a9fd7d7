//! The simulated file as a [`Storage`], and what a test asks of it.
//!
//! Operations are numbered from 0 in the order in which they are submitted (reads of both kinds, writes, syncs,
//! growths, truncations); faults are asked for by that number.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::disk::CrashPolicy;
use super::faults::{Pace, SimBefallen, SimFault, SimFaultPlan, Subject};
use super::flight::{Action, Flight, Grounded, Inner, State};
use super::parts::{SimClock, SimExecutor, SimPark};
use super::schedule::{Point, SimScheduler};
use super::trace::SimAction;
use crate::storage::{DEADLINE, SLOW, SharedCounters, assert_part, assert_read, assert_size};
use crate::{
    Buffer, Completion, Counters, IoCause, IoError, Job, Machine, Operation, Park, Storage, Ticket,
    WriteParts, u64_of, usize_of,
};

/// How a simulated file behaves.
#[derive(Clone, Debug)]
pub struct SimOptions {
    /// Decides the order of completions.
    pub seed: u64,
    /// The file cannot grow beyond this many bytes.
    pub size_limit: Option<u64>,
    /// Reads may overlap writes in flight: of each sector such a read gives what is there before or after, as the
    /// seed wants it. For readers that notice: of views that have expired, and beside a writer. Else it is a panic.
    pub allow_overlap: bool,
    /// A wait for an operation ends so long after it was submitted (`None`: it does not). In a simulation time moves
    /// on to a deadline as soon as nothing else can be done.
    pub deadline: Option<Duration>,
    /// An operation that takes longer counts as slow.
    pub slow: Duration,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self { seed: 0, size_limit: None, allow_overlap: false, deadline: Some(DEADLINE), slow: SLOW }
    }
}

impl SimOptions {
    /// Defaults with this seed.
    pub fn seeded(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }
}

/// A simulated file.
pub struct SimStorage {
    inner: Arc<Inner>,
    scheduler: Arc<SimScheduler>,
    park: Arc<dyn Park>,
    deadline: Option<Duration>,
}

impl SimStorage {
    /// An empty file with a scheduler of its own.
    pub fn new(options: SimOptions) -> Self {
        Self::from_image(Vec::new(), options)
    }

    /// A file with these bytes, all durable, with a scheduler of its own.
    pub fn from_image(image: Vec<u8>, options: SimOptions) -> Self {
        let scheduler = SimScheduler::new(options.seed);
        Self::with_scheduler(image, options, scheduler)
    }

    /// A file with these bytes, all durable, whose operations complete at steps of `scheduler`.
    pub fn with_scheduler(image: Vec<u8>, options: SimOptions, scheduler: Arc<SimScheduler>) -> Self {
        let state = Mutex::new(State::new(image, &options));
        let SimOptions { deadline, slow, .. } = options;
        let inner = Arc::new(Inner { state, counters: SharedCounters::default(), slow });
        let park = Arc::new(SimPark::new(Arc::clone(&scheduler)));
        Self { inner, scheduler, park, deadline }
    }

    /// A machine around this file: waits step its scheduler, jobs run in it, two workers are claimed.
    pub fn machine(self: &Arc<Self>) -> Machine {
        let scheduler = &self.scheduler;
        let storage: Arc<dyn Storage> = Arc::<Self>::clone(self);
        Machine {
            storage,
            park: Arc::clone(&self.park),
            executor: Arc::new(SimExecutor::new(Arc::clone(scheduler), 2)),
            clock: Arc::new(SimClock::new(Arc::clone(scheduler))),
        }
    }

    /// Who decides what completes next.
    pub fn scheduler(&self) -> Arc<SimScheduler> {
        Arc::clone(&self.scheduler)
    }

    /// The file as a program sees it: every completed write. After a crash: what survived.
    pub fn image(&self) -> Vec<u8> {
        self.inner.state.lock().disk.image().to_vec()
    }

    /// The file after a crash now that keeps nothing unsynced. After a crash: what survived.
    pub fn durable_image(&self) -> Vec<u8> {
        self.inner.state.lock().disk.durable().to_vec()
    }

    /// Number of operations submitted so far: the number that the next one gets.
    pub fn operations(&self) -> u64 {
        self.inner.state.lock().operations
    }

    /// Number of operations in flight.
    pub fn in_flight(&self) -> usize {
        self.inner.state.lock().flights.len()
    }

    /// Crashes the machine when the operation with this number is submitted: it, those in flight and all later
    /// ones fail with [`IoCause::Crashed`].
    pub fn crash_at(&self, operation: u64, policy: CrashPolicy) {
        self.inner.state.lock().crash_at = Some((operation, policy));
    }

    /// Crashes the machine now.
    pub fn crash(&self, policy: CrashPolicy) {
        self.inner.crash(policy);
    }

    /// Sectors of the file whose space was given up.
    pub fn holes(&self) -> u64 {
        u64_of(self.inner.state.lock().holes.len())
    }

    /// Whether the machine has crashed.
    pub fn is_crashed(&self) -> bool {
        self.inner.state.lock().crashed
    }

    /// Flips the bits of `mask` in the byte at `offset`, which stays so until it is overwritten.
    ///
    /// # Panics
    /// If the file has no such byte.
    pub fn corrupt(&self, offset: u64, mask: u8) {
        let mut state = self.inner.state.lock();
        assert!(
            offset < state.disk.size(),
            "byte {offset} lies within the file of {} bytes",
            state.disk.size()
        );
        state.disk.corrupt(offset, mask);
    }

    /// Lets this befall the operation with this number, beside what else was asked for it.
    pub fn befall(&self, operation: u64, fault: SimFault) {
        self.inner.state.lock().faults.ask(operation, fault);
    }

    /// From now on faults befall all operations as this plan draws them; `None` ends that.
    pub fn set_plan(&self, plan: Option<SimFaultPlan>) {
        self.inner.state.lock().faults.set_plan(plan);
    }

    /// What befell operations so far, in order.
    pub fn befallen(&self) -> Vec<SimBefallen> {
        self.inner.state.lock().faults.befallen().to_vec()
    }

    /// Somebody else cuts the file to `size` bytes, durably: the program does not know.
    pub fn cut(&self, size: u64) {
        self.inner.state.lock().disk.cut(size);
    }

    /// Somebody else removes the file's name. Everything works as before; [`Storage::check`] tells.
    pub fn unlink(&self) {
        self.inner.state.lock().unlinked = true;
    }

    /// The machine is started again with what is on disk: what was not synced and what was in flight is gone, unless
    /// a crash before has decided what survived. Ends what still runs in this one.
    pub fn restart(&self, options: SimOptions) -> (Machine, Arc<Self>) {
        if !self.is_crashed() {
            self.crash(CrashPolicy::DropUnsynced);
        }
        self.scheduler.shut_down();
        let (machine, storage) = Machine::sim_with(self.durable_image(), options);
        // Nobody but the file system knows.
        storage.inner.state.lock().holes.clone_from(&self.inner.state.lock().holes);
        (machine, storage)
    }

    /// Lets all operations that hang end at some later step.
    pub fn release_hung(&self) {
        let hung = std::mem::take(&mut self.inner.state.lock().hung);
        hung.into_iter().for_each(|number| self.scheduler.add(self.completion(number)));
    }

    /// From now on reads of these bytes fail with the error number EIO, and name the first sector that is meant;
    /// written or not.
    pub fn add_unreadable(&self, range: Range<u64>) {
        self.inner.state.lock().faults.add_unreadable(range);
    }

    /// All bytes can be read again.
    pub fn clear_unreadable(&self) {
        self.inner.state.lock().faults.clear_unreadable();
    }

    /// Whether reads may overlap writes, from now on: see [`SimOptions::allow_overlap`].
    pub fn set_allow_overlap(&self, allow: bool) {
        self.inner.state.lock().allow_overlap = allow;
    }

    /// Lets the operation with this number fail with `cause`. Of a write, some sectors land all the same. After a
    /// failed sync no sync succeeds.
    pub fn inject(&self, operation: u64, cause: IoCause) {
        self.befall(operation, SimFault::Fail(cause));
    }

    /// Lets the write with this number report success and never happen. No effect on other operations.
    pub fn lose(&self, operation: u64) {
        self.befall(operation, SimFault::Lose);
    }

    /// Lets the write with this number report success and land at `offset` instead (as far as the file goes), or the
    /// read with this number give what is there. No effect on other operations.
    pub fn misdirect(&self, operation: u64, offset: u64) {
        self.befall(operation, SimFault::Misdirect(offset));
    }

    /// From now on the file cannot grow beyond this many bytes.
    pub fn set_size_limit(&self, limit: Option<u64>) {
        self.inner.state.lock().size_limit = limit;
    }

    /// The bookkeeping of the file is sound; holds at any time.
    #[cfg(test)]
    pub(super) fn verify(&self) {
        self.inner.state.lock().disk.verify();
    }

    fn submit(&self, offset: u64, operation: Operation, action: Action) -> Ticket {
        let (completer, ticket) = Ticket::pair(Arc::clone(&self.park), operation, offset);
        let ticket = ticket.with_deadline(self.deadline);
        let flight = Flight { offset, action, completer, since: self.scheduler.now() };
        match self.inner.launch(flight) {
            Ok((number, pace)) => {
                self.scheduler.note(SimAction::Submit { number, operation, offset });
                match pace {
                    Pace::Usual => self.scheduler.add(self.completion(number)),
                    Pace::After(by) => self.scheduler.add_after(by, self.completion(number)),
                    Pace::Never => {}
                }
            }
            Err(Grounded::Crashed(flight)) => flight.fail(IoCause::Crashed),
            Err(Grounded::Crashing(policy)) => self.inner.crash(policy),
        }
        self.scheduler.preempt(Point::Submit);
        ticket
    }

    /// The step in which an operation ends.
    fn completion(&self, number: u64) -> Job {
        let inner: Weak<Inner> = Arc::downgrade(&self.inner);
        let scheduler = Arc::downgrade(&self.scheduler);
        Box::new(move || {
            if let (Some(scheduler), Some(inner)) = (scheduler.upgrade(), inner.upgrade()) {
                scheduler.note(SimAction::Complete(number));
                inner.complete(number, scheduler.now());
            }
        })
    }

    /// An operation that is done when the call returns: numbered, and subject to crash and faults. Others may do
    /// something before it and after.
    fn at_once(
        &self,
        operation: Operation,
        offset: u64,
        len: usize,
        act: impl FnOnce(&mut State, Option<SimFault>) -> Result<(), IoError>,
    ) -> Result<(), IoError> {
        self.scheduler.preempt(Point::Submit);
        let result = self.act_at_once(Subject { number: 0, operation, offset, len }, act);
        self.scheduler.preempt(Point::Submit);
        result
    }

    fn act_at_once(
        &self,
        mut subject: Subject,
        act: impl FnOnce(&mut State, Option<SimFault>) -> Result<(), IoError>,
    ) -> Result<(), IoError> {
        let Subject { operation, offset, .. } = subject;
        let failed = |cause| Err(IoError::new(operation, offset, cause));
        let mut state = self.inner.state.lock();
        if state.crashed {
            return failed(IoCause::Crashed);
        }
        let number = state.number();
        self.scheduler.note(SimAction::Submit { number, operation, offset });
        if let Some(policy) = state.crash_due(number) {
            drop(state);
            self.inner.crash(policy);
            return failed(IoCause::Crashed);
        }
        subject.number = number;
        let size = state.size;
        state.faults.begin(subject, size);
        match state.faults.outcome(subject) {
            Some(SimFault::Fail(cause)) => failed(cause),
            fault => act(&mut state, fault),
        }
    }
}

impl Storage for SimStorage {
    fn size(&self) -> u64 {
        self.inner.state.lock().size
    }

    fn read(&self, offset: u64, buffer: Buffer) -> Ticket {
        assert_read(offset, &buffer);
        self.submit(offset, Operation::Read, Action::Read { buffer, seen: None })
    }

    fn write(&self, offset: u64, parts: WriteParts) -> Ticket {
        self.submit(offset, Operation::Write, Action::Write { parts })
    }

    fn sync(&self) -> Ticket {
        self.submit(0, Operation::Sync, Action::Sync { mark: 0 })
    }

    fn read_now(&self, offset: u64, mut buffer: Buffer) -> Completion {
        assert_read(offset, &buffer);
        let result = self.at_once(Operation::Read, offset, buffer.len(), |state, fault| {
            state.assert_no_overlap(offset, buffer.len(), false);
            state.read(offset, &mut buffer, None, fault)
        });
        if result.is_ok() {
            self.inner.counters.add_read(buffer.len());
        }
        Completion { result, buffer: Some(buffer) }
    }

    fn grow(&self, size: u64) -> Result<(), IoError> {
        assert_size(size);
        self.at_once(Operation::Grow, size, 0, |state, _fault| {
            if size <= state.size {
                return Ok(());
            }
            if state.size_limit.is_some_and(|limit| size > limit) {
                return Err(IoError::new(Operation::Grow, size, IoCause::NoSpace));
            }
            state.resize(size);
            Ok(())
        })
    }

    /// The space is gone at once, and in whatever survives a crash; a write there before [`allocate`](Storage::allocate)
    /// is a panic.
    fn discard(&self, range: Range<u64>) -> Result<(), IoError> {
        self.at_once(Operation::Discard, range.start, 0, |state, _fault| {
            assert_part(&range, state.size);
            state.discard(&range);
            Ok(())
        })
    }

    fn allocate(&self, range: Range<u64>) -> Result<(), IoError> {
        self.at_once(Operation::Allocate, range.start, 0, |state, _fault| {
            assert_part(&range, state.size);
            state.allocate(&range);
            Ok(())
        })
    }

    fn allocated_size(&self) -> u64 {
        let state = self.inner.state.lock();
        state.size - u64_of(state.holes.len()) * u64_of(crate::SECTOR)
    }

    fn is_dense(&self) -> bool {
        self.inner.state.lock().holes.is_empty()
    }

    fn truncate(&self, size: u64) -> Result<(), IoError> {
        assert_size(size);
        self.at_once(Operation::Truncate, size, 0, |state, _fault| {
            let old = state.size;
            assert!(size <= old, "truncation to {size} bytes does not extend");
            state.assert_no_overlap(size, usize_of(old - size), true);
            state.resize(size);
            Ok(())
        })
    }

    fn check(&self) -> Result<(), IoError> {
        self.at_once(Operation::Check, 0, 0, |state, _fault| state.check())
    }

    fn counters(&self) -> Counters {
        self.inner.counters.get()
    }
}

impl fmt::Debug for SimStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.inner.state.lock();
        f.debug_struct("SimStorage")
            .field("size", &state.size)
            .field("operations", &state.operations)
            .field("in_flight", &state.flights.len())
            .field("crashed", &state.crashed)
            .finish_non_exhaustive()
    }
}
