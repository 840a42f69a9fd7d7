//! What a benchmark asks of an engine, and the engines there are.

use crate::Failure;
use crate::records::Sample;
use std::path::Path;

/// Bytes of memory that each engine gets, if nothing else is said.
pub(crate) const MEMORY: u64 = 1 << 30;

/// A store of records in one tree, used by any number of threads. What was put is on stable storage.
pub(crate) trait Engine: Sync {
    /// What one thread puts records with.
    fn session(&self) -> Box<dyn Session + '_>;

    /// Returns when the engine has done what it would do in the background by itself.
    fn rest(&self) -> Result<(), Failure>;

    /// Compacts everything, where there is a call for it.
    fn settle(&self) -> Result<(), Failure>;

    /// The first eight bytes of a key's value.
    fn get(&self, key: u128) -> Result<Option<[u8; 8]>, Failure>;

    /// Reads up to `count` records from `key` on, it included.
    fn scan(&self, key: u128, count: u64, direction: Direction) -> Result<Scanned, Failure>;

    /// Bytes of a journal of fixed size, which are written once when the store is made.
    fn journal_size(&self) -> u64 {
        0
    }

    /// Checkpoints that are durable, where an engine takes such.
    fn checkpoints(&self) -> Option<u64> {
        None
    }
}

/// One thread's way to put records.
pub(crate) trait Session {
    /// Puts a batch, all or nothing.
    fn put(&mut self, batch: &[Sample]) -> Result<(), Failure>;
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
    #[cfg(feature = "peers")]
    Redb,
    #[cfg(feature = "peers")]
    Lmdb,
}

impl Kind {
    /// All that this program was built with, Understory first.
    pub(crate) const ALL: &[Kind] = &[
        Kind::Understory,
        #[cfg(feature = "peers")]
        Kind::Rocksdb,
        #[cfg(feature = "peers")]
        Kind::Fjall,
        #[cfg(feature = "peers")]
        Kind::Redb,
        #[cfg(feature = "peers")]
        Kind::Lmdb,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Understory => "understory",
            #[cfg(feature = "peers")]
            Kind::Rocksdb => "rocksdb",
            #[cfg(feature = "peers")]
            Kind::Fjall => "fjall",
            #[cfg(feature = "peers")]
            Kind::Redb => "redb",
            #[cfg(feature = "peers")]
            Kind::Lmdb => "lmdb",
        }
    }

    /// An empty store in an empty folder, with so many bytes of memory.
    pub(crate) fn create(self, folder: &Path, memory: u64) -> Result<Box<dyn Engine>, Failure> {
        Ok(match self {
            Kind::Understory => Box::new(crate::ours::Ours::create(folder, memory)?),
            #[cfg(feature = "peers")]
            Kind::Rocksdb => Box::new(crate::peers::rocks::Rocks::create(folder, memory)?),
            #[cfg(feature = "peers")]
            Kind::Fjall => Box::new(crate::peers::fjalls::Fjalls::create(folder, memory)?),
            #[cfg(feature = "peers")]
            Kind::Redb => Box::new(crate::peers::redbs::Redbs::create(folder, memory)?),
            #[cfg(feature = "peers")]
            Kind::Lmdb => Box::new(crate::peers::lmdbs::Lmdbs::create(folder)?),
        })
    }

    /// Whether the engine keeps to its memory, so that reads beyond it reach the disk: the others read through the page
    /// cache.
    pub(crate) fn reads_directly(self) -> bool {
        match self {
            Kind::Understory => true,
            #[cfg(feature = "peers")]
            Kind::Rocksdb => true,
            #[cfg(feature = "peers")]
            Kind::Fjall | Kind::Redb | Kind::Lmdb => false,
        }
    }
}
