//! A scan: the records of one tree in order, merged from memtables and levels, tombstones left out.

use understory_format::{Direction, Record};
use understory_table::{AnySource, Entry, Merge, TableError, Tombstones};

/// The records of a range, one after another.
#[derive(Debug)]
pub struct Scan<'a, R: Record> {
    merge: Merge<R, AnySource<'a, R>>,
}

impl<'a, R: Record> Scan<'a, R> {
    /// A scan of sources given newest first.
    pub(crate) fn new(sources: Vec<AnySource<'a, R>>, direction: Direction) -> Self {
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
