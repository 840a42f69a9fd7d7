//! Verified reads of blocks and pages.
//!
//! A read looks into the cache, then joins an equal read in flight, then looks among the writes on their way, and
//! only then goes to the storage: in the calling thread, since a hop to another costs more than it saves.
//!
//! # Invariants
//! - Whatever is handed out was verified against the reference: checksum, address, kind
//!   (`every_flip_of_a_byte_is_found`).
//! - A bad copy of a metadata block is told from a bad block: the other copy is tried, and what was found is
//!   counted, remembered and logged.
//!
//! # Not here
//! Repairing a bad copy.

use std::ops::Range;
use std::sync::Arc;

use understory_format::{
    BlockKind, BlockRef, Checksum, Corruption, Expect, Expected, Place, TwinRef, block, u64_of, usize_of,
};
use understory_io::{Buffer, Completion, IoError, trace_event};

use crate::block::{Block, Identity, Page};
use crate::cache::{Cache, Key, Shared};
use crate::error::GridError;
use crate::grid::Grid;
use crate::reads::{Claimed, Role};

/// Bytes read ahead at most before somebody wants them.
const AHEAD_SIZE_MAX: usize = 1 << 20;
/// Blocks read ahead that are allowed whatever their size.
const AHEAD_COUNT_MIN: usize = 2;

fn whole(reference: BlockRef) -> Key {
    Key { address: reference.address, page: Key::WHOLE, checksum: reference.checksum }
}

impl Grid {
    /// The block, if it is in memory. Never goes to the storage.
    #[must_use]
    pub fn cached(&self, reference: BlockRef) -> Option<Block> {
        self.block_cache.get(&whole(reference))
    }

    /// Reads a block.
    ///
    /// # Errors
    /// [`GridError::Corrupt`] if what is there is not what the reference says, or is of another kind: both name the
    /// block. [`GridError::Unreadable`] if the storage failed; [`GridError::NoBuffers`] if there is no room for it.
    pub fn read(&self, reference: BlockRef, kind: BlockKind) -> Result<Block, GridError> {
        Ok(self.read_any(reference)?.expect_kind(kind)?)
    }

    /// Reads a metadata block: the second copy if the first is damaged.
    ///
    /// # Errors
    /// As [`Grid::read`], for the first copy, if both are bad.
    pub fn read_twin(&self, reference: TwinRef, kind: BlockKind) -> Result<Block, GridError> {
        let in_memory = self.cached(reference.first()).or_else(|| self.cached(reference.second()));
        let block = match in_memory {
            Some(block) => block,
            None => self.read_any(reference.first()).or_else(|error| self.read_second(reference, error))?,
        };
        Ok(block.expect_twins(reference)?.expect_kind(kind)?)
    }

    fn read_second(&self, reference: TwinRef, error: GridError) -> Result<Block, GridError> {
        if !matches!(error, GridError::Corrupt(_) | GridError::Unreadable { .. }) {
            return Err(error);
        }
        let block = match self.read_any(reference.second()) {
            Ok(block) => block,
            // Nothing is known about the second copy.
            Err(GridError::NoBuffers) => return Err(GridError::NoBuffers),
            Err(_) => return Err(error),
        };
        self.counts.twin_fallbacks.one();
        if self.note_damaged(reference.address) {
            log::warn!("{} is damaged ({error}): using its twin {}", reference.address, reference.twin);
            trace_event!(WARN, address = %reference.address, twin = %reference.twin, %error, "damage: a twin is used");
        }
        Ok(block)
    }

    fn read_any(&self, reference: BlockRef) -> Result<Block, GridError> {
        if let Some(block) = self.cached(reference) {
            return Ok(block);
        }
        self.counts.block_misses.one();
        // Before the lead is taken: to get one may mean to wait for a write, and writes wait for reads.
        let buffer = self.buffer()?;
        match self.block_reads.join(whole(reference)) {
            Role::Done(result) => {
                self.counts.reads_joined.one();
                result
            }
            Role::Claimed(claimed, ticket) => self.complete_block(&claimed, ticket.wait()),
            Role::Lead(lead) => {
                // Another may have read it between the look into the cache and this one.
                let result = match self.block_cache.get(&whole(reference)) {
                    Some(block) => Ok(block),
                    None => self.load_block(reference, buffer),
                };
                lead.finish(result.clone());
                result
            }
        }
    }

    fn load_block(&self, reference: BlockRef, buffer: Buffer) -> Result<Block, GridError> {
        if let Some(result) = self.being_written(reference) {
            return result;
        }
        let offset = self.offset_in_file(reference.address)?;
        let completion = self.machine.storage.read_now(offset, buffer);
        self.admit_block(reference, completion)
    }

    /// The block that is on its way to this address. Another one than was asked for means that the reference is
    /// stale: the storage is not asked, since what is there changes right now.
    fn being_written(&self, reference: BlockRef) -> Option<Result<Block, GridError>> {
        let found = self.writes.find(reference)?;
        Some(found.map_err(|found| {
            let expected = Expected::Exactly(reference.checksum.get());
            let error = Corruption::new("checksum", expected, found.get());
            error.at(Place::Block(reference.address)).into()
        }))
    }

    /// Verifies a block that was read ahead, and takes it into the cache.
    pub(crate) fn complete_block(
        &self,
        claimed: &Claimed<'_, Block>,
        completion: Completion,
    ) -> Result<Block, GridError> {
        let Key { address, checksum, .. } = claimed.key();
        self.admit_block(BlockRef { address, checksum }, completion)
    }

    fn admit_block(&self, reference: BlockRef, completion: Completion) -> Result<Block, GridError> {
        let buffer = completion.into_buffer().map_err(|error| unreadable(reference, error))?;
        // The kind is what the header says: who asked for another one is told later, others may want this block.
        let identity = Identity::of(&buffer);
        let kind = identity.as_ref().map_or(BlockKind::Value, |identity| identity.kind);
        block::verify(&buffer, &Expect { reference, kind }).inspect_err(|error| self.count_corrupt(error))?;
        let block = Block::new(Arc::new(buffer), reference, identity?);
        self.block_cache.insert(whole(reference), block.clone());
        Ok(block)
    }

    /// Starts to read a block that will be wanted soon, unless it is in memory or on its way, or enough is. What
    /// goes wrong shows when the block is read.
    pub fn prefetch(&self, reference: BlockRef) {
        let key = whole(reference);
        if self.block_cache.contains(&key) {
            return;
        }
        let Some(buffer) = self.room_ahead() else {
            self.counts.prefetches_skipped.one();
            return;
        };
        let Some(lead) = self.block_reads.try_lead(key) else { return };
        if let Some(block) = self.block_cache.get(&key) {
            return lead.finish(Ok(block));
        }
        if let Some(result) = self.being_written(reference) {
            return lead.finish(result);
        }
        let offset = match self.offset_in_file(reference.address) {
            Ok(offset) => offset,
            Err(error) => return lead.finish(Err(error.into())),
        };
        self.counts.prefetches.one();
        lead.submit(self.machine.storage.read(offset, buffer));
    }

    fn room_ahead(&self) -> Option<Buffer> {
        let count_max = (AHEAD_SIZE_MAX / self.blocks.buffer_size()).max(AHEAD_COUNT_MIN);
        let count_max = count_max.min(self.blocks.count() / 4);
        if self.block_reads.submitted() >= count_max {
            self.complete_ended();
        }
        if self.block_reads.submitted() >= count_max {
            return None;
        }
        take(&self.blocks, &self.block_cache)
    }

    /// Takes what was read ahead into the cache.
    pub(crate) fn complete_ended(&self) {
        while let Some((claimed, ticket)) = self.block_reads.claim_any(false) {
            drop(self.complete_block(&claimed, ticket.wait()));
        }
    }

    /// Takes one block that is being read ahead into the cache, and waits for it. False if there is none.
    pub(crate) fn complete_one(&self) -> bool {
        let Some((claimed, ticket)) = self.block_reads.claim_any(true) else { return false };
        drop(self.complete_block(&claimed, ticket.wait()));
        true
    }

    /// The page, if it or its whole block is in memory. Never goes to the storage.
    ///
    /// # Panics
    /// If the range is not within a block.
    #[must_use]
    pub fn cached_page(
        &self,
        reference: BlockRef,
        page: u32,
        checksum: Checksum,
        range: Range<usize>,
    ) -> Option<Page> {
        if let Some(page) = self.page_cache.get(&Key { address: reference.address, page, checksum }) {
            return Some(page);
        }
        Some(self.block_cache.get(&whole(reference))?.page(range))
    }

    /// Reads one page of a value block. `range` is where the page's bytes are in the block, `checksum` is theirs;
    /// both come from the table's index and layout.
    ///
    /// # Errors
    /// As [`Grid::read`].
    ///
    /// # Panics
    /// If the range is not within the page's part of a block.
    pub fn read_page(
        &self,
        reference: BlockRef,
        page: u32,
        checksum: Checksum,
        range: Range<usize>,
    ) -> Result<Page, GridError> {
        if let Some(found) = self.cached_page(reference, page, checksum, range.clone()) {
            return Ok(found);
        }
        self.counts.page_misses.one();
        if self.pages.count() == 0 {
            return Ok(self.read(reference, BlockKind::Value)?.page(range));
        }
        let key = Key { address: reference.address, page, checksum };
        match self.page_reads.join(key) {
            Role::Done(result) => {
                self.counts.reads_joined.one();
                result
            }
            Role::Claimed(..) => unreachable!("pages are not read ahead"),
            Role::Lead(lead) => {
                let result = match self.page_cache.get(&key) {
                    Some(page) => Ok(page),
                    None => self.load_page(reference, key, range),
                };
                lead.finish(result.clone());
                result
            }
        }
    }

    fn load_page(&self, reference: BlockRef, key: Key, range: Range<usize>) -> Result<Page, GridError> {
        if let Some(result) = self.being_written(reference) {
            return Ok(result?.page(range));
        }
        let page_size = self.pages.buffer_size();
        let start = page_size * usize_of(key.page);
        assert!(start <= range.start, "a page begins within its part of the block");
        assert!(range.end <= start + page_size, "a page ends within its part of the block");
        let start_in_block = u64_of(start);
        assert!(start_in_block < self.block_size(), "a page is within its block");
        let offset = self.offset_in_file(reference.address)? + start_in_block;
        let buffer = take(&self.pages, &self.page_cache).ok_or(GridError::NoBuffers)?;
        let completion = self.machine.storage.read_now(offset, buffer);
        let buffer = completion.into_buffer().map_err(|error| unreadable(reference, error))?;
        let page = Page::new(Arc::new(buffer), range.start - start..range.end - start);
        let verified = page.verify(key.checksum, Place::Page(reference.address, key.page));
        verified.inspect_err(|error| self.count_corrupt(error))?;
        self.page_cache.insert(key, page.clone());
        Ok(page)
    }

    /// Something failed verification. Whether that is damage, or a reference that is out of date, others know.
    #[cold]
    fn count_corrupt(&self, error: &Corruption) {
        self.counts.reads_corrupt.one();
        log::debug!("verification failed: {error}");
        trace_event!(DEBUG, %error, "verification failed");
    }
}

fn unreadable(reference: BlockRef, source: IoError) -> GridError {
    GridError::Unreadable { address: reference.address, source }
}

/// A buffer of the pool, if need be in place of something cached. Waits for nothing.
pub(crate) fn take<V: Shared>(pool: &understory_io::Pool, cache: &Cache<V>) -> Option<Buffer> {
    loop {
        if let Some(buffer) = pool.take() {
            return Some(buffer);
        }
        if !cache.evict() {
            return pool.take();
        }
    }
}
