//! The tree catalogue: one block that says which trees a forest has and what their records' keys are.
//!
//! With it, verifier, repair and inspector work on a file without the user's types. The schema's fingerprint is the
//! checksum of its entries in the order of their ids.
//!
//! # Invariants
//! - Ids ascend, names are different and printable, keys lie in their values (`decode`).
//!
//! # Not here
//! Whether a file's schema is the one a program has: whoever opens compares fingerprints, then descriptions.

use zerocopy::little_endian::{U16, U32, U128};
use zerocopy::{FromBytes, IntoBytes};

use crate::block::{self, BlockHeader, BlockKind, HEADER_SIZE, Metadata, Placement, write_header};
use crate::error::{Corruption, Expected, at_least, at_most, exactly, rule, zero};
use crate::key::{KEY_FIELDS_MAX, KeyDescriptor, KeyError, KeyField, KeyKind};
use crate::layout::layout;
use crate::record::{NAME_SIZE_MAX, Record, VALUE_SIZE_MAX, is_name};
use crate::units::{Checksum, TreeId, u32_of, u64_of, usize_of};

/// What a tree is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Usage {
    /// Values are put, overwritten and removed.
    General = 1,
    /// Entries of a secondary index: a put and a remove of the same key annihilate.
    SecondaryIndex = 2,
}

impl Usage {
    /// The tag on disk; never 0.
    #[must_use]
    pub const fn tag(self) -> u8 {
        match self {
            Self::General => 1,
            Self::SecondaryIndex => 2,
        }
    }

    /// The usage with this tag.
    #[must_use]
    pub const fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            1 => Some(Self::General),
            2 => Some(Self::SecondaryIndex),
            _ => None,
        }
    }
}

/// The name of a tree: 1 to 32 bytes of printable ASCII without spaces.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreeName([u8; NAME_SIZE_MAX]);

impl TreeName {
    /// The name, or `None` if it is none.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        if !is_name(name.as_bytes()) {
            return None;
        }
        let mut bytes = [0; NAME_SIZE_MAX];
        bytes.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        Some(Self(bytes))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let used = self.0.iter().position(|&byte| byte == 0).unwrap_or(NAME_SIZE_MAX);
        self.0.get(..used).and_then(|name| str::from_utf8(name).ok()).unwrap_or_default()
    }

    fn decode(bytes: [u8; NAME_SIZE_MAX]) -> Result<Self, Corruption> {
        let used = bytes.iter().position(|&byte| byte == 0).unwrap_or(NAME_SIZE_MAX);
        let (name, padding) = bytes.split_at(used);
        rule("name", "1 to 32 bytes of printable ASCII", is_name(name), u64_of(used))?;
        zero("name", padding)?;
        Ok(Self(bytes))
    }
}

impl core::fmt::Display for TreeName {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl core::fmt::Debug for TreeName {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// A tree, as the catalogue has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeDescription {
    /// Its id.
    pub id: TreeId,
    /// Its name.
    pub name: TreeName,
    /// Bytes of a value.
    pub value_size: u32,
    /// What it is for.
    pub usage: Usage,
    /// Its key.
    pub key: KeyDescriptor,
}

impl TreeDescription {
    /// The description of the tree of `R`.
    ///
    /// # Panics
    /// If `R::NAME` is no name; `record!` lets none through.
    #[must_use]
    pub fn of<R: Record>(id: TreeId, usage: Usage) -> Self {
        let name = TreeName::new(R::NAME).expect("`record!` checks the name");
        Self { id, name, value_size: u32_of(size_of::<R>()), usage, key: R::KEY }
    }
}

layout! {
    /// Metadata of the block of the tree catalogue.
    pub struct CatalogueMetadata: 128 = "catalogue-metadata" {
        /// XXH3-128 of the entries: the schema's fingerprint.
        0: fingerprint: U128,
        /// Trees in the block.
        16: entry_count: U32,
        /// Zero.
        20: reserved: [u8; 108],
    }
}

impl Metadata for CatalogueMetadata {
    const KIND: BlockKind = BlockKind::Catalogue;
}

layout! {
    /// One field of a tree's key. All zero if the key has fewer.
    pub struct KeyFieldWire: 4 = "key-field" {
        /// Offset in the value.
        0: offset: U16,
        /// Bytes: 1, 2, 4, 8 or 16 of an integer, 1 to 32 of a byte string.
        2: size: u8,
        /// How it compares: 1 as an unsigned little-endian integer, 2 as a byte string.
        3: kind: u8,
    }
}

layout! {
    /// The fields of a tree's key, the first compared first.
    pub struct KeyFieldsWire: 16 = "key-fields" {
        /// The first field; always there.
        0: first: KeyFieldWire,
        /// The second field.
        4: second: KeyFieldWire,
        /// The third field.
        8: third: KeyFieldWire,
        /// The fourth field.
        12: fourth: KeyFieldWire,
    }
}

layout! {
    /// One tree in the catalogue.
    pub struct CatalogueEntry: 128 = "catalogue-entry" {
        /// Name, 1 to 32 bytes of printable ASCII, zero padded.
        0: name: [u8; 32],
        /// Fields of its key.
        32: key: KeyFieldsWire,
        /// Bytes of a value.
        48: value_size: U32,
        /// Id of the tree, from 1; ascending in the block.
        52: tree_id: U16,
        /// Fields of the key, 1 to 4.
        54: key_field_count: u8,
        /// What the tree is for: 1 general, 2 secondary index.
        55: usage: u8,
        /// Zero, reserved for options.
        56: reserved_options: [u8; 8],
        /// Zero.
        64: reserved: [u8; 64],
    }
}

const ENTRY_SIZE: usize = size_of::<CatalogueEntry>();

/// Trees that a forest can have: what fits one block.
#[must_use]
pub const fn capacity(block_size: u32) -> u32 {
    (block_size - u32_of(HEADER_SIZE)) / u32_of(ENTRY_SIZE)
}

impl KeyFieldWire {
    const NONE: Self = Self { offset: U16::new(0), size: 0, kind: 0 };

    fn encode(field: &KeyField) -> Self {
        Self { offset: field.offset.into(), size: field.size, kind: field.kind.tag() }
    }

    fn decode(&self) -> Result<KeyField, Corruption> {
        let kind = KeyKind::from_tag(self.kind).ok_or_else(|| {
            Corruption::new("key kind", Expected::Rule("integer (1) or bytes (2)"), self.kind.into())
        })?;
        Ok(KeyField { offset: self.offset.get(), size: self.size, kind })
    }
}

impl KeyFieldsWire {
    fn encode(key: &KeyDescriptor) -> Self {
        let field = |index| key.fields().get(index).map_or(KeyFieldWire::NONE, KeyFieldWire::encode);
        Self { first: field(0), second: field(1), third: field(2), fourth: field(3) }
    }

    fn decode(&self, count: u8, value_size: u32) -> Result<KeyDescriptor, Corruption> {
        let wire = [self.first, self.second, self.third, self.fourth];
        at_least("key_field_count", 1_u8, count)?;
        at_most("key_field_count", u64_of(KEY_FIELDS_MAX), count)?;
        let (used, unused) = wire.split_at(usize::from(count));
        unused.iter().try_for_each(|field| zero("key", field.as_bytes()))?;
        let mut fields = [KeyField { offset: 0, size: 0, kind: KeyKind::Bytes }; KEY_FIELDS_MAX];
        for (field, wire) in fields.iter_mut().zip(used) {
            *field = wire.decode()?;
        }
        let fields = fields.get(..usize::from(count)).unwrap_or_default();
        KeyDescriptor::new(fields, value_size).map_err(|error| {
            let text = match error {
                KeyError::FieldCount => "one to four fields",
                KeyError::FieldSize => "an integer of 1, 2, 4, 8 or 16 bytes, or 1 to 32 bytes",
                KeyError::KeySize => "at most 32 bytes",
                KeyError::FieldOffset => "fields inside the value",
                KeyError::FieldOverlap => "fields that do not overlap",
            };
            Corruption::new("key", Expected::Rule(text), count.into())
        })
    }
}

impl CatalogueEntry {
    /// The wire form.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "a descriptor has at most four fields")]
    pub fn encode(tree: &TreeDescription) -> Self {
        Self {
            name: tree.name.0,
            key: KeyFieldsWire::encode(&tree.key),
            value_size: tree.value_size.into(),
            tree_id: tree.id.get().into(),
            key_field_count: u8::try_from(tree.key.fields().len()).expect("at most four"),
            usage: tree.usage.tag(),
            reserved_options: [0; 8],
            reserved: [0; 64],
        }
    }

    /// The tree.
    ///
    /// # Errors
    /// The first field that no tree has.
    pub fn decode(&self) -> Result<TreeDescription, Corruption> {
        Self::LAYOUT.check_reserved(self.as_bytes())?;
        let value_size = self.value_size.get();
        at_least("value_size", 1_u8, value_size)?;
        at_most("value_size", u64_of(VALUE_SIZE_MAX), value_size)?;
        let id = TreeId::new(self.tree_id.get())
            .ok_or_else(|| Corruption::new("tree_id", Expected::AtLeast(1), 0))?;
        let usage = Usage::from_tag(self.usage).ok_or_else(|| {
            let expected = Expected::Rule("general (1) or secondary index (2)");
            Corruption::new("usage", expected, self.usage.into())
        })?;
        let name = TreeName::decode(self.name)?;
        let key = self.key.decode(self.key_field_count, value_size)?;
        Ok(TreeDescription { id, name, value_size, usage, key })
    }
}

/// The schema's fingerprint: the checksum of the entries, one after another. It is that of a catalogue block with
/// these trees, and needs no block.
#[must_use]
pub fn fingerprint(trees: &[TreeDescription]) -> Checksum {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    for tree in trees {
        hasher.update(CatalogueEntry::encode(tree).as_bytes());
    }
    Checksum::new(hasher.digest128())
}

/// Writes and seals the block. Returns its identity.
///
/// # Panics
/// If there are more trees than fit, their ids do not ascend, two have one name, or the placement is not one of a
/// metadata block.
pub fn encode(block: &mut [u8], placement: &Placement, trees: &[TreeDescription]) -> Checksum {
    assert!(is_sorted(trees), "ids ascend");
    assert!(repeated_name(trees).is_none(), "names are different");
    let end = HEADER_SIZE + trees.len() * ENTRY_SIZE;
    let body = block.get_mut(HEADER_SIZE..end).expect("no more trees than fit");
    for (place, tree) in body.chunks_exact_mut(ENTRY_SIZE).zip(trees) {
        place.copy_from_slice(CatalogueEntry::encode(tree).as_bytes());
    }
    let metadata = CatalogueMetadata {
        fingerprint: fingerprint(trees).get().into(),
        entry_count: u32_of(trees.len()).into(),
        reserved: [0; 108],
    };
    write_header(block, placement, end, &metadata);
    block::seal(block)
}

fn is_sorted(trees: &[TreeDescription]) -> bool {
    trees.is_sorted_by(|before, after| before.id < after.id)
}

/// The first tree whose name an earlier one has.
fn repeated_name(trees: &[TreeDescription]) -> Option<&TreeDescription> {
    let mut earlier = trees.iter();
    core::iter::from_fn(|| earlier.next())
        .enumerate()
        .find(|(index, tree)| trees.iter().take(*index).any(|other| other.name == tree.name))
        .map(|(_, tree)| tree)
}

/// The block of the tree catalogue, read and verified.
#[derive(Clone, Copy, Debug)]
pub struct CatalogueView<'a> {
    header: &'a BlockHeader,
    fingerprint: Checksum,
    entries: &'a [CatalogueEntry],
}

impl<'a> CatalogueView<'a> {
    /// The block in `block`, checked. O(trees^2), of which there are few.
    ///
    /// # Errors
    /// The first field that no catalogue has.
    pub fn new(block: &'a [u8]) -> Result<Self, Corruption> {
        let (header, metadata, body) = block::open::<CatalogueMetadata>(block)?;
        CatalogueMetadata::LAYOUT.check_reserved(metadata.as_bytes())?;
        let size = u64::from(metadata.entry_count.get()) * u64_of(ENTRY_SIZE);
        exactly("size", u64_of(HEADER_SIZE) + size, header.size.get())?;
        let entries = <[CatalogueEntry]>::ref_from_bytes(body).map_err(|_| {
            Corruption::new("size", Expected::Rule("whole entries"), header.size.get().into())
        })?;
        exactly("fingerprint", Checksum::of(body).get(), metadata.fingerprint.get())?;
        let mut before = 0;
        for (index, entry) in entries.iter().enumerate() {
            entry.decode()?;
            let id = entry.tree_id.get();
            rule("tree_id", "ids that ascend", id > before, id)?;
            before = id;
            let repeated = entries.iter().take(index).any(|other| other.name == entry.name);
            rule("name", "names that differ", !repeated, id)?;
        }
        let fingerprint = Checksum::new(metadata.fingerprint.get());
        Ok(Self { header, fingerprint, entries })
    }

    /// The header.
    #[must_use]
    pub const fn header(&self) -> &'a BlockHeader {
        self.header
    }

    /// The schema's fingerprint.
    #[must_use]
    pub const fn fingerprint(&self) -> Checksum {
        self.fingerprint
    }

    /// Trees in the block.
    #[must_use]
    pub fn tree_count(&self) -> u32 {
        u32_of(self.entries.len())
    }

    /// The trees, by id.
    #[expect(clippy::missing_panics_doc, reason = "entries were checked when the view was made")]
    pub fn trees(&self) -> impl ExactSizeIterator<Item = TreeDescription> + use<'a> {
        self.entries.iter().map(|entry| entry.decode().expect("checked when the view was made"))
    }
}

const _: () = assert!(usize_of(u32_of(ENTRY_SIZE)) * 30 <= 4096 - HEADER_SIZE);

#[cfg(test)]
mod tests;
