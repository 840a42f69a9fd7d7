//! Keys: their Rust types, their bytes, their order, their hash, and the descriptor that does without the type.
//!
//! A key is one to four unsigned integers or byte strings, at most 32 bytes together, compared one after another.
//! Its bytes ([`KeyBytes`]) are those of the record's fields one after another (integers little-endian), so they
//! have no order of their own: [`Key`] compares decoded values, [`KeyDescriptor::compare`] does the same from the
//! bytes for whoever has no type (verifier, inspector, repair).
//!
//! # Invariants
//! - `a <= b` gives `a.prefix() <= b.prefix()`: kernels compare prefixes and look at keys on ties only (model test).
//! - The hash is XXH3-64 of the encoded bytes. It decides the slots of pages and is part of the format (pinned).
//! - The descriptor's order is that of the type (model test).
//!
//! # Not here
//! Where the key's fields are in a record and what a record is: `record`.

use core::cmp::Ordering;
use core::fmt::{self, Debug};

use xxhash_rust::xxh3::xxh3_64;

/// Bytes that every key fits.
pub const KEY_SIZE_MAX: usize = 32;

/// Fields that a key has at most.
pub const KEY_FIELDS_MAX: usize = 4;

/// The bytes of a key, zero padded to 32. They are for storing; they have no order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct KeyBytes(pub [u8; KEY_SIZE_MAX]);

impl KeyBytes {
    /// All zero.
    pub const ZERO: Self = Self([0; KEY_SIZE_MAX]);

    /// The 32 bytes.
    #[must_use]
    #[inline]
    pub const fn get(&self) -> &[u8; KEY_SIZE_MAX] {
        &self.0
    }

    /// The first `size` bytes: the key without its padding.
    ///
    /// # Panics
    /// If `size` is over 32.
    #[must_use]
    #[inline]
    pub fn key(&self, size: usize) -> &[u8] {
        self.0.get(..size).expect("a key has at most 32 bytes")
    }

    /// These bytes, zero padded.
    ///
    /// # Panics
    /// If there are more than 32.
    #[must_use]
    #[inline]
    pub fn padded(bytes: &[u8]) -> Self {
        let mut padded = Self::ZERO;
        padded.0.get_mut(..bytes.len()).expect("a key has at most 32 bytes").copy_from_slice(bytes);
        padded
    }
}

impl Debug for KeyBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = self.0.iter().rposition(|&byte| byte != 0).map_or(1, |last| last + 1);
        self.0.iter().take(used).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a key is, for the code that is compiled for it.
pub trait Key: Copy + Ord + Debug + Send + Sync + 'static {
    /// Encoded bytes, 1 to 32.
    const SIZE: usize;
    /// The least key.
    const MIN: Self;
    /// The greatest key.
    const MAX: Self;

    /// The encoded bytes, zero padded.
    fn encode(self) -> KeyBytes;

    /// The key of the first `SIZE` bytes; every bit pattern is a key.
    ///
    /// # Panics
    /// If `bytes` is shorter.
    fn decode(bytes: &[u8]) -> Self;

    /// The leading 8 bytes of the key in its order: `a <= b` gives `a.prefix() <= b.prefix()`.
    fn prefix(self) -> u64;

    /// XXH3-64 of the encoded bytes without padding.
    #[inline]
    fn hash(self) -> u64 {
        hash_bytes(self.encode().key(Self::SIZE))
    }
}

/// The hash of an encoded key without padding: XXH3-64. It decides the slots of pages.
#[must_use]
#[inline]
pub fn hash_bytes(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// What one field of a key is: an unsigned integer or a byte string.
pub trait KeyPart: Copy + Ord + Debug + Send + Sync + 'static {
    /// Encoded bytes.
    const SIZE: usize;
    /// How the encoded bytes compare.
    const KIND: KeyKind;
    /// The least value.
    const MIN: Self;
    /// The greatest value.
    const MAX: Self;

    /// Writes `SIZE` bytes to the start of `bytes`.
    ///
    /// # Panics
    /// If `bytes` is shorter.
    fn write(self, bytes: &mut [u8]);

    /// Reads `SIZE` bytes from the start of `bytes`.
    ///
    /// # Panics
    /// If `bytes` is shorter.
    fn read(bytes: &[u8]) -> Self;

    /// The leading bytes in the value's order, at the high end.
    fn leading(self) -> u64;
}

const SHORT: &str = "the caller gives at least the key's bytes";

macro_rules! key_part_uint {
    ($($type:ty: |$value:ident| $prefix:expr;)+) => {$(
        impl KeyPart for $type {
            const SIZE: usize = size_of::<$type>();
            const KIND: KeyKind = KeyKind::Uint;
            const MIN: Self = <$type>::MIN;
            const MAX: Self = <$type>::MAX;

            #[inline]
            fn write(self, bytes: &mut [u8]) {
                *bytes.first_chunk_mut().expect(SHORT) = self.to_le_bytes();
            }

            #[inline]
            fn read(bytes: &[u8]) -> Self {
                Self::from_le_bytes(*bytes.first_chunk().expect(SHORT))
            }

            #[inline]
            fn leading(self) -> u64 {
                let $value = self;
                $prefix
            }
        }
    )+};
}

key_part_uint! {
    u8: |value| u64::from(value) << 56;
    u16: |value| u64::from(value) << 48;
    u32: |value| u64::from(value) << 32;
    u64: |value| value;
    u128: |value| high_half(value);
}

#[inline]
const fn high_half(value: u128) -> u64 {
    #[expect(clippy::as_conversions, reason = "64 bits are left")]
    {
        (value >> 64) as u64
    }
}

impl<const N: usize> KeyPart for [u8; N] {
    const SIZE: usize = {
        assert!(N >= 1 && N <= KEY_SIZE_MAX, "a byte string in a key has 1 to 32 bytes");
        N
    };
    const KIND: KeyKind = KeyKind::Bytes;
    const MIN: Self = [0; N];
    const MAX: Self = [u8::MAX; N];

    #[inline]
    fn write(self, bytes: &mut [u8]) {
        *bytes.first_chunk_mut().expect(SHORT) = self;
    }

    #[inline]
    fn read(bytes: &[u8]) -> Self {
        *bytes.first_chunk().expect(SHORT)
    }

    #[inline]
    fn leading(self) -> u64 {
        let mut first = [0; 8];
        for (to, from) in first.iter_mut().zip(self) {
            *to = from;
        }
        u64::from_le_bytes(first).swap_bytes()
    }
}

/// `leading` of what follows `size` bytes.
#[inline]
const fn after(size: usize, leading: u64) -> u64 {
    if size < 8 { leading >> (8 * size) } else { 0 }
}

const fn checked_size(size: usize) -> usize {
    assert!(size >= 1 && size <= KEY_SIZE_MAX, "a key has 1 to 32 bytes");
    size
}

macro_rules! key_of_one {
    ($([$($generics:tt)*] $type:ty),+) => {$(
        impl<$($generics)*> Key for $type {
            const SIZE: usize = checked_size(<$type as KeyPart>::SIZE);
            const MIN: Self = <$type as KeyPart>::MIN;
            const MAX: Self = <$type as KeyPart>::MAX;

            #[inline]
            fn encode(self) -> KeyBytes {
                let mut bytes = KeyBytes::ZERO;
                self.write(&mut bytes.0);
                bytes
            }

            #[inline]
            fn decode(bytes: &[u8]) -> Self {
                <$type as KeyPart>::read(bytes)
            }

            #[inline]
            fn prefix(self) -> u64 {
                self.leading()
            }
        }
    )+};
}

key_of_one!([] u8, [] u16, [] u32, [] u64, [] u128, [const N: usize] [u8; N]);

macro_rules! key_of_tuple {
    ($($part:ident $name:ident),+) => {
        impl<$($part: KeyPart),+> Key for ($($part,)+) {
            const SIZE: usize = checked_size(0 $(+ $part::SIZE)+);
            const MIN: Self = ($($part::MIN,)+);
            const MAX: Self = ($($part::MAX,)+);

            #[inline]
            fn encode(self) -> KeyBytes {
                let mut bytes = KeyBytes::ZERO;
                let rest: &mut [u8] = &mut bytes.0;
                let ($($name,)+) = self;
                $(
                    let (part, rest) = rest.split_at_mut($part::SIZE);
                    $name.write(part);
                )+
                let _padding = rest;
                bytes
            }

            #[inline]
            fn decode(bytes: &[u8]) -> Self {
                let rest = bytes;
                $(
                    let (part, rest) = rest.split_at($part::SIZE);
                    let $name = $part::read(part);
                )+
                let _behind = rest;
                ($($name,)+)
            }

            #[inline]
            fn prefix(self) -> u64 {
                let ($($name,)+) = self;
                let (prefix, size) = (0, 0);
                $(
                    let (prefix, size) = (prefix | after(size, $name.leading()), size + $part::SIZE);
                )+
                let _size = size;
                prefix
            }
        }
    };
}

key_of_tuple!(A a);
key_of_tuple!(A a, B b);
key_of_tuple!(A a, B b, C c);
key_of_tuple!(A a, B b, C c, D d);

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

#[cfg(test)]
mod tests;
