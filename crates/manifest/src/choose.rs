//! What a compaction takes: pure functions of the live tables.
//!
//! **Draining a level.** A level holds more values than its limit; whole tables move one level down until it
//! does not. Of the tables, the one that makes the target rewrite the fewest values per value of its own goes
//! first, and a target table counts once however many sources share it, so that neighbours of a chosen table
//! get cheaper. Chosen tables that overlap the same target table form one [`Choice`].
//!
//! *Why the outputs are disjoint on the target level.* The inputs of a choice, sources and overlapped
//! targets, form one connected run of key ranges: each next one overlaps the hull of those before. So the
//! hull has no gap in which another table of the target level could lie, and two choices whose hulls overlap
//! would have been one. The outputs stay within the hull.
//!
//! *Why readers stay right.* A source table that was not chosen may lie inside the hull. It keeps its keys,
//! which no chosen source shares (a level's tables are disjoint), one level above the outputs, and a reader
//! asks it first, as before. It is newer than every target and stays newer than what they become.
//!
//! *Why tombstones may go.* Only levels below the target matter, and none of them gains keys within the hull
//! while the plan runs: what they hold moves down only, and what would come to the level right below the
//! target leaves the target itself, which happens in the other half of a bar.
//!
//! **Flush.** The immutable memtable meets the tables of level 0 that it overlaps, and small neighbours.
//!
//! **Coalescing.** Two neighbours that fit into one table become one, so that the number of tables follows
//! from the number of values.
//!
//! # Invariants
//! - Choices of one plan are in key order, their hulls disjoint, and every live target table that overlaps
//!   a hull is an input of that choice (asserted at the end of each plan).
//! - After a drain the level is at its limit or below (tests), after coalescing no two neighbours outside
//!   the busy ranges fit into one table (tests).
//!
//! # Not here
//! Limits and capacities, which are geometry, and when to ask.

use core::cmp::Ordering;
use core::ops::Range;
use std::collections::BTreeSet;

use understory_format::{Beat, Key, KeyRange, Level};

use crate::manifest::Manifest;
use crate::table::Table;

/// The inputs of one compaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice<K: Key> {
    /// Tables of the source level in key order; none if tables of the target level are only coalesced.
    pub sources: Vec<Table<K>>,
    /// Tables of the target level in key order: all that overlap `range`.
    pub targets: Vec<Table<K>>,
    /// The hull of all inputs. No other table of the target level overlaps it, inputs of other choices of
    /// the plan included; tables of the source level that are no inputs may.
    pub range: KeyRange<K>,
    /// Whether tombstones must be written out, because a deeper level may hold what they hide.
    pub keep_tombstones: bool,
    /// Whether the only input is a source that becomes a table of the target level as it is. A table with
    /// tombstones that can be dropped is rewritten instead.
    pub is_move: bool,
}

impl<K: Key> Choice<K> {
    /// The values that the compaction reads, tombstones included; none for a move.
    pub fn value_count(&self) -> u64 {
        let inputs = self.sources.iter().chain(&self.targets);
        if self.is_move { 0 } else { inputs.map(|table| table.info.value_count).sum() }
    }
}

/// What the flush of a memtable takes from level 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlushChoice<K: Key> {
    /// Tables of level 0 in key order: all that overlap `range`.
    pub targets: Vec<Table<K>>,
    /// The hull of the memtable and the targets.
    pub range: KeyRange<K>,
    /// Whether tombstones must be written out, because a deeper level may hold what they hide.
    pub keep_tombstones: bool,
}

impl<K: Key> Manifest<K> {
    /// Plans compactions from `source` to the next level that bring `source` to `value_limit` values or
    /// below, disjoint and in key order; none if it is there already. O(n log n) in the tables of both.
    ///
    /// # Panics
    /// If `source` is the deepest level.
    pub fn plan_level(&self, source: Level, value_limit: u64) -> Vec<Choice<K>> {
        let target = self.below(source);
        if self.value_count(source) <= value_limit {
            return Vec::new();
        }
        let sources: Vec<&Table<K>> = self.iter(source, Beat::MAX).collect();
        let targets: Vec<&Table<K>> = self.iter(target, Beat::MAX).collect();
        let excess = self.value_count(source) - value_limit;
        let chosen = drain(&sources, &targets, excess);
        let groups = join(&chosen, &overlaps(&chosen, &targets), &targets);
        let plan: Vec<Choice<K>> = groups
            .into_iter()
            .map(|(own, overlapped)| self.choice(target, slice(&chosen, own), slice(&targets, overlapped)))
            .collect();
        self.check(target, &plan);
        plan
    }

    /// Plans the flush of a memtable of `value_count` values from `min` to `max` into level 0, which is
    /// merged: the tables it overlaps, and neighbours small enough to share a table of `table_value_max`
    /// values with the result.
    ///
    /// # Panics
    /// If `min > max`.
    pub fn plan_flush(&self, min: K, max: K, value_count: u64, table_value_max: u64) -> FlushChoice<K> {
        let level = self.levels().next().expect("a tree has levels");
        let tables: Vec<&Table<K>> = self.iter(level, Beat::MAX).collect();
        let start = tables.partition_point(|table| table.key_max < min);
        let end = tables.partition_point(|table| table.key_min <= max);
        let inputs = widen(&tables, start..end, value_count, table_value_max);
        let targets: Vec<Table<K>> = slice(&tables, inputs).iter().map(|table| **table).collect();
        let memtable = KeyRange::new(min, max).expect("the bounds of a memtable are in order");
        let range = targets.iter().fold(memtable, |hull, table| hull.hull(&table.range()));
        let keep_tombstones = self.must_keep_tombstones(level, range.min(), range.max());
        FlushChoice { targets, range, keep_tombstones }
    }

    /// Plans compactions within `level` that make one table of neighbours which fit into one of
    /// `table_value_max` values together, outside the `busy` ranges (the hulls of other compactions into this
    /// level), which are disjoint and in key order.
    pub fn plan_coalesce(&self, level: Level, table_value_max: u64, busy: &[KeyRange<K>]) -> Vec<Choice<K>> {
        let mut groups: Vec<Vec<&Table<K>>> = Vec::new();
        let (mut busy, mut room) = (busy.iter().peekable(), 0);
        for table in self.iter(level, Beat::MAX) {
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
                    room = table_value_max.saturating_sub(value_count);
                }
            }
        }
        let several = groups.iter().filter(|group| group.len() > 1);
        let plan: Vec<Choice<K>> = several.map(|group| self.choice(level, &[], group)).collect();
        self.check(level, &plan);
        plan
    }

    fn below(&self, source: Level) -> Level {
        self.levels().find(|level| *level > source).expect("the deepest level is never drained")
    }

    fn choice(&self, target: Level, sources: &[&Table<K>], targets: &[&Table<K>]) -> Choice<K> {
        let sources: Vec<Table<K>> = sources.iter().map(|table| **table).collect();
        let targets: Vec<Table<K>> = targets.iter().map(|table| **table).collect();
        let ranges = sources.iter().chain(&targets).map(Table::range);
        let range = ranges.reduce(|hull, range| hull.hull(&range)).expect("a choice has inputs");
        let keep_tombstones = self.must_keep_tombstones(target, range.min(), range.max());
        let droppable = |table: &Table<K>| !keep_tombstones && table.info.tombstone_count > 0;
        let is_move = targets.is_empty() && sources.len() == 1 && !sources.iter().any(droppable);
        Choice { sources, targets, range, keep_tombstones, is_move }
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
    }
}

fn slice<T>(items: &[T], range: Range<usize>) -> &[T] {
    items.get(range).expect("the ranges of a plan lie within the level")
}

/// For each table of `sources` the run of `targets` that overlap it. Both are disjoint and in key order.
fn overlaps<K: Key>(sources: &[&Table<K>], targets: &[&Table<K>]) -> Vec<Range<usize>> {
    let (mut start, mut end) = (0, 0);
    let mut spans = Vec::with_capacity(sources.len());
    for source in sources {
        while targets.get(start).is_some_and(|target| target.key_max < source.key_min) {
            start += 1;
        }
        end = end.max(start);
        while targets.get(end).is_some_and(|target| target.key_min <= source.key_max) {
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

/// Chooses sources, the cheapest first, until they hold `excess` values; gives them in key order.
fn drain<'a, K: Key>(sources: &[&'a Table<K>], targets: &[&Table<K>], excess: u64) -> Vec<&'a Table<K>> {
    let spans = overlaps(sources, targets);
    let sharers = overlaps(targets, sources);
    let values =
        |span: &Range<usize>| slice(targets, span.clone()).iter().map(|table| table.info.value_count).sum();
    let mut candidates: Vec<Candidate> = sources
        .iter()
        .zip(&spans)
        .enumerate()
        .map(|(index, (table, span))| Candidate {
            overlapped: values(span),
            own: table.info.value_count,
            index,
        })
        .collect();
    let mut queue: BTreeSet<Candidate> = candidates.iter().copied().collect();
    let mut taken = vec![false; targets.len()];
    let (mut chosen, mut drained) = (Vec::new(), 0);
    while drained < excess {
        let Candidate { own, index, .. } = queue.pop_first().expect("the level holds the excess");
        drained += own;
        chosen.push(index);
        for target in spans.get(index).cloned().into_iter().flatten() {
            let first_time = taken.get_mut(target).is_some_and(|taken| !core::mem::replace(taken, true));
            let (Some(table), Some(sharers)) = (targets.get(target), sharers.get(target)) else { continue };
            if !first_time {
                continue;
            }
            for sharer in candidates.get_mut(sharers.clone()).into_iter().flatten() {
                let waiting = queue.remove(sharer);
                sharer.overlapped -= table.info.value_count;
                if waiting {
                    queue.insert(*sharer);
                }
            }
        }
    }
    chosen.sort_unstable();
    chosen.into_iter().filter_map(|index| sources.get(index).copied()).collect()
}

/// Groups of sources, with their targets, whose hulls do not overlap.
fn join<K: Key>(
    sources: &[&Table<K>],
    spans: &[Range<usize>],
    targets: &[&Table<K>],
) -> Vec<(Range<usize>, Range<usize>)> {
    let mut groups: Vec<(Range<usize>, Range<usize>)> = Vec::new();
    let mut reach: Option<K> = None;
    for (index, (source, span)) in sources.iter().zip(spans).enumerate() {
        let overlapped = slice(targets, span.clone());
        let hull = overlapped.iter().fold(source.range(), |hull, table| hull.hull(&table.range()));
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

/// Adds neighbours to the tables that a flush of `value_count` values meets, as long as result and neighbour
/// fit into one table. A result of several tables can only share its last one, and only roughly: how many
/// values are overwritten is not known before the merge.
fn widen<K: Key>(
    tables: &[&Table<K>],
    inputs: Range<usize>,
    value_count: u64,
    table_value_max: u64,
) -> Range<usize> {
    let Range { mut start, mut end } = inputs;
    let values = |index: usize| tables.get(index).map(|table| table.info.value_count);
    let met: u64 = slice(tables, start..end).iter().map(|table| table.info.value_count).sum();
    let mut total = value_count.saturating_add(met);
    while let Some(left) = start.checked_sub(1).and_then(values)
        && total.saturating_add(left) <= table_value_max
    {
        total += left;
        start -= 1;
    }
    let mut last = match total % table_value_max.max(1) {
        0 if total > 0 => table_value_max,
        rest => rest,
    };
    while let Some(right) = values(end)
        && last.saturating_add(right) <= table_value_max
    {
        last += right;
        end += 1;
    }
    start..end
}

#[cfg(test)]
mod tests;
