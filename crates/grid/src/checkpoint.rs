//! The durable root: free set, trailers, superblock, in the order that leaves the old or the new one.
//!
//! ```text
//! release the old trailers -> encode the free set -> take addresses for the new trailers, move the generations on
//! -> write the trailers -> all writes done -> sync -> two copies -> sync -> two copies -> sync
//! ```
//!
//! # Invariants
//! - A crash at any operation leaves the old or the new state (`a_crash_leaves_the_old_or_the_new_state`).
//! - The running grid and the one opened from its file hold equal free sets (`a_reopened_grid_is_in_an_equal_state`).
//! - Without room for the trailers nothing changes. What fails later poisons the grid, as memory is ahead of the file.
//! - Superblock sequences only grow, and no superblock is submitted after a failed write or sync.
//!
//! # Not here
//! When a checkpoint is due, and what its beat and ops are: the forest.

use understory_format::{
    Beat, BlockAddress, CheckpointState, Checksum, FreeSetRoot, LocalState, ManifestRoot, Op, Placement,
    Superblock, TwinRef, trailer, u32_of, u64_of, usize_of,
};

use crate::error::GridError;
use crate::grid::{Grid, Root};
use crate::superblock;

/// What the forest says at a checkpoint; the grid adds the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointUpdate {
    /// The first beat after it: the one that is open when the file is opened.
    pub beat: Beat,
    /// The last op that it counts.
    pub op_checkpoint: Op,
    /// The last op whose effects are all in tables; at most `op_checkpoint`.
    pub op_flushed: Op,
    /// Sum of the charges of all ops up to `op_checkpoint`.
    pub charge_total: u64,
    /// Rolling hash over the work of all beats.
    pub rolling_hash: Checksum,
    /// The manifest log.
    pub manifest: ManifestRoot,
}

/// The free set as it goes into the file.
#[derive(Debug)]
struct Staged {
    encoded: Vec<u8>,
    /// First copy and twin of each trailer block, in turn.
    addresses: Vec<BlockAddress>,
    highest: u64,
}

impl Grid {
    /// Makes the present state durable; gives the checkpoint's id. All blocks that were written before are durable
    /// then.
    ///
    /// # Errors
    /// [`GridError::OutOfSpace`] if there is no room for the free set: then nothing has changed, nor if
    /// the file cannot be extended. Any other error poisons the grid.
    ///
    /// # Panics
    /// If there is a live reservation, or `op_flushed` is beyond `op_checkpoint`.
    pub fn checkpoint(&self, update: &CheckpointUpdate) -> Result<Checksum, GridError> {
        self.checkpoint_with(update, |_| ())
    }

    /// A checkpoint that also changes the local part of the superblock. Sequence and parent are the grid's.
    ///
    /// # Errors
    /// As [`Grid::checkpoint`].
    ///
    /// # Panics
    /// As [`Grid::checkpoint`].
    pub fn checkpoint_with(
        &self,
        update: &CheckpointUpdate,
        change: impl FnOnce(&mut LocalState),
    ) -> Result<Checksum, GridError> {
        assert!(update.op_flushed <= update.op_checkpoint, "a checkpoint counts what it says is flushed");
        let before = self.checkpoint_state();
        let next = CheckpointState {
            number: before.number + 1,
            parent: before.id(),
            beat: update.beat,
            op_checkpoint: update.op_checkpoint,
            op_flushed: update.op_flushed,
            charge_total: update.charge_total,
            rolling_hash: update.rolling_hash,
            manifest: update.manifest,
            ..before
        };
        self.make_durable(next, change)
    }

    /// Writes a superblock with the newest checkpoint and a changed local part.
    ///
    /// # Errors
    /// [`GridError::Io`], [`GridError::Poisoned`], [`GridError::ReadOnly`].
    pub fn update_local(&self, change: impl FnOnce(&mut LocalState)) -> Result<(), GridError> {
        self.check_writable()?;
        let _turn = self.superblock_turn.take();
        let checkpoint = self.checkpoint_state();
        let sequence = self.root.lock().sequence_seen + 1;
        self.install(checkpoint, sequence, change)
    }

    /// Writes `next`, completed by free set and highest address, as the new root.
    pub(crate) fn make_durable(
        &self,
        next: CheckpointState,
        change: impl FnOnce(&mut LocalState),
    ) -> Result<Checksum, GridError> {
        self.check_writable()?;
        let _turn = self.superblock_turn.take();
        let staged = self.stage()?;
        let written = self.write_staged(next, &staged, change);
        written.map_err(|error| if self.is_poisoned() { error } else { self.poisoned_by(error) })
    }

    /// Encodes the free set and takes the addresses for it; all of it or nothing.
    fn stage(&self) -> Result<Staged, GridError> {
        let old = self.root.lock().trailers.clone();
        let mut encoded = Vec::new();
        {
            let mut free_set = self.free_set.lock();
            for &address in &old {
                free_set.release(address);
            }
            free_set.encode(&mut encoded);
        }
        let count = trailer::chunk_count(self.geometry.block_size, u64_of(encoded.len()));
        let reserved = self.reserve(2 * count);
        let mut free_set = self.free_set.lock();
        let mut reservation = match reserved {
            Ok(reservation) => reservation,
            Err(error) => {
                old.iter().for_each(|&address| free_set.unrelease(address));
                return Err(error);
            }
        };
        let addresses = (0..2 * count).map(|_| free_set.acquire(&mut reservation)).collect();
        free_set.forfeit(reservation);
        free_set.rotate();
        let highest = free_set.highest();
        Ok(Staged { encoded, addresses, highest })
    }

    fn write_staged(
        &self,
        next: CheckpointState,
        staged: &Staged,
        change: impl FnOnce(&mut LocalState),
    ) -> Result<Checksum, GridError> {
        let last = self.write_trailers(staged, next.beat)?;
        self.sync()?;
        let checkpoint = CheckpointState {
            free_set: FreeSetRoot {
                last: Some(last),
                size: u64_of(staged.encoded.len()),
                checksum: Checksum::of(&staged.encoded),
                block_count: u32_of(staged.addresses.len() / 2),
            },
            block_count_max: staged.highest,
            ..next
        };
        let sequence = self.root.lock().sequence_seen + 1;
        self.install(checkpoint, sequence, change)?;
        self.root.lock().trailers.clone_from(&staged.addresses);
        Ok(checkpoint.id())
    }

    fn write_trailers(&self, staged: &Staged, beat: Beat) -> Result<TwinRef, GridError> {
        let pieces = staged.encoded.chunks(usize_of(trailer::capacity(self.geometry.block_size)));
        let count = u32_of(pieces.len());
        let mut previous = None;
        for ((index, bytes), pair) in (0..).zip(pieces).zip(staged.addresses.chunks_exact(2)) {
            let &[address, twin] = pair else { unreachable!("pairs have two") };
            let mut buffer = self.buffer()?;
            let placement = Placement { address, twin: Some(twin), tree: None, beat };
            let chunk = trailer::Chunk { previous, index, count, total_size: u64_of(staged.encoded.len()) };
            let checksum = trailer::encode(&mut buffer, &placement, &chunk, bytes);
            previous = Some(TwinRef { address, twin, checksum });
            drop(self.write(buffer)?);
        }
        Ok(previous.expect("an encoded free set has at least one chunk"))
    }

    /// Writes a superblock; who calls has the turn.
    pub(crate) fn install(
        &self,
        checkpoint: CheckpointState,
        sequence: u64,
        change: impl FnOnce(&mut LocalState),
    ) -> Result<(), GridError> {
        if self.is_poisoned() {
            return Err(GridError::Poisoned);
        }
        let (mut local, parent, seen, order) = {
            let root = self.root.lock();
            (root.superblock.local, root.checksum, root.sequence_seen, root.write_order)
        };
        assert!(sequence > seen, "no superblock sequence is used twice");
        change(&mut local);
        let superblock = Superblock { checkpoint, local: LocalState { sequence, parent, ..local } };
        let written = superblock::write(&*self.machine.storage, &self.sectors, &superblock, order);
        let checksum = written.map_err(|error| self.poisoned_by(error.into()))?;
        self.counts.superblocks_written.one();
        let mut root = self.root.lock();
        let trailers = std::mem::take(&mut root.trailers);
        *root = Root { superblock, checksum, sequence_seen: sequence, write_order: [0, 1, 2, 3], trailers };
        Ok(())
    }
}
