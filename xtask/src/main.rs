//! Everything a person or CI does with this workspace: `cargo xtask <command>`.
//!
//! One module per command. Commands that check (`test`, `tidy`, `layout --check`) change nothing; commands that
//! write say what they wrote. The program has few dependencies, so that it is built in seconds.
//!
//! # Not here
//! What the commands start: the demo is an example of the `understory` crate, the benchmarks are a workspace of
//! their own in `benches/`.

mod bench;
mod checkout;
mod demo;
mod fuzz;
mod kill;
mod layout;
mod sim;
mod test;
mod tidy;

use lexopt::Arg;
use std::process::ExitCode;

/// Any failure, with a message for the person at the terminal.
type Failure = Box<dyn std::error::Error>;

const USAGE: &str = "\
usage: cargo xtask <command>

  demo [--json FILE] [--path FILE] [--keep]     the main job on real data, every answer checked
  test [--quick]                                everything a change must pass
  kill [--rounds N] [--seed N] [--small|--usual]
                                                kills a process that loads a real file, 300 times each geometry
  fuzz [TARGET|all] [--seconds N] [--seed S]    model fuzzers, from seeds; lists them without a target
  sim [--seeds N] [--first S] [--seed S] [--json FILE] [--help]
                                                the whole engine under simulated faults, from seeds; sweeps
  layout [--check]                              writes (checks) docs/layout/ from the on-disk structs
  tidy [--write]                                layers, module docs, ASCII, licences; generated tables
  bench [--quick] [--peers] [--json FILE]       benchmarks; with --peers beside other engines
";

fn main() -> ExitCode {
    match run(lexopt::Parser::from_env()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut arguments: lexopt::Parser) -> Result<(), Failure> {
    let command = match arguments.next()? {
        Some(Arg::Value(command)) => command,
        Some(Arg::Short('h') | Arg::Long("help")) => {
            print!("{USAGE}");
            return Ok(());
        }
        Some(other) => return Err(format!("{}\n\n{USAGE}", other.unexpected()).into()),
        None => return Err(format!("no command\n\n{USAGE}").into()),
    };
    match command.to_str() {
        Some("demo") => demo::run(arguments),
        Some("test") => test::run(arguments),
        Some("kill") => kill::run(arguments),
        Some("fuzz") => fuzz::run(arguments),
        Some("sim") => sim::run(arguments),
        Some("layout") => layout::run(arguments),
        Some("tidy") => tidy::run(arguments),
        Some("bench") => bench::run(arguments),
        _ => Err(format!("no command {command:?}\n\n{USAGE}").into()),
    }
}
