//! Groups in memory: being filled, and sealed.
//!
//! # Invariants
//! - A [`Group`] is one that `format` verified: its records are gone through without errors.
//!
//! # Not here
//! Where a group goes, and what it says about the chain: `Journal`.

use std::sync::Arc;

use understory_format::journal::{GROUP_HEADER_SIZE, RECORD_HEADER_SIZE, group_size};
use understory_format::{
    Checksum, Corruption, GroupHeader, Op, PartView, RecordHeader, RecordKind, TreeId, u64_of, usize_of,
};
use understory_io::Buffer;

use crate::ring::SECTOR;

/// A place between two groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Where the next group starts.
    pub position: u64,
    /// The chain hash before it.
    pub hash: Checksum,
}

/// Collects the records of a group in one buffer.
#[derive(Debug)]
pub struct GroupBuilder {
    buffer: Buffer,
    used: usize,
    op_first: Op,
    op_count: u32,
}

impl GroupBuilder {
    /// An empty group. The buffer bounds its size: with [`Journal::group_size_max`](crate::Journal::group_size_max)
    /// bytes it takes the largest batch. Its bytes may be anything.
    ///
    /// # Panics
    /// If the buffer is not whole sectors, at least one.
    #[must_use]
    pub fn new(buffer: Buffer) -> Self {
        assert!(buffer.len() >= SECTOR, "a group has a sector");
        assert!(buffer.len().is_multiple_of(SECTOR), "a group is whole sectors");
        Self { buffer, used: GROUP_HEADER_SIZE, op_first: Op::ZERO, op_count: 0 }
    }

    /// Whether a record with a body of so many bytes still fits.
    #[must_use]
    pub fn fits(&self, body_size: u64) -> bool {
        let left = u64_of(self.buffer.len() - self.used);
        body_size.checked_add(u64_of(RECORD_HEADER_SIZE)).is_some_and(|size| size <= left)
    }

    /// Adds the record of an op. `fill` gets the place of its body, whose bytes may be anything before, and writes all
    /// of it: `part_count` parts back to back (see [`PartHeader::start`](understory_format::PartHeader::start)).
    ///
    /// # Panics
    /// If it does not fit, does not follow the op before, or has parts and is no batch.
    pub fn push(
        &mut self,
        op: Op,
        kind: RecordKind,
        part_count: u32,
        body_size: u32,
        fill: impl FnOnce(&mut [u8]),
    ) {
        if self.op_count == 0 {
            self.op_first = op;
        }
        let expected = self.op_first.get() + u64::from(self.op_count);
        assert_eq!(op.get(), expected, "ops of a group follow one another");
        assert!(self.fits(body_size.into()), "the record fits the group");
        let end = self.used + RECORD_HEADER_SIZE + usize_of(body_size);
        let record = self.buffer.get_mut(self.used..end).expect("it fits");
        let (header, body) = record.split_at_mut(RECORD_HEADER_SIZE);
        RecordHeader { op, kind, part_count, size: body_size }.encode(header);
        fill(body);
        self.used = end;
        self.op_count += 1;
    }

    /// Whether it has no record yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.op_count == 0
    }

    /// Records so far.
    #[must_use]
    pub fn op_count(&self) -> u32 {
        self.op_count
    }

    /// The first op; of an empty group, op 0.
    #[must_use]
    pub fn op_first(&self) -> Op {
        self.op_first
    }

    /// Bytes of the ring that it takes as it is.
    #[must_use]
    pub fn size(&self) -> u64 {
        u64::from(group_size(self.used))
    }

    /// Seals it; `header` says everything but size and ops.
    ///
    /// # Panics
    /// If it is empty, or its records are none that can be read back.
    pub(crate) fn seal(mut self, header: GroupHeader) -> Group {
        assert!(self.op_count > 0, "a group has records");
        let size = group_size(self.used);
        let header = GroupHeader { size, op_first: self.op_first, op_count: self.op_count, ..header };
        let bytes = self.buffer.get_mut(..usize_of(size)).expect("the buffer is whole sectors");
        bytes.get_mut(self.used..).expect("no less than is used").fill(0);
        let hash = header.seal(bytes);
        match Group::verify(self.buffer, size) {
            Ok(group) => {
                assert_eq!(group.hash, hash, "what is read back is what was written");
                group
            }
            Err(error) => panic!("a group that nobody could read back: {error}"),
        }
    }
}

/// A whole group in memory, shared by its clones.
#[derive(Clone, Debug)]
pub struct Group {
    buffer: Arc<Buffer>,
    header: GroupHeader,
    hash: Checksum,
    /// Records up to this op are left out.
    done: Op,
}

/// The record of an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The op.
    pub op: Op,
    /// What it is.
    pub kind: RecordKind,
    /// Parts of the body.
    pub part_count: u32,
    /// The parts, back to back.
    pub body: &'a [u8],
    /// Where a replay starts that begins after this op.
    pub mark_after: Mark,
}

impl<'a> Record<'a> {
    /// The parts, in the order in which the batch was given. `value_size` says the size of a tree's values, and `None`
    /// if there is no such tree; the iterator ends after the first error.
    pub fn parts(
        &self,
        mut value_size: impl FnMut(TreeId) -> Option<u32>,
    ) -> impl Iterator<Item = Result<PartView<'a>, Corruption>> {
        let mut is_over = false;
        let parts = understory_format::Parts::new(self.body, self.part_count);
        let checked = parts.map(move |part| {
            let part = part?;
            part.check(value_size(part.tree()))?;
            Ok(part)
        });
        checked.take_while(move |part| !std::mem::replace(&mut is_over, part.is_err()))
    }
}

impl Group {
    /// The group in the first `size` bytes of a buffer, or what is wrong with it.
    pub(crate) fn verify(buffer: Buffer, size: u32) -> Result<Self, Corruption> {
        let (header, hash) = GroupHeader::verify(buffer.get(..usize_of(size)).unwrap_or_default())?;
        Ok(Self { buffer: Arc::new(buffer), header, hash, done: Op::ZERO })
    }

    /// The same, with records up to `op` left out.
    pub(crate) fn after(self, op: Op) -> Self {
        Self { done: op, ..self }
    }

    pub(crate) fn buffer(&self) -> &Arc<Buffer> {
        &self.buffer
    }

    /// What the group says about itself.
    #[must_use]
    pub fn header(&self) -> &GroupHeader {
        &self.header
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(..usize_of(self.header.size)).expect("the group lies in its buffer")
    }

    /// Where it starts.
    #[must_use]
    pub fn start(&self) -> Mark {
        Mark { position: self.header.position, hash: self.header.parent }
    }

    /// Where it ends.
    #[must_use]
    pub fn end(&self) -> Mark {
        Mark { position: self.header.end(), hash: self.hash }
    }

    /// The first op that [`ops`](Self::ops) gives.
    #[must_use]
    pub fn first_op(&self) -> Op {
        self.header.op_first.max(self.done.next())
    }

    /// The last op.
    #[must_use]
    pub fn last_op(&self) -> Op {
        Op::new(self.header.op_next().get() - 1)
    }

    /// The records in the order of their ops. Of a group that was replayed, those that are not in tables yet.
    pub fn ops(&self) -> impl Iterator<Item = Record<'_>> {
        let (start, end, last) = (self.start(), self.end(), self.last_op());
        let records = self.header.records(self.bytes());
        records
            .map(|record| record.expect("the group was verified when it was made"))
            .filter(|record| record.op > self.done)
            .map(move |record| Record {
                op: record.op,
                kind: record.kind,
                part_count: record.part_count,
                body: record.body,
                mark_after: if record.op == last { end } else { start },
            })
    }
}
