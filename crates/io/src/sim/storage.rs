//! The simulated file as a [`Storage`]: operations in flight, faults, the crash.
//!
//! Operations are numbered from 0 in the order in which they are submitted (reads of both kinds, writes, syncs,
//! growths, truncations); faults are asked for by that number.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::disk::{CrashPolicy, Disk, InFlight};
use super::schedule::{SimClock, SimExecutor, SimPark, SimScheduler};
use crate::storage::{SharedCounters, assert_read, assert_size, assert_write};
use crate::{
    Buffer, Completer, Completion, Counters, IoCause, IoError, Machine, Operation, Park, Storage, Ticket,
    WriteParts, u64_of, usize_of, write_size,
};

/// How a simulated file behaves.
#[derive(Clone, Debug, Default)]
pub struct SimOptions {
    /// Decides the order of completions.
    pub seed: u64,
    /// The file cannot grow beyond this many bytes.
    pub size_limit: Option<u64>,
}

impl SimOptions {
    /// Defaults with this seed.
    pub fn seeded(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }
}

/// What befalls an operation.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Fail(IoCause),
    /// A write that reports success and never happens.
    Lose,
    /// A write that reports success and lands here.
    Misdirect(u64),
}

enum Action {
    Read { buffer: Buffer },
    Write { parts: WriteParts },
    Sync { mark: u64 },
}

/// An operation in flight.
struct Flight {
    offset: u64,
    action: Action,
    completer: Completer,
}

struct State {
    disk: Disk,
    /// By operation number.
    flights: BTreeMap<u64, Flight>,
    faults: BTreeMap<u64, Fault>,
    operations: u64,
    crash_at: Option<(u64, CrashPolicy)>,
    crashed: bool,
    /// Set by the first sync that failed: no later one is believed.
    sync_failed: Option<IoCause>,
    size_limit: Option<u64>,
    /// For the leftovers of failed writes.
    rng: fastrand::Rng,
}

struct Inner {
    state: Mutex<State>,
    counters: SharedCounters,
}

/// A simulated file.
pub struct SimStorage {
    inner: Arc<Inner>,
    scheduler: Arc<SimScheduler>,
    park: Arc<dyn Park>,
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
        let state = State {
            disk: Disk::new(image),
            flights: BTreeMap::new(),
            faults: BTreeMap::new(),
            operations: 0,
            crash_at: None,
            crashed: false,
            sync_failed: None,
            size_limit: options.size_limit,
            rng: fastrand::Rng::with_seed(options.seed ^ 0x5EED),
        };
        let inner = Arc::new(Inner { state: Mutex::new(state), counters: SharedCounters::default() });
        let park = Arc::new(SimPark::new(Arc::clone(&scheduler)));
        Self { inner, scheduler, park }
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

    /// Lets the operation with this number fail with `cause`. Of a write, some sectors land all the same. After a
    /// failed sync no sync succeeds.
    pub fn inject(&self, operation: u64, cause: IoCause) {
        self.fault(operation, Fault::Fail(cause));
    }

    /// Lets the write with this number report success and never happen. No effect on other operations.
    pub fn lose(&self, operation: u64) {
        self.fault(operation, Fault::Lose);
    }

    /// Lets the write with this number report success and land at `offset` instead (as far as the file goes). No
    /// effect on other operations.
    pub fn misdirect(&self, operation: u64, offset: u64) {
        self.fault(operation, Fault::Misdirect(offset));
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

    fn fault(&self, operation: u64, fault: Fault) {
        let _replaced = self.inner.state.lock().faults.insert(operation, fault);
    }

    fn submit(&self, offset: u64, operation: Operation, action: Action) -> Ticket {
        let (completer, ticket) = Ticket::pair(Arc::clone(&self.park), operation, offset);
        let flight = Flight { offset, action, completer };
        match self.inner.launch(flight) {
            Ok(number) => self.schedule(number),
            Err(Grounded::Crashed(flight)) => flight.fail(IoCause::Crashed),
            Err(Grounded::Crashing(policy)) => self.inner.crash(policy),
        }
        ticket
    }

    fn schedule(&self, number: u64) {
        let inner: Weak<Inner> = Arc::downgrade(&self.inner);
        self.scheduler.add(Box::new(move || {
            if let Some(inner) = inner.upgrade() {
                inner.complete(number);
            }
        }));
    }

    /// An operation that is done when the call returns: numbered, and subject to crash and faults.
    fn at_once(&self, act: impl FnOnce(&mut State) -> Result<(), IoCause>) -> Result<(), IoCause> {
        let mut state = self.inner.state.lock();
        if state.crashed {
            return Err(IoCause::Crashed);
        }
        let number = state.number();
        if let Some(policy) = state.crash_due(number) {
            drop(state);
            self.inner.crash(policy);
            return Err(IoCause::Crashed);
        }
        match state.faults.remove(&number) {
            Some(Fault::Fail(cause)) => Err(cause),
            Some(Fault::Lose | Fault::Misdirect(_)) | None => act(&mut state),
        }
    }
}

/// Why an operation did not take off.
enum Grounded {
    /// The machine had crashed before.
    Crashed(Box<Flight>),
    /// The machine crashes with this operation in flight.
    Crashing(CrashPolicy),
}

impl Inner {
    /// Takes an operation into flight and numbers it.
    fn launch(&self, mut flight: Flight) -> Result<u64, Grounded> {
        let mut state = self.state.lock();
        if state.crashed {
            return Err(Grounded::Crashed(Box::new(flight)));
        }
        if let Action::Sync { mark } = &mut flight.action {
            *mark = state.disk.mark();
        }
        if let Action::Write { parts } = &flight.action {
            let _len = assert_write(flight.offset, parts, state.disk.size());
        }
        state.assert_no_overlap(flight.offset, flight.action.len(), flight.action.is_write());
        let number = state.number();
        let _none = state.flights.insert(number, flight);
        match state.crash_due(number) {
            Some(policy) => Err(Grounded::Crashing(policy)),
            None => Ok(number),
        }
    }

    /// The step in which an operation ends. It is gone already if the machine crashed.
    fn complete(&self, number: u64) {
        let mut state = self.state.lock();
        let Some(Flight { offset, action, completer }) = state.flights.remove(&number) else {
            return;
        };
        let fault = state.faults.remove(&number);
        match action {
            Action::Read { mut buffer } => {
                let result = state.read(offset, &mut buffer, fault);
                drop(state);
                if result.is_ok() {
                    self.counters.add_read(buffer.len());
                }
                completer.complete(result, Some(buffer));
            }
            Action::Write { parts } => {
                let result = state.write(offset, &parts, fault);
                drop(state);
                if result.is_ok() {
                    self.counters.add_write(write_size(&parts));
                }
                drop(parts);
                completer.complete(result, None);
            }
            Action::Sync { mark } => {
                let result = state.sync(mark, fault);
                drop(state);
                if result.is_ok() {
                    self.counters.add_sync();
                }
                completer.complete(result, None);
            }
        }
    }

    fn crash(&self, policy: CrashPolicy) {
        let flights = {
            let mut state = self.state.lock();
            state.crashed = true;
            let flights = std::mem::take(&mut state.flights);
            let in_flight = flights.values().filter_map(Flight::surviving).collect();
            state.disk.crash(policy, in_flight);
            flights
        };
        for flight in flights.into_values() {
            flight.fail(IoCause::Crashed);
        }
    }
}

impl Action {
    fn len(&self) -> usize {
        match self {
            Self::Read { buffer } => buffer.len(),
            Self::Write { parts } => write_size(parts),
            Self::Sync { .. } => 0,
        }
    }

    fn is_write(&self) -> bool {
        matches!(self, Self::Write { .. })
    }
}

impl Flight {
    /// Ends it; the buffer of a read goes back with it.
    fn fail(self, cause: IoCause) {
        let buffer = match self.action {
            Action::Read { buffer } => Some(buffer),
            Action::Write { .. } | Action::Sync { .. } => None,
        };
        self.completer.complete(Err(cause), buffer);
    }

    /// What of it may be on disk although it did not complete.
    fn surviving(&self) -> Option<InFlight> {
        match &self.action {
            Action::Write { parts } => Some(InFlight { offset: self.offset, data: joined(parts) }),
            Action::Read { .. } | Action::Sync { .. } => None,
        }
    }
}

impl State {
    fn number(&mut self) -> u64 {
        let number = self.operations;
        self.operations += 1;
        number
    }

    fn crash_due(&self, number: u64) -> Option<CrashPolicy> {
        self.crash_at.filter(|(at, _)| number >= *at).map(|(_, policy)| policy)
    }

    /// Reads may overlap reads; nothing else may overlap.
    fn assert_no_overlap(&self, offset: u64, len: usize, is_write: bool) {
        let end = offset.saturating_add(u64_of(len));
        for (number, flight) in &self.flights {
            let flight_end = flight.offset.saturating_add(u64_of(flight.action.len()));
            let overlaps = offset < flight_end && flight.offset < end;
            assert!(
                !(overlaps && (is_write || flight.action.is_write())),
                "bytes {offset}..{end} overlap operation {number} in flight on {}..{flight_end}",
                flight.offset,
            );
        }
    }

    fn read(&self, offset: u64, buffer: &mut [u8], fault: Option<Fault>) -> Result<(), IoCause> {
        if let Some(Fault::Fail(cause)) = fault {
            return Err(cause);
        }
        let bytes = self.disk.read(offset, buffer.len()).ok_or(IoCause::Truncated)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write(&mut self, offset: u64, parts: &WriteParts, fault: Option<Fault>) -> Result<(), IoCause> {
        match fault {
            None => self.disk.write(offset, joined(parts)),
            Some(Fault::Lose) => {}
            Some(Fault::Misdirect(to)) => self.disk.write_clipped(to, &joined(parts)),
            Some(Fault::Fail(cause)) => {
                self.disk.write_torn(offset, &joined(parts), &mut self.rng);
                return Err(cause);
            }
        }
        Ok(())
    }

    fn sync(&mut self, mark: u64, fault: Option<Fault>) -> Result<(), IoCause> {
        if let Some(Fault::Fail(cause)) = fault {
            let _first = self.sync_failed.get_or_insert(cause);
        }
        if let Some(cause) = self.sync_failed {
            return Err(cause);
        }
        self.disk.settle(mark);
        Ok(())
    }
}

/// The bytes of all parts, one after another.
fn joined(parts: &WriteParts) -> Box<[u8]> {
    let mut data = Vec::with_capacity(write_size(parts));
    for part in parts {
        data.extend_from_slice(part.bytes());
    }
    data.into_boxed_slice()
}

impl Storage for SimStorage {
    fn size(&self) -> u64 {
        self.inner.state.lock().disk.size()
    }

    fn read(&self, offset: u64, buffer: Buffer) -> Ticket {
        assert_read(offset, &buffer);
        self.submit(offset, Operation::Read, Action::Read { buffer })
    }

    fn write(&self, offset: u64, parts: WriteParts) -> Ticket {
        self.submit(offset, Operation::Write, Action::Write { parts })
    }

    fn sync(&self) -> Ticket {
        self.submit(0, Operation::Sync, Action::Sync { mark: 0 })
    }

    fn read_now(&self, offset: u64, mut buffer: Buffer) -> Completion {
        assert_read(offset, &buffer);
        let result = self.at_once(|state| {
            state.assert_no_overlap(offset, buffer.len(), false);
            state.read(offset, &mut buffer, None)
        });
        if result.is_ok() {
            self.inner.counters.add_read(buffer.len());
        }
        let result = result.map_err(|cause| IoError::new(Operation::Read, offset, cause));
        Completion { result, buffer: Some(buffer) }
    }

    fn grow(&self, size: u64) -> Result<(), IoError> {
        assert_size(size);
        let result = self.at_once(|state| {
            if size <= state.disk.size() {
                return Ok(());
            }
            if state.size_limit.is_some_and(|limit| size > limit) {
                return Err(IoCause::NoSpace);
            }
            state.disk.resize(size);
            Ok(())
        });
        result.map_err(|cause| IoError::new(Operation::Grow, size, cause))
    }

    fn truncate(&self, size: u64) -> Result<(), IoError> {
        assert_size(size);
        let result = self.at_once(|state| {
            let old = state.disk.size();
            assert!(size <= old, "truncation to {size} bytes does not extend");
            state.assert_no_overlap(size, usize_of(old - size), true);
            state.disk.resize(size);
            Ok(())
        });
        result.map_err(|cause| IoError::new(Operation::Truncate, size, cause))
    }

    fn counters(&self) -> Counters {
        self.inner.counters.get()
    }
}

impl fmt::Debug for SimStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.inner.state.lock();
        f.debug_struct("SimStorage")
            .field("size", &state.disk.size())
            .field("operations", &state.operations)
            .field("in_flight", &state.flights.len())
            .field("crashed", &state.crashed)
            .finish_non_exhaustive()
    }
}
