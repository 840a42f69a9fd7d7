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

use zerocopy::little_endian::U128;
use zerocopy::{FromBytes, IntoBytes};

use crate::block::{CHECKSUM_KIND, VERSION};
use crate::error::{Corruption, Place, at_least, exactly, rule};
use crate::geometry::{Geometry, SUPERBLOCK_COPIES};
use crate::key::KeyBytes;
use crate::refs::TwinRef;
use crate::units::{Beat, Checksum, Level, Op, TreeId, u64_of};

mod wire;

pub use wire::{CheckpointStateWire, LocalStateWire, SuperblockCopy};

/// Bytes of a copy.
pub const SUPERBLOCK_SIZE: usize = 4096;

/// What a data file is recognised by.
pub const MAGIC: [u8; 16] = *b"understory file\n";

/// What a superblock counts (its own number, checkpoints, openings, ops, bytes of charges) is at most this. No history
/// gets there, and whoever counts on from a superblock that was decoded does not overflow.
pub const COUNTER_MAX: u64 = 1 << 60;

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
    /// The first beat after the checkpoint: the one that is open when the file is opened.
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
    /// The last op that the newest salvage of the journal kept; 0 if there was none, or if it kept none.
    pub salvaged_op: Op,
    /// How often the journal was cut by a salvage.
    pub salvage_count: u64,
}

impl CheckpointState {
    /// The checkpoint's id: the checksum of its 1024 bytes.
    #[must_use]
    pub fn id(&self) -> Checksum {
        Checksum::of(CheckpointStateWire::encode(self).as_bytes())
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
