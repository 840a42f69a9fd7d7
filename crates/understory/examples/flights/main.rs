//! The main job on real data: 336,776 flights with five indexes, loaded, checkpointed, reopened and asked.
//!
//! Each answer from the indexes is compared with the answer of a plain pass over the CSV, and each flight with its
//! row. The job is done twice: with the default geometry, and with a tiny one that populates several levels. Start
//! it with `cargo xtask demo`.

mod answers;
mod key;
mod load;
mod pass;
mod plain;
mod queries;
mod record;
mod report;
mod source;

use lexopt::Arg;
use pass::Pass;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use understory::Geometry;

/// Any failure, with a message for the person at the terminal.
type Failure = Box<dyn std::error::Error>;

const USAGE: &str = "\
usage: flights [--json FILE] [--path FILE] [--keep] [--stats] [--data FOLDER] [--scratch FOLDER]

  --json FILE       writes the results there too
  --path FILE       where the data file goes; must not be there yet
  --keep            leaves the data files where they are
  --stats           prints the engine's own figures of the load
  --data FOLDER     where the bundled flights are (data/nycflights13)
  --scratch FOLDER  where the data file goes without --path (target/demo)
";

struct Arguments {
    json: Option<PathBuf>,
    path: Option<PathBuf>,
    keep: bool,
    stats: bool,
    data: PathBuf,
    scratch: PathBuf,
}

fn main() -> ExitCode {
    match arguments(lexopt::Parser::from_env()).and_then(|arguments| run(&arguments)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("flights: not everything matches");
            ExitCode::FAILURE
        }
        Err(failure) => {
            eprintln!("flights: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn arguments(mut parser: lexopt::Parser) -> Result<Arguments, Failure> {
    let mut arguments = Arguments {
        json: None,
        path: None,
        keep: false,
        stats: false,
        data: "data/nycflights13".into(),
        scratch: "target/demo".into(),
    };
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("json") => arguments.json = Some(parser.value()?.into()),
            Arg::Long("path") => arguments.path = Some(parser.value()?.into()),
            Arg::Long("keep") => arguments.keep = true,
            Arg::Long("stats") => arguments.stats = true,
            Arg::Long("data") => arguments.data = parser.value()?.into(),
            Arg::Long("scratch") => arguments.scratch = parser.value()?.into(),
            Arg::Short(_) | Arg::Long(_) | Arg::Value(_) => {
                return Err(format!("{}\n\n{USAGE}", argument.unexpected()).into());
            }
        }
    }
    Ok(arguments)
}

/// Does everything; false if an answer differs.
fn run(arguments: &Arguments) -> Result<bool, Failure> {
    let plain = plain::pass(&arguments.data)?;
    let mut flights = Vec::with_capacity(plain.rows.try_into()?);
    source::for_each_flight(&arguments.data, |row| {
        flights.push(record::Flight::from_row(row)?);
        Ok(())
    })?;
    let airlines = source::airlines(&arguments.data)?;

    let path = data_file(arguments)?;
    let plans = [
        Plan {
            name: "default geometry",
            path: path.clone(),
            geometry: Geometry::default(),
            memory: 512 << 20,
            levels_min: 0,
        },
        Plan {
            name: "tiny geometry",
            path: path.with_added_extension("tiny"),
            geometry: Geometry::small(),
            memory: 64 << 20,
            levels_min: 3,
        },
    ];
    let mut passes = Vec::new();
    for plan in &plans {
        let pass = pass::run(plan, &arguments.data, arguments.keep, &flights, &plain)?;
        report::print(&pass, &plain, &airlines);
        if arguments.stats {
            report::print_stats(&pass.stats);
        }
        passes.push(pass);
    }
    if let Some(file) = &arguments.json {
        write(file, &report::json(&passes, &plain))?;
    }
    report::print_end(&passes, arguments.keep);
    Ok(passes.iter().all(Pass::matches))
}

/// One way of doing the job.
struct Plan {
    name: &'static str,
    path: PathBuf,
    geometry: Geometry,
    /// The budget of the engine, in bytes.
    memory: u64,
    /// Levels that the pass is there to populate in at least one tree.
    levels_min: u64,
}

/// Where the data file goes: where `--path` says, or into the scratch folder, over what an earlier run left there.
#[expect(clippy::disallowed_methods, reason = "makes the folder that the demo's file goes into")]
fn data_file(arguments: &Arguments) -> Result<PathBuf, Failure> {
    if let Some(path) = &arguments.path {
        return Ok(path.clone());
    }
    std::fs::create_dir_all(&arguments.scratch)?;
    let path = arguments.scratch.join("flights.understory");
    for left_over in [path.clone(), path.with_added_extension("tiny")] {
        if left_over.exists() {
            remove(&left_over).map_err(|cause| format!("{}: {cause}", left_over.display()))?;
        }
    }
    Ok(path)
}

#[expect(clippy::disallowed_methods, reason = "removes the demo's own file")]
fn remove(path: &Path) -> std::io::Result<()> {
    std::fs::remove_file(path)
}

#[expect(clippy::disallowed_methods, reason = "writes a report, which is no data file of the engine")]
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|cause| format!("{}: {cause}", path.display()).into())
}

#[expect(clippy::disallowed_methods, reason = "tells a person how long things took")]
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}
