//! Operations in flight: launched, ended by a step of the scheduler, befallen by faults and the crash.
//!
//! # Invariants
//! - An operation is numbered when it is launched, and ends once.
//! - Nothing overlaps a write in flight, but for reads where that is allowed (asserted at launch).
//!
//! # Not here
//! The bytes: `disk`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::io::Errno;
use smallvec::{SmallVec, smallvec};

use super::disk::{CrashPolicy, Disk, InFlight};
use super::faults::{Faults, Pace, SimFault, Subject};
use super::storage::SimOptions;
use crate::storage::{SharedCounters, assert_write};
use crate::{
    Buffer, Completer, IoCause, IoError, Operation, SECTOR, WriteParts, u64_of, usize_of, write_size,
};

/// What an operation does.
pub(super) enum Action {
    /// `seen` is set at launch: what was there then, if writes may overlap.
    Read {
        buffer: Buffer,
        seen: Option<Box<[u8]>>,
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
    /// When it was submitted.
    pub(super) since: Duration,
}

/// Everything about a simulated file that changes.
pub(super) struct State {
    pub(super) disk: Disk,
    /// What the program believes the file's size to be, in bytes: it differs if somebody else cut the file.
    pub(super) size: u64,
    pub(super) unlinked: bool,
    /// By operation number.
    pub(super) flights: BTreeMap<u64, Flight>,
    /// Those in flight that do not end before they are released.
    pub(super) hung: BTreeSet<u64>,
    pub(super) faults: Faults,
    pub(super) operations: u64,
    pub(super) crash_at: Option<(u64, CrashPolicy)>,
    pub(super) crashed: bool,
    /// Set by the first sync that failed: no later one is believed.
    pub(super) sync_failed: Option<IoCause>,
    pub(super) size_limit: Option<u64>,
    /// Sectors whose space was given up.
    pub(super) holes: BTreeSet<u64>,
    pub(super) allow_overlap: bool,
    /// For what faults leave, and for what a read sees of a write in flight.
    pub(super) rng: fastrand::Rng,
}

/// What the storage and its tasks in the scheduler share.
pub(super) struct Inner {
    pub(super) state: Mutex<State>,
    pub(super) counters: SharedCounters,
    /// An operation that takes longer is slow.
    pub(super) slow: Duration,
}

/// Why an operation did not take off.
pub(super) enum Grounded {
    /// The machine had crashed before.
    Crashed(Box<Flight>),
    /// The machine crashes with this operation in flight.
    Crashing(CrashPolicy),
}

impl Inner {
    /// Takes an operation into flight and numbers it; also gives when it ends.
    pub(super) fn launch(&self, mut flight: Flight) -> Result<(u64, Pace), Grounded> {
        let mut state = self.state.lock();
        if state.crashed {
            return Err(Grounded::Crashed(Box::new(flight)));
        }
        state.assert_no_overlap(flight.offset, flight.action.len(), flight.action.is_write());
        match &mut flight.action {
            Action::Sync { mark } => *mark = state.disk.mark(),
            Action::Write { parts } => {
                let len = assert_write(flight.offset, parts, state.size);
                let hole = state.holes.range(sectors(&(flight.offset..flight.offset + u64_of(len)))).next();
                assert_eq!(hole, None, "space is taken before it is written to");
            }
            Action::Read { buffer, seen } if state.allow_overlap => {
                *seen = state.disk.read(flight.offset, buffer.len()).map(Into::into);
            }
            Action::Read { .. } => {}
        }
        let number = state.number();
        let subject = flight.subject(number);
        let _none = state.flights.insert(number, flight);
        if let Some(policy) = state.crash_due(number) {
            return Err(Grounded::Crashing(policy));
        }
        let size = state.size;
        state.faults.begin(subject, size);
        let pace = state.faults.pace(subject);
        if pace == Pace::Never {
            let _new = state.hung.insert(number);
        }
        Ok((number, pace))
    }

    /// The step in which an operation ends. It is gone already if the machine crashed.
    pub(super) fn complete(&self, number: u64, now: Duration) {
        let mut state = self.state.lock();
        let Some(flight) = state.flights.remove(&number) else {
            return;
        };
        let subject = flight.subject(number);
        let fault = state.faults.outcome(subject);
        let Flight { offset, action, completer, since } = flight;
        if now.saturating_sub(since) > self.slow {
            self.counters.add_slow();
        }
        match action {
            Action::Read { mut buffer, seen } => {
                let result = state.read(offset, &mut buffer, seen.as_deref(), fault);
                drop(state);
                if result.is_ok() {
                    self.counters.add_read(buffer.len());
                }
                completer.end(result, Some(buffer));
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
            // The program does not see what survived: its operations fail, and the size it knows stays.
            state.disk.crash(policy, in_flight);
            state.hung.clear();
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
            Self::Read { buffer, .. } => buffer.len(),
            Self::Write { parts } => write_size(parts),
            Self::Sync { .. } => 0,
        }
    }

    fn operation(&self) -> Operation {
        match self {
            Self::Read { .. } => Operation::Read,
            Self::Write { .. } => Operation::Write,
            Self::Sync { .. } => Operation::Sync,
        }
    }

    fn is_write(&self) -> bool {
        matches!(self, Self::Write { .. })
    }
}

impl Flight {
    fn subject(&self, number: u64) -> Subject {
        let Self { offset, action, .. } = self;
        Subject { number, operation: action.operation(), offset: *offset, len: action.len() }
    }

    /// Ends it; the buffer of a read goes back with it.
    pub(super) fn fail(self, cause: IoCause) {
        let buffer = match self.action {
            Action::Read { buffer, .. } => Some(buffer),
            Action::Write { .. } | Action::Sync { .. } => None,
        };
        self.completer.complete(Err(cause), buffer);
    }

    /// What a write is about to put at this sector, if it covers it.
    fn sector(&self, place: u64) -> Option<&[u8]> {
        let Action::Write { parts } = &self.action else { return None };
        let index = place.checked_sub(self.offset)? / u64_of(SECTOR);
        parts.iter().flat_map(|part| part.bytes().chunks(SECTOR)).nth(usize_of(index))
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
        let disk = Disk::new(image);
        Self {
            size: disk.size(),
            disk,
            unlinked: false,
            flights: BTreeMap::new(),
            hung: BTreeSet::new(),
            faults: Faults::new(options.seed),
            operations: 0,
            crash_at: None,
            crashed: false,
            sync_failed: None,
            size_limit: options.size_limit,
            holes: BTreeSet::new(),
            allow_overlap: options.allow_overlap,
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

    /// Reads may overlap reads, and writes if that is allowed; writes never overlap.
    pub(super) fn assert_no_overlap(&self, offset: u64, len: usize, is_write: bool) {
        let end = offset.saturating_add(u64_of(len));
        for (number, flight) in &self.flights {
            let other_is_write = flight.action.is_write();
            let may_overlap = if self.allow_overlap {
                !(is_write && other_is_write)
            } else {
                !(is_write || other_is_write)
            };
            let flight_end = flight.offset.saturating_add(u64_of(flight.action.len()));
            let overlaps = offset < flight_end && flight.offset < end;
            assert!(
                may_overlap || !overlaps,
                "bytes {offset}..{end} overlap operation {number} in flight on {}..{flight_end}",
                flight.offset,
            );
        }
    }

    /// Is the file still what the program believes it to be?
    pub(super) fn check(&self) -> Result<(), IoError> {
        let failed = |at, cause| Err(IoError::new(Operation::Check, at, cause));
        if self.disk.size() < self.size {
            return failed(self.disk.size(), IoCause::Truncated);
        }
        if self.unlinked {
            return failed(0, IoCause::Unlinked);
        }
        Ok(())
    }

    pub(super) fn resize(&mut self, size: u64) {
        self.disk.resize(size);
        self.size = size;
        let _beyond = self.holes.split_off(&(size / u64_of(SECTOR)));
    }

    pub(super) fn discard(&mut self, range: &Range<u64>) {
        let len = usize_of(range.end - range.start);
        self.assert_no_overlap(range.start, len, false);
        self.disk.write(range.start, vec![0; len].into());
        self.holes.extend(sectors(range));
    }

    pub(super) fn allocate(&mut self, range: &Range<u64>) {
        self.assert_no_overlap(range.start, usize_of(range.end - range.start), false);
        self.holes.retain(|sector| !sectors(range).contains(sector));
    }

    /// `seen` is what was there when the read was submitted.
    pub(super) fn read(
        &mut self,
        offset: u64,
        buffer: &mut [u8],
        seen: Option<&[u8]>,
        fault: Option<SimFault>,
    ) -> Result<(), IoError> {
        let failed = |at, cause| Err(IoError::new(Operation::Read, at, cause));
        match fault {
            Some(SimFault::Fail(cause)) => return failed(offset, cause),
            Some(SimFault::Misdirect(to)) => {
                self.disk.read_clipped(to, buffer);
                return Ok(());
            }
            _ => {}
        }
        if let Some(bad) = self.faults.unreadable(offset, buffer.len()) {
            return failed(bad, IoCause::Os(Errno::IO.raw_os_error()));
        }
        let Some(bytes) = self.disk.read(offset, buffer.len()) else {
            return failed(offset, IoCause::Truncated);
        };
        buffer.copy_from_slice(bytes);
        if self.allow_overlap {
            self.mix(offset, buffer, seen);
        }
        if fault == Some(SimFault::Flip) {
            flip(buffer, &mut self.rng);
        }
        Ok(())
    }

    /// Of a sector that was written while it was read, the seed decides which version the read gives.
    fn mix(&mut self, offset: u64, buffer: &mut [u8], seen: Option<&[u8]>) {
        let Self { flights, rng, .. } = self;
        let seen = seen.unwrap_or_default();
        for (index, sector) in buffer.chunks_mut(SECTOR).enumerate() {
            let place = offset + u64_of(index * SECTOR);
            let mut versions: SmallVec<[&[u8]; 4]> = smallvec![];
            versions.extend(seen.chunks(SECTOR).nth(index));
            versions.extend(flights.values().filter_map(|flight| flight.sector(place)));
            versions.retain(|version| **version != *sector);
            if !versions.is_empty() {
                let drawn = rng.usize(..=versions.len());
                if let Some(version) = versions.get(drawn) {
                    sector.copy_from_slice(version);
                }
            }
        }
    }

    fn write(&mut self, offset: u64, parts: &WriteParts, fault: Option<SimFault>) -> Result<(), IoCause> {
        let mut data = joined(parts);
        let end = offset + u64_of(data.len());
        if end > self.disk.size() {
            // The program does not know that the file was cut: the write makes it longer again.
            self.disk.resize(end);
        }
        match fault {
            Some(SimFault::Lose) => return Ok(()),
            Some(SimFault::Misdirect(to)) => {
                self.disk.write_clipped(to, &data);
                return Ok(());
            }
            Some(SimFault::Fail(cause)) => {
                self.disk.write_torn(offset, &data, &mut self.rng);
                return Err(cause);
            }
            Some(SimFault::Flip) => flip(&mut data, &mut self.rng),
            Some(SimFault::Delay(_) | SimFault::Hang) | None => {}
        }
        self.disk.write(offset, data);
        Ok(())
    }

    fn sync(&mut self, mark: u64, fault: Option<SimFault>) -> Result<(), IoCause> {
        if let Some(SimFault::Fail(cause)) = fault {
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

/// Flips one bit.
fn flip(data: &mut [u8], rng: &mut fastrand::Rng) {
    let at = rng.usize(..data.len());
    let byte = data.get_mut(at).expect("drawn below the length");
    *byte ^= 1 << rng.u32(..8);
}

/// The sectors of a range of bytes.
fn sectors(range: &Range<u64>) -> Range<u64> {
    range.start / u64_of(SECTOR)..range.end.div_ceil(u64_of(SECTOR))
}
