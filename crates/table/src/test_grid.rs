//! A grid on a simulated file with tables in it, for the tests of this crate.

use std::sync::Arc;

use fastrand::Rng;
use understory_format::{
    Beat, BlockAddress, BlockKind, Corruption, Geometry, HEADER_SIZE, IndexView, Record, TableInfo,
    TreeDescription, TreeId, Usage, usize_of,
};
use understory_grid::{FormatState, Grid, GridOptions};
use understory_io::{Arena, Machine, SimOptions, SimStorage};
use understory_testkit::{Item, Ordinal, TestRecord};

use crate::{TableError, TableLayout, TableWriter};

/// Several pages in a block, several blocks in a table.
pub(crate) fn wide() -> Geometry {
    Geometry { block_size: 16384, page_size: 4096, table_blocks: 3, ..Geometry::small() }
}

/// The geometries that tests of tables run at.
pub(crate) fn geometries() -> [Geometry; 3] {
    [Geometry::small(), wide(), wide().with_filters(10)]
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
        Self::of_image(self.image(), self.geometry, block_count, page_count)
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

    /// The file with value block `number` of a table changed by `change` and everything above it sealed anew: the
    /// bytes are wrong, and all checksums are right. Nothing of it is in memory.
    pub(crate) fn forge_value(
        &self,
        info: &TableInfo,
        number: u32,
        change: impl FnOnce(&mut [u8]),
    ) -> (Self, TableInfo) {
        let mut image = self.image();
        let index = self.grid.read_twin(info.index, BlockKind::Index).unwrap();
        let view = IndexView::new(&index, usize::from(key_size_of(&index))).unwrap();
        let entry = view.entry(number);
        let block = self.block_mut(&mut image, entry.reference.address);
        change(block);
        let mut pages = Vec::new();
        let checksum = understory_format::value::seal(block, |page, checksum| pages.push((page, checksum)));
        self.forge_index_in(image, info, |bytes| {
            let at = HEADER_SIZE + usize_of(number) * 40 + 8;
            bytes[at..at + 16].copy_from_slice(&checksum.get().to_le_bytes());
            let end = usize_of(view.header().size.get());
            let start = end - 24 * view.filter_blocks().len() - usize_of(view.page_count()) * 16;
            for (page, checksum) in pages {
                let at = start + usize_of(entry.page_start + page) * 16;
                bytes[at..at + 16].copy_from_slice(&checksum.get().to_le_bytes());
            }
        })
    }

    /// As [`TestGrid::forge_value`], for the index.
    pub(crate) fn forge_index(&self, info: &TableInfo, change: impl FnOnce(&mut [u8])) -> (Self, TableInfo) {
        self.forge_index_in(self.image(), info, change)
    }

    /// As [`TestGrid::forge_value`], for the first block of the filter; what `change` makes must have a header.
    pub(crate) fn forge_filter(&self, info: &TableInfo, change: impl FnOnce(&mut [u8])) -> (Self, TableInfo) {
        let mut image = self.image();
        let index = self.grid.read_twin(info.index, BlockKind::Index).unwrap();
        let view = IndexView::new(&index, usize::from(key_size_of(&index))).unwrap();
        let at = usize_of(view.header().size.get()) - 24 * view.filter_blocks().len();
        let block = self.block_mut(&mut image, view.filter_blocks().next().unwrap().unwrap().address);
        change(block);
        let checksum = understory_format::seal(block);
        self.forge_index_in(image, info, |bytes| {
            bytes[at + 8..at + 24].copy_from_slice(&checksum.get().to_le_bytes());
        })
    }

    fn forge_index_in(
        &self,
        mut image: Vec<u8>,
        info: &TableInfo,
        change: impl FnOnce(&mut [u8]),
    ) -> (Self, TableInfo) {
        let block = self.block_mut(&mut image, info.index.address);
        change(block);
        let checksum = understory_format::seal(block);
        let copy = block.to_vec();
        self.block_mut(&mut image, info.index.twin).copy_from_slice(&copy);
        let mut forged = *info;
        forged.index.checksum = checksum;
        (Self::of_image(image, self.geometry, 32, 16), forged)
    }

    fn image(&self) -> Vec<u8> {
        self.grid.flush().unwrap();
        self.sim.image()
    }

    fn block_mut<'a>(&self, image: &'a mut [u8], address: BlockAddress) -> &'a mut [u8] {
        let start = usize::try_from(self.geometry.block_offset(address)).unwrap();
        &mut image[start..][..usize_of(self.geometry.block_size)]
    }

    /// Flips a bit of the file at this offset of a block. Of no use for what is in memory already.
    pub(crate) fn flip(&self, address: BlockAddress, offset: usize) {
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

/// The key size that an index block says.
fn key_size_of(index: &[u8]) -> u16 {
    u16::from_le_bytes([index[128 + 32], index[128 + 33]])
}

/// Item tables of the wide geometry, their values `1..=count` with gaps of 16.
pub(crate) fn items(count: u64) -> (TestGrid, Vec<TableInfo>) {
    let grid = TestGrid::new::<Item>(wide());
    let entries: Vec<_> = (1..=count).map(|number| (Item::make(u128::spread(number, 4), 1), false)).collect();
    let tables = grid.tables(&entries);
    (grid, tables)
}
