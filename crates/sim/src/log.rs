//! Counts over all runs, in a file: how many seeds, how much processor time, sweeps included, and where the next run
//! goes on.
//!
//! # Invariants
//! - A seed is counted once: a run without a first seed of its own goes on where the last one ended.
//! - A run that is stopped has counted all its stretches but the last.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::report::Failure;
use crate::swarm::Findings;

/// What is known of all runs so far.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// The first seed that no run took.
    pub(crate) next: u64,
    pub(crate) seeds: u64,
    pub(crate) steps: u64,
    pub(crate) processor_seconds: f64,
    pub(crate) counts: Map<String, Value>,
}

impl Log {
    /// What the file says; nothing if there is none.
    #[expect(clippy::disallowed_methods, reason = "a tool's own file, beside the build output")]
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let value: Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
        let number = |name: &str| value.get(name).and_then(Value::as_u64).unwrap_or(0);
        Ok(Self {
            next: number("next_seed"),
            seeds: number("seeds"),
            steps: number("steps"),
            processor_seconds: value.get("processor_seconds").and_then(Value::as_f64).unwrap_or(0.0),
            counts: value.get("counts").and_then(Value::as_object).cloned().unwrap_or_default(),
        })
    }

    /// Changes the file at `path`, whole or not at all.
    pub(crate) fn update(path: &Path, change: impl FnOnce(&mut Self)) -> Result<(), Failure> {
        let mut log = Self::read(path)?;
        change(&mut log);
        log.write(path)
    }

    /// Adds what a stretch of seeds came to.
    pub(crate) fn add(&mut self, findings: &Findings, processor_seconds: f64) {
        self.next = self.next.max(findings.next);
        self.seeds += findings.seeds;
        self.steps += findings.steps;
        self.processor_seconds += processor_seconds;
        for (what, times) in &findings.counts {
            let known = self.counts.get(*what).and_then(Value::as_u64).unwrap_or(0);
            let _known = self.counts.insert((*what).to_owned(), json!(known + times));
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a tool's own file, beside the build output")]
    fn write(&self, path: &Path) -> Result<(), Failure> {
        let value = json!({
            "next_seed": self.next,
            "seeds": self.seeds,
            "steps": self.steps,
            "processor_seconds": self.processor_seconds,
            "counts": self.counts,
        });
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let beside = path.with_extension("new");
        std::fs::write(&beside, serde_json::to_string_pretty(&value)? + "\n")?;
        Ok(std::fs::rename(beside, path)?)
    }
}
