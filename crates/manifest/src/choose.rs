//! What a compaction takes: pure functions of the live tables.
//!
//! **Draining a level.** A level holds more values than its limit; whole tables move one level down until it
//! does not. What leaves together is a *window*: a table, or on a level 0 in runs a table with all tables of older runs
//! that it overlaps, and so on (`windows`). Of the windows, the one that makes the target rewrite the fewest values per
//! value of its own goes first, and a target table counts once however many windows share it, so that neighbours of a
//! chosen window get cheaper. Chosen windows that overlap the same target table form one [`Choice`].
//!
//! *Why the outputs are disjoint on the target level.* The inputs of a choice, sources and overlapped
//! targets, form one connected run of key ranges: each next one overlaps the hull of those before. So the
//! hull has no gap in which another table of the target level could lie, and two choices whose hulls overlap
//! would have been one. The outputs stay within the hull.
//!
//! *Why readers stay right.* A source table that was not chosen may lie inside the hull. It overlaps no chosen table
//! that is newer (of its own run none at all), so that what it has of a key is the newest still, one level above the
//! outputs, and a reader asks it first, as before. It is newer than every target and stays newer than what they become.
//!
//! *Why tombstones may go.* Only levels below the target matter, and none of them gains keys within the hull
//! while the plan runs: what they hold moves down only, and what would come to the level right below the
//! target leaves the target itself, which happens in the other half of a bar. Of the target's own level and the one
//! above it, all that is older than a source and overlaps it is an input.
//!
//! **Sinking.** To bring a tree to rest, all tables with tombstones leave too, level by level, until nothing is below that
//! they hide, and they are dropped: else what they hide is neither live nor given back.
//!
//! **Flush.** Into a merged level 0: the immutable memtable meets the tables that it overlaps, and small neighbours.
//! Into runs: it becomes a run of its own, with the youngest runs merged in that are small beside it, or that would be
//! too many (`flush`).
//!
//! **Coalescing.** Two neighbours that fit into one table become one, so that the number of tables follows
//! from the number of values. Tables of a run end where windows do; there only those are joined that are small.
//!
//! # Invariants
//! - Choices of one plan are in key order, their hulls disjoint, and every live target table that overlaps
//!   a hull is an input of that choice (asserted at the end of each plan).
//! - R20: all that is older than an input and overlaps it, on the same level, is an input too (asserted there).
//! - After a drain the level is at its limit or below (tests), after coalescing no two neighbours outside
//!   the busy ranges fit into one table (tests).
//!
//! # Not here
//! Limits and capacities, which are geometry, and when to ask.

use core::cmp::{Ordering, Reverse};
use core::ops::Range;
use std::collections::BTreeSet;

use understory_format::{Beat, Direction, Key, KeyRange, Level};

use crate::manifest::Manifest;
use crate::run::Run;
use crate::table::Table;

mod flush;
mod windows;

pub use flush::{Flush, FlushChoice};
use windows::Window;

/// Neighbours of a run are joined if they fit into a table together of which this is the inverse: tables of runs end
/// where windows do.
const RUN_SHARE: u64 = 8;

/// What leaves a level that is within its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    /// Nothing.
    Nothing,
    /// What holds tombstones.
    Tombstones,
}

/// The inputs of one compaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice<K: Key> {
    /// Tables of the source level, run by run, the newest first, each in key order; none if tables of the target level
    /// are only coalesced.
    pub sources: Vec<Vec<Table<K>>>,
    /// Tables of the target level in key order: all that overlap `range`; if tables of a run are coalesced, all of
    /// that run.
    pub targets: Vec<Table<K>>,
    /// The hull of all inputs. No other table of the target level overlaps it, inputs of other choices of
    /// the plan included, other runs apart; tables of the source level that are no inputs may.
    pub range: KeyRange<K>,
    /// Whether tombstones must be written out, because something older may hold what they hide.
    pub keep_tombstones: bool,
    /// Whether the only input is a source that becomes a table of the target level as it is. A table with
    /// tombstones that can be dropped is rewritten instead.
    pub is_move: bool,
}

impl<K: Key> Choice<K> {
    /// The values that the compaction reads, tombstones included; none for a move.
    pub fn value_count(&self) -> u64 {
        let inputs = self.sources.iter().flatten().chain(&self.targets);
        if self.is_move { 0 } else { inputs.map(|table| table.info.value_count).sum() }
    }
}

impl<K: Key> Manifest<K> {
    /// Plans compactions from `source` to the next level that bring `source` to `value_limit` values or below, and let
    /// leave it what is to `sink`; disjoint and in key order, none if nothing is to leave. O(n log n) in the tables of
    /// both, but for level 0 in runs: O(n^2) in its own, which are few.
    ///
    /// # Panics
    /// If `source` is the deepest level.
    pub fn plan_level(&self, source: Level, value_limit: u64, sink: Sink) -> Vec<Choice<K>> {
        let target = self.below(source);
        let excess = self.value_count(source).saturating_sub(value_limit);
        let is_full = self.has_runs(source.get()) && self.live_runs().count() == usize::from(self.runs_max());
        let sinks = sink == Sink::Tombstones && self.tombstone_count(source) > 0;
        if excess == 0 && !is_full && !sinks {
            return Vec::new();
        }
        let windows = self.windows(source, excess);
        let targets: Vec<&Table<K>> = self.iter(target, Beat::MAX).collect();
        let extents: Vec<_> = windows.iter().map(Window::extent).collect();
        let target_extents: Vec<_> = targets.iter().copied().map(Extent::of).collect();
        let mut first = if is_full { self.oldest(&windows, &target_extents) } else { Vec::new() };
        if sinks {
            first.extend(holding_tombstones(&windows));
            first.sort_unstable();
            first.dedup();
        }
        let chosen = drain(&extents, &target_extents, excess, &first);
        let extents: Vec<_> = chosen.iter().filter_map(|index| extents.get(*index).copied()).collect();
        let groups = join(&extents, &overlaps(&extents, &target_extents), &target_extents);
        let tables = |windows_of: &[usize]| -> Vec<&Table<K>> {
            let of = windows_of.iter().filter_map(|index| windows.get(*index));
            of.flat_map(|window| window.tables.iter().copied()).collect()
        };
        let plan: Vec<Choice<K>> = groups
            .into_iter()
            .map(|(own, overlapped)| {
                self.choice(target, tables(slice(&chosen, own)), slice(&targets, overlapped))
            })
            .collect();
        self.check(target, &plan);
        plan
    }

    /// Plans compactions within `level`, which is not in runs, that make one table of neighbours which fit into one of
    /// `table_value_max` values together, outside the `busy` ranges (the hulls of other compactions into this
    /// level), which are disjoint and in key order.
    pub fn plan_coalesce(&self, level: Level, table_value_max: u64, busy: &[KeyRange<K>]) -> Vec<Choice<K>> {
        let groups = neighbours(self.iter(level, Beat::MAX), table_value_max, busy);
        let plan: Vec<Choice<K>> = groups.iter().map(|group| self.choice(level, Vec::new(), group)).collect();
        self.check(level, &plan);
        plan
    }

    /// The same for a level 0 in runs but for the `youngest` runs, which the flush takes: neighbours of one run
    /// that fit into an eighth of a table together.
    pub fn plan_coalesce_runs(&self, table_value_max: u64, youngest: usize) -> Vec<Choice<K>> {
        let top = self.top();
        let mut plan = Vec::new();
        for run in self.runs(top).iter().skip(youngest) {
            let tables = run.iter(Beat::MAX, Direction::Ascending);
            for group in neighbours(tables, table_value_max / RUN_SHARE, &[]) {
                let (targets, range) = (owned(&group), hull(group.iter().copied()));
                let keep_tombstones = self.must_keep_in_run(run.age(), range.min(), range.max());
                plan.push(Choice { sources: Vec::new(), targets, range, keep_tombstones, is_move: false });
            }
        }
        plan
    }

    fn top(&self) -> Level {
        self.levels().next().expect("a tree has levels")
    }

    fn live_runs(&self) -> impl Iterator<Item = &Run<K>> {
        self.runs(self.top()).iter().filter(|run| run.is_live())
    }

    /// The windows that have to leave level 0 for its oldest run to be gone, if the target then rewrites no more than
    /// the next flush would by taking the youngest; none if not.
    fn oldest(&self, windows: &[Window<'_, K>], targets: &[Extent<K>]) -> Vec<usize> {
        let (Some(oldest), Some(youngest)) = (self.live_runs().last(), self.live_runs().next()) else {
            return Vec::new();
        };
        let is_oldest =
            |window: &Window<'_, K>| window.tables.iter().any(|table| table.info.age == oldest.age());
        let places: Vec<usize> = windows
            .iter()
            .enumerate()
            .filter(|(_, window)| is_oldest(window))
            .map(|(place, _)| place)
            .collect();
        let extents: Vec<_> =
            places.iter().filter_map(|place| windows.get(*place)).map(Window::extent).collect();
        let (mut overlapped, mut end) = (0_u64, 0);
        for span in overlaps(&extents, targets) {
            let fresh = slice(targets, span.start.max(end)..span.end.max(end));
            overlapped += fresh.iter().map(|target| target.value_count).sum::<u64>();
            end = span.end.max(end);
        }
        if overlapped <= youngest.live().value_count { places } else { Vec::new() }
    }

    fn below(&self, source: Level) -> Level {
        self.levels().find(|level| *level > source).expect("the deepest level is never drained")
    }

    fn choice(&self, target: Level, sources: Vec<&Table<K>>, targets: &[&Table<K>]) -> Choice<K> {
        let range = hull(sources.iter().chain(targets).copied());
        let keep_tombstones = self.must_keep_tombstones(target, range.min(), range.max());
        let droppable = |table: &&Table<K>| !keep_tombstones && table.info.tombstone_count > 0;
        let is_move = targets.is_empty() && sources.len() == 1 && !sources.iter().any(droppable);
        let (sources, targets) = (self.by_run(target, sources), owned(targets));
        Choice { sources, targets, range, keep_tombstones, is_move }
    }

    /// Tables of the level above the target, run by run.
    fn by_run(&self, target: Level, mut tables: Vec<&Table<K>>) -> Vec<Vec<Table<K>>> {
        let above = self.levels().take_while(|level| *level < target).last();
        let has_runs = above.is_some_and(|level| self.has_runs(level.get()));
        let age = |table: &Table<K>| Reverse(has_runs.then_some(table.info.age));
        tables.sort_by_key(|table| (age(table), table.key_min));
        tables.chunk_by(|one, next| age(one) == age(next)).map(owned).collect()
    }

    /// The check behind the first invariant.
    fn check(&self, target: Level, plan: &[Choice<K>]) {
        for (first, second) in plan.iter().zip(plan.iter().skip(1)) {
            assert!(first.range.max() < second.range.min(), "the hulls of a plan are disjoint and in order");
        }
        for choice in plan {
            let overlapped = self.overlap(target, choice.range.min(), choice.range.max());
            assert!(
                overlapped.eq(&choice.targets),
                "a choice takes all that its hull overlaps in the target"
            );
        }
        for choice in plan {
            self.check_older(&choice.sources.iter().flatten().collect::<Vec<_>>());
        }
    }

    /// R20, of tables that leave level 0, or a run of it.
    fn check_older(&self, inputs: &[&Table<K>]) {
        let top = self.top();
        if !self.has_runs(top.get()) {
            return;
        }
        for input in inputs.iter().filter(|input| self.get(top, input).is_some()) {
            let older = self.runs(top).iter().filter(|run| run.age() < input.info.age);
            let mut overlapped =
                older.flat_map(|run| run.range(input.range(), Beat::MAX, Direction::Ascending));
            assert!(overlapped.all(|table| inputs.contains(&table)), "R20: newer never goes without older");
        }
    }
}

/// The keys and the number of values of a table, or of what else goes as a whole.
#[derive(Clone, Copy, Debug)]
struct Extent<K> {
    min: K,
    max: K,
    value_count: u64,
}

impl<K: Key> Extent<K> {
    fn of(table: &Table<K>) -> Self {
        Self { min: table.key_min, max: table.key_max, value_count: table.info.value_count }
    }

    fn range(&self) -> KeyRange<K> {
        KeyRange::new(self.min, self.max).expect("the ends of a table are in order")
    }
}

/// The places of the windows with tombstones.
fn holding_tombstones<K: Key>(windows: &[Window<'_, K>]) -> impl Iterator<Item = usize> {
    let holds = |window: &Window<'_, K>| window.tables.iter().any(|table| table.info.tombstone_count > 0);
    windows.iter().enumerate().filter(move |(_, window)| holds(window)).map(|(place, _)| place)
}

fn owned<K: Key>(tables: &[&Table<K>]) -> Vec<Table<K>> {
    tables.iter().map(|table| **table).collect()
}

fn hull<'a, K: Key>(tables: impl Iterator<Item = &'a Table<K>>) -> KeyRange<K> {
    tables.map(Table::range).reduce(|hull, range| hull.hull(&range)).expect("a choice has inputs")
}

/// Neighbours among `tables`, disjoint and in key order, that fit into one of `value_max` values together: two at
/// least, outside the `busy` ranges and with none between them.
fn neighbours<'a, K: Key>(
    tables: impl Iterator<Item = &'a Table<K>>,
    value_max: u64,
    busy: &[KeyRange<K>],
) -> Vec<Vec<&'a Table<K>>> {
    let mut groups: Vec<Vec<&Table<K>>> = Vec::new();
    let (mut busy, mut room) = (busy.iter().peekable(), 0);
    for table in tables {
        let mut separate = false;
        while busy.next_if(|range| range.max() < table.key_min).is_some() {
            separate = true;
        }
        if busy.peek().is_some_and(|range| range.overlaps(&table.range())) {
            room = 0;
            continue;
        }
        let value_count = table.info.value_count;
        match groups.last_mut() {
            Some(group) if !separate && value_count <= room => {
                group.push(table);
                room -= value_count;
            }
            Some(_) | None => {
                groups.push(vec![table]);
                room = value_max.saturating_sub(value_count);
            }
        }
    }
    groups.retain(|group| group.len() > 1);
    groups
}

fn slice<T>(items: &[T], range: Range<usize>) -> &[T] {
    items.get(range).expect("the ranges of a plan lie within the level")
}

/// For each of `sources` those of `targets` that overlap it. Both are disjoint and in key order.
fn overlaps<K: Key>(sources: &[Extent<K>], targets: &[Extent<K>]) -> Vec<Range<usize>> {
    let (mut start, mut end) = (0, 0);
    let mut spans = Vec::with_capacity(sources.len());
    for source in sources {
        while targets.get(start).is_some_and(|target| target.max < source.min) {
            start += 1;
        }
        end = end.max(start);
        while targets.get(end).is_some_and(|target| target.min <= source.max) {
            end += 1;
        }
        spans.push(start..end);
    }
    spans
}

/// A source with the values of the target level that only it would make the plan rewrite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Candidate {
    overlapped: u64,
    own: u64,
    /// Its place on the level, which is the order of keys.
    index: usize,
}

impl Ord for Candidate {
    /// By `overlapped / own`, then by key.
    fn cmp(&self, other: &Self) -> Ordering {
        let (left, right) = (
            u128::from(self.overlapped) * u128::from(other.own),
            u128::from(other.overlapped) * u128::from(self.own),
        );
        left.cmp(&right).then(self.index.cmp(&other.index))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Chooses sources, the `first` and then the cheapest, until they hold `excess` values; gives their places in key
/// order.
fn drain<K: Key>(sources: &[Extent<K>], targets: &[Extent<K>], excess: u64, first: &[usize]) -> Vec<usize> {
    let spans = overlaps(sources, targets);
    let sharers = overlaps(targets, sources);
    let values =
        |span: &Range<usize>| slice(targets, span.clone()).iter().map(|target| target.value_count).sum();
    let mut candidates: Vec<Candidate> = sources
        .iter()
        .zip(&spans)
        .enumerate()
        .map(|(index, (source, span))| Candidate { overlapped: values(span), own: source.value_count, index })
        .collect();
    let mut queue: BTreeSet<Candidate> = candidates.iter().copied().collect();
    let mut taken = vec![false; targets.len()];
    let (mut chosen, mut drained) = (Vec::new(), 0);
    let mut first =
        first.iter().filter_map(|index| sources.get(*index).map(|source| (*index, source.value_count)));
    loop {
        let (index, own) = match first.next() {
            Some(first) => first,
            None if drained >= excess => break,
            None => queue.first().map(|next| (next.index, next.own)).expect("the level holds the excess"),
        };
        if let Some(candidate) = candidates.get(index) {
            queue.remove(candidate);
        }
        drained += own;
        chosen.push(index);
        for target in spans.get(index).cloned().into_iter().flatten() {
            let first_time = taken.get_mut(target).is_some_and(|taken| !core::mem::replace(taken, true));
            let (Some(extent), Some(sharers)) = (targets.get(target), sharers.get(target)) else { continue };
            if !first_time {
                continue;
            }
            for sharer in candidates.get_mut(sharers.clone()).into_iter().flatten() {
                let waiting = queue.remove(sharer);
                sharer.overlapped -= extent.value_count;
                if waiting {
                    queue.insert(*sharer);
                }
            }
        }
    }
    chosen.sort_unstable();
    chosen
}

/// Groups of sources, with their targets, whose hulls do not overlap.
fn join<K: Key>(
    sources: &[Extent<K>],
    spans: &[Range<usize>],
    targets: &[Extent<K>],
) -> Vec<(Range<usize>, Range<usize>)> {
    let mut groups: Vec<(Range<usize>, Range<usize>)> = Vec::new();
    let mut reach: Option<K> = None;
    for (index, (source, span)) in sources.iter().zip(spans).enumerate() {
        let overlapped = slice(targets, span.clone());
        let hull = overlapped.iter().fold(source.range(), |hull, target| hull.hull(&target.range()));
        match groups.last_mut() {
            Some((own, shared)) if reach.is_some_and(|reach| hull.min() <= reach) => {
                own.end = index + 1;
                shared.end = span.end.max(shared.end);
            }
            Some(_) | None => groups.push((index..index + 1, span.clone())),
        }
        reach = reach.max(Some(hull.max()));
    }
    groups
}

#[cfg(test)]
mod tests;
