//! What is wrong with bytes from disk: where, which field, what was expected, what was found.
//!
//! Every decoder of this crate returns [`Corruption`] and never panics, whatever the bytes. A decoder does not
//! always know where its bytes came from: it then says [`Place::Unplaced`], and the caller adds the place with
//! [`Corruption::at`].
//!
//! # Invariants
//! - No payload is allocated: an error can be made when memory is short, and is cheap to compare in tests.
//!
//! # Not here
//! Errors of a caller (`GeometryError`) and of the machine (the `io` crate).

use core::fmt;

use crate::units::BlockAddress;

/// Bytes from disk that cannot be what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("{place}: {field} is {}, expected {expected}", Number(*found))]
pub struct Corruption {
    /// Where the bytes are.
    pub place: Place,
    /// The field, spelled as in the layout tables.
    pub field: &'static str,
    /// What the field should be.
    pub expected: Expected,
    /// What it is.
    pub found: u128,
}

impl Corruption {
    /// An error without a place.
    #[must_use]
    #[cold]
    pub const fn new(field: &'static str, expected: Expected, found: u128) -> Self {
        Self { place: Place::Unplaced, field, expected, found }
    }

    /// The same error at `place`, unless it already says where it is.
    #[must_use]
    #[cold]
    pub fn at(mut self, place: Place) -> Self {
        if self.place == Place::Unplaced {
            self.place = place;
        }
        self
    }
}

/// Where damaged bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Place {
    /// A whole block.
    Block(BlockAddress),
    /// One page of a value block, from 0.
    Page(BlockAddress, u32),
    /// One copy of the superblock, from 0.
    Superblock {
        /// The copy's slot.
        copy: u8,
    },
    /// The decoder was not told.
    Unplaced,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Block(address) => write!(f, "block {address}"),
            Self::Page(address, page) => write!(f, "block {address} page {page}"),
            Self::Superblock { copy } => write!(f, "superblock copy {copy}"),
            Self::Unplaced => f.write_str("bytes"),
        }
    }
}

/// What a field should have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expected {
    /// This number.
    Exactly(u128),
    /// This number or more.
    AtLeast(u128),
    /// This number or less.
    AtMost(u128),
    /// Zero, as every reserved byte is.
    Zero,
    /// A rule that is no single number, in words.
    Rule(&'static str),
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(number) => Number(*number).fmt(f),
            Self::AtLeast(number) => write!(f, "at least {}", Number(*number)),
            Self::AtMost(number) => write!(f, "at most {}", Number(*number)),
            Self::Zero => f.write_str("zero"),
            Self::Rule(rule) => f.write_str(rule),
        }
    }
}

/// Decimal while a person can read it, else hexadecimal (checksums).
struct Number(u128);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 <= u128::from(u64::MAX) { write!(f, "{}", self.0) } else { write!(f, "{:#034x}", self.0) }
    }
}

/// `Ok` if `found` is `expected`.
///
/// # Errors
/// [`Corruption`] of `field`, without a place.
#[inline]
pub fn exactly(
    field: &'static str,
    expected: impl Into<u128>,
    found: impl Into<u128>,
) -> Result<(), Corruption> {
    let (expected, found) = (expected.into(), found.into());
    if found == expected { Ok(()) } else { Err(Corruption::new(field, Expected::Exactly(expected), found)) }
}

/// `Ok` if `found` is at least `least`.
///
/// # Errors
/// [`Corruption`] of `field`, without a place.
#[inline]
pub fn at_least(
    field: &'static str,
    least: impl Into<u128>,
    found: impl Into<u128>,
) -> Result<(), Corruption> {
    let (least, found) = (least.into(), found.into());
    if found >= least { Ok(()) } else { Err(Corruption::new(field, Expected::AtLeast(least), found)) }
}

/// `Ok` if `found` is at most `most`.
///
/// # Errors
/// [`Corruption`] of `field`, without a place.
#[inline]
pub fn at_most(field: &'static str, most: impl Into<u128>, found: impl Into<u128>) -> Result<(), Corruption> {
    let (most, found) = (most.into(), found.into());
    if found <= most { Ok(()) } else { Err(Corruption::new(field, Expected::AtMost(most), found)) }
}

/// `Ok` if `holds`; else `found` breaks `rule`.
///
/// # Errors
/// [`Corruption`] of `field`, without a place.
#[inline]
pub fn rule(
    field: &'static str,
    rule: &'static str,
    holds: bool,
    found: impl Into<u128>,
) -> Result<(), Corruption> {
    if holds { Ok(()) } else { Err(Corruption::new(field, Expected::Rule(rule), found.into())) }
}

/// `Ok` if all `bytes` are zero; else the first that is not is what was found.
///
/// # Errors
/// [`Corruption`] of `field`, without a place.
#[inline]
pub fn zero(field: &'static str, bytes: &[u8]) -> Result<(), Corruption> {
    match bytes.iter().find(|&&byte| byte != 0) {
        None => Ok(()),
        Some(&byte) => Err(Corruption::new(field, Expected::Zero, u128::from(byte))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_place_field_expected_found() {
        let address = BlockAddress::new(17).unwrap();
        let check = |error: Corruption, expected: &str| assert_eq!(error.to_string(), expected);
        check(exactly("kind", 2_u8, 7_u8).unwrap_err(), "bytes: kind is 7, expected 2");
        check(
            at_most("size", 4096_u32, 5000_u32).unwrap_err().at(Place::Block(address)),
            "block b17: size is 5000, expected at most 4096",
        );
        check(
            zero("reserved", &[0, 3]).unwrap_err().at(Place::Superblock { copy: 2 }),
            "superblock copy 2: reserved is 3, expected zero",
        );
        check(
            rule("key", "keys ascend", false, 1_u8 << 3).unwrap_err().at(Place::Page(address, 1)),
            "block b17 page 1: key is 8, expected keys ascend",
        );
        check(at_least("x", 1_u8, 0_u8).unwrap_err(), "bytes: x is 0, expected at least 1");
        check(
            exactly("checksum", u128::MAX, 1_u8).unwrap_err(),
            "bytes: checksum is 1, expected 0xffffffffffffffffffffffffffffffff",
        );
    }

    #[test]
    fn the_first_place_stays() {
        let place = Place::Superblock { copy: 1 };
        let error = zero("reserved", &[1]).unwrap_err().at(place).at(Place::Superblock { copy: 3 });
        assert_eq!(error.place, place);
    }
}
