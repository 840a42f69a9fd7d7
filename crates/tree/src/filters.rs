//! What is in memory of the filters of a tree's tables, and how a lookup goes through them.
//!
//! A lookup looks first which table of each source can hold the key, and asks for the line of each one's filter; only
//! then does it look at the lines, which are on their way all at once. What is left are the tables that it has to read,
//! newest first.
//!
//! The filter of a table comes into memory when the table is written, or when a lookup found nothing in it for the
//! first time: so none is read at open, and none where lookups find what they look for.
//!
//! # Invariants
//! - The filters in a [`Routes`] are those of its manifest's tables: both are made together and never changed but by
//!   filters that come in.
//! - A filter that cannot be read is not asked for again: its table is read instead (test).
//!
//! # Not here
//! How much memory filters may take: `FilterBudget`. Reading tables: `tree`.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use smallvec::SmallVec;
use understory_format::{Beat, BlockAddress, EditKind, Key, Level, ManifestEdit, TableInfo};
use understory_grid::Grid;
use understory_manifest::{Manifest, Run, Table};
use understory_table::{Filter, FilterBudget, Line, TableError, TableLayout};

/// Tables of levels below this leave a part of the room to those above, which more lookups pass.
const DEEP: u8 = 2;
/// That part, as a divisor.
const SPARE: u64 = 4;
/// Sources that a lookup has place for without an allocation: runs of level 0 and levels at most.
const SOURCES: usize = 16;

/// The blocks that a filter of a table in `level` is to leave to others.
#[must_use]
pub fn filter_spare(budget: &FilterBudget, level: Level) -> u64 {
    if level.get() < DEEP { 0 } else { budget.limit() / SPARE }
}

/// The filter of one table, once it came into memory. None inside is one that cannot be had.
type Slot = Arc<OnceLock<Option<Filter>>>;

/// The filters of the live tables of a tree, by the address of their index.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    slots: BTreeMap<BlockAddress, Slot>,
}

impl Filters {
    /// Follows the tables. `filters` are those of tables that come in, as far as they are held.
    pub(crate) fn apply(&mut self, edits: &[ManifestEdit], filters: Vec<(BlockAddress, Filter)>) {
        for edit in edits {
            let address = edit.table.index.address;
            match edit.kind {
                EditKind::Insert => drop(self.slots.insert(address, Slot::default())),
                EditKind::Update => {}
                EditKind::Remove => drop(self.slots.remove(&address)),
            }
        }
        for (address, filter) in filters {
            let slot = self.slots.get(&address).expect("a filter of a table that was inserted");
            assert!(slot.set(Some(filter)).is_ok(), "a table has one filter");
        }
    }

    /// The tables of `manifest` with their filters. O(tables).
    pub(crate) fn routes<K: Key>(&self, manifest: Manifest<K>) -> Routes<K> {
        let slot = |table: &Table<K>| {
            let slot = self.slots.get(&table.info.index.address);
            Arc::clone(slot.expect("the filters follow the tables"))
        };
        let of_level = |level| manifest.runs(level).iter().enumerate().map(move |run| (level, run));
        let source = |(level, (run, tables)): (Level, (usize, &Run<K>))| Source {
            level,
            run,
            filters: tables.all().iter().map(slot).collect(),
        };
        let sources = manifest.levels().flat_map(of_level).map(source).collect();
        Routes { manifest: Arc::new(manifest), sources }
    }
}

/// The tables of a tree with what is in memory of their filters.
#[derive(Debug)]
pub(crate) struct Routes<K: Key> {
    manifest: Arc<Manifest<K>>,
    /// Newest first.
    sources: Vec<Source>,
}

/// A run of level 0, or a level.
#[derive(Debug)]
struct Source {
    level: Level,
    /// Which of the level's runs it is.
    run: usize,
    /// Of each of its tables.
    filters: Box<[Slot]>,
}

/// A table that may have the key that was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    source: usize,
    /// Which of the source's tables it is.
    place: usize,
}

/// The tables that may have a key, newest first.
pub(crate) type Candidates = SmallVec<[Candidate; SOURCES]>;

impl<K: Key> Routes<K> {
    pub(crate) const fn manifest(&self) -> &Arc<Manifest<K>> {
        &self.manifest
    }

    /// The tables whose keys enclose `key`, but for those whose filters say that they do not have it.
    #[inline]
    pub(crate) fn candidates(&self, key: K) -> Candidates {
        let hash = key.hash();
        let mut lines = SmallVec::<[(Candidate, Option<Line<'_>>); SOURCES]>::new();
        for (source, tables) in self.sources.iter().enumerate() {
            let Some((place, _)) = self.run(tables).find_at(key, Beat::MAX) else { continue };
            let filter = tables.filters.get(place).and_then(|slot| slot.get()?.as_ref());
            let line = filter.map(|filter| filter.line(hash));
            if let Some(line) = &line {
                line.prefetch();
            }
            lines.push((Candidate { source, place }, line));
        }
        lines.retain(|(_, line)| line.is_none_or(|line| line.may_have(hash)));
        lines.iter().map(|(candidate, _)| *candidate).collect()
    }

    /// What is known of a table.
    pub(crate) fn info(&self, candidate: Candidate) -> &TableInfo {
        let table = self.run(self.source(candidate)).all().get(candidate.place);
        &table.expect("a table that was found").info
    }

    /// Brings the filter of a table into memory, if that was not tried before and there is room.
    ///
    /// # Errors
    /// What is wrong with the filter: its table can be read without, and is from now on.
    pub(crate) fn load(
        &self,
        grid: &Grid,
        layout: &TableLayout,
        budget: &Arc<FilterBudget>,
        candidate: Candidate,
    ) -> Result<(), TableError> {
        let source = self.source(candidate);
        let slot = source.filters.get(candidate.place).expect("a place for each table");
        if slot.get().is_some() {
            return Ok(());
        }
        let read =
            Filter::read(grid, layout, self.info(candidate), budget, filter_spare(budget, source.level));
        match read {
            // Another reader may have been faster.
            Ok(Some(filter)) => drop(slot.set(Some(filter))),
            Ok(None) => {}
            Err(error) => {
                drop(slot.set(None));
                return Err(error);
            }
        }
        Ok(())
    }

    fn source(&self, candidate: Candidate) -> &Source {
        self.sources.get(candidate.source).expect("a source that was found")
    }

    #[inline]
    fn run(&self, source: &Source) -> &Run<K> {
        self.manifest.runs(source.level).get(source.run).expect("a run of the manifest")
    }
}
