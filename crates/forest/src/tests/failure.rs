//! A close that fails: the forest closes no other beat, answers as before, and the file is at a checkpoint.

use fastrand::Rng;
use understory_format::Place;
use understory_grid::GridError;
use understory_io::{CrashPolicy, IoCause, Machine};
use understory_table::TableError;

use super::{BLOCKS, Keys, Model, Rig, geometry, open};
use crate::ForestError;

/// Few buffers, so that compaction reads from the file.
const FEW_BLOCKS: u32 = 40;

/// A forest with a few levels, at rest, and what is done next with it.
struct Scene {
    rig: Rig,
    rng: Rng,
    keys: Keys,
}

impl Scene {
    fn new() -> Self {
        let mut rng = Rng::with_seed(5);
        let keys = Keys::new(&mut rng, 600);
        let mut rig = Rig::with_blocks(geometry(), 6, FEW_BLOCKS);
        for _ in 0..8 {
            rig.put_some(&mut rng, &keys, 200, 2);
            rig.close_bar(false);
        }
        rig.drain();
        rig.watches = false;
        Self { rig, rng, keys }
    }

    /// A few bars of work, with a checkpoint at the end of each second.
    fn work(&mut self) -> Result<(), ForestError> {
        for beat in 0..16 {
            self.rig.put_some(&mut self.rng, &self.keys, 60, 2);
            self.rig.close(beat >= 4 && beat % 8 < 4)?;
        }
        Ok(())
    }

    /// After a failure: nothing is closed any more, what can be read is right, and the file has a checkpoint.
    fn check_failed(mut self, error: &ForestError, readable: bool, what: &str) {
        let error = if self.rig.forest.has_failed() {
            error.to_string()
        } else {
            // The checkpoint has failed that the close of the next first half-bar waits for.
            let first = (0..4).find_map(|_| self.rig.forest.close_beat(None).err());
            first.expect("a failed checkpoint is found out").to_string()
        };
        assert!(self.rig.forest.has_failed(), "{what}");
        let read = self.rig.model.check(&self.rig.forest);
        assert!(!readable || read.is_ok(), "{what}: {read:?}");
        let again = self.rig.forest.close_beat(None).unwrap_err();
        assert_eq!(again.to_string(), error, "{what}: the first error is repeated");
        for image in [self.rig.sim.image(), self.rig.sim.durable_image()] {
            let (machine, _sim) = Machine::sim_from(image, 9);
            let reopened = open(&machine, BLOCKS).unwrap();
            super::watch::check_owners(&reopened);
            // The checkpoint that was being taken may be there.
            let op = reopened.grid().checkpoint_state().op_flushed.get();
            let known: Vec<&Model> = [&self.rig.durable.0, &self.rig.bar_before].into_iter().collect();
            let found = known.into_iter().find(|model| model.op == op);
            found.unwrap_or_else(|| panic!("{what}: op {op}")).check(&reopened).unwrap();
        }
    }
}

/// The operations that the work submits.
fn operations() -> std::ops::Range<u64> {
    let mut scene = Scene::new();
    let start = scene.rig.sim.operations();
    scene.work().unwrap();
    start..scene.rig.sim.operations()
}

#[test]
fn an_operation_fails() {
    let operations = operations();
    let (mut failed, mut reads) = (0, 0);
    let stride = usize::try_from((operations.end - operations.start) / 60).unwrap() | 1;
    for operation in operations.step_by(stride) {
        let mut scene = Scene::new();
        scene.rig.sim.inject(operation, IoCause::Injected);
        let what = format!("operation {operation}");
        match scene.work() {
            // A copy of metadata could not be read, and the other was; or a block that was read ahead.
            Ok(()) => scene.rig.model.check(&scene.rig.forest).unwrap(),
            Err(
                error @ ForestError::Grid(
                    GridError::Io(_) | GridError::Unreadable { .. } | GridError::Poisoned { .. },
                ),
            ) => {
                failed += 1;
                let readable = scene.rig.forest.grid().poison().is_none();
                let is_poisoned = matches!(error, ForestError::Grid(GridError::Poisoned { .. }));
                assert!(!readable || !is_poisoned, "{what}: {error}");
                reads += u32::from(readable);
                scene.check_failed(&error, readable, &what);
            }
            Err(error) => panic!("{what}: {error}"),
        }
    }
    assert!(failed > 20 && reads > 3, "{failed} failures, {reads} of reads");
}

#[test]
fn the_machine_stops() {
    let operations = operations();
    let stride = usize::try_from((operations.end - operations.start) / 30).unwrap() | 1;
    for operation in operations.step_by(stride) {
        let mut scene = Scene::new();
        scene.rig.sim.crash_at(operation, CrashPolicy::KeepSubset(operation));
        // The last operation may have been a read ahead, which nobody misses before the next beat.
        let mut result = scene.work();
        while result.is_ok() {
            assert!(scene.rig.sim.is_crashed(), "operation {operation} is one of the work's");
            result = scene.rig.close(false).map(|_| ());
        }
        let error = result.unwrap_err();
        assert!(matches!(error, ForestError::Grid(_)), "{error}");
        scene.check_failed(&error, false, &format!("operation {operation}"));
    }
}

/// The disk is full: a typed error, everything that was there can be read, and with space it goes on as if it had
/// never been full.
#[test]
fn a_full_file_changes_nothing() {
    let size = |scene: &Scene| scene.rig.forest.grid().machine().storage.size();
    let mut scene = Scene::new();
    let start = size(&scene);
    scene.work().unwrap();
    let end = size(&scene);
    assert!(end - start > 20 * 4096, "the work needs room");
    let expected = scene.rig.drain();
    let (mut failed, mut done) = (0, 0);
    for limit in (start..end + 40 * 4096).step_by(11 * 4096) {
        let mut scene = Scene::new();
        scene.rig.sim.set_size_limit(Some(limit));
        for beat in 0..16 {
            scene.rig.put_some(&mut scene.rng, &scene.keys, 60, 2);
            let mut full = 0;
            while let Err(error) = scene.rig.close(beat >= 4 && beat % 8 < 4) {
                let is_full = matches!(error, ForestError::Grid(GridError::OutOfSpace { needed: 1.., .. }));
                assert!(is_full, "limit {limit}: {error}");
                assert!(!scene.rig.forest.has_failed() && scene.rig.forest.grid().poison().is_none());
                scene.rig.model.check(&scene.rig.forest).unwrap();
                full += 1;
                if full == 2 {
                    scene.rig.sim.set_size_limit(None);
                }
                assert!(full <= 2, "with space it goes on");
            }
            failed += full / 2;
        }
        done += u32::from(failed == 0);
        scene.rig.model.check(&scene.rig.forest).unwrap();
        assert_eq!(scene.rig.drain(), expected, "limit {limit}");
    }
    assert!(failed > 2, "{failed} failed");
    println!("{failed} times full, {done} limits never reached");
}

/// A block that a compaction needs is damaged, and nobody has another: the close says which.
#[test]
fn a_compaction_meets_damage() {
    let scene = Scene::new();
    let table = scene.rig.forest.tables().find(|(level, _)| level.get() == 0).unwrap().1;
    let geometry = *scene.rig.forest.grid().geometry();
    // Tables have one block, whose header is looked at whoever reads it; its address follows the index's.
    let index = scene.rig.forest.grid().read_twin(table.index, understory_format::BlockKind::Index).unwrap();
    let entry = understory_format::IndexView::new(&index, 16).unwrap().entry(0);
    let damaged = entry.reference.address;
    let image = scene.rig.sim.durable_image();
    let (machine, sim) = Machine::sim_from(image, 3);
    sim.corrupt(geometry.block_offset(damaged) + 300, 1);
    let mut rig = Rig { forest: open(&machine, BLOCKS).unwrap(), sim, ..scene.rig };
    rig.forest.set_settle(true);
    let error = loop {
        rig.put::<understory_testkit::Pair>(1, false);
        match rig.forest.close_beat(None) {
            Ok(_) => assert!(rig.forest.beat().get() < 1_000, "level 0 is emptied"),
            Err(error) => break error,
        }
    };
    let ForestError::Corrupt(corruption) = &error else { panic!("{error}") };
    assert!(
        matches!(corruption.place, Place::Block(address) | Place::Page(address, _) if address == damaged),
        "{corruption}"
    );
    assert!(rig.forest.has_failed());
    let released = rig.forest.grid().is_released(damaged);
    assert!(!released, "the inputs stay");
    let read = rig.model.check(&rig.forest).unwrap_err();
    assert!(matches!(read, TableError::Corrupt(_)), "{read}");
    let key = rig.model.pairs.keys().next_back().copied().unwrap();
    rig.get::<understory_testkit::Pair>(key);
}
