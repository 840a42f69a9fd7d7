//! Blocks as text, one field per line, and the layout tables as pages.
//!
//! ```text
//! 0034 +2    version                              01 00  1
//! ```
//! is offset (hexadecimal), size, name, bytes, and the number or text that the bytes are. Runs of four and more zero
//! bytes are written `00*n`. The same dump serves the inspector and the expectations of the tests, so that a change
//! of one field is a change of one line.
//!
//! # Invariants
//! - Any bytes can be dumped: what a damaged block does not let be decoded is shown as rows of bytes.
//!
//! # Not here
//! Whether the bytes are right: the decoders.

use core::fmt::Write;
use core::ops::Range;

use zerocopy::FromBytes;

use crate::block::{self, BlockHeader, BlockKind, HEADER_SIZE};
use crate::catalogue::{CatalogueEntry, CatalogueMetadata, KeyFieldWire, KeyFieldsWire};
use crate::filter::{FilterMetadata, FilterRef, LINE_SIZE};
use crate::geometry::GeometryWire;
use crate::index::{IndexEntry, IndexMetadata, IndexView};
use crate::journal::{
    GROUP_HEADER_SIZE, JournalGroupWire, JournalPartWire, JournalRecordWire, PART_HEADER_SIZE, PartView,
    Parts, RECORD_HEADER_SIZE,
};
use crate::layout::{Field, FieldKind, Layout};
use crate::manifest_block::ManifestMetadata;
use crate::refs::TwinRefWire;
use crate::superblock::{CheckpointStateWire, LocalStateWire, SuperblockCopy};
use crate::table_info::ManifestRecord;
use crate::trailer::TrailerMetadata;
use crate::units::{u32_of, usize_of};
use crate::value::{ValueBlockView, ValueMetadata};

mod markdown;

pub use markdown::{documents, markdown};

/// All wire structs, in the order in which they are read about.
#[must_use]
pub fn layouts() -> &'static [&'static Layout] {
    const {
        &[
            &SuperblockCopy::LAYOUT,
            &CheckpointStateWire::LAYOUT,
            &GeometryWire::LAYOUT,
            &LocalStateWire::LAYOUT,
            &TwinRefWire::LAYOUT,
            &BlockHeader::LAYOUT,
            &ValueMetadata::LAYOUT,
            &IndexMetadata::LAYOUT,
            &IndexEntry::LAYOUT,
            &FilterRef::LAYOUT,
            &FilterMetadata::LAYOUT,
            &ManifestMetadata::LAYOUT,
            &ManifestRecord::LAYOUT,
            &TrailerMetadata::LAYOUT,
            &CatalogueMetadata::LAYOUT,
            &CatalogueEntry::LAYOUT,
            &KeyFieldsWire::LAYOUT,
            &KeyFieldWire::LAYOUT,
            &JournalGroupWire::LAYOUT,
            &JournalRecordWire::LAYOUT,
            &JournalPartWire::LAYOUT,
        ]
    }
}

/// A struct as text, one line per field, nested structs by dotted names. Fields that `bytes` does not have are left
/// out.
#[must_use]
pub fn dump(layout: &Layout, bytes: &[u8]) -> String {
    let mut dump = Dump::default();
    dump.structure(0, "", layout, bytes);
    dump.text
}

/// The first copy of a superblock in these bytes as text.
#[must_use]
pub fn dump_superblock(bytes: &[u8]) -> String {
    dump(&SuperblockCopy::LAYOUT, bytes)
}

/// A block as text: header, metadata and body by its kind. What is not used is left out; a body that cannot be
/// decoded is shown as rows of bytes. Whatever the bytes, this does not panic.
#[must_use]
pub fn dump_block(block: &[u8]) -> String {
    let mut dump = Dump::default();
    let Ok(header) = block::header_raw(block) else {
        dump.rows("bytes", 0, block);
        return dump.text;
    };
    let (metadata, body) =
        (BlockHeader::LAYOUT.fields.split_last(), HEADER_SIZE..usize_of(header.size.get()));
    let Some((metadata, fields)) = metadata else { return dump.text };
    fields.iter().for_each(|field| dump.field(0, "", field, block));
    let kind = BlockKind::from_tag(header.kind);
    match kind {
        Some(kind) => dump.structure(metadata.offset, "metadata.", metadata_layout(kind), &header.metadata),
        None => dump.field(0, "", metadata, block),
    }
    let body_bytes = block.get(body.clone()).unwrap_or_default();
    let decoded = match kind {
        Some(BlockKind::Index) => dump.index(block),
        Some(BlockKind::Value) => dump.value(block),
        Some(BlockKind::Manifest) => dump.entries(&ManifestRecord::LAYOUT, body_bytes),
        Some(BlockKind::Catalogue) => dump.entries(&CatalogueEntry::LAYOUT, body_bytes),
        Some(BlockKind::Filter) => dump.lines(body_bytes),
        Some(BlockKind::FreeSet) | None => None,
    };
    if decoded.is_none() {
        dump.rows("body", HEADER_SIZE, body_bytes);
    }
    dump.text
}

/// A group of the journal as text: header, records, parts and effects. What cannot be made out is shown as rows of
/// bytes. Whatever the bytes, this does not panic.
#[must_use]
pub fn dump_group(group: &[u8]) -> String {
    let mut dump = Dump::default();
    dump.structure(0, "", &JournalGroupWire::LAYOUT, group);
    let count = JournalGroupWire::ref_from_prefix(group).map_or(0, |(wire, _)| wire.op_count.get());
    let mut at = GROUP_HEADER_SIZE;
    for index in 0..count {
        match dump.record(at, &format!("record[{index}]."), group) {
            Some(end) => at = end,
            None => break,
        }
    }
    let rest = group.get(at..).unwrap_or_default();
    if rest.iter().all(|&byte| byte == 0) {
        dump.line(at, "padding", rest, "");
    } else {
        dump.rows("rest", at, rest);
    }
    dump.text
}

const fn metadata_layout(kind: BlockKind) -> &'static Layout {
    match kind {
        BlockKind::Index => &IndexMetadata::LAYOUT,
        BlockKind::Value => &ValueMetadata::LAYOUT,
        BlockKind::Manifest => &ManifestMetadata::LAYOUT,
        BlockKind::FreeSet => &TrailerMetadata::LAYOUT,
        BlockKind::Catalogue => &CatalogueMetadata::LAYOUT,
        BlockKind::Filter => &FilterMetadata::LAYOUT,
    }
}

#[derive(Default)]
struct Dump {
    text: String,
}

impl Dump {
    fn line(&mut self, offset: usize, name: &str, bytes: &[u8], value: &str) {
        let gap = if value.is_empty() { "" } else { "  " };
        let size = bytes.len();
        let line = format_args!("{offset:04x} +{size:<4} {name:<36} {}{gap}{value}\n", hex(bytes));
        self.text.write_fmt(line).expect("a String takes all text");
    }

    fn field(&mut self, base: usize, prefix: &str, field: &Field, bytes: &[u8]) {
        let Some(bytes) = bytes.get(field.offset..field.offset + field.size) else { return };
        let (offset, name) = (base + field.offset, format!("{prefix}{}", field.name));
        match field.kind {
            FieldKind::Uint => self.line(offset, &name, bytes, &number(bytes)),
            FieldKind::Bytes => self.line(offset, &name, bytes, &text(bytes)),
            FieldKind::Struct(layout) => self.structure(offset, &format!("{name}."), layout, bytes),
        }
    }

    fn structure(&mut self, base: usize, prefix: &str, layout: &Layout, bytes: &[u8]) {
        layout.fields.iter().for_each(|field| self.field(base, prefix, field, bytes));
    }

    fn rows(&mut self, name: &str, base: usize, bytes: &[u8]) {
        for (index, row) in bytes.chunks(32).enumerate() {
            self.line(base + 32 * index, name, row, "");
        }
    }

    /// A body that is nothing but structs.
    fn entries(&mut self, layout: &Layout, body: &[u8]) -> Option<()> {
        let entries = body.chunks_exact(layout.size);
        if !entries.remainder().is_empty() {
            return None;
        }
        for (index, entry) in entries.enumerate() {
            self.structure(HEADER_SIZE + index * layout.size, &format!("entry[{index}]."), layout, entry);
        }
        Some(())
    }

    fn index(&mut self, block: &[u8]) -> Option<()> {
        let header = block::header(block).ok()?;
        let key_size = usize::from(header.metadata::<IndexMetadata>().key_size.get());
        let index = IndexView::unchecked(block, key_size).ok()?;
        let (blocks, pages) = (index.value_block_count(), index.page_count());
        let size = IndexEntry::LAYOUT.size;
        let mut at = HEADER_SIZE;
        for entry in 0..usize_of(blocks) {
            let bytes = block.get(at..at + size)?;
            self.structure(at, &format!("entry[{entry}]."), &IndexEntry::LAYOUT, bytes);
            at += size;
        }
        for entry in 0..blocks {
            self.line(at, &format!("key_min[{entry}]"), index.key_min_bytes(entry), "");
            at += key_size;
        }
        for page in 0..pages {
            self.line(at, &format!("page_key_max[{page}]"), index.page_key_max_bytes(page), "");
            at += key_size;
        }
        for page in 0..pages {
            let bytes = index.page_checksum(page).get().to_le_bytes();
            self.line(at, &format!("page_checksum[{page}]"), &bytes, "");
            at += bytes.len();
        }
        for filter in 0..index.filter_blocks().len() {
            let bytes = block.get(at..at + FilterRef::LAYOUT.size)?;
            self.structure(at, &format!("filter[{filter}]."), &FilterRef::LAYOUT, bytes);
            at += bytes.len();
        }
        Some(())
    }

    /// The lines of a filter.
    fn lines(&mut self, body: &[u8]) -> Option<()> {
        let lines = body.chunks_exact(LINE_SIZE);
        if !lines.remainder().is_empty() {
            return None;
        }
        for (index, line) in lines.enumerate() {
            self.line(HEADER_SIZE + index * LINE_SIZE, &format!("line[{index}]"), line, "");
        }
        Some(())
    }

    /// A record of the journal and its parts, from `start` on; where it ends.
    fn record(&mut self, start: usize, prefix: &str, group: &[u8]) -> Option<usize> {
        let (wire, _) = JournalRecordWire::ref_from_prefix(group.get(start..)?).ok()?;
        let body = start + RECORD_HEADER_SIZE;
        let end = body.checked_add(usize_of(wire.size.get())).filter(|&end| end <= group.len())?;
        self.structure(start, prefix, &JournalRecordWire::LAYOUT, group.get(start..body)?);
        let mut at = body;
        for part in Parts::new(group.get(body..end)?, wire.part_count.get()).enumerate() {
            let (index, Ok(part)) = part else { break };
            at = self.part(at, &format!("{prefix}part[{index}]."), &part, group)?;
        }
        self.rows(&format!("{prefix}rest"), at, group.get(at..end)?);
        Some(end)
    }

    fn part(&mut self, start: usize, prefix: &str, part: &PartView<'_>, group: &[u8]) -> Option<usize> {
        let mut at = start + PART_HEADER_SIZE;
        self.structure(start, prefix, &JournalPartWire::LAYOUT, group.get(start..at)?);
        if let Some(tombstones) = part.tombstones() {
            self.line(at, &format!("{prefix}tombstones"), tombstones, "");
            at += tombstones.len();
        }
        for (index, (value, _)) in part.effects().enumerate() {
            self.line(at, &format!("{prefix}value[{index}]"), value, "");
            at += value.len();
        }
        Some(at)
    }

    fn value(&mut self, block: &[u8]) -> Option<()> {
        let view = ValueBlockView::new(block).ok()?;
        let layout = *view.layout();
        for page in 0..view.page_count() {
            let (start, page_layout) = (layout.page_bytes(page).start, layout.page(page));
            let values = view.page_unchecked(page).values_bytes();
            let size = usize_of(layout.value_size());
            for (index, value) in values.chunks_exact(size).enumerate() {
                self.line(start + index * size, &format!("page[{page}].value[{index}]"), value, "");
            }
            let bytes = view.page_bytes(page);
            let mut part = |name: &str, range: Range<u32>| {
                let range = usize_of(range.start)..usize_of(range.end);
                let part = bytes.get(range.clone()).unwrap_or_default();
                if !part.is_empty() {
                    self.line(start + range.start, &format!("page[{page}].{name}"), part, "");
                }
            };
            let slots_end = page_layout.slots_offset + 2 * page_layout.slot_count;
            part("unused", u32_of(values.len())..page_layout.bitmap_offset);
            part("tombstones", page_layout.bitmap_offset..page_layout.slots_offset);
            part("hash_slots", page_layout.slots_offset..slots_end);
            part("padding", slots_end..page_layout.size);
        }
        Some(())
    }
}

/// Bytes in hexadecimal, runs of zeros as `00*n`.
fn hex(bytes: &[u8]) -> String {
    const RUN_MIN: usize = 4;
    let mut text = String::new();
    for run in bytes.chunk_by(|a, b| (*a == 0) == (*b == 0)) {
        let gap = if text.is_empty() { "" } else { " " };
        if run.len() >= RUN_MIN && run.first() == Some(&0) {
            write!(text, "{gap}00*{}", run.len()).expect("a String takes all text");
        } else {
            let bytes: Vec<String> = run.iter().map(|byte| format!("{byte:02x}")).collect();
            write!(text, "{gap}{}", bytes.join(" ")).expect("a String takes all text");
        }
    }
    text
}

/// The number of up to 8 little-endian bytes; nothing for larger ones, which are checksums.
fn number(bytes: &[u8]) -> String {
    if bytes.len() > 8 {
        return String::new();
    }
    let number = bytes.iter().rev().fold(0_u64, |number, &byte| (number << 8) | u64::from(byte));
    number.to_string()
}

/// What zero padded printable bytes spell; nothing if they spell nothing.
fn text(bytes: &[u8]) -> String {
    let used = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let (word, padding) = bytes.split_at(used);
    let spells = word.len() >= 2
        && word.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ' || *byte == b'\n')
        && padding.iter().all(|&byte| byte == 0);
    if spells { format!("{:?}", String::from_utf8_lossy(word)) } else { String::new() }
}

#[cfg(test)]
mod tests;
