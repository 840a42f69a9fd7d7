//! Crashes at every operation of the storage: what is found afterwards is the old state or the new one.

use understory_format::{CheckpointState, TwinRef};
use understory_io::CrashPolicy;

use super::*;
use crate::FreeSet;

/// What a durable checkpoint must give back.
#[derive(Clone)]
struct Promise {
    state: CheckpointState,
    free_set: FreeSet,
    blocks: Vec<(TwinRef, u8)>,
}

/// What may be found: the last state that was acknowledged, or the one that was on its way.
#[derive(Default)]
struct History {
    promises: Vec<Promise>,
    live: Vec<(TwinRef, u8)>,
    /// Blocks of the checkpoint on its way.
    next: Vec<(TwinRef, u8)>,
    formatted: bool,
}

impl History {
    fn acknowledge(&mut self, grid: &Grid) {
        let (state, free_set) = (grid.checkpoint_state(), grid.free_set());
        self.promises.push(Promise { state, free_set, blocks: self.live.clone() });
    }

    /// Three bars with writes, releases and frees; a reopening and a local superblock between.
    fn run(&mut self, machine: &Machine) -> Result<(), GridError> {
        format_with(machine, Geometry::small(), 60)?;
        self.formatted = true;
        let mut grid = open_with(machine, OPTIONS)?;
        self.acknowledge(&grid);
        for beat in 1..5_u8 {
            let mut reservation = grid.reserve(8)?;
            for n in 0..4 {
                let fill = beat * 10 + n;
                self.live.push((write_twin(&grid, &mut reservation, &[fill; 700])?, fill));
            }
            grid.forfeit(reservation);
            for (reference, _) in self.live.drain(..2) {
                grid.release(reference.address);
                grid.release(reference.twin);
            }
            self.next = self.live.clone();
            grid.checkpoint(&update(u64::from(beat)))?;
            self.acknowledge(&grid);
            if beat == 2 {
                grid = open_with(machine, OPTIONS)?;
            }
            grid.free_due();
            if beat == 3 {
                grid.update_local(|local| local.incarnation += 1)?;
                grid.trim(0)?;
            }
        }
        Ok(())
    }

    fn check(&self, found: &Grid) {
        let state = found.checkpoint_state();
        let last = self.promises.last();
        let blocks = match last.filter(|last| last.state == state) {
            Some(last) => {
                assert_eq!(found.free_set(), last.free_set);
                &last.blocks
            }
            None => {
                let number = last.map_or(0, |last| last.state.number + 1);
                assert_eq!(state.number, number, "the checkpoint that was on its way");
                assert_eq!(state.parent, last.map_or(Checksum::ZERO, |last| last.state.id()));
                &self.next
            }
        };
        for (reference, fill) in blocks {
            for copy in [reference.first(), reference.second()] {
                assert_eq!(contents(&found.read(copy, KIND).unwrap()), [*fill; 700]);
            }
        }
        let space = found.space();
        let used = u64::try_from(2 * blocks.len()).unwrap() + found.own_block_count();
        assert_eq!(space.acquired - space.released, used, "R15");
    }
}

fn policies(operation: u64) -> Vec<CrashPolicy> {
    let subsets = (0..4).map(|n| CrashPolicy::KeepSubset(operation * 100 + n));
    std::iter::once(CrashPolicy::DropUnsynced).chain(subsets).collect()
}

/// What is found is right, and can be worked with.
fn check_after(history: &History, image: Vec<u8>) -> Option<u64> {
    let (machine, storage) = machine_of(image);
    match open_with(&machine, OPTIONS) {
        Ok(grid) => {
            history.check(&grid);
            grid.free_due();
            let state = grid.checkpoint_state();
            let added = write_one(&grid, b"after").unwrap();
            grid.checkpoint(&update(90)).unwrap();
            let again = open(&machine_of(storage.image()).0);
            assert_eq!(again.checkpoint_state().parent, state.id());
            assert_eq!(contents(&again.read_twin(added, KIND).unwrap()), b"after");
            Some(state.number)
        }
        Err(error) => {
            assert!(!history.formatted, "a file that was made opens: {error:?}");
            let typed = matches!(
                error,
                GridError::NotUnderstory | GridError::QuorumLost { .. } | GridError::Truncated { .. }
            );
            assert!(typed, "{error:?}");
            None
        }
    }
}

#[test]
fn a_crash_leaves_the_old_or_the_new_state() {
    let (machine, storage) = Machine::sim(1);
    History::default().run(&machine).unwrap();
    let operations = storage.operations();
    assert!(operations > 60);
    let mut found = std::collections::BTreeSet::new();
    for operation in 0..operations {
        for policy in policies(operation) {
            let (machine, storage) = Machine::sim(operation);
            storage.crash_at(operation, policy);
            let mut history = History::default();
            let error = history.run(&machine).unwrap_err();
            assert!(matches!(error, GridError::Io(_) | GridError::Unreadable { .. }), "{error}");
            let acknowledged = history.promises.last().map(|last| last.state.number);
            let number = check_after(&history, storage.image());
            found.insert((acknowledged, number));
        }
    }
    for number in 0..4 {
        assert!(found.contains(&(Some(number), Some(number))), "the old state is found at times: {found:?}");
        assert!(found.contains(&(Some(number), Some(number + 1))), "and the new one: {found:?}");
    }
}

/// A crash while opening after a crash: no sequence is used twice, whatever is seen of the others.
#[test]
fn crashes_while_opening_after_a_crash() {
    for seed in 0..150 {
        let (machine, storage) = Machine::sim(seed);
        let mut history = History::default();
        history.run(&machine).unwrap();
        let mut image = storage.image();
        let mut random = fastrand::Rng::with_seed(seed);
        let mut sequence = 0;
        for _ in 0..4 {
            let (machine, storage) = machine_of(image);
            let policy = CrashPolicy::KeepSubset(random.u64(..));
            storage.crash_at(random.u64(0..25), policy);
            if let Ok(grid) = open_with(&machine, OPTIONS) {
                assert!(grid.local_state().sequence > sequence);
                sequence = grid.local_state().sequence;
                storage.crash(policy);
            }
            image = storage.image();
        }
        let grid = open(&machine_of(image).0);
        history.check(&grid);
        assert!(grid.local_state().sequence > sequence);
    }
}
