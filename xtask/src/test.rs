//! `cargo xtask test`: everything a change must pass, in the order in which failures are cheapest to find.
//!
//! Stops at the first step that fails and prints the one command that repeats it. Expectations are never written:
//! every step runs with `INSTA_UPDATE=no`.
//!
//! # Not here
//! What the steps check. The long model, crash and bit-flip tests are integration tests of the `understory` crate:
//! they do a small part of their work in a debug build, and all of it (of the flips a bounded share) in the optimised
//! one.

use crate::{Failure, checkout, layout, tidy};
use lexopt::Arg;
use std::time::{Duration, Instant};

/// One step: what it is called, how it is done, and whether `--quick` keeps it.
struct Step {
    name: &'static str,
    quick: bool,
    work: Work,
}

enum Work {
    /// Arguments of cargo, which also are the command to repeat.
    Cargo(&'static str),
    Tidy,
    Layout,
}

const STEPS: [Step; 14] = [
    Step { name: "format", quick: true, work: Work::Cargo("fmt --all -- --check") },
    Step { name: "tidy", quick: true, work: Work::Tidy },
    Step {
        name: "clippy",
        quick: true,
        work: Work::Cargo("clippy --workspace --all-targets --locked -- -D warnings"),
    },
    Step {
        name: "clippy with metrics and tracing",
        quick: true,
        work: Work::Cargo("clippy -p understory --all-features --all-targets --locked -- -D warnings"),
    },
    Step { name: "layout", quick: true, work: Work::Layout },
    Step {
        name: "unit and integration tests",
        quick: true,
        work: Work::Cargo("test --workspace --tests --locked"),
    },
    Step { name: "doc tests", quick: true, work: Work::Cargo("test --workspace --doc --locked") },
    Step { name: "documentation", quick: true, work: Work::Cargo("doc --workspace --no-deps --locked") },
    Step {
        name: "model fuzzers, optimised",
        quick: false,
        work: Work::Cargo(
            "test --profile checks -p understory-forest -p understory-grid -p understory-manifest -p understory-manifest-log \
             -p understory-table -p understory-tree --lib --locked -- fuzz::",
        ),
    },
    Step {
        name: "model, crash, damage and real-file tests, optimised",
        quick: false,
        work: Work::Cargo("test --profile checks -p understory --test engine --test real_files --locked"),
    },
    Step {
        name: "tests of metrics and tracing",
        quick: false,
        work: Work::Cargo("test -p understory --all-features --test features --locked"),
    },
    Step {
        name: "simulation, seeds that failed once and the first ones",
        quick: false,
        work: Work::Cargo("run --quiet --profile checks --locked -p understory-sim -- --seeds 600 --first 0"),
    },
    Step {
        name: "simulation, a share of the crashes",
        quick: false,
        work: Work::Cargo("run --quiet --profile checks --locked -p understory-sim -- --crashes --stride 20"),
    },
    Step {
        name: "benchmarks compile",
        quick: false,
        work: Work::Cargo(
            "clippy --manifest-path benches/Cargo.toml --target-dir target --locked -- -D warnings",
        ),
    },
];

/// Runs the steps, with a line for each.
pub(crate) fn run(mut arguments: lexopt::Parser) -> Result<(), Failure> {
    let mut quick = false;
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("quick") => quick = true,
            Arg::Short(_) | Arg::Long(_) | Arg::Value(_) => return Err(argument.unexpected().into()),
        }
    }
    let mut report = Vec::new();
    for step in STEPS.iter().filter(|step| step.quick || !quick) {
        eprintln!("\n== {}", step.name);
        let (outcome, took) = timed(|| step.work.run());
        if let Err(failure) = outcome {
            report.iter().for_each(|line| eprintln!("{line}"));
            return Err(format!("{}: {failure}\nto repeat it: {}", step.name, step.work.command()).into());
        }
        report.push(format!("ok  {:>6.1} s  {}", took.as_secs_f64(), step.name));
    }
    eprintln!();
    report.iter().for_each(|line| eprintln!("{line}"));
    let left_out = if quick { " (--quick leaves out what needs an optimised build)" } else { "" };
    eprintln!("all {} steps passed{left_out}", report.len());
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a tool that tells a person how long its steps took")]
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}

impl Work {
    fn run(&self) -> Result<(), Failure> {
        match self {
            Work::Cargo(arguments) => checkout::finish(
                checkout::cargo()
                    .args(arguments.split(' '))
                    .current_dir(checkout::root()?)
                    .env("INSTA_UPDATE", "no")
                    .env("RUSTDOCFLAGS", "-D warnings"),
                "cargo",
            ),
            Work::Tidy => tidy::check(),
            Work::Layout => layout::check(),
        }
    }

    fn command(&self) -> String {
        match self {
            Work::Cargo(arguments) => format!("cargo {}", arguments.replace(" * ", " '*' ")),
            Work::Tidy => "cargo xtask tidy".to_owned(),
            Work::Layout => "cargo xtask layout --check".to_owned(),
        }
    }
}
