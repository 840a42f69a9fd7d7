//! The way of a cursor through tables and blocks: which page comes next, and what is read ahead of it.
//!
//! # Invariants
//! - One table's index, the next table's and one value block are held at most.
//! - Position changes only when the page it leads to is held: after an error the same step is tried again.
//! - Nothing is read ahead that lies outside the range, as far as the indexes tell.
//! - A page that is given begins and ends with the keys that the index has for it (`keys_outside_their_page`).
//!
//! # Not here
//! The values of a page: the cursor.

use core::marker::PhantomData;
use core::ops::Range;
use std::sync::Arc;

use understory_format::error::exactly;
use understory_format::value::ValueMetadata;
use understory_format::zerocopy::FromBytes;
use understory_format::{
    BlockHeader, BlockKind, BlockRef, Corruption, Expected, IndexEntryHost, Key, Place, Record, TableInfo,
    usize_of,
};
use understory_grid::{Block, Grid};

use super::ReadAhead;
use crate::index::{Index, View, has_page};
use crate::{Direction, KeyRange, TableError, TableLayout};

/// Where the values of a page are in the block that is held.
#[derive(Clone, Debug, Default)]
pub(super) struct Page {
    /// Offset of the first value in the block.
    pub(super) values: usize,
    pub(super) value_count: u32,
    /// The tombstone bitmap in the block, if the block has tombstones.
    pub(super) bitmap: Option<Range<usize>>,
    pub(super) reference: Option<BlockRef>,
    /// Number of the page in its block.
    pub(super) number: u32,
    /// Whether the range may begin inside the page.
    pub(super) is_first: bool,
}

/// Where a walk is in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Before the first page that the range reaches.
    Search,
    /// At this page of the table.
    Page(u32),
}

/// The table that is being read.
#[derive(Debug)]
struct OpenTable {
    index: Index,
    at: At,
    /// Blocks, in the walk's direction, that need not be read ahead any more.
    asked: u32,
}

/// The table after it.
#[derive(Debug)]
struct NextTable {
    info: TableInfo,
    index: Option<Index>,
    index_asked: bool,
    asked: u32,
}

/// The value block that is held, and its number in its table.
#[derive(Debug)]
struct Held {
    block: Block,
    entry: IndexEntryHost,
}

/// The way through tables, blocks and pages.
pub(super) struct Walk<R: Record, T> {
    grid: Arc<Grid>,
    layout: TableLayout,
    tables: T,
    direction: Direction,
    /// Blocks to read ahead now.
    ahead: u32,
    ahead_max: u32,
    table: Option<OpenTable>,
    next: Option<NextTable>,
    held: Option<Held>,
    record: PhantomData<fn() -> R>,
}

impl<R: Record, T> Walk<R, T> {
    /// The block that is held; empty if none is.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        self.held.as_ref().map_or(&[], |held| &held.block)
    }
}

impl<R: Record, T: Iterator<Item = TableInfo>> Walk<R, T> {
    pub(super) fn new(
        grid: Arc<Grid>,
        layout: TableLayout,
        tables: T,
        direction: Direction,
        read_ahead: ReadAhead,
    ) -> Self {
        let (ahead, ahead_max) = (read_ahead.first.min(read_ahead.max), read_ahead.max);
        let (table, next, held) = (None, None, None);
        Self { grid, layout, tables, direction, ahead, ahead_max, table, next, held, record: PhantomData }
    }

    /// Goes to the next page that can hold values of the range, and holds its block. None at the end.
    pub(super) fn next_page(&mut self, range: &KeyRange<R::Key>) -> Result<Option<Page>, TableError> {
        loop {
            let Some(table) = &self.table else {
                if self.open_table(range)? {
                    continue;
                }
                return Ok(None);
            };
            let view = table.index.view(&self.layout)?;
            match self.step(&view, table.at, range) {
                Step::Page(page) => return self.enter(page, range).map(Some),
                Step::NextTable => {
                    self.table = None;
                    self.held = None;
                }
                Step::End => return Ok(None),
            }
        }
    }

    /// Where to go from `at`.
    fn step(&self, view: &View<'_>, at: At, range: &KeyRange<R::Key>) -> Step {
        let count = view.page_count();
        let next = match (at, self.direction) {
            (At::Page(page), Direction::Ascending) => Some(page + 1).filter(|&page| page < count),
            (At::Page(page), Direction::Descending) => page.checked_sub(1),
            (At::Search, Direction::Ascending) => view.page_of(range.min()),
            (At::Search, Direction::Descending) => Some(view.page_of(range.max()).unwrap_or(count - 1)),
        };
        let Some(page) = next else { return Step::NextTable };
        let is_beyond = match self.direction {
            Direction::Ascending => self.least_is_over(view, page, range.max()),
            Direction::Descending => view.page_key_max::<R::Key>(page) < range.min(),
        };
        if is_beyond { Step::End } else { Step::Page(page) }
    }

    /// Whether all keys of a page are over `max`, as far as the index tells.
    fn least_is_over(&self, view: &View<'_>, page: u32, max: R::Key) -> bool {
        let block = view.block_of_page(page);
        let before = page.checked_sub(1).map(|page| view.page_key_max::<R::Key>(page));
        view.key_min::<R::Key>(block) > max || before.is_some_and(|before| before >= max)
    }

    /// Holds the block of a page of the table.
    fn enter(&mut self, page: u32, range: &KeyRange<R::Key>) -> Result<Page, TableError> {
        let is_held = self.held.as_ref().is_some_and(|held| has_page(&held.entry, page));
        if !is_held {
            self.hold_block_of(page, range)?;
        }
        let table = self.table.as_mut().expect("a page of a table");
        let held = self.held.as_ref().expect("held just now");
        let view = table.index.view(&self.layout)?;
        let number = page - held.entry.page_start;
        let layout = self.layout.value.page(number);
        let bytes = self.layout.value.page_bytes(number);
        let value_count = self.layout.value.page_value_count(held.entry.value_count, number);
        let values = held.block.get(bytes.start..).unwrap_or_default();
        check_bounds::<R>(values, value_count, &view, page, number == 0)
            .map_err(|error| error.at(Place::Page(held.entry.reference.address, number)))?;
        let is_first = table.at == At::Search;
        table.at = At::Page(page);
        let bitmap =
            bytes.start + usize_of(layout.bitmap_offset)..bytes.start + usize_of(layout.slots_offset);
        Ok(Page {
            values: bytes.start,
            value_count,
            bitmap: (held.entry.tombstone_count > 0).then_some(bitmap),
            reference: Some(held.entry.reference),
            number,
            is_first,
        })
    }

    fn hold_block_of(&mut self, page: u32, range: &KeyRange<R::Key>) -> Result<(), TableError> {
        // Let go first: a cursor never holds two value blocks.
        self.held = None;
        let table = self.table.as_ref().expect("a page of a table");
        let view = table.index.view(&self.layout)?;
        let number = view.block_of_page(page);
        let entry = view.entry_with_page(number, page)?;
        self.read_ahead(number, range);
        let block = self.grid.read(entry.reference, BlockKind::Value)?;
        check_block(&block, &entry, &self.layout)?;
        self.held = Some(Held { block, entry });
        self.ahead = (2 * self.ahead).clamp(1, self.ahead_max.max(1)).min(self.ahead_max);
        Ok(())
    }

    /// Makes the next table the current one, if the range reaches it.
    fn open_table(&mut self, range: &KeyRange<R::Key>) -> Result<bool, TableError> {
        loop {
            self.pull();
            let Some(next) = &self.next else { return Ok(false) };
            let keys = (R::Key::decode(next.info.key_min.get()), R::Key::decode(next.info.key_max.get()));
            let (is_before, is_beyond) = match self.direction {
                Direction::Ascending => (keys.1 < range.min(), keys.0 > range.max()),
                Direction::Descending => (keys.0 > range.max(), keys.1 < range.min()),
            };
            if is_before {
                self.next = None;
                continue;
            }
            if is_beyond {
                return Ok(false);
            }
            let index = match &next.index {
                Some(index) => index.clone(),
                None => Index::read(&self.grid, &self.layout, &next.info)?,
            };
            let asked = next.asked;
            self.next = None;
            self.table = Some(OpenTable { index, at: At::Search, asked });
            return Ok(true);
        }
    }

    /// Takes the next table from the caller's list.
    fn pull(&mut self) {
        if self.next.is_none() {
            let next = self.tables.next();
            self.next = next.map(|info| NextTable { info, index: None, index_asked: false, asked: 0 });
        }
    }

    /// Starts to read what comes after block `number` of the table.
    fn read_ahead(&mut self, number: u32, range: &KeyRange<R::Key>) {
        if self.ahead_max == 0 {
            return;
        }
        let Some(table) = &mut self.table else { return };
        let Ok(view) = table.index.view(&self.layout) else { return };
        let (count, ahead) = (view.block_count(), self.ahead);
        let passed = 1 + match self.direction {
            Direction::Ascending => number,
            Direction::Descending => count - 1 - number,
        };
        let blocks = table.asked.max(passed)..passed.saturating_add(ahead).min(count);
        table.asked = table.asked.max(blocks.end);
        ask_for::<R::Key>(&self.grid, &view, blocks, self.direction, range);
        let left = count - passed;
        if ahead > 0 && left < 2 * self.ahead_max {
            self.pull();
            self.read_ahead_next(ahead.saturating_sub(left), range);
        }
    }

    /// Starts to read the index of the next table, or its first `ahead` value blocks.
    fn read_ahead_next(&mut self, ahead: u32, range: &KeyRange<R::Key>) {
        let Some(next) = &mut self.next else { return };
        let is_beyond = match self.direction {
            Direction::Ascending => R::Key::decode(next.info.key_min.get()) > range.max(),
            Direction::Descending => R::Key::decode(next.info.key_max.get()) < range.min(),
        };
        if is_beyond {
            return;
        }
        if next.index.is_none() {
            next.index = match next.index_asked && ahead > 0 {
                // It was asked for at least a block ago. What is wrong with it shows when the table is opened.
                true => Index::read(&self.grid, &self.layout, &next.info).ok(),
                false => Index::cached(&self.grid, &self.layout, &next.info).ok().flatten(),
            };
        }
        let Some(index) = &next.index else {
            if !next.index_asked {
                self.grid.prefetch(next.info.index.first());
                next.index_asked = true;
            }
            return;
        };
        let Ok(view) = index.view(&self.layout) else { return };
        let blocks = next.asked..ahead.min(view.block_count());
        next.asked = next.asked.max(blocks.end);
        ask_for::<R::Key>(&self.grid, &view, blocks, self.direction, range);
    }

    /// Starts to read what the first page needs: the index, or if that is in memory the value block.
    pub(super) fn prefetch(&mut self, range: &KeyRange<R::Key>) {
        if self.table.is_none() && self.next.is_none() {
            self.pull();
            self.read_ahead_next(0, range);
        }
        let index = match (&self.table, &self.next) {
            (Some(OpenTable { index, at: At::Search, .. }), _) => index,
            (None, Some(NextTable { index: Some(index), .. })) => index,
            _ => return,
        };
        let Ok(view) = index.view(&self.layout) else { return };
        let Step::Page(page) = self.step(&view, At::Search, range) else { return };
        if let Ok(entry) = view.entry(view.block_of_page(page)) {
            self.grid.prefetch(entry.reference);
        }
    }

    /// Whether the page that is held is one that the first key from `key` on can be in.
    pub(super) fn page_reaches(&self, key: R::Key) -> bool {
        let (Some(table), Some(_)) = (&self.table, &self.held) else { return false };
        let (At::Page(page), Ok(view)) = (table.at, table.index.view(&self.layout)) else { return false };
        match self.direction {
            Direction::Ascending => key <= view.page_key_max(page),
            Direction::Descending => page.checked_sub(1).is_none_or(|before| key > view.page_key_max(before)),
        }
    }

    /// Leaves the page for where the range, which has been narrowed, begins: in this table or a later one.
    pub(super) fn leave_page(&mut self) {
        if let Some(table) = &mut self.table {
            table.at = At::Search;
        }
    }
}

/// What comes after a page.
enum Step {
    Page(u32),
    NextTable,
    End,
}

/// Starts to read blocks of a table, counted in the walk's direction, as far as the range reaches.
fn ask_for<K: Key>(
    grid: &Grid,
    view: &View<'_>,
    blocks: Range<u32>,
    direction: Direction,
    range: &KeyRange<K>,
) {
    for block in blocks {
        let number = match direction {
            Direction::Ascending => block,
            Direction::Descending => view.block_count() - 1 - block,
        };
        // What is wrong with an entry shows when its block is read.
        let Ok(entry) = view.entry(number) else { return };
        let is_beyond = match direction {
            Direction::Ascending => view.key_min::<K>(number) > range.max(),
            Direction::Descending => {
                view.page_key_max::<K>(entry.page_start + (entry.page_count - 1)) < range.min()
            }
        };
        if is_beyond {
            return;
        }
        grid.prefetch(entry.reference);
    }
}

/// Whether a value block is what its index entry says. What its header says in itself was checked by who made it
/// with this checksum; here it is related to the table.
fn check_block(block: &Block, entry: &IndexEntryHost, layout: &TableLayout) -> Result<(), Corruption> {
    let check = || {
        let (header, _) = BlockHeader::ref_from_prefix(block).map_err(|_| no_header())?;
        let metadata = ValueMetadata::ref_from_bytes(&header.metadata).map_err(|_| no_header())?;
        exactly("value_size", layout.value_size(), metadata.value_size.get())?;
        exactly("page_size", layout.value.page_size, metadata.page_size.get())?;
        exactly("value_count", entry.value_count, metadata.value_count.get())?;
        exactly("tombstone_count", entry.tombstone_count, metadata.tombstone_count.get())
    };
    check().map_err(|error| error.at(Place::Block(entry.reference.address)))
}

/// Whether a page's keys are bounded by what the index says, given that they ascend, which the cursor checks. What
/// compaction writes then stays within the hull of its inputs, where no other table of its level is.
fn check_bounds<R: Record>(
    values: &[u8],
    value_count: u32,
    view: &View<'_>,
    page: u32,
    begins_block: bool,
) -> Result<(), Corruption> {
    let size = size_of::<R>();
    let key = |index: u32| {
        let start = usize_of(index) * size;
        values.get(start..).and_then(|bytes| R::ref_from_prefix(bytes).ok()).map(|(record, _)| record.key())
    };
    let (first, last) = (key(0), value_count.checked_sub(1).and_then(key));
    let starts_well = if begins_block {
        first == Some(view.key_min(view.block_of_page(page)))
    } else {
        let before = page.checked_sub(1).map(|before| view.page_key_max(before));
        first > before
    };
    let rule = Expected::Rule("the first and last key of a page are what the index says");
    let holds = starts_well && last == Some(view.page_key_max(page));
    if holds { Ok(()) } else { Err(Corruption::new("key", rule, page.into())) }
}

#[cold]
fn no_header() -> Corruption {
    Corruption::new("length", Expected::Rule("a block with a header"), 0)
}
