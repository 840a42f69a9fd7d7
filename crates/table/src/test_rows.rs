//! Records for the tests of merge and memtable: keys with whole prefixes, with tied ones, and of bytes.

use understory_format::{Record, record};
use zerocopy::little_endian::{U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A record that tests can make from a small number and a tag, and whose keys are in the order of the numbers.
pub(crate) trait Row: Record {
    fn row(number: u64, tag: u32) -> Self;
    fn number(key: Self::Key) -> u64;
    fn tag(&self) -> u32;
    fn key_of(number: u64) -> Self::Key {
        Self::row(number, 0).key()
    }
}

/// 8-byte keys: equal prefixes are equal keys.
#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Short {
    pub(crate) id: U64,
    pub(crate) tag: U32,
}
record! { Short: "short", key = { id: U64 } }

/// 16-byte keys of which eight neighbours share a prefix.
#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Tied {
    pub(crate) tag: U32,
    pub(crate) id: U128,
}
record! { Tied: "tied", key = { id: U128 } }

/// A byte string before an integer, all of one prefix; for numbers below 2^20.
#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Named {
    pub(crate) name: [u8; 10],
    pub(crate) number: U64,
    pub(crate) tag: U32,
}
record! { Named: "named", key = { name: [u8; 10], number: U64 } }

impl Row for Short {
    fn row(number: u64, tag: u32) -> Self {
        Self { id: number.into(), tag: tag.into() }
    }
    fn number(key: u64) -> u64 {
        key
    }
    fn tag(&self) -> u32 {
        self.tag.get()
    }
}

impl Row for Tied {
    fn row(number: u64, tag: u32) -> Self {
        let id = (u128::from(number / 8) << 64) | u128::from(number % 8);
        Self { id: id.into(), tag: tag.into() }
    }
    fn number(key: u128) -> u64 {
        u64::try_from((key >> 64) * 8 + (key & 7)).unwrap()
    }
    fn tag(&self) -> u32 {
        self.tag.get()
    }
}

impl Row for Named {
    fn row(number: u64, tag: u32) -> Self {
        let mut name = *b"carrier   ";
        name[8] = u8::try_from(number >> 12).unwrap();
        name[9] = u8::try_from(number >> 4 & 0xff).unwrap();
        Self { name, number: number.into(), tag: tag.into() }
    }
    fn number(key: ([u8; 10], u64)) -> u64 {
        key.1
    }
    fn tag(&self) -> u32 {
        self.tag.get()
    }
}
