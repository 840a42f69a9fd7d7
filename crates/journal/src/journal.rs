//! The running ring: groups are written, synced, witnessed, and given up.
//!
//! # Invariants
//! - What is in use never overlaps: asserted against the ring's size at every write.
//! - A header names as witnessed only what a sync that had returned covers.
//! - Once a write or sync failed, none is submitted again (test `the_first_failure_is_repeated`).
//! - No lock is held while anything is waited for.
//!
//! # Not here
//! Who writes when (the sequencer), what a checkpoint lets go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use smallvec::smallvec;
use understory_format::{Checksum, Geometry, GroupHeader, Op, SECTOR_SIZE, u64_of, usize_of};
use understory_io::{Arena, Buffer, IoError, Machine, Pool, WritePart, trace_span};

use crate::error::JournalError;
use crate::group::{Group, GroupBuilder, Mark};
use crate::ring::{Ring, SECTOR};
use crate::scan::Head;
use crate::stats::{Counts, JournalStats};

/// The ring of an open file.
#[derive(Debug)]
pub struct Journal {
    machine: Machine,
    ring: Ring,
    incarnation: u64,
    /// Whether somebody writes.
    writing: AtomicBool,
    state: Mutex<State>,
    /// A buffer for what of a group is behind the ring's end, one for a lone witness.
    wraps: Pool,
    sectors: Pool,
    counts: Counts,
}

/// What is written, and what is known about it.
#[derive(Debug)]
struct State {
    /// The end of the last group.
    head: Mark,
    /// The last op that is written, and the chain hash behind its group.
    written: Durable,
    /// The last op that a sync covers.
    synced: Durable,
    /// The last op that a group or the superblock witnesses, durably.
    witnessed: Op,
    /// The newest durable checkpoint that a writer named.
    checkpoint: Checksum,
    /// The ring is in use from here.
    tail: u64,
    poison: Option<JournalError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Durable {
    op: Op,
    hash: Checksum,
}

/// The turn to write, until it is dropped.
struct Turn<'a>(&'a AtomicBool);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Journal {
    /// Bytes of a group at most, and so of a group's buffer: the largest batch fits.
    #[must_use]
    pub fn group_size_max(geometry: &Geometry) -> u64 {
        geometry.ring_share()
    }

    /// Bytes of the arena that [`begin`](Self::begin) takes. `None` if no memory can be so large.
    #[must_use]
    pub fn arena_size(geometry: &Geometry) -> Option<usize> {
        let wrap = usize::try_from(Self::group_size_max(geometry)).ok()?;
        Arena::needed(wrap, 1)?.checked_add(Arena::needed(SECTOR, 1)?)
    }

    /// The ring, to be written on from `head`, which the superblock has recorded. It is in use from position `tail`.
    ///
    /// # Errors
    /// The arena has too little left.
    ///
    /// # Panics
    /// If there is no journal, `tail` is behind the head or more than a ring before it, or `incarnation` is 0.
    pub fn begin(
        machine: Machine,
        arena: &Arena,
        geometry: &Geometry,
        head: &Head,
        tail: u64,
        incarnation: u64,
    ) -> Result<Self, JournalError> {
        let ring = Ring::new(geometry);
        assert!(incarnation > 0, "a file that is written was opened");
        assert!(tail <= head.position, "the ring is used up to its head");
        assert!(head.position - tail <= ring.size, "what is used fits the ring");
        let durable = Durable { op: head.op, hash: head.hash };
        let state = State {
            head: Mark { position: head.position, hash: head.hash },
            written: durable,
            synced: durable,
            witnessed: head.op,
            checkpoint: Checksum::ZERO,
            tail,
            poison: None,
        };
        let wraps = arena.pool(ring.group_buffer_size(), 1)?;
        let sectors = arena.pool(SECTOR, 1)?;
        let writing = AtomicBool::new(false);
        let (state, counts) = (Mutex::new(state), Counts::default());
        Ok(Self { machine, ring, incarnation, writing, state, wraps, sectors, counts })
    }

    /// Writes a group behind the last one and waits until the machine has taken it; it is durable after the next
    /// [`sync`](Self::sync). `checkpoint` is the id of the newest durable checkpoint.
    ///
    /// # Errors
    /// The write failed, or one before: what of the group is in the file is not known, and nothing is written any
    /// more.
    ///
    /// # Panics
    /// If somebody else writes, the group is empty or too large, its ops do not follow those before, its records are not
    /// whole, or it does not fit into [`room`](Self::room).
    pub fn write(&self, group: GroupBuilder, checkpoint: Checksum) -> Result<Group, JournalError> {
        let _turn = self.take_turn();
        self.state.lock().checkpoint = checkpoint;
        let header = self.next_header()?;
        assert_eq!(group.op_first(), header.op_first, "ops follow one another");
        assert!(group.size() <= self.ring.group_size_max, "a group is no larger than readers of it expect");
        assert!(group.size() <= self.room(), "the ring has room: its callers see to it");
        let group = group.seal(header);
        self.append(group.header(), group.buffer())?;
        let mut state = self.state.lock();
        state.check()?;
        state.head = group.end();
        state.written = Durable { op: group.last_op(), hash: group.end().hash };
        Ok(group)
    }

    /// Makes all groups durable whose [`write`](Self::write) has returned. Any thread may call it, also beside a
    /// write.
    ///
    /// # Errors
    /// The sync failed, or a write or sync before: what is durable is not known, and nothing is written any more.
    pub fn sync(&self) -> Result<(), JournalError> {
        let written = {
            let state = self.state.lock();
            state.check()?;
            if state.synced == state.written {
                return Ok(());
            }
            state.written
        };
        self.sync_storage()?;
        let mut state = self.state.lock();
        if state.synced.op < written.op {
            state.synced = written;
        }
        Ok(())
    }

    /// Makes all ops durable and writes that they are, unless the file says so already. To be called after a sync
    /// that others were told of: damage to the last group is told from a torn one after it.
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    ///
    /// # Panics
    /// If somebody else writes.
    pub fn witness(&self) -> Result<(), JournalError> {
        let _turn = self.take_turn();
        self.sync()?;
        let header = self.next_header()?;
        if self.state.lock().witnessed == header.witness_op {
            return Ok(());
        }
        let mut buffer = self.sectors.take().expect("one lone witness at a time");
        buffer.zero();
        let hash = header.seal(&mut buffer);
        self.append(&header, &Arc::new(buffer))?;
        self.sync_storage()?;
        let mut state = self.state.lock();
        state.check()?;
        state.head = Mark { position: header.end(), hash };
        state.witnessed = header.witness_op;
        Ok(())
    }

    /// Bytes that groups may take of the ring now: what is not in use, but for a sector that stays for a lone witness.
    #[must_use]
    pub fn room(&self) -> u64 {
        let state = self.state.lock();
        self.free(&state).saturating_sub(SECTOR_SIZE.into())
    }

    fn free(&self, state: &State) -> u64 {
        self.ring.size - (state.head.position - state.tail)
    }

    /// Gives up the ring before `position`: a durable superblock starts its replay there or later.
    ///
    /// # Panics
    /// If nothing was written there yet.
    pub fn release(&self, position: u64) {
        let mut state = self.state.lock();
        assert!(position <= state.head.position, "what is given up was written");
        state.tail = state.tail.max(position);
    }

    /// The end of the last group that is written.
    #[must_use]
    pub fn head(&self) -> Mark {
        self.state.lock().head
    }

    /// The last op that is written.
    #[must_use]
    pub fn written_op(&self) -> Op {
        self.state.lock().written.op
    }

    /// The last op that is durable.
    #[must_use]
    pub fn synced_op(&self) -> Op {
        self.state.lock().synced.op
    }

    /// What was done since it was begun. Waits for nothing.
    #[must_use]
    pub fn stats(&self) -> JournalStats {
        self.counts.get()
    }

    fn take_turn(&self) -> Turn<'_> {
        let taken = self.writing.swap(true, Ordering::Acquire);
        assert!(!taken, "one at a time writes the journal");
        Turn(&self.writing)
    }

    /// The header of a lone witness as the next group; a group with ops differs in size and ops.
    fn next_header(&self) -> Result<GroupHeader, JournalError> {
        let state = self.state.lock();
        state.check()?;
        Ok(GroupHeader {
            position: state.head.position,
            size: SECTOR_SIZE,
            parent: state.head.hash,
            checkpoint: state.checkpoint,
            incarnation: self.incarnation,
            op_first: state.written.op.next(),
            op_count: 0,
            witness_op: state.synced.op,
            witness_hash: state.synced.hash,
        })
    }

    /// Writes a sealed group to its place.
    fn append(&self, header: &GroupHeader, buffer: &Arc<Buffer>) -> Result<(), JournalError> {
        let _span = trace_span!(TRACE, "journal_write", op = header.op_first.get(), size = header.size);
        self.counts.writes.time(&*self.machine.clock, || self.append_untimed(header, buffer))?;
        self.counts.wrote(header.size.into());
        Ok(())
    }

    /// In two pieces if the ring ends inside it.
    fn append_untimed(&self, header: &GroupHeader, buffer: &Arc<Buffer>) -> Result<(), JournalError> {
        let free = self.free(&self.state.lock());
        assert!(u64::from(header.size) <= free, "what is in use is not written over");
        let to_end = usize::try_from(self.ring.size_to_end(header.position)).unwrap_or(usize::MAX);
        let (first, second) =
            (usize_of(header.size).min(to_end), usize_of(header.size).saturating_sub(to_end));
        let behind = (second > 0).then(|| {
            let mut wrapped = self.wraps.take().expect("one group at a time is written");
            let bytes = buffer.get(first..first + second).expect("the group lies in its buffer");
            wrapped.get_mut(..second).expect("any group fits").copy_from_slice(bytes);
            let part = WritePart { buffer: Arc::new(wrapped), len: second };
            self.machine.storage.write(self.ring.offset(header.position + u64_of(first)), smallvec![part])
        });
        let part = WritePart { buffer: Arc::clone(buffer), len: first };
        let result = self.machine.storage.write_now(self.ring.offset(header.position), smallvec![part]);
        // Both are waited for, so that nothing is in flight when this returns.
        let behind = behind.map_or(Ok(()), |ticket| ticket.wait().result);
        result.and(behind).map_err(|error| self.poison(error))
    }

    fn sync_storage(&self) -> Result<(), JournalError> {
        let _span = trace_span!(DEBUG, "journal_sync");
        let synced = self.counts.syncs.time(&*self.machine.clock, || self.machine.storage.sync_now());
        synced.map_err(|error| self.poison(error))
    }

    /// The first error, which is this one if there was none.
    fn poison(&self, error: IoError) -> JournalError {
        self.state.lock().poison.get_or_insert(JournalError::Io(error)).clone()
    }
}

impl State {
    fn check(&self) -> Result<(), JournalError> {
        self.poison.clone().map_or(Ok(()), Err)
    }
}
