//! What has to hold after every close, looked at from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use understory_format::{
    Beat, BlockAddress, BlockKind, EditKind, IndexView, Key, Level, Level0, ManifestEdit, Record, TrailerView,
};
use understory_grid::Grid;
use understory_manifest_log::ManifestLog;
use understory_testkit::{Item, Pair, Posting};

use crate::{CompactionStats, Forest, Half, TreeStats};

/// What was seen after the last close.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    /// Which blocks wait to be free, and since when: the number of checkpoints before their release.
    released: BTreeMap<BlockAddress, u64>,
    /// The live tables, by their index blocks.
    tables: BTreeSet<BlockAddress>,
    /// For each tree, the values in tables when the forest was opened.
    opened: Vec<u64>,
}

/// The forest's clock before a close.
pub(super) struct Before {
    beat: Beat,
    checkpoints: u64,
}

impl Watch {
    pub(super) fn new(forest: &Forest) -> Self {
        let checkpoints = forest.grid().checkpoint_state().number;
        let released = released(forest).into_iter().map(|address| (address, checkpoints)).collect();
        Self { released, tables: tables(forest), opened: table_values(forest) }
    }

    pub(super) fn before_close(&self, forest: &Forest) -> Before {
        Before { beat: forest.beat(), checkpoints: forest.grid().checkpoint_state().number }
    }

    /// What was released is what the checkpoint said.
    pub(super) fn after_open(&mut self, forest: &Forest) {
        self.opened = table_values(forest);
        assert_eq!(released(forest), self.released.keys().copied().collect());
        assert_eq!(tables(forest), self.tables);
        check_owners(forest);
        check_log(forest);
    }

    pub(super) fn after_close(&mut self, before: &Before, forest: &Forest) {
        let schedule = forest.schedule();
        let ends_half = schedule.ends_half_bar(before.beat);
        let checkpoints = forest.grid().checkpoint_state().number;
        assert_eq!(forest.beat(), before.beat.next());
        self.check_free(before, forest);
        self.check_visible(forest, ends_half);
        check_stats(forest);
        if ends_half {
            self.check_accounting(forest);
            verify_manifests(forest);
            check_runs::<Item>(forest);
            check_runs::<Pair>(forest);
            check_runs::<Posting>(forest);
            check_limits(forest, schedule.half(before.beat));
        }
        if checkpoints > before.checkpoints {
            assert!(schedule.ends_bar(before.beat), "a checkpoint is the end of a bar");
            // The work of the next beat may have begun. Before it, the forest compared the counts (R15).
            assert!(owned(forest).is_subset(&in_use(forest)), "what has an owner is in use");
            check_log(forest);
        }
    }

    /// While no compaction is half done: what was put is in a memtable, in a table or was dropped.
    fn check_accounting(&self, forest: &Forest) {
        for (tree, opened) in forest.stats().trees.iter().zip(&self.opened) {
            let flushed = tree.appended - tree.mutable_count - tree.immutable_count;
            let in_tables: u64 = tree.levels.iter().map(|level| level.value_count).sum();
            let dropped = compaction(tree).dropped;
            assert_eq!(opened + flushed, in_tables + dropped, "{}: {tree:?}", tree.name);
        }
    }

    /// R14, R4: blocks become free at the close of a first half-bar only, all those that were released before
    /// the previous checkpoint, and no other.
    fn check_free(&mut self, before: &Before, forest: &Forest) {
        let now = released(forest);
        let frees = forest.schedule().half(before.beat) == Half::First
            && forest.schedule().ends_half_bar(before.beat);
        let mut expected = self.released.clone();
        if frees {
            expected.retain(|_, released_after| *released_after + 2 > before.checkpoints);
        }
        for (address, released_after) in &self.released {
            let is_due = !expected.contains_key(address);
            assert_eq!(
                !now.contains(address),
                is_due,
                "{address}, released after checkpoint {released_after}, at the close of {}",
                before.beat
            );
            assert!(!is_due || !forest.grid().is_acquired(*address));
        }
        for address in now {
            expected.entry(address).or_insert(before.checkpoints);
        }
        self.released = expected;
    }
}

impl Watch {
    /// Tables come at the ends of half-bars, and the beat that opens is the first to see them.
    fn check_visible(&mut self, forest: &Forest, ends_half: bool) {
        for (_, table) in forest.tables() {
            if !self.tables.contains(&table.index.address) {
                assert!(ends_half);
                assert_eq!(table.beat_min, forest.beat());
                assert!(table.age <= forest.beat());
            }
        }
        let now = tables(forest);
        assert!(ends_half || now == self.tables);
        self.tables = now;
    }
}

fn tables(forest: &Forest) -> BTreeSet<BlockAddress> {
    forest.tables().map(|(_, table)| table.index.address).collect()
}

fn blocks(forest: &Forest, mut is: impl FnMut(BlockAddress) -> bool) -> BTreeSet<BlockAddress> {
    let highest = forest.grid().space().highest;
    (1..=highest).filter_map(BlockAddress::new).filter(|address| is(*address)).collect()
}

fn released(forest: &Forest) -> BTreeSet<BlockAddress> {
    let free_set = forest.grid().free_set();
    free_set.verify();
    blocks(forest, |address| free_set.is_released(address))
}

/// The values in tables, for each tree.
fn table_values(forest: &Forest) -> Vec<u64> {
    let values = |tree: &TreeStats| tree.levels.iter().map(|level| level.value_count).sum();
    forest.stats().trees.iter().map(values).collect()
}

/// What was compacted in all levels of a tree.
fn compaction(tree: &TreeStats) -> CompactionStats {
    let mut sum = CompactionStats::default();
    tree.levels.iter().for_each(|level| sum += level.compaction);
    sum
}

/// The figures agree with each other, and with what they are about.
fn check_stats(forest: &Forest) {
    let stats = forest.stats();
    assert_eq!(stats.beat, forest.beat());
    let mut sum = CompactionStats::default();
    for tree in &stats.trees {
        for level in &tree.levels {
            let CompactionStats { consumed, produced, dropped, .. } = level.compaction;
            assert_eq!(consumed, produced + dropped, "{}: {level:?}", tree.name);
        }
        sum += compaction(tree);
    }
    assert_eq!(stats.compaction, sum);
    let blocks: u64 = forest.tables().map(|(_, table)| 2 + u64::from(table.value_block_count)).sum();
    let levels = || stats.trees.iter().flat_map(|tree| &tree.levels);
    let has_filters = forest.grid().geometry().filter_bits > 0;
    assert!(
        levels().all(|level| level.filter_block_count >= if has_filters { level.table_count } else { 0 })
    );
    // Against the free set these are held by R15.
    let blocks = blocks + levels().map(|level| level.filter_block_count).sum::<u64>();
    let size: u64 = levels().map(|level| level.size).sum();
    assert_eq!(size, blocks * u64::from(forest.grid().geometry().block_size));
    let pace = stats.pace;
    assert_eq!(
        pace.done_total + pace.quota,
        pace.quota_total,
        "what was given is done but for the open beat"
    );
    let beats_left = forest.schedule().beats_left_in_half(forest.beat());
    let left = pace.work - pace.done;
    assert!(pace.quota >= left / beats_left && pace.quota <= left, "{pace:?}, {beats_left} beats left");
}

fn verify_manifests(forest: &Forest) {
    forest.tree::<Item>().unwrap().manifest().verify().unwrap();
    forest.tree::<Pair>().unwrap().manifest().verify().unwrap();
    forest.tree::<Posting>().unwrap().manifest().verify().unwrap();
}

/// R19: level 0 in runs has no more of them than it may, each disjoint, and all that is in one was flushed together.
fn check_runs<R: Record>(forest: &Forest) {
    let tree = forest.tree::<R>().unwrap();
    let manifest = tree.manifest();
    let is_merged = forest.grid().geometry().level0 == Level0::Merged;
    let tables = manifest.iter(Level::new(0).unwrap(), Beat::MAX);
    let run = |age: Beat| if is_merged { Beat::new(0) } else { age };
    let mut tables: Vec<_> =
        tables.map(|table| (run(table.info.age), table.key_min, table.key_max)).collect();
    let ages: BTreeSet<_> = tables.iter().map(|(age, _, _)| *age).collect();
    assert!(ages.len() <= usize::from(forest.grid().geometry().runs_max), "{ages:?}");
    tables.sort_unstable();
    for (one, next) in tables.iter().zip(tables.iter().skip(1)) {
        assert!(one.0 < next.0 || one.2 < next.1, "tables of a run are disjoint: {one:?}, {next:?}");
    }
}

/// A level is within its limit when it has just been drained: even ones after a first half-bar, odd ones after
/// a second. The deepest has none.
fn check_limits(forest: &Forest, half: Half) {
    let geometry = forest.grid().geometry();
    let drained = match half {
        Half::First => 0,
        Half::Second => 1,
    };
    let growth = u64::from(geometry.growth);
    let table_maxima = [
        forest.tree::<Item>().unwrap().layout().value_count_max,
        forest.tree::<Pair>().unwrap().layout().value_count_max,
        forest.tree::<Posting>().unwrap().layout().value_count_max,
    ];
    for (TreeStats { name, value_size, levels, .. }, table_max) in
        forest.stats().trees.iter().zip(table_maxima)
    {
        let bar = u64::from(geometry.share_size) * u64::from(geometry.beats_per_bar) / (value_size + 16);
        let deepest = levels.len() - 1;
        let drained = levels.iter().enumerate().take(deepest).skip(drained).step_by(2);
        for (level, stats) in drained {
            let mut limit = table_max * growth.pow(u32::try_from(level).unwrap() + 1);
            if level == 0 {
                limit = limit.max(bar * u64::from(geometry.runs_max - 1) / 2);
            }
            assert!(stats.value_count <= limit, "{name}, level {level}: {stats:?}, limit {limit}");
            assert_eq!(stats.value_count_max, Some(limit), "{name}, level {level}");
        }
    }
}

/// R15 block by block, while no compaction runs: what is in use is what the checkpoint leads to, each with one owner.
pub(super) fn check_owners(forest: &Forest) {
    assert_eq!(in_use(forest), owned(forest), "what is in use has an owner");
}

fn in_use(forest: &Forest) -> BTreeSet<BlockAddress> {
    let free_set = forest.grid().free_set();
    blocks(forest, |address| free_set.is_acquired(address) && !free_set.is_released(address))
}

fn owned(forest: &Forest) -> BTreeSet<BlockAddress> {
    let (grid, state) = (forest.grid(), forest.grid().checkpoint_state());
    let mut owned = vec![state.catalogue.address, state.catalogue.twin];
    let mut trailer = state.free_set.last;
    while let Some(reference) = trailer {
        owned.extend([reference.address, reference.twin]);
        let block = grid.read_twin(reference, BlockKind::FreeSet).unwrap();
        trailer = TrailerView::new(&block).unwrap().chunk().previous;
    }
    let (log, edits) = read_log(forest);
    owned.extend(log.addresses());
    for edit in &edits {
        owned.extend(table_blocks(grid, edit));
    }
    let mut listed: Vec<_> = edits.iter().map(|edit| (edit.level, edit.table)).collect();
    let mut live: Vec<_> = forest.tables().collect();
    let by_place =
        |entry: &(Level, understory_format::TableInfo)| (entry.1.tree, entry.0, entry.1.index.address);
    listed.sort_unstable_by_key(by_place);
    live.sort_unstable_by_key(by_place);
    assert_eq!(listed, live, "the log says what the manifests say");
    let count = owned.len();
    let owned: BTreeSet<_> = owned.into_iter().collect();
    assert_eq!(owned.len(), count, "a block has one owner");
    owned
}

/// The blocks of a table, by its index block alone.
fn table_blocks(grid: &Grid, edit: &ManifestEdit) -> Vec<BlockAddress> {
    let names = [Item::NAME, Pair::NAME, Posting::NAME];
    let sizes = [<Item as Record>::Key::SIZE, <Pair as Record>::Key::SIZE, <Posting as Record>::Key::SIZE];
    let tree = grid.trees().iter().find(|tree| tree.id == edit.table.tree).unwrap();
    let key_size = sizes[names.iter().position(|name| *name == tree.name.as_str()).unwrap()];
    let block = grid.read_twin(edit.table.index, BlockKind::Index).unwrap();
    let view = IndexView::new(&block, key_size).unwrap();
    let values = view.entries().map(|entry| entry.reference.address);
    let filter = view.filter_blocks().map(|block| block.unwrap().address);
    [edit.table.index.address, edit.table.index.twin].into_iter().chain(values).chain(filter).collect()
}

/// The log as the checkpoint has it: the newest edit of each live table, oldest first.
pub(super) fn read_log(forest: &Forest) -> (ManifestLog, Vec<ManifestEdit>) {
    let grid = forest.grid();
    let mut log = ManifestLog::new(Arc::clone(grid), grid.geometry());
    let mut edits = Vec::new();
    log.open(&grid.checkpoint_state().manifest, &mut |edit| {
        edits.push(edit);
        Ok(())
    })
    .unwrap();
    edits.reverse();
    (log, edits)
}

/// The log in memory is what the checkpoint leads to. R4: edits are logged in the order of half-bar, target level and
/// tree; what the log keeps of old blocks are updates.
fn check_log(forest: &Forest) {
    let (log, edits) = read_log(forest);
    log.verify().unwrap();
    forest.log.verify().unwrap();
    assert!(log.block_refs().eq(forest.log.block_refs()), "the checkpoint leads to the log as it is");
    for edit in &edits {
        let address = edit.table.index.address;
        assert_eq!(log.extent(address), forest.log.extent(address));
    }
    let inserts = edits.iter().filter(|edit| edit.kind == EditKind::Insert);
    let places: Vec<_> = inserts.map(|edit| (edit.table.beat_min, edit.level, edit.table.tree)).collect();
    assert!(places.is_sorted(), "{places:?}");
}
