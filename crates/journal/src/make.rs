//! Making the ring of a new file.
//!
//! # Invariants
//! - Nothing is in flight when it returns, also after an error (test `failures_of_making_are_errors`).
//!
//! # Not here
//! The superblock, without which nobody takes the file for one of ours.

use std::sync::Arc;

use smallvec::smallvec;
use understory_format::Geometry;
use understory_io::{Arena, IoError, Machine, Ticket, WritePart};

use crate::error::JournalError;

/// Bytes of a write, of which two are in flight.
const PIECE_SIZE: usize = 1 << 20;

/// Extends an empty file to the end of the ring, writes the ring full of zeros and syncs: later writes go to blocks
/// that the file system has given out and filled. Does nothing without a journal.
///
/// # Errors
/// [`JournalError::NotEmpty`]; [`JournalError::Io`] if the machine refuses: no space, a failed write.
pub fn format(machine: &Machine, geometry: &Geometry) -> Result<(), JournalError> {
    if !geometry.has_journal() {
        return Ok(());
    }
    match machine.storage.size() {
        0 => {}
        size => return Err(JournalError::NotEmpty { size }),
    }
    machine.storage.grow(geometry.grid_offset())?;
    write_zeros(machine, geometry)?;
    Ok(machine.storage.sync().wait().result?)
}

fn write_zeros(machine: &Machine, geometry: &Geometry) -> Result<(), IoError> {
    let size = usize::try_from(geometry.journal_size).map_or(PIECE_SIZE, |size| size.min(PIECE_SIZE));
    let mut buffer = Arena::new(size)?.pool(size, 1)?.take().expect("nobody else takes one");
    buffer.zero();
    let buffer = Arc::new(buffer);
    let mut before: Option<Ticket> = None;
    let mut result = Ok(());
    for offset in (geometry.journal_offset()..geometry.grid_offset()).step_by(size) {
        let len = usize::try_from(geometry.grid_offset() - offset).map_or(size, |left| left.min(size));
        let part = WritePart { buffer: Arc::clone(&buffer), len };
        let ticket = machine.storage.write(offset, smallvec![part]);
        result = first(result, before.replace(ticket));
        if result.is_err() {
            break;
        }
    }
    first(result, before)
}

/// Waits for a write, if there is one; the first error of both.
fn first(result: Result<(), IoError>, ticket: Option<Ticket>) -> Result<(), IoError> {
    let this = ticket.map_or(Ok(()), |ticket| ticket.wait().result);
    result.and(this)
}
