//! The record contract: fixed-size plain bytes with a key among their fields.
//!
//! A record is any zerocopy type without alignment; every bit pattern is legal. [`record!`](crate::record!)
//! implements [`Record`] from the names and types of the key's fields:
//!
//! ```
//! use understory_format::{Record, record};
//! use zerocopy::little_endian::{U64, U128};
//! # use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};
//!
//! #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
//! #[repr(C)]
//! struct Account {
//!     id: U128,
//!     balance: U64,
//!     region: [u8; 8],
//! }
//! record! { Account: "accounts", key = { id: U128 } }
//!
//! let account = Account { id: 7.into(), balance: 100.into(), region: *b"north   " };
//! assert_eq!(account.key(), 7);
//! assert_eq!(Account::tombstone(7).balance.get(), 0);
//! ```
//!
//! What is no key does not compile. A field of another type than said:
//! ```compile_fail,E0308
//! # use understory_format::record;
//! # use zerocopy::little_endian::{U64, U128};
//! # use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};
//! #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
//! #[repr(C)]
//! struct Account { id: U128 }
//! record! { Account: "accounts", key = { id: U64 } }
//! ```
//! More than 32 bytes:
//! ```compile_fail,E0080
//! # use understory_format::record;
//! # use zerocopy::little_endian::{U64, U128};
//! # use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};
//! #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
//! #[repr(C)]
//! struct Account { id: U128, other: U128, third: u8 }
//! record! { Account: "accounts", key = { id: U128, other: U128, third: u8 } }
//! ```
//! More than four fields:
//! ```compile_fail
//! # use understory_format::record;
//! # use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};
//! #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
//! #[repr(C)]
//! struct Account { a: u8, b: u8, c: u8, d: u8, e: u8 }
//! record! { Account: "accounts", key = { a: u8, b: u8, c: u8, d: u8, e: u8 } }
//! ```
//! One field twice, a signed integer, or a name that is empty, over 32 bytes or not printable ASCII:
//! ```compile_fail,E0080
//! # use understory_format::record;
//! # use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};
//! #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
//! #[repr(C)]
//! struct Account { a: u8 }
//! record! { Account: "accounts", key = { a: u8, a: u8 } }
//! ```
//! ```compile_fail,E0277
//! # use understory_format::record;
//! # use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};
//! #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
//! #[repr(C)]
//! struct Account { a: i8 }
//! record! { Account: "accounts", key = { a: i8 } }
//! ```
//! ```compile_fail,E0080
//! # use understory_format::record;
//! # use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};
//! #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
//! #[repr(C)]
//! struct Account { a: u8 }
//! record! { Account: "", key = { a: u8 } }
//! ```
//!
//! # Invariants
//! - `KEY.extract(record) == record.key().encode()` and `tombstone(key).key() == key` (the macro builds all three
//!   from one list; test).
//!
//! # Not here
//! Whether a value is a tombstone: that stands beside the values, in the page.

use core::fmt::Debug;

use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::key::{Key, KeyDescriptor, KeyField, KeyPart};

/// Bytes of a tree's name at most.
pub const NAME_SIZE_MAX: usize = 32;

/// Bytes of a record at most: one fits the first page of a block where pages are largest (16 KiB). Smaller pages
/// allow less: `ValueLayout::new` says.
pub const VALUE_SIZE_MAX: usize = 16_000;

/// A fixed-size record; implemented by [`record!`](crate::record!).
pub trait Record:
    FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned + Copy + Send + Sync + Debug + 'static
{
    /// The type of the key.
    type Key: Key;
    /// Name of the tree, 1 to 32 bytes of printable ASCII.
    const NAME: &'static str;
    /// Where the key's fields are.
    const KEY: KeyDescriptor;

    /// The key.
    fn key(&self) -> Self::Key;

    /// What stands in the place of a removed value: the key's fields set, the rest zero.
    fn tombstone(key: Self::Key) -> Self;
}

/// A type that a key's field has in a record, and the native type it is in a key.
pub trait KeyFieldType: Copy {
    /// The type in the key.
    type Native: KeyPart;

    /// The native value.
    fn native(self) -> Self::Native;

    /// The field of a native value.
    fn from_native(native: Self::Native) -> Self;
}

macro_rules! key_field_uint {
    ($($wire:ty = $native:ty),+) => {$(
        impl KeyFieldType for $wire {
            type Native = $native;

            #[inline]
            fn native(self) -> $native {
                self.get()
            }

            #[inline]
            fn from_native(native: $native) -> Self {
                Self::new(native)
            }
        }
    )+};
}

key_field_uint!(U16 = u16, U32 = u32, U64 = u64, U128 = u128);

impl KeyFieldType for u8 {
    type Native = u8;

    #[inline]
    fn native(self) -> u8 {
        self
    }

    #[inline]
    fn from_native(native: u8) -> Self {
        native
    }
}

impl<const N: usize> KeyFieldType for [u8; N] {
    type Native = Self;

    #[inline]
    fn native(self) -> Self {
        self
    }

    #[inline]
    fn from_native(native: Self) -> Self {
        native
    }
}

/// The descriptor's entry for a field of type `T` at `offset`; for [`record!`](crate::record!).
///
/// # Panics
/// If the field is no part of a key, which in a constant is a compile error.
#[doc(hidden)]
#[must_use]
pub const fn key_field<T: KeyFieldType>(offset: usize) -> KeyField {
    assert!(offset <= 65_535, "a key's field lies in the first 64 KiB of the record");
    assert!(size_of::<T>() == <T::Native as KeyPart>::SIZE);
    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        reason = "asserted above and by KeyPart"
    )]
    let (offset, size) = (offset as u16, size_of::<T>() as u8);
    KeyField { offset, size, kind: <T::Native as KeyPart>::KIND }
}

/// The descriptor of a record's key; for [`record!`](crate::record!).
///
/// # Panics
/// If the fields are no key or the record no record, which in a constant is a compile error.
#[doc(hidden)]
#[must_use]
pub const fn key_descriptor<R>(name: &str, fields: &[KeyField]) -> KeyDescriptor {
    assert!(is_name(name.as_bytes()), "a tree's name is 1 to 32 bytes of printable ASCII without spaces");
    assert!(size_of::<R>() <= VALUE_SIZE_MAX, "a record has at most 16000 bytes");
    match KeyDescriptor::new(fields, crate::u32_of(size_of::<R>())) {
        Ok(descriptor) => descriptor,
        Err(crate::key::KeyError::KeySize) => panic!("a key has at most 32 bytes"),
        Err(crate::key::KeyError::FieldOverlap) => panic!("the fields of a key do not overlap"),
        Err(_) => panic!("a key is one to four integers or byte strings inside the record"),
    }
}

/// Whether these bytes are a tree's name: 1 to 32 of printable ASCII without spaces.
#[must_use]
pub const fn is_name(name: &[u8]) -> bool {
    if name.is_empty() || name.len() > NAME_SIZE_MAX {
        return false;
    }
    let mut rest = name;
    while let [byte, after @ ..] = rest {
        if !byte.is_ascii_graphic() {
            return false;
        }
        rest = after;
    }
    true
}

/// Implements [`Record`](crate::Record): `record! { Type: "name", key = { field: WireType, ... } }`.
///
/// One to four fields of types `U16`, `U32`, `U64`, `U128` (`zerocopy::little_endian`), `u8` or `[u8; N]`; the key
/// is the native type of a single field and a tuple of them for several. See [`Record`](crate::Record).
#[macro_export]
macro_rules! record {
    ($record:ty: $name:literal, key = { $field:ident: $type:ty $(,)? }) => {
        $crate::record!(@implement $record, $name,
            <$type as $crate::KeyFieldType>::Native, key, (key), $field: $type);
    };
    ($record:ty: $name:literal, key = { $a:ident: $ta:ty, $b:ident: $tb:ty $(,)? }) => {
        $crate::record!(@implement $record, $name,
            (<$ta as $crate::KeyFieldType>::Native, <$tb as $crate::KeyFieldType>::Native),
            key, (key.0, key.1), $a: $ta, $b: $tb);
    };
    ($record:ty: $name:literal, key = { $a:ident: $ta:ty, $b:ident: $tb:ty, $c:ident: $tc:ty $(,)? }) => {
        $crate::record!(@implement $record, $name,
            (<$ta as $crate::KeyFieldType>::Native, <$tb as $crate::KeyFieldType>::Native,
             <$tc as $crate::KeyFieldType>::Native),
            key, (key.0, key.1, key.2), $a: $ta, $b: $tb, $c: $tc);
    };
    ($record:ty: $name:literal,
     key = { $a:ident: $ta:ty, $b:ident: $tb:ty, $c:ident: $tc:ty, $d:ident: $td:ty $(,)? }) => {
        $crate::record!(@implement $record, $name,
            (<$ta as $crate::KeyFieldType>::Native, <$tb as $crate::KeyFieldType>::Native,
             <$tc as $crate::KeyFieldType>::Native, <$td as $crate::KeyFieldType>::Native),
            key, (key.0, key.1, key.2, key.3), $a: $ta, $b: $tb, $c: $tc, $d: $td);
    };
    ($record:ty: $name:literal, key = { $($rest:tt)* }) => {
        compile_error!("a key is one to four fields, each `name: Type`");
    };
    (@implement $record:ty, $name:literal, $key_type:ty, $key:ident, ($($part:expr),+),
     $($field:ident: $type:ty),+) => {
        impl $crate::Record for $record {
            type Key = $key_type;
            const NAME: &'static str = $name;
            const KEY: $crate::KeyDescriptor = $crate::record::key_descriptor::<$record>(
                $name,
                &[$($crate::record::key_field::<$type>(::core::mem::offset_of!($record, $field))),+],
            );

            #[inline]
            fn key(&self) -> Self::Key {
                ($(<$type as $crate::KeyFieldType>::native(self.$field)),+)
            }

            #[inline]
            fn tombstone($key: Self::Key) -> Self {
                let mut record = <Self as $crate::zerocopy::FromZeros>::new_zeroed();
                $( record.$field = <$type as $crate::KeyFieldType>::from_native($part); )+
                record
            }
        }
        const _: $crate::KeyDescriptor = <$record as $crate::Record>::KEY;
    };
}

#[cfg(test)]
mod tests;
