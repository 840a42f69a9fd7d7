//! What a benchmark asks of an engine, and the engines there are.

use crate::Failure;
use crate::records::Sample;
use std::path::Path;

/// Bytes of cache that each engine gets.
pub(crate) const CACHE_SIZE: u64 = 1 << 30;

/// A store of records in one tree, without a journal or at least without syncing it.
pub(crate) trait Engine {
    /// Puts a batch, all or nothing.
    fn put(&mut self, batch: &[Sample]) -> Result<(), Failure>;

    /// Returns when everything put is on stable storage.
    fn sync(&mut self) -> Result<(), Failure>;

    /// Returns when nothing is left to compact.
    fn settle(&mut self) -> Result<(), Failure>;

    /// The first eight bytes of a key's value.
    fn get(&self, key: u128) -> Result<Option<[u8; 8]>, Failure>;

    /// Reads up to `count` records from `key` on, it included.
    fn scan(&self, key: u128, count: u64, direction: Direction) -> Result<Scanned, Failure>;
}

/// Which way a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Forwards,
    Backwards,
}

/// What a scan read: a fold over all values, so that none of the reading can be left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scanned {
    pub(crate) count: u64,
    pub(crate) fold: u64,
}

impl Scanned {
    pub(crate) fn take(&mut self, value: &[u8]) {
        self.count += 1;
        let last: u8 = value.last().copied().unwrap_or_default();
        self.fold = self
            .fold
            .wrapping_mul(31)
            .wrapping_add(mark(value).map_or(0, u64::from_le_bytes) ^ u64::from(last));
    }
}

/// The first eight bytes of a value.
pub(crate) fn mark(value: &[u8]) -> Option<[u8; 8]> {
    value.first_chunk().copied()
}

/// An engine by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Understory,
    #[cfg(feature = "peers")]
    Rocksdb,
    #[cfg(feature = "peers")]
    Fjall,
}

impl Kind {
    /// All that this program was built with, Understory first.
    pub(crate) const ALL: &[Kind] = &[
        Kind::Understory,
        #[cfg(feature = "peers")]
        Kind::Rocksdb,
        #[cfg(feature = "peers")]
        Kind::Fjall,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Understory => "understory",
            #[cfg(feature = "peers")]
            Kind::Rocksdb => "rocksdb",
            #[cfg(feature = "peers")]
            Kind::Fjall => "fjall",
        }
    }

    /// An empty store in an empty folder.
    pub(crate) fn create(self, folder: &Path) -> Result<Box<dyn Engine>, Failure> {
        Ok(match self {
            Kind::Understory => Box::new(crate::ours::Ours::create(folder)?),
            #[cfg(feature = "peers")]
            Kind::Rocksdb => Box::new(crate::peers::rocks::Rocks::create(folder)?),
            #[cfg(feature = "peers")]
            Kind::Fjall => Box::new(crate::peers::fjalls::Fjalls::create(folder)?),
        })
    }
}
