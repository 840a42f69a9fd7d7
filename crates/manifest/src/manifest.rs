//! The levels of one tree.
//!
//! Two ways in, because two kinds of wrong meet here. Edits that come from disk go through
//! [`Manifest::apply`] or, all at once and faster, [`Manifest::load`]: what does not fit is a
//! [`Corruption`]. What the engine itself decides goes through [`Manifest::insert`], [`Manifest::update`]
//! and [`Manifest::remove`] or [`Manifest::apply_own`]: what does not fit there is a fault of the engine,
//! and asserted. Within one step remove the replaced tables first: an output overlaps its inputs.
//!
//! A level is one [`Run`], but for a level 0 in runs: that has one for each age of its tables, the newest first. A
//! run comes with its first table and goes with its last.
//!
//! # Invariants
//! Named at [`Manifest::verify`].

use std::collections::BTreeMap;

use understory_format::{
    Beat, BlockAddress, Corruption, Direction, EditKind, Expected, Key, KeyRange, Level, ManifestEdit, Place,
    TableInfo,
};

use crate::error::ManifestError;
use crate::run::{Clash, Counters, Run};
use crate::table::Table;

/// The age of a run that is a whole level.
const WHOLE: Beat = Beat::new(0);

/// Which tables one tree has, level by level.
#[derive(Clone, Debug)]
pub struct Manifest<K: Key> {
    /// The runs of each level, newest first.
    levels: Vec<Vec<Run<K>>>,
    /// How many level 0 may have; 1 if it is one run whatever the age of its tables.
    runs_max: u8,
    version: u64,
}

impl<K: Key> Manifest<K> {
    /// A manifest of `levels` empty levels, the first of them in up to `runs_max` runs, or disjoint like the others
    /// if that is 1.
    pub fn new(levels: u8, runs_max: u8) -> Self {
        let mut manifest = Self { levels: Vec::new(), runs_max, version: 0 };
        let runs = (0..levels)
            .map(|level| if manifest.has_runs(level) { Vec::new() } else { vec![Run::new(WHOLE)] });
        manifest.levels = runs.collect();
        manifest
    }

    /// Builds the manifest of a tree from the newest edit of each of its tables, in any order, and verifies
    /// it. O(n log n), where applying the edits one by one shifts tables at each.
    ///
    /// # Errors
    /// An edit that names no level of the tree, a remove, a table that breaks a rule, tables that overlap, too many
    /// runs.
    pub fn load(
        levels: u8,
        runs_max: u8,
        edits: impl IntoIterator<Item = ManifestEdit>,
    ) -> Result<Self, Corruption> {
        let mut manifest = Self::new(levels, runs_max);
        let mut runs: BTreeMap<(u8, Beat), Vec<Table<K>>> = BTreeMap::new();
        for edit in edits {
            let table = Table::new(edit.table)?;
            if edit.kind == EditKind::Remove {
                let rule = Expected::Rule("the newest edit of a live table is no remove");
                return Err(table.corruption("edit.kind", rule, 3));
            }
            let found = edit.level.get();
            if found >= levels {
                return Err(level_unknown(&table, levels, found));
            }
            runs.entry((found, manifest.run_of(edit.level, &table))).or_default().push(table);
        }
        // The greatest age first.
        for ((level, age), tables) in runs.into_iter().rev() {
            let run = Run::load(age, tables).map_err(|_| overflow(Place::Unplaced))?;
            // The empty run of a disjoint level has the same age.
            if let Some(level) = manifest.levels.get_mut(usize::from(level)) {
                level.retain(|other| other.age() != age);
                level.push(run);
            }
        }
        manifest.verify()?;
        Ok(manifest)
    }

    /// Whether a level may have several runs.
    pub(crate) const fn has_runs(&self, level: u8) -> bool {
        level == 0 && self.runs_max > 1
    }

    /// The age of the run that a table belongs to at a level.
    const fn run_of(&self, level: Level, table: &Table<K>) -> Beat {
        if self.has_runs(level.get()) { table.info.age } else { WHOLE }
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
        let old = self.get(from, &table).expect("the table is there");
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
        self.try_put(level, table).map_err(|clash| match clash {
            Clash::Overlap(other) => {
                ManifestError::Overlap { level, table: table.info.index.address, other }.into()
            }
            Clash::Overflow => overflow(Place::Block(table.info.index.address)),
            Clash::Runs => ManifestError::Runs { level, table: table.info.index.address }.into(),
        })?;
        self.version += 1;
        Ok(())
    }

    /// Puts `table` in its place, or says what is in its way and changes nothing.
    fn try_put(&mut self, level: Level, table: Table<K>) -> Result<(), Clash> {
        let sums = self.sums(level).ok_or(Clash::Overflow)?;
        if table.is_live() {
            sums.plus(&table).ok_or(Clash::Overflow)?;
        }
        let (age, runs_max) = (self.run_of(level, &table), usize::from(self.runs_max));
        let runs = self.at_mut(level);
        let index = runs.partition_point(|run| run.age() > age);
        if runs.get(index).is_none_or(|run| run.age() != age) {
            let live = runs.iter().filter(|run| run.is_live()).count();
            if table.is_live() && live >= runs_max {
                return Err(Clash::Runs);
            }
            runs.insert(index, Run::new(age));
        }
        runs.get_mut(index).expect("it is there by now").insert(table)
    }

    fn take(&mut self, level: Level, table: &Table<K>) -> Option<Table<K>> {
        self.version += 1;
        let has_runs = self.has_runs(level.get());
        let runs = self.at_mut(level);
        let removed = runs.iter_mut().find_map(|run| run.remove(table.info.index.address, table.key_max));
        if has_runs {
            runs.retain(|run| !run.all().is_empty());
        }
        removed
    }

    fn replace(&mut self, from: Level, to: Level, table: Table<K>) -> Result<(), Corruption> {
        let old = self.take(from, &table).expect("the caller located it");
        self.put(to, table).inspect_err(|_| {
            self.put(from, old).expect("it stood there a moment ago");
        })
    }

    /// The table of a level with the index block and the largest key of this one.
    pub(crate) fn get(&self, level: Level, table: &Table<K>) -> Option<&Table<K>> {
        self.runs(level).iter().find_map(|run| run.get(table.info.index.address, table.key_max))
    }

    /// The level at which a table with this index block and largest key stands.
    fn locate(&self, table: &Table<K>) -> Option<Level> {
        self.levels().find(|level| self.get(*level, table).is_some())
    }

    fn at_mut(&mut self, level: Level) -> &mut Vec<Run<K>> {
        self.levels.get_mut(usize::from(level.get())).expect("the level is one of the tree's")
    }

    /// The sums over a level; none if one does not fit, which only forged tables reach.
    fn sums(&self, level: Level) -> Option<Counters> {
        self.runs(level).iter().try_fold(Counters::default(), |sums, run| sums.and(run.live()))
    }

    fn live(&self, level: Level) -> Counters {
        self.sums(level).expect("checked when the tables came")
    }

    /// The runs of a level, newest first. A level that is no level 0 in runs is one run.
    ///
    /// # Panics
    /// If the level does not exist.
    pub fn runs(&self, level: Level) -> &[Run<K>] {
        self.levels.get(usize::from(level.get())).expect("the level is one of the tree's")
    }

    /// The runs of all levels, newest first: where a reader looks for a key, in this order.
    pub fn sources(&self) -> impl Iterator<Item = &Run<K>> {
        self.levels.iter().flatten()
    }

    /// The number of runs that level 0 may have; 1 if it is disjoint like the others.
    pub const fn runs_max(&self) -> u8 {
        self.runs_max
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
        self.sources().all(|run| run.all().is_empty())
    }

    /// All tables of all levels, live or not, level by level, run by run in order.
    pub fn tables(&self) -> impl Iterator<Item = (Level, &Table<K>)> {
        let of = |level| self.runs(level).iter().flat_map(Run::all).map(move |table| (level, table));
        self.levels().flat_map(of)
    }

    /// The tables of a level visible at `beat`, run by run, smallest keys first.
    pub fn iter(&self, level: Level, beat: Beat) -> impl Iterator<Item = &Table<K>> {
        self.runs(level).iter().flat_map(move |run| run.iter(beat, Direction::Ascending))
    }

    /// The live tables of a level that share a key with `min..=max`, run by run, smallest keys first.
    pub fn overlap(&self, level: Level, min: K, max: K) -> impl Iterator<Item = &Table<K>> {
        let of = move |range| {
            let runs = self.runs(level).iter();
            runs.flat_map(move |run| run.range(range, Beat::MAX, Direction::Ascending))
        };
        KeyRange::new(min, max).into_iter().flat_map(of)
    }

    /// The keys from the smallest to the largest of a level's live tables.
    pub fn key_range(&self, level: Level) -> Option<KeyRange<K>> {
        let of = |run: &Run<K>| {
            let first = run.iter(Beat::MAX, Direction::Ascending).next()?;
            let last = run.iter(Beat::MAX, Direction::Descending).next()?;
            Some(first.range().hull(&last.range()))
        };
        self.runs(level).iter().filter_map(of).reduce(|hull, range| hull.hull(&range))
    }

    /// Whether a tombstone written to level `target` with a key in `min..=max` may hide something older:
    /// whether any live table of a deeper level overlaps these keys. If not, such tombstones are dropped.
    pub fn must_keep_tombstones(&self, target: Level, min: K, max: K) -> bool {
        let mut deeper = self.levels().filter(|level| *level > target);
        deeper.any(|level| self.overlap(level, min, max).next().is_some())
    }

    /// The same for one that is written to level 0 in the place of runs of which `oldest` is the oldest: older
    /// runs may hold something, too.
    pub(crate) fn must_keep_in_run(&self, oldest: Beat, min: K, max: K) -> bool {
        let top = self.levels().next().expect("a tree has levels");
        let Some(range) = KeyRange::new(min, max) else { return false };
        let mut older = self.runs(top).iter().filter(|run| run.age() < oldest);
        let overlaps = |run: &Run<K>| run.range(range, Beat::MAX, Direction::Ascending).next().is_some();
        older.any(overlaps) || self.must_keep_tombstones(top, min, max)
    }

    /// Checks the whole manifest. O(n log n).
    ///
    /// Each table is what its description says; each index block belongs to one table; each run is sorted
    /// by (`key_max`, `beat_min`); no two tables of a run that some beat sees both share a key; counters
    /// equal a recount, and those of a level can be added; a level 0 in runs has no more than it may, the newest
    /// first, and each has its tables' age.
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
        self.levels().try_for_each(|level| self.verify_level(level))
    }

    fn verify_level(&self, level: Level) -> Result<(), ManifestError> {
        let runs = self.runs(level);
        if self.has_runs(level.get()) {
            let newest_first = runs.iter().map(Run::age).is_sorted_by(|newer, older| newer > older);
            assert!(newest_first, "runs stand newest first");
            let one_age = |run: &Run<K>| run.all().iter().all(|table| table.info.age == run.age());
            assert!(runs.iter().all(one_age), "tables of one run have its age");
            let excess = runs.iter().filter(|run| run.is_live()).nth(usize::from(self.runs_max));
            if let Some(table) = excess.and_then(|run| run.all().first()) {
                return Err(ManifestError::Runs { level, table: table.info.index.address });
            }
        } else {
            assert_eq!(runs.len(), 1, "a disjoint level is one run");
        }
        self.sums(level).ok_or(ManifestError::Overflow { level })?;
        runs.iter().try_for_each(|run| run.verify(level))
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
