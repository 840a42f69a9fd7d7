//! Plans of whole bars, executed by a tree of plain maps: what readers see stays right.

use std::collections::BTreeMap;

use fastrand::Rng;
use understory_format::{Beat, BlockAddress, Direction, KeyRange, Level, TableInfo, u64_of};
use understory_testkit::Coverage;

use crate::testing::{info, level};
use crate::{Choice, Flush, FlushChoice, Manifest, Sink, Table};

/// Flushes and compactions of 250 half-bars, with everything read after each.
pub(super) fn run(seed: u64, coverage: &mut Coverage) {
    let mut rng = Rng::with_seed(seed);
    let runs_max = [1, 2, 3, 4, 8][usize::try_from(seed % 5).unwrap()];
    let mut model = Model::new(4, runs_max, coverage);
    model.table_value_max = [8, 24, 64][rng.usize(..3)];
    model.level0_value_max = model.table_value_max * [1, 4, 12][rng.usize(..3)];
    for _ in 0..250 {
        model.flush(&mut rng);
        model.check();
        for source in [0, 2, 1] {
            model.compact(&mut rng, source);
            model.check();
        }
        model.note();
    }
    for number in 1..4 {
        let busy = model.manifest.plan_coalesce(level(number), model.table_value_max, &[]);
        let (source, target) = (level(0), level(number));
        model.execute(&mut rng, source, target, busy);
        assert!(model.manifest.plan_coalesce(target, model.table_value_max, &[]).is_empty());
    }
    model.check();
}

/// A tree whose tables are plain lists of (key, version, or none for a tombstone).
struct Model<'a> {
    coverage: &'a mut Coverage,
    manifest: Manifest<u32>,
    contents: BTreeMap<BlockAddress, Vec<(u32, Option<u64>)>>,
    expected: BTreeMap<u32, u64>,
    address: u64,
    version: u64,
    /// Flushes so far.
    age: u64,
    /// Values of a table at most.
    table_value_max: u64,
    /// Values of level 0 at most when a bar ends.
    level0_value_max: u64,
}

const SPACE: u32 = 400;

/// What is put into a level: values, and where tables end.
struct Output<'a> {
    merged: BTreeMap<u32, Option<u64>>,
    cuts: &'a [u32],
    keep_tombstones: bool,
    age: Beat,
}

impl<'a> Model<'a> {
    fn new(levels: u8, runs_max: u8, coverage: &'a mut Coverage) -> Self {
        let (contents, expected) = (BTreeMap::new(), BTreeMap::new());
        let manifest = Manifest::new(levels, runs_max);
        Self {
            coverage,
            manifest,
            contents,
            expected,
            address: 1,
            version: 0,
            age: 0,
            table_value_max: 8,
            level0_value_max: 8,
        }
    }

    fn read(&self, key: u32) -> Option<u64> {
        for run in self.manifest.sources() {
            let Some(table) = run.find(key, Beat::MAX) else { continue };
            let content = &self.contents[&table.info.index.address];
            if let Ok(found) = content.binary_search_by_key(&key, |(key, _)| *key) {
                return content[found].1;
            }
        }
        None
    }

    /// Takes tables out, run by run, the newest first, and puts what they hold over what was merged.
    fn take(&mut self, level: Level, runs: &[Vec<Table<u32>>], merged: &mut BTreeMap<u32, Option<u64>>) {
        for table in runs.iter().rev().flatten() {
            self.manifest.remove(level, table);
            merged.extend(self.contents.remove(&table.info.index.address).unwrap());
        }
    }

    fn put(&mut self, level: Level, output: Output<'_>) {
        let Output { merged, cuts, keep_tombstones, age } = output;
        let kept = |entry: &(u32, Option<u64>)| keep_tombstones || entry.1.is_some();
        let before = merged.len();
        let values: Vec<_> = merged.into_iter().filter(kept).collect();
        self.coverage.count("tombstones dropped", u64_of(before - values.len()));
        self.coverage.count("cuts of flushes", u64_of(cuts.len()));
        let piece = |key: u32| cuts.iter().filter(|cut| **cut < key).count();
        let table_value_max = usize::try_from(self.table_value_max).unwrap();
        let pieces = values.chunk_by(|one, next| piece(one.0) == piece(next.0));
        for content in pieces.flat_map(|piece| piece.chunks(table_value_max)) {
            self.address += 2;
            let (min, max) = (content[0].0, content.last().unwrap().0);
            let info = info(self.address, min, max, u64_of(content.len()));
            let tombstone_count = u64_of(content.iter().filter(|(_, value)| value.is_none()).count());
            let info = TableInfo { tombstone_count, age, beat_min: Beat::new(self.age), ..info };
            self.contents.insert(info.index.address, content.to_vec());
            self.manifest.insert(level, Table::new(info).unwrap());
        }
    }

    fn flush(&mut self, rng: &mut Rng) {
        let mut memtable = BTreeMap::new();
        let (base, width) = (rng.u32(0..SPACE), if rng.bool() { SPACE } else { rng.u32(1..40) });
        let count = if rng.u8(0..4) == 0 { rng.u32(1..80) } else { rng.u32(1..20) };
        for _ in 0..count {
            let key = (base + rng.u32(0..width)) % SPACE;
            self.version += 1;
            if rng.u8(0..4) == 0 {
                memtable.insert(key, None);
                self.expected.remove(&key);
            } else {
                memtable.insert(key, Some(self.version));
                self.expected.insert(key, self.version);
            }
        }
        self.age += 1;
        let (min, max) = (*memtable.first_key_value().unwrap().0, *memtable.last_key_value().unwrap().0);
        let range = KeyRange::new(min, max).unwrap();
        let sample: Vec<u32> = memtable.keys().copied().step_by(rng.usize(1..4)).collect();
        let flush = Flush { range, value_count: u64_of(memtable.len()), sample: &sample };
        let choice = self.manifest.plan_flush(&flush, self.table_value_max);
        self.check_flush(&choice, u64_of(memtable.len()));
        let youngest = choice.targets.len();
        let joined = match self.manifest.runs_max() {
            1 => Vec::new(),
            _ => self.manifest.plan_coalesce_runs(self.table_value_max, youngest),
        };
        self.coverage.most("most tables that a flush meets", u64_of(choice.targets.concat().len()));
        self.coverage.count("runs joined", u64_of(joined.len()));
        let mut merged = BTreeMap::new();
        self.take(level(0), &choice.targets, &mut merged);
        merged.extend(memtable);
        let (keep_tombstones, age) = (choice.keep_tombstones, Beat::new(self.age));
        self.put(level(0), Output { merged, cuts: &choice.cuts, keep_tombstones, age });
        self.execute(rng, level(0), level(0), joined);
        self.check_runs();
        self.note_runs();
    }

    /// R19: a flush takes whole runs, the youngest, and only if they are too many or small beside it.
    fn check_flush(&self, choice: &FlushChoice<u32>, value_count: u64) {
        assert!(choice.cuts.is_sorted_by(|one, next| one < next), "{:?}", choice.cuts);
        let runs = self.manifest.runs(level(0));
        if self.manifest.runs_max() == 1 {
            return;
        }
        let too_many = runs.len() == usize::from(self.manifest.runs_max());
        assert!(!too_many || !choice.targets.is_empty(), "there is room for a run more");
        let mut gathered = value_count;
        for (place, (run, taken)) in runs.iter().zip(&choice.targets).enumerate() {
            assert!(run.iter(Beat::MAX, Direction::Ascending).eq(taken), "a run is taken whole");
            let values: u64 = taken.iter().map(|table| table.info.value_count).sum();
            let is_small = if too_many { values <= gathered } else { 8 * values <= gathered };
            assert!(is_small || too_many && place == 0, "{values} values beside {gathered}");
            gathered += values;
        }
    }

    /// R19: level 0 has no more runs than it may, and of a run no two neighbours fit into an eighth of a table.
    fn check_runs(&self) {
        let runs = self.manifest.runs(level(0));
        assert!(runs.len() <= usize::from(self.manifest.runs_max()));
    }

    /// Executes a whole plan on the state it was made for, in any order.
    fn execute(&mut self, rng: &mut Rng, source: Level, target: Level, mut plan: Vec<Choice<u32>>) {
        rng.shuffle(&mut plan);
        for choice in plan {
            if choice.is_move {
                self.manifest.update(source, target, choice.sources[0][0]);
                self.coverage.count("tables moved", 1);
                continue;
            }
            let inputs = choice.sources.iter().flatten().chain(&choice.targets);
            let age = inputs.map(|table| table.info.age).max().unwrap();
            let shape = if choice.sources.is_empty() { "neighbours joined" } else { "compactions" };
            self.coverage.count(shape, 1);
            self.coverage.most("most runs in a compaction", u64_of(choice.sources.len()));
            self.coverage.most("most tables in a compaction", u64_of(choice.sources.concat().len()));
            let mut merged = BTreeMap::new();
            self.take(target, &[choice.targets], &mut merged);
            self.take(source, &choice.sources, &mut merged);
            self.put(target, Output { merged, cuts: &[], keep_tombstones: choice.keep_tombstones, age });
        }
    }

    /// Values of a level at most when it has been drained.
    fn limit(&self, number: u8) -> u64 {
        if number == 0 { self.level0_value_max } else { self.table_value_max << (2 * number) }
    }

    fn compact(&mut self, rng: &mut Rng, number: u8) {
        let (source, target) = (level(number), level(number + 1));
        let limit = if rng.u8(0..16) == 0 { 0 } else { self.limit(number) };
        let sink = if rng.u8(0..8) == 0 { Sink::Tombstones } else { Sink::Nothing };
        let plan = self.manifest.plan_level(source, limit, sink);
        self.check_older(&plan);
        let busy: Vec<_> = plan.iter().map(|choice| choice.range).collect();
        let small = self.manifest.plan_coalesce(target, self.table_value_max, &busy);
        self.execute(rng, source, target, plan.into_iter().chain(small).collect());
        assert!(self.manifest.value_count(source) <= limit);
        // On a level 0 in runs, slight tables stay.
        let is_disjoint = number > 0 || self.manifest.runs_max() == 1;
        assert!(sink == Sink::Nothing || !is_disjoint || self.manifest.tombstone_count(source) == 0);
    }

    /// R20: of level 0 in runs, what is older than an input and overlaps it is an input of the same choice, and newer
    /// inputs stand first.
    fn check_older(&self, plan: &[Choice<u32>]) {
        if self.manifest.runs_max() == 1 {
            return;
        }
        for choice in plan {
            let sources = choice.sources.concat();
            assert!(
                choice.sources.iter().is_sorted_by(|a, b| a[0].info.age > b[0].info.age)
                    || sources[0].info.age == sources.last().unwrap().info.age
                    || self.manifest.get(level(0), &sources[0]).is_none()
            );
            for source in sources.iter().filter(|source| self.manifest.get(level(0), source).is_some()) {
                for other in self.manifest.iter(level(0), Beat::MAX) {
                    let is_below =
                        other.info.age < source.info.age && other.range().overlaps(&source.range());
                    assert!(!is_below || sources.contains(other), "{other:?} stays below {source:?}");
                }
            }
        }
    }

    fn check(&self) {
        self.manifest.verify().unwrap();
        for key in 0..SPACE {
            assert_eq!(self.read(key), self.expected.get(&key).copied(), "key {key}");
        }
    }

    /// How full it is.
    fn note(&mut self) {
        let names =
            ["most values, level 0", "most values, level 1", "most values, level 2", "most values, level 3"];
        for (number, name) in (0..).zip(names) {
            self.coverage.most(name, self.manifest.value_count(level(number)));
        }
    }

    /// How many runs there are after a flush.
    fn note_runs(&mut self) {
        let runs = u64_of(self.manifest.runs(level(0)).len());
        self.coverage.most("most runs", runs);
        let is_full = self.manifest.runs_max() > 1 && runs == u64::from(self.manifest.runs_max());
        self.coverage.count("level 0 has all the runs that it may", u64::from(is_full));
    }
}
