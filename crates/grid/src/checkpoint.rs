//! The durable root: free set, trailers, superblock, in the order that leaves the old or the new one.
//!
//! ```text
//! begin:  release the old trailers -> encode the free set -> take addresses for the new trailers -> move the
//!         generations on
//! finish: write the trailers -> all blocks handed over until then are written -> sync -> the file is still there ->
//!         two copies -> sync -> two copies -> sync
//! ```
//!
//! Begin settles what the checkpoint says. Finish does the I/O, on any thread, while the next blocks are reserved,
//! written and released; it takes no notice of them, and they are no part of the checkpoint.
//!
//! # Invariants
//! - A crash at any operation leaves the old or the new state, whatever is written beside (`a_crash_leaves_...`,
//!   `a_crash_between_...`, `a_crash_while_a_job_finishes_...`).
//! - The running grid and the one opened from its file hold equal free sets (`a_reopened_grid_is_in_an_equal_state`).
//! - Without room for the trailers nothing changes. What fails later poisons the grid, as memory is ahead of the file.
//! - At most one checkpoint is begun and not finished, and no block becomes free meanwhile (asserted).
//! - Superblock sequences only grow, and no superblock is submitted after a failed write or sync, nor if the file was
//!   cut or removed by somebody else.
//! - A superblock's local part is that of the one before, changed by who writes it: superblocks between begin and
//!   finish lose nothing (`local_superblocks_beside_are_all_kept`).
//!
//! # Not here
//! When a checkpoint is due, and what its beat and ops are: the forest.

use std::fmt;

use understory_format::{
    Beat, BlockAddress, CheckpointState, Checksum, FreeSetRoot, LocalState, ManifestRoot, Op, Placement,
    Superblock, TwinRef, trailer, u32_of, u64_of, usize_of,
};

use understory_io::Buffer;

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

/// What changes the local part of the superblock.
type LocalChange = Box<dyn FnOnce(&mut LocalState) + Send>;

/// A checkpoint that was begun: what it says is settled, nothing of it is written. For
/// [`Grid::finish_checkpoint`], on any thread. To drop it instead is only for a grid that is not used any more.
#[must_use = "a checkpoint is durable only when it is finished"]
pub struct PendingCheckpoint {
    staged: Staged,
    change: LocalChange,
}

impl PendingCheckpoint {
    /// Number of the checkpoint.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.staged.next.number
    }
}

impl fmt::Debug for PendingCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingCheckpoint").field("next", &self.staged.next).finish_non_exhaustive()
    }
}

/// A checkpoint whose free set is encoded, and whose trailers have addresses.
#[derive(Debug)]
pub(crate) struct Staged {
    /// All but the free set's root.
    next: CheckpointState,
    encoded: Vec<u8>,
    /// First copy and twin of each trailer block, in turn.
    addresses: Vec<BlockAddress>,
}

impl Grid {
    /// Makes the present state durable; gives the checkpoint's id. All blocks that were written before are durable
    /// then.
    ///
    /// # Errors
    /// As [`Grid::begin_checkpoint`] and [`Grid::finish_checkpoint`].
    ///
    /// # Panics
    /// As [`Grid::begin_checkpoint`].
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
        let staged = self.stage_update(update)?;
        self.finish(staged, change)
    }

    /// Settles what a checkpoint says: all blocks that were written, acquired and released until now, and `update`.
    /// Writes nothing; the file may grow by the blocks that hold the free set. `change` is made to the local part of
    /// the superblock when that is written, in the same copies.
    ///
    /// From here on blocks may again be reserved, written and released, beside [`Grid::finish_checkpoint`]; none
    /// becomes free until that has returned ([`Grid::free_due`]).
    ///
    /// # Errors
    /// [`GridError::OutOfSpace`] if there is no room for the free set, [`GridError::Io`] if the file cannot be
    /// extended: then nothing has changed. [`GridError::Poisoned`], [`GridError::ReadOnly`].
    ///
    /// # Panics
    /// If there is a live reservation, a checkpoint that was begun and not finished, or `op_flushed` is beyond
    /// `op_checkpoint`.
    pub fn begin_checkpoint(
        &self,
        update: &CheckpointUpdate,
        change: impl FnOnce(&mut LocalState) + Send + 'static,
    ) -> Result<PendingCheckpoint, GridError> {
        let staged = self.stage_update(update)?;
        Ok(PendingCheckpoint { staged, change: Box::new(change) })
    }

    /// Makes a checkpoint that was begun durable; gives its id. All that does I/O is here: trailers, sync, superblock.
    /// For any thread, beside all other calls.
    ///
    /// # Errors
    /// [`GridError::Io`] if a write or sync fails, here or in another thread, [`GridError::Poisoned`] if one had failed
    /// before: the grid is poisoned, as memory is ahead of the file.
    ///
    /// # Panics
    /// If the checkpoint was begun by another grid.
    pub fn finish_checkpoint(&self, pending: PendingCheckpoint) -> Result<Checksum, GridError> {
        let PendingCheckpoint { staged, change } = pending;
        self.finish(staged, change)
    }

    /// Number of the newest checkpoint that was begun, durable or not. A block that is released now is settled as
    /// released by the checkpoint with the next number.
    #[must_use]
    pub fn staged_number(&self) -> u64 {
        self.staging.lock().number
    }

    /// Number of the newest checkpoint after which [`Grid::free_due`] was called; at open, of the one before the
    /// newest.
    ///
    /// A block that is released while [`Grid::staged_number`] is `n` is not handed out again, and its bytes stay,
    /// before this is `n + 2`: its release is *fresh* until checkpoint `n + 1` encodes it, then *older* until checkpoint
    /// `n + 2` does, then *due*, and [`Grid::free_due`] frees what is due
    /// (`a_released_block_stays_until_the_second_checkpoint`).
    #[must_use]
    pub fn freed_number(&self) -> u64 {
        self.staging.lock().freed
    }

    /// Writes a superblock with the newest durable checkpoint and a changed local part.
    ///
    /// # Errors
    /// [`GridError::Io`], [`GridError::Poisoned`], [`GridError::ReadOnly`].
    pub fn update_local(&self, change: impl FnOnce(&mut LocalState)) -> Result<(), GridError> {
        self.check_writable()?;
        let _turn = self.superblock_turn.take();
        let sequence = self.root.lock().sequence_seen + 1;
        self.install(self.checkpoint_state(), sequence, change)
    }

    fn stage_update(&self, update: &CheckpointUpdate) -> Result<Staged, GridError> {
        assert!(update.op_flushed <= update.op_checkpoint, "a checkpoint counts what it says is flushed");
        let before = self.checkpoint_state();
        self.stage(CheckpointState {
            number: before.number + 1,
            parent: before.id(),
            beat: update.beat,
            op_checkpoint: update.op_checkpoint,
            op_flushed: update.op_flushed,
            charge_total: update.charge_total,
            rolling_hash: update.rolling_hash,
            manifest: update.manifest,
            ..before
        })
    }

    /// Encodes the free set and takes the addresses for it; all of it or nothing.
    pub(crate) fn stage(&self, next: CheckpointState) -> Result<Staged, GridError> {
        self.check_writable()?;
        let old = {
            let staging = self.staging.lock();
            assert!(!staging.pending, "a checkpoint is begun when the one before is durable");
            staging.trailers.clone()
        };
        let encoded = self.encode_without(&old);
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
        let addresses: Vec<_> = (0..2 * count).map(|_| free_set.acquire(&mut reservation)).collect();
        free_set.forfeit(reservation);
        free_set.rotate();
        let next = CheckpointState { block_count_max: free_set.highest(), ..next };
        drop(free_set);
        let mut staging = self.staging.lock();
        staging.number = next.number;
        staging.pending = true;
        staging.trailers.clone_from(&addresses);
        Ok(Staged { next, encoded, addresses })
    }

    /// The free set after the release of the trailers of the checkpoint before.
    fn encode_without(&self, trailers: &[BlockAddress]) -> Vec<u8> {
        let mut encoded = Vec::new();
        let mut free_set = self.free_set.lock();
        for &address in trailers {
            free_set.release(address);
        }
        free_set.encode(&mut encoded);
        encoded
    }

    /// Writes what was staged; a failure poisons.
    pub(crate) fn finish(
        &self,
        staged: Staged,
        change: impl FnOnce(&mut LocalState),
    ) -> Result<Checksum, GridError> {
        let number = staged.next.number;
        assert_eq!(self.staged_number(), number, "a checkpoint is finished by the grid that began it");
        let checkpoint = self.write_staged(&staged)?;
        {
            let _turn = self.superblock_turn.take();
            let sequence = self.root.lock().sequence_seen + 1;
            self.install(checkpoint, sequence, change)?;
        }
        self.staging.lock().pending = false;
        Ok(checkpoint.id())
    }

    /// Writes the free set, and makes it durable together with all blocks that were written before.
    fn write_staged(&self, staged: &Staged) -> Result<CheckpointState, GridError> {
        let last = self.write_trailers(staged)?;
        self.sync()?;
        let free_set = FreeSetRoot {
            last: Some(last),
            size: u64_of(staged.encoded.len()),
            checksum: Checksum::of(&staged.encoded),
            block_count: u32_of(staged.addresses.len() / 2),
        };
        Ok(CheckpointState { free_set, ..staged.next })
    }

    fn write_trailers(&self, staged: &Staged) -> Result<TwinRef, GridError> {
        let pieces = staged.encoded.chunks(usize_of(trailer::capacity(self.geometry.block_size)));
        let count = u32_of(pieces.len());
        let mut previous = None;
        for ((index, bytes), pair) in (0..).zip(pieces).zip(staged.addresses.chunks_exact(2)) {
            let &[address, twin] = pair else { unreachable!("pairs have two") };
            let mut buffer = self.trailer_buffer()?;
            let placement = Placement { address, twin: Some(twin), tree: None, beat: staged.next.beat };
            let chunk = trailer::Chunk { previous, index, count, total_size: u64_of(staged.encoded.len()) };
            let checksum = trailer::encode(&mut buffer, &placement, &chunk, bytes);
            previous = Some(TwinRef { address, twin, checksum });
            drop(self.hand_over(buffer, false)?);
        }
        Ok(previous.expect("an encoded free set has at least one chunk"))
    }

    /// A buffer for a trailer, of a pool of their own: a checkpoint does not fail because others hold all blocks.
    fn trailer_buffer(&self) -> Result<Buffer, GridError> {
        if let Some(buffer) = self.trailers.take() {
            return Ok(buffer);
        }
        self.flush()?;
        // They are not cached, and nobody has a reference to one before the checkpoint is durable.
        Ok(self.trailers.take().expect("the trailers before are written, and nobody else holds them"))
    }

    /// Writes a superblock; who calls has the turn.
    pub(crate) fn install(
        &self,
        checkpoint: CheckpointState,
        sequence: u64,
        change: impl FnOnce(&mut LocalState),
    ) -> Result<(), GridError> {
        self.check_writable()?;
        // A root in a file that nobody will find again, or without the blocks it leads to, helps nobody.
        self.machine.storage.check().map_err(|error| self.poisoned_by(error))?;
        let (mut local, parent, seen, order) = {
            let root = self.root.lock();
            (root.superblock.local, root.checksum, root.sequence_seen, root.write_order)
        };
        assert!(sequence > seen, "no superblock sequence is used twice");
        change(&mut local);
        let superblock = Superblock { checkpoint, local: LocalState { sequence, parent, ..local } };
        let written = superblock::write(&*self.machine.storage, &self.sectors, &superblock, order);
        let checksum = written.map_err(|error| self.poisoned_by(error))?;
        self.counts.superblocks_written.one();
        self.counts.superblock_bytes.more(superblock::BYTES_WRITTEN);
        *self.root.lock() = Root { superblock, checksum, sequence_seen: sequence, write_order: [0, 1, 2, 3] };
        Ok(())
    }
}
