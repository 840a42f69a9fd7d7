//! Positions, and where they are in the file.
//!
//! # Invariants
//! - A position is a multiple of 4096 and only grows; its place is the remainder by the ring's size.
//!
//! # Not here
//! What part of the ring is in use: `Journal`.

use understory_format::{Geometry, SECTOR_SIZE, usize_of};

/// Bytes of a sector as an index.
pub(crate) const SECTOR: usize = usize_of(SECTOR_SIZE);

/// The journal's zone of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ring {
    /// Offset in the file.
    offset: u64,
    /// Bytes.
    pub(crate) size: u64,
    /// Bytes of a group at most.
    pub(crate) group_size_max: u64,
}

impl Ring {
    /// # Panics
    /// If the geometry has no journal.
    pub(crate) fn new(geometry: &Geometry) -> Self {
        assert!(geometry.has_journal(), "the file has a journal");
        let size = geometry.journal_size;
        Self { offset: geometry.journal_offset(), size, group_size_max: geometry.ring_share() }
    }

    /// File offset of a position.
    pub(crate) const fn offset(&self, position: u64) -> u64 {
        self.offset + position % self.size
    }

    /// Bytes from a position to the end of the ring's zone, more than 0.
    pub(crate) const fn size_to_end(&self, position: u64) -> u64 {
        self.size - position % self.size
    }

    /// Bytes of a buffer that takes any group.
    pub(crate) fn group_buffer_size(&self) -> usize {
        usize::try_from(self.group_size_max).expect("a share fits memory")
    }
}
