//! The wire forms of the superblock's parts.
//!
//! # Invariants
//! - What decodes encodes to the same bytes (test: every flip under a good checksum).

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64, U128};

use super::{COUNTER_MAX, CheckpointState, FreeSetRoot, LocalState, ManifestRoot, ScrubCursor};
use crate::error::{Corruption, Expected, at_least, at_most, rule, zero};
use crate::geometry::{GeometryWire, SECTOR_SIZE};
use crate::key::KeyBytes;
use crate::layout::layout;
use crate::refs::TwinRefWire;
use crate::units::{Beat, Checksum, Level, Op, TreeId};

layout! {
    /// The part of a superblock that equal histories share. Its checksum is the checkpoint's id.
    pub struct CheckpointStateWire: 1024 = "checkpoint-state" {
        /// What was fixed at format.
        0: geometry: GeometryWire,
        /// Fingerprint of the schema: XXH3-128 of the catalogue's entries.
        256: fingerprint: U128,
        /// Id of the checkpoint before; zero at format.
        272: parent: U128,
        /// Rolling hash over the work of all beats.
        288: rolling_hash: U128,
        /// Number of the checkpoint; 0 at format.
        304: number: U64,
        /// The first beat after the checkpoint: the one that is open when the file is opened.
        312: beat: U64,
        /// The last op that the checkpoint counts.
        320: op_checkpoint: U64,
        /// The last op whose effects are all in tables.
        328: op_flushed: U64,
        /// Sum of the charges of all ops up to `op_checkpoint`, in bytes.
        336: charge_total: U64,
        /// The highest acquired address, 0 for none.
        344: block_count_max: U64,
        /// The tree catalogue.
        352: catalogue: TwinRefWire,
        /// Oldest block of the manifest log; zero if it has none.
        384: manifest_oldest: TwinRefWire,
        /// Newest block of the manifest log; zero if it has none.
        416: manifest_newest: TwinRefWire,
        /// The free set's block with the last chunk; zero if it has none.
        448: free_set_last: TwinRefWire,
        /// XXH3-128 of the encoded free set.
        480: free_set_checksum: U128,
        /// Bytes of the encoded free set.
        496: free_set_size: U64,
        /// Blocks of the free set's chain; twins count once.
        504: free_set_block_count: U32,
        /// Blocks of the manifest log; twins count once.
        508: manifest_block_count: U32,
        /// Zero.
        512: reserved: [u8; 512],
    }
}

layout! {
    /// The part of a superblock that is this file's own.
    pub struct LocalStateWire: 512 = "local-state" {
        /// Checksum of the superblock before; zero at format.
        0: parent: U128,
        /// The journal's chain hash at `journal_position`.
        16: journal_hash: U128,
        /// The journal's chain hash at `head_op`.
        32: head_hash: U128,
        /// Number of this superblock, from 1; never used twice.
        48: sequence: U64,
        /// How often the file was opened for writing.
        56: incarnation: U64,
        /// Position in the journal's ring of the group that holds the op after `op_flushed`.
        64: journal_position: U64,
        /// The last op that open accepted.
        72: head_op: U64,
        /// Bytes the file may have; 0 for no limit.
        80: size_limit: U64,
        /// The beat since which this file differs from its peers by a local repair; 0 if it does not.
        88: diverged_since: U64,
        /// The block that lists quarantined blocks; zero for none.
        96: quarantine: TwinRefWire,
        /// The greatest key that the scrubber is done with, zero padded.
        128: scrub_key: [u8; 32],
        /// The tree the scrubber is at; 0 at the start of a tour.
        160: scrub_tree_id: U16,
        /// The level the scrubber is at, below 64.
        162: scrub_level: u8,
        /// Zero.
        163: reserved_scrub: [u8; 5],
        /// The last op that the newest salvage of the journal kept; 0 if there was none, or if it kept none.
        168: salvaged_op: U64,
        /// How often the journal was cut by a salvage.
        176: salvage_count: U64,
        /// Zero.
        184: reserved: [u8; 328],
    }
}

layout! {
    /// One of the four copies of the superblock.
    pub struct SuperblockCopy: 4096 = "superblock-copy" {
        /// XXH3-128 of bytes 32 to 4096: the identity of the superblock, equal in all copies.
        0: checksum: U128,
        /// Number of the copy, from 0; not covered by the checksum.
        16: copy: u8,
        /// Zero; not covered by the checksum.
        17: reserved_copy: [u8; 15],
        /// `understory file` and a line feed.
        32: magic: [u8; 16],
        /// Version of the format, 1.
        48: version: U16,
        /// How checksums are computed: 1 XXH3-128.
        50: checksum_kind: u8,
        /// Zero.
        51: reserved_head: [u8; 973],
        /// What equal histories share.
        1024: checkpoint: CheckpointStateWire,
        /// What is this file's own.
        2048: local: LocalStateWire,
        /// Zero.
        2560: reserved: [u8; 1536],
    }
}

impl CheckpointStateWire {
    /// The wire form.
    #[must_use]
    pub fn encode(state: &CheckpointState) -> Self {
        Self {
            geometry: GeometryWire::encode(&state.geometry),
            fingerprint: state.fingerprint.get().into(),
            parent: state.parent.get().into(),
            rolling_hash: state.rolling_hash.get().into(),
            number: state.number.into(),
            beat: state.beat.get().into(),
            op_checkpoint: state.op_checkpoint.get().into(),
            op_flushed: state.op_flushed.get().into(),
            charge_total: state.charge_total.into(),
            block_count_max: state.block_count_max.into(),
            catalogue: state.catalogue.into(),
            manifest_oldest: TwinRefWire::encode(state.manifest.oldest),
            manifest_newest: TwinRefWire::encode(state.manifest.newest),
            free_set_last: TwinRefWire::encode(state.free_set.last),
            free_set_checksum: state.free_set.checksum.get().into(),
            free_set_size: state.free_set.size.into(),
            free_set_block_count: state.free_set.block_count.into(),
            manifest_block_count: state.manifest.block_count.into(),
            reserved: [0; 512],
        }
    }

    /// The checkpoint state.
    ///
    /// # Errors
    /// The first field that no checkpoint can have.
    pub fn decode(&self) -> Result<CheckpointState, Corruption> {
        Self::LAYOUT.check_reserved(self.as_bytes())?;
        at_most("number", COUNTER_MAX, self.number.get())?;
        at_most("op_checkpoint", COUNTER_MAX, self.op_checkpoint.get())?;
        at_most("op_flushed", self.op_checkpoint.get(), self.op_flushed.get())?;
        at_most("charge_total", COUNTER_MAX, self.charge_total.get())?;
        Ok(CheckpointState {
            geometry: self.geometry.decode()?,
            fingerprint: Checksum::new(self.fingerprint.get()),
            number: self.number.get(),
            parent: Checksum::new(self.parent.get()),
            beat: Beat::new(self.beat.get()),
            op_checkpoint: Op::new(self.op_checkpoint.get()),
            op_flushed: Op::new(self.op_flushed.get()),
            charge_total: self.charge_total.get(),
            rolling_hash: Checksum::new(self.rolling_hash.get()),
            catalogue: self.catalogue.decode_some()?,
            manifest: self.decode_manifest()?,
            free_set: self.decode_free_set()?,
            block_count_max: self.block_count_max.get(),
        })
    }

    fn decode_manifest(&self) -> Result<ManifestRoot, Corruption> {
        let (oldest, newest) = (self.manifest_oldest.decode()?, self.manifest_newest.decode()?);
        let block_count = self.manifest_block_count.get();
        match (block_count, oldest, newest) {
            (0, None, None) => {}
            (1, Some(oldest), Some(newest)) => {
                rule(
                    "manifest_newest",
                    "the oldest, as there is one",
                    oldest == newest,
                    newest.address.get(),
                )?;
            }
            (2.., Some(oldest), Some(newest)) => {
                rule("manifest_newest", "not the oldest", oldest != newest, newest.address.get())?;
            }
            _ => {
                let rule = Expected::Rule("0 exactly if oldest and newest are none");
                return Err(Corruption::new("manifest_block_count", rule, block_count.into()));
            }
        }
        Ok(ManifestRoot { oldest, newest, block_count })
    }

    fn decode_free_set(&self) -> Result<FreeSetRoot, Corruption> {
        let last = self.free_set_last.decode()?;
        let block_count = self.free_set_block_count.get();
        let size = self.free_set_size.get();
        let consistent = (block_count == 0) == last.is_none() && (size == 0) == last.is_none();
        rule("free_set_block_count", "0 exactly if size and last are none", consistent, block_count)?;
        at_least("free_set_size", block_count, size)?;
        Ok(FreeSetRoot { last, size, checksum: Checksum::new(self.free_set_checksum.get()), block_count })
    }
}

impl LocalStateWire {
    /// The wire form.
    #[must_use]
    pub fn encode(state: &LocalState) -> Self {
        Self {
            parent: state.parent.get().into(),
            journal_hash: state.journal_hash.get().into(),
            head_hash: state.head_hash.get().into(),
            sequence: state.sequence.into(),
            incarnation: state.incarnation.into(),
            journal_position: state.journal_position.into(),
            head_op: state.head_op.get().into(),
            size_limit: state.size_limit.into(),
            diverged_since: state.diverged_since.map_or(0, Beat::get).into(),
            quarantine: TwinRefWire::encode(state.quarantine),
            scrub_key: *state.scrub.map_or(KeyBytes::ZERO, |scrub| scrub.key).get(),
            scrub_tree_id: state.scrub.map_or(0, |scrub| scrub.tree.get()).into(),
            scrub_level: state.scrub.map_or(0, |scrub| scrub.level.get()),
            reserved_scrub: [0; 5],
            salvaged_op: state.salvaged_op.get().into(),
            salvage_count: state.salvage_count.into(),
            reserved: [0; 328],
        }
    }

    /// The local state.
    ///
    /// # Errors
    /// The first field that no superblock can have.
    pub fn decode(&self) -> Result<LocalState, Corruption> {
        Self::LAYOUT.check_reserved(self.as_bytes())?;
        at_least("sequence", 1_u8, self.sequence.get())?;
        at_most("sequence", COUNTER_MAX, self.sequence.get())?;
        at_most("incarnation", COUNTER_MAX, self.incarnation.get())?;
        let position = self.journal_position.get();
        at_most("journal_position", COUNTER_MAX, position)?;
        rule("journal_position", "whole sectors", position.is_multiple_of(SECTOR_SIZE.into()), position)?;
        at_most("head_op", COUNTER_MAX, self.head_op.get())?;
        at_most("salvage_count", COUNTER_MAX, self.salvage_count.get())?;
        let (salvages, salvaged_op) = (self.salvage_count.get(), self.salvaged_op.get());
        at_most("salvaged_op", if salvages == 0 { 0 } else { COUNTER_MAX }, salvaged_op)?;
        let diverged_since = match self.diverged_since.get() {
            0 => None,
            beat => Some(Beat::new(beat)),
        };
        Ok(LocalState {
            sequence: self.sequence.get(),
            parent: Checksum::new(self.parent.get()),
            incarnation: self.incarnation.get(),
            journal_position: self.journal_position.get(),
            journal_hash: Checksum::new(self.journal_hash.get()),
            head_op: Op::new(self.head_op.get()),
            head_hash: Checksum::new(self.head_hash.get()),
            scrub: self.decode_scrub()?,
            quarantine: self.quarantine.decode()?,
            size_limit: self.size_limit.get(),
            diverged_since,
            salvaged_op: Op::new(salvaged_op),
            salvage_count: salvages,
        })
    }

    fn decode_scrub(&self) -> Result<Option<ScrubCursor>, Corruption> {
        let Some(tree) = TreeId::new(self.scrub_tree_id.get()) else {
            zero("scrub_level", &[self.scrub_level])?;
            zero("scrub_key", &self.scrub_key)?;
            return Ok(None);
        };
        let level = Level::new(self.scrub_level)
            .ok_or_else(|| Corruption::new("scrub_level", Expected::AtMost(63), self.scrub_level.into()))?;
        Ok(Some(ScrubCursor { tree, level, key: KeyBytes(self.scrub_key) }))
    }
}
