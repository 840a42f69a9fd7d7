//! What one compaction takes, frozen at the start of its half-bar.
//!
//! Of a tree and a target level comes a list of disjoint plans: first, in key order, those that drain the
//! level above the target to its limit in values (or the one that writes the immutable memtable into level
//! 0), then, in key order, those that join small neighbours of the target which the first do not touch.
//!
//! # Invariants
//! - No table is in two plans of a list, and the tables that the plans put into the target do not overlap
//!   those that stay (tests against a model; the manifest asserts it when they are applied).
//! - A list depends on the manifest, the immutable memtable and the limits alone.
//!
//! # Not here
//! Which tables are chosen: `manifest`. Which targets a half-bar has: the forest.

use understory_format::{KeyRange, Level, Record};
use understory_manifest::{Choice, Manifest, Table};
use understory_table::Sealed;

/// The inputs of one compaction and what is done with them.
#[derive(Debug)]
pub struct Plan<R: Record> {
    /// The level that the outputs go to.
    pub target: Level,
    /// What is merged, newest first.
    pub input: Input<R>,
    /// Tables of the target level that are merged in, in key order.
    pub targets: Vec<Table<R::Key>>,
    /// Whether tombstones are written out, because a deeper level may hold what they hide.
    pub keep_tombstones: bool,
}

/// The newer side of a compaction.
#[derive(Debug)]
pub enum Input<R: Record> {
    /// The immutable memtable.
    Memtable(Sealed<R>),
    /// Tables of the level above the target, in key order; none if the target is only coalesced.
    Tables(Vec<Table<R::Key>>),
    /// A table of the level above that becomes one of the target as it is.
    Move(Table<R::Key>),
}

/// The limits that a plan keeps to, all in values of one tree.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// What one table holds at most.
    pub table_value_max: u64,
    /// By how much a level may be larger than the one above it.
    pub growth: u64,
    /// Whether level 0 is to be emptied.
    pub settle: bool,
}

impl Limits {
    /// What a level may hold when a half-bar has drained it, in values.
    #[must_use]
    pub fn level_value_max(&self, level: Level) -> u64 {
        if self.settle && level.get() == 0 {
            return 0;
        }
        self.growth.saturating_pow(u32::from(level.get()) + 1).saturating_mul(self.table_value_max)
    }
}

impl<R: Record> Plan<R> {
    /// The compactions of one tree into `target`. `immutable` is the memtable to flush, if there is one.
    ///
    /// # Panics
    /// If the immutable memtable is empty, or the tree has no such level.
    #[must_use]
    pub fn of_tree(
        manifest: &Manifest<R::Key>,
        immutable: Option<&Sealed<R>>,
        target: Level,
        limits: &Limits,
    ) -> Vec<Self> {
        let mut plans = Vec::new();
        let mut busy = Vec::new();
        if target.get() == 0 {
            if let Some(sealed) = immutable {
                let (plan, range) = Self::flush(manifest, sealed, limits);
                plans.push(plan);
                busy.push(range);
            }
        } else {
            let source = manifest.levels().nth(usize::from(target.get()) - 1);
            let source = source.expect("the level above a target that is not level 0");
            let choices = manifest.plan_level(source, limits.level_value_max(source));
            busy.extend(choices.iter().map(|choice| choice.range));
            plans.extend(choices.into_iter().map(|choice| Self::of_choice(target, choice)));
        }
        let joined = manifest.plan_coalesce(target, limits.table_value_max, &busy);
        plans.extend(joined.into_iter().map(|choice| Self::of_choice(target, choice)));
        plans
    }

    fn flush(manifest: &Manifest<R::Key>, sealed: &Sealed<R>, limits: &Limits) -> (Self, KeyRange<R::Key>) {
        let keys = sealed.key_range().expect("an immutable memtable that is to be flushed holds something");
        let choice = manifest.plan_flush(keys.min(), keys.max(), sealed.len(), limits.table_value_max);
        let plan = Self {
            target: manifest.levels().next().expect("a tree has levels"),
            input: Input::Memtable(sealed.clone()),
            targets: choice.targets,
            keep_tombstones: choice.keep_tombstones,
        };
        (plan, choice.range)
    }

    fn of_choice(target: Level, choice: Choice<R::Key>) -> Self {
        let Choice { sources, targets, keep_tombstones, is_move, .. } = choice;
        let input = match sources.as_slice() {
            [table] if is_move => Input::Move(*table),
            _ => Input::Tables(sources),
        };
        Self { target, input, targets, keep_tombstones }
    }

    /// Values that the compaction reads, tombstones and overwritten versions included; none for a move.
    #[must_use]
    pub fn input_value_count(&self) -> u64 {
        let values =
            |tables: &[Table<R::Key>]| tables.iter().map(|table| table.info.value_count).sum::<u64>();
        let newer = match &self.input {
            Input::Memtable(sealed) => sealed.len(),
            Input::Tables(sources) => values(sources),
            Input::Move(_) => 0,
        };
        newer + values(&self.targets)
    }

    /// The tables that the outputs replace, each with its level: those above the target first, in key order.
    pub(crate) fn replaced(&self) -> impl Iterator<Item = (Level, &Table<R::Key>)> {
        let above = Level::new(self.target.get().saturating_sub(1)).expect("above a level is a level");
        let sources = match &self.input {
            Input::Tables(sources) => sources.as_slice(),
            Input::Memtable(_) | Input::Move(_) => &[],
        };
        let sources = sources.iter().map(move |table| (above, table));
        sources.chain(self.targets.iter().map(|table| (self.target, table)))
    }
}
