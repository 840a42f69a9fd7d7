//! The layers of the workspace: which crate may use which, and the check that they do.
//!
//! A crate uses only crates of lower layers, and only those in its row; `format` and `io` are implied above
//! layer 0. Development dependencies are free, as long as cargo accepts them.
//!
//! # Invariants
//! - Every row names only rows of lower layers (`rows_go_down`).
//! - Every workspace member has a row ([`check`]).

use super::Faults;
use cargo_metadata::{DependencyKind, Metadata, Package};

/// What a crate is for and where it stands.
pub(super) struct Row {
    /// `None` for tools, which nothing may use.
    pub(super) layer: Option<u8>,
    /// The folder's name.
    pub(super) name: &'static str,
    pub(super) owns: &'static str,
    pub(super) may_use: Uses,
    pub(super) never_knows: &'static str,
}

/// The crates that a row allows besides `format` and `io`.
pub(super) enum Uses {
    Only(&'static [&'static str]),
    AllBut(&'static [&'static str]),
    Any,
}

/// Crates that every higher layer may use.
const IMPLIED: [&str; 2] = ["format", "io"];

pub(super) const ROWS: [Row; 18] = [
    Row {
        layer: Some(0),
        name: "format",
        owns: "every on-disk struct, block kinds, checksums, addresses and other numbers with a meaning, the \
               record and key contract, layout tables; encode, decode, validate on byte slices",
        may_use: Uses::Only(&[]),
        never_knows: "I/O, allocation policy, time",
    },
    Row {
        layer: Some(0),
        name: "io",
        owns: "the machine, real and simulated: aligned arena, storage, clock, waits, workers; the only crate \
               with `unsafe`",
        may_use: Uses::Only(&[]),
        never_knows: "block kinds, checksums",
    },
    Row {
        layer: Some(0),
        name: "derive",
        owns: "derive macros for records and grooves",
        may_use: Uses::Only(&[]),
        never_knows: "the engine: it emits paths into `understory`",
    },
    Row {
        layer: Some(1),
        name: "manifest",
        owns: "the in-memory levels of one tree: which tables exist and which a beat sees; the choice of \
               compaction inputs, as pure functions",
        may_use: Uses::Only(&[]),
        never_knows: "blocks, I/O, the log",
    },
    Row {
        layer: Some(1),
        name: "journal",
        owns: "the write-ahead log: append, group commit, witness, recovery",
        may_use: Uses::Only(&[]),
        never_knows: "trees, tables",
    },
    Row {
        layer: Some(1),
        name: "grid",
        owns: "blocks by address: superblock, free set and reservations, block cache, verified reads, writes, \
               twins of metadata blocks, trailers",
        may_use: Uses::Only(&[]),
        never_knows: "tables, trees, keys",
    },
    Row {
        layer: Some(2),
        name: "manifest-log",
        owns: "the durable log of the table events of all trees, its replay, its own compaction and pace",
        may_use: Uses::Only(&["grid"]),
        never_knows: "key order, level policy, `manifest`",
    },
    Row {
        layer: Some(2),
        name: "table",
        owns: "building, searching and reading one immutable table; the memtable; merge and sort kernels",
        may_use: Uses::Only(&["grid"]),
        never_knows: "levels, other tables",
    },
    Row {
        layer: Some(3),
        name: "tree",
        owns: "one tree: mutable and immutable memtable, manifest, point lookup, scans",
        may_use: Uses::Only(&["table", "manifest", "grid"]),
        never_knows: "compaction, other trees",
    },
    Row {
        layer: Some(3),
        name: "compaction",
        owns: "one compaction as a bounded, resumable job: read, merge, write",
        may_use: Uses::Only(&["table", "manifest", "grid"]),
        never_knows: "trees, who runs it",
    },
    Row {
        layer: Some(3),
        name: "repair",
        owns: "the queue of damaged or missing blocks, whole-table repair, scrubber, rebuild",
        may_use: Uses::Only(&["grid", "journal", "manifest-log", "manifest", "table"]),
        never_knows: "tree, compaction, forest: it must open what the forest refuses",
    },
    Row {
        layer: Some(4),
        name: "groove",
        owns: "objects, their unique ids and secondary indexes over several trees; queries over indexes",
        may_use: Uses::Only(&["tree", "table"]),
        never_knows: "compaction, files",
    },
    Row {
        layer: Some(5),
        name: "forest",
        owns: "the set of trees; schedule, pace, order of checkpoint and of recovery",
        may_use: Uses::AllBut(&["repair", "journal"]),
        never_knows: "what keys mean, files of the operating system",
    },
    Row {
        layer: Some(6),
        name: "understory",
        owns: "the facade that most users depend on: `Database`, kinds of errors, the promise of semver",
        may_use: Uses::AllBut(&[]),
        never_knows: "on-disk offsets",
    },
    Row {
        layer: None,
        name: "cli",
        owns: "the `understory` program",
        may_use: Uses::Only(&["understory", "repair", "grid", "journal", "manifest-log", "table"]),
        never_knows: "",
    },
    Row {
        layer: None,
        name: "testkit",
        owns: "helpers of tests; unpublished",
        may_use: Uses::Only(&[]),
        never_knows: "",
    },
    Row {
        layer: None,
        name: "sim",
        owns: "the whole engine under simulated faults; unpublished",
        may_use: Uses::Any,
        never_knows: "",
    },
    Row {
        layer: None,
        name: "xtask",
        owns: "what a person or CI does with the workspace; unpublished",
        may_use: Uses::Any,
        never_knows: "",
    },
];

/// Checks each member's folder, name, README and normal dependencies.
pub(super) fn check(metadata: &Metadata, faults: &mut Faults) {
    for package in metadata.workspace_packages() {
        let name = folder(package);
        let Some(row) = row(name) else {
            faults.add(format!("crate {name}: no row in xtask/src/tidy/layers.rs says what it may use"));
            continue;
        };
        check_package(package, name, faults);
        for used in used(package) {
            if !row.allows(used) {
                faults
                    .add(format!("crate {name}: must not use {used} (see its row in docs/ARCHITECTURE.md)"));
            }
        }
    }
}

fn check_package(package: &Package, name: &str, faults: &mut Faults) {
    let published = match name {
        "understory" | "xtask" => name.to_owned(),
        _ => format!("understory-{name}"),
    };
    if package.name.as_str() != published {
        faults.add(format!("crate {name}: its package is called {}, not {published}", package.name));
    }
    if name != "xtask" && !package.manifest_path.with_file_name("README.md").exists() {
        faults.add(format!("crate {name}: has no README.md"));
    }
    if package.description.is_none() {
        faults.add(format!("crate {name}: its Cargo.toml has no description"));
    }
}

/// The workspace crates among a package's normal dependencies, by folder name, sorted.
pub(super) fn used(package: &Package) -> Vec<&str> {
    let mut used: Vec<&str> = package
        .dependencies
        .iter()
        .filter(|dependency| dependency.kind == DependencyKind::Normal)
        .filter_map(|dependency| dependency.path.as_ref()?.file_name())
        .collect();
    used.sort_unstable();
    used.dedup();
    used
}

/// The folder's name of a workspace member.
pub(super) fn folder(package: &Package) -> &str {
    package.manifest_path.parent().and_then(|folder| folder.file_name()).unwrap_or(package.name.as_str())
}

pub(super) fn row(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.name == name)
}

impl Row {
    fn allows(&self, used: &str) -> bool {
        let lower = match (self.layer, row(used).and_then(|used| used.layer)) {
            (Some(own), Some(other)) => other < own,
            (None, Some(_)) => true,
            // The simulator's records and keys are those of the tests.
            (None, None) => return self.name == "sim" && used == "testkit",
            (_, None) => return false,
        };
        lower
            && match self.may_use {
                // The derive macros are reached through the facade alone.
                Uses::Only(listed) => listed.contains(&used) || IMPLIED.contains(&used),
                Uses::AllBut(barred) => !barred.contains(&used),
                Uses::Any => true,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_down() {
        for row in &ROWS {
            let (Uses::Only(listed) | Uses::AllBut(listed)) = row.may_use else { continue };
            for used in listed {
                assert!(super::row(used).is_some(), "{} names {used}, which has no row", row.name);
                if let Uses::Only(_) = row.may_use {
                    assert!(row.allows(used), "{} lists {used}, which is not below it", row.name);
                }
            }
        }
    }

    #[track_caller]
    fn check(name: &str, used: &str, allowed: bool) {
        assert_eq!(row(name).unwrap().allows(used), allowed, "{name} using {used}");
    }

    #[test]
    fn what_a_row_does_not_list_is_refused() {
        check("table", "grid", true);
        check("table", "format", true);
        check("table", "manifest", false);
        check("manifest-log", "manifest", false);
        check("format", "io", false);
        check("io", "format", false);
        check("grid", "table", false);
        check("forest", "compaction", true);
        check("forest", "repair", false);
        check("understory", "repair", true);
        check("tree", "compaction", false);
        check("testkit", "grid", false);
        check("xtask", "understory", true);
        check("sim", "xtask", false);
        check("sim", "testkit", true);
        check("xtask", "testkit", false);
        check("manifest", "unknown", false);
    }
}
