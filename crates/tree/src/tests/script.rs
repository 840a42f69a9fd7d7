//! What a writer does to two trees, op by op, and what a reader sees after each.

use std::collections::BTreeMap;
use std::ops::Bound;

use fastrand::Rng;
use understory_format::{Direction, record};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A record that says which op put it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Mark {
    pub(super) id: U64,
    pub(super) op: U64,
    pub(super) rest: [U64; 6],
}
record! { Mark: "marks", key = { id: U64 } }

/// Keys are even; 0 is put by every op into both trees.
pub(super) const KEY_COUNT: u64 = 1_500;
const EFFECTS_MAX: usize = 20;

/// What an op does to one tree.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) values: Vec<u8>,
    pub(super) tombstones: Vec<u8>,
    count: usize,
}

impl Batch {
    fn push(&mut self, key: u64, op: u64, tombstone: bool) {
        let mark = Mark { id: key.into(), op: op.into(), rest: [(key ^ op).into(); 6] };
        self.values.extend(mark.as_bytes());
        if self.count.is_multiple_of(8) {
            self.tombstones.push(0);
        }
        *self.tombstones.last_mut().unwrap() |= u8::from(tombstone) << (self.count % 8);
        self.count += 1;
    }
}

/// By key, which ops changed it, and whether to a tombstone.
pub(super) type History = BTreeMap<u64, Vec<(u64, bool)>>;

/// All ops and what they do to both trees.
pub(super) struct Script {
    pub(super) ops: Vec<[Batch; 2]>,
    pub(super) history: [History; 2],
}

impl Script {
    pub(super) fn new(seed: u64, op_count: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut script = Self { ops: Vec::new(), history: [History::new(), History::new()] };
        for op in 1..=op_count {
            let mut batches = [Batch::default(), Batch::default()];
            for (batch, history) in batches.iter_mut().zip(&mut script.history) {
                let mut push = |key, tombstone| {
                    batch.push(key, op, tombstone);
                    let versions: &mut Vec<_> = history.entry(key).or_default();
                    versions.retain(|(other, _)| *other != op);
                    versions.push((op, tombstone));
                };
                let hot = 2 * rng.u64(1..20);
                for _ in 0..rng.usize(1..EFFECTS_MAX) {
                    let key = if rng.u8(..4) == 0 { hot } else { 2 * rng.u64(1..KEY_COUNT) };
                    push(key, rng.u8(..4) == 0);
                }
                push(0, false);
            }
            script.ops.push(batches);
        }
        script
    }
}

/// The op whose value a key has after `op`; none if it has none.
pub(super) fn version(history: &History, key: u64, op: u64) -> Option<u64> {
    let versions = history.get(&key)?;
    let (newest, tombstone) = versions.iter().rev().find(|(of, _)| *of <= op)?;
    (!tombstone).then_some(*newest)
}

/// The first record of a range after `op`.
pub(super) fn next(
    history: &History,
    (start, end): (Bound<u64>, Bound<u64>),
    direction: Direction,
    op: u64,
) -> Option<(u64, u64)> {
    if let (Bound::Excluded(start), Bound::Excluded(end) | Bound::Included(end))
    | (Bound::Included(start), Bound::Excluded(end)) = (start, end)
        && start >= end
    {
        return None;
    }
    let mut range =
        history.range((start, end)).filter_map(|(key, _)| Some((*key, version(history, *key, op)?)));
    match direction {
        Direction::Ascending => range.next(),
        Direction::Descending => range.next_back(),
    }
}
