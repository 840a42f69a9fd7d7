//! Checkpoints: what the running grid and the reopened one know is the same.

use understory_format::{Op, Superblock};
use understory_io::Storage;

use super::*;

/// Writes and releases at random, with checkpoints and frees where a forest would have them.
struct Load {
    random: fastrand::Rng,
    live: Vec<(TwinRef, Vec<u8>)>,
    beat: u64,
}

impl Load {
    fn new(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), live: Vec::new(), beat: 0 }
    }

    fn bar(&mut self, grid: &Grid) {
        let mut reservation = grid.reserve(20).unwrap();
        for _ in 0..self.random.usize(0..10) {
            let bytes = vec![self.random.u8(..); self.random.usize(1..3800)];
            self.live.push((write_twin(grid, &mut reservation, &bytes).unwrap(), bytes));
        }
        grid.forfeit(reservation);
        while self.live.len() > 15 {
            let (reference, _) = self.live.swap_remove(self.random.usize(..self.live.len()));
            grid.release(reference.address);
            grid.release(reference.twin);
        }
        self.beat += 1;
        grid.checkpoint(&update(self.beat)).unwrap();
        if self.random.u32(0..8) > 0 {
            grid.free_due();
        }
    }

    fn check(&self, grid: &Grid) {
        for (reference, bytes) in &self.live {
            assert_eq!(contents(&grid.read_twin(*reference, KIND).unwrap()), bytes);
        }
        let space = grid.space();
        let live = u64::try_from(2 * self.live.len()).unwrap();
        assert_eq!(space.acquired - space.released, live + grid.own_block_count(), "no block is lost (R15)");
    }
}

#[test]
fn a_reopened_grid_is_in_an_equal_state() {
    for seed in 0..20 {
        let (machine, storage) = formatted(seed);
        let mut grid = open(&machine);
        let mut load = Load::new(seed);
        for _ in 0..12 {
            load.bar(&grid);
            load.check(&grid);
            // As it is after the checkpoint; the running one may have freed what was due since.
            let (other, _) = machine_of(storage.image());
            let again = open(&other);
            let (mut running, mut reopened) = (grid.free_set(), again.free_set());
            running.free_due();
            reopened.free_due();
            assert_eq!(running, reopened);
            assert_eq!(grid.checkpoint_state(), again.checkpoint_state());
            load.check(&again);
            if load.random.u32(0..4) == 0 {
                drop(grid);
                grid = open(&machine);
                grid.free_due();
            }
        }
    }
}

#[test]
fn the_same_work_gives_the_same_bytes() {
    let run = |seed: u64, options: GridOptions| {
        let (machine, storage) = formatted(seed);
        let grid = open_with(&machine, options).unwrap();
        let mut load = Load::new(5);
        let ids: Vec<_> = (0..10)
            .map(|_| {
                load.bar(&grid);
                grid.checkpoint_state().id()
            })
            .collect();
        let zone = usize::try_from(grid.geometry().grid_offset()).unwrap();
        (ids, storage.image()[zone..].to_vec())
    };
    let expected = run(1, OPTIONS);
    let small = GridOptions { block_count: 16, page_count: 0, ..OPTIONS };
    for (seed, options) in [(2, OPTIONS), (3, small)] {
        let found = run(seed, options);
        assert_eq!(found.0, expected.0, "ids of the checkpoints");
        assert!(found.1 == expected.1, "bytes of the grid");
    }
}

#[test]
fn a_checkpoint_is_linked_to_the_one_before() {
    let (machine, _) = formatted(1);
    let grid = open(&machine);
    let before = grid.checkpoint_state();
    let with = CheckpointUpdate {
        op_checkpoint: Op::new(40),
        op_flushed: Op::new(30),
        charge_total: 8192,
        rolling_hash: Checksum::new(5),
        ..update(9)
    };
    let id = grid.checkpoint_with(&with, |local| local.head_op = Op::new(41)).unwrap();
    let state = grid.checkpoint_state();
    assert_eq!((state.id(), state.parent, state.number), (id, before.id(), 1));
    assert_eq!((state.beat, state.op_checkpoint, state.op_flushed), (Beat::new(9), Op::new(40), Op::new(30)));
    assert_eq!((state.charge_total, state.rolling_hash), (8192, Checksum::new(5)));
    assert_eq!(grid.local_state().head_op, Op::new(41));
}

#[test]
fn a_local_superblock_keeps_the_checkpoint() {
    let (machine, storage) = formatted(1);
    let grid = open(&machine);
    grid.checkpoint(&update(1)).unwrap();
    let (state, local) = (grid.checkpoint_state(), grid.local_state());
    grid.update_local(|local| {
        local.head_op = Op::new(3);
        // Not the caller's to say.
        local.sequence = 1;
    })
    .unwrap();
    let Superblock { checkpoint, local: found } = Grid::peek(&machine_of(storage.image()).0).unwrap();
    assert_eq!((checkpoint, found.head_op, found.sequence), (state, Op::new(3), local.sequence + 1));
    assert_eq!(open(&machine).local_state().head_op, Op::new(3));
}

#[test]
fn releases_are_free_after_the_second_checkpoint() {
    let (machine, _) = formatted(1);
    let grid = open(&machine);
    let reference = write_one(&grid, b"x").unwrap();
    grid.release(reference.address);
    assert_eq!(grid.free_due(), 0);
    grid.checkpoint(&update(1)).unwrap();
    assert_eq!(grid.free_due(), 0);
    grid.checkpoint(&update(2)).unwrap();
    assert!(grid.is_released(reference.address) && grid.is_acquired(reference.address));
    assert!(!grid.is_released(reference.twin));
    assert_eq!(grid.free_due(), 1 + 2, "the block and the trailers of the format");
    assert!(!grid.is_acquired(reference.address));
    let mut reservation = grid.reserve(3).unwrap();
    let drawn: Vec<_> = (0..3).map(|_| grid.acquire(&mut reservation).get()).collect();
    assert_eq!(drawn, [3, 4, 5], "lowest first: trailers of the format, the block");
    grid.forfeit(reservation);
}

/// Releases with the number of the newest checkpoint that had been begun then, checkpoints, frees and reopenings in any
/// order that a forest may have them in.
struct Releases {
    machine: Machine,
    grid: Grid,
    random: fastrand::Rng,
    live: Vec<BlockAddress>,
    released: Vec<(BlockAddress, u64)>,
    beat: u64,
    /// Whether the releases of before were freed as soon as they could be.
    prompt: bool,
}

impl Releases {
    fn step(&mut self) {
        match self.random.u32(0..10) {
            0..4 => {
                let mut reservation = self.grid.reserve(3).unwrap();
                self.live.extend((0..3).map(|_| self.grid.acquire(&mut reservation)));
                self.grid.forfeit(reservation);
            }
            4..7 if !self.live.is_empty() => {
                let address = self.live.swap_remove(self.random.usize(..self.live.len()));
                self.grid.release(address);
                self.released.push((address, self.grid.staged_number()));
            }
            7 => self.checkpoint(),
            8 => {
                self.grid.free_due();
            }
            9 if self.random.bool() => {
                // What was not settled is lost.
                self.checkpoint();
                self.grid = open(&self.machine);
                self.prompt = false;
            }
            _ => {}
        }
    }

    fn checkpoint(&mut self) {
        self.beat += 1;
        let pending = self.grid.begin_checkpoint(&update(self.beat), |_| ()).unwrap();
        if self.random.bool() && !self.live.is_empty() {
            let address = self.live.swap_remove(self.random.usize(..self.live.len()));
            self.grid.release(address);
            self.released.push((address, self.beat));
            assert_eq!(self.grid.staged_number(), self.beat, "settled by the one after");
        }
        self.grid.finish_checkpoint(pending).unwrap();
    }

    /// Gives how many became free.
    fn check(&mut self) -> usize {
        let freed = self.grid.freed_number();
        let before = self.released.len();
        let Self { released, grid, prompt, .. } = self;
        released.retain(|&(address, number)| {
            let free = !grid.is_acquired(address);
            assert!(!free || freed >= number + 2, "{address}, released at {number}, freed by {freed}");
            assert!(
                free || !*prompt || freed < number + 2,
                "{address}, released at {number}, still at {freed}"
            );
            !free
        });
        before - self.released.len()
    }
}

#[test]
fn a_released_block_stays_until_the_second_checkpoint() {
    let mut count = 0;
    for seed in 0..60 {
        let (machine, _) = Machine::sim(seed);
        format_with(&machine, Geometry::small(), 1000).unwrap();
        let grid = open(&machine);
        assert_eq!((grid.staged_number(), grid.freed_number()), (0, 0));
        let random = fastrand::Rng::with_seed(seed);
        let (live, released) = (Vec::new(), Vec::new());
        let mut releases = Releases { machine, grid, random, live, released, beat: 0, prompt: true };
        for _ in 0..200 {
            releases.step();
            count += releases.check();
        }
    }
    assert!(count > 500, "{count}");
}

#[test]
#[should_panic(expected = "without reservations")]
fn a_checkpoint_under_a_reservation_is_our_mistake() {
    let (machine, _) = formatted(1);
    let grid = open(&machine);
    let _kept = grid.reserve(1).unwrap();
    drop(grid.checkpoint(&update(1)));
}

#[test]
#[should_panic(expected = "was not acquired")]
fn writing_to_a_free_block_is_our_mistake() {
    let (machine, _) = formatted(1);
    let grid = open(&machine);
    let [address, twin] = [50, 51].map(|number| BlockAddress::new(number).unwrap());
    drop(write_twin_at(&grid, address, twin, b"x"));
}

#[test]
fn a_free_set_of_many_blocks() {
    let (machine, storage) = Machine::sim(1);
    format_with(&machine, Geometry::small(), 20_000).unwrap();
    let grid = open(&machine);
    let mut reservation = grid.reserve(18_000).unwrap();
    let all: Vec<_> = (0..18_000).map(|_| grid.acquire(&mut reservation)).collect();
    grid.forfeit(reservation);
    let mut random = fastrand::Rng::with_seed(1);
    for beat in 1..4 {
        let unused: Vec<_> =
            all.iter().filter(|at| grid.is_acquired(**at) && !grid.is_released(**at)).collect();
        unused.into_iter().filter(|_| random.u32(0..4) == 0).for_each(|at| grid.release(*at));
        grid.checkpoint(&update(beat)).unwrap();
    }
    let state = grid.checkpoint_state();
    assert!(state.free_set.block_count > 1, "{:?}", state.free_set);
    grid.trim(0).unwrap();
    let (machine, other) = machine_of(storage.image());
    let again = open(&machine);
    assert_eq!(again.free_set(), grid.free_set());
    assert_eq!(again.own_block_count(), 2 + 2 * u64::from(state.free_set.block_count));
    // A chain that is cut or bent is no free set.
    let trailer = state.free_set.last.unwrap();
    for address in [trailer.address, trailer.twin] {
        other.corrupt(offset(&grid, address) + 256 + 9, 1);
    }
    assert!(matches!(open_with(&machine, OPTIONS), Err(GridError::Corrupt(_))));
}

#[test]
fn a_reader_beside_a_writer_sees_a_checkpoint() {
    let (machine, storage) = formatted(1);
    let grid = open(&machine);
    let mut load = Load::new(8);
    for _ in 0..6 {
        load.bar(&grid);
        let reader = open_with(&machine, READ_ONLY).unwrap();
        assert_eq!(reader.checkpoint_state(), grid.checkpoint_state());
        load.check(&reader);
    }
    assert!(storage.counters().writes > 0);
}
