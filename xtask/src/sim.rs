//! `cargo xtask sim`: builds the simulator optimised, and starts it.

use crate::{Failure, checkout};

/// Hands every argument to the simulator, which knows what they mean.
pub(crate) fn run(mut arguments: lexopt::Parser) -> Result<(), Failure> {
    let root = checkout::root()?;
    let mut command = checkout::cargo();
    command
        .args(["run", "--quiet", "--profile", "checks", "--locked", "--package", "understory-sim"])
        .arg("--manifest-path")
        .arg(root.join("Cargo.toml"))
        .arg("--")
        .arg("--log")
        .arg(root.join("target/sim/log.json"))
        .args(arguments.raw_args()?);
    checkout::finish(&mut command, "the simulation")
}
