//! What a subscriber is told of a life with commits, checkpoints, damage and a full disk.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use understory::{Error, Machine};
use understory_io::{IoCause, SimFaultPlan, Storage};

use crate::{Account, commit_some, create, inline, open};

/// Counts spans and events by name or message.
#[derive(Clone, Debug, Default)]
struct Heard {
    counts: Arc<Mutex<BTreeMap<String, u64>>>,
    /// Spans that were entered and not left.
    depth: Arc<AtomicU64>,
    next: Arc<AtomicU64>,
}

impl Heard {
    fn count(&self, name: &str) -> u64 {
        self.counts.lock().unwrap().get(name).copied().unwrap_or(0)
    }

    fn note(&self, name: String) {
        *self.counts.lock().unwrap().entry(name).or_default() += 1;
    }
}

/// The message of an event.
#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            write!(self.0, "{value:?}").unwrap();
        }
    }
}

impl Subscriber for Heard {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("understory")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.note(span.metadata().name().to_owned());
        Id::from_u64(self.next.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut message = Message::default();
        event.record(&mut message);
        self.note(message.0);
    }

    fn enter(&self, _span: &Id) {
        self.depth.fetch_add(1, Ordering::Relaxed);
    }

    fn exit(&self, _span: &Id) {
        self.depth.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs `work`, and tells what was heard of it.
fn listen<T>(work: impl FnOnce() -> T) -> (Heard, T) {
    let heard = Heard::default();
    let result = tracing::subscriber::with_default(heard.clone(), work);
    assert_eq!(heard.depth.load(Ordering::Relaxed), 0, "every span has ended");
    (heard, result)
}

#[test]
fn steps_are_spans() {
    let (heard, (stats, image)) = listen(|| {
        let (machine, storage) = inline(Vec::new());
        let database = create(&machine);
        commit_some(&database, 100, 50).unwrap();
        let stats = database.stats();
        drop(database);
        (stats, storage.image())
    });
    let expected = [
        ("close_beat", stats.closes.count),
        ("checkpoint", stats.checkpoints.count),
        ("checkpoint begun", stats.checkpoints.count),
        ("journal_sync", stats.journal.syncs.count),
        ("journal_write", stats.journal.writes.count),
        ("recovery", 1),
        ("wait", 0),
    ];
    for (name, expected) in expected {
        assert_eq!(heard.count(name), expected, "{name}");
    }
    assert!(stats.checkpoints.count > 0 && heard.count("compaction_slice") > 0, "{stats}");
    // What is replayed is told again.
    let (heard, replayed) = listen(|| open(&inline(image).0).unwrap().stats());
    assert!(replayed.closes.count > 0 && replayed.op == stats.op);
    assert_eq!((heard.count("recovery"), heard.count("close_beat")), (1, replayed.closes.count));
}

#[test]
fn waits_are_spans() {
    let (heard, stats) = listen(|| {
        // With workers, who are not listened to.
        let (machine, storage) = Machine::sim(1);
        let delay_max = std::time::Duration::from_secs(1);
        let database = create(&machine);
        storage.set_plan(Some(SimFaultPlan { delayed: 1_000_000, delay_max, ..SimFaultPlan::default() }));
        // A beat each, so that a half-bar is over before its checkpoint is durable.
        commit_some(&database, 60, 200).unwrap();
        database.stats()
    });
    assert!(stats.waits.checkpoint.count > 0, "{stats}");
    assert_eq!(heard.count("wait"), stats.waits.checkpoint.count + stats.waits.beat.count);
}

#[test]
fn lack_of_space_is_an_event() {
    let (heard, ()) = listen(|| {
        let (machine, storage) = inline(Vec::new());
        let database = create(&machine);
        storage.set_size_limit(Some(storage.size()));
        let full = commit_some(&database, 2_000, 50).unwrap_err();
        assert!(matches!(full, Error::OutOfSpace { .. }), "{full}");
    });
    assert!(heard.count("the half-bar is not admitted") > 0, "{heard:?}");
    assert_eq!(heard.count("no more commits are taken"), 0);
}

#[test]
fn damage_and_failures_are_events() {
    let (heard, ()) = listen(|| {
        let (machine, storage) = inline(Vec::new());
        let database = create(&machine);
        commit_some(&database, 60, 50).unwrap();
        database.close().unwrap();
        let (machine, storage) = inline(storage.image());
        let database = open(&machine).unwrap();
        let grid = database.geometry().grid_offset();
        // A flip in every page behind the first blocks, which open has read.
        (grid..storage.size()).step_by(4096).for_each(|page| storage.corrupt(page + 900, 1));
        let failed = (0..3_001).find_map(|id| database.get::<Account>(id).err());
        assert!(matches!(failed, Some(Error::Corrupt(_))), "{failed:?}");
        storage.inject(storage.operations(), IoCause::Injected);
        assert!(commit_some(&database, 1, 50).is_err());
    });
    for message in ["verification failed", "a read failed", "poisoned", "no more commits are taken"] {
        assert!(heard.count(message) > 0, "{message}: {heard:?}");
    }
}
