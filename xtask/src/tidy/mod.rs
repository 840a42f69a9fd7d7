//! `cargo xtask tidy`: what the compiler does not check about the shape of the workspace.
//!
//! Each part looks at one thing and adds to a list of faults, so that one run names them all.

mod crate_table;
mod layers;
mod licences;
mod links;
mod lints;
mod sources;

use crate::{Failure, checkout};
use cargo_metadata::{CargoOpt, Metadata, MetadataCommand};
use lexopt::Arg;

/// Checks, or with `--write` first brings the generated table up to date.
pub(crate) fn run(mut arguments: lexopt::Parser) -> Result<(), Failure> {
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("write") => crate_table::write(&checkout::root()?, &metadata()?)?,
            Arg::Short(_) | Arg::Long(_) | Arg::Value(_) => return Err(argument.unexpected().into()),
        }
    }
    check()
}

/// Runs every check and changes nothing.
pub(crate) fn check() -> Result<(), Failure> {
    let (root, metadata) = (checkout::root()?, metadata()?);
    let mut faults = Faults::default();
    layers::check(&metadata, &mut faults);
    licences::check(&metadata, &mut faults);
    lints::check(&root, &metadata, &mut faults)?;
    sources::check(&root, &mut faults)?;
    links::check(&root, &mut faults)?;
    crate_table::check(&root, &metadata, &mut faults)?;
    for fault in &faults.0 {
        eprintln!("{fault}");
    }
    match faults.0.len() {
        0 => Ok(()),
        count => Err(format!("{count} faults").into()),
    }
}

/// What the checks found, each with its place and what to do about it.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn add(&mut self, fault: impl Into<String>) {
        self.0.push(fault.into());
    }
}

/// The workspace and all it is built from, as the lock file says.
fn metadata() -> Result<Metadata, Failure> {
    Ok(MetadataCommand::new()
        .manifest_path(checkout::root()?.join("Cargo.toml"))
        .features(CargoOpt::AllFeatures)
        .other_options(["--locked".to_owned()])
        .exec()?)
}
