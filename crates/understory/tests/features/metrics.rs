//! What is exported is what the statistics say.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use understory::{MetricsExporter, Stats};

use crate::{commit_some, create, inline};

/// Names with labels, and what was said of them.
#[derive(Debug, Default)]
struct Heard {
    described: Mutex<Vec<String>>,
    values: Arc<Mutex<BTreeMap<String, f64>>>,
}

/// One metric.
struct Cell {
    name: String,
    values: Arc<Mutex<BTreeMap<String, f64>>>,
}

impl Cell {
    fn set(&self, change: impl FnOnce(f64) -> f64) {
        let mut values = self.values.lock().unwrap();
        let value = values.entry(self.name.clone()).or_default();
        *value = change(*value);
    }
}

impl CounterFn for Cell {
    fn increment(&self, value: u64) {
        unreachable!("{} by {value}: what is exported is absolute", self.name)
    }

    fn absolute(&self, value: u64) {
        self.set(|_| float(value));
    }
}

impl GaugeFn for Cell {
    fn increment(&self, value: f64) {
        unreachable!("{} by {value}", self.name)
    }

    fn decrement(&self, value: f64) {
        unreachable!("{} by {value}", self.name)
    }

    fn set(&self, value: f64) {
        Cell::set(self, |_| value);
    }
}

/// Counts what is recorded.
impl HistogramFn for Cell {
    fn record(&self, _value: f64) {
        self.set(|count| count + 1.0);
    }
}

impl Heard {
    fn cell(&self, key: &Key) -> Arc<Cell> {
        let mut labels: Vec<_> =
            key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        assert_eq!(labels.remove(0), "database=bank");
        assert!(self.described.lock().unwrap().iter().any(|name| name == key.name()), "{key} is described");
        let name = format!("{} {}", key.name(), labels.join(" "));
        Arc::new(Cell { name: name.trim_end().to_owned(), values: Arc::clone(&self.values) })
    }

    fn describe(&self, name: KeyName) {
        self.described.lock().unwrap().push(name.as_str().to_owned());
    }

    fn get(&self, name: &str) -> f64 {
        let values = self.values.lock().unwrap();
        *values.get(name).unwrap_or_else(|| panic!("no {name} in {values:#?}"))
    }
}

impl Recorder for Heard {
    fn describe_counter(&self, name: KeyName, _unit: Option<Unit>, _text: SharedString) {
        self.describe(name);
    }

    fn describe_gauge(&self, name: KeyName, _unit: Option<Unit>, _text: SharedString) {
        self.describe(name);
    }

    fn describe_histogram(&self, name: KeyName, _unit: Option<Unit>, _text: SharedString) {
        self.describe(name);
    }

    fn register_counter(&self, key: &Key, _metadata: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.cell(key))
    }

    fn register_gauge(&self, key: &Key, _metadata: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.cell(key))
    }

    fn register_histogram(&self, key: &Key, _metadata: &Metadata<'_>) -> metrics::Histogram {
        metrics::Histogram::from_arc(self.cell(key))
    }
}

#[expect(clippy::as_conversions, reason = "small counts")]
fn float(count: u64) -> f64 {
    count as f64
}

fn check(heard: &Heard, stats: &Stats) {
    let (level, written) = (&stats.trees[0].levels[0], stats.written());
    let expected = [
        ("understory_commit_seconds", stats.commits.count()),
        ("understory_commit_beside_checkpoint_seconds", stats.commits_beside_checkpoints.count()),
        ("understory_clock_total unit=op", stats.op),
        ("understory_clock_total unit=checkpoint", stats.checkpoint_number),
        ("understory_timed_total what=journal sync", stats.journal.syncs.count),
        ("understory_timed_total what=close of a beat", stats.closes.count),
        ("understory_written_bytes_total kind=tables", written.tables),
        ("understory_written_bytes_total kind=journal", written.journal),
        ("understory_committed_bytes_total", stats.committed_size()),
        ("understory_io_total operation=sync", stats.io.syncs),
        ("understory_level_values tree=accounts level=0", level.value_count),
        ("understory_compaction_read_values_total tree=accounts level=0", level.compaction.consumed),
        ("understory_half_bar_bytes part=work", stats.pace.work),
        ("understory_half_bar_admitted", 1),
    ];
    for (name, expected) in expected {
        assert_eq!(heard.get(name), float(expected), "{name}");
    }
    assert!(level.compaction.consumed > 0 && written.tables > 0 && stats.commits.count() > 0);
    assert_eq!(heard.get("understory_write_amplification"), stats.write_amplification());
    assert_eq!(heard.get("understory_level_fill tree=accounts level=0"), level.fill().unwrap());
}

#[test]
fn what_is_exported_is_what_the_statistics_say() {
    let (machine, _storage) = inline(Vec::new());
    let database = create(&machine);
    let heard = Heard::default();
    metrics::with_local_recorder(&heard, || {
        let mut exporter = MetricsExporter::new("bank");
        for _ in 0..3 {
            commit_some(&database, 80, 50).unwrap();
            let stats = database.stats();
            exporter.export(&stats);
            check(&heard, &stats);
        }
    });
    let values = heard.values.lock().unwrap();
    for name in heard.described.lock().unwrap().iter() {
        assert!(values.keys().any(|key| key.split(' ').next() == Some(name)), "{name} is exported");
    }
}
