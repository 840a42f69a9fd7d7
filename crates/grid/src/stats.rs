//! What the grid counted.
//!
//! # Not here
//! What the storage counted: its own `counters`.

use std::sync::atomic::{AtomicU64, Ordering};

use understory_format::BlockKind;

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Counts since the grid was opened, and two gauges at the end.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct GridStats {
            $($(#[doc = $doc])+ pub $name: u64,)+
            /// Lookups that found a block in the cache.
            pub block_hits: u64,
            /// Lookups that found a page in the cache.
            pub page_hits: u64,
            /// Blocks in the cache now.
            pub blocks_cached: u64,
            /// Pages in the cache now.
            pub pages_cached: u64,
        }

        /// The counts, to be added to from several threads.
        #[derive(Debug, Default)]
        pub(crate) struct Counts {
            $(pub(crate) $name: Count,)+
        }

        impl Counts {
            /// What counts the bytes of this kind of block. A catalogue is written with the file's first free set.
            pub(crate) fn bytes_of(&self, kind: BlockKind) -> &Count {
                match kind {
                    BlockKind::Value => &self.value_bytes,
                    BlockKind::Index | BlockKind::Filter => &self.index_bytes,
                    BlockKind::Manifest => &self.manifest_bytes,
                    BlockKind::FreeSet | BlockKind::Catalogue => &self.trailer_bytes,
                }
            }

            pub(crate) fn get(&self) -> GridStats {
                GridStats { $($name: self.$name.0.load(Ordering::Relaxed),)+ ..GridStats::default() }
            }
        }
    };
}

counters! {
    /// Block reads that found nothing in memory.
    block_misses,
    /// Page reads that found nothing in memory.
    page_misses,
    /// Reads that joined an equal read in flight instead of going to the storage.
    reads_joined,
    /// Blocks handed to the storage to be read ahead.
    prefetches,
    /// Requests to read ahead that were passed over, as too much was in flight or no buffer was free.
    prefetches_skipped,
    /// Blocks written, twins counted twice.
    blocks_written,
    /// Bytes of value blocks handed over to be written.
    value_bytes,
    /// Bytes of the index and filter blocks of tables handed over to be written, twins counted twice.
    index_bytes,
    /// Bytes of blocks of the manifest log handed over to be written, twins counted twice.
    manifest_bytes,
    /// Bytes of encoded free sets handed over to be written, twins counted twice.
    trailer_bytes,
    /// Bytes of superblock copies written.
    superblock_bytes,
    /// Requests that blocks were written in.
    write_requests,
    /// Times that a writer waited, as enough was in flight.
    write_waits,
    /// Times that a request for a buffer had to wait for I/O.
    buffer_waits,
    /// Blocks or pages that failed verification.
    reads_corrupt,
    /// Reads of metadata whose first copy was bad and that were answered from the second.
    twin_fallbacks,
    /// Times that the file was extended.
    growths,
    /// Superblocks written.
    superblocks_written,
}

/// One counter.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn one(&self) {
        self.more(1);
    }

    pub(crate) fn more(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }
}
