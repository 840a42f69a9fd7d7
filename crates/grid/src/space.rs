//! Addresses, and the file behind them.
//!
//! # Invariants
//! - An address that is handed out lies within the file, with space behind it: the file is extended and holes are filled
//!   before the reservation is made, and if that fails nothing has changed (`a_full_disk_changes_nothing`).
//! - One thread at a time extends or cuts the file.
//! - Nothing is promised beyond the place where the file is about to be cut, and no read is in flight there
//!   (`cutting_the_file_beside_others`).
//!
//! # Not here
//! Which blocks are free (`free_set`); when they become so (the forest says, at the beats that replay repeats).

use std::ops::{Range, RangeInclusive};
use std::sync::atomic::Ordering;

use understory_format::{BlockAddress, Geometry};
use understory_io::IoError;

use crate::error::GridError;
use crate::free_set::{Exhausted, FreeSet, LIMIT_MAX, Reservation, Space};
use crate::grid::Grid;

/// The file is extended by more than what is needed: by this part of what it is then, so that a small file stays
/// small,
const GROWTH_PART: u64 = 4;
/// by at least so many blocks,
const GROWTH_COUNT_MIN: u64 = 16;
/// and by at most so many bytes.
const GROWTH_SIZE_MAX: u64 = 64 << 20;

/// Catalogue and the free set of the first checkpoint, twins included.
const BLOCKS_MIN: u64 = 4;

/// A stretch of so many free blocks is worth a hole in the file.
const HOLE_COUNT_MIN: u64 = 16;

/// The number of blocks that a file of this size has room for; a limit of 0 is none.
pub(crate) fn block_limit(geometry: &Geometry, size_limit: u64) -> u64 {
    if size_limit == 0 {
        return LIMIT_MAX;
    }
    blocks_in(geometry, size_limit).min(LIMIT_MAX)
}

/// Bytes of a file whose last block is this one; 0 is none.
pub(crate) fn file_size(geometry: &Geometry, highest: u64) -> u64 {
    geometry.grid_offset().saturating_add(highest.saturating_mul(u64::from(geometry.block_size)))
}

/// Blocks of a file of this size.
pub(crate) fn blocks_in(geometry: &Geometry, size: u64) -> u64 {
    size.saturating_sub(geometry.grid_offset()) / u64::from(geometry.block_size)
}

/// All addresses behind this one.
fn all_beyond(last: u64) -> RangeInclusive<BlockAddress> {
    let [next, highest] = [last.saturating_add(1), u64::MAX]
        .map(|address| BlockAddress::new(address).expect("addresses start at 1"));
    next..=highest
}

/// The size to extend a file to that must have room for block `highest`.
pub(crate) fn growth_target(geometry: &Geometry, highest: u64, size_limit: u64) -> u64 {
    let count_max = GROWTH_SIZE_MAX / u64::from(geometry.block_size);
    let more = (highest / GROWTH_PART).clamp(GROWTH_COUNT_MIN, count_max);
    let target = highest.saturating_add(more).min(block_limit(geometry, size_limit));
    file_size(geometry, target.max(highest))
}

/// What has to be there before blocks are promised.
enum Missing {
    /// The file up to this address.
    End(u64),
    /// Space behind these addresses.
    Hole(Range<u64>),
}

impl From<Exhausted> for GridError {
    fn from(Exhausted { needed, free }: Exhausted) -> Self {
        Self::OutOfSpace { needed, free }
    }
}

impl Grid {
    /// Promises `count` blocks: the lowest free ones above all live reservations. The file has room for them when
    /// this returns.
    ///
    /// # Errors
    /// [`GridError::OutOfSpace`] at the size limit or if the disk is full: then nothing has changed. Also
    /// [`GridError::Io`], [`GridError::Poisoned`], [`GridError::ReadOnly`].
    pub fn reserve(&self, count: u64) -> Result<Reservation, GridError> {
        self.check_writable()?;
        loop {
            let missing = {
                let mut free_set = self.free_set.lock();
                let highest = free_set.plan(count)?;
                if file_size(&self.geometry, highest) > self.file_end() {
                    Missing::End(highest)
                } else if let Some(hole) = free_set.hole_to_reserve(highest) {
                    Missing::Hole(hole)
                } else {
                    return Ok(free_set.reserve(count)?);
                }
            };
            self.provide(missing, count)?;
        }
    }

    /// Sees to it that `count` blocks have room in the file that are free and not promised, without promising them:
    /// who gives up all live reservations, drawn or not, can then reserve that many in any number of portions. Costs
    /// next to nothing when the room is there.
    ///
    /// # Errors
    /// As [`Grid::reserve`].
    pub fn back(&self, count: u64) -> Result<(), GridError> {
        self.check_writable()?;
        loop {
            let missing = {
                let free_set = self.free_set.lock();
                let in_file = blocks_in(&self.geometry, self.file_end());
                match free_set.back_target(count, in_file)? {
                    Some(highest) => Missing::End(highest),
                    None => match free_set.hole_to_back(count) {
                        Some(hole) => Missing::Hole(hole),
                        None => return Ok(()),
                    },
                }
            };
            self.provide(missing, count)?;
        }
    }

    fn provide(&self, missing: Missing, count: u64) -> Result<(), GridError> {
        match missing {
            Missing::End(highest) => self.extend(highest, count),
            Missing::Hole(hole) => self.fill(hole, count),
        }
    }

    /// Takes space for free blocks that may have none.
    fn fill(&self, hole: Range<u64>, count: u64) -> Result<(), GridError> {
        let _turn = self.growth.take();
        let allocated = self.machine.storage.allocate(self.bytes_of(&hole));
        allocated.map_err(|error| self.refused(error, count))?;
        self.free_set.lock().fill(&hole);
        Ok(())
    }

    /// The storage had no space for `needed` blocks, or failed.
    fn refused(&self, error: IoError, needed: u64) -> GridError {
        if !error.is_no_space() {
            return error.into();
        }
        let in_file = blocks_in(&self.geometry, self.machine.storage.size());
        let free = in_file.saturating_sub(self.free_set.lock().space().acquired);
        GridError::OutOfSpace { needed, free }
    }

    /// Where blocks stand in the file.
    fn bytes_of(&self, addresses: &Range<u64>) -> Range<u64> {
        file_size(&self.geometry, addresses.start - 1)..file_size(&self.geometry, addresses.end - 1)
    }

    fn extend(&self, highest: u64, count: u64) -> Result<(), GridError> {
        let size_limit = self.local_state().size_limit;
        let _turn = self.growth.take();
        let needed = file_size(&self.geometry, highest);
        if needed <= self.machine.storage.size() {
            return Ok(());
        }
        let target = growth_target(&self.geometry, highest, size_limit);
        let grown = self.machine.storage.grow(target);
        // A step may be too much where what is needed is not.
        let grown = grown.or_else(|error| {
            if error.is_no_space() && needed < target {
                self.machine.storage.grow(needed)
            } else {
                Err(error)
            }
        });
        grown.map_err(|error| self.refused(error, count))?;
        self.counts.growths.one();
        Ok(())
    }

    /// Gives back what the file need not have, and says how many bytes that is: cuts it behind the highest block that is
    /// in use or promised, and `spare` blocks more, and makes holes of long stretches of free blocks, but for the lowest
    /// `spare` ones, if those that are free are more than half of those in use (space that was written before is faster
    /// than new space). To be called after a durable checkpoint.
    ///
    /// # Errors
    /// [`GridError::Io`] if the storage refuses, [`GridError::Poisoned`], [`GridError::ReadOnly`].
    pub fn trim(&self, spare: u64) -> Result<u64, GridError> {
        Ok(self.cut_end(spare)? + self.hollow(spare)?)
    }

    /// Makes holes; gives their bytes.
    fn hollow(&self, spare: u64) -> Result<u64, GridError> {
        let _turn = self.growth.take();
        let in_file = blocks_in(&self.geometry, self.machine.storage.size());
        let acquired = self.free_set.lock().space().acquired;
        if in_file.saturating_sub(acquired) <= acquired / 2 {
            return Ok(0);
        }
        let (mut from, mut given_back) = (1, 0);
        loop {
            let hole = self.free_set.lock().hollow(from, in_file, spare, HOLE_COUNT_MIN);
            let Some(hole) = hole else { return Ok(given_back) };
            from = hole.end;
            let bytes = self.bytes_of(&hole);
            given_back += bytes.end - bytes.start;
            self.machine.storage.discard(bytes)?;
        }
    }

    /// Cuts the file; gives the bytes that it is shorter by.
    fn cut_end(&self, spare: u64) -> Result<u64, GridError> {
        self.check_writable()?;
        self.flush()?;
        let _turn = self.growth.take();
        let size = self.machine.storage.size();
        let Some(last) = self.announce_cut(spare, size) else { return Ok(0) };
        // Stale references lead there too; their reads fail from here on.
        self.settle_reads(all_beyond(last));
        let target = file_size(&self.geometry, last);
        let cut = self.machine.storage.truncate(target);
        self.cut.store(u64::MAX, Ordering::Release);
        cut?;
        // What the file grows by has space.
        self.free_set.lock().fill(&(last + 1..blocks_in(&self.geometry, size) + 1));
        Ok(size - target)
    }

    /// The block behind which the file is cut, if that makes it shorter. From here on nothing is promised beyond it,
    /// and no read begins there.
    fn announce_cut(&self, spare: u64, size: u64) -> Option<u64> {
        let free_set = self.free_set.lock();
        // What the durable root calls acquired has to be there at open, even if it is free by now.
        let durable = self.root.lock().superblock.checkpoint.block_count_max;
        let last = free_set.highest_promised().max(durable).saturating_add(spare);
        let target = file_size(&self.geometry, last);
        if target >= size {
            return None;
        }
        self.cut.store(target, Ordering::Release);
        Some(last)
    }

    /// Sets the size that the file may grow to, in bytes; the next superblock keeps it. For a grid that was loaded and has
    /// not [begun](Grid::begin).
    ///
    /// # Panics
    /// If the file is larger.
    pub fn set_size_limit(&self, bytes: u64) {
        assert!(bytes >= self.machine.storage.size(), "the caller compared the limit with the file");
        let limit = if bytes == u64::MAX { 0 } else { bytes };
        self.free_set.lock().set_limit(block_limit(&self.geometry, limit));
        self.root.lock().superblock.local.size_limit = limit;
    }

    /// Bytes of the smallest file there can be: superblock, journal, catalogue and the first free set.
    #[must_use]
    pub fn size_min(geometry: &Geometry) -> u64 {
        file_size(geometry, BLOCKS_MIN)
    }

    /// Draws the lowest block of a reservation.
    ///
    /// # Panics
    /// If the reservation has been used up: who reserves also counts.
    pub fn acquire(&self, reservation: &mut Reservation) -> BlockAddress {
        self.free_set.lock().acquire(reservation)
    }

    /// Gives back what was not drawn of a reservation.
    pub fn forfeit(&self, reservation: Reservation) {
        self.free_set.lock().forfeit(reservation);
    }

    /// A block is no longer needed after the next checkpoint. It can be read until it is free: see
    /// [`Grid::free_due`].
    ///
    /// # Panics
    /// If the block is free or was released before.
    pub fn release(&self, address: BlockAddress) {
        self.free_set.lock().release(address);
    }

    /// Frees what was released before the previous checkpoint; gives the number of blocks. To be called at the
    /// close of the first half-bar after a checkpoint.
    ///
    /// # Panics
    /// If there is a live reservation, or a checkpoint that was begun and is not durable.
    pub fn free_due(&self) -> u64 {
        let mut staging = self.staging.lock();
        assert!(!staging.pending, "blocks become free when the newest checkpoint is durable");
        staging.freed = staging.number;
        self.free_set.lock().free_due()
    }

    /// Whether the block is in use; released blocks are until they are free.
    #[must_use]
    pub fn is_acquired(&self, address: BlockAddress) -> bool {
        self.free_set.lock().is_acquired(address)
    }

    /// Whether the block was released and is not free yet.
    #[must_use]
    pub fn is_released(&self, address: BlockAddress) -> bool {
        self.free_set.lock().is_released(address)
    }

    /// Counts of blocks.
    #[must_use]
    pub fn space(&self) -> Space {
        self.free_set.lock().space()
    }

    /// A copy of the free set, to be looked at. O(blocks / 64).
    #[must_use]
    pub fn free_set(&self) -> FreeSet {
        self.free_set.lock().clone()
    }
}
