//! Writes on their way to the storage: adjacent ones joined, bytes in flight bounded.
//!
//! A block handed over is put behind the run of blocks that ends where it begins, or starts a run of its own. A run
//! goes to the storage when it is long enough; the oldest does when too much waits. So several writers, each with
//! a reservation of its own, all get long requests.
//!
//! Blocks are numbered as they are handed over. Who waits for those up to a number takes no notice of later ones, so
//! that the wait comes to an end while others go on to write.
//!
//! # Invariants
//! - A block is in `writing` from when it is handed over until it is written; readers are served from there.
//! - At most [`IN_FLIGHT_MAX`] bytes are with the storage, and one request more for each thread beyond the first.
//! - Both copies of a metadata block never share a request.
//! - After a failed write the blocks that may be missing on disk stay in `writing`, so that reads go on.
//!
//! # Not here
//! Locks around I/O: a run is taken out, then submitted (`Grid::submit`).

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;

use parking_lot::Mutex;
use understory_format::{BlockAddress, BlockRef, Checksum, u64_of};
use understory_io::{Ticket, WritePart, WriteParts, fresh_key};

use crate::block::Block;

/// Bytes of one request at most, if a block is not larger.
pub(crate) const RUN_SIZE_MAX: usize = 512 << 10;
/// Bytes with the storage at most: two requests, since more delay whoever waits for a sync.
pub(crate) const IN_FLIGHT_MAX: usize = 2 * RUN_SIZE_MAX;
/// Bytes that wait for neighbours at most.
const WAITING_MAX: usize = 1 << 20;

/// Blocks to be written by one request.
#[derive(Debug)]
pub(crate) struct Run {
    /// The first block's address.
    pub(crate) first: u64,
    pub(crate) parts: WriteParts,
    pub(crate) size: usize,
    /// Number of its first block: the lowest.
    oldest: u64,
    /// Whether another block can be joined: the last part ends where its block does.
    open: bool,
}

impl Run {
    pub(crate) fn addresses(&self) -> RangeInclusive<BlockAddress> {
        let [first, last] = [self.first, self.end() - 1]
            .map(|address| BlockAddress::new(address).expect("a run is made of addresses"));
        first..=last
    }

    pub(crate) fn sent(&self) -> Sent {
        Sent { first: self.first, count: self.parts.len(), size: self.size, oldest: self.oldest }
    }

    fn end(&self) -> u64 {
        self.first + u64_of(self.parts.len())
    }
}

/// A request that is with the storage.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) ticket: Ticket,
    pub(crate) sent: Sent,
}

/// What a request writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    first: u64,
    count: usize,
    size: usize,
    oldest: u64,
}

#[derive(Debug, Default)]
struct State {
    /// Number of the newest block handed over, from 1.
    handed_over: u64,
    /// Oldest first.
    runs: VecDeque<Run>,
    waiting: usize,
    waiting_parts: usize,
    /// Oldest first.
    in_flight: VecDeque<InFlight>,
    in_flight_size: usize,
    /// The numbers of the oldest blocks of runs and requests that some thread has taken out, to submit or to wait
    /// for them.
    taken: Vec<u64>,
    writing: BTreeMap<BlockAddress, Block>,
    /// Goes on with every change that somebody may wait for.
    version: u64,
}

/// What a thread that wants a write to end has to do.
#[derive(Debug)]
pub(crate) enum Next {
    /// Wait for this request, then tell by [`Writes::ended`].
    Wait(InFlight),
    /// Another thread has it: park until this version is over.
    Park(u64),
    /// Nothing is in the way.
    Go,
}

/// The queue. See the [module](self).
#[derive(Debug)]
pub(crate) struct Writes {
    state: Mutex<State>,
    /// Woken when a request has ended or was submitted.
    pub(crate) park_key: u64,
    /// Blocks that wait for neighbours at most.
    waiting_parts_max: usize,
}

impl Writes {
    pub(crate) fn new(waiting_parts_max: usize) -> Self {
        Self { state: Mutex::new(State::default()), park_key: fresh_key(), waiting_parts_max }
    }

    /// Takes a block over; gives the runs that are to be submitted now.
    ///
    /// # Panics
    /// If the address is being written already.
    pub(crate) fn push(&self, block: &Block, len: usize) -> Vec<Run> {
        let address = block.reference().address;
        let mut state = self.state.lock();
        let before = state.writing.insert(address, block.clone());
        assert!(before.is_none(), "{address} is written while it is being written");
        let mut ready = Vec::new();
        let part = WritePart { buffer: block.buffer().clone(), len };
        state.join(address.get(), part, len == block.len());
        state.take_full(&mut ready);
        while state.waiting > WAITING_MAX || state.waiting_parts > self.waiting_parts_max {
            ready.extend(state.take_oldest());
        }
        state.taken.extend(ready.iter().map(|run| run.oldest));
        ready
    }

    /// Number of the newest block handed over.
    pub(crate) fn handed_over(&self) -> u64 {
        self.state.lock().handed_over
    }

    /// The oldest run that waits for neighbours, if it has a block up to this number; to be submitted.
    pub(crate) fn take_run(&self, through: u64) -> Option<Run> {
        let mut state = self.state.lock();
        let _first = state.runs.front().filter(|run| run.oldest <= through)?;
        let run = state.take_oldest()?;
        state.taken.push(run.oldest);
        Some(run)
    }

    /// Whether runs wait for neighbours.
    pub(crate) fn has_runs(&self) -> bool {
        !self.state.lock().runs.is_empty()
    }

    /// Counts `size` more bytes as being with the storage, or gives the request that has to end before.
    pub(crate) fn before_submit(&self, size: usize) -> Option<InFlight> {
        let mut state = self.state.lock();
        let full = state.in_flight_size > 0 && state.in_flight_size + size > IN_FLIGHT_MAX;
        if full && let Next::Wait(oldest) = state.next_wait(u64::MAX) {
            return Some(oldest);
        }
        state.in_flight_size += size;
        None
    }

    /// A run that was taken out, and counted by [`Writes::before_submit`], is with the storage now.
    pub(crate) fn submitted(&self, sent: &Sent, ticket: Ticket) {
        let mut state = self.state.lock();
        state.give_back(sent.oldest);
        state.in_flight.push_back(InFlight { ticket, sent: *sent });
    }

    /// A run that was taken out is not submitted, as an earlier write has failed. Its blocks stay readable.
    pub(crate) fn given_up(&self, run: &Run) {
        self.state.lock().give_back(run.oldest);
    }

    /// The oldest request with a block up to this number, to be waited for.
    pub(crate) fn take_in_flight(&self, through: u64) -> Next {
        self.state.lock().next_wait(through)
    }

    /// A request that was waited for has ended. The blocks of a bad one stay readable.
    pub(crate) fn ended(&self, sent: &Sent, good: bool) {
        let mut state = self.state.lock();
        state.give_back(sent.oldest);
        state.in_flight_size -= sent.size;
        if !good {
            return;
        }
        for address in (sent.first..).take(sent.count).filter_map(BlockAddress::new) {
            let written = state.writing.remove(&address);
            assert!(written.is_some(), "{address} was being written");
        }
    }

    /// Whether a thread that found [`Next::Park`] may look again.
    pub(crate) fn is_over(&self, version: u64) -> bool {
        self.state.lock().version != version
    }

    /// The block of this reference if it is being written, or the checksum of another one that is in its place.
    pub(crate) fn find(&self, reference: BlockRef) -> Option<Result<Block, Checksum>> {
        let state = self.state.lock();
        let block = state.writing.get(&reference.address)?;
        let found = block.reference();
        Some(if found == reference { Ok(block.clone()) } else { Err(found.checksum) })
    }
}

impl State {
    fn join(&mut self, address: u64, part: WritePart, whole: bool) {
        let len = part.len;
        self.handed_over += 1;
        self.waiting += len;
        self.waiting_parts += 1;
        // Both copies of a block do not go into one request, which could be lost or misdirected as a whole.
        let other_copy = |run: &Run| run.parts.iter().any(|other| Arc::ptr_eq(&other.buffer, &part.buffer));
        let fits = |run: &Run| {
            run.open && run.end() == address && run.size + len <= RUN_SIZE_MAX && !other_copy(run)
        };
        if let Some(run) = self.runs.iter_mut().find(|run| fits(run)) {
            run.parts.push(part);
            run.size += len;
            run.open = whole;
            return;
        }
        let mut parts = WriteParts::new();
        parts.push(part);
        self.runs.push_back(Run { first: address, parts, size: len, oldest: self.handed_over, open: whole });
    }

    fn take_full(&mut self, ready: &mut Vec<Run>) {
        while let Some(at) = self.runs.iter().position(|run| run.size >= RUN_SIZE_MAX) {
            ready.extend(self.take_at(at));
        }
    }

    fn take_oldest(&mut self) -> Option<Run> {
        self.take_at(0)
    }

    fn take_at(&mut self, at: usize) -> Option<Run> {
        let run = self.runs.remove(at)?;
        self.waiting -= run.size;
        self.waiting_parts -= run.parts.len();
        Some(run)
    }

    fn next_wait(&mut self, through: u64) -> Next {
        let at = self.in_flight.iter().position(|request| request.sent.oldest <= through);
        if let Some(request) = at.and_then(|at| self.in_flight.remove(at)) {
            self.taken.push(request.sent.oldest);
            return Next::Wait(request);
        }
        if self.taken.iter().any(|&oldest| oldest <= through) { Next::Park(self.version) } else { Next::Go }
    }

    /// What had been taken out is submitted, given up or has ended.
    fn give_back(&mut self, oldest: u64) {
        let at = self.taken.iter().position(|&taken| taken == oldest);
        let _ = self.taken.swap_remove(at.expect("it was taken out"));
        self.version += 1;
    }
}
