//! What stands between the engine and its simulated file: sees every operation, brings the faults, keeps the trace.
//!
//! # Invariants
//! - An operation is forwarded once, or refused here.
//!
//! # Not here
//! Which faults: `fault`. What a crash keeps: the simulated storage.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use understory_io::{
    Buffer, Completion, Counters, IoCause, IoError, Operation, SECTOR, SimFault, SimStorage, Storage, Ticket,
    WriteParts, write_size,
};

use crate::fault::{Fault, Rot, Target, Trigger};
use crate::trace::Trace;
use crate::watch::Watch;
use crate::zone::{Zone, Zones};

/// What went wrong with the storage so far in a life. The oracle allows what follows from it, and nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Harm {
    /// The machine crashed.
    pub(crate) crashed: bool,
    /// A read failed, once.
    pub(crate) read_failed: bool,
    /// A write, a sync or a growth failed.
    pub(crate) write_failed: bool,
    /// There was no space, for a while.
    pub(crate) was_full: bool,
    /// Bytes of the file are not what was written.
    pub(crate) damaged: bool,
    /// In so many places bytes of the ring, since it was last read from end to end.
    pub(crate) ring_places: usize,
    /// So are bytes of the superblock's copies.
    pub(crate) superblock_damaged: bool,
}

impl Harm {
    /// What of it is still so after a restart.
    pub(crate) fn that_lasts(self) -> Self {
        let Self { damaged, ring_places, superblock_damaged, .. } = self;
        Self { damaged, ring_places, superblock_damaged, ..Self::default() }
    }
}

/// The storage of one life.
#[derive(Debug)]
pub(crate) struct Tap {
    inner: Arc<SimStorage>,
    zones: Zones,
    trace: Arc<Trace>,
    watch: Arc<Mutex<Watch>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    triggers: Vec<Trigger>,
    counts: BTreeMap<Target, u64>,
    harm: Harm,
    /// The copy of the superblock that faults may befall.
    copy: u8,
    rng: fastrand::Rng,
    /// Growths that will be refused yet.
    refusals: u32,
    /// What each operation was.
    targets: Vec<Target>,
    /// What happened, for counts over many seeds.
    events: BTreeMap<&'static str, u64>,
}

/// What is done with an operation.
enum Course {
    Forward,
    /// A read of other bytes.
    Elsewhere(u64),
    Fail(IoCause),
}

impl Tap {
    /// A tap over `inner`, with these faults to come.
    pub(crate) fn new(
        inner: Arc<SimStorage>,
        zones: Zones,
        triggers: Vec<Trigger>,
        copy: u8,
        harm: Harm,
        trace: Arc<Trace>,
        watch: Arc<Mutex<Watch>>,
    ) -> Self {
        let rng = fastrand::Rng::with_seed(u64::from(copy) ^ inner.scheduler().trace_hash());
        let state = State {
            triggers,
            counts: BTreeMap::new(),
            harm,
            copy,
            rng,
            refusals: 0,
            targets: Vec::new(),
            events: BTreeMap::new(),
        };
        Self { inner, zones, trace, watch, state: Mutex::new(state) }
    }

    /// What went wrong so far.
    pub(crate) fn harm(&self) -> Harm {
        let mut harm = self.state.lock().harm;
        harm.crashed = self.inner.is_crashed();
        harm
    }

    /// The ring was read from end to end, and is as it should be.
    pub(crate) fn ring_is_good(&self) {
        self.state.lock().harm.ring_places = 0;
    }

    /// What each operation was, in order.
    pub(crate) fn take_targets(&self) -> Vec<Target> {
        std::mem::take(&mut self.state.lock().targets)
    }

    /// What happened, counted.
    pub(crate) fn events(&self) -> BTreeMap<&'static str, u64> {
        self.state.lock().events.clone()
    }

    /// An operation is asked for: counts it, finds its faults, and brings those that are about more than itself.
    fn course(&self, operation: Operation, offset: u64, size: usize) -> Course {
        #[expect(clippy::wildcard_enum_match_arm, reason = "what is left changes the size of the file")]
        let target = match operation {
            Operation::Read => Target::Read,
            Operation::Write => Target::Write(self.zones.of(offset)),
            Operation::Sync => Target::Sync,
            _ => Target::Grow,
        };
        let due = self.state.lock().due(target);
        let number = self.inner.operations();
        self.trace.note(&[number, offset, u64::try_from(size).unwrap_or(u64::MAX)], || {
            let due = if due.is_empty() { String::new() } else { format!(" -- {due:?}") };
            format!("    io {number}: {operation} {size} bytes at {offset} ({target:?}){due}")
        });
        due.into_iter()
            .fold(Course::Forward, |course, fault| self.befall(fault, target, offset, size).unwrap_or(course))
    }

    /// Brings one fault.
    #[expect(clippy::too_many_lines, reason = "an arm for each fault, and nothing else")]
    fn befall(&self, fault: Fault, target: Target, offset: u64, size: usize) -> Option<Course> {
        let number = self.inner.operations();
        let here = self.zones.of(offset);
        let is_spared = matches!(target, Target::Write(Zone::Superblock)) && !self.is_fair(offset);
        let mut state = self.state.lock();
        match fault {
            Fault::Crash(policy) => {
                state.count("crash");
                self.inner.crash_at(number, policy);
            }
            Fault::Fail(cause) => {
                state.count(if target == Target::Read {
                    "failed read"
                } else {
                    "failed write, sync or growth"
                });
                state.failed(target);
                if matches!(target, Target::Write(_) | Target::Sync) {
                    self.inner.inject(number, cause);
                    return None;
                }
                return Some(Course::Fail(cause));
            }
            Fault::Lose | Fault::Misdirect(_) | Fault::Flip if is_spared => {}
            Fault::Lose => {
                state.count("lost write");
                state.damage(&[here]);
                self.inner.lose(number);
            }
            Fault::Misdirect(zone) => {
                if let Some(to) = self.place(&mut state, zone) {
                    state.count("misdirected write");
                    state.damage(&[here, zone]);
                    self.inner.misdirect(number, to);
                }
            }
            Fault::Flip => {
                state.count("flipped bit in a read or write");
                state.damage(&[self.zones.of(offset)]);
                self.inner.befall(number, SimFault::Flip);
            }
            Fault::Unreadable(zone) => {
                if let Some(place) = self.place(&mut state, zone) {
                    state.count("unreadable sector");
                    state.damage(&[zone]);
                    state.harm.read_failed = true;
                    self.inner.add_unreadable(place..place + 1);
                }
            }
            Fault::MisdirectRead => return self.misdirect_read(&mut state, offset, size),
            Fault::Rot(zone, rot) => self.rot(&mut state, zone, rot),
            Fault::Full(refusals) => {
                state.count("full file");
                state.harm.was_full = true;
                state.refusals = refusals;
            }
            Fault::Delay(micros) => {
                state.count("delay");
                self.inner.befall(number, SimFault::Delay(Duration::from_micros(micros)));
            }
            Fault::Hang => {
                state.count("operation that hangs");
                state.failed(target);
                self.inner.befall(number, SimFault::Hang);
            }
            Fault::Cut(zone) => {
                if let Some(place) = self.place(&mut state, zone) {
                    state.count("file cut");
                    state.damage(&[zone]);
                    self.inner.cut(place);
                }
            }
        }
        None
    }

    /// Whether a write hits the one copy of the superblock that may be damaged.
    fn is_fair(&self, offset: u64) -> bool {
        let copy = self.state.lock().copy;
        let range = self.zones.range(Zone::Superblock, copy, self.inner.size());
        range.is_some_and(|range| range.contains(&offset))
    }

    /// A sector of a zone that no operation in flight is about.
    fn place(&self, state: &mut State, zone: Zone) -> Option<u64> {
        // What of the file is there: somebody may have cut it.
        let size = understory_format::u64_of(self.inner.image().len());
        let range = self.zones.range(zone, state.copy, size)?;
        let sector = u64::try_from(SECTOR).ok()?;
        let count = (range.end - range.start) / sector;
        (count > 0).then(|| range.start + state.rng.u64(0..count) * sector)
    }

    fn misdirect_read(&self, state: &mut State, offset: u64, size: usize) -> Option<Course> {
        let size = u64::try_from(size).ok()?;
        let last = understory_format::u64_of(self.inner.image().len()).checked_sub(size)?;
        let sector = u64::try_from(SECTOR).ok()?;
        let to = state.rng.u64(0..=last / sector) * sector;
        if to == offset {
            return None;
        }
        state.count("misdirected read");
        state.damage(&[self.zones.of(offset)]);
        Some(Course::Elsewhere(to))
    }

    fn filled(&self, from: u64, mut buffer: Buffer) -> Buffer {
        let image = self.inner.image();
        let start = usize::try_from(from).expect("a simulated file is small");
        let bytes = image.get(start..start + buffer.len()).expect("the place was chosen within the file");
        buffer.copy_from_slice(bytes);
        buffer
    }

    fn rot(&self, state: &mut State, zone: Zone, rot: Rot) {
        let Some(place) = self.place(state, zone) else { return };
        let other = self.place(state, zone).unwrap_or(place);
        state.count(match rot {
            Rot::Bit => "flipped bit",
            Rot::Zero => "zeroed sector",
            Rot::Swap => "swapped sectors",
        });
        state.damage(&[zone]);
        if rot == Rot::Swap {
            state.damage(&[zone]);
        }
        let bit = (state.rng.usize(0..SECTOR), 1 << state.rng.u8(0..8));
        rot_image(&self.inner, place, other, rot, bit);
    }
}

/// Changes bytes of a simulated file where they are kept.
fn rot_image(storage: &SimStorage, place: u64, other: u64, rot: Rot, (at, mask): (usize, u8)) {
    let image = storage.image();
    let sector = |place: u64| {
        let start = usize::try_from(place).unwrap_or(usize::MAX);
        image.get(start..).and_then(|rest| rest.get(..SECTOR)).unwrap_or_default()
    };
    let change = |place: u64, old: &[u8], new: &[u8]| {
        for ((at, old), new) in (place..).zip(old).zip(new).filter(|((_, old), new)| old != new) {
            storage.corrupt(at, old ^ new);
        }
    };
    match rot {
        Rot::Bit => storage.corrupt(place + u64::try_from(at).unwrap_or(0), mask),
        Rot::Zero => change(place, sector(place), &[0; SECTOR]),
        Rot::Swap => {
            change(place, sector(place), sector(other));
            change(other, sector(other), sector(place));
        }
    }
}

impl State {
    /// The faults of the operation that is counted now.
    fn due(&mut self, target: Target) -> Vec<Fault> {
        self.targets.push(target);
        let mut due = Vec::new();
        for target in [Target::Any, target] {
            let count = self.counts.entry(target).or_default();
            let at = *count;
            *count += 1;
            if !self.triggers.is_empty() {
                let is_due = |trigger: &Trigger| trigger.target == target && trigger.at == at;
                due.extend(
                    self.triggers.iter().filter(|trigger| is_due(trigger)).map(|trigger| trigger.fault),
                );
            }
        }
        due
    }

    fn failed(&mut self, target: Target) {
        if target == Target::Read {
            self.harm.read_failed = true;
        } else {
            self.harm.write_failed = true;
        }
    }

    fn damage(&mut self, zones: &[Zone]) {
        self.harm.damaged = true;
        self.harm.ring_places += zones.iter().filter(|zone| **zone == Zone::Ring).count();
        self.harm.superblock_damaged |= zones.contains(&Zone::Superblock);
    }

    fn count(&mut self, what: &'static str) {
        *self.events.entry(what).or_default() += 1;
    }
}

impl Storage for Tap {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read(&self, offset: u64, buffer: Buffer) -> Ticket {
        match self.course(Operation::Read, offset, buffer.len()) {
            Course::Forward => self.inner.read(offset, buffer),
            Course::Elsewhere(to) => {
                self.inner.misdirect(self.inner.operations(), to);
                self.inner.read(offset, buffer)
            }
            Course::Fail(cause) => {
                self.inner.inject(self.inner.operations(), cause);
                self.inner.read(offset, buffer)
            }
        }
    }

    fn write(&self, offset: u64, parts: WriteParts) -> Ticket {
        let _course = self.course(Operation::Write, offset, write_size(&parts));
        if let Some(part) = parts.first() {
            match self.zones.of(offset) {
                Zone::Superblock => {
                    let is_damaged = self.state.lock().harm.superblock_damaged;
                    let words = self.watch.lock().superblock(offset, part.bytes(), is_damaged);
                    self.trace.note(&[], || format!("      {words}"));
                }
                // All of a group is in the buffer, also if the ring ends inside it.
                Zone::Ring => self.watch.lock().ring(&part.buffer),
                Zone::Grid => {}
            }
        }
        self.inner.write(offset, parts)
    }

    fn sync(&self) -> Ticket {
        let _course = self.course(Operation::Sync, 0, 0);
        self.inner.sync()
    }

    fn read_now(&self, offset: u64, buffer: Buffer) -> Completion {
        match self.course(Operation::Read, offset, buffer.len()) {
            Course::Forward => self.inner.read_now(offset, buffer),
            Course::Elsewhere(to) => {
                let buffer = self.filled(to, buffer);
                Completion { result: Ok(()), buffer: Some(buffer) }
            }
            Course::Fail(cause) => {
                let error = IoError::new(Operation::Read, offset, cause);
                Completion { result: Err(error), buffer: Some(buffer) }
            }
        }
    }

    fn grow(&self, size: u64) -> Result<(), IoError> {
        let course = self.course(Operation::Grow, size, 0);
        if let Course::Fail(cause) = course {
            return Err(IoError::new(Operation::Grow, size, cause));
        }
        let mut state = self.state.lock();
        if state.refusals > 0 && size > self.inner.size() {
            state.refusals -= 1;
            state.count("refused growth");
            return Err(IoError::new(Operation::Grow, size, IoCause::NoSpace));
        }
        drop(state);
        self.inner.grow(size)
    }

    fn discard(&self, range: Range<u64>) -> Result<(), IoError> {
        let _course = self.course(Operation::Discard, range.start, 0);
        self.inner.discard(range)
    }

    fn is_dense(&self) -> bool {
        self.inner.is_dense()
    }

    fn allocate(&self, range: Range<u64>) -> Result<(), IoError> {
        if let Course::Fail(cause) = self.course(Operation::Allocate, range.start, 0) {
            return Err(IoError::new(Operation::Allocate, range.start, cause));
        }
        let mut state = self.state.lock();
        if state.refusals > 0 {
            state.refusals -= 1;
            state.count("refused allocation");
            return Err(IoError::new(Operation::Allocate, range.start, IoCause::NoSpace));
        }
        drop(state);
        self.inner.allocate(range)
    }

    fn truncate(&self, size: u64) -> Result<(), IoError> {
        let _course = self.course(Operation::Truncate, size, 0);
        self.inner.truncate(size)
    }

    fn counters(&self) -> Counters {
        self.inner.counters()
    }
}
