//! The log on the real grid and simulated storage, against a map of tables.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;
use understory_format::{
    Beat, BlockAddress, Checksum, EditKind, Geometry, Level, ManifestEdit, ManifestRoot, Op, TableInfo,
    TreeId, TwinRef, u64_of,
};
use understory_grid::{CheckpointUpdate, FormatState, Grid, GridError, GridOptions, Reservation};
use understory_io::{Arena, CrashPolicy, Machine, SimStorage};

use crate::testing::table;
use crate::{LogError, ManifestLog};

mod compaction;
mod damage;
mod fuzz;

/// Records that a block of the small geometry holds.
const CAPACITY: u64 = 24;

/// Live tables, each as the insert that would make it so.
type Tables = BTreeMap<BlockAddress, ManifestEdit>;

/// What a record says of its table, whatever kind of record it is.
fn inserting(edit: ManifestEdit) -> ManifestEdit {
    ManifestEdit { kind: EditKind::Insert, ..edit }
}

fn geometry() -> Geometry {
    Geometry::small()
}

fn open_grid(machine: Machine) -> Result<Arc<Grid>, GridError> {
    let options = GridOptions { block_count: 24, page_count: 0, read_only: false };
    let arena = Arena::new(options.arena_size(&geometry()).unwrap()).unwrap();
    Grid::open(machine, &arena, options).map(Arc::new)
}

fn open_log(grid: &Arc<Grid>, root: &ManifestRoot) -> Result<(ManifestLog, Tables), LogError> {
    let mut log = ManifestLog::new(Arc::clone(grid), &geometry());
    let mut tables = Tables::new();
    log.open(root, &mut |edit| {
        assert_ne!(edit.kind, EditKind::Remove);
        assert_eq!(tables.insert(edit.table.index.address, inserting(edit)), None, "one record per table");
        Ok(())
    })?;
    Ok((log, tables))
}

/// A file with a log, and what should be in it.
struct Harness {
    storage: Arc<SimStorage>,
    grid: Arc<Grid>,
    log: ManifestLog,
    live: Tables,
    beat: u64,
    /// Records that were read to be kept.
    kept: usize,
}

impl Harness {
    fn new(seed: u64) -> Self {
        let (machine, storage) = Machine::sim(seed);
        let state = FormatState { geometry: geometry(), trees: &[], size_limit: None };
        Grid::format(&machine, &state).unwrap();
        let grid = open_grid(machine).unwrap();
        let log = ManifestLog::new(Arc::clone(&grid), &geometry());
        Self { storage, grid, log, live: Tables::new(), beat: 0, kept: 0 }
    }

    /// Opens the file of another harness as it was left, with another order of completions.
    fn reopen(image: Vec<u8>, seed: u64) -> Result<Self, LogError> {
        let (machine, storage) = Machine::sim_from(image, seed);
        let grid = open_grid(machine)?;
        let state = grid.checkpoint_state();
        let (log, live) = open_log(&grid, &state.manifest)?;
        Ok(Self { storage, grid, log, live, beat: state.beat.get(), kept: 0 })
    }

    /// A half-bar of these records, as the forest does it: the log last but for the releases.
    fn append(&mut self, edits: &[(EditKind, Option<BlockAddress>)], rng: &mut Rng) -> Result<(), LogError> {
        self.append_of(u64_of(edits.len()), edits, rng)
    }

    /// A half-bar that was planned for so many records.
    fn append_of(
        &mut self,
        edits_max: u64,
        edits: &[(EditKind, Option<BlockAddress>)],
        rng: &mut Rng,
    ) -> Result<(), LogError> {
        self.log.plan(edits_max);
        let addresses_max = self.log.addresses_max();
        self.log.start();
        let inserts = edits.iter().filter(|(kind, _)| *kind == EditKind::Insert).count();
        let mut reservation = self.grid.reserve(2 * u64_of(inserts))?;
        let (mut appended, mut released) = (Vec::new(), Vec::new());
        for (kind, address) in edits {
            let edit = match address.and_then(|address| self.live.get(&address)) {
                Some(edit) => self.changed(*kind, *edit, rng),
                None => self.inserted(&mut reservation, rng),
            };
            appended.push(edit);
            if edit.kind == EditKind::Remove {
                self.live.remove(&edit.table.index.address);
                released.extend([edit.table.index.address, edit.table.index.twin]);
            } else {
                self.live.insert(edit.table.index.address, inserting(edit));
            }
        }
        self.grid.forfeit(reservation);
        self.beat += 1;
        let before = self.grid.space().acquired;
        self.log.join()?;
        self.kept += self.log.records.len();
        self.log.apply(Beat::new(self.beat), appended.iter())?;
        assert!(self.grid.space().acquired - before <= addresses_max, "what is admitted suffices");
        for address in released {
            self.grid.release(address);
        }
        Ok(())
    }

    fn inserted(&self, reservation: &mut Reservation, rng: &mut Rng) -> ManifestEdit {
        let (address, twin) = (self.grid.acquire(reservation), self.grid.acquire(reservation));
        let checksum = Checksum::of(&self.beat.to_le_bytes());
        let tree = TreeId::new(rng.u16(1..5)).unwrap();
        let table = TableInfo { tree, ..table(TwinRef { address, twin, checksum }) };
        ManifestEdit { kind: EditKind::Insert, level: Level::new(rng.u8(0..4)).unwrap(), table }
    }

    fn changed(&self, kind: EditKind, edit: ManifestEdit, rng: &mut Rng) -> ManifestEdit {
        if kind == EditKind::Remove {
            return ManifestEdit { kind, ..edit };
        }
        let table = TableInfo { beat_max: Beat::new(self.beat + 1), ..edit.table };
        ManifestEdit { kind, level: Level::new(rng.u8(0..7)).unwrap(), table }
    }

    /// Random records: more inserts than removes while `grow`. Keeps away from tables touched in this step.
    fn step(&mut self, rng: &mut Rng, grow: bool) -> Result<(), LogError> {
        let mut tables: Vec<BlockAddress> = self.live.keys().copied().collect();
        let count = if rng.u8(0..8) == 0 { rng.u64(0..3 * CAPACITY) } else { rng.u64(0..8) };
        let mut edits = Vec::new();
        for _ in 0..count {
            let insert = rng.u8(0..10) < if grow { 6 } else { 2 };
            if insert || tables.is_empty() {
                edits.push((EditKind::Insert, None));
                continue;
            }
            let index = rng.usize(0..tables.len());
            if rng.bool() {
                edits.push((EditKind::Update, Some(tables[index])));
            } else {
                edits.push((EditKind::Remove, Some(tables.swap_remove(index))));
            }
        }
        self.append(&edits, rng)
    }

    fn checkpoint(&mut self) -> Result<ManifestRoot, LogError> {
        let manifest = self.log.checkpoint()?;
        let update = CheckpointUpdate {
            beat: Beat::new(self.beat),
            op_checkpoint: Op::ZERO,
            op_flushed: Op::ZERO,
            charge_total: 0,
            rolling_hash: Checksum::ZERO,
            manifest,
        };
        self.grid.checkpoint(&update)?;
        self.grid.free_due();
        Ok(manifest)
    }

    /// The log equals a replay and the model, and the free set accounts for every block.
    fn check(&self) {
        self.log.verify().unwrap();
        assert_eq!(self.log.table_count(), u64_of(self.live.len()));
        assert!(self.log.block_count() <= self.log.blocks_max());
        let space = self.grid.space();
        let tables = 2 * self.log.table_count();
        let log = u64_of(self.log.addresses().count());
        assert_eq!(space.acquired - space.released, self.grid.own_block_count() + log + tables);
    }

    /// A second log opened from the root has the same tables at the same extents.
    fn check_opens(&self, root: &ManifestRoot) {
        let (log, tables) = open_log(&self.grid, root).unwrap();
        assert_eq!(tables, self.live);
        for address in tables.keys() {
            assert_eq!(log.extent(*address), self.log.extent(*address));
        }
        assert!(log.block_refs().eq(self.log.block_refs()));
        log.verify().unwrap();
    }
}

#[test]
fn random_histories_survive_checkpoints_crashes_and_reopens() {
    let mut released = 0;
    for seed in 0..12 {
        let mut rng = Rng::with_seed(seed);
        let mut harness = Harness::new(seed);
        let mut saved = (Tables::new(), 0);
        for step in 0..150 {
            let before = harness.log.block_refs().len();
            harness.step(&mut rng, step % 60 < 35).unwrap();
            released += before.saturating_sub(harness.log.block_refs().len());
            match rng.u8(0..20) {
                0..2 => {
                    let root = harness.checkpoint().unwrap();
                    harness.check_opens(&root);
                    saved = (harness.live.clone(), harness.beat);
                }
                2 => {
                    let image = harness.storage.durable_image();
                    harness = Harness::reopen(image, rng.u64(..)).unwrap();
                    assert_eq!((&harness.live, harness.beat), (&saved.0, saved.1));
                    harness.grid.free_due();
                }
                _ => {}
            }
            harness.check();
        }
    }
    assert!(released > 10, "dead blocks are released before a checkpoint too: {released}");
}

#[test]
fn a_log_that_is_reopened_goes_on_as_if_it_had_not_been() {
    for seed in 0..6 {
        let mut rngs = [Rng::with_seed(seed), Rng::with_seed(seed)];
        let mut straight = Harness::new(1);
        let mut reopened = Harness::new(2);
        for step in 0..60 {
            let [first, second] = &mut rngs;
            // Down to an empty log now and then.
            let grow = step % 30 < 15;
            straight.step(first, grow).unwrap();
            reopened.step(second, grow).unwrap();
            if step % 30 == 29 {
                let all: Vec<_> = straight.live.keys().map(|key| (EditKind::Remove, Some(*key))).collect();
                straight.append(&all, first).unwrap();
                reopened.append(&all, second).unwrap();
            }
            if step % 3 == 2 {
                let root = straight.checkpoint().unwrap();
                assert_eq!(root, reopened.checkpoint().unwrap());
                assert_eq!(root.newest.is_none(), straight.live.is_empty());
                let ids = [&straight, &reopened].map(|harness| harness.grid.checkpoint_state().id());
                assert_eq!(ids[0], ids[1], "equal checkpoints at step {step}");
                reopened = Harness::reopen(reopened.storage.durable_image(), seed).unwrap();
                reopened.grid.free_due();
            }
        }
    }
}

#[test]
fn a_crash_at_any_operation_leaves_a_whole_checkpoint() {
    let mut crashed = 0;
    for at in 0.. {
        let mut harness = Harness::new(3);
        let base = harness.storage.operations();
        harness.storage.crash_at(base + at, CrashPolicy::KeepSubset(at));
        let mut rng = Rng::with_seed(at);
        let mut attempts: Vec<Tables> = vec![Tables::new()];
        let mut acknowledged = 0;
        for _ in 0..3 {
            let done = harness.step(&mut rng, true).and_then(|()| harness.step(&mut rng, false));
            attempts.push(harness.live.clone());
            if done.and_then(|()| harness.checkpoint()).is_err() {
                break;
            }
            acknowledged = attempts.len() - 1;
        }
        if !harness.storage.is_crashed() {
            break;
        }
        crashed += 1;
        let reopened = Harness::reopen(harness.storage.image(), at).unwrap();
        // The state that format makes is checkpoint number `format`.
        let format = Harness::new(3).grid.checkpoint_state().number;
        let index = usize::try_from(reopened.grid.checkpoint_state().number - format).unwrap();
        assert!(index >= acknowledged, "crash at {at}");
        assert_eq!(reopened.live, attempts[index], "crash at {at}");
        reopened.check();
    }
    assert!(crashed > 20, "operations crashed at: {crashed}");
}

#[test]
fn blocks_are_released_when_their_last_record_dies() {
    let mut rng = Rng::with_seed(7);
    let mut harness = Harness::new(7);
    let count = |harness: &mut Harness| {
        harness.check();
        harness.log.block_refs().len()
    };
    let inserts = vec![(EditKind::Insert, None); usize::try_from(CAPACITY).unwrap()];
    assert_eq!(harness.log.addresses_for(0), 0);
    assert_eq!(harness.log.addresses_for(1), 2);
    assert_eq!(harness.log.addresses_for(CAPACITY), 2);
    assert_eq!(harness.log.addresses_for(CAPACITY + 1), 4);
    harness.append(&inserts, &mut rng).unwrap();
    assert_eq!(harness.log.addresses_for(1), 2, "a full block has no room");
    let first: Vec<BlockAddress> = harness.live.keys().copied().collect();
    harness.append(&inserts, &mut rng).unwrap();
    assert_eq!(count(&mut harness), 2);
    // All records of the first block but one die: nothing. The second block is dead before the first: nothing.
    let removes = |tables: &[BlockAddress]| -> Vec<_> {
        tables.iter().map(|address| (EditKind::Remove, Some(*address))).collect()
    };
    let second: Vec<BlockAddress> = harness.live.keys().filter(|key| !first.contains(key)).copied().collect();
    harness.append(&removes(&first[1..]), &mut rng).unwrap();
    assert_eq!(count(&mut harness), 2);
    harness.append(&removes(&second), &mut rng).unwrap();
    assert_eq!(count(&mut harness), 3);
    // An update moves the last live record of the first block to the fourth, which it fills: three go.
    harness.append(&[(EditKind::Update, Some(first[0]))], &mut rng).unwrap();
    assert_eq!(count(&mut harness), 1);
    let root = harness.checkpoint().unwrap();
    assert_eq!(root.block_count, 1);
    harness.check_opens(&root);
    harness.append(&removes(&first[..1]), &mut rng).unwrap();
    assert_eq!(harness.checkpoint().unwrap(), ManifestRoot::default());
    harness.check();
}
