//! In-memory levels of one tree: which tables exist, which of them a beat sees, and which of them a
//! compaction takes.
//!
//! A [`Manifest`] holds the tables of one tree, level by level. It changes only by [`ManifestEdit`]s: those
//! that compaction makes, and those that the manifest log gives back at open. A level is one [`Run`] of disjoint
//! tables; level 0 may be several, one for each flush, where the geometry says so. Reads ask each run, newest first
//! ([`Manifest::sources`]), for the table that covers a key ([`Run::find`]) or for the tables of a key range in either
//! direction ([`Run::range`]); compaction asks what to do next ([`Manifest::plan_level`], [`Manifest::plan_flush`],
//! [`Manifest::plan_coalesce`]).
//!
//! A table is visible at beat `b` iff `beat_min <= b <= beat_max`; a *live* table has
//! `beat_max == Beat::MAX`, so [`Beat::MAX`] as a question sees exactly the live ones. Counters and plans
//! speak of live tables only.
//!
//! # Invariants
//! - In one run, two tables that some beat sees both have no key in common ([`Manifest::verify`]; edits
//!   that would break it are refused by [`Manifest::apply`] and asserted by [`Manifest::insert`]).
//! - What a run of level 0 has of a key is newer than what runs of lower age and deeper levels have: whatever leaves
//!   level 0 goes with all tables of older runs that it overlaps (asserted by each plan).
//! - Tables of a run are sorted by (`key_max`, `beat_min`) (`verify`).
//! - The counters of a run equal a recount (`verify`).
//! - A plan is a pure function of the tables and its arguments: equal manifests give equal plans, however
//!   they came about (asserted in tests against brute force).
//!
//! # Not here
//! Blocks, I/O, the durable log of the edits, and when a plan is asked for: the crate works on plain data.

mod choose;
mod error;
#[cfg(test)]
mod fuzz;
mod manifest;
mod run;
mod table;
#[cfg(test)]
mod testing;

pub use choose::{Choice, Flush, FlushChoice, Sink};
pub use error::ManifestError;
pub use manifest::Manifest;
pub use run::{Run, Tables};
pub use table::Table;
pub use understory_format::{Beat, Direction, KeyRange, ManifestEdit};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
