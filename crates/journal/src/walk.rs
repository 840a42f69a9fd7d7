//! From group to group along the chain.
//!
//! # Invariants
//! - A group is accepted only if it is whole, stands where it says, follows the group before by op and chain hash,
//!   and was written by an incarnation that may have written it.
//!
//! # Not here
//! What it means that the chain ends: `scan`.

use understory_format::error::{at_least, at_most, exactly};
use understory_format::{Checksum, Corruption, Geometry, GroupHeader, Op, usize_of};
use understory_io::{Arena, Buffer, IoError, Machine};

use crate::error::Fault;
use crate::group::Group;
use crate::reader::Reader;
use crate::ring::{Ring, SECTOR};
use crate::scan::{Head, Start};

/// A reader of the chain, and how far it got.
#[derive(Debug)]
pub(crate) struct Walk {
    reader: Reader,
    start: Start,
    group_size_max: u64,
    /// No group goes beyond.
    limit: u64,
    /// The end of the last group that was accepted.
    position: u64,
    hash: Checksum,
    op_next: Op,
    /// The highest so far.
    incarnation: u64,
    is_first: bool,
    head: Head,
}

impl Walk {
    /// A walk from `start` that ends at `limit`, a lap later at most.
    pub(crate) fn new(
        machine: &Machine,
        arena: &Arena,
        geometry: &Geometry,
        start: &Start,
        limit: u64,
    ) -> Result<Self, IoError> {
        let ring = Ring::new(geometry);
        assert!(limit <= start.position + ring.size, "a walk is one lap at most");
        Ok(Self {
            reader: Reader::new(machine, arena, geometry, limit)?,
            start: *start,
            group_size_max: ring.group_size_max,
            limit,
            position: start.position,
            hash: start.hash,
            op_next: start.op_flushed.next(),
            incarnation: 1,
            is_first: true,
            head: Head { op: start.op_flushed, hash: start.hash, position: start.position, torn: false },
        })
    }

    /// Goes on from where it is with smaller reads, and forgets what was read.
    pub(crate) fn look_closer(
        &mut self,
        machine: &Machine,
        arena: &Arena,
        geometry: &Geometry,
    ) -> Result<(), IoError> {
        self.reader = Reader::closer(machine, arena, geometry, self.limit)?;
        Ok(())
    }

    /// Where the next group is, if there is one.
    pub(crate) const fn position(&self) -> u64 {
        self.position
    }

    /// Where the walk ends at the latest.
    pub(crate) const fn limit(&self) -> u64 {
        self.limit
    }

    /// The op that the next group has.
    pub(crate) const fn op_next(&self) -> Op {
        self.op_next
    }

    /// The end of the last group with ops.
    pub(crate) const fn head(&self) -> Head {
        self.head
    }

    /// The next group, read into `buffer`, which any group fits. The inner error says why there is none: then nothing
    /// has changed.
    pub(crate) fn step(&mut self, mut buffer: Buffer) -> Result<Result<Group, Fault>, IoError> {
        let size = match self.read(&mut buffer)? {
            Ok(size) => size,
            Err(fault) => return Ok(Err(fault)),
        };
        let group = Group::verify(buffer, size).and_then(|group| self.check_head(&group).map(|()| group));
        if let Ok(group) = &group {
            self.accept(group);
        }
        Ok(group.map_err(Fault::from))
    }

    /// Reads the bytes of the next group, if its header says that it may be the next. Gives its size.
    fn read(&mut self, buffer: &mut Buffer) -> Result<Result<u32, Fault>, IoError> {
        if self.position >= self.limit {
            return Ok(Err(Fault::RingFull));
        }
        let header = match self.reader.sector(self.position)? {
            Ok(sector) => GroupHeader::decode(sector),
            Err(error) => return Ok(Err(Fault::Unreadable(error))),
        };
        let size = match header.and_then(|(header, _)| self.check(&header).map(|()| header.size)) {
            Ok(size) => size,
            Err(error) => return Ok(Err(Fault::Wrong(error))),
        };
        let bytes = buffer.get_mut(..usize_of(size)).expect("any group fits");
        Ok(self.reader.copy(self.position, bytes)?.map(|()| size).map_err(Fault::Unreadable))
    }

    /// Whether a group with this header may be the next one.
    fn check(&self, header: &GroupHeader) -> Result<(), Corruption> {
        exactly("position", self.position, header.position)?;
        exactly("parent", self.hash.get(), header.parent.get())?;
        at_most("size", self.group_size_max.min(self.limit - self.position), header.size)?;
        if self.is_first && header.op_count > 0 {
            at_most("op_first", self.op_next.get(), header.op_first.get())?;
            at_least("op_count", self.op_next.get() - header.op_first.get() + 1, header.op_count)?;
        } else {
            exactly("op_first", self.op_next.get(), header.op_first.get())?;
        }
        self.check_incarnation(header)
    }

    /// What the file's last opening accepted may be of any incarnation before; the rest is of the last one, or left
    /// over from what an opening did not accept.
    fn check_incarnation(&self, header: &GroupHeader) -> Result<(), Corruption> {
        at_least("incarnation", self.incarnation, header.incarnation)?;
        if header.op_first > self.start.head_op {
            return exactly("incarnation", self.start.incarnation, header.incarnation);
        }
        at_most("op_count", self.start.head_op.get() - header.op_first.get() + 1, header.op_count)?;
        at_most("incarnation", self.start.incarnation, header.incarnation)
    }

    /// Whether the chain is at `head_op` what it was when that op was accepted.
    fn check_head(&self, group: &Group) -> Result<(), Corruption> {
        if group.header().op_count > 0 && group.last_op() == self.start.head_op {
            return exactly("checksum", self.start.head_hash.get(), group.end().hash.get());
        }
        Ok(())
    }

    fn accept(&mut self, group: &Group) {
        let (header, end) = (group.header(), group.end());
        self.position = end.position;
        self.hash = end.hash;
        self.incarnation = header.incarnation;
        self.is_first = false;
        if header.op_count > 0 {
            self.op_next = header.op_next();
            self.head = Head { op: group.last_op(), hash: end.hash, position: end.position, torn: false };
        }
    }

    /// The header at a position behind the chain that stands where it says; `None` if there is none.
    pub(crate) fn header_at(&mut self, position: u64) -> Result<Option<GroupHeader>, IoError> {
        let Ok(sector) = self.reader.sector(position)? else { return Ok(None) };
        let header = GroupHeader::decode(sector).ok().map(|(header, _)| header);
        Ok(header.filter(|header| header.position == position))
    }
}

/// Bytes of a sector as a step of positions.
pub(crate) const STEP: usize = SECTOR;
