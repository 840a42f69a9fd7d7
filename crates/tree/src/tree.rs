//! The tree itself: where values go, and where they are looked for.
//!
//! Any number of threads read beside one that writes. What they share, the memtables and which tables there are,
//! stands behind one lock. Readers hold it shared for a lookup or to gather some entries, never while they read from
//! disk and never between two calls; the writer holds it in short steps.
//!
//! A read begins with a *capture*: how far the tree is published, and its tables. It sees nothing that is published
//! later. What it refers to may go away meanwhile: the memory of a memtable two swaps after its flush was applied, the
//! blocks of a table with the second checkpoint after they were released. Nobody waits for readers; whoever comes too
//! late is told ([`TableError::Expired`], from scans), or looks again (`get`). Blocks are found out by their checksums:
//! what does not fit is damage only if the blocks could not have been used again.
//!
//! # How long a reader waits
//! For the writer: for one step, which takes in 64 values, puts 1024 sorted or 4096 folded ranks into their slots, or
//! exchanges memtables, tables or a hash index, which costs the same whatever their size: some microseconds. For a
//! [publication](Publication): while the trees of one op are published, a store for each. The writer waits, before
//! each step, until those who read are done: a lookup, or what a scan does at a time. That is to find its place, which
//! costs most in an open beat (a search in each part of a thousand values), or to look at up to a thousand entries and
//! copy a quarter of them: some tens of microseconds.
//!
//! # Invariants
//! - A value is in a memtable until the tables that hold it are visible: `apply` exchanges both in one step.
//! - Memtables take turns, so that the memory of their indexes is taken three times and no more.
//! - Edits come whole and in order, removes of a level before inserts that overlap them: `Manifest` asserts.
//! - One thread at a time writes (asserted by each call that does).
//!
//! # Not here
//! What is flushed and compacted, and when: the forest. The memtables' turns: `memory`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard, RwLock};
use understory_format::zerocopy::FromBytes;
use understory_format::{
    Beat, BlockAddress, Corruption, Direction, EditKind, Expected, Geometry, KeyRange, Level, ManifestEdit,
    Place, Record, TableInfo, TreeId, effect_size, u32_of,
};
use understory_grid::Grid;
use understory_io::Pool;
use understory_manifest::Manifest;
use understory_table::{
    Access, Filter, FilterBudget, Found, Full, MemReader, MemWriter, Memtable, Scratch, Sealed, TableError,
    TableLayout, search,
};

use crate::Publication;
use crate::filters::{Candidates, Filters, Routes};
use crate::memory::{Memory, Seen};
use crate::scan::Scan;
use crate::view::{Tables, View, is_of_bytes};

/// What [`values_per_bar`] may be at most: what a memtable can hold.
pub const VALUES_PER_BAR_MAX: u64 = 1 << 31;

/// The tree of the records of type `R`.
///
/// Reads may come from any number of threads, beside one that writes.
pub struct Tree<R: Record> {
    id: TreeId,
    grid: Arc<Grid>,
    layout: TableLayout,
    pool: Pool,
    publication: Arc<Publication>,
    /// Who holds filters in memory; none holds none.
    filter_budget: Option<Arc<FilterBudget>>,
    /// The position behind the last value that was appended.
    appended: AtomicU64,
    /// The position up to which readers see values.
    visible: AtomicU64,
    shared: RwLock<Shared<R>>,
    writer: Mutex<Writer<R>>,
}

/// What readers and the writer share.
struct Shared<R: Record> {
    memory: Memory<R>,
    /// Never changed while somebody else has it, but exchanged; but for filters that come into memory.
    routes: Arc<Routes<R::Key>>,
}

/// What the writer has for itself.
struct Writer<R: Record> {
    appender: MemWriter,
    /// The memory of memtables that nobody reads any more, for the next.
    spare: Vec<Memtable<R>>,
    /// Edits of the manifest log, gathered while it is read.
    loading: Vec<ManifestEdit>,
    /// What is in memory of the filters of live tables.
    filters: Filters,
}

/// The mutable memtable, behind the lock of the tree.
struct Mutable<'a, R: Record>(&'a RwLock<Shared<R>>);

impl<R: Record> Access<R> for Mutable<'_, R> {
    fn read<T>(&self, work: impl FnOnce(&Memtable<R>) -> T) -> T {
        work(self.0.read().memory.mutable())
    }

    fn write<T>(&mut self, work: impl FnOnce(&mut Memtable<R>) -> T) -> T {
        work(self.0.write().memory.mutable_mut())
    }
}

/// What one level of one tree holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LevelStats {
    /// Live tables.
    pub table_count: u64,
    /// Values in them, tombstones included.
    pub value_count: u64,
    /// Tombstones in them.
    pub tombstone_count: u64,
    /// Value blocks in them.
    pub value_block_count: u64,
    /// Blocks of their filters.
    pub filter_block_count: u64,
}

impl<R: Record> Tree<R> {
    /// An empty tree whose memtables draw from `pool`. Trees that share a publication become visible together.
    ///
    /// # Panics
    /// If a bar of this geometry can put more records into the tree than a memtable may hold
    /// ([`values_per_bar`], [`VALUES_PER_BAR_MAX`]), or the layout is not that of `R`.
    #[must_use]
    pub fn new(
        grid: Arc<Grid>,
        id: TreeId,
        layout: TableLayout,
        pool: Pool,
        publication: Arc<Publication>,
    ) -> Self {
        assert!(layout.is_of::<R>(), "the layout of this record");
        let filters = Filters::default();
        let manifest = Manifest::new(grid.geometry().levels, grid.geometry().runs_max);
        let routes = Arc::new(filters.routes(manifest));
        let shared = Shared { memory: Memory::new(memtable(&grid, &pool)), routes };
        let writer =
            Writer { appender: MemWriter::default(), spare: Vec::new(), loading: Vec::new(), filters };
        Self {
            id,
            grid,
            layout,
            pool,
            publication,
            filter_budget: None,
            appended: AtomicU64::new(0),
            visible: AtomicU64::new(0),
            shared: RwLock::new(shared),
            writer: Mutex::new(writer),
        }
    }

    /// The same, with filters of its tables in memory as far as `budget` has room.
    #[must_use]
    pub fn holding_filters(self, budget: Arc<FilterBudget>) -> Self {
        Self { filter_budget: Some(budget), ..self }
    }

    /// Who holds the filters of its tables in memory, if somebody does.
    #[must_use]
    pub fn filter_budget(&self) -> Option<&Arc<FilterBudget>> {
        self.filter_budget.as_ref()
    }

    /// The tree's id.
    #[must_use]
    pub fn id(&self) -> TreeId {
        self.id
    }

    /// The grid that its tables are in.
    #[must_use]
    pub fn grid(&self) -> &Arc<Grid> {
        &self.grid
    }

    /// How its tables are laid out.
    #[must_use]
    pub fn layout(&self) -> &TableLayout {
        &self.layout
    }

    /// Its tables, level by level, as they are now.
    #[must_use]
    pub fn manifest(&self) -> Arc<Manifest<R::Key>> {
        Arc::clone(self.shared.read().routes.manifest())
    }

    /// The memtable that waits to be flushed, for its flush: nobody else may keep it, and the flush not beyond its
    /// [`apply`](Self::apply).
    #[must_use]
    pub fn immutable(&self) -> Option<Sealed<R>> {
        self.shared.read().memory.immutable().cloned()
    }

    /// Values, overwritten ones and unpublished ones included, in the mutable and in the immutable memtable.
    #[must_use]
    pub fn memtable_counts(&self) -> (u64, u64) {
        let shared = self.shared.read();
        (shared.memory.mutable().len(), shared.memory.immutable().map_or(0, Sealed::len))
    }

    /// Values that were added since open.
    #[must_use]
    pub fn appended(&self) -> u64 {
        self.appended.load(Ordering::Relaxed)
    }

    /// What a level holds.
    #[must_use]
    pub fn level_stats(&self, level: Level) -> LevelStats {
        let manifest = self.manifest();
        let blocks = manifest.iter(level, Beat::MAX).map(|table| u64::from(table.info.value_block_count));
        let filters = manifest
            .iter(level, Beat::MAX)
            .map(|table| u64::from(self.layout.filter_blocks(table.info.value_count)));
        LevelStats {
            table_count: manifest.table_count(level),
            value_count: manifest.value_count(level),
            tombstone_count: manifest.tombstone_count(level),
            value_block_count: blocks.sum(),
            filter_block_count: filters.sum(),
        }
    }

    /// Adds records behind all that were added before: `values` holds them back to back, bit `i` of `tombstones`
    /// says that the record `i` is a tombstone for its key. They become visible with the next
    /// [`publish`](Self::publish).
    ///
    /// # Errors
    /// If the memtables' share of memory is used up, which a caller that keeps to the beat's share does not
    /// see. Nothing was added.
    ///
    /// # Panics
    /// If `values` is no whole number of records, or the bitmap not as long as they need. If another thread writes.
    pub fn append(&self, values: &[u8], tombstones: Option<&[u8]>) -> Result<(), Full> {
        let values = <[R]>::ref_from_bytes(values).expect("a whole number of records");
        self.add(|appender, to| appender.append(to, values, tombstones))
    }

    /// Adds one record, or a tombstone for its key.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    ///
    /// # Panics
    /// If another thread writes.
    pub fn put(&self, record: &R, tombstone: bool) -> Result<(), Full> {
        self.add(|appender, to| appender.put(to, record, tombstone))
    }

    fn add(
        &self,
        work: impl FnOnce(&mut MemWriter, &mut Mutable<'_, R>) -> Result<(), Full>,
    ) -> Result<(), Full> {
        let mut writer = self.writer();
        work(&mut writer.appender, &mut Mutable(&self.shared))?;
        self.appended.store(self.shared.read().memory.end(), Ordering::Relaxed);
        Ok(())
    }

    /// Makes all that was added visible. For several trees at once: within [`Publication::publish`], and so where a
    /// reader is to see no tree ahead of another.
    pub fn publish(&self) {
        self.visible.store(self.appended.load(Ordering::Relaxed), Ordering::Release);
    }

    fn writer(&self) -> MutexGuard<'_, Writer<R>> {
        self.writer.try_lock().expect("one thread at a time writes")
    }

    /// Runs `work` on what is shared and the position up to which it is visible. That is not behind what any tree
    /// of the publication showed before.
    #[inline]
    fn capture<T>(&self, work: impl FnOnce(&Shared<R>, u64) -> T) -> T {
        let (shared, visible) = self.publication.capture(|| {
            let shared = self.shared.read();
            let visible = self.visible.load(Ordering::Acquire);
            (shared, visible)
        });
        work(&shared, visible)
    }

    /// The record of `key`. At most one index block and one page are read per level, and run of level 0, that may
    /// hold it; and, once, the filter of a table that was read for nothing.
    ///
    /// # Errors
    /// Damage or failure of what has to be read.
    pub fn get(&self, key: R::Key) -> Result<Option<R>, TableError> {
        loop {
            let (found, tables) = self.capture(|shared, visible| {
                let found = shared.memory.get(key, visible);
                if !found.is_absent() {
                    return (found, None);
                }
                let candidates = shared.routes.candidates(key);
                let tables = (!candidates.is_empty()).then(|| (Arc::clone(&shared.routes), candidates));
                (found, tables)
            });
            let Some((routes, candidates)) = tables else { return Ok(found.value()) };
            match self.get_in_tables(&routes, candidates, key) {
                Ok(found) => return Ok(found.value()),
                // Blocks of these tables may have been used again, if others have their values now.
                Err(error) if is_of_bytes(&error) && !self.are_current(&routes) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn get_in_tables(
        &self,
        routes: &Arc<Routes<R::Key>>,
        candidates: Candidates,
        key: R::Key,
    ) -> Result<Found<R>, TableError> {
        for candidate in candidates {
            let table = routes.info(candidate);
            let found = search(&self.grid, &self.layout, table, key)?;
            if !found.is_absent() {
                return Ok(found);
            }
            let Some(budget) = &self.filter_budget else { continue };
            // What is wrong with a filter is no matter of the lookup.
            if let Err(error) = routes.load(&self.grid, &self.layout, budget, candidate)
                && self.are_current(routes)
            {
                log::warn!("the filter of table {} cannot be used: {error}", table.index.address);
            }
        }
        Ok(Found::Absent)
    }

    /// Whether these tables are the live ones, so that their blocks have not been used again.
    #[cold]
    fn are_current(&self, routes: &Arc<Routes<R::Key>>) -> bool {
        Arc::ptr_eq(routes, &self.shared.read().routes)
    }

    /// The records whose keys lie in `range`, in the direction's order, as they are visible now, however long the
    /// scan takes. Reads nothing before the first record is asked for.
    #[must_use]
    pub fn scan(&self, range: KeyRange<R::Key>, direction: Direction) -> Scan<'_, R> {
        let view = self.capture(|shared, visible| View {
            memtables: shared.memory.seen(visible).collect(),
            tables: Tables::new(&self.grid, shared.routes.manifest()),
        });
        Scan::new(self, view, range, direction)
    }

    /// Gathers the next entries for a reader of a view's memtable.
    pub(crate) fn refill(&self, seen: Seen, reader: &mut MemReader<R>) -> Result<(), TableError> {
        self.shared.read().memory.refill(seen, reader).map_err(|_| TableError::Expired)
    }

    /// Sorts what this beat put into a run.
    ///
    /// # Panics
    /// If another thread writes.
    pub fn close_beat(&self, scratch: &mut Scratch) {
        self.writer().appender.close_beat(&mut Mutable(&self.shared), scratch);
    }

    /// Ends a bar: makes the mutable memtable the one to be flushed, and lets go of the memory of what was flushed
    /// before the last call. To be called for all trees at the end of each bar, so that no more than three bars are in
    /// memory.
    ///
    /// # Panics
    /// If the memtable before was not flushed, or somebody still has the one that was. If another thread writes.
    pub fn swap_memtables(&self) {
        let mut writer = self.writer();
        let retired = self.shared.write().memory.take_retired();
        if let Some(sealed) = retired {
            let recycled = sealed.recycle().expect("nobody but its flush had the immutable memtable");
            writer.spare.push(recycled);
        }
        let next = writer.spare.pop().unwrap_or_else(|| memtable(&self.grid, &self.pool));
        let unused = self.shared.write().memory.swap(next);
        writer.spare.extend(unused);
    }

    /// Makes the outputs of a compaction visible in place of its inputs, with those filters of theirs that are held, by
    /// the address of the index. Costs a copy of the manifest, as readers may have the present one.
    ///
    /// # Panics
    /// If the edits do not fit the tree's tables: they are the engine's own. If another thread writes.
    pub fn apply(&self, is_flush: bool, edits: &[ManifestEdit], filters: Vec<(BlockAddress, Filter)>) {
        let mut writer = self.writer();
        let mut manifest = Manifest::clone(&self.manifest());
        for edit in edits {
            manifest.apply_own(edit);
        }
        writer.filters.apply(edits, filters);
        let mut routes = Arc::new(writer.filters.routes(manifest));
        let mut shared = self.shared.write();
        // The old ones are given back when readers may read again.
        std::mem::swap(&mut shared.routes, &mut routes);
        if is_flush {
            shared.memory.flushed(self.visible.load(Ordering::Relaxed));
        }
    }

    /// Takes over the newest edit of a live table, at open.
    ///
    /// # Errors
    /// A table larger than any of this tree.
    pub fn load(&self, level: Level, table: TableInfo) -> Result<(), Corruption> {
        let too_many = |field, max: u64, found: u64| {
            let place = Place::Block(table.index.address);
            Err(Corruption::new(field, Expected::AtMost(max.into()), found.into()).at(place))
        };
        let blocks_max = self.layout.value_blocks_max;
        if table.value_block_count > blocks_max {
            return too_many("table.value_block_count", blocks_max.into(), table.value_block_count.into());
        }
        let values_max = u64::from(table.value_block_count) * u64::from(self.layout.value.value_count_max);
        if table.value_count > values_max {
            return too_many("table.value_count", values_max, table.value_count);
        }
        self.writer().loading.push(ManifestEdit { kind: EditKind::Insert, level, table });
        Ok(())
    }

    /// Builds the manifest of all tables that were taken over, and checks the relations between them.
    ///
    /// # Errors
    /// What does not fit: a level that is not there, tables that overlap or share a block.
    pub fn loaded(&self) -> Result<(), Corruption> {
        let mut writer = self.writer();
        let edits = std::mem::take(&mut writer.loading);
        writer.filters.apply(&edits, Vec::new());
        let now = self.manifest();
        let manifest = Manifest::load(now.level_count(), now.runs_max(), edits)?;
        self.shared.write().routes = Arc::new(writer.filters.routes(manifest));
        Ok(())
    }
}

/// An empty memtable that has room for what a bar may bring.
fn memtable<R: Record>(grid: &Grid, pool: &Pool) -> Memtable<R> {
    let count_max = values_per_bar(grid.geometry(), u32_of(size_of::<R>()));
    let count_max = u32::try_from(count_max).expect("the caller asked whether the records fit");
    Memtable::new(pool.clone(), count_max)
}

impl<R: Record> fmt::Debug for Tree<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let manifest = self.manifest();
        let tables: Vec<u64> = manifest.levels().map(|level| manifest.table_count(level)).collect();
        f.debug_struct("Tree")
            .field("id", &self.id)
            .field("name", &R::NAME)
            .field("memtables", &self.memtable_counts())
            .field("tables", &tables)
            .finish_non_exhaustive()
    }
}

/// The most records of this size that a bar can put into one tree: the shares of its beats bound them.
#[must_use]
pub fn values_per_bar(geometry: &Geometry, value_size: u32) -> u64 {
    let bar = u64::from(geometry.share_size) * u64::from(geometry.beats_per_bar);
    bar / effect_size(value_size)
}
