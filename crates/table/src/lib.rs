//! Immutable tables, memtables and the merge and sort kernels of Understory.
//!
//! A *table* is a sorted set of fixed-size records on disk: value blocks, a filter over their keys and one index block
//! that names them, with its key range and counts in a [`TableInfo`](understory_format::TableInfo). This crate writes
//! one ([`TableWriter`]), tells that one does not have a key ([`Filter`]), finds a key in one ([`search_cached`],
//! [`search`]), reads a level of disjoint ones in order ([`LevelCursor`]) and checks one from first to last byte
//! ([`verify()`]). What is not on disk yet is in a [`Memtable`]. [`Merge`] makes one ordered view of any of them.
//!
//! All of it is compiled for the record's type; only [`verify()`] and [`addresses`] do without.
//!
//! # Invariants
//! - The bytes of a table are a function of the values, the layout and the addresses: nothing of time, cache or
//!   hash order gets into them.
//! - Whatever stands in a block, also under a good checksum, gives `Corruption` or an answer, never a panic, and
//!   readers in order never see keys out of order.
//!
//! # Not here
//! Levels and which tables they have: `manifest`. What to merge and when: `compaction`. Bytes: `format`.

mod any_source;
mod contest;
mod entry;
mod error;
mod filter;
mod index;
mod layout;
mod level_cursor;
mod lookup;
mod loser_tree;
mod memtable;
mod merge;
mod run;
mod source;
#[cfg(test)]
mod test_forged;
#[cfg(test)]
mod test_grid;
#[cfg(test)]
mod test_rows;
mod verify;
mod writer;

pub use any_source::AnySource;
pub use entry::{Entry, Found};
pub use error::{LayoutError, TableError};
pub use filter::{Filter, FilterBudget, Line};
pub use index::addresses;
pub use layout::TableLayout;
pub use level_cursor::{BLOCKS_HELD_MAX, Head, LevelCursor, ReadAhead, Values};
pub use lookup::{Lookup, search, search_cached};
pub use memtable::{Access, Contents, Full, MemCursor, MemReader, MemWriter, Memtable, Sealed};
pub use merge::{Counts, Merge, Step, Tombstones};
pub use run::Scratch;
pub use source::Source;
pub use understory_format::{Direction, KeyRange};
pub use verify::verify;
pub use writer::{Abandoned, TableWriter};

/// The example of the README is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
