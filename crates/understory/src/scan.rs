//! The records of a range, as an iterator.

use std::ops::{Bound, RangeBounds};

use understory_format::{Direction, Key, KeyRange, Record};
use understory_tree::Tree;

use crate::{Database, Error};

/// The records of a scan, in its order.
///
/// After an error it ends.
#[derive(Debug)]
pub struct Scan<'a, R: Record> {
    database: &'a Database,
    scan: Option<understory_tree::Scan<'a, R>>,
    /// Keys that bound the range and are not in it.
    excluded: [Option<R::Key>; 2],
    /// Whether there are any.
    excludes: bool,
}

impl<'a, R: Record> Scan<'a, R> {
    pub(crate) fn new(
        database: &'a Database,
        tree: &'a Tree<R>,
        range: &impl RangeBounds<R::Key>,
        direction: Direction,
    ) -> Self {
        let scan = bounds(range).map(|keys| tree.scan(keys, direction));
        let excluded = [excluded(range.start_bound()), excluded(range.end_bound())];
        let excludes = excluded.iter().any(Option::is_some);
        Self { database, scan, excluded, excludes }
    }
}

impl<R: Record> Iterator for Scan<'_, R> {
    type Item = Result<R, Error>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.scan.as_mut()?.next() {
                Ok(Some(record)) if self.excludes && self.excluded.contains(&Some(record.key())) => {}
                Ok(record) => return record.copied().map(Ok),
                Err(error) => {
                    self.scan = None;
                    return Some(Err(self.database.read_error(error)));
                }
            }
        }
    }
}

/// The least inclusive range with all keys of `range`; none if there is no key in it.
fn bounds<K: Key>(range: &impl RangeBounds<K>) -> Option<KeyRange<K>> {
    let min = match range.start_bound() {
        Bound::Unbounded => K::MIN,
        Bound::Included(key) | Bound::Excluded(key) => *key,
    };
    let max = match range.end_bound() {
        Bound::Unbounded => K::MAX,
        Bound::Included(key) | Bound::Excluded(key) => *key,
    };
    KeyRange::new(min, max)
}

fn excluded<K: Key>(bound: Bound<&K>) -> Option<K> {
    match bound {
        Bound::Excluded(key) => Some(*key),
        Bound::Included(_) | Bound::Unbounded => None,
    }
}
