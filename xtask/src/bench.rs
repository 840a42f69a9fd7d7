//! `cargo xtask bench`: builds the benchmarks' own workspace in release mode and starts them.

use crate::{Failure, checkout};
use std::ffi::OsString;

/// Turns `--peers` into the feature that builds the other engines; the rest goes to the benchmarks as it is.
pub(crate) fn run(mut arguments: lexopt::Parser) -> Result<(), Failure> {
    let (peers, rest): (Vec<OsString>, Vec<OsString>) =
        arguments.raw_args()?.partition(|argument| argument == "--peers");
    let root = checkout::root()?;
    let mut command = checkout::cargo();
    command.args(["run", "--quiet", "--release", "--locked"]);
    command.arg("--manifest-path").arg(root.join("benches/Cargo.toml"));
    if !peers.is_empty() {
        eprintln!(
            "building the peers too: needs C and C++ compilers and libclang, and 20 minutes the first time"
        );
        command.args(["--features", "peers"]);
    }
    command.arg("--").arg("--scratch").arg(root.join("target/bench")).args(rest);
    checkout::finish(&mut command, "the benchmark")
}
