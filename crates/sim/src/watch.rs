//! What is written to a file, judged by the rules that writes alone can break, over all lives of the file.
//!
//! # Invariants
//! - No superblock sequence is used twice for different contents (R13).
//! - No op is journaled twice in one incarnation, and no two checkpoints of one number differ (R6): replay takes the same
//!   ones.
//!
//! # Not here
//! Where writes come from: `tap`.

use std::collections::BTreeMap;

use understory::Geometry;
use understory_format::journal::GroupHeader;
use understory_format::{Checksum, RecordKind, SUPERBLOCK_COPIES, Superblock};

use crate::trace::Violation;

/// What was written so far.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Checksums of superblocks, by sequence.
    superblocks: BTreeMap<u64, Checksum>,
    /// Ids of checkpoints, by number.
    checkpoints: BTreeMap<u64, Checksum>,
    /// Kinds of ops, as they were last journaled.
    kinds: BTreeMap<u64, RecordKind>,
    /// Chain hashes of groups, by incarnation and op.
    ops: BTreeMap<(u64, u64), Checksum>,
    has_journal: bool,
    /// Bytes written to the ring since the file was made.
    ring_end: u64,
    violation: Option<Violation>,
}

impl Watch {
    /// Over a file with or without a journal.
    pub(crate) fn new(geometry: &Geometry) -> Self {
        Self { has_journal: geometry.has_journal(), ..Self::default() }
    }

    /// A write of the superblock; what it says, in words. Where copies are damaged, the newest of them may not have been
    /// seen at open, and its sequence be used again.
    pub(crate) fn superblock(&mut self, offset: u64, bytes: &[u8], is_damaged: bool) -> String {
        let copy = (0..SUPERBLOCK_COPIES).find(|copy| Geometry::superblock_offset(*copy) == offset);
        let Some(Ok((superblock, checksum))) = copy.map(|copy| Superblock::decode(bytes, copy)) else {
            return "nothing that is a superblock".to_owned();
        };
        let sequence = superblock.local.sequence;
        let known = self.superblocks.insert(sequence, checksum);
        if known.is_some_and(|known| known != checksum) && !is_damaged {
            self.violate(format!("superblock sequence {sequence} is used twice (R13)"));
        }
        let state = superblock.checkpoint;
        let id = state.id();
        if self.has_journal && *self.checkpoints.entry(state.number).or_insert(id) != id {
            let known = self.checkpoints.get(&state.number);
            self.violate(format!("checkpoint {} is taken twice, as {known:?} and {id:?}", state.number));
        }
        let _replaced = self.checkpoints.insert(state.number, id);
        let (number, local) = (state.number, superblock.local);
        format!(
            "superblock {sequence}: checkpoint {number} at {}, flushed {}, incarnation {}, head {}, journal at {}",
            state.op_checkpoint, state.op_flushed, local.incarnation, local.head_op, local.journal_position
        )
    }

    /// A write to the ring: the buffer that it is from, of which the first bytes or all are written.
    pub(crate) fn ring(&mut self, bytes: &[u8]) {
        let size = GroupHeader::decode(bytes).map(|(header, _)| understory_format::usize_of(header.size));
        let group = size.ok().and_then(|size| bytes.get(..size));
        let Some(Ok((header, hash))) = group.map(GroupHeader::verify) else {
            // Zeros, or the part of a group behind the ring's end.
            return;
        };
        self.ring_end = self.ring_end.max(header.end());
        self.kinds.extend(header.records(bytes).flatten().map(|record| (record.op.get(), record.kind)));
        for op in header.op_first.get()..header.op_next().get() {
            let known = self.ops.insert((header.incarnation, op), hash);
            if known.is_some_and(|known| known != hash) {
                self.violate(format!("op {op} is journaled twice in incarnation {}", header.incarnation));
            }
        }
    }

    /// Superblocks that were written since the file was made.
    pub(crate) fn superblocks(&self) -> usize {
        self.superblocks.len()
    }

    /// Kinds of the ops that were journaled since the last call.
    pub(crate) fn take_kinds(&mut self) -> BTreeMap<u64, RecordKind> {
        std::mem::take(&mut self.kinds)
    }

    /// The last op that was journaled.
    pub(crate) fn last_op(&self) -> u64 {
        self.ops.keys().map(|(_, op)| *op).max().unwrap_or(0)
    }

    /// Bytes written to the ring since the file was made.
    pub(crate) fn ring_end(&self) -> u64 {
        self.ring_end
    }

    /// Ids of checkpoints, by number.
    pub(crate) fn checkpoints(&self) -> &BTreeMap<u64, Checksum> {
        &self.checkpoints
    }

    /// Checkpoints of this number and later ones will be others: ops were cut off on purpose.
    pub(crate) fn forget_from(&mut self, number: u64) {
        let _forgotten = self.checkpoints.split_off(&number);
    }

    /// The first rule that was broken.
    pub(crate) fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// A rule was broken.
    pub(crate) fn violate(&mut self, words: String) {
        let _first = self.violation.get_or_insert(Violation::new(words));
    }
}
