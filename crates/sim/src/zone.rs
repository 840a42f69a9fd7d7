//! Zones of a data file.

use std::fmt;
use std::ops::Range;

use understory::Geometry;
use understory_format::{BlockAddress, SECTOR_SIZE, SUPERBLOCK_COPIES, SUPERBLOCK_ZONE_SIZE};

/// A zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Zone {
    /// The copies of the superblock.
    Superblock,
    /// The journal's ring.
    Ring,
    /// The blocks.
    Grid,
}

impl Zone {
    /// In words.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Superblock => "superblocks",
            Self::Ring => "ring",
            Self::Grid => "grid",
        }
    }
}

/// Where the zones of a file are, and what is in them.
#[derive(Clone, Copy)]
pub(crate) struct Zones {
    geometry: Geometry,
}

impl Zones {
    /// Of a file with this geometry.
    pub(crate) fn new(geometry: &Geometry) -> Self {
        Self { geometry: *geometry }
    }

    /// The zone that an offset lies in.
    pub(crate) fn of(&self, offset: u64) -> Zone {
        match offset {
            _ if offset < SUPERBLOCK_ZONE_SIZE => Zone::Superblock,
            _ if offset < self.geometry.grid_offset() => Zone::Ring,
            _ => Zone::Grid,
        }
    }

    /// The bytes of a copy of the superblock.
    pub(crate) fn superblock(copy: u8) -> Range<u64> {
        let start = Geometry::superblock_offset(copy);
        start..start + u64::from(SECTOR_SIZE)
    }

    /// The bytes of the ring.
    pub(crate) fn ring(&self) -> Range<u64> {
        self.geometry.journal_offset()..self.geometry.grid_offset()
    }

    /// The bytes that the group at a position of the journal may have: in one piece, or in two around the ring's end.
    pub(crate) fn group(&self, position: u64) -> [Range<u64>; 2] {
        let ring = self.ring();
        let start = ring.start + position.checked_rem(self.geometry.journal_size).unwrap_or(0);
        let end = start + self.geometry.ring_share();
        let beyond = end.saturating_sub(ring.end);
        [start..end.min(ring.end), ring.start..ring.start + beyond]
    }

    /// The bytes of a block, if a file can be so large.
    pub(crate) fn block(&self, address: BlockAddress) -> Option<Range<u64>> {
        let start = self.geometry.block_offset_checked(address)?;
        Some(start..start + u64::from(self.geometry.block_size))
    }

    /// The bytes of a zone in a file of this size, of the superblock those of one copy; none if there are none.
    pub(crate) fn range(&self, zone: Zone, copy: u8, size: u64) -> Option<Range<u64>> {
        let range = match zone {
            Zone::Superblock => Self::superblock(copy % SUPERBLOCK_COPIES),
            Zone::Ring => self.ring(),
            Zone::Grid => self.geometry.grid_offset()..size,
        };
        (range.start < range.end && range.end <= size).then_some(range)
    }
}

impl fmt::Debug for Zones {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Zones").field("ring", &self.ring()).finish_non_exhaustive()
    }
}
