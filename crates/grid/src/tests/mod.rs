//! The grid on the simulated machine.

use std::sync::Arc;

use understory_format::{
    Beat, BlockAddress, BlockKind, Checksum, Geometry, KeyDescriptor, KeyField, KeyKind, Op, Placement,
    TreeDescription, TreeId, TreeName, TwinRef, Usage, trailer,
};
use understory_io::{Arena, Machine, SimOptions, SimStorage};

use crate::{Block, CheckpointUpdate, FormatState, Grid, GridError, GridOptions, Reservation};

mod beside;
mod blocks;
mod crash;
mod damage;
mod durable;
mod opening;
mod pages;
mod room;
mod split;
mod stale;
mod threads;

const OPTIONS: GridOptions = GridOptions { block_count: 64, page_count: 16, read_only: false };
const READ_ONLY: GridOptions = GridOptions { read_only: true, ..OPTIONS };

fn tree(id: u16, name: &str) -> TreeDescription {
    let field = KeyField { offset: 0, size: 8, kind: KeyKind::Uint };
    TreeDescription {
        id: TreeId::new(id).unwrap(),
        name: TreeName::new(name).unwrap(),
        value_size: 16,
        usage: Usage::General,
        key: KeyDescriptor::new(&[field], 16).unwrap(),
    }
}

/// A file of so many blocks at most, so that images stay small.
fn format_with(machine: &Machine, geometry: Geometry, block_limit: u64) -> Result<(), GridError> {
    let size_limit = geometry.grid_offset() + block_limit * u64::from(geometry.block_size);
    let trees = [tree(1, "flights"), tree(4, "carriers")];
    Grid::format(machine, &FormatState { geometry, trees: &trees, size_limit: Some(size_limit) })
}

fn open_with(machine: &Machine, options: GridOptions) -> Result<Grid, GridError> {
    let geometry = Grid::peek(machine).map_or(Geometry::small(), |found| found.checkpoint.geometry);
    let arena = Arena::new(options.arena_size(&geometry).unwrap()).unwrap();
    Grid::open(machine.clone(), &arena, options)
}

fn open(machine: &Machine) -> Grid {
    open_with(machine, OPTIONS).unwrap()
}

fn formatted(seed: u64) -> (Machine, Arc<SimStorage>) {
    let (machine, storage) = Machine::sim(seed);
    format_with(&machine, Geometry::small(), 100).unwrap();
    (machine, storage)
}

fn machine_of(image: Vec<u8>) -> (Machine, Arc<SimStorage>) {
    let storage = Arc::new(SimStorage::from_image(image, SimOptions::seeded(1)));
    (storage.machine(), storage)
}

fn update(beat: u64) -> CheckpointUpdate {
    CheckpointUpdate {
        beat: Beat::new(beat),
        op_checkpoint: Op::new(beat),
        op_flushed: Op::new(beat),
        charge_total: 0,
        rolling_hash: Checksum::ZERO,
        manifest: understory_format::ManifestRoot::default(),
    }
}

/// The contents of a metadata block made here: any bytes, as one chunk of something.
const KIND: BlockKind = BlockKind::FreeSet;

fn write_twin_at(
    grid: &Grid,
    address: BlockAddress,
    twin: BlockAddress,
    bytes: &[u8],
) -> Result<TwinRef, GridError> {
    let mut buffer = grid.buffer()?;
    let placement = Placement { address, twin: Some(twin), tree: None, beat: Beat::new(7) };
    let total_size = u64::try_from(bytes.len()).unwrap();
    let chunk = trailer::Chunk { previous: None, index: 0, count: 1, total_size };
    let checksum = trailer::encode(&mut buffer, &placement, &chunk, bytes);
    let block = grid.write(buffer)?;
    assert_eq!(block.reference().checksum, checksum);
    Ok(TwinRef { address, twin, checksum })
}

fn write_twin(grid: &Grid, reservation: &mut Reservation, bytes: &[u8]) -> Result<TwinRef, GridError> {
    let (address, twin) = (grid.acquire(reservation), grid.acquire(reservation));
    write_twin_at(grid, address, twin, bytes)
}

/// One block of its own reservation.
fn write_one(grid: &Grid, bytes: &[u8]) -> Result<TwinRef, GridError> {
    let mut reservation = grid.reserve(2)?;
    let written = write_twin(grid, &mut reservation, bytes);
    grid.forfeit(reservation);
    written
}

fn contents(block: &Block) -> &[u8] {
    understory_format::TrailerView::new(block).unwrap().bytes()
}

/// Drops everything that nobody uses from the caches.
fn empty_caches(grid: &Grid) {
    while grid.block_cache.evict() {}
    while grid.page_cache.evict() {}
}

fn offset(grid: &Grid, address: BlockAddress) -> u64 {
    grid.geometry().block_offset(address)
}
