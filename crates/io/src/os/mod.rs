//! A file of the operating system, served by a small pool of threads.
//!
//! Each thread takes operations from one queue and carries them out with positioned calls. `read_now` does
//! without the pool. Direct I/O is used where a probe shows that it works; else the page cache, with one warning in
//! the log.
//!
//! # Invariants
//! - A writer holds an exclusive lock on the file from before its first byte is read until drop.
//! - After a failed sync every later one fails alike (test `a_failed_sync_is_never_retried`).
//! - Dropping the storage completes what was submitted, then releases the lock. If nothing ends for as long as the
//!   deadline, what hangs is left behind, and with it the lock, until the system answers (test
//!   `a_storage_does_not_wait_for_ever`).
//!
//! # Not here
//! The loops around short transfers and the care with growth: `transfer`. Opening: `open`.

mod open;
mod raw;
#[cfg(test)]
mod scripted;
#[cfg(test)]
mod tests;
mod transfer;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Sender, unbounded};
use parking_lot::Mutex;

use self::raw::RawFile;
use crate::executor::{join_workers, spawn_workers};
use crate::storage::{DEADLINE, SLOW, SharedCounters, assert_part, assert_read, assert_size, assert_write};
use crate::{
    Buffer, Clock, Completer, Completion, Counters, IoCause, IoError, MonotonicClock, OpenError, Operation,
    Park, Pending, Promise, Storage, ThreadPark, Ticket, WriteParts, handoff, write_size,
};

/// Whether the page cache is bypassed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DirectIo {
    /// Bypassed if one real read shows that it works; else a warning in the log, and the page cache.
    #[default]
    Probe,
    /// Not bypassed.
    Off,
    /// For tests of the fall-back: like `Probe`, but the probing read fails with this error number.
    ProbeFailing(i32),
}

/// How a file is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Nothing is written and no lock taken: works beside a writer.
    pub read_only: bool,
    /// Whether the page cache is bypassed.
    pub direct: DirectIo,
    /// Threads that carry out operations, at least 1.
    pub threads: usize,
    /// Space is reserved by one call where the file system can (else, or if false, by writing zeroes).
    pub preallocate: bool,
    /// What tickets wait through.
    pub park: Arc<dyn Park>,
    /// A wait for an operation ends so long after it was submitted (`None`: it does not), though the operation goes
    /// on: a system that hangs becomes an error. 30 s at first. To be longer than a sync of all that a page cache may
    /// hold.
    pub deadline: Option<Duration>,
    /// An operation that takes longer counts as slow and is a warning in the log. 1 s at first.
    pub slow: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            read_only: false,
            direct: DirectIo::Probe,
            threads: 2,
            preallocate: true,
            park: Arc::new(ThreadPark::new()),
            deadline: Some(DEADLINE),
            slow: SLOW,
        }
    }
}

/// What the threads of the pool share.
#[derive(Debug)]
struct Shared {
    file: Box<dyn RawFile>,
    counters: SharedCounters,
    /// Set by the first sync that failed.
    sync_failed: Mutex<Option<IoCause>>,
    /// For the log.
    path: PathBuf,
    clock: MonotonicClock,
    slow: Duration,
    /// Number of requests that have ended.
    ended: AtomicU64,
}

/// An operation on its way to a thread of the pool.
enum Request {
    Read { offset: u64, buffer: Buffer, completer: Completer },
    Write { offset: u64, parts: WriteParts, completer: Completer },
    Sync { completer: Completer },
}

/// A file of the operating system.
#[derive(Debug)]
pub struct OsStorage {
    shared: Arc<Shared>,
    queue: Option<Sender<Request>>,
    threads: Vec<JoinHandle<()>>,
    /// Done when all threads have ended, which they do when the queue is closed and empty.
    over: Pending<()>,
    park: Arc<dyn Park>,
    deadline: Option<Duration>,
    /// The size in bytes, for writers; a reader asks the file, which may grow under it.
    size: AtomicU64,
    resizing: AtomicBool,
    preallocate: bool,
    read_only: bool,
    direct: bool,
}

impl OsStorage {
    /// Creates a file that must not exist, empty, locked, its name durable.
    ///
    /// # Errors
    /// See [`OpenError`]; then no file was left behind.
    pub fn create(path: impl AsRef<Path>, options: Options) -> Result<Self, OpenError> {
        let opened = open::create(path.as_ref(), &options)?;
        Self::start(path.as_ref(), opened, options).inspect_err(|_| open::remove(path.as_ref()))
    }

    /// Opens a file that must exist; for a writer, locks it and syncs it, so that no decision rests on bytes that
    /// are in a cache only.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing has changed on disk.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, OpenError> {
        let opened = open::open(path.as_ref(), &options)?;
        Self::start(path.as_ref(), opened, options)
    }

    fn start(path: &Path, opened: open::Opened, options: Options) -> Result<Self, OpenError> {
        let open::Opened { file, size, direct } = opened;
        let mut storage = Self::unstarted(path, Box::new(file), size, &options)
            .map_err(|source| OpenError::Io { path: path.into(), source })?;
        storage.direct = direct;
        Ok(storage)
    }

    /// Starts the pool over any file: the seam for tests.
    fn unstarted(path: &Path, file: Box<dyn RawFile>, size: u64, options: &Options) -> Result<Self, IoError> {
        let shared = Arc::new(Shared {
            file,
            counters: SharedCounters::default(),
            sync_failed: Mutex::new(None),
            path: path.into(),
            clock: MonotonicClock::new(),
            slow: options.slow,
            ended: AtomicU64::new(0),
        });
        let (queue, requests) = unbounded();
        let worker = Arc::clone(&shared);
        // Goes with the last worker.
        let (running, over) = handoff(Arc::clone(&options.park));
        let running: Arc<Promise<()>> = Arc::new(running);
        let threads = spawn_workers("understory-io", options.threads.max(1), &requests, move |request| {
            let _running = &running;
            worker.carry_out(request);
        })?;
        Ok(Self {
            shared,
            queue: Some(queue),
            threads,
            over,
            park: Arc::clone(&options.park),
            deadline: options.deadline,
            size: AtomicU64::new(size),
            resizing: AtomicBool::new(false),
            preallocate: options.preallocate,
            read_only: options.read_only,
            direct: false,
        })
    }

    /// Whether the page cache is bypassed.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// The path it was opened with.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// What its tickets wait through.
    pub fn park(&self) -> Arc<dyn Park> {
        Arc::clone(&self.park)
    }

    /// Removes the file: for who created it and then could not fill it.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn remove(self) -> Result<(), IoError> {
        rustix::fs::unlink(self.path())
            .map_err(|errno| IoError::new(Operation::Truncate, 0, IoCause::from_errno(errno)))
    }

    fn ticket(&self, operation: Operation, offset: u64) -> (Completer, Ticket) {
        let (completer, ticket) = Ticket::pair(self.park(), operation, offset);
        (completer, ticket.with_deadline(self.deadline))
    }

    fn submit(&self, request: Request) {
        let queue = self.queue.as_ref().expect("the queue is open until drop");
        queue.send(request).expect("the pool takes requests until the queue is closed");
    }

    fn resize(
        &self,
        operation: Operation,
        size: u64,
        act: impl FnOnce(u64) -> Result<(), IoCause>,
    ) -> Result<(), IoError> {
        assert_size(size);
        assert!(!self.resizing.swap(true, Ordering::Acquire), "a file is resized from one thread at a time");
        let result = act(self.size.load(Ordering::Acquire));
        if result.is_ok() {
            self.size.store(size, Ordering::Release);
        }
        self.resizing.store(false, Ordering::Release);
        result.map_err(|cause| IoError::new(operation, size, cause))
    }
}

impl Storage for OsStorage {
    fn size(&self) -> u64 {
        if self.read_only {
            return self.shared.file.size().unwrap_or_else(|_| self.size.load(Ordering::Acquire));
        }
        self.size.load(Ordering::Acquire)
    }

    fn read(&self, offset: u64, buffer: Buffer) -> Ticket {
        assert_read(offset, &buffer);
        let (completer, ticket) = self.ticket(Operation::Read, offset);
        self.submit(Request::Read { offset, buffer, completer });
        ticket
    }

    fn write(&self, offset: u64, parts: WriteParts) -> Ticket {
        assert!(!self.read_only, "a read-only storage is not written");
        let _len = assert_write(offset, &parts, self.size());
        let (completer, ticket) = self.ticket(Operation::Write, offset);
        self.submit(Request::Write { offset, parts, completer });
        ticket
    }

    fn sync(&self) -> Ticket {
        let (completer, ticket) = self.ticket(Operation::Sync, 0);
        self.submit(Request::Sync { completer });
        ticket
    }

    fn write_now(&self, offset: u64, parts: WriteParts) -> Result<(), IoError> {
        assert!(!self.read_only, "a read-only storage is not written");
        let len = assert_write(offset, &parts, self.size());
        let shared = &self.shared;
        let result = shared.timed(Operation::Write, offset, len, || shared.write(offset, &parts));
        result.map_err(|cause| IoError::new(Operation::Write, offset, cause))
    }

    fn sync_now(&self) -> Result<(), IoError> {
        let shared = &self.shared;
        let result = shared.timed(Operation::Sync, 0, 0, || shared.sync());
        result.map_err(|cause| IoError::new(Operation::Sync, 0, cause))
    }

    fn read_now(&self, offset: u64, mut buffer: Buffer) -> Completion {
        assert_read(offset, &buffer);
        let result = self.shared.read(offset, &mut buffer);
        Completion { result, buffer: Some(buffer) }
    }

    fn grow(&self, size: u64) -> Result<(), IoError> {
        assert!(!self.read_only, "a read-only storage is not grown");
        if size <= self.size() {
            return Ok(());
        }
        let file = self.shared.file.as_ref();
        self.resize(Operation::Grow, size, |old| transfer::grow(file, old, size, self.preallocate))
    }

    fn truncate(&self, size: u64) -> Result<(), IoError> {
        assert!(!self.read_only, "a read-only storage is not truncated");
        assert!(size <= self.size(), "truncation to {size} bytes does not extend");
        self.resize(Operation::Truncate, size, |_| {
            self.shared.file.set_size(size).map_err(IoCause::from_errno)
        })
    }

    fn discard(&self, range: Range<u64>) -> Result<(), IoError> {
        assert!(!self.read_only, "a read-only storage keeps its space");
        assert_part(&range, self.size());
        let start = range.start;
        let result = transfer::discard(self.shared.file.as_ref(), range);
        result.map_err(|cause| IoError::new(Operation::Discard, start, cause))
    }

    fn allocate(&self, range: Range<u64>) -> Result<(), IoError> {
        assert!(!self.read_only, "a read-only storage keeps its space");
        assert_part(&range, self.size());
        let start = range.start;
        let result = transfer::back(self.shared.file.as_ref(), range, self.preallocate);
        result.map_err(|cause| IoError::new(Operation::Allocate, start, cause))
    }

    fn allocated_size(&self) -> u64 {
        self.shared.file.allocated().unwrap_or_else(|_| self.size())
    }

    fn is_dense(&self) -> bool {
        self.shared.file.first_hole().is_ok_and(|hole| hole >= self.size())
    }

    fn check(&self) -> Result<(), IoError> {
        let failed = |at, cause| Err(IoError::new(Operation::Check, at, cause));
        let answers = self.shared.file.size().and_then(|size| Ok((size, self.shared.file.is_unlinked()?)));
        let (size, is_unlinked) = match answers {
            Ok(answers) => answers,
            Err(errno) => return failed(0, IoCause::from_errno(errno)),
        };
        // In this order: while the size is changed, neither the one before nor the one after is right.
        let is_settled = !self.read_only && !self.resizing.load(Ordering::Acquire);
        if is_settled && size < self.size.load(Ordering::Acquire) {
            return failed(size, IoCause::Truncated);
        }
        if is_unlinked { failed(0, IoCause::Unlinked) } else { Ok(()) }
    }

    fn patience(&self) -> Option<Duration> {
        self.deadline
    }

    fn counters(&self) -> Counters {
        self.shared.counters.get()
    }
}

impl Drop for OsStorage {
    fn drop(&mut self) {
        drop(self.queue.take());
        if self.wait_for_threads() {
            join_workers(&mut self.threads);
        } else {
            log::error!("{}: operations hang, the file stays open and locked", self.path().display());
        }
    }
}

impl OsStorage {
    /// False if requests are left and none ended for as long as the deadline. Threads that are not joined keep the
    /// file and their buffers.
    fn wait_for_threads(&self) -> bool {
        let own = std::thread::current().id();
        let Some(patience) =
            self.deadline.filter(|_| self.threads.iter().all(|thread| thread.thread().id() != own))
        else {
            return true;
        };
        loop {
            let ended = self.shared.ended.load(Ordering::Acquire);
            if self.over.wait_until(self.park.now().saturating_add(patience)) {
                return true;
            }
            if self.shared.ended.load(Ordering::Acquire) == ended {
                return false;
            }
        }
    }
}

impl Shared {
    fn carry_out(&self, request: Request) {
        match request {
            Request::Read { offset, mut buffer, completer } => {
                let result = self.read(offset, &mut buffer);
                self.ended.fetch_add(1, Ordering::Release);
                completer.end(result, Some(buffer));
            }
            Request::Write { offset, parts, completer } => {
                let len = write_size(&parts);
                let result = self.timed(Operation::Write, offset, len, || self.write(offset, &parts));
                drop(parts);
                self.end(completer, result);
            }
            Request::Sync { completer } => {
                let result = self.timed(Operation::Sync, 0, 0, || self.sync());
                self.end(completer, result);
            }
        }
    }

    fn end(&self, completer: Completer, result: Result<(), IoCause>) {
        self.ended.fetch_add(1, Ordering::Release);
        completer.complete(result, None);
    }

    /// Counts what is slow, and says so.
    fn timed<T>(&self, operation: Operation, offset: u64, len: usize, act: impl FnOnce() -> T) -> T {
        let start = self.clock.now();
        let result = act();
        let took = self.clock.now().saturating_sub(start);
        if took > self.slow {
            self.counters.add_slow();
            let path = self.path.display();
            log::warn!("{path}: slow: {operation} of {len} bytes at byte {offset} took {took:?}");
        }
        result
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), IoError> {
        let len = buffer.len();
        self.timed(Operation::Read, offset, len, || transfer::read(self.file.as_ref(), offset, buffer))?;
        self.counters.add_read(buffer.len());
        Ok(())
    }

    fn write(&self, offset: u64, parts: &WriteParts) -> Result<(), IoCause> {
        transfer::write(self.file.as_ref(), offset, parts)?;
        self.counters.add_write(write_size(parts));
        Ok(())
    }

    /// The kernel reports a lost write once, to one caller, and then forgets it: so the first failure is remembered,
    /// and one sync at a time asks. Nothing but syncs waits for the lock.
    fn sync(&self) -> Result<(), IoCause> {
        let mut failed = self.sync_failed.lock();
        if let Some(cause) = *failed {
            return Err(cause);
        }
        self.file.sync().map_err(|errno| *failed.insert(IoCause::from_errno(errno)))?;
        self.counters.add_sync();
        Ok(())
    }
}
