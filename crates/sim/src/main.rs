//! The simulator as a program.

use std::process::ExitCode;

fn main() -> ExitCode {
    match understory_sim::run(lexopt::Parser::from_env()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("sim: {failure}");
            ExitCode::FAILURE
        }
    }
}
