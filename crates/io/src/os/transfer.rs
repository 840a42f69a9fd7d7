//! Whole transfers out of calls that may be short, and growth that leaves no trace when it fails.
//!
//! Direct I/O takes offsets, lengths and addresses in whole sectors only. A short transfer may end inside a
//! sector, so the next call starts again at the start of that sector.

use std::io::IoSlice;

use rustix::io::Errno;
use smallvec::SmallVec;

use super::raw::RawFile;
use crate::{IoCause, SECTOR, WriteParts, u64_of, write_size};

/// Most pieces that one call takes, on all systems.
const PARTS_MAX: usize = 1024;

/// Zeroes to write, aligned for direct I/O.
#[repr(align(4096))]
struct Zeroes([u8; ZEROES_SIZE]);
const ZEROES_SIZE: usize = 64 << 10;
static ZEROES: Zeroes = Zeroes([0; ZEROES_SIZE]);
/// Zeroes are written in requests of up to 1 MiB.
const ZEROES_PARTS: usize = 16;

/// Fills the buffer from `offset`.
pub(super) fn read(file: &dyn RawFile, offset: u64, buffer: &mut [u8]) -> Result<(), IoCause> {
    let mut done = 0;
    while done < buffer.len() {
        let start = sector_start(done);
        let rest = buffer.get_mut(start..).expect("done is less than the length");
        let count = match file.read_at(rest, offset + u64_of(start)) {
            Ok(count) => count,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(IoCause::from_errno(errno)),
        };
        assert!(count <= rest.len(), "a read gives no more than was asked for");
        if start + count <= done {
            return Err(IoCause::Truncated);
        }
        done = start + count;
    }
    Ok(())
}

/// Writes all parts, one after another, from `offset`.
pub(super) fn write(file: &dyn RawFile, offset: u64, parts: &WriteParts) -> Result<(), IoCause> {
    let total = write_size(parts);
    let slices: SmallVec<[&[u8]; 16]> = parts.iter().map(|part| part.bytes()).collect();
    write_slices(file, offset, &slices, total)
}

fn write_slices(file: &dyn RawFile, offset: u64, slices: &[&[u8]], total: usize) -> Result<(), IoCause> {
    let mut done = 0;
    while done < total {
        let start = sector_start(done);
        let rest = skip(slices, start);
        let count = match file.write_at(&rest, offset + u64_of(start)) {
            Ok(count) => count,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(IoCause::from_errno(errno)),
        };
        assert!(count <= total - start, "a write takes no more than it was given");
        if start + count <= done {
            // The call neither fails nor gets on: nothing that trying again would change.
            return Err(IoCause::from_errno(Errno::IO));
        }
        done = start + count;
    }
    Ok(())
}

/// What is left of the slices after their first `start` bytes, as far as one call takes.
fn skip<'a>(slices: &[&'a [u8]], start: usize) -> SmallVec<[IoSlice<'a>; 16]> {
    let mut left = start;
    let mut rest = SmallVec::new();
    for slice in slices {
        match slice.get(left..) {
            Some([]) | None => left -= slice.len(),
            Some(tail) => {
                rest.push(IoSlice::new(tail));
                left = 0;
            }
        }
        if rest.len() == PARTS_MAX {
            break;
        }
    }
    rest
}

/// Extends a file from `old` to `new` bytes of allocated space that reads as zeroes. On failure the file has its
/// old size: a reservation that fails may have allocated a part, and only cutting the file gives it back.
pub(super) fn grow(file: &dyn RawFile, old: u64, new: u64, preallocate: bool) -> Result<(), IoCause> {
    assert!(old < new, "growth from {old} to {new} bytes");
    let mut result = if preallocate { allocate(file, old, new) } else { Err(Errno::OPNOTSUPP) };
    if let Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) = result {
        return give_back_on_error(file, old, fill(file, old, new));
    }
    if result.is_ok() && file.size() != Ok(new) {
        // Some systems reserve the space without moving the end.
        result = file.set_size(new);
    }
    give_back_on_error(file, old, result.map_err(IoCause::from_errno))
}

fn allocate(file: &dyn RawFile, old: u64, new: u64) -> Result<(), Errno> {
    loop {
        match file.allocate(old, new - old) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Writes zeroes, from this thread alone: parallel writes past the end would serialise in the kernel.
fn fill(file: &dyn RawFile, old: u64, new: u64) -> Result<(), IoCause> {
    file.set_size(new).map_err(IoCause::from_errno)?;
    let mut offset = old.next_multiple_of(u64_of(SECTOR));
    while offset < new {
        let (slices, count) = zeroes(new - offset);
        write_slices(file, offset, &slices, count)?;
        offset += u64_of(count);
    }
    Ok(())
}

/// At most `left` zeroes (a multiple of the sector), and how many.
fn zeroes(left: u64) -> (SmallVec<[&'static [u8]; ZEROES_PARTS]>, usize) {
    let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(ZEROES_SIZE * ZEROES_PARTS);
    let mut slices = SmallVec::new();
    let mut count = 0;
    while count < wanted {
        let slice = ZEROES.0.get(..ZEROES_SIZE.min(wanted - count)).expect("at most the length");
        slices.push(slice);
        count += slice.len();
    }
    (slices, count)
}

fn give_back_on_error(file: &dyn RawFile, old: u64, result: Result<(), IoCause>) -> Result<(), IoCause> {
    if result.is_err()
        && let Err(errno) = file.set_size(old)
    {
        log::warn!("the file could not be cut back to {old} bytes after it could not be grown: {errno}");
    }
    result
}

fn sector_start(done: usize) -> usize {
    done - done % SECTOR
}
