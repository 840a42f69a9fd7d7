//! A scan: the records of one tree in order, merged from memtables and levels, tombstones left out.

use std::marker::PhantomData;
use std::sync::Arc;

use understory_format::{Beat, Direction, Key, KeyRange, Level, Record, TableInfo};
use understory_manifest::Manifest;
use understory_table::{Entry, LevelCursor, Merge, Source, TableError, Tombstones};

/// The tables of a level in a scan's order, looked up as the scan gets to them.
#[derive(Clone, Debug)]
pub(crate) struct LevelTables<K: Key> {
    manifest: Arc<Manifest<K>>,
    level: Level,
    /// What is left of the scan's range, from the end of the table given last on.
    range: Option<KeyRange<K>>,
    direction: Direction,
    /// The greatest key of the table given last: of a level's tables no two have the same.
    last: Option<K>,
}

impl<K: Key> LevelTables<K> {
    pub(crate) fn new(
        manifest: Arc<Manifest<K>>,
        level: Level,
        range: KeyRange<K>,
        direction: Direction,
    ) -> Self {
        Self { manifest, level, range: Some(range), direction, last: None }
    }
}

impl<K: Key> Iterator for LevelTables<K> {
    type Item = TableInfo;

    fn next(&mut self) -> Option<TableInfo> {
        let range = self.range?;
        let mut tables = self.manifest.range(self.level, range, Beat::MAX, self.direction);
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

/// What a scan reads from.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a merge has few sources and asks them for every value")]
pub(crate) enum ScanSource<R: Record> {
    Memory(Vec<Entry<R>>, usize),
    Level(LevelCursor<R, LevelTables<R::Key>>),
}

impl<R: Record> Source<R> for ScanSource<R> {
    fn load(&mut self) -> Result<Option<u64>, TableError> {
        match self {
            Self::Memory(entries, at) => Ok(entries.get(*at).map(|entry| entry.value.key().prefix())),
            Self::Level(cursor) => cursor.load(),
        }
    }

    fn entry(&self) -> Entry<&R> {
        match self {
            Self::Memory(entries, at) => {
                let Entry { value, tombstone } = entries.get(*at).expect("loaded");
                Entry { value, tombstone: *tombstone }
            }
            Self::Level(cursor) => cursor.entry(),
        }
    }

    fn advance(&mut self) {
        match self {
            Self::Memory(_, at) => *at += 1,
            Self::Level(cursor) => cursor.advance(),
        }
    }

    fn prefetch(&mut self) {
        match self {
            Self::Memory(..) => {}
            Self::Level(cursor) => cursor.prefetch(),
        }
    }
}

/// The records of a range, one after another.
#[derive(Debug)]
pub struct Scan<'a, R: Record> {
    merge: Merge<R, ScanSource<R>>,
    tree: PhantomData<&'a R>,
}

impl<R: Record> Scan<'_, R> {
    /// A scan of sources given newest first.
    pub(crate) fn new(sources: Vec<ScanSource<R>>, direction: Direction) -> Self {
        Self { merge: Merge::new(sources, direction, Tombstones::Drop), tree: PhantomData }
    }

    /// The next record; none at the end.
    ///
    /// # Errors
    /// Damage or failure of what has to be read; the next call tries again. [`TableError::Expired`] if the scan was
    /// open for too long; all further calls give the same.
    #[expect(clippy::should_implement_trait, reason = "it lends what it gives, and can fail")]
    pub fn next(&mut self) -> Result<Option<&R>, TableError> {
        let entry = self.merge.next()?;
        Ok(entry.map(|Entry { value, .. }| value))
    }
}
