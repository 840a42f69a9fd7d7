//! A storage over a real file that fails where and when it is told to.
//!
//! The scripted system calls of the `io` crate (short transfers, interrupted calls, each error number) are private to
//! it, so this stands one border higher: between the engine and its storage. [`border`](crate::border) goes lower.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use understory::{Counters, Geometry, IoError, Machine};
use understory_io::{
    Buffer, Completion, IoCause, Operation, OsStorage, Park, SECTOR, Storage, Ticket, WriteParts, write_size,
};

/// A part of the file, by what lies there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Zone {
    Superblock,
    Journal,
    Grid,
}

/// Which operation fails, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) operation: Operation,
    /// Of reads and writes.
    pub(crate) zone: Option<Zone>,
    /// Operations of the kind that go well before.
    pub(crate) after: u64,
    /// Operations that fail then.
    pub(crate) times: u64,
    pub(crate) cause: IoCause,
    /// A write reaches the file with its first sector.
    pub(crate) torn: bool,
}

/// What a read or write of the engine meets.
enum Fate {
    Well,
    Fails(IoCause, bool),
}

#[derive(Debug)]
pub(crate) struct FaultyStorage {
    inner: Arc<OsStorage>,
    park: Arc<dyn Park>,
    geometry: Geometry,
    fault: Mutex<Option<Fault>>,
    /// A sync that has failed fails for good.
    sync_failed: Mutex<Option<IoCause>>,
    trap: Mutex<Option<Trap>>,
    sprung: Condvar,
}

/// What the next sync in the thread of a caller falls into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trap {
    /// It panics.
    Panic,
    /// It does not return until it is [released](FaultyStorage::release).
    Hang,
    /// It has been caught.
    Sprung,
}

impl FaultyStorage {
    /// Opens a file whose reads and writes go well until [`arm`](Self::arm).
    pub(crate) fn open(path: &Path, geometry: Geometry) -> (Machine, Arc<Self>) {
        let inner = Arc::new(OsStorage::open(path, understory_io::Options::default()).unwrap());
        let machine = Machine::os(Arc::clone(&inner), 1).unwrap();
        let park = Arc::clone(&machine.park);
        let faulty = Arc::new(Self {
            inner,
            park,
            geometry,
            fault: Mutex::new(None),
            sync_failed: Mutex::new(None),
            trap: Mutex::new(None),
            sprung: Condvar::new(),
        });
        let storage = Arc::clone(&faulty);
        (Machine { storage, ..machine }, faulty)
    }

    pub(crate) fn arm(&self, fault: Fault) {
        *self.fault.lock() = Some(fault);
    }

    /// What was armed and not met yet does not happen.
    pub(crate) fn disarm(&self) {
        *self.fault.lock() = None;
    }

    pub(crate) fn set_trap(&self, trap: Trap) {
        *self.trap.lock() = Some(trap);
    }

    /// Waits until the trap has caught somebody.
    pub(crate) fn wait_for_trap(&self) {
        let mut trap = self.trap.lock();
        while *trap != Some(Trap::Sprung) {
            self.sprung.wait(&mut trap);
        }
    }

    /// Lets go who hangs.
    pub(crate) fn release(&self) {
        *self.trap.lock() = None;
        let _woken = self.sprung.notify_all();
    }

    fn fall_into_trap(&self) {
        let mut trap = self.trap.lock();
        let Some(kind @ (Trap::Panic | Trap::Hang)) = *trap else { return };
        *trap = Some(Trap::Sprung);
        let _woken = self.sprung.notify_all();
        if kind == Trap::Panic {
            drop(trap);
            // Without a message among the test's.
            std::panic::resume_unwind(Box::new("asked for"));
        }
        while trap.is_some() {
            self.sprung.wait(&mut trap);
        }
    }

    /// Whether the fault has been met.
    pub(crate) fn was_met(&self) -> bool {
        self.fault.lock().is_none_or(|fault| fault.times == 0)
    }

    fn zone(&self, offset: u64) -> Zone {
        match offset {
            _ if offset >= self.geometry.grid_offset() => Zone::Grid,
            _ if offset >= self.geometry.journal_offset() => Zone::Journal,
            _ => Zone::Superblock,
        }
    }

    fn fate(&self, operation: Operation, offset: Option<u64>) -> Fate {
        let mut armed = self.fault.lock();
        let Some(fault) = armed.as_mut() else { return Fate::Well };
        let zone = offset.map(|offset| self.zone(offset));
        let is_meant = fault.operation == operation && (fault.zone.is_none() || fault.zone == zone);
        if !is_meant || fault.times == 0 {
            return Fate::Well;
        }
        if fault.after > 0 {
            fault.after -= 1;
            return Fate::Well;
        }
        fault.times -= 1;
        Fate::Fails(fault.cause, fault.torn)
    }

    fn failed(&self, operation: Operation, offset: u64, cause: IoCause, buffer: Option<Buffer>) -> Ticket {
        let (completer, ticket) = Ticket::pair(Arc::clone(&self.park), operation, offset);
        completer.complete(Err(cause), buffer);
        ticket
    }
}

impl Storage for FaultyStorage {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read(&self, offset: u64, buffer: Buffer) -> Ticket {
        match self.fate(Operation::Read, Some(offset)) {
            Fate::Well => self.inner.read(offset, buffer),
            Fate::Fails(cause, _) => self.failed(Operation::Read, offset, cause, Some(buffer)),
        }
    }

    fn write(&self, offset: u64, mut parts: WriteParts) -> Ticket {
        let Fate::Fails(cause, torn) = self.fate(Operation::Write, Some(offset)) else {
            return self.inner.write(offset, parts);
        };
        if torn && write_size(&parts) > SECTOR {
            parts.truncate(1);
            parts[0].len = SECTOR;
            self.inner.write(offset, parts).wait().result.unwrap();
        }
        self.failed(Operation::Write, offset, cause, None)
    }

    fn sync(&self) -> Ticket {
        let mut failed = self.sync_failed.lock();
        if let Fate::Fails(cause, _) = self.fate(Operation::Sync, None) {
            failed.get_or_insert(cause);
        }
        match *failed {
            Some(cause) => self.failed(Operation::Sync, 0, cause, None),
            None => self.inner.sync(),
        }
    }

    fn sync_now(&self) -> Result<(), IoError> {
        self.fall_into_trap();
        self.sync().wait().result
    }

    fn patience(&self) -> Option<Duration> {
        Some(Duration::from_millis(300))
    }

    fn read_now(&self, offset: u64, buffer: Buffer) -> Completion {
        match self.fate(Operation::Read, Some(offset)) {
            Fate::Well => self.inner.read_now(offset, buffer),
            Fate::Fails(cause, _) => self.failed(Operation::Read, offset, cause, Some(buffer)).wait(),
        }
    }

    fn grow(&self, size: u64) -> Result<(), IoError> {
        match self.fate(Operation::Grow, None) {
            Fate::Fails(cause, _) if size > self.size() => Err(IoError::new(Operation::Grow, size, cause)),
            _ => self.inner.grow(size),
        }
    }

    fn truncate(&self, size: u64) -> Result<(), IoError> {
        match self.fate(Operation::Truncate, None) {
            Fate::Well => self.inner.truncate(size),
            Fate::Fails(cause, _) => Err(IoError::new(Operation::Truncate, size, cause)),
        }
    }

    fn discard(&self, range: Range<u64>) -> Result<(), IoError> {
        match self.fate(Operation::Discard, None) {
            Fate::Well => self.inner.discard(range),
            Fate::Fails(cause, _) => Err(IoError::new(Operation::Discard, range.start, cause)),
        }
    }

    fn is_dense(&self) -> bool {
        self.inner.is_dense()
    }

    fn allocate(&self, range: Range<u64>) -> Result<(), IoError> {
        match self.fate(Operation::Allocate, None) {
            Fate::Well => self.inner.allocate(range),
            Fate::Fails(cause, _) => Err(IoError::new(Operation::Allocate, range.start, cause)),
        }
    }

    fn check(&self) -> Result<(), IoError> {
        self.inner.check()
    }

    fn counters(&self) -> Counters {
        self.inner.counters()
    }
}
