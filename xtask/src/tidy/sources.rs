//! Each source file alone: a module doc first, ASCII only, no path of somebody's machine.
//!
//! A `tests.rs` beside a file needs no doc: its subject is that file.

use super::Faults;
use crate::{Failure, checkout};
use std::path::Path;

/// Text files besides the sources in which a path of a machine would be a slip.
const EXTENSIONS: [&str; 5] = ["rs", "toml", "md", "yml", "snap"];

/// Spelled in pieces, so that this file passes its own check.
const MACHINE_PATHS: [&str; 5] = [
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/Us", "ers/"),
    concat!("/wo", "rk/"),
    concat!("C:", "\\"),
];

pub(super) fn check(root: &Path, faults: &mut Faults) -> Result<(), Failure> {
    for path in checkout::files(root, &EXTENSIONS)? {
        let text = checkout::read(&path)?;
        let shown = path.strip_prefix(root).unwrap_or(&path).display();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let needs_doc = path.file_name().is_some_and(|name| name != "tests.rs");
            source(&text, needs_doc).for_each(|fault| faults.add(format!("{shown}:{fault}")));
        }
        machine_paths(&text).for_each(|fault| faults.add(format!("{shown}:{fault}")));
    }
    Ok(())
}

/// Faults of a Rust file, each after the number of its line.
fn source(text: &str, needs_doc: bool) -> impl Iterator<Item = String> {
    let undocumented = (needs_doc && !text.starts_with("//!"))
        .then(|| "1: a file starts with its module doc (//!)".to_owned());
    let foreign = text.lines().zip(1..).filter_map(|(line, number): (&str, u32)| {
        let found = line.chars().find(|found| !found.is_ascii())?;
        Some(format!("{number}: {found:?} is not ASCII"))
    });
    undocumented.into_iter().chain(foreign)
}

fn machine_paths(text: &str) -> impl Iterator<Item = String> {
    text.lines().zip(1..).filter_map(|(line, number): (&str, u32)| {
        let path = MACHINE_PATHS.iter().find(|path| line.contains(**path))?;
        Some(format!("{number}: {path} is a path of somebody's machine"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let found: Vec<String> = source(text, true).chain(machine_paths(text)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn faults_name_their_line() {
        check("//! Owns nothing.\n", &[]);
        check("fn main() {}\n", &["1: a file starts with its module doc (//!)"]);
        check("//! Says\n//! caf\u{e9}.\n", &["2: '\u{e9}' is not ASCII"]);
        let path = concat!("/ho", "me/");
        check(
            &format!("//! See {path}me/notes.\n"),
            &[format!("1: {path} is a path of somebody's machine").as_str()],
        );
    }
}
