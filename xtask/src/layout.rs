//! `cargo xtask layout`: the pages of `docs/layout/`, one for each on-disk struct and one for what is computed from
//! sizes, from the structs themselves.

use crate::{Failure, checkout};
use lexopt::Arg;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Writes the pages and removes those of structs that are gone; with `--check` only says what differs.
pub(crate) fn run(mut arguments: lexopt::Parser) -> Result<(), Failure> {
    let mut check_only = false;
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("check") => check_only = true,
            Arg::Short(_) | Arg::Long(_) | Arg::Value(_) => return Err(argument.unexpected().into()),
        }
    }
    if check_only { check() } else { write() }
}

/// Fails if a page is missing, differs or is left over.
pub(crate) fn check() -> Result<(), Failure> {
    let (wanted, found) = (wanted()?, found()?);
    let differs = wanted.iter().filter(|(path, text)| found.get(*path) != Some(*text)).map(|(path, _)| path);
    let left_over = found.keys().filter(|path| !wanted.contains_key(*path));
    let faults: Vec<String> = differs.chain(left_over).map(|path| path.display().to_string()).collect();
    if faults.is_empty() {
        return Ok(());
    }
    Err(format!("`cargo xtask layout` would change:\n  {}", faults.join("\n  ")).into())
}

fn write() -> Result<(), Failure> {
    let wanted = wanted()?;
    for path in found()?.keys().filter(|path| !wanted.contains_key(*path)) {
        checkout::remove(path)?;
    }
    wanted.iter().try_for_each(|(path, text)| checkout::write(path, text))
}

/// The pages as the structs want them.
fn wanted() -> Result<BTreeMap<PathBuf, String>, Failure> {
    let folder = checkout::root()?.join("docs/layout");
    let pages = understory_format::dump::documents().into_iter();
    Ok(pages.map(|(name, text)| (folder.join(name), text)).collect())
}

/// The pages as they are.
fn found() -> Result<BTreeMap<PathBuf, String>, Failure> {
    let folder = checkout::root()?.join("docs/layout");
    let paths = checkout::files(&folder, &["md"])?;
    paths.into_iter().map(|path| checkout::read(&path).map(|text| (path, text))).collect()
}
