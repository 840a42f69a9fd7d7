//! On-disk formats of Understory: headers, layouts, checksums, records and keys.
//!
//! This crate owns every byte that stands in a data file. It encodes and decodes on byte slices: no I/O, no
//! allocation policy, no time. Each module is one concept:
//!
//! - [`geometry`]: what is fixed when a file is made, and where its zones are;
//! - [`superblock`]: the durable root;
//! - [`block`]: the header of every block, sealing and verifying; then one module per kind: [`value`], [`index`],
//!   [`filter`], [`manifest_block`], [`trailer`], [`catalogue`];
//! - [`journal`]: groups of the ring, their records and parts;
//! - [`mod@record`] and [`key`]: the contract with the user's types, and the descriptor that does without them;
//! - [`table_info`]: tables and their events as plain data;
//! - [`layout`] and [`mod@dump`]: the tables of fields that make structs, dumps and `docs/layout`.
//!
//! # Invariants
//! - Decoding gives a typed [`Corruption`] and never panics, whatever the bytes and also after a good checksum (tests:
//!   random bytes, every flip of a byte, every flip under a new checksum).
//! - Reserved bytes are zero and checked; tag 0 is never valid; all integers are little-endian.
//! - Every wire struct's size and offsets are asserted at compile time (`layout!`).
//!
//! # Not here
//! Relations between blocks: disjoint tables, single ownership, chains. They need more than one block to be read.

pub mod block;
pub mod catalogue;
pub mod dump;
pub mod error;
pub mod filter;
pub mod geometry;
pub mod index;
pub mod journal;
pub mod key;
pub mod layout;
pub mod manifest_block;
pub mod range;
pub mod record;
pub mod refs;
pub mod superblock;
pub mod table_info;
pub mod trailer;
pub mod units;
pub mod value;

#[cfg(test)]
mod testing;

pub use block::{
    BlockHeader, BlockKind, Expect, HEADER_SIZE, Placement, VERSION, header, reference, seal, verify,
    write_len,
};
pub use catalogue::{CatalogueEntry, CatalogueView, TreeDescription, TreeName, Usage, fingerprint};
pub use dump::{documents, dump, dump_block, dump_group, dump_superblock, layouts, markdown};
pub use error::{Corruption, Expected, Place};
pub use filter::{FILTER_BITS_MAX, FilterBuilder, FilterLayout, FilterView};
pub use geometry::{
    Difference, Geometry, GeometryError, Level0, SECTOR_SIZE, SUPERBLOCK_COPIES, SUPERBLOCK_STRIDE,
    SUPERBLOCK_ZONE_SIZE, charge, effect_size,
};
pub use index::{
    IndexEncoder, IndexEntry, IndexEntryHost, IndexView, TableCounts, index_capacity, table_capacity,
};
pub use journal::{
    GroupHeader, PartHeader, PartView, Parts, RecordHeader, RecordKind, RecordView, part_size,
};
pub use key::{
    KEY_FIELDS_MAX, KEY_SIZE_MAX, Key, KeyBytes, KeyDescriptor, KeyError, KeyField, KeyKind, KeyPart,
};
pub use layout::{Field, FieldKind, Layout};
pub use manifest_block::ManifestBlockView;
pub use range::{Direction, KeyRange};
pub use record::{KeyFieldType, NAME_SIZE_MAX, Record, VALUE_SIZE_MAX};
pub use refs::{BlockRef, TwinRef, TwinRefWire};
pub use superblock::{
    CheckpointState, FreeSetRoot, Identity, LocalState, MAGIC, ManifestRoot, SUPERBLOCK_SIZE, ScrubCursor,
    Superblock, SuperblockCopy,
};
pub use table_info::{EditKind, ManifestEdit, ManifestRecord, TableInfo};
pub use trailer::TrailerView;
pub use units::{Beat, BlockAddress, Checksum, Level, Op, TreeId, u32_of, u64_of, usize_of};
pub use value::{
    PageBuilder, PageLayout, PageView, ValueBlockBuilder, ValueBlockView, ValueLayout, page_checksum,
};

/// The zerocopy that records are made with; [`record!`] names it.
pub use zerocopy;

/// The README's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
