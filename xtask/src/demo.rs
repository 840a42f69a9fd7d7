//! `cargo xtask demo`: builds the flights example in release mode and starts it on the bundled data.

use crate::{Failure, checkout};

/// Hands every argument to the example, which knows what they mean.
pub(crate) fn run(mut arguments: lexopt::Parser) -> Result<(), Failure> {
    let root = checkout::root()?;
    let mut command = checkout::cargo();
    command
        .args(["run", "--quiet", "--release", "--locked", "--package", "understory", "--example", "flights"])
        .arg("--manifest-path")
        .arg(root.join("Cargo.toml"))
        .arg("--")
        .arg("--data")
        .arg(root.join("data/nycflights13"))
        .arg("--scratch")
        .arg(root.join("target/demo"))
        .args(arguments.raw_args()?);
    eprintln!("building the demo in release mode (a first build takes a minute or two)");
    checkout::finish(&mut command, "the demo")
}
