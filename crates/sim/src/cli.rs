//! The command line: many seeds, one seed, or a sweep.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use lexopt::{Arg, ValueExt};

use crate::handle::Tally;
use crate::log::Log;
use crate::report::{self, Failure, Report, write_json};
use crate::swarm::{self, Extent, Findings};
use crate::sweep::{Outcomes, Part, Swept};
use crate::trace::{Trace, Violation};
use crate::{crashes, damage, faults};

const USAGE: &str = "\
usage: cargo xtask sim [options]

  --seeds N      runs so many seeds (2000), those first that failed once
  --first S      from this one on (from where the log ends); the first item of a sweep (0)
  --minutes M    begins no seed after so many minutes
  --seed S       runs one seed, and tells what happens in it
  --crashes      a crash at each operation of a small workload, in each way
  --faults       each kind of fault at each operation of a small workload, and of opening what it left
  --damage       each byte of a small image flipped, each sector zeroed and swapped, the file cut at each block
  --stride N     of a sweep only each N-th item
  --json FILE    writes the figures
  --log FILE     counts over all runs and sweeps (target/sim/log.json)
";

/// Seeds that failed once, one to a line, with what it was.
const REGRESSIONS: &str = include_str!("../regressions.txt");

/// Failures after which no more seeds are begun.
const FAILURES_MAX: usize = 10;

/// Seeds between two entries in the log: what a run that is stopped loses.
const STRETCH: u64 = 2000;

/// Lines of a failed seed's trace that are shown.
const LINES_SHOWN: usize = 40;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Seeds,
    One(u64),
    Crashes,
    Faults,
    Damage,
}

struct Arguments {
    mode: Mode,
    seeds: u64,
    first: Option<u64>,
    minutes: Option<u64>,
    stride: u64,
    failures_max: usize,
    json: Option<PathBuf>,
    log: PathBuf,
}

impl Arguments {
    /// Of a sweep, what to visit.
    fn part(&self) -> Part {
        Part { first: self.first.unwrap_or(0), stride: self.stride }
    }
}

/// Runs what the arguments ask for.
///
/// # Errors
/// What is wrong with them; what failed.
pub fn run(parser: lexopt::Parser) -> Result<(), Failure> {
    let Some(arguments) = parse(parser)? else {
        print!("{USAGE}");
        return Ok(());
    };
    if let Mode::One(seed) = arguments.mode {
        return one(seed);
    }
    // What panics is told as a failure, with the command that replays it.
    std::panic::set_hook(Box::new(|_| {}));
    let reports = match arguments.mode {
        Mode::Seeds | Mode::One(_) => vec![seeds(&arguments)?],
        Mode::Crashes => vec![sweep_crashes(&arguments)?],
        Mode::Faults => vec![sweep_faults(&arguments)?],
        Mode::Damage => sweep_damage(&arguments)?,
    };
    if arguments.mode != Mode::Seeds {
        Log::update(&arguments.log, |log| log.processor_seconds += report::processor_seconds())?;
    }
    drop(std::panic::take_hook());
    if let Some(path) = &arguments.json {
        write_json(path, &reports)?;
    }
    conclude(&arguments, &reports)
}

fn parse(mut parser: lexopt::Parser) -> Result<Option<Arguments>, Failure> {
    let mut arguments = Arguments {
        mode: Mode::Seeds,
        seeds: 2000,
        first: None,
        minutes: None,
        stride: 1,
        failures_max: FAILURES_MAX,
        json: None,
        log: PathBuf::from("target/sim/log.json"),
    };
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("seeds") => arguments.seeds = parser.value()?.parse()?,
            Arg::Long("first") => arguments.first = Some(parser.value()?.parse()?),
            Arg::Long("minutes") => arguments.minutes = Some(parser.value()?.parse()?),
            Arg::Long("seed") => arguments.mode = Mode::One(parser.value()?.parse()?),
            Arg::Long("crashes") => arguments.mode = Mode::Crashes,
            Arg::Long("faults") => arguments.mode = Mode::Faults,
            Arg::Long("damage") => arguments.mode = Mode::Damage,
            Arg::Long("stride") => arguments.stride = parser.value()?.parse_with(positive)?,
            Arg::Long("failures") => arguments.failures_max = parser.value()?.parse()?,
            Arg::Long("json") => arguments.json = Some(parser.value()?.into()),
            Arg::Long("log") => arguments.log = parser.value()?.into(),
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            Arg::Short(_) | Arg::Long(_) | Arg::Value(_) => {
                return Err(format!("{}\n\n{USAGE}", argument.unexpected()).into());
            }
        }
    }
    Ok(Some(arguments))
}

fn positive(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(0) => Err("must not be 0".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}

/// Prints what was found, and fails if anything failed.
fn conclude(arguments: &Arguments, reports: &[Report]) -> Result<(), Failure> {
    let mut failures = 0;
    for report in reports {
        let replay = |item: u64| match arguments.mode {
            Mode::Seeds | Mode::One(_) => format!("cargo xtask sim --seed {item}"),
            Mode::Crashes | Mode::Faults | Mode::Damage => format!("the same command; item {item}"),
        };
        print!("{}", report.text(replay));
        failures += report.failures.len();
        if let Some((seed, digest)) = report.digests.first_key_value() {
            show(*seed, *digest, &arguments.log)?;
        }
    }
    if failures == 0 { Ok(()) } else { Err(format!("{failures} failures").into()) }
}

/// Runs a failed seed once more; the end of its trace is shown, more of it kept in a file beside the log. Says so if it
/// was not the same run as the first, of that digest.
#[expect(clippy::disallowed_methods, reason = "a tool's own file, beside the build output")]
fn show(seed: u64, digest: u64, log: &Path) -> Result<(), Failure> {
    let trace = Arc::new(Trace::verbose());
    std::panic::set_hook(Box::new(|_| {}));
    let _failure = swarm::guarded(seed, &trace, &Arc::default());
    drop(std::panic::take_hook());
    let lines = trace.lines();
    let path = log.with_file_name(format!("seed-{seed}.txt"));
    std::fs::write(&path, lines.join("\n"))?;
    if trace.digest() != digest {
        println!(
            "seed {seed} did not do the same again: a run depends on more than its seed, which is a fault, too"
        );
    }
    println!("the end of seed {seed} (more of it: {}):", path.display());
    let first = lines.len().saturating_sub(LINES_SHOWN);
    lines.iter().skip(first).for_each(|line| println!("{line}"));
    Ok(())
}

/// Runs one seed and tells everything.
fn one(seed: u64) -> Result<(), Failure> {
    let (trace, tally) = (Arc::new(Trace::verbose()), Arc::new(Tally::default()));
    let outcome = swarm::guarded(seed, &trace, &tally);
    trace.lines().iter().for_each(|line| println!("{line}"));
    for (what, times) in tally.counts() {
        println!("{times:>12}  {what}");
    }
    match outcome {
        Ok(outcome) => {
            println!("seed {seed} passes: {outcome:?}");
            Ok(())
        }
        Err(Violation(words)) => Err(format!("seed {seed}: {words}").into()),
    }
}

fn seeds(arguments: &Arguments) -> Result<Report, Failure> {
    let before = regressions(REGRESSIONS)?;
    let first = arguments.first.map_or_else(|| Log::read(&arguments.log).map(|log| log.next), Ok)?;
    let (findings, processor_seconds) = stretches(arguments, first, &before)?;
    let log = Log::read(&arguments.log)?;
    let hours = log.processor_seconds / 3600.0;
    let about = vec![
        format!("seeds {first} to {}, after {} that failed once", findings.next, before.len()),
        format!("with all runs before: {} seeds, {hours:.2} hours of processors", log.seeds),
    ];
    let mut counts = findings.counts;
    let _none = counts.insert("steps", findings.steps);
    let visited = ("seeds", findings.seeds);
    let (failures, digests, took) = (findings.failures, findings.digests, findings.took);
    let outcomes = Outcomes::new();
    Ok(Report { name: "seeds", about, visited, counts, outcomes, failures, digests, took, processor_seconds })
}

/// Runs the seeds from `first` on, stretch by stretch, each with its entry in the log; what they came to, and the
/// processor seconds that it took.
fn stretches(arguments: &Arguments, first: u64, before: &[u64]) -> Result<(Findings, f64), Failure> {
    let last = first.saturating_add(arguments.seeds);
    let time = arguments.minutes.map(|minutes| Duration::from_secs(60 * minutes));
    let bar = bar(arguments.seeds.saturating_add(understory_format::u64_of(before.len())), "seeds");
    let mut total = Findings { next: first, ..Findings::default() };
    let mut processor_seconds = 0.0;
    loop {
        let extent = Extent {
            first: total.next,
            count: STRETCH.min(last - total.next),
            time: time.map(|time| time.saturating_sub(total.took)),
            failures_max: arguments.failures_max - total.failures.len(),
            workers: workers(),
        };
        let before = if total.seeds == 0 { before } else { &[] };
        let stretch = swarm::run(extent, before, &mut |done, failures| {
            bar.set_position(total.seeds + done);
            let failures = total.failures.len() + failures;
            if failures > 0 {
                bar.set_message(format!("{failures} failed"));
            }
        });
        let now = report::processor_seconds();
        Log::update(&arguments.log, |log| log.add(&stretch, now - processor_seconds))?;
        processor_seconds = now;
        let is_whole = stretch.next == extent.first + extent.count;
        total.add(stretch);
        if !is_whole || total.next == last || total.failures.len() >= arguments.failures_max {
            bar.finish_and_clear();
            return Ok((total, processor_seconds));
        }
    }
}

/// The seeds of a text: one to a line, and what was wrong behind it.
fn regressions(text: &str) -> Result<Vec<u64>, Failure> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let seed = |line: &str| line.split_whitespace().next().unwrap_or_default().parse::<u64>();
    Ok(lines.map(seed).collect::<Result<_, _>>()?)
}

fn sweep_crashes(arguments: &Arguments) -> Result<Report, Failure> {
    let bar = bar(0, "crashes");
    let crashes = crashes::run(workers(), arguments.part(), &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    let about = vec![
        format!(
            "workload: {} operations, {} laps of the ring, {:?}",
            crashes.operations, crashes.laps, crashes.baseline
        ),
        format!("{} checkpoints; {} ways to crash at each operation", crashes.checkpoints, crashes.policies),
        format!("{} different images were left by crashes", crashes.images),
    ];
    Ok(report("crashes", about, crashes.swept))
}

fn sweep_faults(arguments: &Arguments) -> Result<Report, Failure> {
    let bar = bar(0, "faults");
    let faults = faults::run(workers(), arguments.part(), &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    let about = vec![format!(
        "workload: {} operations, and {} of opening what it left",
        faults.operations, faults.opening
    )];
    Ok(report("faults", about, faults.swept))
}

fn sweep_damage(arguments: &Arguments) -> Result<Vec<Report>, Failure> {
    let sweep = |(is_closed, name): (bool, &'static str)| {
        let bar = bar(0, name);
        let damages = damage::run(is_closed, workers(), arguments.part(), &mut |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        })?;
        bar.finish_and_clear();
        let about = vec![format!("{name}: {} bytes, after {:?}", damages.size, damages.baseline)];
        Ok(report(name, about, damages.swept))
    };
    [(false, "image of a process that was killed"), (true, "image that was closed")]
        .into_iter()
        .map(sweep)
        .collect()
}

fn report(name: &'static str, about: Vec<String>, swept: Swept) -> Report {
    let Swept { visited, counts, outcomes, failures, took, processor_seconds } = swept;
    let (visited, digests) = (("visited", visited), BTreeMap::new());
    Report { name, about, visited, counts, outcomes, failures, digests, took, processor_seconds }
}

fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn bar(total: u64, what: &'static str) -> ProgressBar {
    let template = "{bar:40} {human_pos} of {human_len} {prefix} {msg} {eta}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total).with_style(style).with_prefix(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&[u64]>) {
        assert_eq!(regressions(text).ok().as_deref(), expected, "{text:?}");
    }

    #[test]
    fn seeds_that_failed_are_listed() {
        check("", Some(&[]));
        check("# 1\n\n  # 2\n", Some(&[]));
        check("3 what was wrong\n17\n  4  # other\n", Some(&[3, 17, 4]));
        check("3\nseed 4\n", None);
        check("-1", None);
        assert!(!regressions(REGRESSIONS).expect("the file is as it should be").is_empty());
    }
}
