//! The record types of the simulator: key shapes and sizes that differ, and contents that say which batch wrote them.
//!
//! The contents of a record follow from its key and the number of the batch that put it: the number stands in it beside
//! a check of key and number, and fills the rest. So a record that is found can be asked who wrote it, and one that
//! nobody wrote is known as such.
//!
//! # Invariants
//! - `R::make(key, number)` has that key, and gives the number back (test).
//!
//! # Not here
//! Which keys are used, and by whom: `tree`.

use understory_format::{Key, Record, record};
use understory_testkit::Ordinal;
use understory_testkit::records::mix;
use zerocopy::little_endian::{U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A record that can be made from its key and the number of a batch.
pub(crate) trait SimRecord: Record<Key: Ordinal> {
    /// The record of `key` that the batch of this number puts.
    fn make(key: Self::Key, number: u32) -> Self;

    /// The number of the batch that put it, unchecked; `None` for records that are all key.
    fn number(&self) -> Option<u32>;

    /// Whether this is what [`make`](Self::make) gives, byte for byte.
    fn is_genuine(&self) -> bool {
        let made = Self::make(self.key(), self.number().unwrap_or_default());
        made.as_bytes() == self.as_bytes()
    }
}

/// Number and check.
fn stamp(key: impl Key, number: u32) -> u64 {
    let check = mix(key.hash() ^ mix(number.into()));
    u64::from(number) << 32 | check >> 32
}

fn number_of(stamp: u64) -> u32 {
    u32::try_from(stamp >> 32).expect("32 bits are left")
}

/// A body without a pattern, which follows from the stamp.
fn body<const N: usize>(stamp: u64) -> [u8; N] {
    let mut body = [0; N];
    let mut word = stamp;
    for chunk in body.chunks_mut(8) {
        word = mix(word);
        let bytes = word.to_le_bytes();
        chunk.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    }
    body
}

/// The smallest: 8 bytes, half of them key. Its number has 16 bits, and so has its check.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Tiny {
    id: U32,
    stamp: U32,
}
record! { Tiny: "tiny", key = { id: U32 } }

impl SimRecord for Tiny {
    fn make(id: u32, number: u32) -> Self {
        let check = stamp(id, number) & 0xffff;
        let check = u32::try_from(check).expect("16 bits");
        Self { id: id.into(), stamp: (number << 16 | check).into() }
    }

    fn number(&self) -> Option<u32> {
        Some(self.stamp.get() >> 16)
    }
}

/// All key, as the entry of an index: 10 bytes in two fields.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Mark {
    group: [u8; 2],
    id: U64,
}
record! { Mark: "marks", key = { group: [u8; 2], id: U64 } }

impl SimRecord for Mark {
    fn make((group, id): ([u8; 2], u64), _number: u32) -> Self {
        Self { group, id: id.into() }
    }

    fn number(&self) -> Option<u32> {
        None
    }
}

/// 33 bytes, the key in their midst.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Line {
    stamp: U64,
    time: U128,
    body: [u8; 9],
}
record! { Line: "lines", key = { time: U128 } }

impl SimRecord for Line {
    fn make(time: u128, number: u32) -> Self {
        let stamp = stamp(time, number);
        Self { stamp: stamp.into(), time: time.into(), body: body(stamp) }
    }

    fn number(&self) -> Option<u32> {
        Some(number_of(self.stamp.get()))
    }
}

/// 64 bytes with a key of four fields and 32 bytes, in another order than in the record.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Quad {
    stamp: U64,
    time: U64,
    code: [u8; 4],
    shard: U32,
    id: U128,
    body: [u8; 24],
}
record! { Quad: "quads", key = { code: [u8; 4], shard: U32, time: U64, id: U128 } }

impl SimRecord for Quad {
    fn make(key: ([u8; 4], u32, u64, u128), number: u32) -> Self {
        let stamp = stamp(key, number);
        let (code, shard, time, id) = key;
        Self {
            stamp: stamp.into(),
            time: time.into(),
            code,
            shard: shard.into(),
            id: id.into(),
            body: body(stamp),
        }
    }

    fn number(&self) -> Option<u32> {
        Some(number_of(self.stamp.get()))
    }
}

/// 128 bytes under a key that is bytes only.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Name {
    surname: [u8; 12],
    given: [u8; 8],
    stamp: U64,
    body: [u8; 100],
}
record! { Name: "names", key = { surname: [u8; 12], given: [u8; 8] } }

impl SimRecord for Name {
    fn make((surname, given): ([u8; 12], [u8; 8]), number: u32) -> Self {
        let stamp = stamp((surname, given), number);
        Self { surname, given, stamp: stamp.into(), body: body(stamp) }
    }

    fn number(&self) -> Option<u32> {
        Some(number_of(self.stamp.get()))
    }
}

/// 1,016 bytes: three to a page.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Sheet {
    id: U64,
    stamp: U64,
    body: [u8; 1_000],
}
record! { Sheet: "sheets", key = { id: U64 } }

impl SimRecord for Sheet {
    fn make(id: u64, number: u32) -> Self {
        let stamp = stamp(id, number);
        Self { id: id.into(), stamp: stamp.into(), body: body(stamp) }
    }

    fn number(&self) -> Option<u32> {
        Some(number_of(self.stamp.get()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use understory_testkit::{KeyPool, KeyShape};

    #[test]
    fn records_say_who_wrote_them() {
        fn check<R: SimRecord>(size: usize) {
            assert_eq!(size_of::<R>(), size);
            let mut rng = fastrand::Rng::with_seed(1);
            let pool = KeyPool::<R::Key>::new(&mut rng, KeyShape::Mixed, 100);
            for &key in pool.keys() {
                for number in [0, 1, 65_535] {
                    let record = R::make(key, number);
                    assert_eq!(record.key(), key);
                    assert!(record.is_genuine());
                    assert!(record.number().is_none_or(|found| found == number));
                }
                let (one, other) = (R::make(key, 1), R::make(key, 2));
                assert_eq!(one.number().is_some(), one.as_bytes() != other.as_bytes());
                assert_eq!(R::tombstone(key).is_genuine(), one.number().is_none());
            }
        }
        check::<Tiny>(8);
        check::<Mark>(10);
        check::<Line>(33);
        check::<Quad>(64);
        check::<Name>(128);
        check::<Sheet>(1_016);
    }
}
