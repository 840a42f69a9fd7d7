//! Reads the ring forward in large pieces, one of them ahead, and saves what can be saved of a piece that fails.
//!
//! # Invariants
//! - Memory is two pieces and a sector, whatever is in the ring.
//! - Nothing is in flight when a reader is gone: the ring can be written then.
//!
//! # Not here
//! What the bytes mean.

use std::ops::Range;

use understory_format::{Geometry, u64_of};
use understory_io::{Arena, Buffer, Completion, IoError, Machine, Pool, Ticket};

use crate::ring::{Ring, SECTOR};

/// Bytes of a read, in rings that have as many.
pub(crate) const PIECE_SIZE_MAX: u64 = 1 << 20;
/// What part of that the reads of a second look have.
const CLOSER: u64 = 16;

/// Forward reads of the ring.
#[derive(Debug)]
pub(crate) struct Reader {
    machine: Machine,
    ring: Ring,
    /// Nothing is read ahead from here on.
    until: u64,
    pieces: Pool,
    sectors: Pool,
    current: Option<Piece>,
    ahead: Option<Ahead>,
}

/// A read piece of the ring.
#[derive(Debug)]
struct Piece {
    positions: Range<u64>,
    buffer: Buffer,
    /// The sectors that cannot be read: positions, and why.
    unreadable: Vec<(u64, IoError)>,
}

/// A piece that is being read.
#[derive(Debug)]
struct Ahead {
    positions: Range<u64>,
    ticket: Ticket,
}

impl Reader {
    /// Bytes of the arena that [`new`](Self::new) and then [`closer`](Self::closer) take.
    pub(crate) fn arena_size(geometry: &Geometry) -> Option<usize> {
        let needed = |piece: u64| {
            Arena::needed(usize::try_from(piece).ok()?, 2)?.checked_add(Arena::needed(SECTOR, 1)?)
        };
        needed(piece_size(geometry))?.checked_add(needed(closer_size(geometry))?)
    }

    pub(crate) fn new(
        machine: &Machine,
        arena: &Arena,
        geometry: &Geometry,
        until: u64,
    ) -> Result<Self, IoError> {
        Self::sized(machine, arena, geometry, until, piece_size(geometry))
    }

    /// One that reads smaller pieces.
    pub(crate) fn closer(
        machine: &Machine,
        arena: &Arena,
        geometry: &Geometry,
        until: u64,
    ) -> Result<Self, IoError> {
        Self::sized(machine, arena, geometry, until, closer_size(geometry))
    }

    fn sized(
        machine: &Machine,
        arena: &Arena,
        geometry: &Geometry,
        until: u64,
        piece: u64,
    ) -> Result<Self, IoError> {
        let size = usize::try_from(piece).expect("at most 1 MiB");
        Ok(Self {
            machine: machine.clone(),
            ring: Ring::new(geometry),
            until,
            pieces: arena.pool(size, 2)?,
            sectors: arena.pool(SECTOR, 1)?,
            current: None,
            ahead: None,
        })
    }

    /// Copies what stands from `position` on; whole sectors. The inner error is that of the first sector that cannot
    /// be read; the outer one is no fault of the media.
    pub(crate) fn copy(&mut self, position: u64, into: &mut [u8]) -> Result<Result<(), IoError>, IoError> {
        for (index, sector) in (0..).zip(into.chunks_mut(SECTOR)) {
            match self.sector(position + index * u64_of(SECTOR))? {
                Ok(bytes) => sector.copy_from_slice(bytes),
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(()))
    }

    /// The sector at `position`; errors as [`copy`](Self::copy).
    pub(crate) fn sector(&mut self, position: u64) -> Result<Result<&[u8], IoError>, IoError> {
        if !self.current.as_ref().is_some_and(|piece| piece.positions.contains(&position)) {
            self.advance(position)?;
        }
        let piece = self.current.as_ref().expect("a piece with this position was read");
        if let Some((_, error)) = piece.unreadable.iter().find(|(sector, _)| *sector == position) {
            return Ok(Err(*error));
        }
        let at = usize::try_from(position - piece.positions.start).expect("within a piece");
        Ok(Ok(piece.buffer.get(at..at + SECTOR).expect("the piece has the sector")))
    }

    /// Makes the piece with `position` the current one, and lets the next be read ahead.
    fn advance(&mut self, position: u64) -> Result<(), IoError> {
        self.current = None;
        let ahead = match self.ahead.take() {
            Some(ahead) if ahead.positions.contains(&position) => ahead,
            other => {
                // An operation that does not end keeps its buffer.
                let ended = other.map(|other| other.ticket.wait());
                if let Some(Completion { result: Err(error), buffer: None }) = ended {
                    return Err(error);
                }
                self.submit(position)
            }
        };
        let Ahead { positions, ticket } = ahead;
        let completion = ticket.wait();
        self.ahead = (positions.end < self.until).then(|| self.submit(positions.end));
        self.current = Some(self.receive(positions, completion)?);
        Ok(())
    }

    /// Starts to read a piece that has `position`: from there on, or the last one before the ring's end.
    fn submit(&self, position: u64) -> Ahead {
        let size = u64_of(self.pieces.buffer_size());
        let back = size.saturating_sub(self.ring.size_to_end(position));
        let start = position - back;
        let buffer = self.pieces.take().expect("one piece is current, one ahead");
        let ticket = self.machine.storage.read(self.ring.offset(start), buffer);
        Ahead { positions: start..start + size, ticket }
    }

    fn receive(&self, positions: Range<u64>, completion: Completion) -> Result<Piece, IoError> {
        let Completion { result, buffer } = completion;
        let Err(error) = result else {
            let buffer = buffer.expect("a read that succeeded gives its buffer back");
            return Ok(Piece { positions, buffer, unreadable: Vec::new() });
        };
        let buffer = buffer.or_else(|| self.pieces.take());
        match buffer {
            Some(buffer) if error.is_of_media() => self.save(positions, buffer),
            _ => Err(error),
        }
    }

    /// Reads a piece sector by sector.
    fn save(&self, positions: Range<u64>, mut buffer: Buffer) -> Result<Piece, IoError> {
        let mut unreadable = Vec::new();
        let starts = positions.clone().step_by(SECTOR);
        for (position, sector) in starts.zip(buffer.chunks_exact_mut(SECTOR)) {
            let single = self.sectors.take().expect("one sector at a time is read");
            match self.machine.storage.read(self.ring.offset(position), single).wait().into_buffer() {
                Ok(single) => sector.copy_from_slice(&single),
                Err(error) if error.is_of_media() => unreadable.push((position, error)),
                Err(error) => return Err(error),
            }
        }
        Ok(Piece { positions, buffer, unreadable })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(ahead) = self.ahead.take() {
            let _unused = ahead.ticket.wait();
        }
    }
}

/// The largest whole number of sectors up to a mebibyte that a ring has.
fn piece_size(geometry: &Geometry) -> u64 {
    geometry.journal_size.min(PIECE_SIZE_MAX)
}

/// A part of that, whole sectors.
fn closer_size(geometry: &Geometry) -> u64 {
    (piece_size(geometry) / CLOSER).next_multiple_of(u64_of(SECTOR))
}
