//! Groups of the journal: a header, the records of some ops back to back, and zeros up to the next sector.
//!
//! A group says where it stands (position), what it follows (op, chain hash), who wrote it (incarnation), and what
//! is known to be durable before it (witness). The checksum of its header is the chain hash behind it: it covers the
//! checksum of the body and the chain hash before. A record's body is made of *parts*, each with effects on one tree:
//! see [`Parts`].
//!
//! ```text
//! group   header 192 | record | record | ... | zeros
//! record  header 64 | part | part | ...
//! part    header 12 | bitmap of tombstones, if there are any | values back to back
//! ```
//!
//! # Invariants
//! - A group that [`GroupHeader::verify`] accepts has records whose ops count up by one, and parts whose values lie
//!   within their record: whoever goes through it meets no error (test: every flip under good checksums).
//! - A group and its records are no larger than the charges of its ops (test `a_record_fits_its_charge`).
//!
//! # Not here
//! The ring, the chain, what is torn and what is damaged: `journal`. Whether trees and value sizes are those of the
//! schema: whoever applies the parts.

use zerocopy::little_endian::{U32, U64, U128};
use zerocopy::{FromBytes, IntoBytes};

use crate::error::{Corruption, Expected, at_least, at_most, exactly, rule};
use crate::geometry::SECTOR_SIZE;
use crate::layout::layout;
use crate::superblock::COUNTER_MAX;
use crate::units::{Checksum, Op, u32_of, u64_of, usize_of};

mod part;
mod record;

pub use part::{JournalPartWire, PART_HEADER_SIZE, PartHeader, PartSlots, PartView, Parts, part_size};
pub use record::{JournalRecordWire, RECORD_HEADER_SIZE, RecordHeader, RecordKind, RecordView, Records};

/// Bytes of a group's header.
pub const GROUP_HEADER_SIZE: usize = size_of::<JournalGroupWire>();

/// Where the checksum's cover starts.
const COVER_START: usize = 16;

/// Positions, ops and incarnations are at most this: what a superblock counts to, and as much again for what was
/// counted on from there. Sums of them with sizes and counts do not overflow.
const COUNT_MAX: u64 = 2 * COUNTER_MAX;

const KIND_OPS: u8 = 1;
const KIND_WITNESS: u8 = 2;

layout! {
    /// Header of a group of records in the journal's ring.
    pub struct JournalGroupWire: 192 = "journal-group" {
        /// XXH3-128 of bytes 16 to 192: the chain hash behind the group.
        0: checksum: U128,
        /// XXH3-128 of everything behind the header: records and zeros.
        16: body_checksum: U128,
        /// Chain hash before the group: the checksum of the group before; zero in the first of a file.
        32: parent: U128,
        /// Id of the newest durable checkpoint.
        48: checkpoint: U128,
        /// The chain hash behind the group that ends with `witness_op`.
        64: witness_hash: U128,
        /// Bytes of all groups ever written before this one, a multiple of 4096; its place in the ring is the
        /// remainder by the ring's size.
        80: position: U64,
        /// The first op of the group; of a lone witness, the op that comes next.
        88: op_first: U64,
        /// The incarnation of the file that wrote it, from 1.
        96: incarnation: U64,
        /// The last op that was known to be durable; below `op_first`.
        104: witness_op: U64,
        /// Bytes of the group, header and zeros included, a multiple of 4096.
        112: size: U32,
        /// Ops of the group; 0 in a lone witness.
        116: op_count: U32,
        /// What it is: 1 ops, 2 a lone witness.
        120: kind: u8,
        /// Zero.
        121: reserved: [u8; 71],
    }
}

/// What a group says about itself, without its checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHeader {
    /// Bytes of all groups before it, a multiple of 4096.
    pub position: u64,
    /// Bytes of the group, a multiple of 4096.
    pub size: u32,
    /// Chain hash before the group.
    pub parent: Checksum,
    /// Id of the newest durable checkpoint when it was written.
    pub checkpoint: Checksum,
    /// The incarnation of the file that wrote it, from 1.
    pub incarnation: u64,
    /// The first op; of a lone witness, the op that comes next.
    pub op_first: Op,
    /// Ops of the group; 0 makes it a lone witness.
    pub op_count: u32,
    /// The last op that was known to be durable; below `op_first`, and the op right before it in a lone witness.
    pub witness_op: Op,
    /// The chain hash behind the group that ends with `witness_op`.
    pub witness_hash: Checksum,
}

impl GroupHeader {
    /// The op after those of the group.
    #[must_use]
    pub const fn op_next(&self) -> Op {
        #[expect(clippy::as_conversions, reason = "a widening conversion; `u64::from` is not const")]
        let count = self.op_count as u64;
        Op::new(self.op_first.get() + count)
    }

    /// The position after the group.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.position + u64::from(self.size)
    }

    /// Writes this header in front of the records that `group` has behind it, and the checksums of both. Returns the
    /// chain hash behind the group.
    ///
    /// # Panics
    /// If `group` is not `size` bytes, or the header is one that [`decode`](Self::decode) would refuse.
    pub fn seal(&self, group: &mut [u8]) -> Checksum {
        assert_eq!(group.len(), usize_of(self.size), "the group is as long as its header says");
        let (header, body) = group.split_at_mut(GROUP_HEADER_SIZE);
        let mut wire = JournalGroupWire {
            checksum: U128::new(0),
            body_checksum: Checksum::of(body).get().into(),
            parent: self.parent.get().into(),
            checkpoint: self.checkpoint.get().into(),
            witness_hash: self.witness_hash.get().into(),
            position: self.position.into(),
            op_first: self.op_first.get().into(),
            incarnation: self.incarnation.into(),
            witness_op: self.witness_op.get().into(),
            size: self.size.into(),
            op_count: self.op_count.into(),
            kind: if self.op_count == 0 { KIND_WITNESS } else { KIND_OPS },
            reserved: [0; 71],
        };
        let checksum = wire.compute_checksum();
        wire.checksum.set(checksum.get());
        if let Err(error) = wire.header() {
            panic!("a header that nobody could read back: {error}");
        }
        header.copy_from_slice(wire.as_bytes());
        checksum
    }

    /// The header at the start of these bytes, and the chain hash behind its group. Only the header is looked at.
    ///
    /// # Errors
    /// The first field that no group has, the checksum before all others.
    pub fn decode(bytes: &[u8]) -> Result<(Self, Checksum), Corruption> {
        let wire = wire(bytes)?;
        let checksum = wire.compute_checksum();
        exactly("checksum", checksum.get(), wire.checksum.get())?;
        Ok((wire.header()?, checksum))
    }

    /// The header and chain hash of a whole group: body, records, their parts and the zeros behind them are right.
    /// O(bytes), at the speed of the checksum.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn verify(group: &[u8]) -> Result<(Self, Checksum), Corruption> {
        let (header, checksum) = Self::decode(group)?;
        exactly("size", header.size, u64_of(group.len()))?;
        let body = group.get(GROUP_HEADER_SIZE..).unwrap_or_default();
        exactly("body_checksum", Checksum::of(body).get(), wire(group)?.body_checksum.get())?;
        header.validate(group)?;
        Ok((header, checksum))
    }

    /// Checks that the records behind the header, their parts and the zeros behind them are right; not the header, and
    /// no checksums. O(records, parts and bitmaps).
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn validate(&self, group: &[u8]) -> Result<(), Corruption> {
        let mut records = self.records(group);
        for record in records.by_ref() {
            record?.validate()?;
        }
        records.finish()
    }

    /// The records of a group that [`verify`](Self::verify) accepted; of others, as far as they can be made out.
    #[must_use]
    pub fn records<'a>(&self, group: &'a [u8]) -> Records<'a> {
        let body = group.get(GROUP_HEADER_SIZE..).unwrap_or_default();
        Records::new(body, self.op_first, self.op_count)
    }
}

fn wire(bytes: &[u8]) -> Result<&JournalGroupWire, Corruption> {
    match JournalGroupWire::ref_from_prefix(bytes) {
        Ok((wire, _)) => Ok(wire),
        Err(_) => Err(Corruption::new("length", Expected::AtLeast(192), u64_of(bytes.len()).into())),
    }
}

impl JournalGroupWire {
    fn compute_checksum(&self) -> Checksum {
        let (_, covered) = self.as_bytes().split_at(COVER_START);
        Checksum::of(covered)
    }

    fn header(&self) -> Result<GroupHeader, Corruption> {
        Self::LAYOUT.check_reserved(self.as_bytes())?;
        whole_sectors("position", self.position.get())?;
        at_most("position", COUNT_MAX, self.position.get())?;
        whole_sectors("size", self.size.get().into())?;
        at_least("size", SECTOR_SIZE, self.size.get())?;
        at_least("incarnation", 1_u8, self.incarnation.get())?;
        at_most("incarnation", COUNT_MAX, self.incarnation.get())?;
        at_least("op_first", 1_u8, self.op_first.get())?;
        at_most("op_first", COUNT_MAX, self.op_first.get())?;
        at_most("witness_op", self.op_first.get() - 1, self.witness_op.get())?;
        self.check_kind()?;
        Ok(GroupHeader {
            position: self.position.get(),
            size: self.size.get(),
            parent: Checksum::new(self.parent.get()),
            checkpoint: Checksum::new(self.checkpoint.get()),
            incarnation: self.incarnation.get(),
            op_first: Op::new(self.op_first.get()),
            op_count: self.op_count.get(),
            witness_op: Op::new(self.witness_op.get()),
            witness_hash: Checksum::new(self.witness_hash.get()),
        })
    }

    fn check_kind(&self) -> Result<(), Corruption> {
        match self.kind {
            KIND_OPS => {
                let room =
                    (u64::from(self.size.get()) - u64_of(GROUP_HEADER_SIZE)) / u64_of(RECORD_HEADER_SIZE);
                at_least("op_count", 1_u8, self.op_count.get())?;
                at_most("op_count", room, self.op_count.get())
            }
            KIND_WITNESS => {
                exactly("op_count", 0_u8, self.op_count.get())?;
                exactly("size", SECTOR_SIZE, self.size.get())?;
                exactly("witness_op", self.op_first.get() - 1, self.witness_op.get())
            }
            other => {
                Err(Corruption::new("kind", Expected::Rule("ops (1) or a lone witness (2)"), other.into()))
            }
        }
    }
}

fn whole_sectors(field: &'static str, found: u64) -> Result<(), Corruption> {
    rule(field, "a multiple of 4096", found.is_multiple_of(SECTOR_SIZE.into()), found)
}

/// Bytes of a group whose header and records are `used` bytes: whole sectors.
///
/// # Panics
/// If that is more than 2^32 bytes.
#[must_use]
pub fn group_size(used: usize) -> u32 {
    u32_of(used.next_multiple_of(usize_of(SECTOR_SIZE)))
}

#[cfg(test)]
mod tests;
