//! A file whose calls fall short, are interrupted and fail as a script says; strict about direct I/O.

use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;

use super::raw::RawFile;
use crate::{SECTOR, u64_of, usize_of};

/// How the calls behave.
#[derive(Debug, Default)]
pub(super) struct Script {
    /// Transfers move a random number of bytes up to what was asked for, now and then none but EINTR.
    pub(super) short: Option<fastrand::Rng>,
    /// Every transfer moves at most this many bytes.
    pub(super) transfer_max: Option<usize>,
    /// Reads and writes fail so if they touch this byte; up to it they get.
    pub(super) bad: Option<(u64, Errno)>,
    /// Reads that touch one of these sectors fail whole with EIO.
    pub(super) unreadable: Vec<u64>,
    /// Reads of more bytes fail whole with EIO.
    pub(super) request_max: Option<usize>,
    /// So many transfers fail with EAGAIN.
    pub(super) busy: u32,
    pub(super) unlinked: bool,
    /// The file cannot be larger than this.
    pub(super) size_max: Option<(u64, Errno)>,
    /// `allocate` fails so.
    pub(super) allocate: Option<Errno>,
    /// `discard` fails so.
    pub(super) discard: Option<Errno>,
    /// The next `sync` fails so.
    pub(super) sync: Option<Errno>,
    pub(super) syncs: u32,
    /// Transfers and syncs wait until it is open.
    pub(super) gate: Option<Arc<Gate>>,
    /// And then take so long.
    pub(super) delay: Option<Duration>,
}

/// Closed at first.
#[derive(Debug, Default)]
pub(super) struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    pub(super) fn open(&self) {
        *self.open.lock() = true;
        let _woken = self.changed.notify_all();
    }

    pub(super) fn close(&self) {
        *self.open.lock() = false;
    }

    fn pass(&self) {
        let mut open = self.open.lock();
        while !*open {
            self.changed.wait(&mut open);
        }
    }
}

#[derive(Debug)]
pub(super) struct ScriptedFile {
    pub(super) bytes: Mutex<Vec<u8>>,
    pub(super) script: Mutex<Script>,
}

impl ScriptedFile {
    pub(super) fn new(bytes: Vec<u8>, script: Script) -> Self {
        Self { bytes: Mutex::new(bytes), script: Mutex::new(script) }
    }

    /// The kernel fails a request whole, whatever part of it is bad.
    fn fail_whole(&self, offset: u64, len: usize) -> Result<(), Errno> {
        let script = self.script.lock();
        let touches = |bad: &u64| (offset..offset + u64_of(len)).contains(bad);
        let fails = script.unreadable.iter().any(touches) || script.request_max.is_some_and(|max| len > max);
        if fails { Err(Errno::IO) } else { Ok(()) }
    }

    fn pass_gate(&self) {
        let (gate, delay) = {
            let script = self.script.lock();
            (script.gate.clone(), script.delay)
        };
        if let Some(gate) = gate {
            gate.pass();
        }
        if let Some(delay) = delay {
            std::thread::sleep(delay);
        }
    }

    /// How many of `len` bytes at `offset` this call moves.
    fn count(&self, offset: u64, len: usize) -> Result<usize, Errno> {
        let mut script = self.script.lock();
        if script.busy > 0 {
            script.busy -= 1;
            return Err(Errno::AGAIN);
        }
        let mut count = len;
        if let Some(rng) = &mut script.short {
            if rng.u8(..8) == 0 {
                return Err(Errno::INTR);
            }
            // Seldom nothing at all, or most calls would get nowhere; a short sector is the case of interest.
            count = rng.usize(1..=len);
            if count < SECTOR && rng.bool() {
                count = len;
            }
        }
        count = count.min(script.transfer_max.unwrap_or(usize::MAX));
        match script.bad {
            Some((bad, errno)) if (offset..offset + u64_of(count)).contains(&bad) => {
                if bad == offset {
                    Err(errno)
                } else {
                    Ok(usize_of(bad - offset))
                }
            }
            _ => Ok(count),
        }
    }
}

fn assert_direct(offset: u64, bytes: &[u8]) {
    assert_eq!(offset % u64_of(SECTOR), 0, "direct I/O starts at a sector");
    assert_eq!(bytes.len() % SECTOR, 0, "direct I/O moves sectors");
    assert_eq!(bytes.as_ptr().align_offset(SECTOR), 0, "direct I/O wants aligned memory");
}

impl RawFile for ScriptedFile {
    fn size(&self) -> Result<u64, Errno> {
        Ok(u64_of(self.bytes.lock().len()))
    }

    fn is_unlinked(&self) -> Result<bool, Errno> {
        Ok(self.script.lock().unlinked)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
        self.pass_gate();
        assert_direct(offset, buffer);
        let count = self.count(offset, buffer.len())?;
        self.fail_whole(offset, buffer.len())?;
        let bytes = self.bytes.lock();
        let rest = bytes.get(usize_of(offset)..).unwrap_or_default();
        let count = count.min(rest.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> Result<usize, Errno> {
        self.pass_gate();
        assert!(parts.len() <= 1024, "one call takes so many pieces");
        parts.iter().for_each(|part| assert_direct(offset, part));
        let data: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let count = self.count(offset, data.len())?;
        let mut bytes = self.bytes.lock();
        bytes[usize_of(offset)..][..count].copy_from_slice(&data[..count]);
        Ok(count)
    }

    fn sync(&self) -> Result<(), Errno> {
        self.pass_gate();
        let mut script = self.script.lock();
        script.syncs += 1;
        script.sync.take().map_or(Ok(()), Err)
    }

    /// Like the real one on a full file system: what fits stays allocated.
    fn allocate(&self, offset: u64, len: u64) -> Result<(), Errno> {
        let script = self.script.lock();
        if let Some(errno) = script.allocate {
            return Err(errno);
        }
        let end = offset + len;
        let (size, result) = match script.size_max {
            Some((max, errno)) if end > max => (max, Err(errno)),
            _ => (end, Ok(())),
        };
        let mut bytes = self.bytes.lock();
        let size = bytes.len().max(usize_of(size));
        bytes.resize(size, 0);
        result
    }

    fn discard(&self, offset: u64, len: u64) -> Result<(), Errno> {
        if let Some(errno) = self.script.lock().discard {
            return Err(errno);
        }
        self.bytes.lock()[usize_of(offset)..][..usize_of(len)].fill(0);
        Ok(())
    }

    fn first_hole(&self) -> Result<u64, Errno> {
        self.size()
    }

    fn set_size(&self, size: u64) -> Result<(), Errno> {
        if let Some((max, errno)) = self.script.lock().size_max
            && size > max
        {
            return Err(errno);
        }
        self.bytes.lock().resize(usize_of(size), 0);
        Ok(())
    }
}
