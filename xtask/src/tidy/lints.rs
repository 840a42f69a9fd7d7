//! The lint tables: every crate takes the workspace's, and the one that cannot carries a full copy.
//!
//! Cargo refuses to override single lints of an inherited table, and `io` must allow `unsafe_code`; so its table is
//! a copy, which drifts unless something compares it. It may have more.

use super::{Faults, layers};
use crate::{Failure, checkout};
use cargo_metadata::Metadata;
use std::collections::BTreeSet;
use std::path::Path;

/// The crate with a table of its own, and the lint that is the reason.
const OWN_TABLE: (&str, &str) = ("io", "unsafe_code");

pub(super) fn check(root: &Path, metadata: &Metadata, faults: &mut Faults) -> Result<(), Failure> {
    let shared = lints(&checkout::read(&root.join("Cargo.toml"))?, "[workspace.lints.");
    for package in metadata.workspace_packages() {
        let name = layers::folder(package);
        let manifest = checkout::read(package.manifest_path.as_std_path())?;
        if name != OWN_TABLE.0 {
            if !manifest.contains("[lints]\nworkspace = true\n") {
                faults.add(format!("crate {name}: does not take the workspace's lints"));
            }
            continue;
        }
        let own = lints(&manifest, "[lints.");
        for lint in shared.difference(&own) {
            if !lint.contains(OWN_TABLE.1) {
                faults.add(format!("crate {name}: its lint table lacks the workspace's {lint}"));
            }
        }
    }
    Ok(())
}

/// The lines of the tables whose header starts with `prefix`, each after the name of its tool.
fn lints(manifest: &str, prefix: &str) -> BTreeSet<String> {
    let mut tool = None;
    let mut lints = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            tool = line.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(']'));
        } else if let (Some(tool), true) = (tool, line.contains('=') && !line.starts_with('#')) {
            lints.insert(format!("{tool}: {line}"));
        }
    }
    lints
}
