//! Benchmarks of Understory, alone and beside other engines in one run. Start them with `cargo xtask bench`.
//!
//! What is measured, and what is not equal between the engines: `docs/benchmarks.md`.

mod aged;
mod commits;
mod engine;
mod measure;
mod ours;
#[cfg(feature = "peers")]
mod peers;
mod records;
mod report;
mod suite;

use commits::{Commits, Point};
use engine::Kind;
use lexopt::{Arg, Parser, ValueExt};
use report::Results;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use suite::Scale;

/// Any failure, with a message for the person at the terminal.
type Failure = Box<dyn std::error::Error + Send + Sync>;

const USAGE: &str = "\
usage: bench [SUITE...] [--quick] [--json FILE] [--records N] [--rounds N] [--scratch FOLDER]
             [--engine NAME]... [--seconds N] [--point THREADSxRECORDS]...

  SUITE             ingest, reads, cold, commits, aged; all if none is named
  --quick           a tenth of the records, a fifth of the time, one round
  --json FILE       writes the results there too
  --records N       records to ingest (10,000,000); reads are of a fifth of them
  --rounds N        how often everything is repeated (3); medians are given
  --scratch FOLDER  where the data goes (target/bench); a folder in it is emptied
  --engine NAME     only this engine, and others that are named like this
  --seconds N       how long each point of the commits goes on (2); twice as long for single records
  --point TxR       only this point of the commits, like 8x100, and others that are named like this
";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suite {
    Ingest,
    Reads,
    Cold,
    Commits,
    Aged,
}

impl Suite {
    const ALL: [Suite; 5] = [Suite::Ingest, Suite::Reads, Suite::Cold, Suite::Commits, Suite::Aged];
}

struct Arguments {
    suites: Vec<Suite>,
    engines: Vec<Kind>,
    json: Option<PathBuf>,
    scratch: PathBuf,
    scale: Scale,
}

fn main() -> ExitCode {
    match arguments(Parser::from_env()).and_then(|arguments| run(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// What is given beside the scale's defaults.
#[derive(Default)]
struct Given {
    quick: bool,
    records: Option<u64>,
    rounds: Option<u64>,
    seconds: Option<f64>,
    points: Vec<Point>,
}

fn arguments(mut parser: Parser) -> Result<Arguments, Failure> {
    let mut given = Given::default();
    let (mut suites, mut engines) = (Vec::new(), Vec::new());
    let (mut json, mut scratch) = (None, PathBuf::from("target/bench"));
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Value(name) => suites.push(suite(&name.string()?)?),
            Arg::Long("quick") => given.quick = true,
            Arg::Long("json") => json = Some(parser.value()?.into()),
            Arg::Long("scratch") => scratch = parser.value()?.into(),
            Arg::Long("records") => given.records = Some(parser.value()?.parse()?),
            Arg::Long("rounds") => given.rounds = Some(parser.value()?.parse()?),
            Arg::Long("seconds") => given.seconds = Some(parser.value()?.parse()?),
            Arg::Long("engine") => engines.push(engine(&parser.value()?.string()?)?),
            Arg::Long("point") => given.points.push(Point::parse(&parser.value()?.string()?)?),
            Arg::Short(_) | Arg::Long(_) => {
                return Err(format!("{}\n\n{USAGE}", argument.unexpected()).into());
            }
        }
    }
    if suites.is_empty() {
        suites = Suite::ALL.to_vec();
    }
    if engines.is_empty() {
        engines = Kind::ALL.to_vec();
    }
    Ok(Arguments { suites, engines, json, scratch, scale: given.scale()? })
}

impl Given {
    fn scale(self) -> Result<Scale, Failure> {
        let mut scale = if self.quick { Scale::quick() } else { Scale::full() };
        scale.records = self.records.unwrap_or(scale.records);
        scale.rounds = self.rounds.unwrap_or(scale.rounds);
        if let Some(seconds) = self.seconds {
            scale.commit_time = Duration::try_from_secs_f64(seconds)?;
        }
        if !self.points.is_empty() {
            scale.points = self.points;
        }
        Ok(scale)
    }
}

fn suite(name: &str) -> Result<Suite, Failure> {
    match name {
        "ingest" => Ok(Suite::Ingest),
        "reads" => Ok(Suite::Reads),
        "cold" => Ok(Suite::Cold),
        "aged" => Ok(Suite::Aged),
        "commits" => Ok(Suite::Commits),
        _ => Err(format!("no suite {name:?}\n\n{USAGE}").into()),
    }
}

fn engine(name: &str) -> Result<Kind, Failure> {
    let known = Kind::ALL.iter().find(|kind| kind.name() == name);
    known.copied().ok_or_else(|| format!("no engine {name:?} in this program").into())
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Arguments { suites, engines, json, scratch, scale } = arguments;
    let folder = scratch.join("engine");
    let mut results = Results::default();
    let mut commits = Commits::default();
    for suite in Suite::ALL {
        if !suites.contains(&suite) {
            continue;
        }
        for round in 0..scale.rounds {
            // Another engine begins each round, so that none always runs on a disk that the same other one left.
            let first = usize::try_from(round)? % engines.len();
            for kind in engines.iter().cycle().skip(first).take(engines.len()) {
                eprintln!("{suite:?}, round {} of {}: {}", round + 1, scale.rounds, kind.name());
                match suite {
                    Suite::Ingest => suite::ingest(*kind, scale, &folder, &mut results)?,
                    Suite::Reads => suite::reads(*kind, scale, &folder, &mut results)?,
                    Suite::Cold => suite::cold(*kind, scale, &folder, &mut results)?,
                    Suite::Commits => commits.run(*kind, scale, &folder)?,
                    Suite::Aged if *kind == Kind::Understory => aged::run(scale, &folder, &mut results)?,
                    Suite::Aged => {}
                }
            }
        }
    }
    commits.report(&mut results);
    print!("{}", results.table(scale));
    if let Some(file) = json {
        measure::write(file, &results.json(scale))?;
    }
    Ok(())
}
