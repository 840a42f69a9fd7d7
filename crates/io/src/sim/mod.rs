//! The simulated machine: one seed decides in which order I/O completes and threads run, and what a crash keeps.
//!
//! What is submitted waits as a task in a [`SimScheduler`]; jobs and [`SimThreads`] are threads of the system of which
//! one at a time runs, the one with the token. Nothing happens by itself: a wait through [`SimPark`] runs tasks and
//! hands the token to others, as the seed wants it, until its condition holds. Code outside, such as a test, takes
//! part while it waits; between its waits everything stands still.
//!
//! # Invariants
//! - The same seed and the same calls give the same order, the same bytes and the same operation numbers.
//! - A wait that nothing can end is a panic that says so, not a hang; a wake that is missing is such a wait.
//! - No operation overlaps a write in flight, but for reads where that is allowed (asserted in `flight`).
//!
//! # Not here
//! What a file's bytes mean.

mod disk;
mod faults;
mod flight;
mod parts;
mod schedule;
mod state;
mod storage;
#[cfg(test)]
mod tests;
mod threads;
mod trace;

pub use disk::CrashPolicy;
pub use faults::{SimBefallen, SimFault, SimFaultPlan};
pub use parts::{SimClock, SimExecutor, SimPark};
pub use schedule::SimScheduler;
pub use storage::{SimOptions, SimStorage};
pub use threads::SimThreads;
pub use trace::{SimAction, SimEvent};
