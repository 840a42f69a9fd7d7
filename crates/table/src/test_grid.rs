//! A grid on a simulated file with tables in it, for the tests of this crate.

use std::sync::Arc;

use fastrand::Rng;
use understory_format::{
    Beat, Checksum, Corruption, Geometry, Place, Record, TableInfo, TreeDescription, TreeId, Usage, usize_of,
};
use understory_grid::{FormatState, Grid, GridOptions};
use understory_io::{Arena, Machine, SimOptions, SimStorage};

use crate::{TableError, TableLayout, TableWriter};

/// Several pages in a block, several blocks in a table.
pub(crate) fn wide() -> Geometry {
    Geometry { block_size: 16384, page_size: 4096, table_blocks: 3, ..Geometry::small() }
}

/// The geometries that tests of tables run at.
pub(crate) fn geometries() -> [Geometry; 2] {
    [Geometry::small(), wide()]
}

pub(crate) const TREE: TreeId = TreeId::new(3).unwrap();
pub(crate) const BEAT: Beat = Beat::new(40);
pub(crate) const AGE: Beat = Beat::new(31);

/// A simulated file with a grid on it.
pub(crate) struct TestGrid {
    pub(crate) sim: Arc<SimStorage>,
    pub(crate) grid: Arc<Grid>,
    pub(crate) geometry: Geometry,
}

impl TestGrid {
    /// An empty one for records of type `R`.
    pub(crate) fn new<R: Record>(geometry: Geometry) -> Self {
        let sim = Arc::new(SimStorage::new(SimOptions::seeded(1)));
        let trees = [TreeDescription::of::<R>(TREE, Usage::General)];
        let state = FormatState { geometry, trees: &trees, size_limit: None };
        Grid::format(&sim.machine(), &state).unwrap();
        let grid = open(sim.machine(), &geometry, 256, 64);
        Self { sim, grid, geometry }
    }

    /// The same file, with nothing in memory and so many blocks and pages of cache.
    pub(crate) fn cold(&self, block_count: u32, page_count: u32) -> Self {
        self.grid.flush().unwrap();
        Self::of_image(self.sim.image(), self.geometry, block_count, page_count)
    }

    pub(crate) fn of_image(image: Vec<u8>, geometry: Geometry, block_count: u32, page_count: u32) -> Self {
        let sim = Arc::new(SimStorage::from_image(image, SimOptions::seeded(2)));
        let grid = open(sim.machine(), &geometry, block_count, page_count);
        Self { sim, grid, geometry }
    }

    pub(crate) fn layout<R: Record>(&self) -> TableLayout {
        TableLayout::new::<R>(&self.geometry).unwrap()
    }

    pub(crate) fn writer<R: Record>(&self) -> TableWriter<R> {
        TableWriter::new(Arc::clone(&self.grid), self.layout::<R>(), TREE, BEAT, AGE)
    }

    /// Writes these entries, ascending, as tables.
    pub(crate) fn tables<R: Record>(&self, entries: &[(R, bool)]) -> Vec<TableInfo> {
        let mut writer = self.writer::<R>();
        let bound = writer.blocks_bound(u64::try_from(entries.len()).unwrap());
        let mut reservation = self.grid.reserve(bound).unwrap();
        for (value, tombstone) in entries {
            writer.push(value, *tombstone, &mut reservation).unwrap();
        }
        writer.finish(&mut reservation).unwrap();
        self.grid.forfeit(reservation);
        writer.take_tables()
    }

    /// Checks whole tables.
    pub(crate) fn verify<R: Record>(&self, tables: &[TableInfo]) -> Result<(), TableError> {
        let layout = self.layout::<R>();
        tables.iter().try_for_each(|info| crate::verify(&self.grid, &layout, &R::KEY, info).map(|_| ()))
    }

    /// Flips a bit of the file at this offset of a block. Of no use for what is in memory already.
    pub(crate) fn flip(&self, address: understory_format::BlockAddress, offset: usize) {
        let start = self.geometry.block_offset(address);
        self.sim.corrupt(start + u64::try_from(offset).unwrap(), 0x10);
    }
}

fn open(machine: Machine, geometry: &Geometry, block_count: u32, page_count: u32) -> Arc<Grid> {
    let options = GridOptions { block_count, page_count, read_only: false };
    let arena = Arena::new(options.arena_size(geometry).unwrap()).unwrap();
    Arc::new(Grid::open(machine, &arena, options).unwrap())
}

/// Tombstones at random, `share` in 16.
pub(crate) fn with_tombstones<R: Record>(values: Vec<R>, rng: &mut Rng, share: u8) -> Vec<(R, bool)> {
    values
        .into_iter()
        .map(|value| if rng.u8(..16) < share { (R::tombstone(value.key()), true) } else { (value, false) })
        .collect()
}

pub(crate) fn corruption<T: std::fmt::Debug>(result: Result<T, TableError>) -> Corruption {
    let error = result.unwrap_err();
    error.corruption().cloned().unwrap_or_else(|| panic!("{error}"))
}

/// Seals a changed block under a good checksum, and makes its table refer to it so.
pub(crate) fn reseal(block: &mut [u8]) -> Checksum {
    understory_format::seal(block)
}

pub(crate) fn block_of(place: Place) -> u64 {
    match place {
        Place::Block(address) | Place::Page(address, _) => address.get(),
        other => panic!("{other}"),
    }
}

pub(crate) fn count_of<R: Record>(layout: &TableLayout, blocks: u32) -> usize {
    usize_of(layout.value.value_count_max * blocks)
}
