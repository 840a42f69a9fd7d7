//! What is fixed when a file is made: sizes of blocks, pages and tables, the shape of the levels, the clock, zones.
//!
//! One data file is: superblock copies, journal ring, grid. The geometry is stored in every checkpoint and compared
//! at open; nothing of it can change afterwards. Why these sizes: `docs/adr/0001-geometry.md`.
//!
//! # Invariants
//! - A `Geometry` that was decoded is valid (`decode` ends with `validate`).
//! - Every zone starts at a multiple of the block size.
//!
//! # Not here
//! Memory: caches and pools come from the budget given at open and do not shape the bytes.

use core::ops::RangeInclusive;

use zerocopy::little_endian::{U16, U32, U64};

use crate::error::{Corruption, Expected, exactly};
use crate::filter::FILTER_BITS_MAX;
use crate::layout::layout;
use crate::units::BlockAddress;

/// What every read and write on disk is a multiple of.
pub const SECTOR_SIZE: u32 = 4096;

/// Copies of the superblock.
pub const SUPERBLOCK_COPIES: u8 = 4;

/// Distance from one superblock copy to the next, so that no single write or erase unit holds two.
pub const SUPERBLOCK_STRIDE: u64 = 16 * 1024;

/// Bytes from the start of the file that belong to the superblock.
pub const SUPERBLOCK_ZONE_SIZE: u64 = 64 * 1024;

/// What an op costs the journal's ring beside its effects: the header of a group, and that of its record.
pub const OP_HEADER_SIZE: u64 = 256;

/// Bars of charges that the ring holds beside an interval: one that a checkpoint leaves in memtables, up to one and a
/// half until a checkpoint that fell due is taken, half a one until that is durable.
const RING_BARS: u64 = 3;

/// Shares of the ring for what is journaled and not applied yet, and for ops without effects.
const RING_SPARE_SHARES: u64 = 4;

/// How level 0 takes flushed memtables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Level0 {
    /// Merged with the tables they overlap, so that level 0 is disjoint like the others.
    Merged = 1,
    /// As runs, each disjoint in itself: a flush writes the newest and reads no other, unless there would be more
    /// than `runs_max` or others are small beside it.
    Runs = 2,
}

impl Level0 {
    /// The tag on disk; never 0.
    #[must_use]
    pub const fn tag(self) -> u8 {
        match self {
            Self::Merged => 1,
            Self::Runs => 2,
        }
    }

    /// The mode with this tag.
    #[must_use]
    pub const fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            1 => Some(Self::Merged),
            2 => Some(Self::Runs),
            _ => None,
        }
    }
}

/// What is fixed at format. Sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// What is allocated, written and moved: a power of two, 4 KiB to 1 MiB.
    pub block_size: u32,
    /// What is read and verified on a cold lookup: a power of two, 4 KiB to 16 KiB, at most a block.
    pub page_size: u32,
    /// Value blocks of a table at most, 1 to 65,536; fewer where the index block does not hold as many.
    pub table_blocks: u32,
    /// Levels of a tree, 1 to 7.
    pub levels: u8,
    /// How many times larger a level is than the one above, 4 to 16.
    pub growth: u8,
    /// Beats of a bar, even, 2 to 256.
    pub beats_per_bar: u16,
    /// Bytes of values per beat over the whole forest, 4 KiB to 1 GiB.
    pub share_size: u32,
    /// Bytes of values of one batch at most, at most a share.
    pub batch_size_max: u32,
    /// How level 0 takes memtables.
    pub level0: Level0,
    /// Runs of level 0 at most: 2 to 8; 1 if it is merged.
    pub runs_max: u8,
    /// Bits of filter per key, 32 at most; 0 for no filters.
    pub filter_bits: u8,
    /// Bytes of the journal's ring, a multiple of the block size; 0 for none.
    pub journal_size: u64,
    /// Unit of the journal's writes; 4096.
    pub journal_sector: u32,
    /// Least sum of charges between two scheduled checkpoints.
    pub interval_min: u64,
    /// Greatest sum of charges between two scheduled checkpoints.
    pub interval_max: u64,
}

const KIB: u32 = 1024;
const MIB: u32 = 1024 * KIB;

impl Default for Geometry {
    /// The usual sizes, with a journal: those [`for_memory`](Self::for_memory) of 512 MiB.
    fn default() -> Self {
        let without = Self {
            block_size: 64 * KIB,
            page_size: 16 * KIB,
            table_blocks: 256,
            levels: 7,
            growth: 8,
            beats_per_bar: 32,
            share_size: 2 * MIB,
            batch_size_max: 2 * MIB,
            level0: Level0::Runs,
            runs_max: 8,
            filter_bits: 10,
            journal_size: 0,
            journal_sector: SECTOR_SIZE,
            interval_min: 0,
            interval_max: 0,
        };
        without.with_journal()
    }
}

/// A geometry that cannot be; the caller asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("geometry: {field} is {found}, expected {expected}")]
pub struct GeometryError {
    /// The field, spelled as in [`Geometry`].
    pub field: &'static str,
    /// What it may be.
    pub expected: Expected,
    /// What it is.
    pub found: u64,
}

/// A field in which two geometries differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {ours} here and {theirs} there")]
pub struct Difference {
    /// The field, spelled as in [`Geometry`].
    pub field: &'static str,
    /// Its value on this side.
    pub ours: u64,
    /// Its value on the other.
    pub theirs: u64,
}

impl Geometry {
    /// The usual sizes for who has so much memory, in bytes: a bar is an eighth of it, as a power of two, from 8 MiB to
    /// 512 MiB. Three bars are kept in memtables, so more than half of the memory is left for the cache. The larger a
    /// bar, the less is written again and again, the larger is the journal's ring (more than three bars), and the
    /// longer takes it to open a file that was not closed.
    #[must_use]
    pub fn for_memory(memory: u64) -> Self {
        let usual = Self::default();
        let bar = (memory / 8).clamp(u64::from(8 * MIB), u64::from(512 * MIB));
        let beats = (1_u64 << bar.ilog2()) / u64::from(usual.share_size);
        let beats_per_bar = u16::try_from(beats).unwrap_or(256);
        Self { beats_per_bar, ..usual }.with_journal()
    }

    /// A tiny one for tests, with the same number of levels, level 0 merged, no filters and no journal.
    #[must_use]
    pub fn small() -> Self {
        Self {
            block_size: 4 * KIB,
            page_size: 4 * KIB,
            table_blocks: 4,
            growth: 4,
            beats_per_bar: 4,
            share_size: 16 * KIB,
            batch_size_max: 16 * KIB,
            level0: Level0::Merged,
            runs_max: 1,
            filter_bits: 0,
            journal_size: 0,
            interval_min: 256 * u64::from(KIB),
            interval_max: u64::from(MIB),
            ..Self::default()
        }
    }

    /// The same with a journal: a checkpoint at the end of each bar that commits have filled, and the smallest ring that
    /// this needs. Commits are then durable one by one.
    #[must_use]
    pub fn with_journal(mut self) -> Self {
        // What is due is decided in the middle of a bar. Half of what a half-bar is charged at most: a beat that is closed
        // for want of room may be charged little more than half of that too.
        self.interval_min = self.bar_charge_max() / 4;
        self.interval_max = self.interval_min;
        self.journal_size = self.journal_size_min().next_multiple_of(u64::from(self.block_size));
        self
    }

    /// The same without a journal: a commit is durable with the checkpoint after it. Checkpoints are then drains, and
    /// come after a quarter of the live size, but after 256 MiB at least and 2 GiB at most.
    #[must_use]
    pub fn without_journal(self) -> Self {
        let mib = u64::from(MIB);
        Self { journal_size: 0, interval_min: 256 * mib, interval_max: 2048 * mib, ..self }
    }

    /// The same with level 0 in runs, at most so many: 2 to 8.
    #[must_use]
    pub fn with_runs(self, runs_max: u8) -> Self {
        Self { level0: Level0::Runs, runs_max, ..self }
    }

    /// The same with filters of so many bits per key: 1 to 32, or none with 0.
    #[must_use]
    pub fn with_filters(self, filter_bits: u8) -> Self {
        Self { filter_bits, ..self }
    }

    /// Whether there is a journal.
    #[must_use]
    pub fn has_journal(&self) -> bool {
        self.journal_size > 0
    }

    /// Bytes of the journal's ring that the ops of one beat are charged at most: what the largest batch is charged.
    #[must_use]
    pub fn ring_share(&self) -> u64 {
        charge(self.batch_size_max.into()).max(charge(self.share_size.into()))
    }

    /// Bytes that the ops of one bar are charged at most: those of its beats, and the two that end its halves.
    #[must_use]
    pub fn bar_charge_max(&self) -> u64 {
        u64::from(self.beats_per_bar) * self.ring_share() + 2 * charge(0)
    }

    /// Bytes of the smallest ring for this geometry's interval.
    #[must_use]
    pub fn journal_size_min(&self) -> u64 {
        self.interval_max
            .saturating_add(RING_BARS * self.bar_charge_max())
            .saturating_add(RING_SPARE_SHARES * self.ring_share())
    }

    /// Checks all ranges.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn validate(&self) -> Result<(), GeometryError> {
        const GIB: u64 = 1 << 30;
        const HUGE: u64 = 1 << 48;
        let (block, page_max) = (u64::from(self.block_size), (16 * KIB).min(self.block_size));
        power_of_two("block_size", self.block_size, SECTOR_SIZE, MIB)?;
        power_of_two("page_size", self.page_size, SECTOR_SIZE, page_max)?;
        in_range("table_blocks", self.table_blocks, 1..=65_536)?;
        in_range("levels", self.levels, 1..=7)?;
        in_range("growth", self.growth, 4..=16)?;
        in_range("beats_per_bar", self.beats_per_bar, 2..=256)?;
        holds("beats_per_bar", self.beats_per_bar, self.beats_per_bar.is_multiple_of(2), "an even number")?;
        in_range("share_size", self.share_size, 4096..=GIB)?;
        in_range("batch_size_max", self.batch_size_max, 1..=u64::from(self.share_size))?;
        in_range(
            "runs_max",
            self.runs_max,
            match self.level0 {
                Level0::Merged => 1..=1,
                Level0::Runs => 2..=8,
            },
        )?;
        in_range("filter_bits", self.filter_bits, 0..=FILTER_BITS_MAX.into())?;
        in_range("journal_size", self.journal_size, 0..=HUGE)?;
        let whole_blocks = self.journal_size.is_multiple_of(block);
        holds("journal_size", self.journal_size, whole_blocks, "a multiple of the block size")?;
        in_range("journal_sector", self.journal_sector, u64::from(SECTOR_SIZE)..=u64::from(SECTOR_SIZE))?;
        in_range("interval_min", self.interval_min, 4096..=HUGE)?;
        in_range("interval_max", self.interval_max, self.interval_min..=HUGE)?;
        if self.has_journal() {
            in_range("journal_size", self.journal_size, self.journal_size_min()..=HUGE)?;
        }
        Ok(())
    }

    /// The first field in which `other` differs, or `None`.
    #[must_use]
    pub fn differs(&self, other: &Self) -> Option<Difference> {
        let fields = self.fields().into_iter().zip(other.fields());
        fields
            .map(|((field, ours), (_, theirs))| Difference { field, ours, theirs })
            .find(|difference| difference.ours != difference.theirs)
    }

    /// All fields with their names, in the order of the wire form.
    #[must_use]
    pub fn fields(&self) -> [(&'static str, u64); 15] {
        [
            ("block_size", self.block_size.into()),
            ("page_size", self.page_size.into()),
            ("table_blocks", self.table_blocks.into()),
            ("share_size", self.share_size.into()),
            ("batch_size_max", self.batch_size_max.into()),
            ("journal_sector", self.journal_sector.into()),
            ("journal_size", self.journal_size),
            ("interval_min", self.interval_min),
            ("interval_max", self.interval_max),
            ("beats_per_bar", self.beats_per_bar.into()),
            ("levels", self.levels.into()),
            ("growth", self.growth.into()),
            ("level0", self.level0.tag().into()),
            ("runs_max", self.runs_max.into()),
            ("filter_bits", self.filter_bits.into()),
        ]
    }

    /// Offset of a superblock copy in the file.
    ///
    /// # Panics
    /// If `copy` is not below [`SUPERBLOCK_COPIES`].
    #[must_use]
    pub const fn superblock_offset(copy: u8) -> u64 {
        assert!(copy < SUPERBLOCK_COPIES, "there are four copies");
        #[expect(clippy::as_conversions, reason = "widening; From is not const")]
        let copy = copy as u64;
        copy * SUPERBLOCK_STRIDE
    }

    /// Offset of the journal's ring in the file.
    #[must_use]
    pub fn journal_offset(&self) -> u64 {
        SUPERBLOCK_ZONE_SIZE.next_multiple_of(u64::from(self.block_size))
    }

    /// Offset of the grid, where block 1 is.
    #[must_use]
    pub fn grid_offset(&self) -> u64 {
        self.journal_offset() + self.journal_size
    }

    /// Offset of a block in the file, or `None` if no file can be so large.
    #[must_use]
    pub fn block_offset_checked(&self, address: BlockAddress) -> Option<u64> {
        let in_grid = (address.get() - 1).checked_mul(u64::from(self.block_size))?;
        let offset = self.grid_offset().checked_add(in_grid)?;
        (offset <= (1 << 62)).then_some(offset)
    }

    /// Offset of a block in the file.
    ///
    /// # Panics
    /// If no file can be so large; addresses from disk go through [`Geometry::block_offset_checked`].
    #[must_use]
    pub fn block_offset(&self, address: BlockAddress) -> u64 {
        self.block_offset_checked(address).expect("the allocator gives addresses that the file can have")
    }
}

/// What one put or remove of a record of `value_size` bytes takes of a beat's share and of the batch limit, in
/// bytes: the record, and 16 bytes for what finds it again in a memtable.
#[must_use]
pub const fn effect_size(value_size: u32) -> u64 {
    // A widening conversion; `u64::from` is not const.
    #[expect(clippy::as_conversions, reason = "u64::from is not const")]
    let value_size = value_size as u64;
    value_size + 16
}

/// What an op with this many bytes of effects adds to the clock: header and effects, in whole sectors.
#[must_use]
#[inline]
pub const fn charge(effects_bytes: u64) -> u64 {
    effects_bytes.saturating_add(OP_HEADER_SIZE).div_ceil(4096).saturating_mul(4096)
}

fn holds(
    field: &'static str,
    found: impl Into<u64>,
    holds: bool,
    rule: &'static str,
) -> Result<(), GeometryError> {
    let found = found.into();
    if holds { Ok(()) } else { Err(GeometryError { field, expected: Expected::Rule(rule), found }) }
}

fn in_range(
    field: &'static str,
    found: impl Into<u64>,
    range: RangeInclusive<u64>,
) -> Result<(), GeometryError> {
    let found = found.into();
    let expected = if found < *range.start() {
        Expected::AtLeast(u128::from(*range.start()))
    } else if found > *range.end() {
        Expected::AtMost(u128::from(*range.end()))
    } else {
        return Ok(());
    };
    Err(GeometryError { field, expected, found })
}

fn power_of_two(field: &'static str, found: u32, least: u32, most: u32) -> Result<(), GeometryError> {
    in_range(field, found, u64::from(least)..=u64::from(most))?;
    holds(field, found, found.is_power_of_two(), "a power of two")
}

layout! {
    /// What is fixed at format, stored in every checkpoint.
    pub struct GeometryWire: 256 = "geometry" {
        /// Bytes of a block: a power of two, 4 KiB to 1 MiB.
        0: block_size: U32,
        /// Bytes of a page: a power of two, 4 KiB to 16 KiB, at most a block.
        4: page_size: U32,
        /// Value blocks of a table at most.
        8: table_blocks: U32,
        /// Bytes of values per beat over the whole forest.
        12: share_size: U32,
        /// Bytes of values of one batch at most.
        16: batch_size_max: U32,
        /// Unit of the journal's writes, in bytes.
        20: journal_sector: U32,
        /// Bytes of the journal's ring; 0 for none.
        24: journal_size: U64,
        /// Least sum of charges between two scheduled checkpoints, in bytes.
        32: interval_min: U64,
        /// Greatest sum of charges between two scheduled checkpoints, in bytes.
        40: interval_max: U64,
        /// Offset of the journal's ring in the file.
        48: journal_offset: U64,
        /// Offset of block 1 in the file.
        56: grid_offset: U64,
        /// Beats of a bar, even.
        64: beats_per_bar: U16,
        /// Levels of a tree.
        66: levels: u8,
        /// How many times larger a level is than the one above.
        67: growth: u8,
        /// How level 0 takes memtables: 1 merged, 2 as runs.
        68: level0: u8,
        /// Runs of level 0 at most: 2 to 8; 1 if it is merged.
        69: runs_max: u8,
        /// Bits of filter per key, 32 at most; 0 for no filters.
        70: filter_bits: u8,
        /// Zero.
        71: reserved: [u8; 185],
    }
}

impl GeometryWire {
    /// The wire form.
    #[must_use]
    pub fn encode(geometry: &Geometry) -> Self {
        Self {
            block_size: geometry.block_size.into(),
            page_size: geometry.page_size.into(),
            table_blocks: geometry.table_blocks.into(),
            share_size: geometry.share_size.into(),
            batch_size_max: geometry.batch_size_max.into(),
            journal_sector: geometry.journal_sector.into(),
            journal_size: geometry.journal_size.into(),
            interval_min: geometry.interval_min.into(),
            interval_max: geometry.interval_max.into(),
            journal_offset: geometry.journal_offset().into(),
            grid_offset: geometry.grid_offset().into(),
            beats_per_bar: geometry.beats_per_bar.into(),
            levels: geometry.levels,
            growth: geometry.growth,
            level0: geometry.level0.tag(),
            runs_max: geometry.runs_max,
            filter_bits: geometry.filter_bits,
            reserved: [0; 185],
        }
    }

    /// The geometry, valid.
    ///
    /// # Errors
    /// The first field that is out of its range, or a zone that is not where it belongs.
    pub fn decode(&self) -> Result<Geometry, Corruption> {
        let level0 = Level0::from_tag(self.level0).ok_or_else(|| {
            Corruption::new("level0", Expected::Rule("merged (1) or runs (2)"), self.level0.into())
        })?;
        let geometry = Geometry {
            block_size: self.block_size.get(),
            page_size: self.page_size.get(),
            table_blocks: self.table_blocks.get(),
            levels: self.levels,
            growth: self.growth,
            beats_per_bar: self.beats_per_bar.get(),
            share_size: self.share_size.get(),
            batch_size_max: self.batch_size_max.get(),
            level0,
            runs_max: self.runs_max,
            filter_bits: self.filter_bits,
            journal_size: self.journal_size.get(),
            journal_sector: self.journal_sector.get(),
            interval_min: self.interval_min.get(),
            interval_max: self.interval_max.get(),
        };
        geometry
            .validate()
            .map_err(|error| Corruption::new(error.field, error.expected, error.found.into()))?;
        exactly("journal_offset", geometry.journal_offset(), self.journal_offset.get())?;
        exactly("grid_offset", geometry.grid_offset(), self.grid_offset.get())?;
        crate::error::zero("reserved", &self.reserved)?;
        Ok(geometry)
    }
}

#[cfg(test)]
mod tests;
