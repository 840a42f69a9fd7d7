//! What happened, in order: hashed always, shown to whoever asks.
//!
//! Two runs with one seed have equal hashes, or something in them is not decided by the seed. Keys of waits are not
//! part of the hash: they are numbered through the whole process.
//!
//! # Not here
//! What is decided: `state`.

use std::fmt;
use std::time::Duration;

use crate::{Operation, u64_of};

/// One event of a simulation; `Display` is one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimEvent<'a> {
    /// Number of steps so far.
    pub step: u64,
    /// Simulated time.
    pub now: Duration,
    /// Which thread it concerns: its name, `outside` for code that no simulated thread runs.
    pub thread: &'a str,
    /// What happened.
    pub action: SimAction,
}

/// What happened in a simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SimAction {
    /// The thread goes on.
    Resume,
    /// The thread waits on this key (equal numbers are equal keys within one run only).
    Park(u64),
    /// The thread woke so many others.
    Wake(usize),
    /// The thread could go on and gives others the chance to.
    Preempt,
    /// The thread has ended.
    End,
    /// A task ran while the thread was in a wait.
    Task,
    /// An operation was submitted to a simulated file.
    Submit {
        /// Its number.
        number: u64,
        /// Its kind.
        operation: Operation,
        /// As in an error: the byte offset, or the size asked for.
        offset: u64,
    },
    /// The operation with this number ended.
    Complete(u64),
}

impl fmt::Display for SimEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, now, thread, action } = self;
        write!(f, "{step} {now:?} {thread}: ")?;
        match action {
            SimAction::Resume => f.write_str("goes on"),
            SimAction::Park(key) => write!(f, "waits on key {key}"),
            SimAction::Wake(count) => write!(f, "wakes {count}"),
            SimAction::Preempt => f.write_str("is interrupted"),
            SimAction::End => f.write_str("ends"),
            SimAction::Task => f.write_str("runs a task"),
            SimAction::Submit { number, operation, offset } => {
                write!(f, "submits operation {number}: {operation} at byte {offset}")
            }
            SimAction::Complete(number) => write!(f, "operation {number} ends"),
        }
    }
}

impl SimAction {
    /// Two numbers that tell actions apart, keys left out.
    fn digest(self) -> (u64, u64) {
        match self {
            Self::Resume => (0, 0),
            Self::Park(_key) => (1, 0),
            Self::Wake(count) => (2, u64_of(count)),
            Self::Preempt => (3, 0),
            Self::End => (4, 0),
            Self::Task => (5, 0),
            Self::Submit { number, operation, offset } => (6 + (number << 8), offset ^ kind(operation) << 56),
            Self::Complete(number) => (7, number),
        }
    }
}

/// Tells kinds of operations apart.
fn kind(operation: Operation) -> u64 {
    match operation {
        Operation::Read => 1,
        Operation::Write => 2,
        Operation::Sync => 3,
        Operation::Grow => 4,
        Operation::Truncate => 5,
        Operation::Check => 6,
        Operation::Allocate => 7,
        Operation::Discard => 8,
        Operation::Open | Operation::Lock | Operation::Map | Operation::Spawn => 0,
    }
}

/// Who is shown each event.
pub(super) type Hook = Box<dyn FnMut(SimEvent<'_>) + Send>;

/// The hash of all events, and who is shown them.
pub(super) struct Trace {
    pub(super) hash: u64,
    pub(super) hook: Option<Hook>,
}

impl Trace {
    pub(super) fn new() -> Self {
        Self { hash: 0xCBF2_9CE4_8422_2325, hook: None }
    }

    /// `id` is the number of the thread that the event names.
    pub(super) fn note(&mut self, id: u64, event: SimEvent<'_>) {
        let (first, second) = event.action.digest();
        let nanos = u64::try_from(event.now.as_nanos()).unwrap_or(u64::MAX);
        for word in [event.step, nanos, id, first, second] {
            self.hash = (self.hash ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
        }
        if let Some(hook) = &mut self.hook {
            hook(event);
        }
    }
}
