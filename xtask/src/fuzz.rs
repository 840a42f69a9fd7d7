//! `cargo xtask fuzz`: the model fuzzers, from seeds and for as long as they are given.
//!
//! # Not here
//! The fuzzers. Each is a test of its crate, which runs a fixed share of its seeds; what it does with more of them is in
//! `testkit::fuzz`.

use crate::{Failure, checkout};
use lexopt::Arg;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

/// A fuzzer: its name, its crate, the test binary and the test in it, and what is compared with what.
struct Target {
    name: &'static str,
    package: &'static str,
    binary: &'static [&'static str],
    test: &'static str,
    about: &'static str,
}

const LIB: &[&str] = &["--lib"];

const TARGETS: [Target; 8] = [
    Target {
        name: "manifest-log",
        package: "understory-manifest-log",
        binary: LIB,
        test: "tests::fuzz::histories_from_seeds",
        about: "the log and its pace against a map, with a twin that is reopened and crashes",
    },
    Target {
        name: "manifest",
        package: "understory-manifest",
        binary: LIB,
        test: "fuzz::agrees_with_its_models",
        about: "levels and choice of inputs, level 0 merged and in runs, against plain lists",
    },
    Target {
        name: "memtable",
        package: "understory-table",
        binary: LIB,
        test: "memtable::tests::fuzz::agrees_with_the_map",
        about: "the memtable and its runs against a map of all versions",
    },
    Target {
        name: "merge",
        package: "understory-table",
        binary: LIB,
        test: "merge::tests::fuzz::agrees_with_a_sort",
        about: "merges of many sources against a sort",
    },
    Target {
        name: "free-set",
        package: "understory-grid",
        binary: LIB,
        test: "free_set::tests::fuzz::agrees_with_the_model",
        about: "free set, reservations and their encoding against plain sets",
    },
    Target {
        name: "tree",
        package: "understory-tree",
        binary: LIB,
        test: "tests::fuzz::agrees_with_the_map",
        about: "one tree and its compactions against a map",
    },
    Target {
        name: "forest",
        package: "understory-forest",
        binary: LIB,
        test: "tests::fuzz::agrees_with_its_maps",
        about: "three trees, pace, checkpoints and reopens against maps, and a watch over the rules",
    },
    Target {
        name: "determinism",
        package: "understory",
        binary: &["--test", "engine"],
        test: "determinism::files_are_equal",
        about: "the same operations with other threads, caches and orders of I/O give equal files",
    },
];

/// Seconds for each target, if none are given.
const SECONDS: u64 = 5;

/// Runs a target, or all; without one it lists them.
pub(crate) fn run(mut arguments: lexopt::Parser) -> Result<(), Failure> {
    let (mut wanted, mut seconds, mut seed) = (None, None, None);
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("seconds") => seconds = Some(number(&mut arguments, "seconds")?),
            Arg::Long("seed") => seed = Some(number(&mut arguments, "seed")?),
            Arg::Value(name) if wanted.is_none() => wanted = Some(name.to_string_lossy().into_owned()),
            Arg::Short(_) | Arg::Long(_) | Arg::Value(_) => return Err(argument.unexpected().into()),
        }
    }
    let Some(wanted) = wanted else {
        list();
        return Ok(());
    };
    let targets: Vec<&Target> =
        TARGETS.iter().filter(|target| wanted == "all" || wanted == target.name).collect();
    let count = u64::try_from(targets.len())?;
    if count == 0 {
        list();
        return Err(format!("no target {wanted:?}").into());
    }
    let each = match (seconds, seed) {
        (Some(seconds), _) => Some((seconds / count).max(1)),
        (None, Some(_)) => None,
        (None, None) => Some(SECONDS),
    };
    targets.into_iter().try_for_each(|target| target.run(seed, each))
}

fn list() {
    println!("usage: cargo xtask fuzz TARGET|all [--seconds N] [--seed S]\n");
    println!(
        "From seed S on (0) for N seconds in all ({SECONDS} for each target); with --seed alone that one seed.\n"
    );
    for target in TARGETS {
        println!("  {:<14}{}", target.name, target.about);
    }
}

fn number(arguments: &mut lexopt::Parser, option: &str) -> Result<u64, Failure> {
    let text = arguments.value()?;
    let number = text.to_str().and_then(|text| text.parse().ok());
    number.ok_or_else(|| format!("--{option} takes a number, not {text:?}").into())
}

impl Target {
    /// Runs one fuzzer, optimised, and fails if its test is not there.
    fn run(&self, seed: Option<u64>, seconds: Option<u64>) -> Result<(), Failure> {
        let mut command = checkout::cargo();
        command
            .args(["test", "--quiet", "--profile", "checks", "--locked", "--package", self.package])
            .args(self.binary)
            .args(["--", "--exact", self.test, "--nocapture", "--test-threads=1"])
            .current_dir(checkout::root()?)
            .env("INSTA_UPDATE", "no")
            .stdout(Stdio::piped());
        for (name, value) in [("UNDERSTORY_FUZZ_SEED", seed), ("UNDERSTORY_FUZZ_SECONDS", seconds)] {
            match value {
                Some(value) => command.env(name, value.to_string()),
                None => command.env_remove(name),
            };
        }
        let mut child = command.spawn().map_err(|cause| format!("cargo did not start: {cause}"))?;
        let start = format!("fuzz {}: ", self.name);
        let mut is_there = false;
        for line in BufReader::new(child.stdout.take().ok_or("cargo prints nowhere")?).lines() {
            let line = line?;
            is_there |= line.contains(&start);
            println!("{line}");
        }
        let status = child.wait()?;
        match (status.success(), is_there) {
            (true, true) => Ok(()),
            (true, false) => Err(format!("{} has no test {}", self.package, self.test).into()),
            (false, _) => Err(format!("{} failed ({status})", self.name).into()),
        }
    }
}
