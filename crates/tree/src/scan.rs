//! A scan: the records of one tree in order, merged from memtables and levels, tombstones left out.

use understory_format::{Direction, Key, Record, TableInfo};
use understory_manifest::Tables;
use understory_table::{AnySource, Entry, Merge, TableError, Tombstones};

/// What a scan reads from.
pub(crate) type ScanSource<'a, R> = AnySource<'a, R, LevelTables<'a, <R as Record>::Key>>;

/// The tables of a level in a scan's order, looked up as the scan gets to them.
#[derive(Clone, Debug)]
pub(crate) struct LevelTables<'a, K: Key>(pub(crate) Tables<'a, K>);

impl<K: Key> Iterator for LevelTables<'_, K> {
    type Item = TableInfo;

    fn next(&mut self) -> Option<TableInfo> {
        self.0.next().map(|table| table.info)
    }
}

/// The records of a range, one after another.
#[derive(Debug)]
pub struct Scan<'a, R: Record> {
    merge: Merge<R, ScanSource<'a, R>>,
}

impl<'a, R: Record> Scan<'a, R> {
    /// A scan of sources given newest first.
    pub(crate) fn new(sources: Vec<ScanSource<'a, R>>, direction: Direction) -> Self {
        Self { merge: Merge::new(sources, direction, Tombstones::Drop) }
    }

    /// The next record; none at the end.
    ///
    /// # Errors
    /// Damage or failure of what has to be read. The next call tries again.
    #[expect(clippy::should_implement_trait, reason = "it lends what it gives, and can fail")]
    pub fn next(&mut self) -> Result<Option<&R>, TableError> {
        let entry = self.merge.next()?;
        Ok(entry.map(|Entry { value, .. }| value))
    }
}
