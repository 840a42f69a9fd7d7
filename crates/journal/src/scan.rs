//! Pass 1 of recovery: what of the journal counts. Writes nothing.
//!
//! The chain is followed group by group. Where it ends, the group that would come next was never there, or is torn,
//! or is damaged. It is damaged if its ops were acknowledged: the superblock says so (they were accepted by an opening
//! before, or a checkpoint counts them), or a later group of the same incarnation does, its witness. So the rest of the
//! lap is looked through for such a group. Else what follows was never promised to anybody, and the chain ends here.
//!
//! # Invariants
//! - A group of an earlier lap, or one that an earlier opening did not accept, is no group and no evidence (its
//!   position or incarnation is not right).
//! - What is accepted is whole and good, records and parts included: replay meets no error. It is durable, too, also
//!   what was never synced by who wrote it.
//! - Memory is bounded: [`scan_size`].
//!
//! # Not here
//! Recording what was accepted, with the next incarnation: the superblock.

use understory_format::error::{at_most, rule};
use understory_format::superblock::COUNTER_MAX;
use understory_format::{Checksum, Corruption, Geometry, Op, SECTOR_SIZE};
use understory_io::{Arena, Machine, Pool};

use crate::error::{Evidence, Fault, JournalError};
use crate::reader::{PIECE_SIZE_MAX, Reader};
use crate::ring::Ring;
use crate::walk::{STEP, Walk};

/// Where recovery starts, and what is known to be there: all of it from the superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Position of the group that holds the op after `op_flushed`.
    pub position: u64,
    /// The chain hash before that group.
    pub hash: Checksum,
    /// The last op whose effects are all in tables.
    pub op_flushed: Op,
    /// The last op that the checkpoint counts.
    pub op_checkpoint: Op,
    /// The last op that the last opening accepted.
    pub head_op: Op,
    /// The chain hash behind the group that ends with it.
    pub head_hash: Checksum,
    /// That opening's incarnation; 0 if the file was never opened.
    pub incarnation: u64,
}

/// The end of what counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The last op.
    pub op: Op,
    /// The chain hash behind its group.
    pub hash: Checksum,
    /// Where that group ends, and the next one is written. A lone witness behind it is written over: once the
    /// superblock has this head, it says the same.
    pub position: u64,
    /// Whether something was begun behind it that does not count. For information: a torn group may also look as if
    /// it had never been there.
    pub torn: bool,
}

/// How far a scan is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the ring that were looked at; never less than before. What is looked at twice counts once.
    pub done: u64,
    /// Bytes of the ring.
    pub total: u64,
}

impl Start {
    /// Checks what a superblock cannot check.
    pub(crate) fn validate(&self) -> Result<(), Corruption> {
        at_most("journal_position", COUNTER_MAX, self.position)?;
        let is_whole = self.position.is_multiple_of(SECTOR_SIZE.into());
        rule("journal_position", "a multiple of 4096", is_whole, self.position)?;
        at_most("op_flushed", COUNTER_MAX, self.op_flushed.get())?;
        at_most("op_checkpoint", COUNTER_MAX, self.op_checkpoint.get())?;
        at_most("head_op", COUNTER_MAX, self.head_op.get())?;
        at_most("incarnation", COUNTER_MAX, self.incarnation)
    }
}

/// Bytes of memory that [`scan`] uses while it runs. `None` if no memory can be so large.
#[must_use]
pub fn scan_size(geometry: &Geometry) -> Option<usize> {
    walk_size(geometry, 1)
}

/// Memory of a walk with so many buffers of groups.
pub(crate) fn walk_size(geometry: &Geometry, groups: usize) -> Option<usize> {
    let group = usize::try_from(geometry.ring_share()).ok()?;
    Reader::arena_size(geometry)?.checked_add(Arena::needed(group, groups)?)
}

/// Finds the head of the journal. O(ring): all of it is read, 1 MiB at a time.
///
/// # Errors
/// [`JournalError::Damaged`] if acknowledged ops cannot be read; [`JournalError::Corrupt`] if there is no such start;
/// [`JournalError::Io`] if the machine fails otherwise than by sectors that cannot be read.
///
/// # Panics
/// If there is no journal.
pub fn scan(
    machine: &Machine,
    geometry: &Geometry,
    start: &Start,
    progress: &mut dyn FnMut(Progress),
) -> Result<Head, JournalError> {
    start.validate()?;
    let ring = Ring::new(geometry);
    let arena = Arena::new(scan_size(geometry).unwrap_or(usize::MAX))?;
    // A program that was killed leaves writes that only a cache has: what is accepted here must not go away again.
    machine.storage.sync().wait().result?;
    let mut walk = Walk::new(machine, &arena, geometry, start, start.position + ring.size)?;
    let groups = arena.pool(ring.group_buffer_size(), 1)?;
    let mut done = 0;
    let mut report = |position: u64| {
        done = done.max(position - start.position);
        progress(Progress { done, total: ring.size });
    };
    let mut fault = follow(&mut walk, &groups, &mut report)?;
    let mut found = search(&mut walk, start, ring.size, &mut report)?;
    // Accepting an end is for good. One read that gave other bytes must not look like it: what is behind is read again,
    // in other pieces.
    let end = walk.position();
    walk.look_closer(machine, &arena, geometry)?;
    let again = follow(&mut walk, &groups, &mut report)?;
    if walk.position() > end {
        fault = again;
        found = search(&mut walk, start, ring.size, &mut report)?;
    } else {
        let seen = search(&mut walk, start, PIECE_SIZE_MAX + ring.group_size_max, &mut report)?;
        found = Found { any: found.any || seen.any, witness: found.witness.max(seen.witness) };
    }
    judge(&walk, start, fault, found)
}

/// Follows the chain to its end; why it ends there.
fn follow(walk: &mut Walk, groups: &Pool, report: &mut dyn FnMut(u64)) -> Result<Fault, JournalError> {
    loop {
        report(walk.position());
        let buffer = groups.take().expect("one group at a time is looked at");
        if let Err(fault) = walk.step(buffer)? {
            return Ok(fault);
        }
    }
}

/// What was found behind the end of the chain.
#[derive(Debug, Default)]
struct Found {
    /// Whether there are groups of the last incarnation.
    any: bool,
    /// The highest op that one of them witnesses, and its position.
    witness: Option<(Op, u64)>,
}

/// Looks for groups of the last incarnation in the rest of the lap, for so many bytes at most.
fn search(
    walk: &mut Walk,
    start: &Start,
    size_max: u64,
    report: &mut dyn FnMut(u64),
) -> Result<Found, JournalError> {
    let mut found = Found::default();
    let limit = walk.limit().min(walk.position() + size_max);
    for position in (walk.position()..limit).step_by(STEP) {
        if position.is_multiple_of(1 << 20) {
            report(position);
        }
        let Some(header) = walk.header_at(position)? else { continue };
        if header.incarnation == start.incarnation {
            found.any = true;
            found.witness = found.witness.max(Some((header.witness_op, position)));
        }
    }
    report(walk.limit());
    Ok(found)
}

/// Torn or damaged.
fn judge(walk: &Walk, start: &Start, fault: Fault, found: Found) -> Result<Head, JournalError> {
    let head = Head { torn: found.any, ..walk.head() };
    let first = walk.op_next();
    let recorded = start.head_op.max(start.op_checkpoint);
    let witness = found.witness.filter(|(op, _)| *op > recorded);
    let (last, evidence) = match witness {
        Some((op, position)) => (op, Evidence::Witness { position }),
        None => (recorded, Evidence::Superblock),
    };
    if last < first {
        return Ok(head);
    }
    let position = walk.position();
    let fault = Box::new(fault);
    Err(JournalError::Damaged { first, last, last_good: Box::new(head), position, fault, evidence })
}
