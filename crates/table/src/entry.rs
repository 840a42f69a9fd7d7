//! What a table, a run or a memtable holds under a key: a value or a tombstone.
//!
//! Tombstones are beside the values, not in them: every bit pattern is a legal record, so the mark is a
//! `bool` that travels with the value. The record of a tombstone has its key fields set and zeros elsewhere.
//!
//! # Not here
//! How a tombstone is stored on disk: the bitmap of a page belongs to the format crate.

/// A record together with its tombstone mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<R> {
    /// The record; of a tombstone only the key fields mean anything.
    pub value: R,
    /// Whether this entry says that the key is removed.
    pub tombstone: bool,
}

impl<R> Entry<R> {
    /// A value that is present.
    pub const fn put(value: R) -> Self {
        Self { value, tombstone: false }
    }

    /// A key that is removed; `value` carries the key.
    pub const fn remove(value: R) -> Self {
        Self { value, tombstone: true }
    }

    /// What a lookup that ends at this entry answers.
    pub fn found(self) -> Found<R> {
        if self.tombstone { Found::Tombstone } else { Found::Value(self.value) }
    }
}

/// The answer of one source (memtable, run, table) about one key.
///
/// `Tombstone` ends a search through older sources as `Value` does; `Absent` sends it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<R> {
    /// The key is here with this record.
    Value(R),
    /// The key is here as removed: older sources must not be asked.
    Tombstone,
    /// This source knows nothing of the key.
    Absent,
}

impl<R> Found<R> {
    /// The record, if there is one: what a reader of the whole tree gets to see.
    pub fn value(self) -> Option<R> {
        match self {
            Self::Value(value) => Some(value),
            Self::Tombstone | Self::Absent => None,
        }
    }

    /// Whether the search has to go on in older sources.
    pub const fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}
