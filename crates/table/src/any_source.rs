//! The sources of a tree behind one type: what a merge of memtables and levels reads from.
//!
//! An enum instead of a trait object: the merge asks its sources for every value.

use understory_format::{Record, TableInfo};

use crate::memtable::Contents;
use crate::{Entry, LevelCursor, MemCursor, Source, TableError};
use std::sync::Arc;

/// A memtable, a sealed memtable or a level, whose tables `T` gives.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a merge has few sources and asks them for every value")]
pub enum AnySource<'a, R: Record, T = std::vec::IntoIter<TableInfo>> {
    /// The memtable that takes values.
    Memtable(MemCursor<R, &'a Contents<R>>),
    /// A memtable that is complete.
    Sealed(MemCursor<R, Arc<Contents<R>>>),
    /// Tables of one level.
    Level(LevelCursor<R, T>),
}

impl<R: Record, T: Iterator<Item = TableInfo>> Source<R> for AnySource<'_, R, T> {
    #[inline]
    fn load(&mut self) -> Result<Option<u64>, TableError> {
        match self {
            Self::Memtable(cursor) => cursor.load(),
            Self::Sealed(cursor) => cursor.load(),
            Self::Level(cursor) => cursor.load(),
        }
    }

    #[inline]
    fn entry(&self) -> Entry<&R> {
        match self {
            Self::Memtable(cursor) => cursor.entry(),
            Self::Sealed(cursor) => cursor.entry(),
            Self::Level(cursor) => cursor.entry(),
        }
    }

    #[inline]
    fn key(&self) -> R::Key {
        match self {
            Self::Memtable(cursor) => cursor.key(),
            Self::Sealed(cursor) => cursor.key(),
            Self::Level(cursor) => cursor.key(),
        }
    }

    #[inline]
    fn advance(&mut self) {
        match self {
            Self::Memtable(cursor) => cursor.advance(),
            Self::Sealed(cursor) => cursor.advance(),
            Self::Level(cursor) => cursor.advance(),
        }
    }

    fn prefetch(&mut self) {
        match self {
            Self::Memtable(cursor) => cursor.prefetch(),
            Self::Sealed(cursor) => cursor.prefetch(),
            Self::Level(cursor) => cursor.prefetch(),
        }
    }
}
