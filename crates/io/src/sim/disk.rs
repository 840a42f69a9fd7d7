//! The bytes of a simulated file: what programs see, what is durable, and the changes between the two.
//!
//! # Invariants
//! - `durable` with all `changes` applied in order is `image` (checked by [`Disk::verify`] in tests).
//!
//! # Not here
//! Operations in flight, tickets, faults: `storage`.

use std::collections::VecDeque;

use crate::{SECTOR, u64_of, usize_of};

/// What a crash keeps of what was not synced: the writes that completed since the last sync that did, and the writes
/// in flight. A write in flight that is kept landed, and its completion was never told. Unless said otherwise changes
/// of size are kept; what lies beyond the end that is left is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CrashPolicy {
    /// Nothing, changes of size neither.
    #[default]
    DropUnsynced,
    /// Everything, those in flight included.
    KeepAll,
    /// What completed, nothing of what was in flight.
    KeepCompleted,
    /// What was in flight, nothing of what had completed: the cache of the disk was emptied from the wrong end.
    KeepInFlight,
    /// The oldest write only.
    KeepFirst,
    /// The newest write only.
    KeepLast,
    /// All but the oldest write.
    DropFirst,
    /// What completed, and the first half of the sectors of each write in flight (of a single one: nothing).
    TornHead,
    /// What completed, and the last half of the sectors of each write in flight (of a single one: all).
    TornTail,
    /// Every other sector of every write, from its first on.
    Alternate,
    /// Any subset, drawn from this seed, of the sectors of all writes: writes of several sectors are torn. Changes of
    /// size are kept up to some point in time.
    KeepSubset(u64),
}

impl CrashPolicy {
    /// All policies that draw nothing: what a sweep over all crashes goes through.
    pub const CLASSES: [Self; 10] = [
        Self::DropUnsynced,
        Self::KeepAll,
        Self::KeepCompleted,
        Self::KeepInFlight,
        Self::KeepFirst,
        Self::KeepLast,
        Self::DropFirst,
        Self::TornHead,
        Self::TornTail,
        Self::Alternate,
    ];

    /// Whether a sector of a write is kept.
    fn keeps(self, write: WriteAt, sector: usize, sectors: usize) -> bool {
        let WriteAt { index, count, in_flight } = write;
        match self {
            Self::DropUnsynced | Self::KeepSubset(_) => false,
            Self::KeepAll => true,
            Self::KeepCompleted => !in_flight,
            Self::KeepInFlight => in_flight,
            Self::KeepFirst => index == 0,
            Self::KeepLast => index + 1 == count,
            Self::DropFirst => index > 0,
            Self::TornHead => !in_flight || sector < sectors / 2,
            Self::TornTail => !in_flight || sector >= sectors / 2,
            Self::Alternate => sector.is_multiple_of(2),
        }
    }
}

/// A write among those that no sync covers, oldest first; those in flight come last, in the order of their submission.
#[derive(Clone, Copy)]
struct WriteAt {
    index: usize,
    count: usize,
    in_flight: bool,
}

/// A change that no sync has covered.
#[derive(Debug)]
enum Change {
    Write { offset: usize, data: Box<[u8]> },
    Resize { size: usize },
}

/// A write that had been submitted and not completed when the machine crashed.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) offset: u64,
    pub(super) data: Box<[u8]>,
}

/// The state of a simulated file.
#[derive(Debug)]
pub(super) struct Disk {
    image: Vec<u8>,
    durable: Vec<u8>,
    changes: VecDeque<Change>,
    /// Number of changes that syncs have covered: the mark of `changes[0]`.
    settled: u64,
}

impl Disk {
    /// A file with these bytes, all durable.
    pub(super) fn new(image: Vec<u8>) -> Self {
        Self { durable: image.clone(), image, changes: VecDeque::new(), settled: 0 }
    }

    pub(super) fn size(&self) -> u64 {
        u64_of(self.image.len())
    }

    pub(super) fn image(&self) -> &[u8] {
        &self.image
    }

    pub(super) fn durable(&self) -> &[u8] {
        &self.durable
    }

    /// The bytes of a range, `None` if the file ends before it does.
    pub(super) fn read(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        self.image.get(start..start.checked_add(len)?)
    }

    /// The bytes of a range, zeroes beyond the end of the file.
    pub(super) fn read_clipped(&self, offset: u64, buffer: &mut [u8]) {
        let found = self.image.get(usize_of(offset.min(self.size()))..).unwrap_or_default();
        let (start, rest) = buffer.split_at_mut(found.len().min(buffer.len()));
        start.copy_from_slice(found.get(..start.len()).expect("at most the length"));
        rest.fill(0);
    }

    /// A write that completed. The range lies in the file.
    pub(super) fn write(&mut self, offset: u64, data: Box<[u8]>) {
        let offset = usize_of(offset);
        put(&mut self.image, offset, &data);
        self.changes.push_back(Change::Write { offset, data });
    }

    /// A write that landed somewhere else: what goes past the end is lost.
    pub(super) fn write_clipped(&mut self, offset: u64, data: &[u8]) {
        let room = usize_of(self.size().saturating_sub(offset));
        let kept = data.get(..room.min(data.len())).expect("at most the length");
        self.write(offset.min(self.size()), kept.into());
    }

    /// A write that failed: some of its sectors landed all the same.
    pub(super) fn write_torn(&mut self, offset: u64, data: &[u8], rng: &mut fastrand::Rng) {
        let found = self.read(offset, data.len()).expect("a write lies within the file");
        let mut torn: Box<[u8]> = found.into();
        keep_sectors(&mut torn, 0, data, 50, rng);
        self.write(offset, torn);
    }

    pub(super) fn resize(&mut self, size: u64) {
        let size = usize_of(size);
        self.image.resize(size, 0);
        self.changes.push_back(Change::Resize { size });
    }

    /// A mark after all changes so far; a sync takes it when it is submitted.
    pub(super) fn mark(&self) -> u64 {
        self.settled + u64_of(self.changes.len())
    }

    /// A sync that was submitted at `mark` completed: the changes before it are durable.
    pub(super) fn settle(&mut self, mark: u64) {
        while self.settled < mark {
            let change = self.changes.pop_front().expect("a mark lies at or before the last change");
            change.apply(&mut self.durable);
            self.settled += 1;
        }
    }

    /// The machine crashed: what the policy keeps is all there is, and is durable.
    pub(super) fn crash(&mut self, policy: CrashPolicy, in_flight: Vec<InFlight>) {
        let mut changes = Vec::from(std::mem::take(&mut self.changes));
        self.settled += u64_of(changes.len());
        let completed = changes.len();
        changes.extend(
            in_flight
                .into_iter()
                .map(|write| Change::Write { offset: usize_of(write.offset), data: write.data }),
        );
        if let CrashPolicy::KeepSubset(seed) = policy {
            keep_subset(&mut self.durable, &changes, seed);
        } else if policy != CrashPolicy::DropUnsynced {
            keep_class(&mut self.durable, &changes, completed, policy);
        }
        self.image.clone_from(&self.durable);
    }

    /// Somebody else cut the file.
    pub(super) fn cut(&mut self, size: u64) {
        self.resize(size.min(self.size()));
        self.settle(self.mark());
    }

    /// Flips the bits of `mask` in one byte, wherever it is kept.
    pub(super) fn corrupt(&mut self, offset: u64, mask: u8) {
        let index = usize_of(offset);
        for bytes in [&mut self.image, &mut self.durable] {
            if let Some(byte) = bytes.get_mut(index) {
                *byte ^= mask;
            }
        }
        for change in &mut self.changes {
            if let Change::Write { offset, data } = change
                && let Some(byte) = index.checked_sub(*offset).and_then(|at| data.get_mut(at))
            {
                *byte ^= mask;
            }
        }
    }

    /// The invariant of this structure; after any operation.
    #[cfg(test)]
    pub(super) fn verify(&self) {
        let mut replayed = self.durable.clone();
        for change in &self.changes {
            change.apply(&mut replayed);
        }
        assert!(replayed == self.image, "the durable bytes and the changes since make the image");
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write { offset, data } => put(bytes, *offset, data),
            Self::Resize { size } => bytes.resize(*size, 0),
        }
    }
}

/// Applies sectors of writes with a probability that is drawn too, and changes of size up to a drawn one.
fn keep_subset(bytes: &mut Vec<u8>, changes: &[Change], seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let percent = rng.u32(0..=100);
    let resizes = changes.iter().filter(|change| matches!(change, Change::Resize { .. })).count();
    let mut resizes_kept = rng.usize(0..=resizes);
    for change in changes {
        match change {
            Change::Write { offset, data } => keep_sectors(bytes, *offset, data, percent, &mut rng),
            Change::Resize { size } if resizes_kept > 0 => {
                bytes.resize(*size, 0);
                resizes_kept -= 1;
            }
            Change::Resize { .. } => {}
        }
    }
}

/// Applies what the policy says; one beyond the end is lost in any case. `completed` is the number of changes before
/// those in flight.
fn keep_class(bytes: &mut Vec<u8>, changes: &[Change], completed: usize, policy: CrashPolicy) {
    let count = changes.iter().filter(|change| matches!(change, Change::Write { .. })).count();
    let mut index = 0;
    for (place, change) in changes.iter().enumerate() {
        match change {
            Change::Write { offset, data } => {
                let write = WriteAt { index, count, in_flight: place >= completed };
                let sectors = data.len().div_ceil(SECTOR);
                put_sectors(bytes, *offset, data, |sector| policy.keeps(write, sector, sectors));
                index += 1;
            }
            Change::Resize { size } => bytes.resize(*size, 0),
        }
    }
}

/// Writes each sector with the given probability; one beyond the end is lost in any case.
fn keep_sectors(bytes: &mut [u8], offset: usize, data: &[u8], percent: u32, rng: &mut fastrand::Rng) {
    put_sectors(bytes, offset, data, |_sector| rng.u32(0..100) < percent);
}

/// Writes the sectors that `keeps` wants, as far as they lie within the file.
fn put_sectors(bytes: &mut [u8], offset: usize, data: &[u8], mut keeps: impl FnMut(usize) -> bool) {
    for (index, sector) in data.chunks(SECTOR).enumerate() {
        let start = offset + index * SECTOR;
        if keeps(index)
            && let Some(place) = bytes.get_mut(start..start + sector.len())
        {
            place.copy_from_slice(sector);
        }
    }
}

fn put(bytes: &mut [u8], offset: usize, data: &[u8]) {
    let place = bytes.get_mut(offset..offset + data.len()).expect("a write lies within the file");
    place.copy_from_slice(data);
}
