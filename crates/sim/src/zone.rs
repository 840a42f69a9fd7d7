//! Zones of a data file.

use std::ops::Range;

use understory::Geometry;
use understory_format::{SECTOR_SIZE, SUPERBLOCK_COPIES, SUPERBLOCK_ZONE_SIZE};

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

/// Where the zones of a file are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Zones {
    ring: u64,
    grid: u64,
}

impl Zones {
    /// Of a file with this geometry.
    pub(crate) fn new(geometry: &Geometry) -> Self {
        Self { ring: geometry.journal_offset(), grid: geometry.grid_offset() }
    }

    /// The zone that an offset lies in.
    pub(crate) fn of(&self, offset: u64) -> Zone {
        match offset {
            _ if offset < SUPERBLOCK_ZONE_SIZE => Zone::Superblock,
            _ if offset < self.grid => Zone::Ring,
            _ => Zone::Grid,
        }
    }

    /// The bytes of a zone in a file of this size, of the superblock those of one copy; none if there are none.
    pub(crate) fn range(&self, zone: Zone, copy: u8, size: u64) -> Option<Range<u64>> {
        let range = match zone {
            Zone::Superblock => {
                let start = Geometry::superblock_offset(copy % SUPERBLOCK_COPIES);
                start..start + u64::from(SECTOR_SIZE)
            }
            Zone::Ring => self.ring..self.grid,
            Zone::Grid => self.grid..size,
        };
        (range.start < range.end && range.end <= size).then_some(range)
    }
}
