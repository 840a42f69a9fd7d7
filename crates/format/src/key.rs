//! Keys: their Rust types, their bytes, their order, their hash, and the descriptor that does without the type.
//!
//! A key is one to four unsigned integers or byte strings, at most 32 bytes together, compared one after another.
//! Its bytes ([`KeyBytes`]) are those of the record's fields one after another (integers little-endian), so they
//! have no order of their own: [`Key`] compares decoded values, [`KeyDescriptor::compare`] does the same from the
//! bytes for whoever has no type (verifier, inspector, repair).
//!
//! # Invariants
//! - `a <= b` gives `a.prefix() <= b.prefix()`: kernels compare prefixes and look at keys on ties only (model test).
//! - The hash is XXH3-64, field by field. It decides the slots of pages and is part of the format (pinned).
//! - The descriptor's order is that of the type (model test).
//!
//! # Not here
//! Where the key's fields are in a record and what a record is: `record`.

use core::fmt::{self, Debug};

use xxhash_rust::xxh3::xxh3_64_with_seed;

mod descriptor;

pub use descriptor::{KeyDescriptor, KeyError, KeyField, KeyKind};

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

    /// The hash that decides the slots of pages: XXH3-64 of each field's bytes in turn, seeded with the hash of the
    /// fields before it, the first with 0. Field by field, so that the fields stay in registers; see
    /// [`KeyDescriptor::hash`] for who has no type.
    fn hash(self) -> u64;
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

    /// XXH3-64 of the encoded bytes with this seed.
    fn hash_after(self, seed: u64) -> u64;
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

            #[inline]
            fn hash_after(self, seed: u64) -> u64 {
                xxh3_64_with_seed(&self.to_le_bytes(), seed)
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

    #[inline]
    fn hash_after(self, seed: u64) -> u64 {
        xxh3_64_with_seed(&self, seed)
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

            #[inline]
            fn hash(self) -> u64 {
                self.hash_after(0)
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

            #[inline]
            fn hash(self) -> u64 {
                let ($($name,)+) = self;
                let hash = 0;
                $(let hash = $name.hash_after(hash);)+
                hash
            }
        }
    };
}

key_of_tuple!(A a);
key_of_tuple!(A a, B b);
key_of_tuple!(A a, B b, C c);
key_of_tuple!(A a, B b, C c, D d);

#[cfg(test)]
mod tests;
