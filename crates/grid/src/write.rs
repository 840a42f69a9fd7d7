//! Buffers, writes, flush and sync.
//!
//! # Invariants
//! - A block is written to acquired addresses only, and is sealed (asserted).
//! - A request is submitted only when no read of its addresses is in flight; reads that start later find the block
//!   among the writes.
//! - After a failed write or sync nothing is written any more.
//!
//! # Not here
//! Which writes go together (`writes`).

use std::ops::RangeInclusive;
use std::sync::Arc;

use smallvec::SmallVec;
use understory_format::{BlockAddress, BlockRef, block, u64_of};
use understory_io::Buffer;

use crate::block::{Block, Identity};
use crate::cache::Key;
use crate::error::GridError;
use crate::grid::Grid;
use crate::read::take;
use crate::writes::{InFlight, Next, Run};

impl Grid {
    /// A buffer for one block, contents unspecified. Makes room in the cache, or waits for writes, as needed.
    ///
    /// # Errors
    /// [`GridError::NoBuffers`] if all are held by callers.
    pub fn buffer(&self) -> Result<Buffer, GridError> {
        loop {
            if let Some(buffer) = take(&self.blocks, &self.block_cache) {
                return Ok(buffer);
            }
            self.counts.buffer_waits.one();
            self.complete_ended();
            if let Some(buffer) = take(&self.blocks, &self.block_cache) {
                return Ok(buffer);
            }
            if !self.finish_something() {
                return take(&self.blocks, &self.block_cache).ok_or(GridError::NoBuffers);
            }
        }
    }

    /// Takes a sealed block to the storage: to its address, and to its twin if it has one. Readers get it from now
    /// on. It is on disk after [`Grid::flush`] and durable after [`Grid::sync`].
    ///
    /// # Errors
    /// [`GridError::Io`] if a write has failed, [`GridError::Poisoned`] if one had failed before,
    /// [`GridError::ReadOnly`].
    ///
    /// # Panics
    /// If the block is not sealed, or an address of it was not acquired or is being written.
    pub fn write(&self, buffer: Buffer) -> Result<Block, GridError> {
        self.hand_over(buffer, true)
    }

    /// [`Grid::write`], with the block in the cache or not.
    pub(crate) fn hand_over(&self, mut buffer: Buffer, cached: bool) -> Result<Block, GridError> {
        self.check_writable()?;
        let identity = Identity::of(&buffer).expect("a block to be written is sealed");
        let Identity { kind, address, twin, checksum } = identity;
        let len = self.whole_if_nearly(&mut buffer);
        let buffer = Arc::new(buffer);
        let copy = |address| Block::new(Arc::clone(&buffer), BlockRef { address, checksum }, identity);
        let block = copy(address);
        if cached {
            let key = Key { address, page: Key::WHOLE, checksum };
            self.block_cache.insert(key, block.clone());
        }
        let mut ready: SmallVec<[Run; 4]> = self.writes.push(&block, len).into();
        if let Some(twin) = twin {
            ready.extend(self.writes.push(&copy(twin), len));
        }
        self.check_acquired([Some(address), twin]);
        let copies = 1 + u64::from(twin.is_some());
        self.counts.blocks_written.more(copies);
        self.counts.bytes_of(kind).more(copies * u64_of(len));
        self.submit_all(ready)?;
        Ok(block)
    }

    fn check_acquired(&self, addresses: [Option<BlockAddress>; 2]) {
        let free_set = self.free_set.lock();
        for address in addresses.into_iter().flatten() {
            assert!(free_set.is_acquired(address), "{address} is written but was not acquired");
        }
    }

    /// How many bytes of the block to write. The end of a nearly full block is zeroed and written too, so that the
    /// next block can go into the same request.
    fn whole_if_nearly(&self, buffer: &mut Buffer) -> usize {
        let len = block::write_len(buffer);
        let rest = buffer.len() - len;
        if rest > buffer.len() / 8 {
            return len;
        }
        buffer.get_mut(len..).expect("a block is written within its size").fill(0);
        buffer.len()
    }

    /// Submits all; if one fails, the others are given up.
    fn submit_all(&self, runs: impl IntoIterator<Item = Run>) -> Result<(), GridError> {
        let mut result = Ok(());
        for run in runs {
            let outcome = self.submit(run);
            if result.is_ok() {
                result = outcome;
            }
        }
        result
    }

    fn submit(&self, run: Run) -> Result<(), GridError> {
        if let Err(error) = self.wait_for_room(run.size) {
            self.writes.given_up(&run);
            self.machine.park.wake(self.writes.park_key);
            return Err(error);
        }
        let sent = run.sent();
        let addresses = run.addresses();
        let first = *addresses.start();
        self.settle_reads(addresses);
        self.counts.write_requests.one();
        let ticket = self.machine.storage.write(self.geometry.block_offset(first), run.parts);
        self.writes.submitted(&sent, ticket);
        self.machine.park.wake(self.writes.park_key);
        Ok(())
    }

    /// Waits for older requests until there is room; not for those that another thread waits for, so that the
    /// bound is exceeded by one request for each thread beyond the first.
    fn wait_for_room(&self, size: usize) -> Result<(), GridError> {
        loop {
            self.check_poison()?;
            match self.writes.before_submit(size) {
                None => return Ok(()),
                Some(oldest) => {
                    self.counts.write_waits.one();
                    self.wait_for_write(oldest)?;
                }
            }
        }
    }

    fn follow(&self, next: Next) -> Result<(), GridError> {
        match next {
            Next::Go => Ok(()),
            Next::Wait(request) => self.wait_for_write(request),
            Next::Park(version) => {
                self.machine.park.park_until(self.writes.park_key, &mut || self.writes.is_over(version));
                Ok(())
            }
        }
    }

    fn wait_for_write(&self, request: InFlight) -> Result<(), GridError> {
        let InFlight { ticket, sent } = request;
        let result = ticket.wait().result;
        // Poisoned before it is told: who sees the request gone also sees why.
        let result = result.map_err(|error| self.poisoned_by(error));
        self.writes.ended(&sent, result.is_ok());
        self.machine.park.wake(self.writes.park_key);
        result
    }

    /// Waits until no read of these addresses is in flight.
    pub(crate) fn settle_reads(&self, addresses: RangeInclusive<BlockAddress>) {
        self.block_reads.settle(&addresses, |claimed, ticket| {
            drop(self.complete_block(&claimed, ticket.wait()));
        });
        self.page_reads.settle(&addresses, |_, _| unreachable!("pages are not read ahead"));
    }

    /// Sees to it that I/O which holds buffers ends. False if there is none. What other threads wait for comes
    /// last: they may themselves wait for this one.
    fn finish_something(&self) -> bool {
        // A failure shows at the next write; here a buffer is wanted.
        let next = self.writes.take_in_flight(u64::MAX);
        if let Next::Wait(request) = next {
            drop(self.wait_for_write(request));
            return true;
        }
        if let Some(run) = self.writes.take_run(u64::MAX) {
            return self.submit(run).is_ok() || self.writes.has_runs();
        }
        if self.complete_one() {
            return true;
        }
        let others = matches!(next, Next::Park(_));
        drop(self.follow(next));
        others
    }

    /// Returns when all blocks that were handed over before this call are written, whatever others hand over
    /// meanwhile.
    ///
    /// # Errors
    /// As [`Grid::write`].
    pub fn flush(&self) -> Result<(), GridError> {
        self.flush_through(self.writes.handed_over())
    }

    /// Returns when the blocks up to this number are written.
    pub(crate) fn flush_through(&self, through: u64) -> Result<(), GridError> {
        let mut result = Ok(());
        let mut note = |outcome: Result<(), GridError>| {
            if result.is_ok() {
                result = outcome;
            }
        };
        loop {
            while let Some(run) = self.writes.take_run(through) {
                note(self.submit(run));
            }
            let next = self.writes.take_in_flight(through);
            if matches!(next, Next::Go) {
                break;
            }
            note(self.follow(next));
        }
        result?;
        self.check_writable()
    }

    /// Returns when all blocks that were handed over before this call are durable, and with them all other writes to
    /// the file that had ended.
    ///
    /// # Errors
    /// As [`Grid::write`].
    pub fn sync(&self) -> Result<(), GridError> {
        self.flush()?;
        self.machine.storage.sync().wait().result.map_err(|error| self.poisoned_by(error))
    }
}
