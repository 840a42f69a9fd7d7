//! Where the newest record of each live table stands.
//!
//! # Not here
//! How many extents point into a block: the log counts them beside its blocks.

use core::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashMap;
use understory_format::BlockAddress;

/// Position of a record in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Sequence number of the block.
    pub(crate) sequence: u64,
    /// Place in the block, from 0.
    pub(crate) entry: u32,
}

/// Positions by the address of a table's index block. Nothing is ever done in the order of this map.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extents {
    map: AddressMap<Extent>,
}

/// A map from addresses with a hasher that is the same in every run.
pub(crate) type AddressMap<V> = HashMap<BlockAddress, V, BuildHasherDefault<AddressHasher>>;

impl Extents {
    pub(crate) fn get(&self, address: BlockAddress) -> Option<Extent> {
        self.map.get(&address).copied()
    }

    /// The position that the new one replaces.
    pub(crate) fn insert(&mut self, address: BlockAddress, extent: Extent) -> Option<Extent> {
        self.map.insert(address, extent)
    }

    pub(crate) fn remove(&mut self, address: BlockAddress) -> Option<Extent> {
        self.map.remove(&address)
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// All extents, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (BlockAddress, Extent)> {
        self.map.iter().map(|(address, extent)| (*address, *extent))
    }
}

/// Multiplies and folds; addresses are small numbers close to each other.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
