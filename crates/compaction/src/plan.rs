//! What one compaction takes, frozen at the start of its half-bar.
//!
//! Of a tree and a target level comes a list of disjoint plans: first, in key order, those that drain the
//! level above the target to its limit in values (or the one that writes the immutable memtable into level
//! 0), then, in key order, those that join small neighbours of the target which the first do not touch; on a level 0 in
//! runs, run by run.
//!
//! # Invariants
//! - No table is in two plans of a list, and the tables that the plans put into the target do not overlap
//!   those that stay (tests against a model; the manifest asserts it when they are applied).
//! - A list depends on the manifest, the immutable memtable and the limits alone.
//!
//! # Not here
//! Which tables are chosen: `manifest`. Which targets a half-bar has: the forest.

use understory_format::{Geometry, Key, KeyRange, Level, Level0, Record};
use understory_manifest::{Choice, Flush, Manifest, Sink, Table};
use understory_table::Sealed;

/// So many values of a memtable tell where the tables of its flush are to end.
const SAMPLE: u32 = 1024;

/// The inputs of one compaction and what is done with them.
#[derive(Debug)]
pub struct Plan<R: Record> {
    /// The level that the outputs go to.
    pub target: Level,
    /// What is merged, newest first.
    pub input: Input<R>,
    /// Tables of the target level that are merged in, run by run, the newest first, each in key order; all older than
    /// the input.
    pub targets: Vec<Vec<Table<R::Key>>>,
    /// Keys behind which a table ends, ascending.
    pub cuts: Vec<R::Key>,
    /// Whether tombstones are written out, because something older may hold what they hide.
    pub keep_tombstones: bool,
}

/// The newer side of a compaction.
#[derive(Debug)]
pub enum Input<R: Record> {
    /// The immutable memtable.
    Memtable(Sealed<R>),
    /// Tables of the level above the target, run by run, the newest first, each in key order; none if the target is
    /// only coalesced.
    Tables(Vec<Vec<Table<R::Key>>>),
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
    /// What level 0 may hold when a half-bar has drained it.
    pub level0_value_max: u64,
    /// Whether level 0 is to be emptied, and what holds tombstones to leave every level.
    pub settle: bool,
}

impl Limits {
    /// The limits in a file of this geometry, of whose values a bar puts at most `bar_value_max` into the tree.
    ///
    /// The limit of a level 0 in runs is what they hold if each bar fills a memtable and drains as much: of the runs
    /// that stay, the newest is whole, and each older one has lost as much more.
    #[must_use]
    pub fn new(geometry: &Geometry, table_value_max: u64, bar_value_max: u64, settle: bool) -> Self {
        let growth = u64::from(geometry.growth);
        let merged = growth.saturating_mul(table_value_max);
        let level0_value_max = match geometry.level0 {
            Level0::Merged => merged,
            Level0::Runs => merged.max(bar_value_max.saturating_mul(u64::from(geometry.runs_max) - 1) / 2),
        };
        Self { table_value_max, growth, level0_value_max, settle }
    }

    /// What a level may hold when a half-bar has drained it, in values.
    #[must_use]
    pub fn level_value_max(&self, level: Level) -> u64 {
        if level.get() == 0 {
            return if self.settle { 0 } else { self.level0_value_max };
        }
        self.growth.saturating_pow(u32::from(level.get()) + 1).saturating_mul(self.table_value_max)
    }

    /// What `level` of this tree may hold when a half-bar has drained it, in values. To bring the tree to rest, that is no
    /// more than the part of what lies deeper that a full level is of a full one below: all of it may be newer versions
    /// of what is there, which is neither live nor given back before they meet.
    #[must_use]
    pub fn drained_to<K: Key>(&self, manifest: &Manifest<K>, level: Level) -> u64 {
        let usual = self.level_value_max(level);
        let deeper = manifest.levels().filter(|other| *other > level);
        match deeper.map(|other| manifest.value_count(other)).sum::<u64>() {
            deeper if self.settle && deeper > 0 => usual.min(deeper / self.growth),
            _ => usual,
        }
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
        if target.get() == 0 {
            return Self::into_level_0(manifest, immutable, limits);
        }
        let source = manifest.levels().nth(usize::from(target.get()) - 1);
        let source = source.expect("the level above a target that is not level 0");
        let sink = if limits.settle { Sink::Tombstones } else { Sink::Nothing };
        let choices = manifest.plan_level(source, limits.drained_to(manifest, source), sink);
        let busy: Vec<_> = choices.iter().map(|choice| choice.range).collect();
        let joined = manifest.plan_coalesce(target, limits.table_value_max, &busy);
        choices.into_iter().chain(joined).map(|choice| Self::of_choice(target, choice)).collect()
    }

    fn into_level_0(
        manifest: &Manifest<R::Key>,
        immutable: Option<&Sealed<R>>,
        limits: &Limits,
    ) -> Vec<Self> {
        let target = manifest.levels().next().expect("a tree has levels");
        let flush = immutable.map(|sealed| Self::flush(manifest, target, sealed, limits));
        let (flush, busy) = flush.unzip();
        let table_value_max = limits.table_value_max;
        let joined = if manifest.runs_max() > 1 {
            let youngest = flush.as_ref().map_or(0, |plan: &Self| plan.targets.len());
            manifest.plan_coalesce_runs(table_value_max, youngest)
        } else {
            manifest.plan_coalesce(target, table_value_max, busy.as_slice())
        };
        flush.into_iter().chain(joined.into_iter().map(|choice| Self::of_choice(target, choice))).collect()
    }

    /// The flush of the memtable, and the hull of what it takes.
    fn flush(
        manifest: &Manifest<R::Key>,
        target: Level,
        sealed: &Sealed<R>,
        limits: &Limits,
    ) -> (Self, KeyRange<R::Key>) {
        let range = sealed.key_range().expect("an immutable memtable that is to be flushed holds something");
        let sample = if manifest.runs_max() > 1 { sealed.sample(SAMPLE) } else { Vec::new() };
        let flush = Flush { range, value_count: sealed.len(), sample: &sample };
        let choice = manifest.plan_flush(&flush, limits.table_value_max);
        let plan = Self {
            target,
            input: Input::Memtable(sealed.clone()),
            targets: choice.targets,
            cuts: choice.cuts,
            keep_tombstones: choice.keep_tombstones,
        };
        (plan, choice.range)
    }

    fn of_choice(target: Level, choice: Choice<R::Key>) -> Self {
        let Choice { sources, targets, keep_tombstones, is_move, .. } = choice;
        let input = match sources.iter().flatten().next() {
            Some(table) if is_move => Input::Move(*table),
            Some(_) | None => Input::Tables(sources),
        };
        let targets = if targets.is_empty() { Vec::new() } else { vec![targets] };
        Self { target, input, targets, cuts: Vec::new(), keep_tombstones }
    }

    /// Values that the compaction reads, tombstones and overwritten versions included; none for a move.
    #[must_use]
    pub fn input_value_count(&self) -> u64 {
        let values = |runs: &[Vec<Table<R::Key>>]| {
            runs.iter().flatten().map(|table| table.info.value_count).sum::<u64>()
        };
        let newer = match &self.input {
            Input::Memtable(sealed) => sealed.len(),
            Input::Tables(sources) => values(sources),
            Input::Move(_) => 0,
        };
        newer + values(&self.targets)
    }

    /// The tables that the outputs replace, each with its level: those above the target first, run by run in key order.
    pub(crate) fn replaced(&self) -> impl Iterator<Item = (Level, &Table<R::Key>)> {
        let above = Level::new(self.target.get().saturating_sub(1)).expect("above a level is a level");
        let sources = match &self.input {
            Input::Tables(sources) => sources.as_slice(),
            Input::Memtable(_) | Input::Move(_) => &[],
        };
        let sources = sources.iter().flatten().map(move |table| (above, table));
        sources.chain(self.targets.iter().flatten().map(|table| (self.target, table)))
    }
}
