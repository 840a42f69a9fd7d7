//! The grid: what its parts share. The operations stand in `read`, `write`, `space`, `checkpoint`, `open`.
//!
//! # Invariants
//! - Once poisoned, a grid stays so (`OnceLock`), and `check_writable` is the first line of all that writes.
//! - A newest root is in memory only after it is durable (`Grid::install`). How far checkpoints were begun stands apart
//!   from it (`Staging`).
//!
//! # Not here
//! Anything that does I/O.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use understory_format::{
    BlockAddress, CheckpointState, Checksum, Corruption, Expected, Geometry, LocalState, Place, Superblock,
    TreeDescription, u64_of,
};
use understory_io::{Arena, IoError, Machine, Pool, Turn, trace_event};

use crate::block::{Block, Page};
use crate::cache::Cache;
use crate::error::GridError;
use crate::free_set::FreeSet;
use crate::reads::Reads;
use crate::stats::{Counts, GridStats};
use crate::superblock::SECTOR_BUFFERS;
use crate::writes::Writes;

/// The fewest block buffers a grid works with.
const BLOCK_COUNT_MIN: u32 = 16;
/// Buffers for the blocks of the encoded free set: while one is on its way, the next is filled.
pub(crate) const TRAILER_BUFFERS: u32 = 2;
/// Damaged copies remembered at most.
const DAMAGED_MAX: usize = 64;

/// What a grid is opened with. Nothing of it shapes the bytes on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GridOptions {
    /// Block buffers: the cache, and what is in use.
    pub block_count: u32,
    /// Cached pages; 0 reads whole blocks instead.
    pub page_count: u32,
    /// Writes nothing, and works beside a writer.
    pub read_only: bool,
}

impl GridOptions {
    /// The fewest block buffers that a grid can be opened with.
    #[must_use]
    pub const fn block_count_min() -> u32 {
        BLOCK_COUNT_MIN
    }

    pub(crate) fn trailer_buffers(&self) -> u32 {
        if self.read_only { 0 } else { TRAILER_BUFFERS }
    }

    /// Bytes that a grid takes from its arena, or `None` if there are not so many.
    #[must_use]
    pub fn arena_size(&self, geometry: &Geometry) -> Option<usize> {
        let size =
            |size: u32, count: u32| Arena::needed(usize::try_from(size).ok()?, usize::try_from(count).ok()?);
        let (sector_size, sector_count) = SECTOR_BUFFERS;
        size(geometry.block_size, self.block_count)?
            .checked_add(size(geometry.block_size, self.trailer_buffers())?)?
            .checked_add(size(geometry.page_size, self.page_count)?)?
            .checked_add(Arena::needed(sector_size, sector_count)?)
    }
}

/// The durable root as it is in memory.
#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) superblock: Superblock,
    /// The superblock's checksum: the parent of the next one.
    pub(crate) checksum: Checksum,
    /// The highest sequence that any copy had: none up to it is used again.
    pub(crate) sequence_seen: u64,
    /// The order in which the next update writes the copies.
    pub(crate) write_order: [usize; 4],
}

/// How far checkpoints have come in memory: the durable root may be one behind.
#[derive(Debug, Default)]
pub(crate) struct Staging {
    /// The newest checkpoint that was begun.
    pub(crate) number: u64,
    /// Whether it is not durable yet.
    pub(crate) pending: bool,
    /// The newest checkpoint after which blocks became free.
    pub(crate) freed: u64,
    /// The blocks that hold the encoded free set of the newest checkpoint that was begun, twins included.
    pub(crate) trailers: Vec<BlockAddress>,
}

/// Blocks by address, with a durable root. Readers from many threads, one mutator.
///
/// The mutator is who reserves, releases and takes checkpoints; `acquire` and `write` may be called from several
/// threads, each with a reservation of its own.
pub struct Grid {
    pub(crate) machine: Machine,
    pub(crate) geometry: Geometry,
    pub(crate) trees: Vec<TreeDescription>,
    pub(crate) read_only: bool,
    pub(crate) blocks: Pool,
    pub(crate) trailers: Pool,
    pub(crate) pages: Pool,
    pub(crate) sectors: Pool,
    pub(crate) block_cache: Cache<Block>,
    pub(crate) page_cache: Cache<Page>,
    pub(crate) block_reads: Reads<Block>,
    pub(crate) page_reads: Reads<Page>,
    pub(crate) writes: Writes,
    pub(crate) free_set: Mutex<FreeSet>,
    /// Who extends or cuts the file.
    pub(crate) growth: Turn,
    /// Where the file is about to be cut; `u64::MAX` while it is not. Changed by who has the turn.
    pub(crate) cut: AtomicU64,
    /// Who writes a superblock.
    pub(crate) superblock_turn: Turn,
    pub(crate) root: Mutex<Root>,
    pub(crate) staging: Mutex<Staging>,
    pub(crate) counts: Counts,
    damaged: Mutex<Vec<BlockAddress>>,
    poison: OnceLock<IoError>,
}

/// What `open` hands over.
pub(crate) struct Parts {
    pub(crate) machine: Machine,
    pub(crate) geometry: Geometry,
    pub(crate) trees: Vec<TreeDescription>,
    pub(crate) options: GridOptions,
    pub(crate) blocks: Pool,
    pub(crate) trailers: Pool,
    pub(crate) pages: Pool,
    pub(crate) sectors: Pool,
    pub(crate) root: Root,
}

impl Grid {
    /// A grid whose free set is not known yet.
    pub(crate) fn assemble(parts: Parts) -> Self {
        let park = || std::sync::Arc::clone(&parts.machine.park);
        let block_count = parts.blocks.count();
        Self {
            read_only: parts.options.read_only,
            block_cache: Cache::new(block_count),
            page_cache: Cache::new(parts.pages.count()),
            block_reads: Reads::new(park()),
            page_reads: Reads::new(park()),
            writes: Writes::new(block_count / 4),
            free_set: Mutex::new(FreeSet::new(0)),
            growth: Turn::new(park()),
            cut: AtomicU64::new(u64::MAX),
            superblock_turn: Turn::new(park()),
            counts: Counts::default(),
            damaged: Mutex::new(Vec::with_capacity(DAMAGED_MAX)),
            poison: OnceLock::new(),
            machine: parts.machine,
            geometry: parts.geometry,
            trees: parts.trees,
            blocks: parts.blocks,
            trailers: parts.trailers,
            pages: parts.pages,
            sectors: parts.sectors,
            root: Mutex::new(parts.root),
            staging: Mutex::new(Staging::default()),
        }
    }

    /// What was fixed at format.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The newest durable checkpoint.
    #[must_use]
    pub fn checkpoint_state(&self) -> CheckpointState {
        self.root.lock().superblock.checkpoint
    }

    /// The local part of the newest superblock.
    #[must_use]
    pub fn local_state(&self) -> LocalState {
        self.root.lock().superblock.local
    }

    /// The trees of the catalogue, in its order.
    #[must_use]
    pub fn trees(&self) -> &[TreeDescription] {
        &self.trees
    }

    /// The machine that the grid runs on.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Whether the grid was opened read-only.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Blocks of the grid's own: catalogue and trailers, twins included.
    #[must_use]
    pub fn own_block_count(&self) -> u64 {
        2 + u64_of(self.staging.lock().trailers.len())
    }

    /// What was counted since the grid was opened.
    #[must_use]
    pub fn stats(&self) -> GridStats {
        GridStats {
            block_hits: self.block_cache.hits(),
            page_hits: self.page_cache.hits(),
            blocks_cached: u64_of(self.block_cache.len()),
            pages_cached: u64_of(self.page_cache.len()),
            ..self.counts.get()
        }
    }

    /// Copies of metadata blocks that were found damaged while the other copy was good; at most 64.
    #[must_use]
    pub fn damaged(&self) -> Vec<BlockAddress> {
        self.damaged.lock().clone()
    }

    /// The first failure of a write or sync, if there was one: nothing is written any more.
    #[must_use]
    pub fn poison(&self) -> Option<IoError> {
        self.poison.get().copied()
    }

    /// Nothing is written from now on, because of a failure elsewhere on the same file. The first failure counts.
    pub fn poison_by(&self, cause: IoError) {
        if self.poison.set(cause).is_ok() {
            log::error!("nothing is written to the data file any more: {cause}");
            trace_event!(ERROR, %cause, "poisoned");
        }
    }

    /// Remembers a damaged copy; false if it was known.
    pub(crate) fn note_damaged(&self, address: BlockAddress) -> bool {
        let mut damaged = self.damaged.lock();
        let new = !damaged.contains(&address);
        if new && damaged.len() < DAMAGED_MAX {
            damaged.push(address);
        }
        new
    }

    /// Nothing is written from now on. Gives the error back.
    pub(crate) fn poisoned_by(&self, error: IoError) -> GridError {
        self.poison_by(error);
        error.into()
    }

    /// Whether nothing has failed.
    pub(crate) fn check_poison(&self) -> Result<(), GridError> {
        self.poison.get().map_or(Ok(()), |&cause| Err(GridError::Poisoned { cause }))
    }

    /// Whether anything may be written.
    pub(crate) fn check_writable(&self) -> Result<(), GridError> {
        if self.read_only { Err(GridError::ReadOnly) } else { self.check_poison() }
    }

    pub(crate) fn block_size(&self) -> u64 {
        u64::from(self.geometry.block_size)
    }

    /// Bytes of the file, without those that are about to be cut off.
    pub(crate) fn file_end(&self) -> u64 {
        self.machine.storage.size().min(self.cut.load(Ordering::Acquire))
    }

    /// Offset of a block that lies within the file. Asked by who leads the read of it: then the file is not cut before
    /// that has ended.
    pub(crate) fn offset_in_file(&self, address: BlockAddress) -> Result<u64, Corruption> {
        let size = self.file_end();
        let offset = self.geometry.block_offset_checked(address);
        offset.filter(|offset| offset.saturating_add(self.block_size()) <= size).ok_or_else(|| {
            let last = size.saturating_sub(self.geometry.grid_offset()) / self.block_size();
            let expected = Expected::AtMost(u128::from(last));
            Corruption::new("address", expected, u128::from(address.get())).at(Place::Block(address))
        })
    }
}

impl std::fmt::Debug for Grid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grid")
            .field("root", &*self.root.lock())
            .field("read_only", &self.read_only)
            .field("poison", &self.poison.get())
            .finish_non_exhaustive()
    }
}
