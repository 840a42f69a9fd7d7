//! Whole transfers out of calls that may be short, and growth that leaves no trace when it fails.
//!
//! Direct I/O takes offsets, lengths and addresses in whole sectors only. A short transfer may end inside a
//! sector, so the next call starts again at the start of that sector.
//!
//! A read that the medium fails goes on sector by sector: the kernel fails a request whole, though most of it may be
//! readable.

use std::io::IoSlice;
use std::ops::Range;
use std::time::Duration;

use rustix::io::Errno;
use smallvec::SmallVec;

use super::raw::RawFile;
use crate::{IoCause, IoError, Operation, SECTOR, WriteParts, u64_of, write_size};

/// Most pieces that one call takes, on all systems.
const PARTS_MAX: usize = 1024;

/// Zeroes to write, aligned for direct I/O.
#[repr(align(4096))]
struct Zeroes([u8; ZEROES_SIZE]);
const ZEROES_SIZE: usize = 64 << 10;
static ZEROES: Zeroes = Zeroes([0; ZEROES_SIZE]);
/// Zeroes are written in requests of up to 1 MiB.
const ZEROES_PARTS: usize = 16;

/// After so many calls that neither fail nor get on, trying again would change nothing.
const STUCK_MAX: u32 = 16;

/// So often in a row, a millisecond apart, is a system asked that is busy.
const BUSY_MAX: u32 = 1000;

/// How far a transfer has got, in bytes.
#[derive(Default)]
struct Progress {
    done: usize,
    /// Calls in a row that did not get beyond `done`.
    stuck: u32,
    /// Calls in a row that the system was too busy for.
    busy: u32,
}

impl Progress {
    /// Where the next call starts: direct I/O starts at a sector only.
    fn restart(&self) -> usize {
        self.done - self.done % SECTOR
    }

    /// A call that started at or before `done` got up to `end`.
    fn moved_to(&mut self, end: usize) -> Result<(), IoCause> {
        if end > self.done {
            *self = Self { done: end, ..Self::default() };
            return Ok(());
        }
        self.stuck += 1;
        if self.stuck < STUCK_MAX { Ok(()) } else { Err(IoCause::from_errno(Errno::IO)) }
    }

    /// A call failed: is it worth trying again?
    fn failed(&mut self, errno: Errno) -> Result<(), IoCause> {
        match errno {
            Errno::INTR => Ok(()),
            Errno::AGAIN if self.busy < BUSY_MAX => {
                self.busy += 1;
                std::thread::sleep(Duration::from_millis(1));
                Ok(())
            }
            errno => Err(IoCause::from_errno(errno)),
        }
    }
}

/// Fills the buffer from `offset`. The error names `offset`, or the first sector that the medium does not give.
pub(super) fn read(file: &dyn RawFile, offset: u64, buffer: &mut [u8]) -> Result<(), IoError> {
    let mut progress = Progress::default();
    // Bytes that one call asks for.
    let mut most = usize::MAX;
    let failed = |at, cause| IoError::new(Operation::Read, at, cause);
    while progress.done < buffer.len() {
        let (done, start) = (progress.done, progress.restart());
        let place = offset + u64_of(start);
        let rest = buffer.get_mut(start..).expect("done is less than the length");
        let len = rest.len().min(most);
        let rest = rest.get_mut(..len).expect("at most the length");
        match file.read_at(rest, place) {
            Ok(count) => {
                assert!(count <= len, "a read gives no more than was asked for");
                if start + count <= done {
                    check_end(file, offset + u64_of(done)).map_err(|cause| failed(offset, cause))?;
                }
                progress.moved_to(start + count).map_err(|cause| failed(offset, cause))?;
            }
            Err(Errno::IO) if len > SECTOR => most = SECTOR,
            Err(Errno::IO) => return Err(failed(place, IoCause::from_errno(Errno::IO))),
            Err(errno) => progress.failed(errno).map_err(|cause| failed(offset, cause))?,
        }
    }
    Ok(())
}

/// A read got no further than `end`: does the file end there?
fn check_end(file: &dyn RawFile, end: u64) -> Result<(), IoCause> {
    let size = file.size().map_err(IoCause::from_errno)?;
    if end < size { Ok(()) } else { Err(IoCause::Truncated) }
}

/// Writes all parts, one after another, from `offset`.
pub(super) fn write(file: &dyn RawFile, offset: u64, parts: &WriteParts) -> Result<(), IoCause> {
    let total = write_size(parts);
    let slices: SmallVec<[&[u8]; 16]> = parts.iter().map(|part| part.bytes()).collect();
    write_slices(file, offset, &slices, total)
}

fn write_slices(file: &dyn RawFile, offset: u64, slices: &[&[u8]], total: usize) -> Result<(), IoCause> {
    let mut progress = Progress::default();
    while progress.done < total {
        let start = progress.restart();
        let rest = skip(slices, start);
        match file.write_at(&rest, offset + u64_of(start)) {
            Ok(count) => {
                assert!(count <= total - start, "a write takes no more than it was given");
                progress.moved_to(start + count)?;
            }
            Err(errno) => progress.failed(errno)?,
        }
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
    if is_unsupported(result) {
        let filled = file.set_size(new).map_err(IoCause::from_errno).and_then(|()| fill(file, old, new));
        return give_back_on_error(file, old, filled);
    }
    if result.is_ok() && file.size() != Ok(new) {
        // Some systems reserve the space without moving the end.
        result = file.set_size(new);
    }
    give_back_on_error(file, old, result.map_err(IoCause::from_errno))
}

/// Whether the file system has no such call.
fn is_unsupported(result: Result<(), Errno>) -> bool {
    matches!(result, Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL))
}

/// Takes space for a part of a file; what is there is lost where that takes writing.
pub(super) fn back(file: &dyn RawFile, range: Range<u64>, preallocate: bool) -> Result<(), IoCause> {
    let Range { start, end } = range;
    let result = if preallocate { allocate(file, start, end) } else { Err(Errno::OPNOTSUPP) };
    if is_unsupported(result) {
        return fill(file, start, end);
    }
    result.map_err(IoCause::from_errno)
}

/// Gives the space of a part of a file back, where the file system can take it.
pub(super) fn discard(file: &dyn RawFile, range: Range<u64>) -> Result<(), IoCause> {
    loop {
        match file.discard(range.start, range.end - range.start) {
            Err(Errno::INTR) => {}
            result if is_unsupported(result) => return Ok(()),
            result => return result.map_err(IoCause::from_errno),
        }
    }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::scripted::{Script, ScriptedFile};
    use super::*;
    use crate::{Arena, Buffer, WritePart};

    fn buffer(sectors: usize) -> Buffer {
        let arena = Arena::new(sectors * SECTOR).expect("memory");
        arena.pool(sectors * SECTOR, 1).expect("room").take().expect("free")
    }

    fn failed(at: usize, cause: IoCause) -> IoError {
        IoError::new(Operation::Read, u64_of(at), cause)
    }

    fn random_parts(rng: &mut fastrand::Rng) -> WriteParts {
        let part = |rng: &mut fastrand::Rng| {
            let mut buffer = buffer(3);
            rng.fill(&mut buffer);
            WritePart { buffer: Arc::new(buffer), len: rng.usize(1..=3) * SECTOR }
        };
        (0..rng.usize(1..=5)).map(|_| part(rng)).collect()
    }

    /// Whatever the calls move at a time: all bytes arrive, in whole sectors.
    #[test]
    fn short_transfers_are_completed() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let size = 40 * SECTOR;
            let mut model = vec![0; size];
            let script = Script { short: Some(rng.fork()), ..Script::default() };
            let file = ScriptedFile::new(vec![0; size], script);
            for _ in 0..10 {
                let parts = random_parts(&mut rng);
                let total = write_size(&parts);
                let offset = rng.usize(0..=(size - total) / SECTOR) * SECTOR;
                write(&file, u64_of(offset), &parts).expect("written");
                let data: Vec<u8> = parts.iter().flat_map(|part| part.bytes().to_vec()).collect();
                model[offset..][..total].copy_from_slice(&data);
                let mut found = buffer(4);
                let offset = rng.usize(0..=36) * SECTOR;
                read(&file, u64_of(offset), &mut found).expect("read");
                assert!(found[..] == model[offset..][..found.len()]);
            }
            assert!(*file.bytes.lock() == model);
        }
    }

    #[test]
    fn the_end_of_the_file_is_truncated() {
        for (size, offset, expected) in [
            (0, 0, Err(IoCause::Truncated)),
            (100, 0, Err(IoCause::Truncated)),
            (2 * SECTOR - 1, 0, Err(IoCause::Truncated)),
            (2 * SECTOR, 0, Ok(())),
            (2 * SECTOR, 1, Err(IoCause::Truncated)),
            (3 * SECTOR, 1, Ok(())),
            (3 * SECTOR, 7, Err(IoCause::Truncated)),
        ] {
            for short in [None, Some(fastrand::Rng::with_seed(1))] {
                let file = ScriptedFile::new(vec![1; size], Script { short, ..Script::default() });
                let result = read(&file, u64_of(offset * SECTOR), &mut buffer(2));
                let expected = expected.map_err(|cause| failed(offset * SECTOR, cause));
                assert_eq!(result, expected, "{size} bytes, read at sector {offset}");
            }
        }
    }

    #[test]
    fn errors_keep_their_number() {
        for (errno, expected) in [
            (Errno::IO, IoCause::Os(Errno::IO.raw_os_error())),
            (Errno::NOSPC, IoCause::NoSpace),
            (Errno::FBIG, IoCause::NoSpace),
            (Errno::DQUOT, IoCause::NoSpace),
        ] {
            for bad in [0, 1, SECTOR, 2 * SECTOR + 5] {
                let script = Script { bad: Some((u64_of(bad), errno)), ..Script::default() };
                let file = ScriptedFile::new(vec![0; 4 * SECTOR], script);
                let part = WritePart { buffer: Arc::new(buffer(3)), len: 3 * SECTOR };
                let stuck = bad % SECTOR != 0;
                // A call that stops inside a sector and starts there again never meets the error itself.
                let wanted = if stuck { IoCause::Os(Errno::IO.raw_os_error()) } else { expected };
                assert_eq!(write(&file, 0, &smallvec::smallvec![part]), Err(wanted));
                let at = if errno == Errno::IO && !stuck { bad } else { 0 };
                assert_eq!(read(&file, 0, &mut buffer(3)), Err(failed(at, wanted)));
            }
        }
    }

    /// A read of ten sectors of a file of which these cannot be read; a whole request fails that touches one.
    fn check_unreadable(sectors: &[usize], short: Option<u64>, expected: Option<usize>) {
        let bytes: Vec<u8> = (0..12).flat_map(|sector| [sector; SECTOR]).collect();
        let unreadable = sectors.iter().map(|sector| u64_of(sector * SECTOR)).collect();
        let short = short.map(fastrand::Rng::with_seed);
        let file = ScriptedFile::new(bytes.clone(), Script { unreadable, short, ..Script::default() });
        let mut found = buffer(10);
        let result = read(&file, u64_of(SECTOR), &mut found);
        let eio = IoCause::Os(Errno::IO.raw_os_error());
        assert_eq!(result.err(), expected.map(|sector| failed(sector * SECTOR, eio)), "{sectors:?}");
        assert!(expected.is_some() || found[..] == bytes[SECTOR..11 * SECTOR]);
    }

    #[test]
    fn only_what_is_unreadable_fails() {
        for short in [None, Some(1), Some(2), Some(3)] {
            check_unreadable(&[], short, None);
            check_unreadable(&[0, 11], short, None);
            check_unreadable(&[1], short, Some(1));
            check_unreadable(&[10], short, Some(10));
            check_unreadable(&[7, 4, 9], short, Some(4));
        }
    }

    /// The medium recovers when it is asked for less.
    #[test]
    fn a_request_that_fails_whole_may_succeed_in_pieces() {
        for most in [1, 2, 3] {
            let script = Script { request_max: Some(most * SECTOR), ..Script::default() };
            let file = ScriptedFile::new(vec![7; 9 * SECTOR], script);
            let mut found = buffer(9);
            read(&file, 0, &mut found).expect("read in pieces");
            assert!(found.iter().all(|byte| *byte == 7));
        }
    }

    #[test]
    fn a_busy_system_is_asked_again() {
        for (times, expected) in [(3, Ok(())), (u32::MAX, Err(IoCause::Os(Errno::AGAIN.raw_os_error())))] {
            let file = ScriptedFile::new(vec![7; SECTOR], Script { busy: times, ..Script::default() });
            assert_eq!(read(&file, 0, &mut buffer(1)).map_err(|error| error.source), expected);
        }
        let file = ScriptedFile::new(vec![7; SECTOR], Script { busy: 3, ..Script::default() });
        let part = WritePart { buffer: Arc::new(buffer(1)), len: SECTOR };
        write(&file, 0, &smallvec::smallvec![part]).expect("written");
        assert!(file.bytes.lock().iter().all(|byte| *byte == 0));
    }

    #[test]
    fn more_pieces_than_one_call_takes() {
        let mut piece = buffer(1);
        piece.fill(5);
        let part = WritePart { buffer: Arc::new(piece), len: SECTOR };
        let parts: WriteParts = (0..2 * PARTS_MAX + 3).map(|_| part.clone()).collect();
        let file = ScriptedFile::new(vec![0; (2 * PARTS_MAX + 4) * SECTOR], Script::default());
        write(&file, 0, &parts).expect("written");
        let bytes = file.bytes.lock();
        assert_eq!(bytes.iter().filter(|byte| **byte == 5).count(), (2 * PARTS_MAX + 3) * SECTOR);
    }

    /// Grows a file full of ones from `old` to `new` sectors, and looks at what is left.
    fn check_grow(script: Script, preallocate: bool, expected: Result<(), IoCause>) {
        let (old, new) = (3 * SECTOR + 10, 600 * SECTOR);
        let file = ScriptedFile::new(vec![1; old], script);
        assert_eq!(grow(&file, u64_of(old), u64_of(new), preallocate), expected);
        let bytes = file.bytes.lock();
        assert_eq!(bytes.len(), if expected.is_ok() { new } else { old });
        assert!(bytes[..old].iter().all(|byte| *byte == 1), "what was there stays");
        assert!(bytes[old..].iter().all(|byte| *byte == 0), "what is new is zero");
    }

    #[test]
    fn growth_is_whole_or_leaves_no_trace() {
        let max = |sectors: usize, errno| Script {
            size_max: Some((u64_of(sectors * SECTOR), errno)),
            ..Script::default()
        };
        let refused = |errno| Script { allocate: Some(errno), ..Script::default() };
        check_grow(Script::default(), true, Ok(()));
        check_grow(Script::default(), false, Ok(()));
        check_grow(refused(Errno::OPNOTSUPP), true, Ok(()));
        check_grow(refused(Errno::NOSYS), true, Ok(()));
        check_grow(refused(Errno::IO), true, Err(IoCause::Os(Errno::IO.raw_os_error())));
        for preallocate in [false, true] {
            check_grow(max(10, Errno::NOSPC), preallocate, Err(IoCause::NoSpace));
            check_grow(max(599, Errno::FBIG), preallocate, Err(IoCause::NoSpace));
            check_grow(max(600, Errno::NOSPC), preallocate, Ok(()));
        }
        // The size can be set, but the zeroes do not fit.
        let full = Script { bad: Some((u64_of(400 * SECTOR), Errno::NOSPC)), ..Script::default() };
        check_grow(full, false, Err(IoCause::NoSpace));
        let short = Script { short: Some(fastrand::Rng::with_seed(3)), ..Script::default() };
        check_grow(short, false, Ok(()));
    }
}
