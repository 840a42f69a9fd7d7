//! Records of ops, back to back in the body of a group.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, IntoBytes};

use super::part::Parts;
use crate::error::{Corruption, Expected, exactly, zero};
use crate::geometry::SECTOR_SIZE;
use crate::layout::layout;
use crate::units::{Op, u64_of, usize_of};

layout! {
    /// Header of an op's record in the journal.
    pub struct JournalRecordWire: 64 = "journal-record" {
        /// The op.
        0: op: U64,
        /// Bytes of the body behind this header; 0 unless it is a batch.
        8: size: U32,
        /// Parts of the body; 0 unless it is a batch.
        12: part_count: U32,
        /// What the op is: 1 batch, 2 close, 3 drain, 4 settle.
        16: kind: u8,
        /// Zero.
        17: reserved: [u8; 47],
    }
}

/// Bytes of a record's header.
pub const RECORD_HEADER_SIZE: usize = size_of::<JournalRecordWire>();

/// What an op is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum RecordKind {
    /// Effects of a batch; may be none.
    Batch = 1,
    /// The half-bar ends.
    Close = 2,
    /// The memtables are emptied into tables, and a checkpoint is taken.
    Drain = 3,
    /// All levels are brought below their limits, and space is given back.
    Settle = 4,
}

impl RecordKind {
    /// The tag on disk; never 0.
    #[must_use]
    pub const fn tag(self) -> u8 {
        match self {
            Self::Batch => 1,
            Self::Close => 2,
            Self::Drain => 3,
            Self::Settle => 4,
        }
    }

    /// The kind with this tag.
    #[must_use]
    pub const fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            1 => Some(Self::Batch),
            2 => Some(Self::Close),
            3 => Some(Self::Drain),
            4 => Some(Self::Settle),
            _ => None,
        }
    }
}

/// What a record says before its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// The op.
    pub op: Op,
    /// What it is.
    pub kind: RecordKind,
    /// Parts of the body.
    pub part_count: u32,
    /// Bytes of the body.
    pub size: u32,
}

impl RecordHeader {
    /// Writes the header.
    ///
    /// # Panics
    /// If `bytes` is not 64 bytes, or there is a body and this is no batch.
    pub fn encode(&self, bytes: &mut [u8]) {
        assert!(self.kind == RecordKind::Batch || self.part_count == 0, "only batches have parts");
        assert_eq!(self.part_count == 0, self.size == 0, "a body is its parts");
        let wire = JournalRecordWire {
            op: self.op.get().into(),
            size: self.size.into(),
            part_count: self.part_count.into(),
            kind: self.kind.tag(),
            reserved: [0; 47],
        };
        bytes.copy_from_slice(wire.as_bytes());
    }

    fn decode(wire: &JournalRecordWire) -> Result<Self, Corruption> {
        JournalRecordWire::LAYOUT.check_reserved(wire.as_bytes())?;
        let kind = RecordKind::from_tag(wire.kind).ok_or_else(|| {
            Corruption::new("kind", Expected::Rule("a kind of op, 1 to 4"), wire.kind.into())
        })?;
        if kind != RecordKind::Batch {
            exactly("size", 0_u8, wire.size.get())?;
            exactly("part_count", 0_u8, wire.part_count.get())?;
        }
        Ok(Self {
            op: Op::new(wire.op.get()),
            kind,
            part_count: wire.part_count.get(),
            size: wire.size.get(),
        })
    }
}

/// One record in the bytes of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// The op.
    pub op: Op,
    /// What it is.
    pub kind: RecordKind,
    /// Parts of the body.
    pub part_count: u32,
    /// The parts back to back; empty unless it is a batch.
    pub body: &'a [u8],
}

impl<'a> RecordView<'a> {
    /// The parts, in the order in which the batch was given.
    #[must_use]
    pub const fn parts(&self) -> Parts<'a> {
        Parts::new(self.body, self.part_count)
    }

    /// Checks that all parts are whole and fill the body. O(parts and tombstones).
    pub(super) fn validate(&self) -> Result<(), Corruption> {
        let mut parts = self.parts();
        for part in parts.by_ref() {
            part?;
        }
        parts.finish()
    }
}

/// The records of a group, in the order of their ops. Ends after the first that is wrong.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    /// What is behind the last record.
    rest: &'a [u8],
    op: Op,
    left: u32,
    /// Bytes of the group before `rest`.
    used: usize,
}

impl<'a> Records<'a> {
    pub(super) const fn new(body: &'a [u8], op_first: Op, op_count: u32) -> Self {
        Self { rest: body, op: op_first, left: op_count, used: super::GROUP_HEADER_SIZE }
    }

    /// Checks that nothing but the zeros up to the next sector is behind the last record.
    pub(super) fn finish(&self) -> Result<(), Corruption> {
        exactly("op_count", 0_u8, self.left)?;
        let end = self.used.next_multiple_of(usize_of(SECTOR_SIZE));
        exactly("size", u64_of(end), u64_of(self.used + self.rest.len()))?;
        zero("padding", self.rest)
    }

    fn read(&mut self) -> Result<RecordView<'a>, Corruption> {
        let (wire, behind) = JournalRecordWire::ref_from_prefix(self.rest)
            .map_err(|_| Corruption::new("record", Expected::AtLeast(64), u64_of(self.rest.len()).into()))?;
        let header = RecordHeader::decode(wire)?;
        exactly("op", self.op.get(), header.op.get())?;
        let (body, behind) = behind.split_at_checked(usize_of(header.size)).ok_or_else(|| {
            Corruption::new("size", Expected::AtMost(u64_of(behind.len()).into()), header.size.into())
        })?;
        self.used += RECORD_HEADER_SIZE + body.len();
        self.rest = behind;
        self.op = self.op.next();
        self.left -= 1;
        Ok(RecordView { op: header.op, kind: header.kind, part_count: header.part_count, body })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordView<'a>, Corruption>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let record = self.read();
        if record.is_err() {
            self.left = 0;
        }
        Some(record)
    }
}
