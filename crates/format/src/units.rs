//! Newtypes for the numbers that stand in blocks, with checked constructors and no arithmetic.
//!
//! `Display` is the spelling in logs and dumps: `b17` a block, `t3` a tree, `L2` a level, `op991` an op,
//! `beat40` a beat. Arithmetic happens on the integers behind `get`, so that a block address can never be
//! added to a beat by accident.
//!
//! # Invariants
//! - A [`BlockAddress`] and a [`TreeId`] are never zero: zero is "none" on disk (held by the constructors).
//! - A [`Level`] is below 64 (held by the constructor).
//!
//! # Not here
//! What an address means as a file offset: `geometry`.

use core::fmt;
use core::num::{NonZeroU16, NonZeroU64};

use static_assertions::const_assert;
use xxhash_rust::xxh3::xxh3_128;

const_assert!(usize::BITS >= 32);

/// A `u32` as `usize`; lossless on every target this crate compiles for.
#[must_use]
#[inline]
pub const fn usize_of(value: u32) -> usize {
    #[expect(clippy::as_conversions, reason = "usize has at least 32 bits: asserted above")]
    {
        value as usize
    }
}

/// A `usize` as `u32`.
///
/// # Panics
/// If it does not fit; callers pass counts and offsets inside a block, which are below 2^20.
#[must_use]
#[inline]
pub const fn u32_of(value: usize) -> u32 {
    #[expect(clippy::as_conversions, clippy::cast_possible_truncation, reason = "checked by the round trip")]
    let narrow = value as u32;
    assert!(usize_of(narrow) == value, "a count or offset inside a block fits 32 bits");
    narrow
}

/// A `usize` as `u64`; lossless on every target this crate compiles for.
#[must_use]
#[inline]
pub const fn u64_of(value: usize) -> u64 {
    #[expect(clippy::as_conversions, reason = "usize has at most 64 bits on every supported target")]
    {
        value as u64
    }
}

const_assert!(usize::BITS <= 64);

/// Place of a block in the grid, counted from 1; 0 stands for "none" on disk and is not an address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockAddress(NonZeroU64);

impl BlockAddress {
    /// The address, or `None` for 0.
    #[must_use]
    #[inline]
    pub const fn new(address: u64) -> Option<Self> {
        match NonZeroU64::new(address) {
            Some(address) => Some(Self(address)),
            None => None,
        }
    }

    /// The number, from 1.
    #[must_use]
    #[inline]
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for BlockAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b{}", self.0)
    }
}

/// Name of a tree inside one forest, from 1; 0 stands for "no tree" on disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreeId(NonZeroU16);

impl TreeId {
    /// The id, or `None` for 0.
    #[must_use]
    #[inline]
    pub const fn new(id: u16) -> Option<Self> {
        match NonZeroU16::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// The number, from 1.
    #[must_use]
    #[inline]
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Display for TreeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}", self.0)
    }
}

/// A level of a tree; 0 is the one that memtables are flushed to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(u8);

impl Level {
    /// The first level.
    pub const ZERO: Self = Self(0);

    /// The level, or `None` from 64 on.
    #[must_use]
    #[inline]
    pub const fn new(level: u8) -> Option<Self> {
        if level < 64 { Some(Self(level)) } else { None }
    }

    /// The number, below 64.
    #[must_use]
    #[inline]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "L{}", self.0)
    }
}

/// Sequence number of a committed batch, from 1; 0 is "before the first".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Op(u64);

impl Op {
    /// Before the first op.
    pub const ZERO: Self = Self(0);

    /// The op with this number.
    #[must_use]
    #[inline]
    pub const fn new(op: u64) -> Self {
        Self(op)
    }

    /// The number.
    #[must_use]
    #[inline]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The op after this one.
    ///
    /// # Panics
    /// At 2^64 - 1, which no history reaches.
    #[must_use]
    #[inline]
    pub const fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("no history has 2^64 ops"))
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "op{}", self.0)
    }
}

/// Tick of the forest's clock; a table is visible from a beat to a beat.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Beat(u64);

impl Beat {
    /// The beat of an empty forest.
    pub const ZERO: Self = Self(0);
    /// "Never": the end of the life of a table that is live.
    pub const MAX: Self = Self(u64::MAX);

    /// The beat with this number.
    #[must_use]
    #[inline]
    pub const fn new(beat: u64) -> Self {
        Self(beat)
    }

    /// The number.
    #[must_use]
    #[inline]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The beat after this one.
    ///
    /// # Panics
    /// At [`Beat::MAX`], which is not a beat that anything follows.
    #[must_use]
    #[inline]
    pub const fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("nothing follows `never`"))
    }
}

impl fmt::Display for Beat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::MAX { f.write_str("never") } else { write!(f, "beat{}", self.0) }
    }
}

/// XXH3-128 of some bytes. It protects against accidents, not against someone who forges blocks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Checksum(u128);

impl Checksum {
    /// All zero: the parent of what has none. Not the checksum of anything that is looked up.
    pub const ZERO: Self = Self(0);

    /// The checksum of these bytes; O(n), about 30 GB/s.
    #[must_use]
    #[inline]
    pub fn of(bytes: &[u8]) -> Self {
        Self(xxh3_128(bytes))
    }

    /// A checksum read from somewhere.
    #[must_use]
    #[inline]
    pub const fn new(checksum: u128) -> Self {
        Self(checksum)
    }

    /// The number.
    #[must_use]
    #[inline]
    pub const fn get(self) -> u128 {
        self.0
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Debug output is the spelling of `Display`, also inside of what derives its own.
macro_rules! debug_as_spelled {
    ($($unit:ty),+) => {$(
        impl fmt::Debug for $unit {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )+};
}

debug_as_spelled!(BlockAddress, TreeId, Level, Op, Beat, Checksum);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling() {
        fn check(found: impl fmt::Display + fmt::Debug, expected: &str) {
            assert_eq!(found.to_string(), expected);
            assert_eq!(format!("{found:?}"), expected);
        }
        check(BlockAddress::new(17).unwrap(), "b17");
        check(TreeId::new(3).unwrap(), "t3");
        check(Level::new(2).unwrap(), "L2");
        check(Op::new(991), "op991");
        check(Beat::new(40), "beat40");
        check(Beat::MAX, "never");
        check(Checksum::new(0xab), "000000000000000000000000000000ab");
    }

    #[test]
    fn constructors_refuse_what_is_none() {
        assert_eq!(BlockAddress::new(0), None);
        assert_eq!(TreeId::new(0), None);
        assert_eq!(Level::new(64), None);
        assert_eq!(Level::new(63).unwrap().get(), 63);
    }

    /// The algorithm is part of the format: these values may never change.
    #[test]
    fn checksum_is_pinned() {
        assert_eq!(Checksum::of(b"").get(), 0x99aa_06d3_0147_98d8_6001_c324_468d_497f);
        let bytes: Vec<u8> = (0..=255).collect();
        let of_all_lengths: Vec<u8> =
            (0..=256).flat_map(|n| Checksum::of(&bytes[..n]).get().to_le_bytes()).collect();
        assert_eq!(Checksum::of(&of_all_lengths).to_string(), "4f2d1371701a9705e000f21d6e5597e5");
    }
}
