//! Operations in flight: launched, ended by a step of the scheduler, befallen by faults and the crash.
//!
//! # Invariants
//! - An operation is numbered when it is launched, and ends once.
//! - Nothing overlaps a write in flight (asserted at launch).
//!
//! # Not here
//! The bytes: `disk`.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::disk::{CrashPolicy, Disk, InFlight};
use super::storage::SimOptions;
use crate::storage::{SharedCounters, assert_write};
use crate::{Buffer, Completer, IoCause, WriteParts, u64_of, write_size};

/// What befalls an operation.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    Fail(IoCause),
    /// A write that reports success and never happens.
    Lose,
    /// A write that reports success and lands here.
    Misdirect(u64),
}

/// What an operation does.
pub(super) enum Action {
    Read {
        buffer: Buffer,
    },
    Write {
        parts: WriteParts,
    },
    /// `mark` is set at launch.
    Sync {
        mark: u64,
    },
}

/// An operation in flight.
pub(super) struct Flight {
    pub(super) offset: u64,
    pub(super) action: Action,
    pub(super) completer: Completer,
}

/// Everything about a simulated file that changes.
pub(super) struct State {
    pub(super) disk: Disk,
    /// By operation number.
    pub(super) flights: BTreeMap<u64, Flight>,
    pub(super) faults: BTreeMap<u64, Fault>,
    pub(super) operations: u64,
    pub(super) crash_at: Option<(u64, CrashPolicy)>,
    pub(super) crashed: bool,
    /// Set by the first sync that failed: no later one is believed.
    pub(super) sync_failed: Option<IoCause>,
    pub(super) size_limit: Option<u64>,
    /// For the leftovers of failed writes.
    pub(super) rng: fastrand::Rng,
}

/// What the storage and its tasks in the scheduler share.
pub(super) struct Inner {
    pub(super) state: Mutex<State>,
    pub(super) counters: SharedCounters,
}

/// Why an operation did not take off.
pub(super) enum Grounded {
    /// The machine had crashed before.
    Crashed(Box<Flight>),
    /// The machine crashes with this operation in flight.
    Crashing(CrashPolicy),
}

impl Inner {
    /// Takes an operation into flight and numbers it.
    pub(super) fn launch(&self, mut flight: Flight) -> Result<u64, Grounded> {
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
    pub(super) fn complete(&self, number: u64) {
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

    pub(super) fn crash(&self, policy: CrashPolicy) {
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
    pub(super) fn fail(self, cause: IoCause) {
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
    pub(super) fn new(image: Vec<u8>, options: &SimOptions) -> Self {
        Self {
            disk: Disk::new(image),
            flights: BTreeMap::new(),
            faults: BTreeMap::new(),
            operations: 0,
            crash_at: None,
            crashed: false,
            sync_failed: None,
            size_limit: options.size_limit,
            // Another stream than the scheduler's.
            rng: fastrand::Rng::with_seed(options.seed ^ 0x5EED),
        }
    }

    pub(super) fn number(&mut self) -> u64 {
        let number = self.operations;
        self.operations += 1;
        number
    }

    pub(super) fn crash_due(&self, number: u64) -> Option<CrashPolicy> {
        self.crash_at.filter(|(at, _)| number >= *at).map(|(_, policy)| policy)
    }

    /// Reads may overlap reads; nothing else may overlap.
    pub(super) fn assert_no_overlap(&self, offset: u64, len: usize, is_write: bool) {
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

    pub(super) fn read(&self, offset: u64, buffer: &mut [u8], fault: Option<Fault>) -> Result<(), IoCause> {
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
