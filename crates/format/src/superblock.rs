//! The superblock: the durable root, four copies of 4096 bytes at the start of the file.
//!
//! A copy has two parts. The [`CheckpointState`] is the same on every machine that did the same operations; its
//! checksum is the checkpoint's id. The [`LocalState`] is this file's own. The copy's checksum covers everything but
//! itself and the number of the copy, so that equal copies have equal checksums and a quorum can be counted.
//!
//! # Invariants
//! - Decoding a copy checks it against the slot it was read from: a copy in the wrong slot is damage.
//! - `decode(encode(x)) == x` (test).
//!
//! # Not here
//! Which copies make a quorum, and the order in which they are written: `grid`.

use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, IntoBytes};

use crate::block::{CHECKSUM_KIND, VERSION};
use crate::error::{Corruption, Expected, Place, at_least, at_most, exactly, rule, zero};
use crate::geometry::{Geometry, GeometryWire, SUPERBLOCK_COPIES};
use crate::key::KeyBytes;
use crate::layout::layout;
use crate::refs::{TwinRef, TwinRefWire};
use crate::units::{Beat, Checksum, Level, Op, TreeId, u64_of};

/// Bytes of a copy.
pub const SUPERBLOCK_SIZE: usize = 4096;

/// What a data file is recognised by.
pub const MAGIC: [u8; 16] = *b"understory file\n";

/// Where the checksum's cover starts: behind the checksum and the number of the copy.
const COVER_START: usize = 32;

/// The manifest log's chain: its newest block, from which the others are reached, and its oldest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ManifestRoot {
    /// The last block to be reached; `None` if there are no blocks.
    pub oldest: Option<TwinRef>,
    /// The first block to be read; `None` if there are no blocks.
    pub newest: Option<TwinRef>,
    /// Blocks of the chain; twins count once.
    pub block_count: u32,
}

/// The encoded free set's chain of trailer blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FreeSetRoot {
    /// The block with the last chunk, from which the others are reached; `None` if the free set is empty.
    pub last: Option<TwinRef>,
    /// Bytes of the encoded free set.
    pub size: u64,
    /// Checksum of those bytes.
    pub checksum: Checksum,
    /// Blocks of the chain; twins count once.
    pub block_count: u32,
}

/// The part of a superblock that equal histories share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointState {
    /// What was fixed at format.
    pub geometry: Geometry,
    /// Fingerprint of the schema: that of the tree catalogue.
    pub fingerprint: Checksum,
    /// Number of the checkpoint; 0 at format.
    pub number: u64,
    /// Id of the checkpoint before; zero at format.
    pub parent: Checksum,
    /// The beat at whose close the checkpoint was taken.
    pub beat: Beat,
    /// The last op that the checkpoint counts.
    pub op_checkpoint: Op,
    /// The last op whose effects are all in tables; at most `op_checkpoint`.
    pub op_flushed: Op,
    /// Sum of the charges of all ops up to `op_checkpoint`.
    pub charge_total: u64,
    /// Rolling hash over the work of all beats.
    pub rolling_hash: Checksum,
    /// The tree catalogue.
    pub catalogue: TwinRef,
    /// The manifest log.
    pub manifest: ManifestRoot,
    /// The free set.
    pub free_set: FreeSetRoot,
    /// The highest acquired address, 0 for none: the grid's length in blocks.
    pub block_count_max: u64,
}

/// Where the scrubber goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubCursor {
    /// The tree.
    pub tree: TreeId,
    /// Its level.
    pub level: Level,
    /// The greatest key that is done.
    pub key: KeyBytes,
}

/// The part of a superblock that is this file's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LocalState {
    /// Number of this superblock, from 1; never used twice.
    pub sequence: u64,
    /// Checksum of the superblock before; zero at format.
    pub parent: Checksum,
    /// How often the file was opened for writing.
    pub incarnation: u64,
    /// Position in the journal's ring of the group that holds the op after `op_flushed`.
    pub journal_position: u64,
    /// The journal's chain hash there.
    pub journal_hash: Checksum,
    /// The last op that open accepted.
    pub head_op: Op,
    /// The journal's chain hash at that op.
    pub head_hash: Checksum,
    /// Where the scrubber goes on; `None` at the start of a tour.
    pub scrub: Option<ScrubCursor>,
    /// The block that lists quarantined blocks, if any.
    pub quarantine: Option<TwinRef>,
    /// Bytes the file may have; 0 for no limit.
    pub size_limit: u64,
    /// The beat since which this file differs from its peers by a local repair; `None` if it does not.
    pub diverged_since: Option<Beat>,
}

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
        /// The beat at whose close the checkpoint was taken.
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
        163: reserved: [u8; 349],
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

impl CheckpointState {
    /// The checkpoint's id: the checksum of its 1024 bytes.
    #[must_use]
    pub fn id(&self) -> Checksum {
        Checksum::of(CheckpointStateWire::encode(self).as_bytes())
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
        at_most("op_flushed", self.op_checkpoint.get(), self.op_flushed.get())?;
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
            reserved: [0; 349],
        }
    }

    /// The local state.
    ///
    /// # Errors
    /// The first field that no superblock can have.
    pub fn decode(&self) -> Result<LocalState, Corruption> {
        Self::LAYOUT.check_reserved(self.as_bytes())?;
        at_least("sequence", 1_u8, self.sequence.get())?;
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

/// A superblock as all its copies say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// What equal histories share.
    pub checkpoint: CheckpointState,
    /// What is this file's own.
    pub local: LocalState,
}

impl Superblock {
    /// The 4096 bytes of a copy, and the superblock's checksum, which is the same for all.
    ///
    /// # Panics
    /// If `copy` is not below 4.
    #[must_use]
    pub fn encode(&self, copy: u8) -> (SuperblockCopy, Checksum) {
        assert!(copy < SUPERBLOCK_COPIES, "there are four copies");
        let mut encoded = SuperblockCopy {
            checksum: U128::new(0),
            copy,
            reserved_copy: [0; 15],
            magic: MAGIC,
            version: VERSION.into(),
            checksum_kind: CHECKSUM_KIND,
            reserved_head: [0; 973],
            checkpoint: CheckpointStateWire::encode(&self.checkpoint),
            local: LocalStateWire::encode(&self.local),
            reserved: [0; 1536],
        };
        let checksum = encoded.compute_checksum();
        encoded.checksum.set(checksum.get());
        (encoded, checksum)
    }

    /// The superblock of the copy in slot `copy`, and its checksum; only the first 4096 bytes are looked at.
    ///
    /// # Errors
    /// The first field that is wrong. A bad checksum or magic may mean that this is no data file, a good one with
    /// another version that it is one of another version: [`identify`] tells.
    pub fn decode(bytes: &[u8], copy: u8) -> Result<(Self, Checksum), Corruption> {
        Self::decode_unplaced(bytes, copy).map_err(|error| error.at(Place::Superblock { copy }))
    }

    fn decode_unplaced(bytes: &[u8], copy: u8) -> Result<(Self, Checksum), Corruption> {
        let encoded = superblock_copy(bytes)?;
        rule("magic", "`understory file` and a line feed", encoded.magic == MAGIC, 0_u8)?;
        let checksum = encoded.compute_checksum();
        exactly("checksum", checksum.get(), encoded.checksum.get())?;
        exactly("version", VERSION, encoded.version.get())?;
        exactly("checksum_kind", CHECKSUM_KIND, encoded.checksum_kind)?;
        exactly("copy", copy, encoded.copy)?;
        SuperblockCopy::LAYOUT.check_reserved(encoded.as_bytes())?;
        let superblock = Self { checkpoint: encoded.checkpoint.decode()?, local: encoded.local.decode()? };
        Ok((superblock, checksum))
    }
}

fn superblock_copy(bytes: &[u8]) -> Result<&SuperblockCopy, Corruption> {
    match SuperblockCopy::ref_from_prefix(bytes) {
        Ok((copy, _)) => Ok(copy),
        Err(_) => at_least("length", 4096_u32, u64_of(bytes.len())).map(|()| unreachable!("long enough")),
    }
}

impl SuperblockCopy {
    fn compute_checksum(&self) -> Checksum {
        let (_, covered) = self.as_bytes().split_at(COVER_START);
        Checksum::of(covered)
    }
}

/// What a superblock copy says it is, before anything in it is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The magic is not ours.
    Foreign,
    /// The magic is ours, the checksum does not fit.
    Damaged,
    /// A whole copy of this version, as far as the checksum tells.
    Known,
    /// A whole copy of another version.
    Version(u16),
}

/// What the copy in these bytes is: tells a foreign file from a damaged one and from one of another version.
#[must_use]
pub fn identify(bytes: &[u8]) -> Identity {
    let Ok(copy) = superblock_copy(bytes) else { return Identity::Foreign };
    if copy.magic != MAGIC {
        Identity::Foreign
    } else if copy.checksum.get() != copy.compute_checksum().get() {
        Identity::Damaged
    } else if copy.version.get() == VERSION {
        Identity::Known
    } else {
        Identity::Version(copy.version.get())
    }
}

#[cfg(test)]
mod tests;
