//! Groups in memory: being filled, and sealed.
//!
//! # Invariants
//! - The records of a [`Group`] were validated when it was made: they are gone through without errors.
//!
//! # Not here
//! Where a group goes, and what it says about the chain: `Journal`.

use std::sync::Arc;

use understory_format::journal::{GROUP_HEADER_SIZE, RECORD_HEADER_SIZE, group_size};
use understory_format::{
    Checksum, Corruption, GroupHeader, Op, RecordHeader, RecordKind, RecordView, u64_of, usize_of,
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
    /// An empty group, whose first op will be `op_first`. The buffer bounds its size: with [`Journal::group_size_max`](crate::Journal::group_size_max)
    /// bytes it takes the largest batch. Its bytes may be anything.
    ///
    /// # Panics
    /// If the buffer is not whole sectors, at least one.
    #[must_use]
    pub fn new(buffer: Buffer, op_first: Op) -> Self {
        assert!(buffer.len() >= SECTOR, "a group has a sector");
        assert!(buffer.len().is_multiple_of(SECTOR), "a group is whole sectors");
        Self { buffer, used: GROUP_HEADER_SIZE, op_first, op_count: 0 }
    }

    /// Whether a record with a body of so many bytes still fits.
    #[must_use]
    pub fn fits(&self, body_size: u64) -> bool {
        let left = u64_of(self.buffer.len() - self.used);
        body_size.checked_add(u64_of(RECORD_HEADER_SIZE)).is_some_and(|size| size <= left)
    }

    /// Adds the record of the next op, whose number this gives. `fill` gets the place of its body, whose bytes may be
    /// anything before, and writes all of it: `part_count` parts back to back (see
    /// [`PartHeader::start`](understory_format::PartHeader::start)).
    ///
    /// # Panics
    /// If it does not fit, or has parts and is no batch.
    pub fn push(
        &mut self,
        kind: RecordKind,
        part_count: u32,
        body_size: u64,
        fill: impl FnOnce(&mut [u8]),
    ) -> Op {
        assert!(self.fits(body_size), "the record fits the group");
        let op = Op::new(self.op_first.get() + u64::from(self.op_count));
        let size = u32::try_from(body_size).expect("a group has less than 4 GiB");
        let end = self.used + RECORD_HEADER_SIZE + usize_of(size);
        let record = self.buffer.get_mut(self.used..end).expect("it fits");
        let (header, body) = record.split_at_mut(RECORD_HEADER_SIZE);
        RecordHeader { op, kind, part_count, size }.encode(header);
        fill(body);
        self.used = end;
        self.op_count += 1;
        op
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

    /// The first op.
    #[must_use]
    pub fn op_first(&self) -> Op {
        self.op_first
    }

    /// Bytes of the ring that it takes as it is.
    #[must_use]
    pub fn size(&self) -> u64 {
        u64::from(group_size(self.used))
    }

    /// The group as one that is never written, for a file without a journal: its marks mean nothing.
    ///
    /// # Panics
    /// If it is empty, or its records are none that can be read back.
    #[must_use]
    pub fn into_group(mut self) -> Group {
        let header = GroupHeader {
            position: 0,
            size: 0,
            parent: Checksum::ZERO,
            checkpoint: Checksum::ZERO,
            incarnation: 0,
            op_first: self.op_first,
            op_count: 0,
            witness_op: Op::ZERO,
            witness_hash: Checksum::ZERO,
        };
        let header = self.finish(header);
        Group { buffer: Arc::new(self.buffer), header, hash: Checksum::ZERO, done: Op::ZERO }
    }

    /// Seals it; `header` says everything but size and ops.
    ///
    /// # Panics
    /// As [`into_group`](Self::into_group).
    pub(crate) fn seal(mut self, header: GroupHeader) -> Group {
        let header = self.finish(header);
        let bytes = self.buffer.get_mut(..usize_of(header.size)).expect("the buffer is whole sectors");
        let hash = header.seal(bytes);
        Group { buffer: Arc::new(self.buffer), header, hash, done: Op::ZERO }
    }

    /// Fills the last sector with zeros, and checks what whoever reads the group back will check. Gives the header with
    /// size and ops.
    fn finish(&mut self, header: GroupHeader) -> GroupHeader {
        assert!(self.op_count > 0, "a group has records");
        let size = group_size(self.used);
        let header = GroupHeader { size, op_first: self.op_first, op_count: self.op_count, ..header };
        let bytes = self.buffer.get_mut(..usize_of(size)).expect("the buffer is whole sectors");
        bytes.get_mut(self.used..).expect("no less than is used").fill(0);
        if let Err(error) = header.validate(bytes) {
            panic!("records that nobody could read back: {error}");
        }
        header
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

    fn bytes(&self) -> &[u8] {
        self.buffer.get(..usize_of(self.header.size)).expect("the group lies in its buffer")
    }

    /// Bytes of the ring that it takes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.header.size.into()
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

    /// The first op that [`records`](Self::records) gives.
    #[must_use]
    pub fn first_op(&self) -> Op {
        self.header.op_first.max(self.done.next())
    }

    /// The last op.
    #[must_use]
    pub fn last_op(&self) -> Op {
        Op::new(self.header.op_next().get() - 1)
    }

    /// The records in the order of their ops, each with the place where a replay starts that begins after its op. Of a
    /// group that was replayed, those that are not in tables yet.
    ///
    /// # Panics
    /// Never: they were validated when the group was made.
    pub fn records(&self) -> impl Iterator<Item = (RecordView<'_>, Mark)> {
        let (start, end, last) = (self.start(), self.end(), self.last_op());
        let records = self.header.records(self.bytes());
        records
            .map(|record| record.expect("the group was validated when it was made"))
            .filter(|record| record.op > self.done)
            .map(move |record| (record, if record.op == last { end } else { start }))
    }
}
