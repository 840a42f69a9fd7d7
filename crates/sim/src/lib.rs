//! The whole engine over simulated storage, from one seed.
//!
//! A seed decides everything: trees, geometry, memory, what clients and readers do and how their threads interleave, what
//! befalls the storage, and when the machine crashes. Run again, it does the same.
//!
//! | module | noun |
//! |---|---|
//! | `scenario`, `fault`, `plot`, `tree`, `records` | what a seed decides beforehand |
//! | `world`, `life`, `opening`, `story` | a file, and its handles one after another |
//! | `tap`, `watch`, `zone` | what stands between engine and storage: brings the faults, judges what is written |
//! | `client`, `handle`, `inspect` | who uses a handle, and what is seen through it |
//! | `book`, `sighting` | what may be seen |
//! | `harm`, `verdict` | which bytes were harmed, and which errors that explains |
//! | `chronicle`, `twin` | all ops in order, told to a second database that nothing disturbs |
//! | `swarm`, `sweep`, `crashes`, `faults`, `damage` | many seeds; everything there is of a small world |
//! | `trace`, `log`, `report`, `cli` | what a person is told |
//!
//! # Invariants
//! - Equal seeds give equal runs, to the order of every step (the swarm runs some seeds twice).
//! - What is not explained by what befell the storage is a failure: an error as much as a wrong answer.
//!
//! # Not here
//! The simulated machine: `understory-io`. Real files, processes that are killed: tests of `understory`.

mod book;
mod chronicle;
mod cli;
mod client;
mod crashes;
mod damage;
mod fault;
mod faults;
mod handle;
mod harm;
mod inspect;
mod life;
mod log;
mod opening;
mod plot;
mod records;
mod report;
mod scenario;
mod sighting;
mod story;
mod swarm;
mod sweep;
mod tap;
mod trace;
mod tree;
mod twin;
mod verdict;
mod watch;
mod world;
mod zone;

pub use cli::run;
pub use report::Failure;
