//! Making the ring of a new file.

use understory_format::{Geometry, u64_of};
use understory_io::{Arena, IoError, Machine, Ticket, WritePart};

use crate::error::JournalError;

use smallvec::smallvec;
use std::sync::Arc;

/// Bytes of a write, and how many are in flight.
const PIECE_SIZE: u64 = 1 << 20;

/// Extends an empty file to the end of the ring, writes the ring full of zeros and syncs: later writes go to blocks
/// that the file system has given out and filled. Does nothing without a journal.
///
/// # Errors
/// The machine refuses: no space, a failed write.
///
/// # Panics
/// If the file is not empty.
pub fn format(machine: &Machine, geometry: &Geometry) -> Result<(), JournalError> {
    if !geometry.has_journal() {
        return Ok(());
    }
    assert_eq!(machine.storage.size(), 0, "a ring is made in an empty file");
    machine.storage.grow(geometry.grid_offset())?;
    let size = usize::try_from(PIECE_SIZE.min(geometry.journal_size)).expect("at most 1 MiB");
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
    first(result, before)?;
    machine.storage.sync().wait().result?;
    assert!(machine.storage.size() >= u64_of(size), "the file has the ring");
    Ok(())
}

/// Waits for a write, if there is one; the first error of both.
fn first(result: Result<(), IoError>, ticket: Option<Ticket>) -> Result<(), IoError> {
    let this = ticket.map_or(Ok(()), |ticket| ticket.wait().result);
    result.and(this)
}
