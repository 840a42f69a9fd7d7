//! Everything that happened to a database, op by op, so that a second database can be told it.
//!
//! Clients know the ops of their batches. What the others are, the journal says: its records are kept as they were
//! written. Without a journal there is one client, and what is not its own is a close, unless it called something.
//!
//! # Invariants
//! - The ops of a chronicle have no gaps, and none stands where the beats have no room for it (R1, R3).
//!
//! # Not here
//! What a twin makes of it: `twin`.

use std::collections::BTreeMap;
use std::sync::Arc;

use understory::Geometry;
use understory_format::{RecordKind, charge};

use crate::trace::Violation;
use crate::tree::Place;

/// A put or a remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Effect {
    pub(crate) tree: usize,
    pub(crate) place: Place,
    /// The number in the record, or none for a remove.
    pub(crate) put: Option<u32>,
}

/// What a batch does, in order, and how many bytes it takes of a beat's share.
#[derive(Clone, Debug)]
pub(crate) struct Deed {
    pub(crate) effects: Arc<[Effect]>,
    pub(crate) size: u64,
}

/// What one op did.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    /// A batch; that of a call of `sync` is empty.
    Batch(Deed),
    /// The end of a half-bar.
    Close,
    /// A drain.
    Drain,
    /// A call of `settle`.
    Settle,
}

/// What is known of the ops of a file.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// By op.
    pub(crate) batches: BTreeMap<u64, Deed>,
    /// With a journal, what its records say.
    pub(crate) kinds: BTreeMap<u64, RecordKind>,
    /// Without one, what was called after which op.
    pub(crate) calls: BTreeMap<u64, RecordKind>,
}

/// How full beats are.
#[derive(Clone, Copy, Debug)]
struct Clock {
    share: u64,
    ring_share: u64,
    beats_per_half: u64,
    beat: u64,
    effects: u64,
    charges: u64,
}

impl Ledger {
    /// Forgets what did not survive: everything after `op`.
    pub(crate) fn cut(&mut self, op: u64) {
        let _lost = self.batches.split_off(&(op + 1));
        let _lost = self.kinds.split_off(&(op + 1));
        let _lost = self.calls.split_off(&op);
    }

    /// All ops from 1 up to `last`.
    pub(crate) fn chronicle(&self, geometry: &Geometry, last: u64) -> Result<Vec<Entry>, Violation> {
        let mut clock = Clock::new(geometry);
        (1..=last)
            .map(|op| {
                let entry = self.entry(op)?;
                match clock.pass(&entry) {
                    true => Ok(entry),
                    false => Err(Violation::new(format!("op {op} stands in a half-bar without room for it"))),
                }
            })
            .collect()
    }

    fn entry(&self, op: u64) -> Result<Entry, Violation> {
        let kind = self.kinds.get(&op).or_else(|| self.calls.get(&(op - 1)));
        match (self.batches.get(&op), kind) {
            (Some(deed), Some(RecordKind::Batch) | None) => Ok(Entry::Batch(deed.clone())),
            (Some(_), Some(kind)) => Err(Violation::new(format!("op {op} is a batch, and {kind:?} too"))),
            (None, Some(RecordKind::Batch)) => Ok(Entry::Batch(Deed { effects: Arc::new([]), size: 0 })),
            (None, Some(RecordKind::Drain)) => Ok(Entry::Drain),
            (None, Some(RecordKind::Settle)) => Ok(Entry::Settle),
            (None, Some(RecordKind::Close) | None) => Ok(Entry::Close),
        }
    }
}

impl Clock {
    fn new(geometry: &Geometry) -> Self {
        Self {
            share: geometry.share_size.into(),
            ring_share: if geometry.has_journal() { geometry.ring_share() } else { u64::MAX },
            beats_per_half: u64::from(geometry.beats_per_bar / 2),
            beat: 0,
            effects: 0,
            charges: 0,
        }
    }

    /// Counts an op; false if it should not be where it is.
    fn pass(&mut self, entry: &Entry) -> bool {
        let size = match entry {
            Entry::Batch(deed) => deed.size,
            // After all of these the first beat of a half-bar is open.
            Entry::Close | Entry::Drain | Entry::Settle => {
                (self.beat, self.effects, self.charges) = (0, 0, 0);
                return true;
            }
        };
        if self.effects + size > self.share || self.charges + charge(size) > self.ring_share {
            (self.beat, self.effects, self.charges) = (self.beat + 1, 0, 0);
        }
        self.effects += size;
        self.charges += charge(size);
        self.beat < self.beats_per_half
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half-bars of two beats; shares of 4096 bytes, and of two sectors of the ring.
    fn geometry() -> Geometry {
        Geometry { share_size: 4096, batch_size_max: 4096, ..Geometry::small() }.with_journal()
    }

    /// Batches are given by their sizes; other ops by what stands for them.
    fn check(ops: &[Result<u64, RecordKind>], expected: Option<&str>) {
        let mut ledger = Ledger::default();
        for (op, what) in (1..).zip(ops) {
            let kind = match what {
                Ok(size) => {
                    ledger.batches.insert(op, Deed { effects: Arc::new([]), size: *size });
                    RecordKind::Batch
                }
                Err(kind) => *kind,
            };
            ledger.kinds.insert(op, kind);
        }
        let letter = |entry: &Entry| match entry {
            Entry::Batch(_) => 'b',
            Entry::Close => '|',
            Entry::Drain => 'd',
            Entry::Settle => 's',
        };
        let last = understory_format::u64_of(ops.len());
        let found = ledger.chronicle(&geometry(), last);
        let found = found.map(|entries| entries.iter().map(letter).collect::<String>());
        assert_eq!(found.ok().as_deref(), expected);
    }

    #[test]
    fn closes_stand_where_they_must() {
        const CLOSE: Result<u64, RecordKind> = Err(RecordKind::Close);
        const DRAIN: Result<u64, RecordKind> = Err(RecordKind::Drain);
        check(&[], Some(""));
        check(&[Ok(4096), Ok(4096)], Some("bb"));
        check(&[Ok(4096), Ok(4096), Ok(1)], None);
        check(&[Ok(4096), Ok(4096), CLOSE, Ok(1)], Some("bb|b"));
        check(&[Ok(4096), DRAIN, Ok(4096), Ok(4096), CLOSE, Ok(4096)], Some("bdbb|b"));
        check(&[Ok(0), Ok(0), Ok(0), Ok(0)], Some("bbbb"));
        check(&[Ok(0), Ok(0), Ok(0), Ok(0), Ok(0)], None);
        check(&[Ok(4096), Ok(4095), Ok(2)], None);
        check(&[CLOSE, Ok(1), Err(RecordKind::Batch), Err(RecordKind::Settle)], Some("|bbs"));
    }
}
