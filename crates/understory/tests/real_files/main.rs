//! Tests on real files: processes that are killed, file systems that fill and fail, files that change under a handle.
//!
//! What the operating system does not let a test do here is skipped, and the reason is printed even when the test
//! passes; with `UNDERSTORY_SKIP_NOTHING` set in the environment that is a failure. Several tests run this program
//! again, as another process, in a mount namespace, or under a limit: see [`child`].
//!
//! # Not here
//! Lost power, which a real file does not show: the simulator has it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test that fails says where"
)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the subject is files, threads, processes and the time they take"
)]

mod border;
mod child;
mod damage;
mod device;
mod faults;
mod faulty;
mod kill;
mod leader;
mod ledger;
mod limit;
mod load;
mod loader;
mod path;
mod poison;
mod space;
mod truncation;
mod volume;
