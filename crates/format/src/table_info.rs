//! What is known of a table without reading it, and the events that make and end tables: plain data.
//!
//! # Invariants
//! - A decoded [`TableInfo`] has values, no more tombstones than values, and a life that does not end before it
//!   starts (checked by `decode`). Whether its keys are in order needs the key's type: `Table::new` of `manifest`.
//!
//! # Not here
//! Which tables a level may hold together: `manifest`. How events stand in blocks: `manifest_block`.

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

use crate::error::{Corruption, Expected, at_least, at_most};
use crate::key::KeyBytes;
use crate::layout::layout;
use crate::refs::{TwinRef, TwinRefWire};
use crate::units::{Beat, Level, TreeId};

/// A table: an index block and the value blocks it names. Tables are immutable but for `beat_max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableInfo {
    /// The tree it belongs to.
    pub tree: TreeId,
    /// Its index block.
    pub index: TwinRef,
    /// Its least key.
    pub key_min: KeyBytes,
    /// Its greatest key, inclusive.
    pub key_max: KeyBytes,
    /// Its values, tombstones included; at least 1.
    pub value_count: u64,
    /// How many of them are tombstones.
    pub tombstone_count: u64,
    /// Its value blocks; at least 1.
    pub value_block_count: u32,
    /// The first beat that sees it.
    pub beat_min: Beat,
    /// The last beat that sees it, [`Beat::MAX`] while it is live.
    pub beat_max: Beat,
    /// The beat in which its youngest values were flushed.
    pub age: Beat,
}

/// What happened to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EditKind {
    /// It appeared in the level.
    Insert = 1,
    /// It is in the level with other data than before, or came to it from another.
    Update = 2,
    /// It is gone.
    Remove = 3,
}

impl EditKind {
    /// The tag on disk; never 0.
    #[must_use]
    pub const fn tag(self) -> u8 {
        match self {
            Self::Insert => 1,
            Self::Update => 2,
            Self::Remove => 3,
        }
    }

    /// The kind with this tag.
    #[must_use]
    pub const fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            1 => Some(Self::Insert),
            2 => Some(Self::Update),
            3 => Some(Self::Remove),
            _ => None,
        }
    }
}

/// One event of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifestEdit {
    /// What happened.
    pub kind: EditKind,
    /// The level it is in, or was removed from.
    pub level: Level,
    /// The table as it is after the event.
    pub table: TableInfo,
}

layout! {
    /// One event of the manifest log.
    pub struct ManifestRecord: 160 = "manifest-record" {
        /// The table's index block.
        0: index: TwinRefWire,
        /// Its least key, zero padded.
        32: key_min: [u8; 32],
        /// Its greatest key, inclusive, zero padded.
        64: key_max: [u8; 32],
        /// Its values, tombstones included; at least 1.
        96: value_count: U64,
        /// How many of them are tombstones.
        104: tombstone_count: U64,
        /// The first beat that sees the table.
        112: beat_min: U64,
        /// The last beat that sees it; all ones while it is live.
        120: beat_max: U64,
        /// The beat in which its youngest values were flushed.
        128: age: U64,
        /// Its value blocks; at least 1.
        136: value_block_count: U32,
        /// Its tree, from 1.
        140: tree_id: U16,
        /// Its level, below 64.
        142: level: u8,
        /// What happened: 1 insert, 2 update, 3 remove.
        143: kind: u8,
        /// Zero.
        144: reserved: [u8; 16],
    }
}

impl ManifestRecord {
    /// The wire form.
    #[must_use]
    pub fn encode(edit: &ManifestEdit) -> Self {
        let table = &edit.table;
        Self {
            index: table.index.into(),
            key_min: *table.key_min.get(),
            key_max: *table.key_max.get(),
            value_count: table.value_count.into(),
            tombstone_count: table.tombstone_count.into(),
            beat_min: table.beat_min.get().into(),
            beat_max: table.beat_max.get().into(),
            age: table.age.get().into(),
            value_block_count: table.value_block_count.into(),
            tree_id: table.tree.get().into(),
            level: edit.level.get(),
            kind: edit.kind.tag(),
            reserved: [0; 16],
        }
    }

    /// The event.
    ///
    /// # Errors
    /// The first field that no event can have.
    pub fn decode(&self) -> Result<ManifestEdit, Corruption> {
        let kind = EditKind::from_tag(self.kind)
            .ok_or_else(|| Corruption::new("kind", Expected::Rule("an event, 1 to 3"), self.kind.into()))?;
        let level = Level::new(self.level)
            .ok_or_else(|| Corruption::new("level", Expected::AtMost(63), self.level.into()))?;
        let tree = TreeId::new(self.tree_id.get())
            .ok_or_else(|| Corruption::new("tree_id", Expected::AtLeast(1), 0))?;
        at_least("value_block_count", 1_u8, self.value_block_count.get())?;
        at_least("value_count", self.value_block_count.get(), self.value_count.get())?;
        at_most("tombstone_count", self.value_count.get(), self.tombstone_count.get())?;
        at_most("beat_min", self.beat_max.get(), self.beat_min.get())?;
        Self::LAYOUT.check_reserved(self.as_bytes())?;
        let table = TableInfo {
            tree,
            index: self.index.decode_some()?,
            key_min: KeyBytes(self.key_min),
            key_max: KeyBytes(self.key_max),
            value_count: self.value_count.get(),
            tombstone_count: self.tombstone_count.get(),
            value_block_count: self.value_block_count.get(),
            beat_min: Beat::new(self.beat_min.get()),
            beat_max: Beat::new(self.beat_max.get()),
            age: Beat::new(self.age.get()),
        };
        Ok(ManifestEdit { kind, level, table })
    }
}
