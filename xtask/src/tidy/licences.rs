//! The licences of everything the workspace is built from, without the network.
//!
//! # Not here
//! Advisories and sources: those need the network, and `cargo deny` checks them in the workflow.

use super::Faults;
use cargo_metadata::Metadata;

/// Licence expressions that were read and accepted, as the packages spell them. A new one is a decision: add it
/// here and to `deny.toml`.
const ACCEPTED: [&str; 13] = [
    "(MIT OR Apache-2.0) AND Unicode-3.0",
    "Apache-2.0",
    "Apache-2.0 OR BSL-1.0",
    "Apache-2.0 OR MIT",
    "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
    "BSD-2-Clause OR Apache-2.0 OR MIT",
    "BSL-1.0",
    "MIT",
    "MIT OR Apache-2.0",
    "MIT OR Apache-2.0 OR LGPL-2.1-or-later",
    "Unlicense OR MIT",
    "Unlicense/MIT",
    "Zlib",
];

/// Checks each package of the lock file, on every platform and with every feature.
pub(super) fn check(metadata: &Metadata, faults: &mut Faults) {
    for package in &metadata.packages {
        match &package.license {
            Some(licence) if ACCEPTED.contains(&licence.as_str()) => {}
            Some(licence) => faults.add(format!("{}: licence {licence} is not accepted", package.name)),
            None => faults.add(format!("{}: says no licence", package.name)),
        }
    }
}
