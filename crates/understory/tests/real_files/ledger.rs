//! What a parent knows of a file from what its loaders said: what must be in it, and what may be.
//!
//! # Invariants
//! - A thread has one batch on its way at most, so that what a crash leaves open is one batch for each thread, whole
//!   or not there.

use std::collections::BTreeMap;

use crate::load::Heads;

/// Acknowledged batches, by thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    acknowledged: Heads,
    /// The last op that was acknowledged.
    pub(crate) op: u64,
    /// Batches that were found and had not been acknowledged.
    pub(crate) unheard: u64,
    /// Batches that were acknowledged.
    pub(crate) heard: u64,
}

impl Ledger {
    /// Takes note of what a loader said.
    pub(crate) fn note(&mut self, line: &str) {
        let mut words = line.split(' ');
        let verb = words.next();
        let mut number = || words.next().and_then(|word| word.parse().ok()).expect("a number");
        match verb {
            Some("ack") => {
                let (thread, batch, op) = (number(), number(), number());
                self.acknowledge(u16::try_from(thread).unwrap(), batch, op);
            }
            Some("start") => {
                let (thread, batch) = (number(), number());
                self.find_one(u16::try_from(thread).unwrap(), batch);
            }
            _ => {}
        }
    }

    pub(crate) fn acknowledge(&mut self, thread: u16, batch: u64, op: u64) {
        let newest = self.acknowledged.entry(thread).or_default();
        assert_eq!(batch, *newest + 1, "thread {thread} goes on where it was");
        *newest = batch;
        self.op = self.op.max(op);
        self.heard += 1;
    }

    /// Compares what is there after a crash with what must be; from then on all of that must be.
    pub(crate) fn find(&mut self, heads: &Heads) {
        for (thread, newest) in heads {
            self.find_one(*thread, *newest);
        }
        let missing: BTreeMap<_, _> =
            self.acknowledged.iter().filter(|(thread, newest)| heads.get(thread) != Some(newest)).collect();
        assert!(missing.is_empty(), "of these threads acknowledged batches are missing: {missing:?}");
    }

    /// Takes what is there for what must be: for who has heard nothing before.
    pub(crate) fn find_all(&mut self, heads: &Heads) {
        self.acknowledged = heads.clone();
    }

    /// The batch that `thread` commits next.
    pub(crate) fn next(&self, thread: u16) -> u64 {
        self.acknowledged.get(&thread).copied().unwrap_or(0) + 1
    }

    fn find_one(&mut self, thread: u16, found: u64) {
        let newest = self.acknowledged.entry(thread).or_default();
        assert!(found >= *newest, "batch {newest} of thread {thread} was acknowledged, the last is {found}");
        assert!(
            found <= *newest + 1,
            "batch {found} of thread {thread} was not asked for yet, after {newest}"
        );
        self.unheard += found - *newest;
        *newest = found;
    }
}
