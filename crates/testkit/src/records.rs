//! Record types of the sizes that matter, with contents that follow from key and version.
//!
//! # Invariants
//! - `R::make(key, version)` has that key, and differs from every other version of it (test), so that a model needs
//!   to remember the version only.
//! - [`TestRecord::expect`] finds contents that belong to another key or version.

use understory_format::{Key, Record, record};
use zerocopy::little_endian::{U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::keys::Ordinal;

/// A record that tests can make from a key.
pub trait TestRecord: Record<Key: Ordinal> {
    /// The record of `key` in this version; the contents follow from both. Records that are all key have one version.
    fn make(key: Self::Key, version: u64) -> Self;

    /// Asserts that this is what [`make`](Self::make) gives.
    ///
    /// # Panics
    /// If it is not.
    fn expect(&self, key: Self::Key, version: u64) {
        let made = Self::make(key, version);
        assert!(self.as_bytes() == made.as_bytes(), "found {self:?}, expected {made:?}");
    }
}

/// 144 bytes with a 16-byte key: the size that benchmarks use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Item {
    /// The key.
    pub id: U128,
    /// Follows from key and version.
    pub body: [U64; 16],
}
record! { Item: "items", key = { id: U128 } }

impl TestRecord for Item {
    fn make(key: u128, version: u64) -> Self {
        let seed = mix(key.hash() ^ mix(version));
        let mut word = seed;
        let body = std::array::from_fn(|_| {
            word = mix(word);
            U64::new(word)
        });
        Self { id: key.into(), body }
    }
}

/// 16 bytes with an 8-byte key: many values in a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Pair {
    /// The key.
    pub id: U64,
    /// Follows from key and version.
    pub body: U64,
}
record! { Pair: "pairs", key = { id: U64 } }

impl TestRecord for Pair {
    fn make(key: u64, version: u64) -> Self {
        Self { id: key.into(), body: mix(key ^ mix(version)).into() }
    }
}

/// 18 bytes that are all key, as in an index: a short group and the id of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Posting {
    /// The group, compared first.
    pub group: [u8; 2],
    /// The record in it.
    pub id: U128,
}
record! { Posting: "postings", key = { group: [u8; 2], id: U128 } }

impl TestRecord for Posting {
    fn make((group, id): ([u8; 2], u128), _version: u64) -> Self {
        Self { group, id: id.into() }
    }
}

/// 40 bytes with a key of four fields and 32 bytes, in another order than in the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Quad {
    /// Follows from key and version.
    pub body: U64,
    /// The key's third field.
    pub time: U64,
    /// The key's first field.
    pub code: [u8; 4],
    /// The key's second field.
    pub shard: U32,
    /// The key's fourth field.
    pub id: U128,
}
record! { Quad: "quads", key = { code: [u8; 4], shard: U32, time: U64, id: U128 } }

impl TestRecord for Quad {
    fn make(key: ([u8; 4], u32, u64, u128), version: u64) -> Self {
        let (code, shard, time, id) = key;
        let body = mix(key.hash() ^ mix(version)).into();
        Self { body, time: time.into(), code, shard: shard.into(), id: id.into() }
    }
}

/// A bijection of 64 bits without a pattern (splitmix64).
#[must_use]
pub const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{KeyPool, KeyShape};

    #[test]
    fn records_have_their_key_and_differ_by_version() {
        fn check<R: TestRecord>(has_versions: bool) {
            let mut rng = fastrand::Rng::with_seed(1);
            let pool = KeyPool::<R::Key>::new(&mut rng, KeyShape::Mixed, 200);
            for &key in pool.keys() {
                let record = R::make(key, 1);
                assert_eq!(record.key(), key);
                record.expect(key, 1);
                assert_eq!(record.as_bytes() == R::make(key, 2).as_bytes(), !has_versions);
                assert_eq!(R::tombstone(key).key(), key);
            }
        }
        check::<Item>(true);
        check::<Pair>(true);
        check::<Posting>(false);
        check::<Quad>(true);
    }

    #[test]
    fn sizes() {
        let sizes = [size_of::<Item>(), size_of::<Pair>(), size_of::<Posting>(), size_of::<Quad>()];
        assert_eq!(sizes, [144, 16, 18, 40]);
        assert_eq!(<Quad as Record>::Key::SIZE, 32);
    }
}
