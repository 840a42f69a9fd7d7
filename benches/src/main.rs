//! Benchmarks of Understory, alone and beside other engines in one run. Start them with `cargo xtask bench`.
//!
//! What is measured, and what is not equal between the engines: `docs/benchmarks.md`.

mod engine;
mod measure;
mod ours;
#[cfg(feature = "peers")]
mod peers;
mod records;
mod report;
mod suite;

use engine::Kind;
use lexopt::{Arg, ValueExt};
use report::Results;
use std::path::PathBuf;
use std::process::ExitCode;
use suite::Scale;

/// Any failure, with a message for the person at the terminal.
type Failure = Box<dyn std::error::Error>;

const USAGE: &str = "\
usage: bench [--quick] [--json FILE] [--records N] [--rounds N] [--scratch FOLDER]

  --quick           a tenth of the records, one round
  --json FILE       writes the results there too
  --records N       records to ingest (10,000,000); reads are of a fifth of them
  --rounds N        how often everything is repeated (3); medians are given
  --scratch FOLDER  where the data goes (target/bench); a folder in it is emptied
";

struct Arguments {
    json: Option<PathBuf>,
    scratch: PathBuf,
    scale: Scale,
}

fn main() -> ExitCode {
    match arguments(lexopt::Parser::from_env()).and_then(|arguments| run(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn arguments(mut parser: lexopt::Parser) -> Result<Arguments, Failure> {
    let mut arguments = Arguments { json: None, scratch: "target/bench".into(), scale: Scale::FULL };
    let (mut records, mut rounds) = (None, None);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("quick") => arguments.scale = Scale::QUICK,
            Arg::Long("json") => arguments.json = Some(parser.value()?.into()),
            Arg::Long("scratch") => arguments.scratch = parser.value()?.into(),
            Arg::Long("records") => records = Some(parser.value()?.parse()?),
            Arg::Long("rounds") => rounds = Some(parser.value()?.parse()?),
            Arg::Short(_) | Arg::Long(_) | Arg::Value(_) => {
                return Err(format!("{}\n\n{USAGE}", argument.unexpected()).into());
            }
        }
    }
    arguments.scale.records = records.unwrap_or(arguments.scale.records);
    arguments.scale.rounds = rounds.unwrap_or(arguments.scale.rounds);
    Ok(arguments)
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut results = Results::default();
    for round in 0..arguments.scale.rounds {
        // Another engine begins each round, so that none always runs on a disk that the same other one left.
        let first = usize::try_from(round)? % Kind::ALL.len();
        for kind in Kind::ALL.iter().cycle().skip(first).take(Kind::ALL.len()) {
            eprintln!("round {} of {}: {}", round + 1, arguments.scale.rounds, kind.name());
            suite::run(*kind, &arguments.scale, &arguments.scratch.join("engine"), &mut results)?;
        }
    }
    print!("{}", results.table(&arguments.scale));
    if let Some(file) = &arguments.json {
        measure::write(file, &results.json(&arguments.scale))?;
    }
    Ok(())
}
