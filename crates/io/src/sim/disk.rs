//! The bytes of a simulated file: what programs see, what is durable, and the changes between the two.
//!
//! # Invariants
//! - `durable` with all `changes` applied in order is `image` (checked by [`Disk::verify`] in tests).
//!
//! # Not here
//! Operations in flight, tickets, faults: `storage`.

use std::collections::VecDeque;

use crate::{SECTOR, u64_of, usize_of};

/// What a crash keeps of what was not synced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CrashPolicy {
    /// Nothing.
    #[default]
    DropUnsynced,
    /// Any subset, drawn from this seed, of the sectors of the writes since the last completed sync, those in
    /// flight included: writes of several sectors are torn. Changes of size are kept up to some point in time.
    KeepSubset(u64),
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
        let changes = std::mem::take(&mut self.changes);
        self.settled += u64_of(changes.len());
        if let CrashPolicy::KeepSubset(seed) = policy {
            let in_flight = in_flight
                .into_iter()
                .map(|write| Change::Write { offset: usize_of(write.offset), data: write.data });
            let changes: Vec<Change> = changes.into_iter().chain(in_flight).collect();
            keep_subset(&mut self.durable, &changes, seed);
        }
        self.image.clone_from(&self.durable);
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

/// Writes each sector with the given probability; one beyond the end is lost in any case.
fn keep_sectors(bytes: &mut [u8], offset: usize, data: &[u8], percent: u32, rng: &mut fastrand::Rng) {
    for (index, sector) in data.chunks(SECTOR).enumerate() {
        let start = offset + index * SECTOR;
        if rng.u32(0..100) < percent
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
