//! `cargo xtask kill`: kills a process that loads a real file, and opens the file again, hundreds of times.
//!
//! # Not here
//! The rounds: they are the tests `kill` in `crates/understory/tests/real_files`, of which `cargo xtask test` makes a
//! few.

use crate::{Failure, checkout};
use lexopt::Arg;

const ROUNDS: u32 = 300;

/// Runs the rounds in an optimised build, first with the tiny geometry, then with the usual one.
pub(crate) fn run(mut arguments: lexopt::Parser) -> Result<(), Failure> {
    let (mut rounds, mut seed, mut filter) = (ROUNDS, None, "kill::");
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("rounds") => rounds = arguments.value()?.to_string_lossy().parse()?,
            Arg::Long("seed") => seed = Some(arguments.value()?),
            Arg::Long("small") => filter = "kill::a_small_file",
            Arg::Long("usual") => filter = "kill::a_file_of_the_usual_geometry",
            Arg::Short(_) | Arg::Long(_) | Arg::Value(_) => return Err(argument.unexpected().into()),
        }
    }
    let mut command = checkout::cargo();
    command
        .args(["test", "--profile", "checks", "--locked", "--package", "understory", "--test", "real_files"])
        .args(["--", filter, "--nocapture", "--test-threads=1"])
        .current_dir(checkout::root()?)
        .env("UNDERSTORY_KILL_ROUNDS", rounds.to_string());
    if let Some(seed) = seed {
        command.env("UNDERSTORY_KILL_SEED", seed);
    }
    checkout::finish(&mut command, "the test")
}
