//! Point reads in one table: index, then one page.
//!
//! [`search_cached`] answers from memory or says that it cannot; it never touches the storage. [`search`] reads
//! what is missing: the index block, and of the value block the one page that can hold the key, verified against
//! its own checksum. Within a page the hash slots lead to the value; its key is compared, so that a slot that lies
//! can hide a value of a forged page but never give a wrong one.
//!
//! # Invariants
//! - The value found has the key that was asked for (compared at the end of the search).
//! - A cold search reads at most one index block (or its twin beside it) and one page (test: counters).
//!
//! # Not here
//! Which tables to ask, and in which order: `tree`.

use understory_format::zerocopy::FromBytes;
use understory_format::{Corruption, Expected, Key, PageView, Place, Record, TableInfo};
use understory_grid::Grid;

use crate::index::{Index, PageRef};
use crate::{Entry, Found, TableError, TableLayout};

/// What memory says about a key of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup<R> {
    /// The key is in the table: a value or a tombstone.
    Found(Entry<R>),
    /// The key is not in the table.
    Absent,
    /// Memory does not say: [`search`] has to read.
    NeedsIo,
}

/// Looks for a key in what is in memory of a table: its index block and a page, or the whole value block.
///
/// # Errors
/// If what is in memory is damaged or does not fit the table.
#[inline]
pub fn search_cached<R: Record>(
    grid: &Grid,
    layout: &TableLayout,
    info: &TableInfo,
    key: R::Key,
) -> Result<Lookup<R>, TableError> {
    let Some(index) = Index::cached(grid, layout, info)? else { return Ok(Lookup::NeedsIo) };
    let Some(page) = index.view(layout)?.page_for(key)? else { return Ok(Lookup::Absent) };
    let PageRef { reference, page: number, checksum, range, .. } = &page;
    match grid.cached_page(*reference, *number, *checksum, range.clone()) {
        Some(bytes) => Ok(search_page(&bytes, layout, &page, key)?.map_or(Lookup::Absent, Lookup::Found)),
        None => Ok(Lookup::NeedsIo),
    }
}

/// Looks for a key in a table, and reads the index block and the page if they are not in memory.
///
/// # Errors
/// If they cannot be read, are damaged, or do not fit the table.
pub fn search<R: Record>(
    grid: &Grid,
    layout: &TableLayout,
    info: &TableInfo,
    key: R::Key,
) -> Result<Found<R>, TableError> {
    let index = Index::read(grid, layout, info)?;
    let Some(page) = index.view(layout)?.page_for(key)? else { return Ok(Found::Absent) };
    let PageRef { reference, page: number, checksum, range, .. } = &page;
    let bytes = grid.read_page(*reference, *number, *checksum, range.clone())?;
    Ok(search_page(&bytes, layout, &page, key)?.map_or(Found::Absent, Entry::found))
}

/// Looks for a key in the bytes of the page that can hold it.
#[inline]
fn search_page<R: Record>(
    bytes: &[u8],
    layout: &TableLayout,
    page: &PageRef,
    key: R::Key,
) -> Result<Option<Entry<R>>, Corruption> {
    debug_assert!(layout.is_of::<R>(), "the layout of this record");
    let place = || Place::Page(page.reference.address, page.page);
    let view = PageView::unchecked(bytes, layout.value.page(page.page), page.value_count)
        .map_err(|error| error.at(place()))?;
    let values = <[R]>::ref_from_bytes(view.values_bytes()).map_err(|_| {
        Corruption::new("value_size", Expected::Exactly(size_of::<R>().try_into().unwrap_or(0)), 0)
            .at(place())
    })?;
    for index in view.probe(key.hash()) {
        if let Some(value) = values.get(index).filter(|value| value.key() == key) {
            let tombstone = page.has_tombstones && view.is_tombstone(index);
            return Ok(Some(Entry { value: *value, tombstone }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
