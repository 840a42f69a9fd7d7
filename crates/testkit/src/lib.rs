//! Records, keys and operations shared by the tests, fuzzers and benchmarks of the workspace.
//!
//! - [`records`]: record types of the sizes that matter, with contents that follow from their key;
//! - [`keys`]: keys that nearly collide: neighbours, equal ends, hot and cold, the ends of the type's range;
//! - [`fuzz`]: the loop around the model fuzzers that `cargo xtask fuzz` runs.
//!
//! Everything random comes from a `fastrand::Rng` that the caller seeds, so that a failing seed can be replayed.
//!
//! # Invariants
//! - The same seed gives the same keys on every machine (test).
//!
//! # Not here
//! Models of the engine's parts: each test has its own, next to what it tests.

pub mod fuzz;
pub mod keys;
pub mod records;

pub use fuzz::{Coverage, Fuzzer};
pub use keys::{KeyPool, KeyShape, Ordinal, key_range, near};
pub use records::{Item, Pair, Posting, Quad, TestRecord};

/// The README's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
