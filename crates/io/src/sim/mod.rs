//! The simulated machine: one seed decides in which order I/O completes and jobs run, and what a crash keeps.
//!
//! What is submitted waits as a task in a [`SimScheduler`]. Nothing happens by itself: a wait through [`SimPark`]
//! runs tasks, chosen by the seed, until its condition holds. One thread at a time for now; because every wait and
//! every worker goes through the traits, a later scheduler can pass a token between threads instead.
//!
//! # Invariants
//! - The same seed and the same calls give the same order, the same bytes and the same operation numbers.
//! - A wait that nothing can end is a panic that says so, not a hang.
//! - No operation overlaps a write in flight (asserted in `storage`).
//!
//! # Not here
//! Real threads; what a file's bytes mean.

mod disk;
mod flight;
mod schedule;
mod storage;
#[cfg(test)]
mod tests;

pub use disk::CrashPolicy;
pub use schedule::{SimClock, SimExecutor, SimPark, SimScheduler};
pub use storage::{SimOptions, SimStorage};
