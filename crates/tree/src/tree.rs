//! The tree itself: where values go, and where they are looked for.
//!
//! ```text
//! put -> mutable --swap_memtables--> immutable --flush, applied--> level 0 -> ... -> deepest level
//!           ^                            |
//!           '----- spare <- recycled ----'
//! ```
//!
//! # Invariants
//! - A value is in a memtable until the tables that hold it are visible: `apply` takes the immutable memtable
//!   away together with the edits of its flush.
//! - Two memtables take turns, so that the memory of their indexes is taken twice and no more.
//! - Edits come whole and in order, removes of a level before inserts that overlap them: `Manifest` asserts.
//!
//! # Not here
//! What is flushed and compacted, and when: the forest.

use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use understory_format::zerocopy::FromBytes;
use understory_format::{
    Beat, Corruption, Direction, EditKind, Expected, Geometry, KeyRange, Level, ManifestEdit, Place, Record,
    TableInfo, TreeId, effect_size, u32_of,
};
use understory_grid::Grid;
use understory_io::Pool;
use understory_manifest::Manifest;
use understory_table::{
    Entry, Full, LevelCursor, Memtable, ReadAhead, Scratch, Sealed, Source, TableError, TableLayout, search,
};

use crate::Publication;
use crate::scan::{LevelTables, Scan, ScanSource};

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
    state: RwLock<State<R>>,
}

/// What readers and the writer share.
struct State<R: Record> {
    mutable: Memtable<R>,
    immutable: Option<Sealed<R>>,
    /// The memory of the memtable flushed last, for the next.
    spare: Option<Memtable<R>>,
    manifest: Arc<Manifest<R::Key>>,
    /// Edits of the manifest log, gathered while it is read.
    loading: Vec<ManifestEdit>,
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
        let count_max = values_per_bar(grid.geometry(), u32_of(size_of::<R>()));
        let count_max = u32::try_from(count_max).expect("the caller asked whether the records fit");
        let mutable = Memtable::new(pool.clone(), count_max);
        let manifest = Arc::new(Manifest::new(grid.geometry().levels));
        let state = State { mutable, immutable: None, spare: None, manifest, loading: Vec::new() };
        Self { id, grid, layout, pool, publication, state: RwLock::new(state) }
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
        Arc::clone(&self.state.read().manifest)
    }

    /// The memtable that waits to be flushed.
    #[must_use]
    pub fn immutable(&self) -> Option<Sealed<R>> {
        self.state.read().immutable.clone()
    }

    /// Values, overwritten ones included, in the mutable and in the immutable memtable.
    #[must_use]
    pub fn memtable_counts(&self) -> (u64, u64) {
        let state = self.state.read();
        (state.mutable.len(), state.immutable.as_ref().map_or(0, Sealed::len))
    }

    /// What a level holds.
    #[must_use]
    pub fn level_stats(&self, level: Level) -> LevelStats {
        let manifest = self.manifest();
        let blocks = manifest.iter(level, Beat::MAX).map(|table| u64::from(table.info.value_block_count));
        LevelStats {
            table_count: manifest.table_count(level),
            value_count: manifest.value_count(level),
            tombstone_count: manifest.tombstone_count(level),
            value_block_count: blocks.sum(),
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
        for (index, value) in values.iter().enumerate() {
            let is_set =
                |bitmap: &[u8]| bitmap.get(index / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1);
            self.state.write().mutable.put(value, tombstones.is_some_and(is_set))?;
        }
        Ok(())
    }

    /// Adds one record, or a tombstone for its key.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn put(&self, record: &R, tombstone: bool) -> Result<(), Full> {
        self.append(record.as_bytes(), tombstone.then_some([1].as_slice()))
    }

    /// Makes all that was added visible. For several trees at once: within [`Publication::publish`].
    pub fn publish(&self) {}

    /// The record of `key`. At most one index block and one page are read per level that may hold it.
    ///
    /// # Errors
    /// Damage or failure of what has to be read.
    pub fn get(&self, key: R::Key) -> Result<Option<R>, TableError> {
        let (mut found, manifest) = self.publication.capture(|| {
            let state = self.state.read();
            let mut found = state.mutable.get(key);
            if found.is_absent()
                && let Some(sealed) = &state.immutable
            {
                found = sealed.get(key);
            }
            (found, Arc::clone(&state.manifest))
        });
        for level in manifest.levels() {
            if !found.is_absent() {
                break;
            }
            let Some(table) = manifest.find(level, key, Beat::MAX) else { continue };
            found = search(&self.grid, &self.layout, &table.info, key)?;
        }
        Ok(found.value())
    }

    /// The records whose keys lie in `range`, in the direction's order, as they are visible now, however long the
    /// scan takes. Reads nothing before the first record is asked for.
    #[must_use]
    pub fn scan(&self, range: KeyRange<R::Key>, direction: Direction) -> Scan<'_, R> {
        let state = self.state.read();
        let mut sources = vec![gather(state.mutable.cursor(range, direction))];
        if let Some(sealed) = &state.immutable {
            sources.push(gather(sealed.cursor(range, direction)));
        }
        for level in state.manifest.levels() {
            let tables = LevelTables::new(Arc::clone(&state.manifest), level, range, direction);
            let grid = Arc::clone(&self.grid);
            let cursor = LevelCursor::new(grid, self.layout, tables, range, direction, ReadAhead::SCAN);
            sources.push(ScanSource::Level(cursor));
        }
        Scan::new(sources, direction)
    }

    /// Sorts what this beat put into a run.
    pub fn close_beat(&self, scratch: &mut Scratch) {
        self.state.write().mutable.close_beat(scratch);
    }

    /// Makes the mutable memtable the one to be flushed, at the end of a bar.
    ///
    /// # Panics
    /// If the one before was not flushed.
    pub fn swap_memtables(&self) {
        let mut state = self.state.write();
        assert!(state.immutable.is_none(), "every memtable is flushed within the bar after its own");
        if state.mutable.is_empty() {
            return;
        }
        let count_max = state.mutable.value_count_max();
        let next = state.spare.take().unwrap_or_else(|| Memtable::new(self.pool.clone(), count_max));
        state.immutable = Some(std::mem::replace(&mut state.mutable, next).seal());
    }

    /// Makes the outputs of a compaction visible in place of its inputs.
    ///
    /// # Panics
    /// If the edits do not fit the tree's tables: they are the engine's own.
    pub fn apply(&self, is_flush: bool, edits: &[ManifestEdit]) {
        let mut state = self.state.write();
        let manifest = Arc::make_mut(&mut state.manifest);
        for edit in edits {
            manifest.apply_own(edit);
        }
        if is_flush {
            let flushed = state.immutable.take().expect("a flush writes the immutable memtable");
            state.spare = flushed.recycle().ok();
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
        self.state.write().loading.push(ManifestEdit { kind: EditKind::Insert, level, table });
        Ok(())
    }

    /// Builds the manifest of all tables that were taken over, and checks the relations between them.
    ///
    /// # Errors
    /// What does not fit: a level that is not there, tables that overlap or share a block.
    pub fn loaded(&self) -> Result<(), Corruption> {
        let mut state = self.state.write();
        let edits = std::mem::take(&mut state.loading);
        state.manifest = Arc::new(Manifest::load(state.manifest.level_count(), edits)?);
        Ok(())
    }
}

fn gather<R: Record>(mut cursor: impl Source<R>) -> ScanSource<R> {
    let mut entries = Vec::new();
    while let Ok(Some(_)) = cursor.load() {
        let Entry { value, tombstone } = cursor.entry();
        entries.push(Entry { value: *value, tombstone });
        cursor.advance();
    }
    ScanSource::Memory(entries, 0)
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
