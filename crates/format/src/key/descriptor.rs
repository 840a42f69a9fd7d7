//! A key without its type: where its fields are in the record and how they compare.
//!
//! # Invariants
//! - A descriptor has one to four fields inside the record, which do not overlap, and at most 32 bytes together (held
//!   by its constructor, which is also what checks `record!` at compile time and the catalogue at open).
//! - It compares encoded keys as [`Key`](super::Key) compares decoded ones (model test).

use core::cmp::Ordering;
use core::fmt::{self, Debug};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{KEY_FIELDS_MAX, KeyBytes};

/// How the bytes of a key's field compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum KeyKind {
    /// A little-endian unsigned integer of 1, 2, 4, 8 or 16 bytes.
    Uint = 1,
    /// A byte string, compared from its first byte.
    Bytes = 2,
}

impl KeyKind {
    /// The kind with this tag.
    #[must_use]
    pub const fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            1 => Some(Self::Uint),
            2 => Some(Self::Bytes),
            _ => None,
        }
    }

    /// The tag on disk; never 0.
    #[must_use]
    pub const fn tag(self) -> u8 {
        match self {
            Self::Uint => 1,
            Self::Bytes => 2,
        }
    }
}

/// One field of a key: where it is in the record and how it compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyField {
    /// Offset in the record.
    pub offset: u16,
    /// Bytes.
    pub size: u8,
    /// How they compare.
    pub kind: KeyKind,
}

/// A key without its type: up to four fields of the record, compared one after another.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyDescriptor {
    fields: [KeyField; KEY_FIELDS_MAX],
    count: u8,
    size: u8,
}

/// What fills the places of a descriptor that are not used.
const UNUSED: KeyField = KeyField { offset: 0, size: 0, kind: KeyKind::Bytes };

/// Why fields are no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// None, or more than four.
    #[error("a key has one to four fields")]
    FieldCount,
    /// An integer that is not 1, 2, 4, 8 or 16 bytes, or a byte string of no bytes or more than 32.
    #[error("a key's field is an integer of 1, 2, 4, 8 or 16 bytes, or 1 to 32 bytes")]
    FieldSize,
    /// More than 32 bytes together.
    #[error("a key has at most 32 bytes")]
    KeySize,
    /// A field ends behind the record.
    #[error("a key's field lies inside the record")]
    FieldOffset,
    /// Two fields share a byte.
    #[error("the fields of a key do not overlap")]
    FieldOverlap,
}

impl KeyDescriptor {
    /// The descriptor of a key made of `fields` of a record of `value_size` bytes.
    ///
    /// # Errors
    /// The first rule that the fields break.
    pub const fn new(fields: &[KeyField], value_size: u32) -> Result<Self, KeyError> {
        if fields.is_empty() || fields.len() > KEY_FIELDS_MAX {
            return Err(KeyError::FieldCount);
        }
        let mut descriptor = Self { fields: [UNUSED; KEY_FIELDS_MAX], count: 0, size: 0 };
        let (mut size, mut rest, mut places): (u32, _, &mut [KeyField]) = (0, fields, &mut descriptor.fields);
        while let ([field, after @ ..], [place, places_after @ ..]) = (rest, places) {
            if let Err(error) = check_field(field, after, value_size) {
                return Err(error);
            }
            size += u32_of_u8(field.size);
            *place = *field;
            (rest, places) = (after, places_after);
        }
        if size > 32 {
            return Err(KeyError::KeySize);
        }
        (descriptor.count, descriptor.size) = (low_byte(fields.len()), low_byte(crate::usize_of(size)));
        Ok(descriptor)
    }

    /// Its fields, the first compared first.
    #[must_use]
    #[inline]
    pub fn fields(&self) -> &[KeyField] {
        self.fields.get(..usize::from(self.count)).unwrap_or_default()
    }

    /// Encoded bytes of the key.
    #[must_use]
    #[inline]
    pub const fn key_size(&self) -> usize {
        crate::usize_of(u32_of_u8(self.size))
    }

    /// The order of two encoded keys.
    ///
    /// # Panics
    /// If one is shorter than the key.
    #[must_use]
    pub fn compare(&self, a: &[u8], b: &[u8]) -> Ordering {
        let (mut a, mut b) = (a, b);
        for field in self.fields() {
            let size = usize::from(field.size);
            let (first_a, rest_a) = a.split_at(size);
            let (first_b, rest_b) = b.split_at(size);
            let order = match field.kind {
                KeyKind::Uint => first_a.iter().rev().cmp(first_b.iter().rev()),
                KeyKind::Bytes => first_a.cmp(first_b),
            };
            if order != Ordering::Equal {
                return order;
            }
            (a, b) = (rest_a, rest_b);
        }
        Ordering::Equal
    }

    /// [`Key::hash`](crate::Key::hash) of an encoded key.
    ///
    /// # Panics
    /// If `key` is shorter than the key's fields.
    #[must_use]
    pub fn hash(&self, key: &[u8]) -> u64 {
        let mut rest = key;
        self.fields().iter().fold(0, |hash, field| {
            let (bytes, behind) = rest.split_at(usize::from(field.size));
            rest = behind;
            xxh3_64_with_seed(bytes, hash)
        })
    }

    /// The key of a record.
    ///
    /// # Panics
    /// If the record is shorter than the one the descriptor was made for.
    #[must_use]
    pub fn extract(&self, record: &[u8]) -> KeyBytes {
        let mut key = KeyBytes::ZERO;
        let mut rest: &mut [u8] = &mut key.0;
        for field in self.fields() {
            let (start, size) = (usize::from(field.offset), usize::from(field.size));
            let (place, behind) = rest.split_at_mut(size);
            place.copy_from_slice(record.get(start..start + size).expect("a record of the described size"));
            rest = behind;
        }
        key
    }
}

impl Debug for KeyDescriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.fields()).finish()
    }
}

const fn u32_of_u8(value: u8) -> u32 {
    #[expect(clippy::as_conversions, reason = "widening; From is not const")]
    {
        value as u32
    }
}

const fn u32_of_u16(value: u16) -> u32 {
    #[expect(clippy::as_conversions, reason = "widening; From is not const")]
    {
        value as u32
    }
}

const fn low_byte(value: usize) -> u8 {
    assert!(value <= 255);
    #[expect(clippy::as_conversions, clippy::cast_possible_truncation, reason = "asserted above")]
    {
        value as u8
    }
}

const fn check_field(field: &KeyField, others: &[KeyField], value_size: u32) -> Result<(), KeyError> {
    let fits = match field.kind {
        KeyKind::Uint => matches!(field.size, 1 | 2 | 4 | 8 | 16),
        KeyKind::Bytes => field.size >= 1 && field.size <= 32,
    };
    if !fits {
        return Err(KeyError::FieldSize);
    }
    let start = u32_of_u16(field.offset);
    let end = start + u32_of_u8(field.size);
    if end > value_size {
        return Err(KeyError::FieldOffset);
    }
    let mut others = others;
    while let [other, rest @ ..] = others {
        let other_start = u32_of_u16(other.offset);
        if other_start < end && start < other_start + u32_of_u8(other.size) {
            return Err(KeyError::FieldOverlap);
        }
        others = rest;
    }
    Ok(())
}
