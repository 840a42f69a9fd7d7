//! A scan: the records of one tree in order, merged from memtables, runs and levels, tombstones left out.

use std::sync::Arc;

use understory_format::{Beat, Direction, Key, KeyRange, Level, Record, TableInfo};
use understory_manifest::Manifest;
use understory_table::{Entry, LevelCursor, MemReader, Merge, ReadAhead, Source, TableError, Tombstones};

use crate::Tree;
use crate::memory::Seen;
use crate::view::{Tables, View};

/// The tables of a run in a scan's order, looked up as the scan gets to them.
#[derive(Clone, Debug)]
pub(crate) struct RunTables<K: Key> {
    manifest: Arc<Manifest<K>>,
    level: Level,
    /// Which of the level's runs in this manifest.
    run: usize,
    /// What is left of the scan's range, from the end of the table given last on.
    range: Option<KeyRange<K>>,
    direction: Direction,
    /// The greatest key of the table given last: of a run's tables no two have the same.
    last: Option<K>,
}

impl<K: Key> RunTables<K> {
    pub(crate) fn new(
        manifest: Arc<Manifest<K>>,
        (level, run): (Level, usize),
        range: KeyRange<K>,
        direction: Direction,
    ) -> Self {
        Self { manifest, level, run, range: Some(range), direction, last: None }
    }
}

impl<K: Key> Iterator for RunTables<K> {
    type Item = TableInfo;

    fn next(&mut self) -> Option<TableInfo> {
        let range = self.range?;
        let run = self.manifest.runs(self.level).get(self.run)?;
        let mut tables = run.range(range, Beat::MAX, self.direction);
        let table = tables.find(|table| self.last != Some(table.key_max));
        let Some(table) = table else {
            self.range = None;
            return None;
        };
        self.last = Some(table.key_max);
        self.range = match self.direction {
            Direction::Ascending => KeyRange::new(table.key_max, range.max()),
            Direction::Descending => KeyRange::new(range.min(), table.key_min),
        };
        Some(table.info)
    }
}

/// A memtable of the scan's view.
#[derive(Debug)]
pub(crate) struct MemorySource<'a, R: Record> {
    tree: &'a Tree<R>,
    seen: Seen,
    reader: MemReader<R>,
}

impl<R: Record> MemorySource<'_, R> {
    #[cold]
    fn refill(&mut self) -> Result<Option<u64>, TableError> {
        while !self.reader.is_ended() {
            self.tree.refill(self.seen, &mut self.reader)?;
            if let Some(Entry { value, .. }) = self.reader.head() {
                return Ok(Some(value.key().prefix()));
            }
        }
        Ok(None)
    }
}

impl<R: Record> Source<R> for MemorySource<'_, R> {
    #[inline]
    fn load(&mut self) -> Result<Option<u64>, TableError> {
        match self.reader.head() {
            Some(Entry { value, .. }) => Ok(Some(value.key().prefix())),
            None => self.refill(),
        }
    }

    #[inline]
    fn entry(&self) -> Entry<&R> {
        self.reader.head().expect("an entry was loaded")
    }

    #[inline]
    fn advance(&mut self) {
        self.reader.advance();
    }
}

/// What a scan reads from.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a merge has few sources and asks them for every value")]
enum ScanSource<'a, R: Record> {
    Memory(MemorySource<'a, R>),
    Run(LevelCursor<R, RunTables<R::Key>>),
}

impl<R: Record> Source<R> for ScanSource<'_, R> {
    #[inline]
    fn load(&mut self) -> Result<Option<u64>, TableError> {
        match self {
            Self::Memory(source) => source.load(),
            Self::Run(cursor) => cursor.load(),
        }
    }

    #[inline]
    fn entry(&self) -> Entry<&R> {
        match self {
            Self::Memory(source) => source.entry(),
            Self::Run(cursor) => cursor.entry(),
        }
    }

    #[inline]
    fn key(&self) -> R::Key {
        match self {
            Self::Memory(source) => source.key(),
            Self::Run(cursor) => cursor.key(),
        }
    }

    #[inline]
    fn advance(&mut self) {
        match self {
            Self::Memory(source) => source.advance(),
            Self::Run(cursor) => cursor.advance(),
        }
    }

    fn stretch(&self, bound: Option<R::Key>) -> usize {
        match self {
            Self::Memory(_) => 1,
            Self::Run(cursor) => cursor.stretch(bound),
        }
    }

    fn prefetch(&mut self) {
        match self {
            Self::Memory(_) => {}
            Self::Run(cursor) => cursor.prefetch(),
        }
    }
}

/// The records of a range, one after another, as they were visible when the scan began.
///
/// Between calls it holds no lock and nothing that anybody waits for. So what it refers to may be used again before
/// it is at its end: it is then *expired*.
#[derive(Debug)]
pub struct Scan<'a, R: Record> {
    tree: &'a Tree<R>,
    tables: Tables<R::Key>,
    merge: Merge<R, ScanSource<'a, R>>,
    expired: bool,
}

impl<'a, R: Record> Scan<'a, R> {
    pub(crate) fn new(
        tree: &'a Tree<R>,
        view: View<R::Key>,
        range: KeyRange<R::Key>,
        direction: Direction,
    ) -> Self {
        let View { memtables, tables } = view;
        let memory = |seen: Seen| {
            ScanSource::Memory(MemorySource { tree, seen, reader: seen.reader(range, direction) })
        };
        let mut sources: Vec<_> = memtables.into_iter().map(memory).collect();
        let manifest = &tables.manifest;
        let runs =
            |level| manifest.runs(level).iter().enumerate().map(move |(place, run)| ((level, place), run));
        for (place, run) in manifest.levels().flat_map(runs) {
            if run.range(range, Beat::MAX, direction).next().is_some() {
                let infos = RunTables::new(Arc::clone(manifest), place, range, direction);
                let grid = Arc::clone(tree.grid());
                let (layout, ahead) = (*tree.layout(), ReadAhead::SCAN);
                let cursor = LevelCursor::new(grid, layout, infos, range, direction, ahead);
                sources.push(ScanSource::Run(cursor));
            }
        }
        Self { tree, tables, merge: Merge::new(sources, direction, Tombstones::Drop), expired: false }
    }

    /// The next record; none at the end.
    ///
    /// # Errors
    /// Damage or failure of what has to be read; the next call tries again. [`TableError::Expired`] if the scan was
    /// open for too long; all further calls give the same.
    #[expect(clippy::should_implement_trait, reason = "it lends what it gives, and can fail")]
    #[inline]
    pub fn next(&mut self) -> Result<Option<&R>, TableError> {
        if self.expired {
            return Err(TableError::Expired);
        }
        match self.merge.next() {
            Ok(entry) => Ok(entry.map(|Entry { value, .. }| value)),
            Err(error) => {
                let may_explain = self.tables.may_explain(&error, self.tree.grid());
                self.expired = may_explain || matches!(error, TableError::Expired);
                Err(if self.expired { TableError::Expired } else { error })
            }
        }
    }
}
