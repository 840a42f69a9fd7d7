//! Faults: asked for one operation, or drawn for all by a plan.
//!
//! # Invariants
//! - What befell an operation, and nothing else, is in the list that [`SimStorage::befallen`](super::SimStorage)
//!   gives.
//! - A plan draws from a stream of its own, equally often for each operation whatever its rates are.
//!
//! # Not here
//! What a fault does to the bytes: `flight`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use smallvec::SmallVec;

use crate::{IoCause, Operation, SECTOR, u64_of};

/// What befalls one operation of a simulated file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SimFault {
    /// It fails. Of a write, some sectors land all the same. After a failed sync no sync succeeds.
    Fail(IoCause),
    /// A write reports success and never happens, so that later reads are stale.
    Lose,
    /// A write lands at this offset, a read gives what is there; both report success. Beyond the end of the file
    /// writes are lost and reads give zeroes.
    Misdirect(u64),
    /// One bit, drawn, is flipped in what a write leaves on disk, or in what a read gives.
    Flip,
    /// It takes so much longer; others overtake it. Nothing for operations that are done at once.
    Delay(Duration),
    /// It does not end before [`SimStorage::release_hung`](super::SimStorage::release_hung) (or a crash). Nothing for
    /// operations that are done at once.
    Hang,
}

/// How often faults befall operations: each number is how many in a million of the operations that it can befall.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimFaultPlan {
    /// Only reads and writes that lie within these bytes, and all syncs.
    pub range: Range<u64>,
    /// Reads that fail with [`IoCause::Injected`].
    pub read_fails: u32,
    /// Writes that fail so.
    pub write_fails: u32,
    /// Syncs that fail so.
    pub sync_fails: u32,
    /// Writes that are lost.
    pub write_lost: u32,
    /// Writes that land elsewhere within `range`.
    pub write_misdirected: u32,
    /// Reads of another place within `range`.
    pub read_misdirected: u32,
    /// Writes of which a bit is flipped.
    pub write_flipped: u32,
    /// Reads of which a bit is flipped.
    pub read_flipped: u32,
    /// Operations that take longer, by up to `delay_max`.
    pub delayed: u32,
    /// The longest delay.
    pub delay_max: Duration,
    /// Operations that hang.
    pub hung: u32,
}

impl Default for SimFaultPlan {
    /// No faults, everywhere.
    fn default() -> Self {
        Self {
            range: 0..u64::MAX,
            read_fails: 0,
            write_fails: 0,
            sync_fails: 0,
            write_lost: 0,
            write_misdirected: 0,
            read_misdirected: 0,
            write_flipped: 0,
            read_flipped: 0,
            delayed: 0,
            delay_max: Duration::from_millis(100),
            hung: 0,
        }
    }
}

/// What befell an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimBefallen {
    /// The operation's number.
    pub number: u64,
    /// Its kind.
    pub operation: Operation,
    /// Its byte offset, or the size asked for.
    pub offset: u64,
    /// Its length in bytes; 0 if it has none.
    pub len: usize,
    /// What befell it.
    pub fault: SimFault,
}

/// An operation, as far as faults are concerned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject {
    pub(super) number: u64,
    pub(super) operation: Operation,
    pub(super) offset: u64,
    pub(super) len: usize,
}

/// Faults to come, and those that came.
pub(super) struct Faults {
    asked: BTreeMap<u64, SmallVec<[SimFault; 1]>>,
    plan: Option<SimFaultPlan>,
    rng: fastrand::Rng,
    /// Reads of these bytes fail.
    unreadable: Vec<Range<u64>>,
    befallen: Vec<SimBefallen>,
}

impl Faults {
    pub(super) fn new(seed: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed ^ 0xFA_017);
        Self { asked: BTreeMap::new(), plan: None, rng, unreadable: Vec::new(), befallen: Vec::new() }
    }

    pub(super) fn ask(&mut self, number: u64, fault: SimFault) {
        self.asked.entry(number).or_default().push(fault);
    }

    pub(super) fn set_plan(&mut self, plan: Option<SimFaultPlan>) {
        self.plan = plan;
    }

    pub(super) fn add_unreadable(&mut self, range: Range<u64>) {
        self.unreadable.push(range);
    }

    pub(super) fn clear_unreadable(&mut self) {
        self.unreadable.clear();
    }

    pub(super) fn befallen(&self) -> &[SimBefallen] {
        &self.befallen
    }

    /// Some of these bytes cannot be read: where the first bad sector starts.
    pub(super) fn unreadable(&self, offset: u64, len: usize) -> Option<u64> {
        let end = offset.saturating_add(u64_of(len));
        let hits = |range: &&Range<u64>| range.start < end && offset < range.end;
        let first = self.unreadable.iter().filter(hits).map(|range| range.start.max(offset)).min()?;
        Some(first - first % u64_of(SECTOR))
    }

    /// The operation was submitted: what is to befall it is settled.
    pub(super) fn begin(&mut self, subject: Subject, size: u64) {
        if let Some(plan) = &self.plan {
            for fault in draw(&mut self.rng, plan, subject, size) {
                self.ask(subject.number, fault);
            }
        }
    }

    /// When the operation ends.
    pub(super) fn pace(&mut self, subject: Subject) -> Pace {
        let asked = self.asked.get(&subject.number).map(SmallVec::as_slice).unwrap_or_default();
        let delays =
            asked.iter().filter_map(|fault| if let SimFault::Delay(by) = fault { Some(*by) } else { None });
        let delay: Duration = delays.sum();
        if asked.contains(&SimFault::Hang) {
            self.record(subject, SimFault::Hang);
            Pace::Never
        } else if delay > Duration::ZERO {
            self.record(subject, SimFault::Delay(delay));
            Pace::After(delay)
        } else {
            Pace::Usual
        }
    }

    /// The operation ends: what befalls its bytes and its result. The first fault that suits it counts.
    pub(super) fn outcome(&mut self, subject: Subject) -> Option<SimFault> {
        let asked = self.asked.remove(&subject.number)?;
        let fault = asked.into_iter().find(|fault| suits(*fault, subject.operation))?;
        self.record(subject, fault);
        Some(fault)
    }

    fn record(&mut self, subject: Subject, fault: SimFault) {
        let Subject { number, operation, offset, len } = subject;
        self.befallen.push(SimBefallen { number, operation, offset, len, fault });
    }
}

/// When an operation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    Usual,
    After(Duration),
    Never,
}

/// Whether a fault changes what an operation of this kind does.
fn suits(fault: SimFault, operation: Operation) -> bool {
    match fault {
        SimFault::Fail(_) => true,
        SimFault::Lose => operation == Operation::Write,
        SimFault::Misdirect(_) | SimFault::Flip => matches!(operation, Operation::Read | Operation::Write),
        SimFault::Delay(_) | SimFault::Hang => false,
    }
}

/// At most one fault of each sort: of the bytes, and of the time.
fn draw(
    rng: &mut fastrand::Rng,
    plan: &SimFaultPlan,
    subject: Subject,
    size: u64,
) -> SmallVec<[SimFault; 2]> {
    let Subject { operation, offset, len, .. } = subject;
    let mut faults = SmallVec::new();
    let lies_within = plan.range.start <= offset && offset.saturating_add(u64_of(len)) <= plan.range.end;
    if operation != Operation::Sync && !lies_within {
        return faults;
    }
    let fails = SimFault::Fail(IoCause::Injected);
    let elsewhere = SimFault::Misdirect(place(rng, &plan.range, size));
    let sorts: &[(u32, SimFault)] = match operation {
        Operation::Read => &[
            (plan.read_fails, fails),
            (plan.read_misdirected, elsewhere),
            (plan.read_flipped, SimFault::Flip),
        ],
        Operation::Write => &[
            (plan.write_fails, fails),
            (plan.write_lost, SimFault::Lose),
            (plan.write_misdirected, elsewhere),
            (plan.write_flipped, SimFault::Flip),
        ],
        Operation::Sync => &[(plan.sync_fails, fails)],
        Operation::Open
        | Operation::Lock
        | Operation::Grow
        | Operation::Truncate
        | Operation::Allocate
        | Operation::Discard
        | Operation::Check
        | Operation::Map
        | Operation::Spawn => &[],
    };
    faults.extend(roll(rng, sorts));
    let delay = SimFault::Delay(plan.delay_max.mul_f64(rng.f64()));
    faults.extend(roll(rng, &[(plan.hung, SimFault::Hang), (plan.delayed, delay)]));
    faults
}

/// At most one of these, each as often in a million as it says.
fn roll(rng: &mut fastrand::Rng, sorts: &[(u32, SimFault)]) -> Option<SimFault> {
    let mut left = rng.u32(..1_000_000);
    for (rate, fault) in sorts {
        match left.checked_sub(*rate) {
            Some(rest) => left = rest,
            None => return Some(*fault),
        }
    }
    None
}

/// The start of a sector of the file within these bytes.
fn place(rng: &mut fastrand::Rng, range: &Range<u64>, size: u64) -> u64 {
    let sector = u64_of(SECTOR);
    let (first, end) = (range.start.div_ceil(sector), range.end.min(size) / sector);
    if first < end { rng.u64(first..end) * sector } else { 0 }
}
