//! The claim on an I/O operation in flight.
//!
//! A [`Ticket`] may be dropped: the operation still happens, and its buffer goes back to its pool when it has. The same
//! holds when a wait ends at its deadline: the operation is left behind with its buffers, and may happen later.
//!
//! # Invariants
//! - A buffer is owned by the operation until that has ended, whatever becomes of its ticket (tests
//!   `a_late_operation_keeps_its_buffer`).
//!
//! # Not here
//! Ordering: tickets of one storage complete in any order.

use std::sync::Arc;
use std::time::Duration;

use crate::handoff::{Pending, Promise, handoff};
use crate::{Buffer, IoCause, IoError, Operation, Park};

/// How an operation ended.
#[derive(Debug)]
pub struct Completion {
    /// Whether it succeeded.
    pub result: Result<(), IoError>,
    /// The buffer of a read, on success and on failure (then its bytes are unspecified). `None` for writes and
    /// syncs, and for a read whose worker died or that is late.
    pub buffer: Option<Buffer>,
}

impl Completion {
    /// The buffer of a read that succeeded.
    ///
    /// # Errors
    /// What the read failed with; the buffer goes back to its pool.
    ///
    /// # Panics
    /// If this is the completion of a write or a sync.
    pub fn into_buffer(self) -> Result<Buffer, IoError> {
        self.result?;
        Ok(self.buffer.expect("a read that succeeded gives its buffer back"))
    }
}

/// The claim on an operation in flight; [`wait`](Self::wait) gives its completion.
#[derive(Debug)]
#[must_use = "the outcome of an operation is known only from its ticket"]
pub struct Ticket {
    pending: Pending<Completion>,
    operation: Operation,
    offset: u64,
    /// In the time of the park.
    deadline: Option<Duration>,
}

/// The other end of a [`Ticket`], held by whoever carries out the operation.
#[derive(Debug)]
pub struct Completer {
    promise: Promise<Completion>,
    operation: Operation,
    offset: u64,
}

impl Ticket {
    /// A ticket that waits through `park`, and its other end. For implementations of [`Storage`](crate::Storage).
    pub fn pair(park: Arc<dyn Park>, operation: Operation, offset: u64) -> (Completer, Self) {
        let (promise, pending) = handoff(park);
        (Completer { promise, operation, offset }, Self { pending, operation, offset, deadline: None })
    }

    /// The same ticket with a deadline, so long from now by the time of its park (`None`: without). For
    /// implementations of [`Storage`](crate::Storage).
    pub fn with_deadline(mut self, after: Option<Duration>) -> Self {
        self.deadline = after.map(|after| self.pending.park().now().saturating_add(after));
        self
    }

    /// Whether the operation has ended: then [`wait`](Self::wait) returns at once. Does not step a simulation.
    pub fn is_done(&self) -> bool {
        self.pending.is_done()
    }

    /// Waits until the operation has ended, through the storage's [`Park`]; at the latest until its deadline, then it
    /// is [`IoCause::TimedOut`] and may still happen.
    pub fn wait(self) -> Completion {
        let Self { pending, operation, offset, deadline } = self;
        let failed = |cause| Completion { result: Err(IoError::new(operation, offset, cause)), buffer: None };
        if deadline.is_some_and(|deadline| !pending.wait_until(deadline)) {
            return failed(IoCause::TimedOut);
        }
        pending.wait().unwrap_or_else(|| failed(IoCause::Abandoned))
    }
}

impl Completer {
    /// Ends the operation and wakes who waits for it. An error names the operation's offset.
    pub fn complete(self, result: Result<(), IoCause>, buffer: Option<Buffer>) {
        let result = result.map_err(|cause| IoError::new(self.operation, self.offset, cause));
        self.end(result, buffer);
    }

    /// Ends the operation and wakes who waits for it.
    pub fn end(self, result: Result<(), IoError>, buffer: Option<Buffer>) {
        self.promise.fulfil(Completion { result, buffer });
    }
}
