//! What can go wrong, in kinds that say what the caller does next.

use std::path::{Path, PathBuf};

use thiserror::Error;
use understory_forest::ForestError;
use understory_format::Op;
use understory_format::{BlockAddress, Corruption, GeometryError};
use understory_grid::GridError;
use understory_io::{IoError, OpenError};
use understory_journal::JournalError;

/// Why a call on a [`Database`](crate::Database) failed.
///
/// Where a file could be read but not used, nothing on it has been changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be opened or created as it stands. Next: correct the path, or close the other user.
    #[error(transparent)]
    Open(OpenError),
    /// The file is there but is not one this version can use. Next: take the right file or version; where it
    /// was truncated, a copy.
    #[error("{}: {source}", path.display())]
    Unusable {
        /// The file that was named.
        path: PathBuf,
        /// What is wrong with it.
        source: GridError,
    },
    /// The trees declared are not those of the file. Next: declare what the file has.
    #[error("{}: {difference}", path.display())]
    SchemaDiffers {
        /// The file that was named.
        path: PathBuf,
        /// The first difference found.
        difference: SchemaDifference,
    },
    /// The geometry asked for is not that of the file, which is fixed at its creation. Next: leave
    /// [`Options::geometry`](crate::Options::geometry) out, or name the file's.
    #[error("{}: {field} is {file} in the file, not {asked}", path.display())]
    GeometryDiffers {
        /// The file that was named.
        path: PathBuf,
        /// Which parameter differs.
        field: &'static str,
        /// Its value in the file.
        file: u64,
        /// Its value in the options.
        asked: u64,
    },
    /// The declared trees cannot be held by any file. Next: correct the declaration.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The geometry asked for is not one that a file can have. Next: correct it.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// The memory budget is too small. Next: give at least what it says.
    #[error("a memory budget of {given} bytes is too small: this file and schema need at least {needed}")]
    MemoryTooSmall {
        /// The least that would do, in bytes.
        needed: u64,
        /// The budget that was given, in bytes.
        given: u64,
    },
    /// The memory budget is more than the machine gives. Next: give less.
    #[error("a memory budget of {given} bytes is more than this machine gives")]
    MemoryTooLarge {
        /// The budget that was given, in bytes.
        given: u64,
    },
    /// An option is less than it can be, for this file. Next: give at least what it says.
    #[error("option {option} is {given}, and must be at least {needed}")]
    OptionTooSmall {
        /// The field of [`Options`](crate::Options).
        option: &'static str,
        /// The least that would do, in its unit.
        needed: u64,
        /// What was given.
        given: u64,
    },
    /// The batch exceeds the file's limit; nothing of it was applied. Next: commit it in parts.
    #[error("a batch of {size} bytes is over this file's limit of {limit}")]
    BatchTooLarge {
        /// [`Batch::size`](crate::Batch::size) of the batch, in bytes.
        size: u64,
        /// The most that the file takes, in bytes.
        limit: u64,
    },
    /// A record type that is none of the database's trees. Next: declare it in the schema.
    #[error("no tree of this database is declared by the record type of {name:?}")]
    UnknownTree {
        /// The tree's name by its record type.
        name: &'static str,
    },
    /// The database was opened for reading only. Next: open it for writing.
    #[error("the database is open for reading only")]
    ReadOnly,
    /// Commits have gone on past what a scan shows, or a writer past the checkpoint that a read-only handle shows. Next:
    /// begin the scan again; with a read-only handle, open the file again.
    #[error("what is being read has been overtaken by later commits: begin again")]
    Expired,
    /// No space is left, in the file system or under the size limit. Of a commit nothing has been done; a checkpoint or
    /// settling goes on where it stopped, with the next call that needs it. Next: make room in the file
    /// system and call again, or open the file with a larger [`Options::size_limit`](crate::Options::size_limit); or remove
    /// records and [`settle`](crate::Database::settle). Reads go on, and so do commits once there is room.
    #[error("out of space: {needed} blocks are needed, {free} are free")]
    OutOfSpace {
        /// Blocks that were wanted.
        needed: u64,
        /// Blocks that there are.
        free: u64,
    },
    /// Too many scans hold blocks at once. Next: finish some, or give more memory.
    #[error("all block buffers are held by scans in progress")]
    Busy,
    /// Bytes on the file are damaged, and so is their twin where they have one. Next: restore the file; the
    /// rest of it can still be read.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// A block cannot be read, nor its twin if it has one. Next: restore the file; the rest of it can still be read.
    #[error("{address} cannot be read: {source}")]
    Unreadable {
        /// The block.
        address: BlockAddress,
        /// What the machine says.
        source: IoError,
    },
    /// The operating system refused to read or write. After a failed write the handle takes no more writes.
    #[error(transparent)]
    Io(IoError),
    /// The batch was on its way to the disk when a write failed, or to the trees when their compaction did: after the
    /// next open it is there, whole, or not at all. Next: open the file again, and look.
    #[error("whether op {op} was committed is not known: {cause}")]
    CommitUnknown {
        /// The op that the batch has, if it was committed.
        op: Op,
        /// What failed.
        #[source]
        cause: Failure,
    },
    /// An earlier write failed: this handle takes no more commits, but reads go on. Next: open it again.
    #[error("this handle takes no more commits since it failed: {cause}")]
    Poisoned {
        /// What failed first.
        #[source]
        cause: Failure,
    },
    /// Acknowledged ops are damaged in the journal. Nothing has been changed. Next: restore the file from a copy, or
    /// give up these ops and all after them with [`Database::salvage`](crate::Database::salvage).
    #[error("{}: {source}", path.display())]
    JournalDamaged {
        /// The file that was named.
        path: PathBuf,
        /// Which ops, and how it is known.
        source: JournalError,
    },
    /// What is damaged in the journal cannot be given up: it holds ops that the checkpoint counts and that are in no
    /// table yet. Nothing has been changed. Next: restore the file from a copy; tables can still be read, with
    /// [`Database::open_read_only`](crate::Database::open_read_only).
    #[error("{}: salvage needs the ops up to {op_checkpoint}, and {source}", path.display())]
    BeyondSalvage {
        /// The file that was named.
        path: PathBuf,
        /// The last op that the checkpoint counts.
        op_checkpoint: Op,
        /// Which ops are lost, and how it is known.
        source: Box<JournalError>,
    },
}

/// What ended the life of a handle that writes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Failure {
    /// Reading or writing failed.
    #[error(transparent)]
    Io(IoError),
    /// Compaction met damage.
    #[error(transparent)]
    Corrupt(Corruption),
    /// Compaction met a block that cannot be read.
    #[error("{address} cannot be read: {source}")]
    Unreadable {
        /// The block.
        address: BlockAddress,
        /// What the machine says.
        source: IoError,
    },
    /// Compaction found no block buffer that no scan holds.
    #[error("all block buffers are held by scans in progress")]
    Busy,
    /// No space was left where it had been promised.
    #[error("out of space: {needed} blocks are needed, {free} are free")]
    OutOfSpace {
        /// Blocks that were wanted.
        needed: u64,
        /// Blocks that there are.
        free: u64,
    },
    /// The file is open for reading only.
    #[error("the database is open for reading only")]
    ReadOnly,
    /// A thread panicked in the middle of a commit.
    #[error("a thread panicked while others waited for it")]
    Panicked,
}

impl From<GridError> for Failure {
    fn from(error: GridError) -> Self {
        #[expect(clippy::wildcard_enum_match_arm, reason = "what is left is found at open")]
        match error {
            GridError::Corrupt(corruption) => Self::Corrupt(corruption),
            GridError::Io(error) | GridError::Poisoned { cause: error } => Self::Io(error),
            GridError::Unreadable { address, source } => Self::Unreadable { address, source },
            GridError::OutOfSpace { needed, free } => Self::OutOfSpace { needed, free },
            GridError::NoBuffers => Self::Busy,
            GridError::ReadOnly => Self::ReadOnly,
            other => unreachable!("open has looked at this: {other}"),
        }
    }
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Self {
        let JournalError::Io(error) = error else { unreachable!("only recovery reads the journal: {error}") };
        Self::Io(error)
    }
}

impl From<ForestError> for Failure {
    fn from(error: ForestError) -> Self {
        match error {
            ForestError::Grid(error) => error.into(),
            ForestError::Corrupt(corruption) => Self::Corrupt(corruption),
        }
    }
}

impl From<Failure> for Error {
    fn from(cause: Failure) -> Self {
        Self::Poisoned { cause }
    }
}

/// Why trees cannot be declared as they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// A schema without a tree.
    #[error("a database needs at least one tree")]
    Empty,
    /// Two trees of one name.
    #[error("two trees are named {name:?}")]
    DuplicateName {
        /// The name.
        name: &'static str,
    },
    /// More trees than the catalogue block holds.
    #[error("{count} trees are more than a catalogue of this block size holds, which is {limit}")]
    TooManyTrees {
        /// Trees declared.
        count: usize,
        /// The most there can be.
        limit: usize,
    },
    /// A record that a page of this geometry, or a chunk of a memtable (which is a block, and holds two), has no
    /// room for.
    #[error("the records of tree {name:?} are too large for the pages or the blocks of this geometry")]
    RecordTooLarge {
        /// The tree's name.
        name: &'static str,
    },
}

/// How the declared trees differ from the file's: the first difference in the order of declaration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SchemaDifference {
    /// Another number of trees.
    #[error("the file has {file} trees, {declared} are declared")]
    Count {
        /// Trees of the file.
        file: usize,
        /// Trees declared.
        declared: usize,
    },
    /// Another tree at this place.
    #[error("tree {position} is {file:?} in the file, {declared:?} is declared")]
    Name {
        /// Its place in the order of declaration, from 0.
        position: usize,
        /// Its name in the file.
        file: String,
        /// The name declared.
        declared: &'static str,
    },
    /// Records of another size.
    #[error("records of tree {name:?} have {file} bytes in the file, {declared} are declared")]
    ValueSize {
        /// The tree's name.
        name: &'static str,
        /// Their size in the file, in bytes.
        file: u32,
        /// The size declared, in bytes.
        declared: u32,
    },
    /// Another key: its fields, their offsets, sizes or types.
    #[error("the key of tree {name:?} is declared otherwise than in the file")]
    Key {
        /// The tree's name.
        name: &'static str,
    },
    /// Another usage of the tree.
    #[error("the usage of tree {name:?} is declared otherwise than in the file")]
    Usage {
        /// The tree's name.
        name: &'static str,
    },
}

impl Error {
    /// The same, of the file at `path`, if it is about a file as a whole.
    pub(crate) fn of_file(mut self, path: &Path) -> Self {
        if let Self::Unusable { path: named, .. } = &mut self {
            *named = path.into();
        }
        self
    }
}

impl From<GridError> for Error {
    fn from(error: GridError) -> Self {
        #[expect(clippy::wildcard_enum_match_arm, reason = "what is left says that the file is none of ours")]
        match error {
            GridError::Corrupt(corruption) => Self::Corrupt(corruption),
            GridError::Io(error) => Self::Io(error),
            GridError::Unreadable { address, source } => Self::Unreadable { address, source },
            GridError::OutOfSpace { needed, free } => Self::OutOfSpace { needed, free },
            GridError::NoBuffers => Self::Busy,
            GridError::Poisoned { cause } => Self::Poisoned { cause: Failure::Io(cause) },
            GridError::ReadOnly => Self::ReadOnly,
            GridError::Geometry(error) => Self::Geometry(error),
            other => Self::Unusable { path: PathBuf::new(), source: other },
        }
    }
}

impl From<ForestError> for Error {
    fn from(error: ForestError) -> Self {
        match error {
            ForestError::Grid(error) => error.into(),
            ForestError::Corrupt(corruption) => Self::Corrupt(corruption),
        }
    }
}
