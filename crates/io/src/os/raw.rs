//! One call each: the seam between the loops of `transfer` and the system, scripted in tests.

use std::fmt::Debug;
use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::io::Errno;

/// The calls on an open file. Transfers may be short; nothing is retried here.
pub(super) trait RawFile: Send + Sync + Debug {
    fn size(&self) -> Result<u64, Errno>;
    /// Bytes that it takes of the file system.
    fn allocated(&self) -> Result<u64, Errno> {
        self.size()
    }
    /// Whether no name leads to the file any more.
    fn is_unlinked(&self) -> Result<bool, Errno>;
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Errno>;
    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> Result<usize, Errno>;
    fn sync(&self) -> Result<(), Errno>;
    fn allocate(&self, offset: u64, len: u64) -> Result<(), Errno>;
    fn discard(&self, offset: u64, len: u64) -> Result<(), Errno>;
    /// Where the first hole of the file begins: at its end if it has none.
    fn first_hole(&self) -> Result<u64, Errno>;
    fn set_size(&self, size: u64) -> Result<(), Errno>;
}

/// A file descriptor.
#[derive(Debug)]
pub(super) struct UnixFile {
    pub(super) fd: OwnedFd,
}

/// Gives up a lock at once: a process that another thread is about to start has a copy of the descriptor for a moment,
/// and with it would have the lock.
impl Drop for UnixFile {
    fn drop(&mut self) {
        // Closing does the same, if later.
        let _best_effort = rustix::fs::flock(&self.fd, FlockOperation::Unlock);
    }
}

impl RawFile for UnixFile {
    fn size(&self) -> Result<u64, Errno> {
        let stat = rustix::fs::fstat(&self.fd)?;
        u64::try_from(stat.st_size).map_err(|_| Errno::OVERFLOW)
    }

    fn allocated(&self) -> Result<u64, Errno> {
        // In units of 512 bytes, whatever the file system.
        let sectors = rustix::fs::fstat(&self.fd)?.st_blocks;
        u64::try_from(sectors).map(|sectors| sectors.saturating_mul(512)).map_err(|_| Errno::OVERFLOW)
    }

    fn is_unlinked(&self) -> Result<bool, Errno> {
        Ok(rustix::fs::fstat(&self.fd)?.st_nlink == 0)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
        rustix::io::pread(&self.fd, buffer, offset)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> Result<usize, Errno> {
        match parts {
            [part] => rustix::io::pwrite(&self.fd, part, offset),
            parts => rustix::io::pwritev(&self.fd, parts, offset),
        }
    }

    fn sync(&self) -> Result<(), Errno> {
        sync_data(self.fd.as_fd())
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<(), Errno> {
        rustix::fs::fallocate(&self.fd, FallocateFlags::empty(), offset, len)
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn discard(&self, offset: u64, len: u64) -> Result<(), Errno> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.fd, flags, offset, len)
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn discard(&self, _offset: u64, _len: u64) -> Result<(), Errno> {
        Err(Errno::OPNOTSUPP)
    }

    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple", target_os = "freebsd"))]
    fn first_hole(&self) -> Result<u64, Errno> {
        rustix::fs::seek(&self.fd, rustix::fs::SeekFrom::Hole(0))
    }

    #[cfg(not(any(
        target_os = "linux",
        target_os = "android",
        target_vendor = "apple",
        target_os = "freebsd"
    )))]
    fn first_hole(&self) -> Result<u64, Errno> {
        Err(Errno::OPNOTSUPP)
    }

    fn set_size(&self, size: u64) -> Result<(), Errno> {
        rustix::fs::ftruncate(&self.fd, size)
    }
}

/// Data and what is needed to find it again (the size).
#[cfg(not(target_vendor = "apple"))]
pub(super) fn sync_data(fd: impl AsFd) -> Result<(), Errno> {
    rustix::fs::fdatasync(fd)
}

/// Only this call reaches the medium on Apple's systems; file systems without it get the ordinary one.
#[cfg(target_vendor = "apple")]
pub(super) fn sync_data(fd: impl AsFd) -> Result<(), Errno> {
    match rustix::fs::fcntl_fullfsync(fd.as_fd()) {
        Err(Errno::NOTSUP | Errno::NOTTY | Errno::INVAL) => rustix::fs::fsync(fd),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Mode, OFlags};

    use super::*;

    #[test]
    fn a_copy_of_the_descriptor_keeps_no_lock() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = || {
            let flags = OFlags::RDWR | OFlags::CREATE;
            let fd = rustix::fs::open(folder.path().join("file"), flags, Mode::RUSR | Mode::WUSR);
            UnixFile { fd: fd.expect("opened") }
        };
        let lock = |file: &UnixFile| rustix::fs::flock(&file.fd, FlockOperation::NonBlockingLockExclusive);
        let first = open();
        lock(&first).expect("free");
        let copy = rustix::io::dup(&first.fd).expect("a copy");
        assert_eq!(lock(&open()), Err(Errno::WOULDBLOCK));
        drop(first);
        lock(&open()).expect("free again");
        drop(copy);
    }
}
