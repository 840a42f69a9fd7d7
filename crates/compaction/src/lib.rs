//! One compaction as a bounded, resumable job.
//!
//! A [`Plan`] says what is merged, a [`Compaction`] does it in slices, an [`Outcome`] says what that changes.
//! The forest plans at the start of a half-bar, runs slices over its beats and applies outcomes at its end.
//!
//! # Not here
//! Trees, schedules and the manifest log; who runs a job and on which thread.

mod job;
mod plan;
#[cfg(test)]
mod tests;

pub use job::{Compaction, Job, Outcome};
pub use plan::{Input, Limits, Plan};

/// The README's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
