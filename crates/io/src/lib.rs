//! The machine under Understory, real and simulated: memory arena, storage, clock, waits and workers.
//!
//! Everything above this crate meets the outside world through four traits, gathered in a [`Machine`]:
//! [`Storage`] (one file; completion-based), [`Park`] (every wait), [`Executor`] (every worker) and
//! [`Clock`] (every time). Each has a real and a simulated implementation. In the simulation one seed decides
//! the order in which I/O completes and threads and jobs run, so that a failure replays from its seed.
//!
//! Large memory comes from one [`Arena`]; I/O works on [`Buffer`]s of its [`Pool`]s, which are owned by the
//! operation while it is in flight.
//!
//! # Invariants
//! - The only crate with `unsafe` (its own lint table in `Cargo.toml`; the workspace forbids it elsewhere).
//! - No lock is held across I/O or while a closure of a caller runs (see [`ThreadPark`], [`ThreadExecutor`]).
//! - A failed sync is never retried: it stays failed for the life of the storage.
//!
//! # Not here
//! Block kinds, checksums, caching, allocation of file space: this crate moves bytes.

#[cfg(not(unix))]
compile_error!("understory-io needs a Unix system: Linux first, macOS and FreeBSD in principle");

mod arena;
mod buffer;
mod clock;
mod error;
mod executor;
mod handoff;
mod machine;
mod os;
mod park;
mod prefetch;
mod sim;
mod storage;
mod ticket;
mod timer;
mod trace;
mod turn;

pub use arena::Arena;
pub use buffer::{Buffer, Pool};
pub use clock::{Clock, MonotonicClock};
pub use error::{IoCause, IoError, OpenError, Operation};
pub use executor::{Executor, InlineExecutor, Job, ThreadExecutor};
pub use handoff::{Pending, Promise, fresh_key, handoff};
pub use machine::{Join, Machine};
pub use os::{DirectIo, Options, OsStorage};
pub use park::{Park, ThreadPark};
pub use prefetch::prefetch_line;
pub use sim::{
    CrashPolicy, SimAction, SimBefallen, SimClock, SimEvent, SimExecutor, SimFault, SimFaultPlan, SimOptions,
    SimPark, SimScheduler, SimStorage, SimThreads,
};
pub use storage::{Counters, SECTOR, Storage, WritePart, WriteParts, write_size};
pub use ticket::{Completer, Completion, Ticket};
pub use timer::{Timer, Timings};
#[cfg(not(feature = "tracing"))]
#[doc(hidden)]
pub use trace::NotTraced;
#[cfg(feature = "tracing")]
#[doc(hidden)]
pub use tracing;
pub use turn::{Taken, Turn};

/// A file offset or size as an index into memory.
pub(crate) fn usize_of(value: u64) -> usize {
    usize::try_from(value).expect("sizes of memory and of simulated files fit the address space")
}

/// A length in memory as a file size.
pub(crate) fn u64_of(value: usize) -> u64 {
    u64::try_from(value).expect("usize is at most 64 bits wide")
}

/// The example of the README is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
