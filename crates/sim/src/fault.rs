//! What befalls the storage of a life, and when.
//!
//! A fault waits for the n-th operation of some kind (and, for writes, in some zone of the file), so that rare kinds of
//! operations are hit as often as frequent ones.
//!
//! # Invariants
//! - Of the superblock only one copy is ever damaged in a seed: more is more than the file promises to survive.
//! - In the journal's ring at most one place is damaged in a life: a second one could hide the witness of the first.
//!
//! # Not here
//! Doing it: `tap`.

use fastrand::Rng;
use understory_io::{CrashPolicy, IoCause};

use crate::scenario::Weather;
use crate::zone::Zone;

/// Linux' number of "input/output error".
const EIO: IoCause = IoCause::Os(5);

/// Kinds of operations that a fault waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    /// Any operation.
    Any,
    /// A read.
    Read,
    /// A write into this zone.
    Write(Zone),
    /// A sync.
    Sync,
    /// A growth of the file.
    Grow,
    /// A look whether the file is still what it was.
    Check,
}

/// What happens to an operation, or beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The machine crashes with the operation in flight.
    Crash(CrashPolicy),
    /// The operation fails.
    Fail(IoCause),
    /// The write reports success and never happens.
    Lose,
    /// The write reports success and lands somewhere in this zone.
    Misdirect(Zone),
    /// The read gives other bytes of the file.
    MisdirectRead,
    /// One bit flips in what the write leaves, or in what the read gives.
    Flip,
    /// Bytes somewhere in this zone change.
    Rot(Zone, Rot),
    /// A sector of this zone cannot be read any more, as long as the machine runs.
    Unreadable(Zone),
    /// The file cannot grow any more, until so many growths were refused.
    Full(u32),
    /// The operation takes this many microseconds longer.
    Delay(u64),
    /// The operation does not end.
    Hang,
    /// Somebody else cuts the file, somewhere in this zone.
    Cut(Zone),
}

/// How bytes change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rot {
    /// One bit flips.
    Bit,
    /// A sector reads as zeros.
    Zero,
    /// Two sectors change places.
    Swap,
}

/// A fault and the operation that it waits for, counted from 0 within its kind and since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trigger {
    pub(crate) target: Target,
    pub(crate) at: u64,
    pub(crate) fault: Fault,
}

/// The faults of a life.
pub(crate) fn plan(rng: &mut Rng, weather: Weather) -> Vec<Trigger> {
    let mut triggers = Vec::new();
    match weather {
        Weather::Calm => {}
        Weather::Crashes => {
            if rng.u8(0..8) > 0 {
                triggers.push(crash(rng));
            }
        }
        Weather::Errors => {
            triggers.extend((0..rng.u8(1..=2)).map(|_| error(rng)));
            if rng.bool() {
                triggers.push(crash(rng));
            }
        }
        Weather::Space => {
            let fault = Fault::Full(rng.u32(1..40));
            triggers.push(Trigger { target: Target::Any, at: moment(rng), fault });
            if rng.u8(0..4) == 0 {
                triggers.push(crash(rng));
            }
        }
        Weather::Media => {
            media(rng, &mut triggers);
            if rng.bool() {
                triggers.push(crash(rng));
            }
        }
    }
    if rng.u8(0..4) == 0 {
        let fault = Fault::Delay(rng.u64(1..50_000));
        triggers.push(Trigger { target: Target::Any, at: moment(rng), fault });
    }
    triggers
}

/// Soon or late: each power of two alike.
fn moment(rng: &mut Rng) -> u64 {
    let bits = rng.u32(1..=11);
    rng.u64(0..1 << bits)
}

fn crash(rng: &mut Rng) -> Trigger {
    let target = match rng.u8(0..8) {
        0 => Target::Sync,
        1 => Target::Write(Zone::Superblock),
        2 => Target::Write(Zone::Ring),
        3 => Target::Grow,
        _ => Target::Any,
    };
    let at = if target == Target::Any { moment(rng) } else { moment(rng) / 8 };
    Trigger { target, at, fault: Fault::Crash(crash_policy(rng)) }
}

/// What a crash keeps: nothing, or anything.
pub(crate) fn crash_policy(rng: &mut Rng) -> CrashPolicy {
    match rng.u8(0..3) {
        0 => CrashPolicy::DropUnsynced,
        1 => rng.choice(CrashPolicy::CLASSES).expect("there are classes"),
        _ => CrashPolicy::KeepSubset(rng.u64(..)),
    }
}

fn error(rng: &mut Rng) -> Trigger {
    let (target, at) = match rng.u8(0..6) {
        0..=1 => (Target::Read, moment(rng)),
        2 => (Target::Sync, moment(rng) / 8),
        3 => (Target::Grow, moment(rng) / 32),
        _ => (Target::Write(zone(rng)), moment(rng) / 2),
    };
    let fault = if rng.u8(0..5) == 0 && target != Target::Grow { Fault::Hang } else { Fault::Fail(EIO) };
    Trigger { target, at, fault }
}

fn zone(rng: &mut Rng) -> Zone {
    match rng.u8(0..6) {
        0 => Zone::Superblock,
        1..=2 => Zone::Ring,
        _ => Zone::Grid,
    }
}

fn media(rng: &mut Rng, triggers: &mut Vec<Trigger>) {
    let mut is_ring_spared = true;
    for _ in 0..rng.u8(1..=3) {
        let mut pick = || match zone(rng) {
            Zone::Ring if !std::mem::take(&mut is_ring_spared) => Zone::Grid,
            zone @ (Zone::Superblock | Zone::Ring | Zone::Grid) => zone,
        };
        let (from, to) = (pick(), pick());
        let at = moment(rng);
        let write = |fault| Trigger { target: Target::Write(from), at: at / 4, fault };
        let read = |fault| Trigger { target: Target::Read, at, fault };
        triggers.push(match rng.u8(0..12) {
            0..=1 => write(Fault::Lose),
            2..=3 => write(Fault::Misdirect(to)),
            4 => write(Fault::Flip),
            5 => read(Fault::Flip),
            6 => read(Fault::MisdirectRead),
            7 => read(Fault::Fail(EIO)),
            8 => Trigger { target: Target::Any, at, fault: Fault::Unreadable(to) },
            9 if rng.u8(0..4) == 0 => Trigger { target: Target::Any, at, fault: Fault::Cut(Zone::Grid) },
            _ => Trigger { target: Target::Any, at, fault: Fault::Rot(to, rot(rng)) },
        });
    }
}

pub(crate) fn rot(rng: &mut Rng) -> Rot {
    match rng.u8(0..4) {
        0 => Rot::Zero,
        1 => Rot::Swap,
        _ => Rot::Bit,
    }
}
