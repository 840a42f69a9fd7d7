//! Results: medians over the rounds, and how Understory stands to the best of the others.

use crate::engine::Kind;
use crate::suite::Scale;
use serde_json::{Value, json};
use std::fmt::Write;

/// Which way a metric is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    More,
    Less,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Metric {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) better: Better,
}

/// All values of one metric.
#[derive(Debug)]
struct Row {
    metric: Metric,
    values: Vec<(Kind, f64)>,
}

/// Everything measured so far.
#[derive(Debug, Default)]
pub(crate) struct Results(Vec<Row>);

impl Results {
    pub(crate) fn add(&mut self, metric: Metric, kind: Kind, value: f64) {
        match self.0.iter_mut().find(|row| row.metric == metric) {
            Some(row) => row.values.push((kind, value)),
            None => self.0.push(Row { metric, values: vec![(kind, value)] }),
        }
    }

    /// A table for people.
    pub(crate) fn table(&self, scale: &Scale) -> String {
        let mut table = format!("records of 144 bytes, median of {} rounds\n\n", scale.rounds);
        let names: Vec<String> = Kind::ALL.iter().map(|kind| format!("{:>14}", kind.name())).collect();
        line(&mut table, "", "", &names, "  to best peer");
        for row in &self.0 {
            let values: Vec<String> = Kind::ALL
                .iter()
                .map(|kind| {
                    row.median(*kind).map_or(format!("{:>14}", "-"), |value| format!("{:>14}", shown(value)))
                })
                .collect();
            let ratio = row.ratio().map_or(String::new(), |ratio| format!("{ratio:>13.2} x"));
            line(&mut table, &row.metric.name, row.metric.unit, &values, &ratio);
        }
        table
    }

    /// One entry per metric and engine.
    pub(crate) fn json(&self, scale: &Scale) -> String {
        let results: Vec<Value> = self.0.iter().flat_map(Row::json).collect();
        let all = json!({
            "records": scale.records,
            "rounds": scale.rounds,
            "commit_seconds": scale.commit_time.as_secs_f64(),
            "results": results,
        });
        format!("{all:#}\n")
    }
}

impl Row {
    /// One per round.
    fn values(&self, kind: Kind) -> Vec<f64> {
        self.values.iter().filter(|(of, _)| *of == kind).map(|(_, value)| *value).collect()
    }

    fn median(&self, kind: Kind) -> Option<f64> {
        let mut values = self.values(kind);
        values.sort_by(f64::total_cmp);
        values.get(values.len().checked_sub(1)? / 2).copied()
    }

    /// How many times better Understory is than the best of the others.
    fn ratio(&self) -> Option<f64> {
        let own = self.median(Kind::Understory)?;
        let peers =
            Kind::ALL.iter().filter(|kind| **kind != Kind::Understory).filter_map(|kind| self.median(*kind));
        match self.metric.better {
            Better::More => peers.reduce(f64::max).map(|best| own / best),
            Better::Less => peers.reduce(f64::min).map(|best| best / own),
        }
    }

    fn json(&self) -> Vec<Value> {
        let entry = |kind: &Kind| -> Option<Value> {
            let mut entry = json!({
                "name": self.metric.name,
                "engine": kind.name(),
                "unit": self.metric.unit,
                "value": self.median(*kind)?,
                "rounds": self.values(*kind),
            });
            if let (Kind::Understory, Some(ratio), Some(fields)) = (kind, self.ratio(), entry.as_object_mut())
            {
                fields.insert("ratio".to_owned(), json!(ratio));
            }
            Some(entry)
        };
        Kind::ALL.iter().filter_map(entry).collect()
    }
}

fn line(table: &mut String, name: &str, unit: &str, values: &[String], ratio: &str) {
    writeln!(table, "{name:<28} {unit:<10} {}{ratio}", values.concat())
        .expect("writing to a string cannot fail");
}

/// Three or four digits that matter.
fn shown(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.2} M", value / 1e6),
        value if value >= 1e4 => format!("{:.0} k", value / 1e3),
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 1.0 => format!("{value:.2}"),
        value => format!("{value:.3}"),
    }
}
