//! Pass 2 of recovery: the groups that count, one after another.
//!
//! # Invariants
//! - What is given is verified again: a journal that changed since the scan is damage, not other ops.
//!
//! # Not here
//! Applying ops.

use understory_format::Geometry;
use understory_io::{Arena, Machine, Pool};

use crate::error::{Evidence, JournalError};
use crate::group::Group;
use crate::ring::Ring;
use crate::scan::{Head, Start, walk_size};
use crate::walk::Walk;

/// Groups that a caller may hold at a time: the last one, while it asks for the next.
const GROUPS: usize = 2;

/// The groups from a start to a head.
#[derive(Debug)]
pub struct Replay {
    walk: Walk,
    start: Start,
    head: Head,
    groups: Pool,
}

impl Replay {
    /// Bytes of memory that a replay uses until it and its groups are dropped. `None` if no memory can be so large.
    #[must_use]
    pub fn size(geometry: &Geometry) -> Option<usize> {
        walk_size(geometry, GROUPS)
    }

    /// The ops after `start.op_flushed` up to `head`, which [`scan`](crate::scan) found from the same start.
    ///
    /// # Errors
    /// There is no memory, or no such start.
    ///
    /// # Panics
    /// If there is no journal, or the head is before the start or more than a lap behind it.
    pub fn new(
        machine: &Machine,
        geometry: &Geometry,
        start: &Start,
        head: &Head,
    ) -> Result<Self, JournalError> {
        start.validate()?;
        let arena = Arena::new(Self::size(geometry).unwrap_or(usize::MAX))?;
        let walk = Walk::new(machine, &arena, geometry, start, head.position)?;
        let groups = arena.pool(Ring::new(geometry).group_buffer_size(), GROUPS)?;
        Ok(Self { walk, start: *start, head: *head, groups })
    }

    /// The next group with ops that are not in tables yet; `None` after the last.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] if the journal is not what it was when it was scanned; [`JournalError::Io`].
    ///
    /// # Panics
    /// If the caller holds more than one group.
    pub fn next_group(&mut self) -> Result<Option<Group>, JournalError> {
        while self.walk.position() < self.head.position {
            let buffer = self.groups.take().expect("the caller holds one group at most");
            match self.walk.step(buffer)? {
                Ok(group) if group.header().op_count > 0 => {
                    return Ok(Some(group.after(self.start.op_flushed)));
                }
                Ok(_witness) => {}
                Err(fault) => {
                    return Err(JournalError::Damaged {
                        first: self.walk.op_next(),
                        last: self.head.op,
                        last_good: Box::new(self.walk.head()),
                        position: self.walk.position(),
                        fault: Box::new(fault),
                        evidence: Evidence::Superblock,
                    });
                }
            }
        }
        Ok(None)
    }
}
