//! The levels of one tree.
//!
//! Two ways in, because two kinds of wrong meet here. Edits that come from disk go through
//! [`Manifest::apply`] or, all at once and faster, [`Manifest::load`]: what does not fit is a
//! [`Corruption`]. What the engine itself decides goes through [`Manifest::insert`], [`Manifest::update`]
//! and [`Manifest::remove`] or [`Manifest::apply_own`]: what does not fit there is a fault of the engine,
//! and asserted. Within one step remove the replaced tables first: an output overlaps its inputs.
//!
//! # Invariants
//! Named at [`Manifest::verify`].

use understory_format::{
    Beat, BlockAddress, Corruption, Direction, EditKind, Expected, Key, KeyRange, Level, ManifestEdit, Place,
    TableInfo,
};

use crate::error::ManifestError;
use crate::level::{Clash, Counters, LevelTables, Tables};
use crate::table::Table;

/// Which tables one tree has, level by level.
#[derive(Clone, Debug)]
pub struct Manifest<K: Key> {
    levels: Vec<LevelTables<K>>,
    version: u64,
}

impl<K: Key> Manifest<K> {
    /// A manifest of `levels` empty levels.
    pub fn new(levels: u8) -> Self {
        Self { levels: (0..levels).map(|_| LevelTables::new()).collect(), version: 0 }
    }

    /// Builds the manifest of a tree from the newest edit of each of its tables, in any order, and verifies
    /// it. O(n log n), where applying the edits one by one shifts tables at each.
    ///
    /// # Errors
    /// An edit that names no level of the tree, a remove, a table that breaks a rule, tables that overlap.
    pub fn load(levels: u8, edits: impl IntoIterator<Item = ManifestEdit>) -> Result<Self, Corruption> {
        let mut tables: Vec<Vec<Table<K>>> = (0..levels).map(|_| Vec::new()).collect();
        for edit in edits {
            let table = Table::new(edit.table)?;
            if edit.kind == EditKind::Remove {
                let rule = Expected::Rule("the newest edit of a live table is no remove");
                return Err(table.corruption("edit.kind", rule, 3));
            }
            let found = edit.level.get();
            let level = tables.get_mut(usize::from(found));
            level.ok_or_else(|| level_unknown(&table, levels, found))?.push(table);
        }
        let mut manifest = Self { levels: Vec::with_capacity(tables.len()), version: 0 };
        for tables in tables {
            let level = LevelTables::load(tables).map_err(|_| overflow(Place::Unplaced))?;
            manifest.levels.push(level);
        }
        manifest.verify()?;
        Ok(manifest)
    }

    /// Applies an edit whose origin is the disk: an insert, an update (the table is replaced wherever it
    /// stands, or put if it is not there, as the newest edit of a table often is an update), a remove.
    /// On an error nothing has changed. What it cannot see cheaply, [`Manifest::verify`] finds.
    ///
    /// # Errors
    /// An edit that does not fit the tables that are there, or whose table breaks a rule.
    pub fn apply(&mut self, edit: &ManifestEdit) -> Result<(), Corruption> {
        let table = Table::new(edit.table)?;
        let (count, found) = (self.level_count(), edit.level.get());
        if found >= count {
            return Err(level_unknown(&table, count, found));
        }
        let present = self.locate(&table);
        match (edit.kind, present) {
            (EditKind::Insert, Some(_)) => {
                Err(table.corruption("edit.kind", Expected::Rule("a table is inserted once"), 1))
            }
            (EditKind::Insert | EditKind::Update, None) => self.put(edit.level, table),
            (EditKind::Update, Some(level)) => self.replace(level, edit.level, table),
            (EditKind::Remove, Some(level)) if level == edit.level => {
                self.take(level, &table);
                Ok(())
            }
            (EditKind::Remove, Some(_) | None) => {
                Err(table.corruption("edit.kind", Expected::Rule("a removed table is there"), 3))
            }
        }
    }

    /// Applies an edit that the engine itself made. An update may change the level and the last beat.
    ///
    /// # Panics
    /// If the edit does not fit the tables that are there.
    pub fn apply_own(&mut self, edit: &ManifestEdit) {
        let table = Table::new(edit.table).expect("the engine describes its tables by the rules");
        match edit.kind {
            EditKind::Insert => self.insert(edit.level, table),
            EditKind::Update => {
                let from = self.locate(&table).expect("an updated table is there");
                self.update(from, edit.level, table);
            }
            EditKind::Remove => self.remove(edit.level, &table),
        }
    }

    /// Adds a table of the engine's own making.
    ///
    /// # Panics
    /// If the level does not exist, the table is there, or it overlaps another at a beat that sees both.
    pub fn insert(&mut self, level: Level, table: Table<K>) {
        assert!(self.locate(&table).is_none(), "a table is inserted once");
        self.put(level, table).expect("tables of a level do not overlap");
    }

    /// Replaces what is known of a table at level `from`, and moves it to level `to`.
    ///
    /// # Panics
    /// If the table is not there, differs in more than its last beat, or overlaps another at `to`.
    pub fn update(&mut self, from: Level, to: Level, table: Table<K>) {
        let old = self.at(from).get(table.info.index.address, table.key_max).expect("the table is there");
        let unchanged = TableInfo { beat_max: table.info.beat_max, ..old.info };
        assert_eq!(unchanged, table.info, "only the last beat of a table changes");
        self.replace(from, to, table).expect("tables of a level do not overlap");
    }

    /// Removes a table.
    ///
    /// # Panics
    /// If exactly this table is not there.
    pub fn remove(&mut self, level: Level, table: &Table<K>) {
        let removed = self.take(level, table);
        assert_eq!(removed.as_ref(), Some(table), "the removed table is there and unchanged");
    }

    fn put(&mut self, level: Level, table: Table<K>) -> Result<(), Corruption> {
        let place = Place::Block(table.info.index.address);
        self.at_mut(level).insert(table).map_err(|clash| match clash {
            Clash::Overlap(other) => {
                ManifestError::Overlap { level, table: table.info.index.address, other }.into()
            }
            Clash::Overflow => overflow(place),
        })?;
        self.version += 1;
        Ok(())
    }

    fn take(&mut self, level: Level, table: &Table<K>) -> Option<Table<K>> {
        self.version += 1;
        self.at_mut(level).remove(table.info.index.address, table.key_max)
    }

    fn replace(&mut self, from: Level, to: Level, table: Table<K>) -> Result<(), Corruption> {
        let old = self.take(from, &table).expect("the caller located it");
        self.put(to, table).inspect_err(|_| {
            self.put(from, old).expect("it stood there a moment ago");
        })
    }

    /// The level at which a table with this index block and largest key stands.
    fn locate(&self, table: &Table<K>) -> Option<Level> {
        let has = |level: &Level| self.at(*level).get(table.info.index.address, table.key_max).is_some();
        self.levels().find(has)
    }

    fn at(&self, level: Level) -> &LevelTables<K> {
        self.levels.get(usize::from(level.get())).expect("the level is one of the tree's")
    }

    fn at_mut(&mut self, level: Level) -> &mut LevelTables<K> {
        self.levels.get_mut(usize::from(level.get())).expect("the level is one of the tree's")
    }

    fn live(&self, level: Level) -> Counters {
        self.at(level).live()
    }

    /// The number of levels, empty ones included.
    ///
    /// # Panics
    /// Never: the number was given as a `u8`.
    pub fn level_count(&self) -> u8 {
        u8::try_from(self.levels.len()).expect("made from a u8")
    }

    /// All levels from 0, empty ones included.
    ///
    /// # Panics
    /// Never: geometry keeps the number of levels below the largest level.
    pub fn levels(&self) -> impl DoubleEndedIterator<Item = Level> + use<K> {
        (0..self.level_count()).map(|level| Level::new(level).expect("geometry allows few levels"))
    }

    /// Changes with every change of the manifest.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The number of live tables of a level.
    pub fn table_count(&self, level: Level) -> u64 {
        self.live(level).table_count
    }

    /// The number of values, tombstones included, in the live tables of a level.
    pub fn value_count(&self, level: Level) -> u64 {
        self.live(level).value_count
    }

    /// The number of tombstones in the live tables of a level.
    pub fn tombstone_count(&self, level: Level) -> u64 {
        self.live(level).tombstone_count
    }

    /// Whether no level has a table, live or not.
    pub fn is_empty(&self) -> bool {
        self.levels.iter().all(|level| level.all().is_empty())
    }

    /// All tables of all levels, live or not, level by level in order.
    pub fn tables(&self) -> impl Iterator<Item = (Level, &Table<K>)> {
        self.levels().flat_map(|level| self.at(level).all().iter().map(move |table| (level, table)))
    }

    /// The table of a level that covers `key` and is visible at `beat`. O(log n).
    pub fn find(&self, level: Level, key: K, beat: Beat) -> Option<&Table<K>> {
        self.at(level).find(key, beat)
    }

    /// The tables of a level visible at `beat`, smallest keys first.
    pub fn iter(&self, level: Level, beat: Beat) -> Tables<'_, K> {
        self.at(level).iter(beat, Direction::Ascending)
    }

    /// The tables of a level visible at `beat` that share a key with `range`.
    pub fn range(&self, level: Level, range: KeyRange<K>, beat: Beat, direction: Direction) -> Tables<'_, K> {
        self.at(level).range(range, beat, direction)
    }

    /// The live tables of a level that share a key with `min..=max`, smallest keys first.
    pub fn overlap(&self, level: Level, min: K, max: K) -> impl Iterator<Item = &Table<K>> {
        let range = KeyRange::new(min, max);
        range.into_iter().flat_map(move |range| self.range(level, range, Beat::MAX, Direction::Ascending))
    }

    /// The next table of a walk that keeps no borrow: of the tables that [`Manifest::range`] gives, the
    /// first that lies wholly beyond `after` in the direction; without `after`, the first.
    pub fn next_table(
        &self,
        level: Level,
        after: Option<K>,
        range: KeyRange<K>,
        beat: Beat,
        direction: Direction,
    ) -> Option<&Table<K>> {
        let Some(after) = after else { return self.range(level, range, beat, direction).next() };
        let rest = match direction {
            Direction::Ascending => KeyRange::new(after.max(range.min()), range.max()),
            Direction::Descending => KeyRange::new(range.min(), after.min(range.max())),
        }?;
        self.range(level, rest, beat, direction).find(|table| match direction {
            Direction::Ascending => table.key_min > after,
            Direction::Descending => table.key_max < after,
        })
    }

    /// The keys from the smallest to the largest of a level's live tables.
    pub fn key_range(&self, level: Level) -> Option<KeyRange<K>> {
        let first = self.iter(level, Beat::MAX).next()?;
        let last = self.at(level).iter(Beat::MAX, Direction::Descending).next()?;
        Some(first.range().hull(&last.range()))
    }

    /// Whether a tombstone written to level `target` with a key in `min..=max` may hide something older:
    /// whether any live table of a deeper level overlaps these keys. If not, such tombstones are dropped.
    pub fn must_keep_tombstones(&self, target: Level, min: K, max: K) -> bool {
        let mut deeper = self.levels().filter(|level| *level > target);
        deeper.any(|level| self.overlap(level, min, max).next().is_some())
    }

    /// Checks the whole manifest. O(n log n).
    ///
    /// Each table is what its description says; each index block belongs to one table; each level is sorted
    /// by (`key_max`, `beat_min`); no two tables of a level that some beat sees both share a key; counters
    /// equal a recount.
    ///
    /// # Errors
    /// The first of these that does not hold.
    pub fn verify(&self) -> Result<(), ManifestError> {
        let copies = |info: &TableInfo| [info.index.address, info.index.twin];
        let owned =
            self.tables().flat_map(|(level, table)| copies(&table.info).map(|address| (address, level)));
        let mut addresses: Vec<(BlockAddress, Level)> = owned.collect();
        addresses.sort_unstable();
        for (first, second) in addresses.iter().zip(addresses.iter().skip(1)) {
            if first.0 == second.0 {
                return Err(ManifestError::Duplicate { level: second.1, table: second.0 });
            }
        }
        self.levels().try_for_each(|level| self.at(level).verify(level))
    }
}

fn level_unknown<K: Key>(table: &Table<K>, count: u8, found: u8) -> Corruption {
    let expected = Expected::AtMost(count.saturating_sub(1).into());
    table.corruption("edit.level", expected, found.into())
}

fn overflow(place: Place) -> Corruption {
    let expected = Expected::Rule("the values of a level can be counted");
    Corruption::new("level.value_count", expected, 0).at(place)
}

#[cfg(test)]
mod tests;
