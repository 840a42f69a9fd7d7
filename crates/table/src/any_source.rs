//! The sources of a compaction behind one type: what a merge of a memtable and levels reads from.
//!
//! An enum instead of a trait object: the merge asks its sources for every value.

use understory_format::Record;

use crate::memtable::Contents;
use crate::{Entry, LevelCursor, MemCursor, Source, TableError};
use std::sync::Arc;

/// What a compaction reads: a sealed memtable or tables of one level.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a merge has few sources and asks them for every value")]
pub enum AnySource<R: Record> {
    /// A memtable that is complete.
    Sealed(MemCursor<R, Arc<Contents<R>>>),
    /// Tables of one level.
    Level(LevelCursor<R>),
}

impl<R: Record> Source<R> for AnySource<R> {
    #[inline]
    fn load(&mut self) -> Result<Option<u64>, TableError> {
        match self {
            Self::Sealed(cursor) => cursor.load(),
            Self::Level(cursor) => cursor.load(),
        }
    }

    #[inline]
    fn entry(&self) -> Entry<&R> {
        match self {
            Self::Sealed(cursor) => cursor.entry(),
            Self::Level(cursor) => cursor.entry(),
        }
    }

    #[inline]
    fn key(&self) -> R::Key {
        match self {
            Self::Sealed(cursor) => cursor.key(),
            Self::Level(cursor) => cursor.key(),
        }
    }

    #[inline]
    fn advance(&mut self) {
        match self {
            Self::Sealed(cursor) => cursor.advance(),
            Self::Level(cursor) => cursor.advance(),
        }
    }

    fn stretch(&self, bound: Option<R::Key>) -> usize {
        match self {
            Self::Sealed(_) => 1,
            Self::Level(cursor) => cursor.stretch(bound),
        }
    }

    fn prefetch(&mut self) {
        match self {
            Self::Sealed(cursor) => cursor.prefetch(),
            Self::Level(cursor) => cursor.prefetch(),
        }
    }
}
