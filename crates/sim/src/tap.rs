//! What stands between the engine and its simulated file: sees every operation, brings the faults, keeps the trace.
//!
//! # Invariants
//! - An operation is forwarded once, or refused here.
//!
//! # Not here
//! Which faults: `fault`. What they harm: `harm`. What a crash keeps: the simulated storage.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use understory_io::{
    Buffer, Completion, Counters, IoCause, IoError, Operation, SECTOR, SimFault, SimStorage, Storage, Ticket,
    WriteParts, write_size,
};
use understory_testkit::records::mix;

use crate::fault::{Fault, Rot, Target, Trigger};
use crate::harm::Harm;
use crate::trace::Trace;
use crate::watch::Watch;
use crate::zone::{Zone, Zones};

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
    /// So much of what befell operations is part of it.
    befallen_count: usize,
    /// Somebody cut the file: until it is looked at and as long as it should be, no more superblocks may be written.
    superblocks_max: Option<usize>,
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
    /// A read that gives one bit wrong.
    Flip,
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
        let state = State {
            triggers,
            counts: BTreeMap::new(),
            harm,
            befallen_count: 0,
            superblocks_max: None,
            copy,
            rng: fastrand::Rng::with_seed(0),
            refusals: 0,
            targets: Vec::new(),
            events: BTreeMap::new(),
        };
        Self { inner, zones, trace, watch, state: Mutex::new(state) }
    }

    /// The same; where faults hit follows from a seed, and from when they come: a fault that comes at each operation in
    /// turn ought not to hit one place only.
    pub(crate) fn with_seed(mut self, seed: u64) -> Self {
        let state = self.state.get_mut();
        let seed = state.triggers.iter().fold(seed, |seed, trigger| mix(seed ^ trigger.at));
        state.rng = fastrand::Rng::with_seed(mix(seed));
        self
    }

    /// What went wrong so far.
    pub(crate) fn harm(&self) -> Harm {
        let mut state = self.state.lock();
        self.learn(&mut state);
        state.harm.crashed = self.inner.is_crashed();
        state.harm.clone()
    }

    /// Whether the machine crashed.
    pub(crate) fn is_crashed(&self) -> bool {
        self.inner.is_crashed()
    }

    /// The ring was read from end to end, and is as it should be.
    pub(crate) fn ring_is_good(&self) {
        let mut state = self.state.lock();
        self.learn(&mut state);
        state.harm.ring_is_good();
    }

    /// What befell operations is known only when they end: another one may have come before the one that was meant.
    fn learn(&self, state: &mut State) {
        let befallen = self.inner.befallen();
        for befallen in befallen.iter().skip(state.befallen_count) {
            state.harm.befell(befallen);
        }
        state.befallen_count = befallen.len();
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
            Operation::Check => Target::Check,
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
                if matches!(target, Target::Write(_) | Target::Sync) {
                    self.inner.inject(number, cause);
                    return None;
                }
                return Some(Course::Fail(cause));
            }
            Fault::Lose | Fault::Misdirect(_) | Fault::Flip if is_spared => {}
            Fault::Lose => {
                state.count("lost write");
                self.inner.lose(number);
            }
            Fault::Misdirect(zone) => {
                if let Some(to) = self.place(&mut state, zone) {
                    state.count("misdirected write");
                    self.inner.misdirect(number, to);
                }
            }
            Fault::Flip => {
                state.count("flipped bit in a read or write");
                if target == Target::Read {
                    return Some(Course::Flip);
                }
                self.inner.befall(number, SimFault::Flip);
            }
            Fault::Unreadable(zone) => {
                if let Some(place) = self.place(&mut state, zone) {
                    state.count("unreadable sector");
                    let sector = place..place + understory_format::u64_of(SECTOR);
                    self.inner.add_unreadable(sector.clone());
                    state.harm.hide(sector);
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
                self.inner.befall(number, SimFault::Hang);
            }
            Fault::Cut(zone) => {
                if let Some(place) = self.place(&mut state, zone) {
                    state.count("file cut");
                    // One may be on its way, after the look that comes before it.
                    let superblocks = self.watch.lock().superblocks();
                    state.superblocks_max.get_or_insert(superblocks + 1);
                    state.harm.cut(place);
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
        let sector = |place: u64| place..place + understory_format::u64_of(SECTOR);
        state.harm.change(sector(place));
        if rot == Rot::Swap {
            state.harm.change(sector(other));
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
            Course::Flip => {
                self.inner.befall(self.inner.operations(), SimFault::Flip);
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
                    let is_damaged = self.harm().was_superblock_hit();
                    let most = self.state.lock().superblocks_max;
                    let mut watch = self.watch.lock();
                    let words = watch.superblock(offset, part.bytes(), is_damaged);
                    if most.is_some_and(|most| watch.superblocks() > most) {
                        watch.violate("a superblock is written to a file that somebody cut".to_owned());
                    }
                    drop(watch);
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
        let size = buffer.len();
        let course = self.course(Operation::Read, offset, size);
        if !matches!(course, Course::Forward) {
            // Between asking for it and doing it others may do something, so that the storage cannot be told which.
            self.state.lock().harm.hide(offset..offset + understory_format::u64_of(size));
        }
        match course {
            Course::Forward => self.inner.read_now(offset, buffer),
            Course::Elsewhere(to) => {
                let buffer = self.filled(to, buffer);
                Completion { result: Ok(()), buffer: Some(buffer) }
            }
            Course::Flip => {
                let mut completion = self.inner.read_now(offset, buffer);
                let bit = self.state.lock().rng.usize(0..size * 8);
                let byte = completion.buffer.as_mut().and_then(|buffer| buffer.get_mut(bit / 8));
                if let Some(byte) = byte {
                    *byte ^= 1 << (bit % 8);
                }
                completion
            }
            Course::Fail(cause) => {
                let error = IoError::new(Operation::Read, offset, cause);
                Completion { result: Err(error), buffer: Some(buffer) }
            }
        }
    }

    fn grow(&self, size: u64) -> Result<(), IoError> {
        let course = self.course(Operation::Grow, size, 0);
        let mut state = self.state.lock();
        if let Course::Fail(cause) = course {
            state.harm.write_failed = true;
            return Err(IoError::new(Operation::Grow, size, cause));
        }
        if state.refusals > 0 && size > self.inner.size() {
            state.refusals -= 1;
            state.count("refused growth");
            return Err(IoError::new(Operation::Grow, size, IoCause::NoSpace));
        }
        drop(state);
        self.inner.grow(size)
    }

    fn discard(&self, range: Range<u64>) -> Result<(), IoError> {
        if let Course::Fail(cause) = self.course(Operation::Discard, range.start, 0) {
            self.state.lock().harm.write_failed = true;
            return Err(IoError::new(Operation::Discard, range.start, cause));
        }
        self.inner.discard(range)
    }

    fn allocated_size(&self) -> u64 {
        self.inner.allocated_size()
    }

    fn is_dense(&self) -> bool {
        self.inner.is_dense()
    }

    fn allocate(&self, range: Range<u64>) -> Result<(), IoError> {
        let course = self.course(Operation::Allocate, range.start, 0);
        let mut state = self.state.lock();
        if let Course::Fail(cause) = course {
            state.harm.write_failed = true;
            return Err(IoError::new(Operation::Allocate, range.start, cause));
        }
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

    fn check(&self) -> Result<(), IoError> {
        if let Course::Fail(cause) = self.course(Operation::Check, 0, 0) {
            self.state.lock().harm.write_failed = true;
            return Err(IoError::new(Operation::Check, 0, cause));
        }
        let result = self.inner.check();
        // What is written behind the new end makes it look whole again.
        let superblocks = result.is_err().then(|| self.watch.lock().superblocks());
        self.state.lock().superblocks_max = superblocks;
        result
    }

    fn counters(&self) -> Counters {
        self.inner.counters()
    }
}
