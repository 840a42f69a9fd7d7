//! The levels and what is chosen from them, from a seed: `cargo xtask fuzz manifest`.
//!
//! Three models: one that executes what is planned (`executed`), one that makes the same choice by trying everything
//! (`drain`), and one that reads a plain list (`reads`).

mod drain;
mod executed;
mod reads;

use understory_testkit::Fuzzer;

const FUZZER: Fuzzer = Fuzzer {
    target: "manifest",
    seeds: 30,
    seeds_optimised: 90,
    goals: &[
        ("choices of several windows", 200),
        ("compactions", 1_000),
        ("cuts of flushes", 100),
        ("level 0 has all the runs that it may", 500),
        ("levels drained to just their limit", 20),
        ("most runs", 5),
        ("most runs in a compaction", 4),
        ("most tables in a compaction", 10),
        ("most tables that a flush meets", 8),
        ("most values, level 0", 50),
        ("most values, level 1", 60),
        ("most values, level 2", 100),
        ("most values, level 3", 100),
        ("neighbours joined", 500),
        ("runs joined", 2),
        ("tables moved", 100),
        ("tables that only earlier beats see", 100),
        ("tombstones dropped", 1_000),
    ],
};

#[test]
fn agrees_with_its_models() {
    FUZZER.run(|seed, coverage| {
        executed::run(seed, coverage);
        drain::run(seed, coverage);
        reads::run(seed, coverage);
    });
}
