//! The tables of one run, sorted, and walks over those that a beat sees. A run is a level, or what one flush wrote
//! into level 0.
//!
//! The largest keys are kept in an array of their own beside the tables, because a lookup searches them and
//! touches nothing else until it has found its table. Tables that a later beat replaced may stand among the
//! live ones; every walk takes the beat it looks from.
//!
//! # Invariants
//! Named at [`Run::verify`], which checks them all.
//!
//! # Not here
//! What a table must satisfy alone (`table.rs`), and what holds between runs and levels (`manifest.rs`).

use core::slice;
use std::collections::BTreeMap;

use understory_format::{Beat, BlockAddress, Direction, Key, KeyRange, Level, u64_of};

use crate::error::ManifestError;
use crate::table::Table;

/// Sums over the live tables of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) table_count: u64,
    pub(crate) value_count: u64,
    pub(crate) tombstone_count: u64,
}

impl Counters {
    /// None if a sum does not fit, which only forged tables reach.
    pub(crate) fn plus<K: Key>(self, table: &Table<K>) -> Option<Self> {
        Some(Self {
            table_count: self.table_count.checked_add(1)?,
            value_count: self.value_count.checked_add(table.info.value_count)?,
            tombstone_count: self.tombstone_count.checked_add(table.info.tombstone_count)?,
        })
    }

    /// None if a sum does not fit.
    pub(crate) fn and(self, other: Self) -> Option<Self> {
        Some(Self {
            table_count: self.table_count.checked_add(other.table_count)?,
            value_count: self.value_count.checked_add(other.value_count)?,
            tombstone_count: self.tombstone_count.checked_add(other.tombstone_count)?,
        })
    }

    fn minus<K: Key>(self, table: &Table<K>) -> Self {
        let difference = |a: u64, b: u64| a.checked_sub(b).expect("the table was counted when it came");
        Self {
            table_count: difference(self.table_count, 1),
            value_count: difference(self.value_count, table.info.value_count),
            tombstone_count: difference(self.tombstone_count, table.info.tombstone_count),
        }
    }
}

/// Why a table cannot stand where it is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clash {
    /// It shares keys and beats with this table.
    Overlap(BlockAddress),
    /// The sums of the level would not fit.
    Overflow,
    /// Level 0 would have more runs than it may.
    Runs,
}

/// Tables of one tree no two of which, if some beat sees both, have a key in common: what reads take as one source.
#[derive(Clone, Debug)]
pub struct Run<K: Key> {
    /// When its values were flushed, if it is a run of level 0.
    age: Beat,
    /// `key_max` of each table, in the order of `tables`.
    keys: Vec<K>,
    tables: Vec<Table<K>>,
    live: Counters,
}

impl<K: Key> Run<K> {
    pub(crate) const fn new(age: Beat) -> Self {
        Self {
            age,
            keys: Vec::new(),
            tables: Vec::new(),
            live: Counters { table_count: 0, value_count: 0, tombstone_count: 0 },
        }
    }

    /// A run of these tables in any order; relations between them are left to [`Run::verify`].
    pub(crate) fn load(age: Beat, mut tables: Vec<Table<K>>) -> Result<Self, Clash> {
        tables.sort_unstable_by_key(|table| (table.key_max, table.info.beat_min, table.info.index.address));
        let keys = tables.iter().map(|table| table.key_max).collect();
        let mut live = Counters::default();
        for table in tables.iter().filter(|table| table.is_live()) {
            live = live.plus(table).ok_or(Clash::Overflow)?;
        }
        Ok(Self { age, keys, tables, live })
    }

    /// The beat in which the values of a run of level 0 were flushed: a name within its tree, the greater the newer.
    /// 0 if the run is a whole level.
    pub const fn age(&self) -> Beat {
        self.age
    }

    /// Whether it has live tables.
    pub(crate) const fn is_live(&self) -> bool {
        self.live.table_count > 0
    }

    pub(crate) const fn live(&self) -> Counters {
        self.live
    }

    /// All tables, whether any beat sees them or not, in order.
    pub fn all(&self) -> &[Table<K>] {
        &self.tables
    }

    /// Index of the first table that ends at `key` or later.
    fn position(&self, key: K) -> usize {
        self.keys.partition_point(|key_max| *key_max < key)
    }

    fn tail(&self, from: usize) -> &[Table<K>] {
        self.tables.get(from..).unwrap_or_default()
    }

    /// The table that covers `key` and is visible at `beat`. O(log n), if few tables there are unseen.
    pub fn find(&self, key: K, beat: Beat) -> Option<&Table<K>> {
        self.find_at(key, beat).map(|(_, table)| table)
    }

    /// As [`find`](Self::find), with the table's place among [`all`](Self::all) tables of the run.
    pub fn find_at(&self, key: K, beat: Beat) -> Option<(usize, &Table<K>)> {
        let start = self.position(key);
        let mut seen = (start..).zip(self.tail(start)).filter(|(_, table)| table.is_visible(beat));
        seen.next().filter(|(_, table)| table.key_min <= key)
    }

    /// The tables visible at `beat`.
    pub fn iter(&self, beat: Beat, direction: Direction) -> Tables<'_, K> {
        Tables { tables: self.tables.iter(), beat, direction }
    }

    pub(crate) fn live_tables(&self) -> Tables<'_, K> {
        self.iter(Beat::MAX, Direction::Ascending)
    }

    /// The tables visible at `beat` that share a key with `range`.
    pub fn range(&self, range: KeyRange<K>, beat: Beat, direction: Direction) -> Tables<'_, K> {
        // Tables seen together are disjoint: of those that end at the range's end or later only the first can begin
        // within the range, so the walk has both its ends before it starts.
        let start = self.position(range.min());
        let last = self.position(range.max());
        let after =
            self.tail(last).iter().position(|table| table.is_visible(beat)).map(|skipped| last + skipped);
        let end = match after.and_then(|index| self.tables.get(index)) {
            Some(table) if table.key_min <= range.max() => after.map_or(last, |index| index + 1),
            Some(_) | None => last,
        };
        let tables = self.tables.get(start..end).unwrap_or_default().iter();
        Tables { tables, beat, direction }
    }

    /// The next table of a walk that keeps no borrow: of the tables that [`range`](Self::range) gives, the first that
    /// lies wholly beyond `after` in the direction; without `after`, the first.
    pub fn next_table(
        &self,
        after: Option<K>,
        range: KeyRange<K>,
        beat: Beat,
        direction: Direction,
    ) -> Option<&Table<K>> {
        let Some(after) = after else { return self.range(range, beat, direction).next() };
        let rest = match direction {
            Direction::Ascending => KeyRange::new(after.max(range.min()), range.max()),
            Direction::Descending => KeyRange::new(range.min(), after.min(range.max())),
        }?;
        self.range(rest, beat, direction).find(|table| match direction {
            Direction::Ascending => table.key_min > after,
            Direction::Descending => table.key_max < after,
        })
    }

    /// Where the table with this index block and largest key stands.
    fn locate(&self, address: BlockAddress, key_max: K) -> Option<usize> {
        let start = self.position(key_max);
        let equal = self.tail(start).iter().take_while(|table| table.key_max == key_max);
        equal.zip(start..).find(|(table, _)| table.info.index.address == address).map(|(_, index)| index)
    }

    pub(crate) fn get(&self, address: BlockAddress, key_max: K) -> Option<&Table<K>> {
        self.locate(address, key_max).and_then(|index| self.tables.get(index))
    }

    /// Puts `table` in its place, or says what is in its way and changes nothing.
    pub(crate) fn insert(&mut self, table: Table<K>) -> Result<(), Clash> {
        if let Some(other) = self.clash(&table) {
            return Err(Clash::Overlap(other.info.index.address));
        }
        if table.is_live() {
            self.live = self.live.plus(&table).ok_or(Clash::Overflow)?;
        }
        let order =
            |other: &Table<K>| (other.key_max, other.info.beat_min) < (table.key_max, table.info.beat_min);
        let start = self.position(table.key_max);
        let index = start + self.tail(start).iter().take_while(|other| order(other)).count();
        self.keys.insert(index, table.key_max);
        self.tables.insert(index, table);
        Ok(())
    }

    /// A table that shares keys and beats with `table`.
    ///
    /// Exact among live tables. Among replaced ones it looks only as far as the first live table beyond
    /// `table`; [`Run::verify`] looks at all.
    fn clash(&self, table: &Table<K>) -> Option<&Table<K>> {
        let beyond = |other: &Table<K>| other.is_live() && other.key_min > table.key_max;
        let near = self.tail(self.position(table.key_min)).iter().take_while(|other| !beyond(other));
        near.filter(|other| other.key_min <= table.key_max).find(|other| other.coexists(table))
    }

    /// Takes the table with this index block and largest key out.
    pub(crate) fn remove(&mut self, address: BlockAddress, key_max: K) -> Option<Table<K>> {
        let index = self.locate(address, key_max)?;
        self.keys.remove(index);
        let table = self.tables.remove(index);
        if table.is_live() {
            self.live = self.live.minus(&table);
        }
        Some(table)
    }

    /// Checks that `keys` repeats the tables' largest keys, that tables are sorted by (`key_max`, `beat_min`)
    /// and are what their description says, that no two which some beat sees both share a key, and that the
    /// counters equal a recount. O(n log n).
    pub(crate) fn verify(&self, level: Level) -> Result<(), ManifestError> {
        for table in &self.tables {
            if Table::new(table.info).as_ref() != Ok(table) {
                return Err(ManifestError::Table { level, table: table.info.index.address });
            }
        }
        self.verify_order(level)?;
        self.verify_disjoint(level)?;
        self.verify_counters(level)
    }

    fn verify_order(&self, level: Level) -> Result<(), ManifestError> {
        assert!(self.keys.iter().eq(self.tables.iter().map(|table| &table.key_max)), "keys and tables agree");
        let order = |table: &Table<K>| (table.key_max, table.info.beat_min);
        for (first, second) in self.tables.iter().zip(self.tail(1)) {
            if order(first) > order(second) {
                return Err(ManifestError::Order { level, table: second.info.index.address });
            }
        }
        Ok(())
    }

    /// Walks the keys with the set of tables that cover the current one: their beats must not overlap, so a
    /// new one needs to be compared with its neighbours in time only.
    fn verify_disjoint(&self, level: Level) -> Result<(), ManifestError> {
        let begins = self.tables.iter().map(|table| (table.key_min, false, table));
        let ends = self.tables.iter().map(|table| (table.key_max, true, table));
        let mut events: Vec<_> = begins.chain(ends).collect();
        events.sort_by_key(|(key, is_end, table)| (*key, *is_end, table.info.beat_min));
        let mut open: BTreeMap<Beat, &Table<K>> = BTreeMap::new();
        for (_, is_end, table) in events {
            if is_end {
                open.remove(&table.info.beat_min);
                continue;
            }
            let before = open.range(..=table.info.beat_min).next_back();
            let after = open.range(table.info.beat_min..).next();
            if let Some((_, other)) = before.into_iter().chain(after).find(|(_, other)| other.coexists(table))
            {
                let other = other.info.index.address;
                return Err(ManifestError::Overlap { level, table: table.info.index.address, other });
            }
            open.insert(table.info.beat_min, table);
        }
        Ok(())
    }

    fn verify_counters(&self, level: Level) -> Result<(), ManifestError> {
        let live = || self.tables.iter().filter(|table| table.is_live());
        let compare = |counter, expected: u64, found: u64| {
            if expected == found {
                Ok(())
            } else {
                Err(ManifestError::Counter { level, counter, expected, found })
            }
        };
        let table_count = u64_of(live().count());
        compare("level.table_count", table_count, self.live.table_count)?;
        let value_count = live().map(|table| table.info.value_count).sum();
        compare("level.value_count", value_count, self.live.value_count)?;
        let tombstone_count = live().map(|table| table.info.tombstone_count).sum();
        compare("level.tombstone_count", tombstone_count, self.live.tombstone_count)
    }
}

/// A walk over the tables of a run that one beat sees, disjoint and in key order.
#[derive(Clone, Debug)]
pub struct Tables<'a, K: Key> {
    tables: slice::Iter<'a, Table<K>>,
    beat: Beat,
    direction: Direction,
}

impl<'a, K: Key> Iterator for Tables<'a, K> {
    type Item = &'a Table<K>;

    fn next(&mut self) -> Option<Self::Item> {
        let beat = self.beat;
        match self.direction {
            Direction::Ascending => self.tables.find(|table| table.is_visible(beat)),
            Direction::Descending => self.tables.rfind(|table| table.is_visible(beat)),
        }
    }
}
