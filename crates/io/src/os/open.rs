//! Opening: what a path may be, the lock, the probe of direct I/O.
//!
//! The file is opened through the page cache first; direct I/O is switched on afterwards on the same descriptor,
//! so that a refusal costs nothing and the lock is taken once.

use std::path::Path;

use rustix::fs::{FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::raw::{RawFile, UnixFile, sync_data};
use super::{DirectIo, Options};
use crate::{Arena, IoCause, IoError, OpenError, Operation, SECTOR};

/// An open file, locked if it may be written.
pub(super) struct Opened {
    pub(super) file: UnixFile,
    pub(super) size: u64,
    pub(super) direct: bool,
}

/// Makes a new file; on failure nothing is left of it.
pub(super) fn create(path: &Path, options: &Options) -> Result<Opened, OpenError> {
    assert!(!options.read_only, "a file is not created read-only");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
    let file = open_flags(path, flags)?;
    let opened = prepare(path, file, options).and_then(|opened| {
        sync_folder(path).map_err(|errno| classify(path, Operation::Open, errno))?;
        Ok(opened)
    });
    opened.inspect_err(|_| remove(path))
}

/// Takes back a creation that failed later on.
pub(super) fn remove(path: &Path) {
    if let Err(errno) = rustix::fs::unlink(path) {
        log::warn!("{}: could not be created, and what is left cannot be removed: {errno}", path.display());
    }
}

/// Opens a file that is there.
pub(super) fn open(path: &Path, options: &Options) -> Result<Opened, OpenError> {
    let flags = if options.read_only { OFlags::RDONLY } else { OFlags::RDWR };
    let file = open_flags(path, flags)?;
    prepare(path, file, options)
}

/// Never blocks (a pipe would) and never becomes the controlling terminal.
fn open_flags(path: &Path, flags: OFlags) -> Result<UnixFile, OpenError> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mode = Mode::RUSR | Mode::WUSR;
    loop {
        match rustix::fs::open(path, flags, mode) {
            Ok(fd) => return Ok(UnixFile { fd }),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(classify(path, Operation::Open, errno)),
        }
    }
}

fn prepare(path: &Path, file: UnixFile, options: &Options) -> Result<Opened, OpenError> {
    let fail = |operation| move |errno| classify(path, operation, errno);
    let stat = rustix::fs::fstat(&file.fd).map_err(fail(Operation::Open))?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind == FileType::Directory {
        return Err(OpenError::IsDirectory { path: path.into() });
    }
    if kind != FileType::RegularFile {
        return Err(OpenError::NotRegular { path: path.into() });
    }
    if !options.read_only {
        lock(&file).map_err(fail(Operation::Lock))?;
        sync_data(&file.fd).map_err(fail(Operation::Sync))?;
    }
    let direct = choose_direct(path, &file, options.direct);
    let size = file.size().map_err(fail(Operation::Open))?;
    Ok(Opened { file, size, direct })
}

/// Held by the open file itself, so it ends with it, also when the process is killed.
fn lock(file: &UnixFile) -> Result<(), Errno> {
    loop {
        match rustix::fs::flock(&file.fd, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Switches direct I/O on if it works, and says in the log if it does not.
fn choose_direct(path: &Path, file: &UnixFile, direct: DirectIo) -> bool {
    let outcome = match direct {
        DirectIo::Off => {
            // Also ends the state in which opening does not block.
            if let Err(errno) = set_direct(file, false) {
                log::debug!("{}: the flags of the open file stay as they are: {errno}", path.display());
            }
            return false;
        }
        DirectIo::Probe => set_direct(file, true).and_then(|()| probe(file)),
        DirectIo::ProbeFailing(errno) => {
            set_direct(file, true).and_then(|()| Err(Errno::from_raw_os_error(errno)))
        }
    };
    let Err(errno) = outcome else {
        return true;
    };
    log::warn!(
        "{}: direct I/O is refused ({errno}), reading and writing through the page cache",
        path.display()
    );
    if let Err(errno) = set_direct(file, false) {
        log::debug!("{}: direct I/O could not be switched off again: {errno}", path.display());
    }
    false
}

/// One real read: some file systems take the flag and refuse the transfer. An empty file answers with 0 bytes.
fn probe(file: &UnixFile) -> Result<(), Errno> {
    let buffer = Arena::new(SECTOR).ok().and_then(|arena| arena.pool(SECTOR, 1).ok()?.take());
    let mut buffer = buffer.ok_or(Errno::NOMEM)?;
    loop {
        match file.read_at(&mut buffer, 0) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
fn set_direct(file: &UnixFile, on: bool) -> Result<(), Errno> {
    let flags = if on { OFlags::DIRECT } else { OFlags::empty() };
    rustix::fs::fcntl_setfl(&file.fd, flags)
}

#[cfg(target_vendor = "apple")]
fn set_direct(file: &UnixFile, on: bool) -> Result<(), Errno> {
    rustix::fs::fcntl_nocache(&file.fd, on)
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd", target_vendor = "apple")))]
fn set_direct(_file: &UnixFile, on: bool) -> Result<(), Errno> {
    if on { Err(Errno::OPNOTSUPP) } else { Ok(()) }
}

/// Makes the name of a new file durable. Some file systems do not sync folders: then there is nothing to be done.
fn sync_folder(path: &Path) -> Result<(), Errno> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder =
        rustix::fs::open(parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    match rustix::fs::fsync(&folder) {
        Err(Errno::INVAL) => Ok(()),
        result => result,
    }
}

/// The typed error that an error number stands for.
pub(super) fn classify(path: &Path, operation: Operation, errno: Errno) -> OpenError {
    let path = path.to_path_buf();
    match errno {
        Errno::NOENT => OpenError::NotFound { path },
        Errno::ISDIR => OpenError::IsDirectory { path },
        Errno::EXIST => OpenError::AlreadyExists { path },
        Errno::ACCESS | Errno::PERM | Errno::ROFS => OpenError::Permission { path },
        Errno::WOULDBLOCK if operation == Operation::Lock => OpenError::Locked { path },
        errno => {
            let source = IoError::new(operation, 0, IoCause::from_errno(errno));
            OpenError::Io { path, source }
        }
    }
}
