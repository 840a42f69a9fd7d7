//! What a person and a program are told.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::sweep::Outcomes;

/// Any failure, with a message for the person at the terminal.
pub type Failure = Box<dyn std::error::Error>;

/// Failures that are shown.
const SHOWN_MAX: usize = 20;

/// Characters of a failure that are shown.
const WORDS_MAX: usize = 900;

/// What a run or a sweep came to.
#[derive(Debug)]
pub(crate) struct Report {
    /// What was done, as in names of results.
    pub(crate) name: &'static str,
    /// Facts about what was gone through, in words.
    pub(crate) about: Vec<String>,
    /// What was visited, and how many.
    pub(crate) visited: (&'static str, u64),
    pub(crate) counts: BTreeMap<&'static str, u64>,
    /// Kinds of what was visited, and what they came to.
    pub(crate) outcomes: Outcomes,
    pub(crate) failures: BTreeMap<u64, String>,
    /// Of failed seeds, what tells their runs from others.
    pub(crate) digests: BTreeMap<u64, u64>,
    pub(crate) took: Duration,
    pub(crate) processor_seconds: f64,
}

impl Report {
    /// As lines of text.
    pub(crate) fn text(&self, replay: impl Fn(u64) -> String) -> String {
        let mut text = String::new();
        let mut line = |words: &str| {
            let _ok = writeln!(text, "{words}");
        };
        self.about.iter().for_each(|words| line(words));
        for (what, times) in &self.counts {
            line(&format!("{times:>12}  {what}"));
        }
        for ((kind, outcome), times) in &self.outcomes {
            line(&format!("{times:>12}  {kind}: {outcome}"));
        }
        let (what, count) = self.visited;
        let (took, processor) = (self.took.as_secs_f64(), self.processor_seconds);
        line(&format!("{count:>12}  {what} in {took:.1} s, {processor:.1} s of processors"));
        line(&format!("{:>12}  failures", self.failures.len()));
        for (item, words) in self.failures.iter().take(SHOWN_MAX) {
            let words: String = words.chars().take(WORDS_MAX).collect();
            line(&format!("{item}: {words}\n    to replay it: {}", replay(*item)));
        }
        text
    }

    /// As one entry per result: name, unit, value.
    fn results(&self) -> Vec<Value> {
        let name = self.name;
        let result = |what: &str, unit: &str, value: Value| json!({"name": format!("{name}: {what}"), "unit": unit, "value": value});
        let (what, count) = self.visited;
        let mut results = vec![
            result(what, "count", json!(count)),
            result("failures", "count", json!(self.failures.len())),
            result("time", "seconds", json!(self.took.as_secs_f64())),
            result("processor time", "seconds", json!(self.processor_seconds)),
        ];
        results.extend(self.counts.iter().map(|(what, times)| result(what, "count", json!(times))));
        let outcomes = self.outcomes.iter();
        results
            .extend(outcomes.map(|((kind, outcome), times)| {
                result(&format!("{kind}: {outcome}"), "count", json!(times))
            }));
        results
    }
}

/// Writes the results of all reports.
#[expect(clippy::disallowed_methods, reason = "the file that a person asked for")]
pub(crate) fn write_json(path: &Path, reports: &[Report]) -> Result<(), Failure> {
    let results: Vec<Value> = reports.iter().flat_map(Report::results).collect();
    let text = serde_json::to_string_pretty(&json!({ "results": results }))?;
    Ok(std::fs::write(path, text + "\n")?)
}

/// Processor time that this process has used.
pub(crate) fn processor_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanos).as_secs_f64()
}
