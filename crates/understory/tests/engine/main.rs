//! Tests of the whole engine through its public face, one module for each thing that is to be shown.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test that fails says where"
)]

mod bad_input;
mod common;
mod crash;
mod determinism;
mod flips;
mod journal;
mod model;
mod read_only;
mod space;
mod stats;
mod threads;
