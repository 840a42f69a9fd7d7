//! Whether an error is one that what happened to the storage explains, and what it means for what was asked.
//!
//! # Not here
//! What happened, and where: `harm`.

use understory::{Error, Failure, GridError, JournalError};
use understory_format::{BlockAddress, Corruption, Place};
use understory_io::{IoCause, IoError, Operation};

use crate::harm::Harm;
use crate::trace::Violation;
use crate::tree::ReadError;

/// A file opens as long as fewer copies of its superblock are harmed.
const SUPERBLOCKS_LOST: usize = 3;

/// What an error means for a commit or a call that moves the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It did not happen, and may be tried again.
    NotNow,
    /// It did not happen, and this handle takes nothing more.
    Never,
    /// Nobody knows whether op so-and-so happened, and this handle takes nothing more.
    Unknown(Option<u64>),
}

/// Judges the error of a commit.
pub(crate) fn of_write(error: &Error, harm: &Harm) -> Result<Refusal, Violation> {
    let explained = |refusal| match is_explained(error, harm) {
        true => Ok(refusal),
        false => Err(Violation::new(format!("nothing explains that a write failed: {error} ({harm:?})"))),
    };
    #[expect(clippy::wildcard_enum_match_arm, reason = "what is left is no error of a write")]
    match error {
        Error::OutOfSpace { .. } => explained(Refusal::NotNow),
        Error::CommitUnknown { op, .. } => explained(Refusal::Unknown(Some(op.get()))),
        Error::Poisoned { .. } => explained(Refusal::Never),
        Error::Busy => Ok(Refusal::NotNow),
        _ => Err(Violation::new(format!("a commit failed in a way that is none of its own: {error:?}"))),
    }
}

/// Judges the error of a call that moves the clock, or of `close`.
pub(crate) fn of_call(error: &Error, harm: &Harm) -> Result<Refusal, Violation> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "what is left is what a commit may get")]
    match error {
        Error::Io(_) | Error::Corrupt(_) | Error::Unreadable { .. } if is_explained(error, harm) => {
            Ok(Refusal::Never)
        }
        _ => of_write(error, harm),
    }
}

/// Judges the error of a read. What was read before it stands. Gives a word for the counts.
pub(crate) fn of_read(error: &ReadError, harm: &Harm) -> Result<&'static str, Violation> {
    let error = match error {
        ReadError::Wrong(words) => return Err(Violation::new(words.clone())),
        ReadError::Engine(error) => error.as_ref(),
    };
    #[expect(clippy::wildcard_enum_match_arm, reason = "what is left is no error of a read")]
    let word = match error {
        Error::Expired => return Ok("read: expired"),
        Error::Busy => return Ok("read: busy"),
        Error::Corrupt(_) => "read: corrupt",
        Error::Io(_) | Error::Unreadable { .. } => "read: failed",
        _ => "",
    };
    match !word.is_empty() && is_explained(error, harm) {
        true => Ok(word),
        false => Err(Violation::new(format!("nothing explains that a read failed: {error} ({harm:?})"))),
    }
}

/// What an error at open means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// The machine crashed again.
    Crashed,
    /// It is worth another try, without faults.
    Again,
    /// Acknowledged ops are lost, the first of them known, and the file says so.
    Damaged { first: u64, last: u64 },
    /// The file cannot be opened.
    Lost(&'static str),
}

/// Judges the error of an open.
pub(crate) fn of_open(error: &Error, harm: &Harm) -> Result<Closed, Violation> {
    if !is_explained(error, harm) {
        return Err(Violation::new(format!("nothing explains that open failed: {error} ({harm:?})")));
    }
    if harm.crashed {
        return Ok(Closed::Crashed);
    }
    #[expect(clippy::wildcard_enum_match_arm, reason = "what is left was looked at before, or is the file's")]
    match error {
        Error::JournalDamaged { source: JournalError::Damaged { first, last, .. }, .. } => {
            Ok(Closed::Damaged { first: first.get(), last: last.get() })
        }
        Error::Corrupt(_) => Ok(Closed::Lost("open: corrupt")),
        Error::Unreadable { .. } => Ok(Closed::Again),
        Error::Unusable { .. } => Ok(Closed::Lost("open: unusable")),
        _ => Ok(Closed::Again),
    }
}

/// Judges the error of a salvage, which never asks for itself.
pub(crate) fn of_salvage(error: &Error, harm: &Harm) -> Result<(), Violation> {
    if matches!(error, Error::JournalDamaged { .. }) {
        return Err(Violation::new(format!("salvage gives nothing up, and does not say why: {error}")));
    }
    of_open(error, harm).map(drop)
}

/// Whether the cause that an error names is among what happened.
fn is_explained(error: &Error, harm: &Harm) -> bool {
    #[expect(clippy::wildcard_enum_match_arm, reason = "what is left is never explained by the storage")]
    match error {
        Error::OutOfSpace { .. } => harm.was_full || harm.crashed,
        #[expect(clippy::wildcard_enum_match_arm, reason = "what is left is never explained by the storage")]
        Error::CommitUnknown { cause, .. } | Error::Poisoned { cause } => match cause {
            Failure::Io(error) => is_io_explained(error, harm),
            Failure::Unreadable { address, source } => is_read_explained(*address, source, harm),
            Failure::Corrupt(corruption) => is_corruption_explained(corruption, harm),
            _ => false,
        },
        Error::Corrupt(corruption) => is_corruption_explained(corruption, harm),
        Error::JournalDamaged { source: JournalError::Damaged { position, .. }, .. } => {
            harm.is_group_hit(*position)
        }
        Error::BeyondSalvage { source, .. } => {
            matches!(**source, JournalError::Damaged { position, .. } if harm.is_group_hit(position))
        }
        Error::Unusable { source, .. } => is_refusal_explained(source, harm),
        Error::Io(error) => is_io_explained(error, harm),
        Error::Unreadable { address, source } => is_read_explained(*address, source, harm),
        _ => false,
    }
}

/// Whether a file that is none of ours, or none any more, is so because of what happened.
fn is_refusal_explained(error: &GridError, harm: &Harm) -> bool {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what is left does not follow from what befalls storage"
    )]
    match error {
        GridError::Io(error) => is_io_explained(error, harm),
        GridError::Unreadable { address, source } => is_read_explained(*address, source, harm),
        GridError::Corrupt(corruption) => is_corruption_explained(corruption, harm),
        GridError::Truncated { .. } => harm.is_cut(),
        GridError::QuorumLost { .. } | GridError::NotUnderstory => harm.superblocks_hit() >= SUPERBLOCKS_LOST,
        _ => false,
    }
}

/// Whether what an error calls damaged was harmed. One that does not say what it is about is never explained.
fn is_corruption_explained(corruption: &Corruption, harm: &Harm) -> bool {
    match corruption.place {
        Place::Block(address) | Place::Page(address, _) => harm.is_block_hit(address),
        Place::Superblock { .. } => harm.superblocks_hit() >= SUPERBLOCKS_LOST,
        Place::Unplaced | _ => false,
    }
}

/// Whether a block that cannot be read is one that was harmed.
fn is_read_explained(address: BlockAddress, error: &IoError, harm: &Harm) -> bool {
    is_io_explained(error, harm) && (harm.crashed || harm.is_block_hit(address))
}

fn is_io_explained(error: &IoError, harm: &Harm) -> bool {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what is left does not happen in a simulation, or is not asked for"
    )]
    match error.source {
        IoCause::Crashed => harm.crashed,
        IoCause::NoSpace => harm.was_full,
        IoCause::Truncated => harm.is_cut(),
        IoCause::Os(_) | IoCause::TimedOut if error.operation == Operation::Read => {
            harm.is_byte_hit(error.offset)
        }
        IoCause::Os(_) | IoCause::TimedOut => harm.write_failed,
        _ => false,
    }
}
