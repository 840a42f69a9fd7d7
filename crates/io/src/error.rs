//! Errors of the machine: which operation, where, and why.

use std::fmt;
use std::path::PathBuf;

use rustix::io::Errno;

/// What the machine was asked to do when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Opening or creating a file, and what belongs to it (status, directory entry).
    Open,
    /// Taking the exclusive lock of a file.
    Lock,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Making completed writes durable.
    Sync,
    /// Extending a file with allocated space.
    Grow,
    /// Cutting a file.
    Truncate,
    /// Taking back space for a part of a file that was given up.
    Allocate,
    /// Giving up the space of a part of a file.
    Discard,
    /// Looking whether the file is still what it was.
    Check,
    /// Taking memory.
    Map,
    /// Starting a worker thread.
    Spawn,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Lock => "lock",
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::Grow => "grow",
            Self::Truncate => "truncate",
            Self::Allocate => "allocate",
            Self::Discard => "discard",
            Self::Check => "check",
            Self::Map => "map memory",
            Self::Spawn => "start a worker",
        })
    }
}

/// Why an operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum IoCause {
    /// The operating system's error number.
    #[error("{}", std::io::Error::from_raw_os_error(*.0))]
    Os(i32),
    /// The file ends inside what should be read, or before where it ended.
    #[error("the file ends before the bytes asked for")]
    Truncated,
    /// The file has no name any more: it is gone when it is closed.
    #[error("the file was removed while it was in use")]
    Unlinked,
    /// The file system is full, a quota is used up, or the file is at its size limit.
    #[error("no space left (file system full, quota used up, or file size limit reached)")]
    NoSpace,
    /// The simulated machine has crashed; nothing works until it is started again.
    #[error("the simulated machine crashed")]
    Crashed,
    /// A fault that a test asked for.
    #[error("injected fault")]
    Injected,
    /// The worker that should have done the operation ended first.
    #[error("the worker ended before the operation was done")]
    Abandoned,
    /// The operation did not end before its deadline. It is left behind, and may still happen: what a write should
    /// have changed is unspecified from now on.
    #[error("no answer within the deadline")]
    TimedOut,
    /// The arena has less memory left than a pool needs. Both in bytes.
    #[error("the arena has {left} bytes left, {needed} are needed")]
    ArenaFull {
        /// Bytes that the pool needs.
        needed: usize,
        /// Bytes that are left.
        left: usize,
    },
}

impl IoCause {
    /// The cause that an operating system's error number stands for.
    pub(crate) fn from_errno(errno: Errno) -> Self {
        match errno {
            Errno::NOSPC | Errno::FBIG | Errno::DQUOT => Self::NoSpace,
            other => Self::Os(other.raw_os_error()),
        }
    }
}

/// An operation of the machine that failed: what, where, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{operation} at byte {offset}: {source}")]
pub struct IoError {
    /// What was asked for.
    pub operation: Operation,
    /// Byte offset in the file: where the operation began, or the first sector that cannot be read; the size asked
    /// for when growing, truncating or mapping; the size found when a check found the file cut; else 0.
    pub offset: u64,
    /// Why it failed.
    pub source: IoCause,
}

impl IoError {
    /// An error from its parts.
    pub fn new(operation: Operation, offset: u64, source: IoCause) -> Self {
        Self { operation, offset, source }
    }

    /// Whether the file system or a limit has no room (also quota and file size limit).
    pub fn is_no_space(&self) -> bool {
        self.source == IoCause::NoSpace
    }

    /// Whether the bytes are lost, and the machine is not in trouble otherwise: reading fewer of them may save the rest.
    pub fn is_of_media(&self) -> bool {
        match self.source {
            IoCause::Truncated | IoCause::Injected => true,
            IoCause::Os(number) => MEDIA.iter().any(|errno| errno.raw_os_error() == number),
            IoCause::Unlinked
            | IoCause::NoSpace
            | IoCause::Crashed
            | IoCause::Abandoned
            | IoCause::TimedOut
            | IoCause::ArenaFull { .. } => false,
        }
    }
}

/// What systems answer for sectors that do not give their bytes.
#[cfg(any(target_os = "linux", target_os = "android"))]
const MEDIA: [Errno; 6] =
    [Errno::IO, Errno::NODATA, Errno::BADMSG, Errno::ILSEQ, Errno::UCLEAN, Errno::REMOTEIO];
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const MEDIA: [Errno; 3] = [Errno::IO, Errno::BADMSG, Errno::ILSEQ];

/// Why a file could not be opened or created. Nothing has changed on disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No file at this path, or no folder to create it in.
    #[error("{}: no such file or folder", .path.display())]
    NotFound {
        /// The path as given.
        path: PathBuf,
    },
    /// The path is a folder.
    #[error("{}: is a folder, not a file", .path.display())]
    IsDirectory {
        /// The path as given.
        path: PathBuf,
    },
    /// The path is a pipe, a socket, a device: nothing that can be a data file.
    #[error("{}: is not a regular file", .path.display())]
    NotRegular {
        /// The path as given.
        path: PathBuf,
    },
    /// A file to be created is already there.
    #[error("{}: already exists", .path.display())]
    AlreadyExists {
        /// The path as given.
        path: PathBuf,
    },
    /// Another process (or another handle of this one) writes the file.
    #[error("{}: locked by another process", .path.display())]
    Locked {
        /// The path as given.
        path: PathBuf,
    },
    /// The file or its folder may not be written (or read) by this user.
    #[error("{}: permission denied", .path.display())]
    Permission {
        /// The path as given.
        path: PathBuf,
    },
    /// Any other failure.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The path as given.
        path: PathBuf,
        /// What failed.
        source: IoError,
    },
}
