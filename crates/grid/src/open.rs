//! Making a data file, and opening one.
//!
//! # Invariants
//! - Nothing is written before everything that open looks at was found good, and nothing at all if it is read-only
//!   (`a_file_that_cannot_be_opened_is_left_alone`).
//! - Opening for writing writes a superblock, at the highest sequence seen + 2: it repairs bad copies, and no
//!   sequence is used twice, whatever a crash left behind.
//!
//! # Not here
//! Opening the manifest log, the trees: who owns them.

use understory_format::error::{at_most, exactly};
use understory_format::{
    Beat, BlockAddress, BlockKind, CatalogueView, CheckpointState, Checksum, Corruption, Expected,
    FreeSetRoot, Geometry, LocalState, ManifestRoot, Op, Place, Placement, Superblock, TrailerView,
    TreeDescription, TwinRef, catalogue, trailer, u64_of, usize_of,
};
use understory_io::{Arena, Machine};

use crate::error::GridError;
use crate::free_set::{FreeSet, LIMIT_MAX};
use crate::grid::{Grid, GridOptions, Parts, Root, Staging};
use crate::space::{block_limit, blocks_in, file_size};
use crate::superblock::{self, Found, SECTOR_BUFFERS};

/// How often a read-only open starts again when a writer beside it has moved on.
const READ_ONLY_TRIES: u32 = 4;
/// How often superblock copies that do not agree are read before they are believed to be lost.
const LOOKS: u32 = 3;

/// What a data file is made with.
#[derive(Clone, Copy, Debug)]
pub struct FormatState<'a> {
    /// Sizes, fixed for the life of the file.
    pub geometry: Geometry,
    /// The trees.
    pub trees: &'a [TreeDescription],
    /// Bytes that the file may have, if there is a limit.
    pub size_limit: Option<u64>,
}

impl Grid {
    /// Makes a data file in an empty file, or with a journal in one that ends where the journal's ring does: catalogue,
    /// free set, superblock. Durable when this returns, together with the ring.
    ///
    /// # Errors
    /// [`GridError::NotEmpty`], [`GridError::NoRing`], [`GridError::Geometry`], [`GridError::TooManyTrees`], [`GridError::OutOfSpace`],
    /// [`GridError::Io`].
    pub fn format(machine: &Machine, state: &FormatState<'_>) -> Result<(), GridError> {
        state.geometry.validate()?;
        check_empty(&state.geometry, machine.storage.size())?;
        let most = usize_of(catalogue::capacity(state.geometry.block_size));
        if state.trees.len() > most {
            return Err(GridError::TooManyTrees { found: state.trees.len(), most });
        }
        let options =
            GridOptions { block_count: GridOptions::block_count_min(), page_count: 0, read_only: false };
        let arena = Arena::new(options.arena_size(&state.geometry).unwrap_or(usize::MAX))?;
        let grid = Self::with_pools(machine.clone(), &arena, options, blank(state), state.geometry)?;
        *grid.free_set.lock() = FreeSet::new(block_limit(&state.geometry, size_limit(state)));
        let catalogue = grid.write_catalogue(state.trees)?;
        let staged = grid.stage(CheckpointState { catalogue, ..grid.checkpoint_state() })?;
        let _ = grid.finish(staged, |_| ())?;
        Ok(())
    }

    fn write_catalogue(&self, trees: &[TreeDescription]) -> Result<TwinRef, GridError> {
        let mut reservation = self.reserve(2)?;
        let address = self.acquire(&mut reservation);
        let twin = self.acquire(&mut reservation);
        self.forfeit(reservation);
        let mut buffer = self.buffer()?;
        let placement = Placement { address, twin: Some(twin), tree: None, beat: Beat::ZERO };
        let checksum = catalogue::encode(&mut buffer, &placement, trees);
        drop(self.write(buffer)?);
        Ok(TwinRef { address, twin, checksum })
    }

    /// [`Grid::load`], then [`Grid::begin`] unless it is opened read-only.
    ///
    /// # Errors
    /// As both.
    pub fn open(machine: Machine, arena: &Arena, options: GridOptions) -> Result<Self, GridError> {
        let grid = Self::load(machine, arena, options)?;
        if !options.read_only {
            grid.begin(|_| ())?;
        }
        Ok(grid)
    }

    /// Reads the root of a data file, its catalogue and its free set. Writes nothing: who looks further before it
    /// trusts the file does so before [`Grid::begin`].
    ///
    /// # Errors
    /// What the file is if it is no good data file of this version: [`GridError::NotUnderstory`],
    /// [`GridError::Version`], [`GridError::Truncated`], [`GridError::QuorumLost`], [`GridError::Corrupt`]. Also
    /// [`GridError::NoBuffers`] for fewer than [`GridOptions::block_count_min`], and [`GridError::Io`].
    pub fn load(machine: Machine, arena: &Arena, options: GridOptions) -> Result<Self, GridError> {
        if options.block_count < GridOptions::block_count_min() {
            return Err(GridError::NoBuffers);
        }
        let found = Self::look(&machine)?;
        let geometry = found.superblock.checkpoint.geometry;
        if found.choice.outside > 0 {
            log::warn!(
                "{} of 4 superblock copies are damaged, or left from an interrupted update",
                found.choice.outside
            );
        }
        let mut grid = Self::with_pools(machine, arena, options, root_of(&found), geometry)?;
        grid.load_beside_a_writer(found)?;
        Ok(grid)
    }

    /// Goes on from the state that was loaded: writes a superblock of the next incarnation, which repairs bad
    /// copies. After that no other state than this one can be found. `change` is made to its local part, which has
    /// the new incarnation by then.
    ///
    /// # Errors
    /// [`GridError::Io`], [`GridError::Poisoned`], [`GridError::ReadOnly`].
    pub fn begin(&self, change: impl FnOnce(&mut LocalState)) -> Result<(), GridError> {
        self.check_writable()?;
        let _turn = self.superblock_turn.take();
        let sequence = self.root.lock().sequence_seen + 2;
        self.install(self.checkpoint_state(), sequence, |local| {
            local.incarnation += 1;
            change(local);
        })
    }

    /// Whether a writer has gone on so far that it may have reused blocks of the state that was loaded: two
    /// checkpoints. Also if the file no longer says.
    #[must_use]
    pub fn is_overtaken(&self) -> bool {
        let number = self.checkpoint_state().number;
        Self::peek(&self.machine).map_or(true, |newest| newest.checkpoint.number >= number + 2)
    }

    /// The superblock that a file would be opened with. Writes nothing.
    ///
    /// # Errors
    /// As [`Grid::open`].
    pub fn peek(machine: &Machine) -> Result<Superblock, GridError> {
        Ok(Self::look(machine)?.superblock)
    }

    /// A writer beside a reader may replace all copies while they are read one after another: then none of the two
    /// that were read agree, and another look finds what it wrote.
    fn look(machine: &Machine) -> Result<Found, GridError> {
        for _ in 1..LOOKS {
            match Self::look_once(machine) {
                Err(GridError::QuorumLost { .. }) => {}
                found => return found,
            }
        }
        Self::look_once(machine)
    }

    fn look_once(machine: &Machine) -> Result<Found, GridError> {
        let (size, count) = SECTOR_BUFFERS;
        let arena = Arena::new(Arena::needed(size, count).expect("a few sectors"))?;
        let found = superblock::read(&*machine.storage, &arena.pool(size, count)?)?;
        check_size(&found.superblock.checkpoint, machine.storage.size())?;
        Ok(found)
    }

    fn with_pools(
        machine: Machine,
        arena: &Arena,
        options: GridOptions,
        root: Root,
        geometry: Geometry,
    ) -> Result<Self, GridError> {
        let (sector_size, sector_count) = SECTOR_BUFFERS;
        Ok(Self::assemble(Parts {
            sectors: arena.pool(sector_size, sector_count)?,
            blocks: arena.pool(usize_of(geometry.block_size), usize_of(options.block_count))?,
            trailers: arena.pool(usize_of(geometry.block_size), usize_of(options.trailer_buffers()))?,
            pages: arena.pool(usize_of(geometry.page_size), usize_of(options.page_count))?,
            trees: Vec::new(),
            machine,
            geometry,
            options,
            root,
        }))
    }

    /// A writer may overwrite or cut off what a reader's superblock leads to; then there is a newer superblock.
    fn load_beside_a_writer(&mut self, mut found: Found) -> Result<(), GridError> {
        for _ in 1..READ_ONLY_TRIES {
            let error = match self.load_root() {
                Err(error @ (GridError::Corrupt(_) | GridError::Unreadable { .. })) if self.read_only => {
                    error
                }
                result => return result,
            };
            let newer = Self::look(&self.machine)?;
            if newer.checksum == found.checksum {
                return Err(error);
            }
            found = newer;
            *self.root.lock() = root_of(&found);
        }
        self.load_root()
    }

    fn load_root(&mut self) -> Result<(), GridError> {
        let checkpoint = self.checkpoint_state();
        let block = self.read_twin(checkpoint.catalogue, BlockKind::Catalogue)?;
        self.trees = decode_catalogue(&block, checkpoint.fingerprint)
            .map_err(|error| error.at(Place::Block(checkpoint.catalogue.address)))?;
        let (encoded, trailers) = self.read_trailers(&checkpoint.free_set, checkpoint.block_count_max)?;
        let limit = block_limit(&self.geometry, self.local_state().size_limit);
        let mut free_set =
            FreeSet::decode(&encoded, trailers.iter().copied(), checkpoint.block_count_max, limit)?;
        free_set.verify();
        if !self.machine.storage.is_dense() {
            free_set.doubt(blocks_in(&self.geometry, self.machine.storage.size()));
        }
        check_own(&free_set, checkpoint.catalogue)?;
        *self.free_set.lock() = free_set;
        *self.staging.lock() = Staging {
            number: checkpoint.number,
            pending: false,
            freed: checkpoint.number.saturating_sub(1),
            trailers,
        };
        Ok(())
    }

    /// The encoded free set, and the addresses of its blocks in the order in which they were taken.
    fn read_trailers(
        &self,
        root: &FreeSetRoot,
        highest: u64,
    ) -> Result<(Vec<u8>, Vec<BlockAddress>), GridError> {
        let size = check_free_set_root(root, &self.geometry, highest)?;
        let mut encoded = vec![0; size];
        let mut addresses = Vec::new();
        let mut next = root.last;
        let pieces = encoded.chunks_mut(usize_of(trailer::capacity(self.geometry.block_size)));
        for (index, piece) in (0..).zip(pieces).collect::<Vec<_>>().into_iter().rev() {
            let chunk =
                trailer::Chunk { previous: None, index, count: root.block_count, total_size: root.size };
            let Some(reference) = next else {
                return Err(Corruption::new("previous", Expected::Rule("a block of the chain"), 0).into());
            };
            let block = self.read_twin(reference, BlockKind::FreeSet)?;
            next = copy_chunk(&block, &chunk, piece)
                .map_err(|error| error.at(Place::Block(reference.address)))?;
            addresses.extend([reference.twin, reference.address]);
        }
        addresses.reverse();
        exactly("free_set_checksum", root.checksum.get(), Checksum::of(&encoded).get())?;
        Ok((encoded, addresses))
    }
}

/// Copies the bytes of a chunk if it is the one `wanted`; gives the block before it.
fn copy_chunk(block: &[u8], wanted: &trailer::Chunk, to: &mut [u8]) -> Result<Option<TwinRef>, Corruption> {
    let view = TrailerView::new(block)?;
    let found = view.chunk();
    exactly("chunk_index", wanted.index, found.index)?;
    exactly("chunk_count", wanted.count, found.count)?;
    exactly("total_size", wanted.total_size, found.total_size)?;
    exactly("size", u64_of(to.len()), u64_of(view.bytes().len()))?;
    to.copy_from_slice(view.bytes());
    Ok(found.previous)
}

/// The size of the encoded free set, if its blocks have room for it and a set up to `highest` can be so large.
fn check_free_set_root(root: &FreeSetRoot, geometry: &Geometry, highest: u64) -> Result<usize, Corruption> {
    at_most("free_set_size", FreeSet::encoded_size_max(highest), root.size)?;
    exactly("free_set_block_count", trailer::chunk_count(geometry.block_size, root.size), root.block_count)?;
    // A machine with less memory than the set of this file cannot open it.
    usize::try_from(root.size).map_err(|_| {
        Corruption::new(
            "free_set_size",
            Expected::Rule("a size that fits into memory"),
            u128::from(root.size),
        )
    })
}

fn decode_catalogue(block: &[u8], fingerprint: Checksum) -> Result<Vec<TreeDescription>, Corruption> {
    let view = CatalogueView::new(block)?;
    exactly("fingerprint", fingerprint.get(), view.fingerprint().get())?;
    Ok(view.trees().collect())
}

/// Nothing is in the file but, with a journal, its ring.
fn check_empty(geometry: &Geometry, size: u64) -> Result<(), GridError> {
    let needed = geometry.grid_offset();
    match geometry.has_journal() {
        true if size != needed => Err(GridError::NoRing { size, needed }),
        false if size != 0 => Err(GridError::NotEmpty { size }),
        _ => Ok(()),
    }
}

/// The limit as the superblock has it: 0 is none, so that a limit of nothing is the least there is.
fn size_limit(state: &FormatState<'_>) -> u64 {
    state.size_limit.map_or(0, |limit| limit.max(1))
}

fn root_of(found: &Found) -> Root {
    Root {
        superblock: found.superblock,
        checksum: found.checksum,
        sequence_seen: found.choice.sequence_seen.max(found.superblock.local.sequence),
        write_order: found.choice.write_order,
    }
}

/// What stands in memory before the first superblock. The catalogue's place is known, its contents are not.
fn blank(state: &FormatState<'_>) -> Root {
    let [address, twin] = [1, 2].map(|address| BlockAddress::new(address).expect("addresses start at 1"));
    let checkpoint = CheckpointState {
        geometry: state.geometry,
        fingerprint: catalogue::fingerprint(state.trees),
        number: 0,
        parent: Checksum::ZERO,
        beat: Beat::ZERO,
        op_checkpoint: Op::ZERO,
        op_flushed: Op::ZERO,
        charge_total: 0,
        rolling_hash: Checksum::ZERO,
        catalogue: TwinRef { address, twin, checksum: Checksum::ZERO },
        manifest: ManifestRoot::default(),
        free_set: FreeSetRoot::default(),
        block_count_max: 0,
    };
    let local = LocalState { size_limit: size_limit(state), ..LocalState::default() };
    Root {
        superblock: Superblock { checkpoint, local },
        checksum: Checksum::ZERO,
        sequence_seen: 0,
        write_order: [0, 1, 2, 3],
    }
}

/// The file holds every block that the checkpoint calls acquired.
fn check_size(checkpoint: &CheckpointState, size: u64) -> Result<(), GridError> {
    let highest = checkpoint.block_count_max;
    at_most("block_count_max", LIMIT_MAX, highest)?;
    let needed = file_size(&checkpoint.geometry, highest);
    if size < needed { Err(GridError::Truncated { size, needed }) } else { Ok(()) }
}

/// The catalogue is acquired and not released.
fn check_own(free_set: &FreeSet, catalogue: TwinRef) -> Result<(), Corruption> {
    for address in [catalogue.address, catalogue.twin] {
        if !free_set.is_acquired(address) || free_set.is_released(address) {
            let expected = Expected::Rule("a block in use");
            return Err(Corruption::new("catalogue", expected, u128::from(address.get())));
        }
    }
    Ok(())
}
